//! What discovery tells: peers that came, changed or went. Each subscriber has its own bounded queue.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
};

use futures::Stream;

use super::entry::PeerEntry;
use crate::primitives::PeerId;

/// A change of the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A peer came into the catalog: for the first time or again after it had departed.
    PeerDiscovered(PeerEntry),
    /// A peer's entry was replaced by a newer version.
    PeerUpdated(PeerEntry),
    /// A peer left the catalog.
    PeerDeparted(Departed),
    /// The subscriber was too slow: so many older events were dropped. The catalog has the present state.
    Lagged(u64),
}

impl Event {
    /// The peer that the event is about; `None` for [`Event::Lagged`].
    #[must_use]
    pub fn peer(&self) -> Option<PeerId> {
        match self {
            Self::PeerDiscovered(entry) | Self::PeerUpdated(entry) => Some(entry.id()),
            Self::PeerDeparted(departed) => Some(departed.id()),
            Self::Lagged(_) => None,
        }
    }
}

/// A peer that left the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departed {
    pub(super) entry: PeerEntry,
    pub(super) reason: DepartReason,
}

impl Departed {
    /// Who departed.
    #[must_use]
    pub fn id(&self) -> PeerId {
        self.entry.id()
    }

    /// Its last known entry.
    #[must_use]
    pub const fn entry(&self) -> &PeerEntry {
        &self.entry
    }

    /// How it was noticed.
    #[must_use]
    pub const fn reason(&self) -> DepartReason {
        self.reason
    }
}

/// How a departure was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DepartReason {
    /// The peer said so.
    Left,
    /// Its connection was lost and it could not be reached again.
    Unreachable,
    /// Its lease ran out.
    Expired,
}

impl fmt::Display for DepartReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Left => "left",
            Self::Unreachable => "unreachable",
            Self::Expired => "lease expired",
        })
    }
}

/// A subscription to [`Event`]s, from the moment it was made. Ends when the network is shut down.
///
/// The queue is bounded: when it is full the oldest events make room, and [`Event::Lagged`] says how many.
#[derive(Debug)]
pub struct Events(Arc<Mutex<Queue>>);

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Event>,
    missed: u64,
    closed: bool,
    waker: Option<Waker>,
}

/// The sending side: one list of subscribers.
#[derive(Debug, Default)]
pub(super) struct Subscribers(Mutex<Vec<Weak<Mutex<Queue>>>>);

impl Subscribers {
    pub(super) fn subscribe(&self, closed: bool) -> Events {
        let queue = Arc::new(Mutex::new(Queue { closed, ..Queue::default() }));
        self.list().push(Arc::downgrade(&queue));
        Events(queue)
    }

    /// Gives every subscriber the events; a queue over `limit` loses its oldest.
    pub(super) fn publish(&self, events: &[Event], limit: usize) {
        self.each(|queue| {
            for event in events {
                if queue.events.len() >= limit {
                    queue.events.pop_front();
                    queue.missed += 1;
                }
                queue.events.push_back(event.clone());
            }
        });
    }

    /// Ends every subscription after what is queued.
    pub(super) fn close(&self) {
        self.each(|queue| queue.closed = true);
    }

    fn each(&self, mut change: impl FnMut(&mut Queue)) {
        self.list().retain(|subscriber| {
            let Some(queue) = subscriber.upgrade() else { return false };
            let mut queue = lock(&queue);
            change(&mut queue);
            if let Some(waker) = queue.waker.take() {
                waker.wake();
            }
            true
        });
    }

    fn list(&self) -> MutexGuard<'_, Vec<Weak<Mutex<Queue>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let mut queue = lock(&self.0);
        if queue.missed > 0 {
            return Poll::Ready(Some(Event::Lagged(std::mem::take(&mut queue.missed))));
        }
        match queue.events.pop_front() {
            Some(event) => Poll::Ready(Some(event)),
            None if queue.closed => Poll::Ready(None),
            None => {
                queue.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};

    use super::*;

    #[test]
    fn a_slow_subscriber_is_told_what_it_missed_and_the_end() {
        let subscribers = Subscribers::default();
        let mut events = subscribers.subscribe(false);
        assert!(events.next().now_or_never().is_none(), "nothing yet");
        subscribers.publish(&[Event::Lagged(1), Event::Lagged(2), Event::Lagged(3)], 2);
        subscribers.close();
        let got: Vec<_> = std::iter::from_fn(|| events.next().now_or_never().flatten()).collect();
        assert_eq!(got, [Event::Lagged(1), Event::Lagged(2), Event::Lagged(3)], "one was dropped, two are left");
        drop(events);
        subscribers.publish(&[Event::Lagged(4)], 2);
        assert!(subscribers.list().is_empty());
    }
}
