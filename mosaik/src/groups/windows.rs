//! [`Windows`]: the last items of the streams that a group owns, part of the state that every member and every snapshot has.
//!
//! An entry of the log with items of a stream is applied by giving them the next numbers of that stream. So a stream's numbers
//! are the same at every member, and any member can serve any consumer from where it was. Kept are the newest items, whole
//! entries at a time, within limits that all members share: what has been kept is a function of the log, too.
//!
//! The applier has the true windows; [`Shown`] is the copy that others read, brought up to date after each chunk of entries.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    client::bundle,
    raft::{Index, Term},
};
use crate::primitives::{StreamId, watch};

/// Bytes of items that are kept of one stream; the newest entry is kept whatever its size. *Agreed*, as the next two: all members
/// must have the same.
pub(crate) const WINDOW_BYTES: usize = 4 << 20;
/// Items that are kept of one stream.
pub(crate) const WINDOW_ITEMS: u64 = 65_536;
/// Streams that a group owns at most; items of further ones are refused.
pub(crate) const STREAMS: usize = 64;

/// The items of one entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Slice {
    /// The number of the first item in the stream, counted from 0.
    pub(crate) first: u64,
    pub(crate) count: u64,
    /// Where they are in the log.
    pub(crate) term: Term,
    pub(crate) index: Index,
    /// As the leader's stream has framed them.
    pub(crate) data: Bytes,
}

impl Slice {
    /// The number behind the last item.
    pub(crate) const fn end(&self) -> u64 {
        self.first + self.count
    }
}

/// The newest items of one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Window {
    /// The number of the next item.
    next: u64,
    bytes: usize,
    slices: VecDeque<Slice>,
}

impl Window {
    fn push(&mut self, slice: Slice) {
        self.next = slice.end();
        self.bytes += slice.data.len();
        self.slices.push_back(slice);
        while self.slices.len() > 1
            && let Some(oldest) = self.slices.front()
            && (self.bytes > WINDOW_BYTES || self.next - oldest.first > WINDOW_ITEMS)
        {
            self.bytes -= oldest.data.len();
            self.slices.pop_front();
        }
    }

    /// The slices with items from this number on.
    fn from(&self, next: u64) -> impl Iterator<Item = &Slice> {
        self.slices.iter().skip(self.slices.partition_point(|slice| slice.end() <= next))
    }
}

/// See the module's text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Windows(BTreeMap<StreamId, Window>);

impl Windows {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Applies an entry with items; the number of the first. Nothing: there are too many streams.
    pub(super) fn push(&mut self, items: &bundle::Items, term: Term, index: Index) -> Option<u64> {
        if self.0.len() >= STREAMS && !self.0.contains_key(&items.stream) {
            return None;
        }
        let window = self.0.entry(items.stream).or_default();
        let first = window.next;
        window.push(Slice { first, count: items.count, term, index, data: items.data.clone() });
        Some(first)
    }
}

/// The end of one stream, from the number that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    /// In order and without a hole; they begin later than was asked when that is not kept any more.
    pub(crate) slices: Vec<Slice>,
    /// The number of the stream's next item; below what was asked when the member began again.
    pub(crate) next: u64,
}

/// The windows as others see them.
#[derive(Debug)]
pub(crate) struct Shown {
    windows: Mutex<Windows>,
    /// Counts the changes.
    changes: watch::Sender<u64>,
}

impl Default for Shown {
    fn default() -> Self {
        Self { windows: Mutex::default(), changes: watch::Sender::new(0) }
    }
}

impl Shown {
    fn windows(&self) -> MutexGuard<'_, Windows> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows what the applier has now.
    pub(super) fn show(&self, now: &Windows) {
        let mut shown = self.windows();
        let mut changed = false;
        if shown.0.len() > now.0.len()
            || shown.0.iter().any(|(id, window)| now.0.get(id).is_none_or(|it| it.next < window.next))
        {
            // The member began again.
            *shown = now.clone();
            changed = true;
        }
        for (id, window) in &now.0 {
            let known = shown.0.entry(*id).or_default();
            if known.next == window.next {
                continue;
            }
            changed = true;
            if window.slices.front().is_some_and(|oldest| oldest.first > known.next) {
                *known = window.clone();
                continue;
            }
            let next = known.next;
            window.from(next).cloned().for_each(|slice| known.push(slice));
        }
        drop(shown);
        if changed {
            self.changes.send_modify(|changes| *changes += 1);
        }
    }

    /// What there is of a stream from this number on.
    pub(crate) fn tail(&self, stream: StreamId, next: u64) -> Tail {
        let shown = self.windows();
        let Some(window) = shown.0.get(&stream) else { return Tail { slices: Vec::new(), next: 0 } };
        Tail { slices: window.from(next).cloned().collect(), next: window.next }
    }

    /// Tells when something has changed.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn items(stream: &str, count: u64, bytes: usize) -> bundle::Items {
        bundle::Items { stream: StreamId::from(stream), count, data: vec![7; bytes].into() }
    }

    #[test]
    fn numbers_go_on_from_entry_to_entry_and_the_newest_are_kept() {
        let mut windows = Windows::default();
        for index in 1..=10 {
            assert_eq!(windows.push(&items("a", 3, 1 << 20), 1, index), Some(3 * (index - 1)));
        }
        assert_eq!(windows.push(&items("b", 1, 5), 1, 11), Some(0));
        let shown = Shown::default();
        shown.show(&windows);
        let Tail { slices, next } = shown.tail(StreamId::from("a"), 0);
        assert_eq!((slices[0].first, slices.len(), next), (18, 4, 30), "4 MiB");
        let Tail { slices, .. } = shown.tail(StreamId::from("a"), 28);
        assert_eq!((slices[0].first, slices[0].index, slices.len()), (27, 10, 1));
        assert_eq!(shown.tail(StreamId::from("a"), 30), Tail { slices: vec![], next: 30 });
        assert_eq!(shown.tail(StreamId::from("c"), 0).next, 0);
    }

    #[test]
    fn few_large_and_many_small_ones_are_bounded() {
        let mut windows = Windows::default();
        windows.push(&items("a", 1, 2 * WINDOW_BYTES), 1, 1);
        assert_eq!(windows.0[&StreamId::from("a")].slices.len(), 1, "the newest stays");
        (2..200_000).for_each(|index| _ = windows.push(&items("a", 1, 1), 1, index));
        assert_eq!(windows.0[&StreamId::from("a")].slices.len() as u64, WINDOW_ITEMS);
        let full = (0..100).filter(|n| windows.push(&items(&format!("s{n}"), 1, 1), 1, 200_000).is_some()).count();
        assert_eq!(full, STREAMS - 1);
    }

    #[test]
    fn what_is_shown_follows_also_when_the_member_begins_again() {
        let (shown, stream) = (Shown::default(), StreamId::from("a"));
        let mut windows = Windows::default();
        windows.push(&items("a", 5, 10), 1, 1);
        shown.show(&windows);
        let mut changes = shown.changes();
        shown.show(&windows);
        assert!(changes.changed().now_or_never().is_none(), "nothing is new");
        let mut again = Windows::default();
        again.push(&items("a", 2, 10), 3, 1);
        shown.show(&again);
        assert!(changes.changed().now_or_never().is_some());
        let Tail { slices, next } = shown.tail(stream, 0);
        assert_eq!((slices[0].term, slices[0].count, next), (3, 2, 2));
        shown.show(&Windows::default());
        assert_eq!(shown.tail(stream, 0).next, 0);
    }
}
