//! Where one subscriber is in the log, and what it keeps to itself.
//!
//! Normally that is a place: a chunk and an offset in it. A subscriber that lags and whose policy conflates has also a
//! short list of items of its own, older than its place.
//!
//! Its *backlog* is what the lag policy looks at. With policies that lose nothing it is everything not yet written, but not
//! what is repeated for a subscriber that came back: that was sent before, and is bounded by the ring. With the lossy ones
//! it is everything not yet taken, since only that can be left out.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    filter::Filter,
    frames::Between,
    key::Key,
    lag::{Depth, Limit, Standing},
    log::Position,
    progress::GapReason,
};

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Absolute number of the chunk.
    pub(super) chunk: u64,
    /// Bytes of it that lie before.
    pub(super) offset: usize,
    pub(super) at: Position,
}

/// An item that survived a conflation.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) seq: u64,
    pub(super) key: Key,
    pub(super) born: Duration,
    /// Items that the subscriber is for were left out before it. Only with a filter: else their numbers say so.
    pub(super) lost: bool,
    pub(super) framed: Bytes,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Cursor {
    /// What it takes next, after what it has kept.
    pub(super) next: Place,
    pub(super) kept: VecDeque<Kept>,
    kept_bytes: u64,
    /// Bytes that it has taken and not written.
    in_flight: u64,
    /// Everything before was written or left out. Bytes count while a batch is under way, items at its end.
    written: Position,
    /// The head when it subscribed.
    joined: Position,
    /// The subscriber was told of everything before.
    pub(super) told: u64,
    /// Why something between `told` and what comes next is left out.
    pub(super) left_out: GapReason,
    /// What it is for, if not for everything; then also whether something of that is left out since it was last told.
    pub(super) filter: Option<Arc<Filter>>,
    lost: bool,
    lossy: bool,
    high_water: Depth,
    pub(crate) standing: Standing,
}

impl Cursor {
    pub(super) fn new(next: Place, joined: Position, lossy: bool, filter: Option<Arc<Filter>>) -> Self {
        Self {
            next,
            kept: VecDeque::new(),
            kept_bytes: 0,
            in_flight: 0,
            written: next.at,
            joined,
            told: next.at.seq,
            left_out: GapReason::Skipped,
            filter,
            lost: false,
            lossy,
            high_water: Depth::default(),
            standing: Standing::default(),
        }
    }

    /// Its backlog; see the module's text.
    pub(super) fn depth(&self, head: Position) -> Depth {
        if self.lossy {
            let Depth { items, bytes } = head.since(self.next.at);
            return Depth { items: items + self.kept.len() as u64, bytes: bytes + self.kept_bytes };
        }
        let seq = self.written.seq.max(self.joined.seq);
        let bytes = self.written.bytes.max(self.joined.bytes);
        head.since(Position { seq, bytes })
    }

    /// Everything before was written or left out.
    pub(super) fn written(&self) -> Position {
        self.written
    }

    /// Whether it has taken and written everything.
    pub(super) fn is_idle(&self, head: Position) -> bool {
        self.written.seq == head.seq && self.kept.is_empty()
    }

    /// Whether it is still being sent what was there before it came.
    pub(super) fn catches_up(&self) -> bool {
        self.written.seq < self.joined.seq
    }

    /// Whether what it takes up to `seq` ends what was there before it came.
    pub(super) fn crosses_join(&self, seq: u64) -> bool {
        self.told < self.joined.seq && seq == self.joined.seq
    }

    /// The log must keep everything from this sequence number on.
    pub(super) fn needs(&self) -> u64 {
        if self.lossy { self.next.at.seq } else { self.written.seq }
    }

    /// Whether nothing is left for it before `head`.
    pub(super) fn has_all(&self, head: Position) -> bool {
        self.next.at == head && self.kept.is_empty()
    }

    /// It has taken so many bytes.
    pub(super) fn took(&mut self, bytes: usize) {
        self.in_flight += bytes as u64;
    }

    /// Goes on at `place`; what lies before is left out, unless it is for none of it.
    pub(super) fn skip_to(&mut self, place: Place, reason: Option<GapReason>) {
        if let Some(reason) = reason {
            self.leave_out(reason);
        }
        self.next = place;
        self.settle();
    }

    /// Whether it is for an item with this key.
    pub(super) fn wants(&self, key: Option<&Key>) -> bool {
        self.filter.as_ref().is_none_or(|filter| key.is_some_and(|key| filter.admits(key)))
    }

    /// What lies between what it was last told of and `next`.
    pub(super) fn before(&self, next: u64) -> Between {
        match (self.told < next, &self.filter) {
            (false, _) => Between::Nothing,
            (true, Some(_)) if !self.lost => Between::Filtered,
            (true, _) => Between::LeftOut(self.left_out),
        }
    }

    /// It is told of everything before `next`.
    pub(super) fn tell(&mut self, next: u64) {
        self.told = self.told.max(next);
        self.lost = false;
    }

    /// Something is left out for this reason. Of several reasons since it was last told of everything, the worst counts.
    pub(super) fn leave_out(&mut self, reason: GapReason) {
        let rank = |reason| match reason {
            GapReason::Dropped => 3,
            GapReason::Expired => 2,
            GapReason::Conflated => 1,
            _ => 0,
        };
        let first = if self.filter.is_some() { !self.lost } else { self.told >= self.next.at.seq };
        if first || rank(reason) > rank(self.left_out) {
            self.left_out = reason;
        }
        self.lost = true;
    }

    /// Replaces what it has kept.
    pub(super) fn keep(&mut self, kept: VecDeque<Kept>) {
        self.kept_bytes = kept.iter().map(|item| item.framed.len() as u64).sum();
        self.kept = kept;
    }

    pub(super) fn pop_kept(&mut self) -> Option<Kept> {
        let item = self.kept.pop_front()?;
        self.kept_bytes -= item.framed.len() as u64;
        Some(item)
    }

    /// It has written so many bytes of what it took; whether that was all of it.
    pub(super) fn wrote(&mut self, bytes: usize, head: Position, limit: Limit) -> bool {
        self.note_high_water(head);
        if self.filter.is_none() {
            // With a filter its bytes are not those of the log.
            self.written.bytes += bytes as u64;
        }
        self.in_flight = self.in_flight.saturating_sub(bytes as u64);
        self.settle();
        let depth = self.depth(head);
        self.standing.progress(depth, limit);
        self.in_flight == 0
    }

    /// With nothing under way, everything before its place is written or left out.
    pub(super) fn settle(&mut self) {
        if self.in_flight == 0 {
            self.written = self.next.at;
        }
    }

    pub(super) fn note_high_water(&mut self, head: Position) {
        let depth = self.depth(head);
        self.high_water = self.high_water.max(depth);
    }

    /// The backlog now, and the most it ever was.
    pub(super) fn depths(&self, head: Position) -> (Depth, Depth) {
        let now = self.depth(head);
        (now, self.high_water.max(now))
    }
}
