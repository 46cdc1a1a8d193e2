//! What a producer keeps for consumers that come late, and its replay: whole items with their numbers, in order.
//!
//! A late joiner gets the kept items numbered below its *cut* by a [`Replay`] of its own and the live flow from the cut on. Both
//! are fixed at one moment, by a snapshot in constant time, so that nothing is lost between them and nothing comes twice,
//! however long the replay takes and whatever is kept meanwhile. What is kept is bounded in items and bytes.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;

use super::{
    batches::Batches,
    filter::Filter,
    frames::Between,
    key::Key,
    lag::Limit,
    mutants::{Mutant, Switch},
};
use crate::primitives::OrdMap;

/// Which items are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// The newest.
    Newest,
    /// Of each key the newest so many.
    PerKey(u64),
    /// The last key frame and what follows it. When that is too much, nothing, until the next key frame: what follows is worth
    /// nothing without it.
    KeyFrame,
}

/// What is kept, and at most how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retention {
    pub(crate) keep: Keep,
    pub(crate) limit: Limit,
    /// Items that are older are not replayed.
    pub(crate) max_age: Option<Duration>,
}

/// What user code says of an item.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Label {
    pub(crate) key: Key,
    /// It is a key frame.
    pub(crate) opens: bool,
}

#[derive(Debug, Clone)]
struct Item {
    key: Key,
    born: Duration,
    framed: Bytes,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Retained {
    retention: Retention,
    items: OrdMap<u64, Item>,
    bytes: u64,
    /// The numbers of the kept items by key; only for [`Keep::PerKey`].
    keys: BTreeMap<Key, VecDeque<u64>>,
    switch: Switch,
}

impl Retained {
    pub(crate) fn new(retention: Retention, switch: Switch) -> Self {
        Self { retention, items: OrdMap::new(), bytes: 0, keys: BTreeMap::new(), switch }
    }

    /// One framed item was sent. False if a key frame and what follows it were given up because they are too much.
    pub(crate) fn push(&mut self, seq: u64, framed: Bytes, label: Label, now: Duration) -> bool {
        match self.retention.keep {
            Keep::Newest => {}
            Keep::KeyFrame if label.opens => self.clear(),
            Keep::KeyFrame if self.items.is_empty() => return true,
            Keep::KeyFrame => {}
            Keep::PerKey(most) => {
                let kept = self.keys.entry(label.key.clone()).or_default();
                kept.push_back(seq);
                if kept.len() as u64 > most
                    && let Some(oldest) = kept.front().copied()
                {
                    self.remove(oldest);
                }
            }
        }
        self.bytes += framed.len() as u64;
        self.items.insert(seq, Item { key: label.key, born: now, framed });
        self.prune(now);
        let Limit { items, bytes } = self.retention.limit;
        while self.items.len() as u64 > items || self.bytes > bytes {
            if self.retention.keep == Keep::KeyFrame {
                self.clear();
                return false;
            }
            self.remove_oldest();
        }
        true
    }

    /// What is kept of the items from `from` up to, not including, `until`, and of these what the filter admits; `None` if nothing
    /// is kept.
    pub(crate) fn replay(
        &mut self,
        from: u64,
        until: u64,
        filter: Option<Arc<Filter>>,
        now: Duration,
    ) -> Option<Replay> {
        self.prune(now);
        let until = match () {
            () if self.switch.is(Mutant::ReplayPastCut) => u64::MAX,
            () if self.switch.is(Mutant::SnapshotCutEarly) => until.saturating_sub(1),
            () => until,
        };
        if from >= until || self.items.range(from..until).next().is_none() {
            return None;
        }
        let (items, switch) = (self.items.clone(), self.switch);
        Some(Replay { items, next: from, until, filter, told: from, hole: false, switch })
    }

    fn prune(&mut self, now: Duration) {
        let Some(age) = self.retention.max_age else { return };
        while self.items.get_min().is_some_and(|(_, oldest)| oldest.born + age < now) {
            if self.retention.keep == Keep::KeyFrame {
                return self.clear();
            }
            self.remove_oldest();
        }
    }

    fn remove_oldest(&mut self) {
        if let Some(oldest) = self.items.get_min().map(|(seq, _)| *seq) {
            self.remove(oldest);
        }
    }

    fn remove(&mut self, seq: u64) {
        let Some(item) = self.items.remove(&seq) else { return };
        self.bytes -= item.framed.len() as u64;
        if let Some(kept) = self.keys.get_mut(&item.key) {
            // The oldest of all is also the oldest of its key.
            kept.pop_front();
            if kept.is_empty() {
                self.keys.remove(&item.key);
            }
        }
    }

    fn clear(&mut self) {
        self.items.clear();
        self.bytes = 0;
    }

    /// Items and bytes that are kept.
    #[cfg(any(test, feature = "testing"))]
    #[allow(dead_code, reason = "for tests and simulations")]
    pub(crate) fn held(&self) -> Limit {
        Limit { items: self.items.len() as u64, bytes: self.bytes }
    }
}

/// The kept items of one late joiner, while they are written.
#[derive(Debug)]
pub(crate) struct Replay {
    items: OrdMap<u64, Item>,
    /// Everything before was looked at.
    next: u64,
    until: u64,
    filter: Option<Arc<Filter>>,
    /// The consumer knows of everything before.
    told: u64,
    /// Something between the two was not kept, and is missed by who asked for it.
    hole: bool,
    switch: Switch,
}

impl Replay {
    /// The next bytes to write: batches of whole items, up to `max` bytes but at least one item. `None` at the end.
    pub(crate) fn piece(&mut self, max: usize) -> Option<Vec<Bytes>> {
        let mut batches = Batches::default();
        for (seq, item) in self.items.range(self.next..self.until) {
            let admits = self.filter.as_ref().is_none_or(|filter| filter.admits(&item.key));
            if admits && batches.items() > 0 && batches.bytes() + item.framed.len() > max {
                return Some(batches.finish());
            }
            if *seq > self.next {
                if !self.hole && self.told < self.next {
                    batches.mark(Between::Filtered, self.next);
                    self.told = self.next;
                }
                self.hole = !self.switch.is(Mutant::FilterHidesHole);
            }
            self.next = seq + 1;
            if admits {
                let filtered = !self.hole && self.told < *seq;
                batches.push(*seq, item.framed.clone(), if filtered { Between::Filtered } else { Between::Nothing });
                (self.told, self.hole) = (seq + 1, false);
            }
        }
        if !self.hole && self.told < self.next {
            batches.mark(Between::Filtered, self.next);
            self.told = self.next;
        }
        let piece = batches.finish();
        (!piece.is_empty()).then_some(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            frames::{Frame, FrameReader, split_item},
            log::LARGE,
        },
        *,
    };

    fn framed(payload: &[u8]) -> Bytes {
        [&u32::try_from(payload.len()).expect("small").to_le_bytes()[..], payload].concat().into()
    }

    fn key(of: u64) -> Key {
        Key::new(&of.to_be_bytes())
    }

    fn retained(keep: Keep, items: u64, bytes: u64, max_age: Option<Duration>) -> Retained {
        Retained::new(Retention { keep, limit: Limit { items, bytes }, max_age }, Switch::default())
    }

    /// The numbers that a replay has, read as a consumer reads it.
    fn replayed(retained: &mut Retained, from: u64, until: u64, now: u64, max: usize) -> Vec<u64> {
        let Some(mut replay) = retained.replay(from, until, None, Duration::from_secs(now)) else { return Vec::new() };
        let (mut reader, mut seqs) = (FrameReader::default(), Vec::new());
        while let Some(chunks) = replay.piece(max) {
            chunks.iter().for_each(|chunk| reader.push(chunk));
            while let Some(frame) = reader.next_frame().expect("valid") {
                let Frame::Items { first, count, data } = frame else { panic!("only items: {frame:?}") };
                let mut rest = &data[..];
                for seq in first..first + u64::from(count) {
                    let (payload, behind) = split_item(rest).expect("whole");
                    assert_eq!(payload.first(), u8::try_from(seq).ok().as_ref(), "each under its number");
                    rest = behind;
                    seqs.push(seq);
                }
            }
        }
        seqs
    }

    /// Sends so many items, one per second, of three keys; every tenth is a key frame.
    fn send(retained: &mut Retained, seqs: std::ops::Range<u64>) {
        for seq in seqs {
            let large = if seq % 7 == 0 { LARGE } else { 0 };
            let payload = [vec![u8::try_from(seq).expect("few")], vec![0; large]].concat();
            let label = Label { key: key(seq % 3), opens: seq % 10 == 0 };
            retained.push(seq, framed(&payload), label, Duration::from_secs(seq));
        }
    }

    #[test]
    fn each_retention_keeps_what_it_says() {
        let much = 1 << 20;
        let mut last = retained(Keep::Newest, 4, much, None);
        let mut per_key = retained(Keep::PerKey(2), 100, much, None);
        let mut frames = retained(Keep::KeyFrame, 100, much, None);
        let mut window = retained(Keep::Newest, 100, much, Some(Duration::from_secs(5)));
        for retained in [&mut last, &mut per_key, &mut frames, &mut window] {
            send(retained, 0..25);
        }
        for max in [1, 64, 1 << 20] {
            assert_eq!(replayed(&mut last, 0, 25, 25, max), [21, 22, 23, 24]);
            assert_eq!(replayed(&mut last, 22, 24, 25, max), [22, 23], "bounded on both sides");
            assert_eq!(replayed(&mut per_key, 0, 25, 25, max), [19, 20, 21, 22, 23, 24]);
            assert_eq!(replayed(&mut frames, 0, 25, 25, max), [20, 21, 22, 23, 24]);
            assert_eq!(replayed(&mut window, 0, 25, 26, max), [21, 22, 23, 24]);
        }
        assert_eq!(replayed(&mut window, 0, 25, 100, 1), [] as [u64; 0]);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut bytes = retained(Keep::Newest, 1000, 100, None);
        let mut keys = retained(Keep::PerKey(1), 2, 1 << 20, None);
        for seq in 0..50 {
            bytes.push(seq, framed(&[u8::try_from(seq).expect("few"); 16]), Label::default(), Duration::ZERO);
            keys.push(seq, framed(&[1]), Label { key: key(seq), opens: false }, Duration::ZERO);
        }
        assert_eq!((bytes.held(), keys.held()), (Limit { items: 5, bytes: 100 }, Limit { items: 2, bytes: 10 }));
        assert_eq!(keys.keys.len(), 2);
        bytes.push(50, framed(&[50; 200]), Label::default(), Duration::ZERO);
        assert_eq!(bytes.held().items, 0, "an item that does not fit leaves nothing");
    }

    #[test]
    fn a_key_frame_that_grows_too_old_or_too_large_takes_its_followers_along() {
        let mut frames = retained(Keep::KeyFrame, 3, 1 << 20, Some(Duration::from_secs(100)));
        let mut push = |seq, opens, now| {
            frames.push(seq, framed(&[7]), Label { key: key(0), opens }, Duration::from_secs(now));
            frames.held().items
        };
        assert_eq!([push(0, false, 0), push(1, true, 0), push(2, false, 0), push(3, false, 0)], [0, 1, 2, 3]);
        assert_eq!([push(4, false, 0), push(5, false, 0), push(6, true, 0)], [0, 0, 1]);
        assert_eq!(push(7, false, 101), 0);
    }

    #[test]
    fn a_replay_is_a_snapshot() {
        let mut last = retained(Keep::Newest, 2, 1 << 20, None);
        send(&mut last, 1..3);
        let mut replay = last.replay(0, 3, None, Duration::ZERO).expect("two items");
        send(&mut last, 3..20);
        assert!(replay.piece(1).is_some() && replay.piece(1).is_some() && replay.piece(1).is_none());
    }

    /// What is filtered out is told as that, and what was not kept is not.
    #[test]
    fn a_filtered_replay_tells_holes_from_what_it_is_not_for() {
        let mut kept = retained(Keep::Newest, 100, 1 << 20, None);
        for seq in (0..4).chain(6..12) {
            let label = Label { key: key(seq % 4), opens: false };
            kept.push(seq, framed(&[u8::try_from(seq).expect("few")]), label, Duration::ZERO);
        }
        let filter = Filter::In([key(1)].into());
        for max in [1, 1 << 20] {
            let mut replay = kept.replay(0, 12, Some(Arc::new(filter.clone())), Duration::ZERO).expect("kept");
            let (mut reader, mut seen) = (FrameReader::default(), Vec::new());
            while let Some(chunks) = replay.piece(max) {
                chunks.iter().for_each(|chunk| reader.push(chunk));
                while let Some(frame) = reader.next_frame().expect("valid") {
                    seen.push(match frame {
                        Frame::Items { first, .. } => ("item", first),
                        Frame::Filtered { next } => ("filtered", next),
                        other => panic!("{other:?}"),
                    });
                }
            }
            // 4 and 5 were not kept; 1 and 9 are asked for.
            let wanted = [("filtered", 1), ("item", 1), ("filtered", 4), ("item", 9), ("filtered", 12)];
            assert_eq!(seen, wanted);
        }
    }
}
