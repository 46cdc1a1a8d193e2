//! Batches that are put together item by item, where items do not lie side by side: those of a replay, and those that pass a filter.

use bytes::{Bytes, BytesMut};

use super::{
    frames::{Between, MAX_BATCH, batch_header, mark},
    log::LARGE,
};

/// The bytes of batches with their headers: small items are copied side by side, large ones are as they are.
#[derive(Debug, Default)]
pub(crate) struct Batches {
    chunks: Vec<Bytes>,
    open: BytesMut,
    /// Of all items so far.
    items: u64,
    bytes: usize,
    /// The batch under way, and what lies before it.
    run: Vec<Bytes>,
    run_bytes: usize,
    first: u64,
    before: Option<Between>,
}

impl Batches {
    /// Adds a framed item; `before` says what lies between it and the one before, or that it follows that one.
    pub(crate) fn push(&mut self, seq: u64, framed: Bytes, before: Between) {
        let length = framed.len();
        let follows = before == Between::Nothing && seq == self.first + self.run.len() as u64;
        if self.run.is_empty() || !follows || self.run_bytes + length > MAX_BATCH {
            self.end_batch();
            (self.first, self.before) = (seq, Some(before));
        }
        self.items += 1;
        self.bytes += length;
        self.run_bytes += length;
        self.run.push(framed);
    }

    /// Says that nothing more comes before `next`, or what else lies between.
    pub(crate) fn mark(&mut self, before: Between, next: u64) {
        self.end_batch();
        self.open.extend_from_slice(&mark(before, next));
    }

    /// How many items there are.
    pub(crate) const fn items(&self) -> u64 {
        self.items
    }

    /// How many bytes the items have.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// What is to be written.
    pub(crate) fn finish(mut self) -> Vec<Bytes> {
        self.end_batch();
        self.seal();
        self.chunks
    }

    fn end_batch(&mut self) {
        let before = self.before.take().unwrap_or(Between::Nothing);
        if self.run.is_empty() {
            return;
        }
        self.open.extend_from_slice(&batch_header(self.first, self.run.len() as u64, self.run_bytes, before));
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
