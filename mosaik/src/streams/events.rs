//! What a consumer is told beside its items: connections, gaps, restarts and refusals.
//!
//! The worker of a consumer writes events; [`Events`] hands them to any number of readers through a bounded channel. A
//! reader that is too far behind is told how many it missed.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::Stream;
use tokio::sync::broadcast;
use tokio_util::sync::ReusableBoxFuture;

pub use super::core::progress::GapReason;
use super::core::{admission::WaitReason, filter::FilterRefusal, lineage::Fenced};
use crate::{
    network::CloseCode,
    primitives::{Fence, PeerId},
    trust::{MissingGrant, RefusedBy},
};

/// Events that a reader may be behind.
const CAPACITY: usize = 1024;

/// Something that a consumer's user may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A subscription is live.
    Connected {
        /// The producer.
        producer: PeerId,
        /// The producer's epoch: grows with each start of it.
        epoch: u64,
        /// The sequence number of the first item to come.
        next: u64,
        /// Whether it goes on where an earlier one ended, so that what is missing between the two is told as a gap. If not,
        /// nothing is said of the items before `next`.
        resumed: bool,
    },
    /// A subscription has ended. The consumer subscribes again by itself while the producer is there.
    Disconnected {
        /// The producer.
        producer: PeerId,
        /// Why.
        reason: DisconnectReason,
    },
    /// The producer keeps this consumer waiting; it is admitted without further ado when that changes.
    Waiting {
        /// The producer.
        producer: PeerId,
        /// Why.
        reason: WaitReason,
    },
    /// A ticket lacks a grant that the stream's declaration asks for, so there is no subscription; there is one without further
    /// ado when that changes. Told by both ends: by this one of a producer that may not produce, by the producer of
    /// this consumer.
    NotGranted {
        /// The producer.
        producer: PeerId,
        /// Who of the two refuses: this node a producer without a grant, or the producer this node.
        by: RefusedBy,
        /// What the refused one has, and what it needs.
        missing: MissingGrant,
    },
    /// What the producer had kept for late joiners was received; the live items follow.
    Replayed {
        /// The producer.
        producer: PeerId,
        /// How many items that were.
        items: u64,
        /// The sequence number from which on items are live.
        next: u64,
    },
    /// Items were missed.
    Gap {
        /// The producer.
        producer: PeerId,
        /// The sequence number of the first item that was missed.
        from: u64,
        /// The sequence number after the last item that was missed.
        to: u64,
        /// Why.
        reason: GapReason,
    },
    /// The producer has started anew and counts from 0 again. What was on its way before is lost, and nobody can say how
    /// many items that were.
    Restarted {
        /// The producer.
        producer: PeerId,
        /// Its epoch before.
        from: u64,
        /// Its epoch now.
        to: u64,
    },
    /// No item has come from this producer for the consumer's [`deadline`](super::ConsumerBuilder::with_deadline), whether it
    /// is connected or not. Told once; with the next item the producer is on time again.
    Late {
        /// The producer.
        producer: PeerId,
        /// For how long nothing has come.
        silent: Duration,
    },
    /// Of a stream that may grow (`evolve = "append"`) an item came that this program does not know, such as one with a new
    /// variant. It counts as a [`Gap`](Self::Gap). Told once as long as the reason stays the same.
    Undecodable {
        /// The producer.
        producer: PeerId,
        /// The item's sequence number.
        seq: u64,
        /// Why, with the name of the variant or field.
        error: String,
    },
    /// Another producer was taken in the place of one, as the consumer's [preference](super::ConsumerBuilder::prefer) says.
    Switched {
        /// Who is left.
        from: PeerId,
        /// Who is taken.
        to: PeerId,
    },
    /// The two sides declare the stream differently, so there is no subscription.
    Incompatible {
        /// The producer.
        producer: PeerId,
        /// What differs: `schema`, `label` or `owner`.
        what: String,
        /// What this node has, with the path of the first difference if that is known: `Quote.inner.bid: u64`.
        ours: String,
        /// What the producer has there: `Quote.inner.bid: i64`.
        theirs: String,
    },
    /// This reader was too far behind and has missed events.
    Lost {
        /// How many.
        events: u64,
    },
}

impl Event {
    /// How many items a gap has cost; 0 for every other event.
    #[must_use]
    pub const fn missed(&self) -> u64 {
        match self {
            Self::Gap { from, to, .. } => to.saturating_sub(*from),
            _ => 0,
        }
    }
}

/// A gap as a handler of a role gets it: the items `from..to` were missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// The sequence number of the first item that was missed.
    pub from: u64,
    /// The sequence number after the last item that was missed.
    pub to: u64,
    /// Why.
    pub reason: GapReason,
}

impl Gap {
    /// How many items it has cost.
    #[must_use]
    pub const fn missed(&self) -> u64 {
        self.to.saturating_sub(self.from)
    }
}

/// Why a subscription ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DisconnectReason {
    /// The producer ended it, and said why.
    Closed(CloseCode),
    /// This side's predicate no longer admits the producer.
    NotAllowed,
    /// The producer's ticket no longer grants what the stream's declaration asks of a producer.
    NotGranted(MissingGrant),
    /// This side prefers another producer.
    NotChosen,
    /// The producer cannot judge its items by this consumer's [filter](super::Filter). It is asked again when what is known of it
    /// changes, and every minute.
    NotFiltered(FilterRefusal),
    /// An item could not be decoded.
    Undecodable(String),
    /// A member of the group that owns the stream brought an item that is older than one that was received: of an earlier term, or
    /// before it in the log. It was not taken.
    Fenced {
        /// Where the item is in the group's log.
        brought: Fence,
        /// Where the newest item is that was received.
        seen: Fence,
    },
    /// The connection was lost.
    Lost(String),
    /// The connection to the producer's node carries as many streams as it may, so there was no subscription.
    NoStream {
        /// How many streams one connection carries.
        limit: u32,
    },
}

impl From<Fenced> for DisconnectReason {
    fn from(Fenced { brought, seen }: Fenced) -> Self {
        let fence = |(term, index)| Fence::new(term, index);
        Self::Fenced { brought: fence(brought), seen: fence(seen) }
    }
}

impl fmt::Display for DisconnectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(code) => write!(f, "closed by the producer: {code}"),
            Self::NotAllowed => f.write_str("the producer no longer qualifies"),
            Self::NotGranted(missing) => write!(f, "the producer may no longer produce: {missing}"),
            Self::NotChosen => f.write_str("another producer is preferred"),
            Self::NotFiltered(why) => write!(f, "the producer cannot apply the filter: {why}"),
            Self::Undecodable(error) => write!(f, "an item could not be decoded: {error}"),
            Self::Fenced { brought, seen } => {
                write!(f, "fenced: the producer brought an item at {brought}, after one at {seen}")
            }
            Self::Lost(error) => write!(f, "connection lost: {error}"),
            Self::NoStream { limit } => {
                write!(f, "the connection to the producer's node carries {limit} streams, which is the limit")
            }
        }
    }
}

impl DisconnectReason {
    /// The reason as a close code, where there is one.
    #[must_use]
    pub const fn code(&self) -> Option<CloseCode> {
        match self {
            Self::Closed(code) => Some(*code),
            Self::NotAllowed => Some(CloseCode::NotAllowed),
            Self::NotGranted(_) => Some(CloseCode::NotGranted),
            Self::NotFiltered(_) => Some(CloseCode::NotFiltered),
            Self::Undecodable(_) => Some(CloseCode::Undecodable),
            Self::Lost(_) | Self::Fenced { .. } | Self::NoStream { .. } | Self::NotChosen => None,
        }
    }
}

/// The writing side.
#[derive(Debug, Clone)]
pub(crate) struct EventSender(broadcast::Sender<Event>);

impl EventSender {
    pub(crate) fn new() -> Self {
        Self(broadcast::channel(CAPACITY).0)
    }

    pub(crate) fn send(&self, event: Event) {
        // An error says that nobody listens.
        let _ = self.0.send(event);
    }

    pub(crate) fn subscribe(&self) -> Events {
        Events::new(self.0.subscribe())
    }
}

/// A stream of a consumer's [`Event`]s from the moment it was asked for. It ends with the consumer.
pub struct Events {
    next: ReusableBoxFuture<'static, (Received, broadcast::Receiver<Event>)>,
}

type Received = Result<Event, broadcast::error::RecvError>;

impl Events {
    fn new(receiver: broadcast::Receiver<Event>) -> Self {
        Self { next: ReusableBoxFuture::new(receive(receiver)) }
    }

    /// The next event; `None` when the consumer is gone. Cancellation-safe.
    pub async fn recv(&mut self) -> Option<Event> {
        futures::StreamExt::next(self).await
    }
}

async fn receive(mut receiver: broadcast::Receiver<Event>) -> (Received, broadcast::Receiver<Event>) {
    (receiver.recv().await, receiver)
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let (received, receiver) = std::task::ready!(self.next.poll(cx));
        self.next.set(receive(receiver));
        Poll::Ready(match received {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(events)) => Some(Event::Lost { events }),
            Err(broadcast::error::RecvError::Closed) => None,
        })
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}
