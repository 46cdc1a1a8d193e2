//! What every contender carries: the same type, serialised the same way (postcard).

use anyhow::{Result, ensure};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The size of an item is that of its sequence number (8 bytes) and of its body together.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Item {
    pub sequence: u64,
    pub body: Bytes,
}

/// Sequence number of the last item of a run; its body is the number of items before it.
const END: u64 = u64::MAX;

impl Item {
    pub fn end(count: u64) -> Self {
        Self { sequence: END, body: Bytes::copy_from_slice(&count.to_le_bytes()) }
    }
}

/// The body of an item of `size` bytes, to be cloned into each.
pub fn body(size: usize) -> Bytes {
    let bytes: Vec<u8> = (0..size.saturating_sub(8)).map(|index| index as u8).collect();
    bytes.into()
}

/// Checks at a consumer that every item arrives once and in order.
#[derive(Debug)]
pub struct Checker {
    size: usize,
    received: u64,
}

impl Checker {
    pub fn new(size: usize) -> Self {
        Self { size, received: 0 }
    }

    /// How many items have been received so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Takes the next item. False says that it was the last one and that none is missing.
    pub fn take(&mut self, item: &Item) -> Result<bool> {
        if item.sequence == END {
            let count = u64::from_le_bytes(item.body.as_ref().try_into()?);
            ensure!(count == self.received, "received {} of {count} items", self.received);
            return Ok(false);
        }
        ensure!(item.sequence == self.received, "gap: item {} where {} was due", item.sequence, self.received);
        ensure!(item.body.len() + 8 == self.size, "an item of {} bytes", item.body.len() + 8);
        self.received += 1;
        Ok(true)
    }
}
