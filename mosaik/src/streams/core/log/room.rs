//! Whether an item may be appended, and what that costs subscribers that lag: [`lag`](super::super::lag) closes them, the
//! lossy policies leave out for them what is old. What is left out is skipped by the subscriber's cursor; the log itself, and
//! what others get of it, stays as it is.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use bytes::BytesMut;

use super::{
    super::{
        SubId,
        cursor::Kept,
        frames::split_item,
        lag::{Depth, Limit, Room},
        mutants::Mutant,
        progress::GapReason,
    },
    LARGE, Log, Position,
};
use crate::streams::limits::OnLag;

impl Log {
    /// Whether an item may be appended without a closer look.
    #[inline]
    pub(crate) const fn is_roomy(&self) -> bool {
        self.head.seq < self.clear_until.seq && self.head.bytes < self.clear_until.bytes
    }

    /// Whether an item may be appended. Subscribers that must go for it are removed; see [`expelled`](Self::expelled).
    pub(crate) fn room(&mut self, now: impl FnOnce() -> Duration) -> Room {
        if self.is_roomy() { Room::Yes } else { self.make_room(now()) }
    }

    fn make_room(&mut self, now: Duration) -> Room {
        let head = self.head;
        let room = if self.lag.policy().is_lossy() {
            self.shed();
            Room::Yes
        } else {
            let before = self.expelled.len();
            let room = self.lag.judge(&mut self.cursors, head, now, &mut self.expelled);
            for at in before..self.expelled.len() {
                let id = self.expelled[at];
                self.cursors.remove(&id);
            }
            if self.expelled.len() > before {
                self.release();
            }
            room
        };
        let Limit { items, bytes } = self.lag.limit();
        let mut clear = Position { seq: u64::MAX, bytes: u64::MAX };
        for cursor in self.cursors.values() {
            let depth = cursor.depth(head);
            clear.seq = clear.seq.min(head.seq.saturating_add(items).saturating_sub(depth.items));
            clear.bytes = clear.bytes.min(head.bytes.saturating_add(bytes).saturating_sub(depth.bytes));
        }
        self.clear_until = clear;
        room
    }

    /// The subscribers removed by [`room`](Self::room) since the last call: they were too slow.
    pub(crate) fn expelled(&mut self) -> Vec<SubId> {
        std::mem::take(&mut self.expelled)
    }

    /// Makes room at the subscribers that are full, by leaving out for them what is old.
    fn shed(&mut self) {
        let (head, limit) = (self.head, self.lag.limit());
        let full = self.cursors.iter().filter(|(_, cursor)| cursor.depth(head).is_full(limit));
        let full: Vec<SubId> = full.map(|(id, _)| *id).collect();
        if full.is_empty() {
            return;
        }
        self.seal();
        for id in full {
            if self.lag.policy() == OnLag::Conflate {
                self.conflate(id);
            }
            self.drop_oldest(id);
        }
        self.release();
    }

    /// Takes an eighth off a queue that is full. A single item stays, however large it is.
    fn drop_oldest(&mut self, id: SubId) {
        let (head, limit) = (self.head, self.lag.limit());
        let keep = Depth { items: limit.items - (limit.items / 8).max(1), bytes: limit.bytes - limit.bytes / 8 };
        let fits = |depth: Depth| depth.items <= keep.items && (depth.bytes <= keep.bytes || depth.items == 1);
        let place = self.find(|at| fits(head.since(at)));
        let Some(cursor) = self.cursors.get_mut(&id) else { return };
        if !cursor.depth(head).is_full(limit) {
            return;
        }
        while !fits(cursor.depth(head)) && cursor.pop_kept().is_some() {
            cursor.leave_out(GapReason::Dropped);
        }
        if !fits(cursor.depth(head)) {
            let index =
                |at: Position| usize::try_from(at.seq - self.base.seq).unwrap_or(usize::MAX).min(self.keys.len());
            let mut skipped = self.keys.range(index(cursor.next.at)..index(place.at));
            let loses = cursor.filter.is_none() || skipped.any(|key| cursor.wants(Some(key)));
            cursor.skip_to(place, loses.then_some(GapReason::Dropped));
        }
    }

    /// Leaves only the last item of each key in a queue.
    fn conflate(&mut self, id: SubId) {
        let end = self.end();
        let Some(cursor) = self.cursors.get_mut(&id) else { return };
        let mut items: Vec<Kept> = std::mem::take(&mut cursor.kept).into();
        let start = usize::try_from(cursor.next.chunk - self.first_chunk).unwrap_or(usize::MAX);
        let mut at = cursor.next;
        for chunk in self.chunks.range(start.min(self.chunks.len())..) {
            while let Some((_, behind)) = split_item(&chunk.data[at.offset..]) {
                let (seq, end) = (at.at.seq, chunk.data.len() - behind.len());
                let key = usize::try_from(seq - self.base.seq).ok().and_then(|index| self.keys.get(index));
                if cursor.wants(key) {
                    let framed = chunk.data.slice(at.offset..end);
                    items.push(Kept {
                        seq,
                        key: key.cloned().unwrap_or_default(),
                        born: chunk.born,
                        lost: false,
                        framed,
                    });
                }
                (at.offset, at.at.seq) = (end, seq + 1);
            }
            at.offset = 0;
        }
        let mut seen = BTreeSet::new();
        let survives: Vec<bool> = if self.switch.is(Mutant::ConflateKeepsFirst) {
            items.iter().map(|item| seen.insert(&item.key)).collect()
        } else {
            let mut survives: Vec<bool> = items.iter().rev().map(|item| seen.insert(&item.key)).collect();
            survives.reverse();
            survives
        };
        let (mut kept, mut lost) = (VecDeque::new(), false);
        for (mut item, survives) in items.into_iter().zip(survives) {
            item.lost |= lost;
            lost = !survives;
            if survives {
                kept.push_back(item);
            }
        }
        // Small ones are copied, so that they do not hold on to the chunks they were in.
        let small = |item: &Kept| item.framed.len() < LARGE;
        let mut copy = BytesMut::with_capacity(kept.iter().filter(|item| small(item)).map(|it| it.framed.len()).sum());
        for item in kept.iter_mut().filter(|item| small(item)) {
            copy.extend_from_slice(&item.framed);
            item.framed = copy.split().freeze();
        }
        cursor.keep(kept);
        let loses = cursor.filter.is_none() || lost;
        cursor.skip_to(end, loses.then_some(GapReason::Conflated));
    }
}
