//! A stream whose items are put in order elsewhere: an [`Owner`] takes what is sent, and what it has decided comes back through a
//! [`Run`] and goes to the subscribers. Every node that runs it serves the same items under the same numbers.
//!
//! Who owns is none of this room's business (see `owned`). On the way to the consumer an item has its place in the owner's log in
//! front of it, as two varints, term and index.

use std::sync::{Arc, Weak};

use futures::future::BoxFuture;

use super::{
    core::frames::{is_message_pack, item_header, split_item},
    inspect,
    producer::{Shared, item_format},
};
use crate::primitives::{
    Format,
    varint::{take_varint, varint},
};

/// What became of an item that was offered to the owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offer {
    /// It is on its way.
    Taken,
    /// Too much is on its way: to be tried again when [`Run::wake`] was called.
    Full,
    /// This node may not send now.
    NotLeader,
}

/// What became of the items that this node has sent on a stream that a [group owns](super::ProducerBuilder::owned_by), since its
/// producer began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Committed {
    /// They are committed: every consumer gets them, in the order in which they were sent.
    pub committed: u64,
    /// They are certainly not, and never will be: another member leads, or the group did not take them within 10 s.
    pub refused: u64,
    /// Nothing answered in time; they may be committed, or may still be.
    pub unknown: u64,
}

impl Committed {
    /// All of them.
    #[must_use]
    pub const fn all(&self) -> u64 {
        self.committed + self.refused + self.unknown
    }
}

/// What an end says of the owner, for people.
pub(super) const fn ownership(owned: bool) -> &'static str {
    if owned { "owned by a group" } else { "owned by nobody (no `owner`, or `owned()` was not said)" }
}

/// Decides about the items of a stream.
pub(crate) trait Owner: Send + Sync {
    /// Takes a framed item; `reserved`: whether there is room or not. Called under the stream's lock: never waits, never calls back.
    fn offer(&self, framed: &[u8], reserved: bool) -> Offer;

    /// What an offer would come to now.
    fn room(&self) -> Offer;

    /// Whether it is known what the numbers of the stream are. Without that nobody is served.
    fn is_bound(&self) -> bool;

    /// For reports.
    fn view(&self) -> inspect::Owned;

    /// Resolves when it is known what became of all that was offered before.
    fn committed(&self) -> BoxFuture<'_, Committed>;
}

/// The producer's end of an owned stream, for its owner. Does not keep it alive.
#[derive(Clone)]
pub(crate) struct Run(pub(super) Weak<Shared>);

impl Run {
    /// Begins to count at `first`, under an epoch: whoever is subscribed comes back, with what it has.
    pub(crate) fn begin(&self, epoch: u64, first: u64) {
        if let Some(shared) = self.0.upgrade() {
            shared.begin_run(epoch, first);
        }
    }

    /// The next items, framed for consumers ([`placed`]).
    pub(crate) fn deliver(&self, framed: &[u8]) {
        if let Some(shared) = self.0.upgrade() {
            shared.deliver(framed);
        }
    }

    /// The owner is bound: those who wait to be served are.
    pub(crate) fn admit(&self) {
        if let Some(shared) = self.0.upgrade() {
            shared.look_again();
        }
    }

    /// Nobody is served any more until the owner is bound again.
    pub(crate) fn end(&self) {
        if let Some(shared) = self.0.upgrade() {
            shared.end_run();
        }
    }

    /// There is room again, or another answer, for those who wait for it.
    pub(crate) fn wake(&self) {
        if let Some(shared) = self.0.upgrade() {
            shared.wake_senders();
        }
    }
}

/// Framed items with their place in the log in front of each.
pub(crate) fn placed(framed: &[u8], (term, index): (u64, u64)) -> Vec<u8> {
    let mut place = Vec::with_capacity(20);
    varint(term, &mut place);
    varint(index, &mut place);
    let mut placed = Vec::with_capacity(2 * framed.len());
    let mut rest = framed;
    while let Some((payload, behind)) = split_item(rest) {
        placed.extend_from_slice(&item_header(place.len() + payload.len(), is_message_pack(rest)));
        placed.extend_from_slice(&place);
        placed.extend_from_slice(payload);
        rest = behind;
    }
    placed
}

/// The items of a run of framed ones: their format and their bytes.
pub(crate) fn framed_items(mut framed: &[u8]) -> impl Iterator<Item = (Format, &[u8])> {
    std::iter::from_fn(move || {
        let format = item_format(framed);
        let (payload, rest) = split_item(framed)?;
        framed = rest;
        Some((format, payload))
    })
}

/// The place in front of an item, and the item; nothing if there is none.
#[inline]
pub(super) fn split_place(mut payload: &[u8]) -> Option<((u64, u64), &[u8])> {
    let term = take_varint(&mut payload)?;
    let index = take_varint(&mut payload)?;
    Some(((term, index), payload))
}

/// An owner with the stream that it owns.
pub(crate) type Owned = Arc<dyn Owner>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_comes_back_with_its_place() {
        let items: [(&[u8], bool); 3] = [(b"abc", false), (b"", true), (&[0xFF; 300], false)];
        let mut framed = Vec::new();
        for (payload, format) in items {
            framed.extend_from_slice(&item_header(payload.len(), format));
            framed.extend_from_slice(payload);
        }
        for place in [(0, 0), (3, 127), (300, 70_000), (u64::MAX, u64::MAX)] {
            let placed = placed(&framed, place);
            let mut rest = &placed[..];
            for (payload, format) in items {
                assert_eq!(is_message_pack(rest), format);
                let (with_place, behind) = split_item(rest).expect("whole");
                assert_eq!(split_place(with_place), Some((place, payload)));
                rest = behind;
            }
            assert!(rest.is_empty());
        }
        assert_eq!(split_place(&[0x80]), None);
        assert_eq!(split_place(&[0xFF; 40]), None);
    }
}
