//! The one queue of a producer: encoded items in order, shared by all subscribers.
//!
//! Items are appended to an open chunk. A subscriber that takes seals the chunk, so every subscriber gets the same
//! `Bytes`; its own state is a cursor. A chunk is let go when the last cursor has written it. What a subscriber's queue
//! holds is its cursor's distance from the head, and [`lag`](super::lag) decides on it.
//!
//! Invariants: chunks are contiguous and end at chunk boundaries of every cursor; `written <= taken <= head` for each
//! cursor; with no cursor the log holds nothing.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bytes::{Bytes, BytesMut};

use super::{
    SubId,
    lag::{Depth, Lag, Limit, Room, Standing},
};
use crate::streams::limits::OnLag;

/// A full chunk. Large enough that one write carries many small items, small enough that a slow subscriber's progress
/// is seen and its memory is let go in steps.
pub(crate) const CHUNK: usize = 64 << 10;
/// The first chunk after a pause; a stream of few items costs no 64 KiB.
const FIRST_CHUNK: usize = 4 << 10;
/// An item of this size or more becomes a chunk of its own and is never copied.
pub(crate) const LARGE: usize = 16 << 10;

/// Items and bytes appended before a point of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Position {
    pub(crate) seq: u64,
    pub(crate) bytes: u64,
}

impl Position {
    fn since(self, earlier: Self) -> Depth {
        Depth { items: self.seq - earlier.seq, bytes: self.bytes - earlier.bytes }
    }
}

#[derive(Debug)]
struct Chunk {
    data: Bytes,
    /// Just behind its last item.
    end: Position,
}

/// Where one subscriber is.
#[derive(Debug)]
pub(crate) struct Cursor {
    /// Absolute number of the next chunk to take.
    next_chunk: u64,
    taken: Position,
    written: Position,
    high_water: Depth,
    pub(crate) standing: Standing,
}

impl Cursor {
    fn depth(&self, head: Position) -> Depth {
        head.since(self.written)
    }
}

/// What a subscriber writes next: whole chunks, in order.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) first_seq: u64,
    pub(crate) items: u64,
    pub(crate) bytes: usize,
    pub(crate) chunks: Vec<Bytes>,
}

/// What a subscriber that left had not written.
pub(crate) type Unwritten = Depth;

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Log {
    chunks: VecDeque<Chunk>,
    /// Absolute number of `chunks[0]`.
    first_chunk: u64,
    open: BytesMut,
    open_size: usize,
    head: Position,
    /// Nobody is full before the head gets here. May be too early, never too late.
    clear_until: Position,
    cursors: BTreeMap<SubId, Cursor>,
    /// The furthest that any subscriber has taken.
    reached: u64,
    lag: Lag,
    expelled: Vec<SubId>,
}

impl Log {
    pub(crate) fn new(limit: Limit, policy: OnLag) -> Self {
        Self {
            chunks: VecDeque::new(),
            first_chunk: 0,
            open: BytesMut::new(),
            open_size: FIRST_CHUNK,
            head: Position::default(),
            clear_until: Position::default(),
            cursors: BTreeMap::new(),
            reached: 0,
            lag: Lag::new(policy, limit),
            expelled: Vec::new(),
        }
    }

    /// The sequence number of the next item.
    pub(crate) fn head(&self) -> u64 {
        self.head.seq
    }

    /// Whether an item may be appended. Subscribers that must go for it are removed; see [`expelled`](Self::expelled).
    pub(crate) fn room(&mut self, now: impl FnOnce() -> Duration) -> Room {
        if self.head.seq < self.clear_until.seq && self.head.bytes < self.clear_until.bytes {
            return Room::Yes;
        }
        let head = self.head;
        let before = self.expelled.len();
        let room = self.lag.judge(&mut self.cursors, |cursor| cursor.depth(head), now(), &mut self.expelled);
        for at in before..self.expelled.len() {
            let id = self.expelled[at];
            self.cursors.remove(&id);
        }
        if self.expelled.len() > before {
            self.release();
        }
        let Limit { items, bytes } = self.lag.limit();
        let slowest = self.cursors.values().map(|cursor| cursor.written);
        let (seq, written) =
            slowest.fold((u64::MAX, u64::MAX), |(seq, bytes), at| (seq.min(at.seq), bytes.min(at.bytes)));
        self.clear_until = Position { seq: seq.saturating_add(items), bytes: written.saturating_add(bytes) };
        room
    }

    /// The subscribers removed by [`room`](Self::room) since the last call: they were too slow.
    pub(crate) fn expelled(&mut self) -> Vec<SubId> {
        std::mem::take(&mut self.expelled)
    }

    /// Appends one framed item by copying it.
    pub(crate) fn append(&mut self, framed: &[u8]) {
        if self.open.capacity() - self.open.len() < framed.len() {
            self.seal();
            self.open = BytesMut::with_capacity(self.open_size.max(framed.len()));
            self.open_size = (self.open_size * 2).min(CHUNK);
        }
        self.open.extend_from_slice(framed);
        self.advance_head(framed.len());
    }

    /// Appends one framed item as a chunk of its own, without a copy.
    pub(crate) fn append_chunk(&mut self, framed: Bytes) {
        self.seal();
        self.advance_head(framed.len());
        self.chunks.push_back(Chunk { data: framed, end: self.head });
    }

    /// Counts an item that nobody is there to take.
    pub(crate) fn skip(&mut self) {
        debug_assert!(self.cursors.is_empty() && self.chunks.is_empty() && self.open.is_empty());
        self.head.seq += 1;
        self.reached = self.head.seq;
    }

    fn advance_head(&mut self, bytes: usize) {
        self.head.seq += 1;
        self.head.bytes += bytes as u64;
    }

    /// Ends the open chunk where it is; the rest of its memory goes on as the next one.
    fn seal(&mut self) {
        if !self.open.is_empty() {
            let data = self.open.split().freeze();
            self.chunks.push_back(Chunk { data, end: self.head });
        }
    }

    /// A new subscriber; it gets what is appended from now on, starting with the returned sequence number.
    pub(crate) fn subscribe(&mut self, id: SubId) -> u64 {
        self.seal();
        let cursor = Cursor {
            next_chunk: self.first_chunk + self.chunks.len() as u64,
            taken: self.head,
            written: self.head,
            high_water: Depth::default(),
            standing: Standing::default(),
        };
        self.cursors.insert(id, cursor);
        self.release();
        // With nobody before it `clear_until` is without a limit, and must not stay so.
        self.clear_until = Position::default();
        self.head.seq
    }

    /// A subscriber is gone; `None` when it was removed before. Call [`unclaimed`](Self::unclaimed) if it was the last.
    pub(crate) fn unsubscribe(&mut self, id: SubId) -> Option<Unwritten> {
        let cursor = self.cursors.remove(&id)?;
        self.release();
        Some(cursor.depth(self.head))
    }

    pub(crate) fn subscribers(&self) -> usize {
        self.cursors.len()
    }

    /// Everything queued that no subscriber has taken, in order; empties the log. Only when no subscriber is left.
    pub(crate) fn unclaimed(&mut self) -> Vec<Bytes> {
        debug_assert!(self.cursors.is_empty());
        self.seal();
        let reached = self.reached;
        self.reached = self.head.seq;
        self.first_chunk += self.chunks.len() as u64;
        self.chunks.drain(..).filter(|chunk| chunk.end.seq > reached).map(|chunk| chunk.data).collect()
    }

    /// The next whole chunks for a subscriber, up to `max` bytes but at least one. `None` when it has taken everything
    /// or was removed.
    pub(crate) fn take(&mut self, id: SubId, max: usize) -> Option<Taken> {
        if self.cursors.get(&id)?.taken == self.head {
            return None;
        }
        self.seal();
        let head = self.head;
        let cursor = self.cursors.get_mut(&id)?;
        cursor.note_high_water(head);
        let start = usize::try_from(cursor.next_chunk - self.first_chunk).ok()?;
        let mut taken = Taken { first_seq: cursor.taken.seq, ..Taken::default() };
        for chunk in self.chunks.range(start..) {
            if !taken.chunks.is_empty() && taken.bytes + chunk.data.len() > max {
                break;
            }
            taken.bytes += chunk.data.len();
            taken.chunks.push(chunk.data.clone());
            cursor.taken = chunk.end;
            cursor.next_chunk += 1;
        }
        taken.items = cursor.taken.seq - taken.first_seq;
        self.reached = self.reached.max(cursor.taken.seq);
        Some(taken)
    }

    /// A subscriber has written so many more bytes of what it took. Its items count as written when all that it took is.
    pub(crate) fn wrote(&mut self, id: SubId, bytes: usize) {
        let head = self.head;
        let Some(cursor) = self.cursors.get_mut(&id) else { return };
        cursor.note_high_water(head);
        cursor.written.bytes += bytes as u64;
        debug_assert!(cursor.written.bytes <= cursor.taken.bytes);
        if cursor.written.bytes == cursor.taken.bytes {
            cursor.written = cursor.taken;
        }
        cursor.standing.progress(cursor.depth(head), self.lag.limit());
        if cursor.written.bytes == cursor.taken.bytes {
            self.release();
        }
    }

    /// What a subscriber's queue holds now, and the most it ever held.
    pub(crate) fn depth(&self, id: SubId) -> Option<(Depth, Depth)> {
        let cursor = self.cursors.get(&id)?;
        let now = cursor.depth(self.head);
        let high = cursor.high_water;
        Some((now, high.max(now)))
    }

    /// Lets go of the chunks that every subscriber has written.
    fn release(&mut self) {
        let Some(slowest) = self.cursors.values().map(|cursor| cursor.written.seq).min() else { return };
        while self.chunks.front().is_some_and(|chunk| chunk.end.seq <= slowest) {
            self.chunks.pop_front();
            self.first_chunk += 1;
        }
    }

    /// Bytes held for subscribers.
    #[cfg(test)]
    fn held(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.data.len()).sum::<usize>() + self.open.len()
    }
}

impl Cursor {
    fn note_high_water(&mut self, head: Position) {
        let depth = self.depth(head);
        self.high_water = self.high_water.max(depth);
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
