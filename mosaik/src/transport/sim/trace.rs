//! The event trace: a running digest of everything that happened in a world, to show that two runs are the same.
//!
//! Fed by the world; read through `testing::Sim`.

use std::collections::VecDeque;

use bytes::Bytes;

use super::event::{ConnId, Micros, NodeIx};

/// One thing that happened.
pub(super) struct Entry<'a> {
    pub(super) at: Micros,
    pub(super) kind: &'static str,
    pub(super) from: NodeIx,
    pub(super) to: NodeIx,
    pub(super) conn: ConnId,
    /// Meaning depends on the kind: stream index, code or amount.
    pub(super) detail: u64,
    pub(super) payload: Option<&'a Bytes>,
}

/// A running BLAKE3 digest of all entries, and the last lines when they are asked for.
#[derive(Debug, Default)]
pub(super) struct Trace {
    hasher: blake3::Hasher,
    events: u64,
    keep: usize,
    lines: VecDeque<String>,
}

impl Trace {
    pub(super) fn note(&mut self, entry: &Entry<'_>) {
        self.events += 1;
        let payload = entry.payload.map_or(&[][..], |bytes| &bytes[..]);
        let numbers = [entry.at, entry.from as u64, entry.to as u64, entry.conn, entry.detail, payload.len() as u64];
        let mut head = [0; 48];
        for (slot, number) in head.chunks_exact_mut(8).zip(numbers) {
            slot.copy_from_slice(&number.to_le_bytes());
        }
        self.hasher.update(entry.kind.as_bytes()).update(&head).update(payload);
        if self.keep > 0 {
            if self.lines.len() == self.keep {
                self.lines.pop_front();
            }
            self.lines.push_back(format!(
                "{:>12} {:<13} {:>4} -> {:<4} #{} {} {} B",
                entry.at,
                entry.kind,
                entry.from,
                entry.to,
                entry.conn,
                entry.detail,
                payload.len()
            ));
        }
    }

    pub(super) fn keep(&mut self, lines: usize) {
        self.keep = lines;
        self.lines.truncate(lines);
    }

    pub(super) fn digest(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }

    pub(super) fn events(&self) -> u64 {
        self.events
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.lines.iter().cloned().collect()
    }
}
