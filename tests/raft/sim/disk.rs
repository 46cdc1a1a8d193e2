//! A simulated disk: what is durable, and the batches on their way there.

use std::collections::VecDeque;

use mosaik::groups::raft::{Digest, Index, Stored, Token, Write};

#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub durable: Stored,
    pub pending: VecDeque<(Token, Vec<Write>)>,
}

impl Disk {
    pub fn submit(&mut self, token: Token, writes: Vec<Write>) {
        self.pending.push_back((token, writes));
    }

    /// Everything up to `token` reaches the platter.
    pub fn complete(&mut self, token: Token) {
        while self.pending.front().is_some_and(|(at, _)| *at <= token) {
            let (_, writes) = self.pending.pop_front().expect("checked");
            for write in writes {
                apply(&mut self.durable, write);
            }
        }
    }

    /// Power is lost: of what was not reported durable, some prefix of `keep` batches made it all the same.
    pub fn crash(&mut self, keep: u64) {
        for _ in 0..keep {
            let Some((_, writes)) = self.pending.pop_front() else { break };
            for write in writes {
                apply(&mut self.durable, write);
            }
        }
        self.pending.clear();
    }

    pub fn pending(&self) -> u64 {
        self.pending.len() as u64
    }

    /// Whether the entry is durable here.
    pub fn has(&self, index: Index, hash: Digest) -> bool {
        let base = self.durable.snapshot.as_ref().map(|it| it.manifest.position);
        if let Some(base) = base
            && index <= base.index
        {
            return index < base.index || base.hash == hash;
        }
        let first = self.durable.entries.first().map_or(0, |entry| entry.index);
        let at = index.checked_sub(first).and_then(|at| self.durable.entries.get(at as usize));
        at.is_some_and(|entry| entry.hash == hash)
    }
}

fn apply(stored: &mut Stored, write: Write) {
    match write {
        Write::Hard(hard) => stored.hard = hard,
        Write::Founding(founding) => stored.founding = founding,
        Write::Machine(machine) => stored.machine = Some(machine),
        Write::Marks(marks) => stored.marks = marks,
        Write::Replace(entries) => {
            let Some(first) = entries.first().map(|entry| entry.index) else { return };
            let base = stored.snapshot.as_ref().map_or(0, |it| it.manifest.position.index);
            let keep = first.saturating_sub(stored.entries.first().map_or(first, |entry| entry.index));
            stored.entries.truncate(keep as usize);
            let last = stored.entries.last().map_or(base, |entry| entry.index);
            assert_eq!(first, last + 1, "a write leaves a hole in the log");
            stored.entries.extend(entries);
        }
        Write::Snapshot { snapshot, keep } => {
            let index = snapshot.manifest.position.index;
            stored.entries.retain(|entry| keep && entry.index > index);
            stored.snapshot = Some(snapshot);
        }
    }
}
