//! What a subscriber takes from the log and writes: whole chunks, or items of its own list, and what it is told of those that
//! are left out.

use std::time::Duration;

use bytes::Bytes;

use super::{
    super::{
        SubId,
        cursor::{Cursor, Place},
        frames::{self, Between},
        mutants::Mutant,
        progress::GapReason,
    },
    Log,
};

/// Items of its own list that a subscriber takes at once.
const KEPT_BATCH: usize = 1024;

/// What a subscriber writes next: whole items, in order, without a gap between them. With no items it says only that
/// something before `first_seq` is left out.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) first_seq: u64,
    pub(crate) items: u64,
    pub(crate) bytes: usize,
    pub(crate) chunks: Vec<Bytes>,
    /// What lies between what was taken before and the first item.
    pub(super) before: Between,
    /// The chunks are batches with their headers already.
    pub(super) is_framed: bool,
}

impl Taken {
    /// What is to be written before the chunks.
    pub(crate) fn header(&self) -> Option<Bytes> {
        let header = || frames::batch_header(self.first_seq, self.items, self.bytes, self.before);
        (!self.is_framed).then(header)
    }
}

impl Log {
    /// The next whole items for a subscriber, up to `max` bytes but at least one. `None` when it has taken everything or
    /// was removed.
    pub(crate) fn take(&mut self, id: SubId, max: usize) -> Option<Taken> {
        if self.cursors.get(&id)?.has_all(self.head) {
            return None;
        }
        self.seal();
        let head = self.head;
        let oldest = self.lifespan.map(|lifespan| self.clock.saturating_sub(lifespan));
        let cursor = self.cursors.get_mut(&id)?;
        cursor.note_high_water(head);
        if cursor.filter.is_some() {
            return self.take_filtered(id, oldest, max);
        }
        if let Some(taken) = take_kept(cursor, oldest, max) {
            self.reached = self.reached.max(taken.first_seq + taken.items);
            return Some(taken);
        }
        let start = usize::try_from(cursor.next.chunk - self.first_chunk).ok()?;
        let mut chunks = self.chunks.range(start..).peekable();
        while let Some(chunk) = chunks.next_if(|chunk| oldest.is_some_and(|oldest| chunk.born < oldest)) {
            let chunk = Place { chunk: cursor.next.chunk + 1, offset: 0, at: chunk.end };
            cursor.skip_to(chunk, Some(GapReason::Expired));
        }
        let first_seq = cursor.next.at.seq;
        let mut taken = Taken { first_seq, ..Taken::default() };
        for chunk in chunks {
            let length = chunk.data.len() - cursor.next.offset;
            if !taken.chunks.is_empty() && taken.bytes + length > max {
                break;
            }
            taken.bytes += length;
            taken.chunks.push(chunk.data.slice(cursor.next.offset..));
            let repeats = self.switch.is(Mutant::ReplayOverlapsLive) && cursor.crosses_join(chunk.end.seq);
            cursor.next = Place { chunk: cursor.next.chunk + u64::from(!repeats), offset: 0, at: chunk.end };
        }
        if taken.chunks.is_empty() {
            self.release();
            return None;
        }
        taken.items = cursor.next.at.seq - first_seq;
        taken.before = cursor.before(first_seq);
        if self.switch.is(Mutant::SilentDrop) && taken.before == Between::LeftOut(GapReason::Dropped) {
            (taken.first_seq, taken.before) = (cursor.told, Between::Nothing);
        }
        cursor.took(taken.bytes);
        cursor.tell(first_seq + taken.items);
        self.reached = self.reached.max(first_seq + taken.items);
        Some(taken)
    }

    /// What an idle subscriber is told: the number that comes next, and what lies before it that was not told yet.
    pub(crate) fn heartbeat(&mut self, id: SubId) -> Option<(Between, u64)> {
        let cursor = self.cursors.get_mut(&id)?;
        let next = cursor.kept.front().map_or(cursor.next.at.seq, |item| item.seq);
        let before = cursor.before(next);
        cursor.tell(next);
        Some((before, next))
    }

    /// A subscriber has written so many more bytes of what it took. Its items count as written when all that it took is.
    pub(crate) fn wrote(&mut self, id: SubId, bytes: usize) {
        let (head, limit) = (self.head, self.lag.limit());
        let Some(cursor) = self.cursors.get_mut(&id) else { return };
        if cursor.wrote(bytes, head, limit) {
            self.release();
        }
    }
}

/// The next items of a subscriber's own list.
fn take_kept(cursor: &mut Cursor, oldest: Option<Duration>, max: usize) -> Option<Taken> {
    while cursor.kept.front().is_some_and(|item| oldest.is_some_and(|oldest| item.born < oldest)) {
        cursor.pop_kept();
        cursor.leave_out(GapReason::Expired);
    }
    let first_seq = cursor.kept.front()?.seq;
    let mut taken = Taken { first_seq, before: cursor.before(first_seq), ..Taken::default() };
    while let Some(item) = cursor.kept.front()
        && item.seq == first_seq + taken.items
        && taken.chunks.len() < KEPT_BATCH
        && (taken.chunks.is_empty() || taken.bytes + item.framed.len() <= max)
    {
        let Some(item) = cursor.pop_kept() else { break };
        taken.items += 1;
        taken.bytes += item.framed.len();
        taken.chunks.push(item.framed);
    }
    cursor.took(taken.bytes);
    cursor.tell(first_seq + taken.items);
    Some(taken)
}
