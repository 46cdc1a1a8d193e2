//! The one queue of a producer: encoded items in order, shared by all subscribers.
//!
//! Items are appended to an open chunk. A subscriber that takes seals the chunk, so every subscriber gets the same
//! `Bytes`; its own state is a [`Cursor`]. What a subscriber's queue holds is its cursor's distance from the head, and
//! [`lag`](super::lag) decides on it. A chunk that the last cursor has written stays in the *ring* as long as it is among the
//! newest items: a subscriber that comes back [joins](Log::join_filtered) where it was, so replay and live flow are one and the same
//! sequence, without a cut between them.
//!
//! Here is what is kept; [`room`] decides what may be appended, [`take`] is the subscribers' side, [`filtered`] that of those with a
//! filter.
//!
//! Invariants: chunks are contiguous from `base` to the head; `written <= next <= head` for each cursor; what a cursor
//! [needs](Cursor::needs) is there; beyond that, the log holds the ring's limit and at most one chunk more.

mod filtered;
mod room;
pub(crate) mod take;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};

use super::{
    SubId,
    cursor::{Cursor, Kept, Place},
    filter::Filter,
    frames::split_item,
    key::Key,
    lag::{Depth, Lag, Limit},
    mutants::{Mutant, Switch},
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
    pub(super) fn since(self, earlier: Self) -> Depth {
        Depth { items: self.seq - earlier.seq, bytes: self.bytes - earlier.bytes }
    }
}

#[derive(Debug)]
struct Chunk {
    data: Bytes,
    /// Just behind its last item.
    end: Position,
    /// When its last item was appended; only with a lifespan.
    born: Duration,
}

/// What a log is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) policy: OnLag,
    /// How far a subscriber may be behind.
    pub(crate) limit: Limit,
    /// What is kept for subscribers that come back.
    pub(crate) ring: Limit,
    /// Items older than this are left out.
    pub(crate) lifespan: Option<Duration>,
    /// Items have keys, so that subscribers may have filters.
    pub(crate) keyed: bool,
    pub(crate) switch: Switch,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Log {
    chunks: VecDeque<Chunk>,
    /// Absolute number of `chunks[0]`, and where it begins.
    first_chunk: u64,
    base: Position,
    open: BytesMut,
    open_size: usize,
    /// When the open chunk's first and last items were appended; only with a lifespan.
    open_since: Duration,
    open_until: Duration,
    clock: Duration,
    head: Position,
    /// Nobody is full before the head gets here. May be too early, never too late.
    clear_until: Position,
    cursors: BTreeMap<SubId, Cursor>,
    /// The furthest that any subscriber has taken.
    reached: u64,
    /// What the last subscriber had kept to itself when it left.
    orphans: VecDeque<Kept>,
    /// The keys of the items from `base` on; only if they have some, or the policy conflates.
    keys: VecDeque<Key>,
    keyed: bool,
    lag: Lag,
    ring: Limit,
    lifespan: Option<Duration>,
    switch: Switch,
    expelled: Vec<SubId>,
}

impl Log {
    pub(crate) fn new(settings: Settings) -> Self {
        let Settings { policy, limit, ring, lifespan, keyed, switch } = settings;
        Self {
            chunks: VecDeque::new(),
            first_chunk: 0,
            base: Position::default(),
            open: BytesMut::new(),
            open_size: FIRST_CHUNK,
            open_since: Duration::ZERO,
            open_until: Duration::ZERO,
            clock: Duration::ZERO,
            head: Position::default(),
            clear_until: Position::default(),
            cursors: BTreeMap::new(),
            reached: 0,
            orphans: VecDeque::new(),
            keys: VecDeque::new(),
            keyed: keyed || policy == OnLag::Conflate,
            lag: Lag::new(policy, limit),
            ring,
            lifespan,
            switch,
            expelled: Vec::new(),
        }
    }

    /// Counts from here on; the log is new.
    #[allow(dead_code, reason = "simulations of the core do without")]
    pub(crate) fn begin_at(&mut self, seq: u64) {
        debug_assert!(self.head.seq == 0 && self.cursors.is_empty());
        (self.head.seq, self.base.seq, self.reached) = (seq, seq, seq);
    }

    /// The sequence number of the next item.
    pub(crate) fn head(&self) -> u64 {
        self.head.seq
    }

    /// Whether items that nobody is there to take are kept for who comes back.
    pub(crate) fn has_ring(&self) -> bool {
        self.ring.items > 0 && self.ring.bytes > 0
    }

    /// Whether [`tick`](Self::tick) must be called before an append or a take.
    pub(crate) fn is_timed(&self) -> bool {
        self.lifespan.is_some()
    }

    /// The time, for the age of items.
    pub(crate) fn tick(&mut self, now: Duration) {
        self.clock = self.clock.max(now);
    }

    /// Appends one framed item by copying it. Its key is taken, if items have keys.
    #[inline]
    pub(crate) fn append(&mut self, framed: &[u8], key: &mut Key) {
        if self.open.capacity() - self.open.len() < framed.len() {
            self.open_anew(framed.len());
        }
        if let Some(lifespan) = self.lifespan {
            // So that a chunk's age is that of its items.
            if self.clock.saturating_sub(self.open_since) > lifespan / 8 {
                self.seal();
            }
            if self.open.is_empty() {
                self.open_since = self.clock;
            }
            self.open_until = self.clock;
        }
        self.open.extend_from_slice(framed);
        self.head.seq += 1;
        self.head.bytes += framed.len() as u64;
        self.appended(key);
    }

    /// Opens a chunk with room for so many bytes, at least.
    #[cold]
    fn open_anew(&mut self, bytes: usize) {
        self.seal();
        self.open = BytesMut::with_capacity(self.open_size.max(bytes));
        self.open_size = (self.open_size * 2).min(CHUNK);
    }

    /// As [`append`](Self::append), as a chunk of its own, without a copy.
    pub(crate) fn append_chunk(&mut self, framed: Bytes, key: &mut Key) {
        self.seal();
        self.head.bytes += framed.len() as u64;
        self.head.seq += 1;
        self.chunks.push_back(Chunk { data: framed, end: self.head, born: self.clock });
        self.appended(key);
    }

    /// Counts an item that nobody is there to take and that is not to be kept. With it goes what was kept before, since
    /// there is no gap in a ring.
    pub(crate) fn skip(&mut self) {
        debug_assert!(self.cursors.is_empty());
        self.head.seq += 1;
        self.reached = self.head.seq;
        self.clear();
    }

    #[inline]
    fn appended(&mut self, key: &mut Key) {
        if self.keyed {
            self.keys.push_back(std::mem::take(key));
        }
        if self.cursors.is_empty() {
            self.appended_for_nobody();
        }
    }

    /// Nobody writes, so nobody else lets go.
    #[cold]
    fn appended_for_nobody(&mut self) {
        if self.open.len() >= CHUNK / 2 {
            self.seal();
        }
        self.reached = self.head.seq;
        self.trim(self.head.seq);
    }

    /// Ends the open chunk where it is; the rest of its memory goes on as the next one.
    fn seal(&mut self) {
        if !self.open.is_empty() {
            let data = self.open.split().freeze();
            self.chunks.push_back(Chunk { data, end: self.head, born: self.open_until });
        }
    }

    /// As [`join_filtered`](Self::join_filtered), for everything.
    #[cfg(test)]
    pub(crate) fn join(&mut self, id: SubId, from: Option<u64>) -> u64 {
        self.join_filtered(id, from, None)
    }

    /// A new subscriber, for what the filter admits or for everything. With `from` it has everything before that number and gets what
    /// is still there from then on; without, what is appended from now on. Returned is the number of the first item to come.
    pub(crate) fn join_filtered(&mut self, id: SubId, from: Option<u64>, filter: Option<Arc<Filter>>) -> u64 {
        self.seal();
        let from = from.unwrap_or(self.head.seq).clamp(self.base.seq, self.head.seq);
        let start = if self.switch.is(Mutant::ResumeAtHead) { self.head.seq } else { from };
        let lossy = self.lag.policy().is_lossy();
        let mut place = if start == self.head.seq { self.end() } else { self.seek(start) };
        if self.switch.is(Mutant::RingOffByOne) && start < self.head.seq {
            place = Place { at: place.at, ..self.seek(start + 1) };
        }
        self.cursors.insert(id, Cursor::new(place, self.head, lossy, filter));
        self.release();
        // With nobody before it `clear_until` is without a limit, and must not stay so.
        self.clear_until = Position::default();
        start
    }

    /// The first item boundary for which `found` holds, which must hold from there on to the head. Everything is sealed.
    fn find(&self, found: impl Fn(Position) -> bool) -> Place {
        let index = self.chunks.partition_point(|chunk| !found(chunk.end));
        let start = index.checked_sub(1).and_then(|before| self.chunks.get(before)).map_or(self.base, |it| it.end);
        let chunk = self.first_chunk + index as u64;
        let mut place = Place { chunk, offset: 0, at: start };
        let Some(data) = self.chunks.get(index).map(|chunk| &chunk.data) else { return place };
        while !found(place.at)
            && let Some((_, behind)) = split_item(&data[place.offset..])
        {
            let offset = data.len() - behind.len();
            let bytes = place.at.bytes + (offset - place.offset) as u64;
            place = Place { chunk, offset, at: Position { seq: place.at.seq + 1, bytes } };
        }
        if place.offset == data.len() {
            place = Place { chunk: chunk + 1, offset: 0, ..place };
        }
        place
    }

    fn seek(&self, seq: u64) -> Place {
        self.find(|at| at.seq >= seq)
    }

    /// The place behind everything, which is sealed.
    fn end(&self) -> Place {
        Place { chunk: self.first_chunk + self.chunks.len() as u64, offset: 0, at: self.head }
    }

    /// A subscriber is gone. Call [`unclaimed`](Self::unclaimed) if it was the last.
    pub(crate) fn unsubscribe(&mut self, id: SubId) {
        let Some(cursor) = self.cursors.remove(&id) else { return };
        if self.cursors.is_empty() {
            self.orphans = cursor.kept;
        }
        self.release();
    }

    pub(crate) fn subscribers(&self) -> usize {
        self.cursors.len()
    }

    /// How many queued items no subscriber has taken, when the last one has left. They stay in the ring, unless they are
    /// to be handed back: then they are returned, in order, and the log is empty. Of those that a conflation left out there is
    /// only the last of each key.
    pub(crate) fn unclaimed(&mut self, hand_back: bool) -> (u64, Vec<Bytes>) {
        debug_assert!(self.cursors.is_empty());
        self.seal();
        let (reached, base) = (std::mem::replace(&mut self.reached, self.head.seq), self.base.seq);
        let orphans = std::mem::take(&mut self.orphans);
        let items = self.head.seq - reached;
        if !hand_back || items == 0 {
            self.trim(self.head.seq);
            return (items, Vec::new());
        }
        let let_go = orphans.into_iter().filter(|item| (reached..base).contains(&item.seq)).map(|item| item.framed);
        let held = self.chunks.drain(..).filter(|chunk| chunk.end.seq > reached).map(|chunk| chunk.data);
        let left = let_go.chain(held).collect();
        self.clear();
        (items, left)
    }

    fn clear(&mut self) {
        self.open = BytesMut::new();
        self.open_size = FIRST_CHUNK;
        // Nobody has a place, so the numbers of chunks need not go on.
        self.chunks.clear();
        self.keys.clear();
        self.base = self.head;
    }

    /// What a subscriber's queue holds now, and the most it ever held.
    pub(crate) fn depth(&self, id: SubId) -> Option<(Depth, Depth)> {
        self.cursors.get(&id).map(|cursor| cursor.depths(self.head))
    }

    /// The key of the newest item that is held, if items have keys.
    #[allow(dead_code, reason = "simulations of the core do without")]
    pub(crate) fn last_key(&self) -> Option<&Key> {
        self.keys.back()
    }

    /// Bytes held for subscribers and in the ring.
    #[cfg(any(test, feature = "testing"))]
    #[allow(dead_code, reason = "for tests and simulations")]
    pub(crate) fn held(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.data.len()).sum::<usize>() + self.open.len()
    }

    /// Lets go of what every subscriber has written and the ring does not want.
    fn release(&mut self) {
        let needs = self.cursors.values().map(Cursor::needs);
        let slowest = if self.switch.is(Mutant::ReleasedByFastest) { needs.max() } else { needs.min() };
        if let Some(slowest) = slowest {
            self.trim(slowest);
        }
    }

    /// Lets go of chunks before `needed`, but for the newest in the ring.
    fn trim(&mut self, needed: u64) {
        while let Some(front) = self.chunks.front().filter(|front| front.end.seq <= needed) {
            let ring_is_full = self.head.since(front.end).is_full(self.ring);
            let too_large = front.data.len() > CHUNK && self.head.since(self.base).bytes > self.ring.bytes;
            if !ring_is_full && !too_large {
                break;
            }
            if self.keyed {
                let gone = usize::try_from(front.end.seq - self.base.seq).unwrap_or(usize::MAX);
                self.keys.drain(..gone.min(self.keys.len()));
            }
            self.base = front.end;
            self.chunks.pop_front();
            self.first_chunk += 1;
        }
    }
}
