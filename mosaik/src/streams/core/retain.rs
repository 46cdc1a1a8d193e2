//! What a producer keeps for consumers that come late, and its replay: whole items with their numbers, in order.
//!
//! A late joiner gets the kept items numbered below its *cut* by a [`Replay`] of its own and the live flow from the cut on. Both
//! are fixed at one moment, by a snapshot in constant time, so that nothing is lost between them and nothing comes twice,
//! however long the replay takes and whatever is kept meanwhile. What is kept is bounded in items and bytes.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bytes::{Bytes, BytesMut};

use super::{
    frames::{HEADER, MAX_BATCH, batch_header},
    lag::Limit,
    log::LARGE,
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Label {
    pub(crate) key: u128,
    /// It is a key frame.
    pub(crate) opens: bool,
}

#[derive(Debug, Clone)]
struct Item {
    key: u128,
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
    keys: BTreeMap<u128, VecDeque<u64>>,
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
                let kept = self.keys.entry(label.key).or_default();
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

    /// What is kept of the items from `from` up to, not including, `until`; `None` if there is nothing.
    pub(crate) fn replay(&mut self, from: u64, until: u64, now: Duration) -> Option<Replay> {
        self.prune(now);
        let until = match () {
            () if self.switch.is(Mutant::ReplayPastCut) => u64::MAX,
            () if self.switch.is(Mutant::SnapshotCutEarly) => until.saturating_sub(1),
            () => until,
        };
        if from >= until || self.items.range(from..until).next().is_none() {
            return None;
        }
        Some(Replay { items: self.items.clone(), next: from, until })
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
    next: u64,
    until: u64,
}

impl Replay {
    /// The next bytes to write: batches of whole items, up to `max` bytes but at least one item. `None` at the end.
    pub(crate) fn piece(&mut self, max: usize) -> Option<Vec<Bytes>> {
        let mut piece = Piece::default();
        for (seq, item) in self.items.range(self.next..self.until) {
            let length = item.framed.len();
            if !piece.run.is_empty() && piece.bytes + length > max {
                break;
            }
            if *seq != piece.first + piece.run.len() as u64 || piece.run_bytes + length > MAX_BATCH {
                piece.end_batch();
                piece.first = *seq;
            }
            piece.bytes += HEADER + length;
            piece.run_bytes += length;
            piece.run.push(item.framed.clone());
            self.next = seq + 1;
        }
        if piece.run.is_empty() {
            return None;
        }
        piece.end_batch();
        piece.seal();
        Some(piece.chunks)
    }
}

/// Batches as they are put together: small items copied side by side, large ones as they are.
#[derive(Debug, Default)]
struct Piece {
    chunks: Vec<Bytes>,
    open: BytesMut,
    bytes: usize,
    /// The batch under way.
    run: Vec<Bytes>,
    run_bytes: usize,
    first: u64,
}

impl Piece {
    fn end_batch(&mut self) {
        if self.run.is_empty() {
            return;
        }
        self.open.extend_from_slice(&batch_header(self.first, self.run.len() as u64, self.run_bytes, None));
        for framed in std::mem::take(&mut self.run) {
            if framed.len() >= LARGE {
                self.seal();
                self.chunks.push(framed);
            } else {
                self.open.extend_from_slice(&framed);
            }
        }
        self.run_bytes = 0;
    }

    fn seal(&mut self) {
        if !self.open.is_empty() {
            self.chunks.push(self.open.split().freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::frames::{Frame, FrameReader, split_item},
        *,
    };

    fn framed(payload: &[u8]) -> Bytes {
        [&u32::try_from(payload.len()).expect("small").to_le_bytes()[..], payload].concat().into()
    }

    fn retained(keep: Keep, items: u64, bytes: u64, max_age: Option<Duration>) -> Retained {
        Retained::new(Retention { keep, limit: Limit { items, bytes }, max_age }, Switch::default())
    }

    /// The numbers that a replay has, read as a consumer reads it.
    fn replayed(retained: &mut Retained, from: u64, until: u64, now: u64, max: usize) -> Vec<u64> {
        let Some(mut replay) = retained.replay(from, until, Duration::from_secs(now)) else { return Vec::new() };
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
            let label = Label { key: u128::from(seq % 3), opens: seq % 10 == 0 };
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
            keys.push(seq, framed(&[1]), Label { key: seq.into(), opens: false }, Duration::ZERO);
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
            frames.push(seq, framed(&[7]), Label { key: 0, opens }, Duration::from_secs(now));
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
        let mut replay = last.replay(0, 3, Duration::ZERO).expect("two items");
        send(&mut last, 3..20);
        assert!(replay.piece(1).is_some() && replay.piece(1).is_some() && replay.piece(1).is_none());
    }
}
