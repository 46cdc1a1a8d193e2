//! The messages of `report/8`: a question of a few bytes, an answer of at most half a MiB.
//!
//! The asking side opens a link and may put any number of questions, one after the other; each is answered before the
//! next is read. Lists come in pages: an answer says whether there is more, and the next question where to go on.

use serde::{Deserialize, Serialize};

use super::report::{GroupReport, NodeReport, PeerReport, StoreReport, StreamReport};
use crate::{
    network::{Family, Protocol},
    primitives::{PeerId, Schema, StreamId},
};

/// The longest question, in bytes.
pub(super) const MAX_QUESTION: usize = 128;
/// The longest answer, in bytes.
pub const MAX_ANSWER: usize = 512 << 10;
/// A page is full when another item would make it longer than this, in bytes. One item is shorter than [`MAX_ANSWER`] by far.
const PAGE: usize = 192 << 10;

const NAME: &str = "report/8";

/// The protocol as the answering side sees it.
#[derive(Debug)]
pub(super) struct Answering;

impl Protocol for Answering {
    type Message = Message;
    const FAMILY: Family = Family::DIAGNOSTICS;
    const NAME: &'static str = NAME;
    const MAX_FRAME: usize = MAX_QUESTION;
    const MAX_SENT: usize = MAX_ANSWER;
}

/// The protocol as the asking side sees it.
#[derive(Debug)]
pub(super) struct Asking;

impl Protocol for Asking {
    type Message = Message;
    const FAMILY: Family = Family::DIAGNOSTICS;
    const NAME: &'static str = NAME;
    const MAX_FRAME: usize = MAX_ANSWER;
    const MAX_SENT: usize = MAX_QUESTION;
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Message {
    Ask(Question),
    Answer(Answer),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Question {
    /// Is anybody there?
    Ping,
    Node,
    /// The peers behind this one, in the order of their ids.
    Peers {
        after: Option<PeerId>,
    },
    /// All but the first so many.
    Streams {
        skip: u32,
    },
    /// All but the first so many.
    Groups {
        skip: u32,
    },
    /// All but the first so many.
    Stores {
        skip: u32,
    },
    /// The shape of a stream's items.
    Schema {
        stream: StreamId,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Answer {
    Pong,
    Node(Box<NodeReport>),
    Peers(Page<PeerReport>),
    Streams(Page<StreamReport>),
    Groups(Page<GroupReport>),
    Stores(Page<StoreReport>),
    /// `None`: the node has no end of the stream, or the shape is too large.
    Schema(Option<Schema>),
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Page<T> {
    pub(super) items: Vec<T>,
    pub(super) more: bool,
}

impl<T: Serialize> Page<T> {
    /// As many items as fit, at least one if there is one.
    pub(super) fn fill(all: impl Iterator<Item = T>) -> Self {
        let (mut items, mut bytes) = (Vec::new(), 0);
        for item in all {
            bytes += postcard::experimental::serialized_size(&item).unwrap_or(PAGE);
            if bytes > PAGE && !items.is_empty() {
                return Self { items, more: true };
            }
            items.push(item);
        }
        Self { items, more: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_hold_their_limit_and_lose_nothing() {
        let items: Vec<Vec<u8>> = (0..100u8).map(|i| vec![i; 10_000]).collect();
        let (mut seen, mut pages) = (Vec::new(), 0);
        loop {
            let page = Page::fill(items.iter().skip(seen.len()).cloned());
            assert!(postcard::to_allocvec(&page).is_ok_and(|bytes| bytes.len() <= PAGE + 16));
            seen.extend(page.items);
            pages += 1;
            if !page.more {
                break;
            }
        }
        assert_eq!((seen, pages), (items, 6));
    }

    #[test]
    fn every_question_is_short() {
        let peer = iroh::SecretKey::from_bytes(&[1; 32]).public().into();
        for question in [
            Question::Ping,
            Question::Node,
            Question::Peers { after: Some(peer) },
            Question::Streams { skip: u32::MAX },
            Question::Groups { skip: u32::MAX },
            Question::Stores { skip: u32::MAX },
            Question::Schema { stream: StreamId::from_bytes([255; 32]) },
        ] {
            let bytes = postcard::to_allocvec(&Message::Ask(question));
            assert!(bytes.is_ok_and(|bytes| bytes.len() <= MAX_QUESTION), "{question:?}");
        }
    }
}
