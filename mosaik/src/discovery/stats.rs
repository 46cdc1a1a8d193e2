//! What discovery costs: bytes and messages on the wire by protocol.

use std::sync::atomic::{AtomicU64, Ordering};

/// Figures since the node's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Hints and overlay upkeep.
    pub gossip: Traffic,
    /// Comparing catalogs.
    pub sync: Traffic,
    /// Fetching entries.
    pub entry: Traffic,
    /// Peers that were refused because the catalog was full.
    pub refused_full: u64,
    /// How often the node had to outbid an older self; more than a few say that two nodes share one key.
    pub adoptions: u64,
}

impl Stats {
    /// All protocols together.
    #[must_use]
    pub fn total(&self) -> Traffic {
        self.gossip + self.sync + self.entry
    }
}

/// The traffic of one protocol. Bytes are those of messages, without frame headers, preambles and QUIC's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Messages sent.
    pub messages_sent: u64,
    /// Messages received.
    pub messages_received: u64,
}

impl std::ops::Add for Traffic {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            bytes_sent: self.bytes_sent + other.bytes_sent,
            bytes_received: self.bytes_received + other.bytes_received,
            messages_sent: self.messages_sent + other.messages_sent,
            messages_received: self.messages_received + other.messages_received,
        }
    }
}

/// Live counters of all protocols.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) gossip: Meter,
    pub(super) sync: Meter,
    pub(super) entry: Meter,
}

/// Live counters of one protocol.
#[derive(Debug, Default)]
pub(super) struct Meter {
    sent: [AtomicU64; 2],
    received: [AtomicU64; 2],
}

impl Meter {
    pub(super) fn sent(&self, bytes: usize) {
        count(&self.sent, bytes);
    }

    pub(super) fn received(&self, bytes: usize) {
        count(&self.received, bytes);
    }

    pub(super) fn read(&self) -> Traffic {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Traffic {
            messages_sent: get(&self.sent[0]),
            bytes_sent: get(&self.sent[1]),
            messages_received: get(&self.received[0]),
            bytes_received: get(&self.received[1]),
        }
    }
}

fn count(counters: &[AtomicU64; 2], bytes: usize) {
    counters[0].fetch_add(1, Ordering::Relaxed);
    counters[1].fetch_add(bytes as u64, Ordering::Relaxed);
}
