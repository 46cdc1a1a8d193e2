//! What a subscriber with a filter takes: of the items that it has not looked at those that the filter admits, each under its number,
//! and word of what lies between. What is filtered out is told as that and is no gap; what it is for and does not get is one.

use std::time::Duration;

use super::{
    super::{
        SubId,
        batches::Batches,
        cursor::Place,
        frames::{Between, split_item},
        mutants::Mutant,
        progress::GapReason,
    },
    Log, Position,
    take::Taken,
};

/// Items that are looked at in one go.
const LOOKED_AT: usize = 8192;

impl Log {
    /// The next batches for a subscriber with a filter, up to `max` bytes but at least one item. `None` when it has looked at
    /// everything. Without items there is only more to look at. Everything is sealed.
    pub(super) fn take_filtered(&mut self, id: SubId, oldest: Option<Duration>, max: usize) -> Option<Taken> {
        let Self { cursors, chunks, keys, base, first_chunk, head, switch, .. } = self;
        let cursor = cursors.get_mut(&id)?;
        let expired = |born: Duration| oldest.is_some_and(|oldest| born < oldest);
        let between = |before: Between| match before {
            Between::Filtered if switch.is(Mutant::FilterAfterNumbering) => Between::Nothing,
            Between::LeftOut(_) if switch.is(Mutant::FilterHidesLoss) => Between::Filtered,
            before => before,
        };
        let (mut batches, mut looked_at) = (Batches::default(), 0);
        let is_full = |batches: &Batches, more: usize| batches.items() > 0 && batches.bytes() + more > max;
        while let Some(item) = cursor.kept.front() {
            if is_full(&batches, item.framed.len()) {
                break;
            }
            let Some(item) = cursor.pop_kept() else { break };
            if item.lost {
                cursor.leave_out(GapReason::Conflated);
            }
            if expired(item.born) {
                cursor.leave_out(GapReason::Expired);
                continue;
            }
            batches.push(item.seq, item.framed, between(cursor.before(item.seq)));
            cursor.tell(item.seq + 1);
        }
        'log: while cursor.kept.is_empty()
            && let Some(chunk) =
                usize::try_from(cursor.next.chunk - *first_chunk).ok().and_then(|index| chunks.get(index))
        {
            while let Some((_, behind)) = split_item(&chunk.data[cursor.next.offset..]) {
                let Place { chunk: number, offset, at } = cursor.next;
                let end = chunk.data.len() - behind.len();
                let key = usize::try_from(at.seq - base.seq).ok().and_then(|index| keys.get(index));
                let wants = cursor.wants(key);
                if looked_at == LOOKED_AT || (wants && is_full(&batches, end - offset)) {
                    break 'log;
                }
                looked_at += 1;
                if wants && expired(chunk.born) {
                    cursor.leave_out(GapReason::Expired);
                } else if wants {
                    batches.push(at.seq, chunk.data.slice(offset..end), between(cursor.before(at.seq)));
                    cursor.tell(at.seq + 1);
                }
                let at = Position { seq: at.seq + 1, bytes: at.bytes + (end - offset) as u64 };
                cursor.next = Place { chunk: number, offset: end, at };
            }
            cursor.next = Place { chunk: cursor.next.chunk + 1, offset: 0, at: chunk.end };
        }
        let looks_on = !cursor.has_all(*head);
        let (items, chunks) = (batches.items(), batches.finish());
        let bytes = chunks.iter().map(|chunk| chunk.len()).sum();
        let first_seq = cursor.next.at.seq;
        cursor.took(bytes);
        cursor.settle();
        self.reached = self.reached.max(first_seq);
        self.release();
        (items > 0 || looks_on).then(|| Taken { first_seq, items, bytes, chunks, is_framed: true, ..Taken::default() })
    }
}
