//! Figures of a stream or of one of its subscriptions, as snapshots.

use std::time::Duration;

use super::core::{admission::WaitReason, lag::Depth};
use crate::{discovery::PeerEntry, network::Lane};

/// A snapshot of figures: of one subscription, or of all subscriptions of a handle together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    pub(crate) datums: u64,
    pub(crate) bytes: u64,
    pub(crate) gaps: u64,
    pub(crate) drops: u64,
    pub(crate) uptime: Option<Duration>,
    pub(crate) queue: Depth,
    pub(crate) high_water: Depth,
    pub(crate) rtt: Option<Duration>,
    pub(crate) lane: Option<Lane>,
    pub(crate) waits: u64,
    pub(crate) too_slow: u64,
}

impl Stats {
    /// Items: at a consumer those handed out, at a producer those sent.
    #[must_use]
    pub const fn datums(&self) -> u64 {
        self.datums
    }

    /// Their encoded bytes, framing included.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How often items were missed (consumer; 0 at a producer).
    #[must_use]
    pub const fn gaps(&self) -> u64 {
        self.gaps
    }

    /// Items that got lost: at a consumer those within gaps; at a producer those that found no subscriber, or whose last
    /// subscriber went before it took them (a consumer that comes back may still get them).
    #[must_use]
    pub const fn drops(&self) -> u64 {
        self.drops
    }

    /// How often `send` has had to wait, for a subscriber or for room (of a producer as a whole; else 0).
    #[must_use]
    pub const fn waits(&self) -> u64 {
        self.waits
    }

    /// Subscribers that were closed because they could not keep up (of a producer as a whole; else 0).
    #[must_use]
    pub const fn too_slow(&self) -> u64 {
        self.too_slow
    }

    /// For how long it has been connected; for a handle as a whole, its oldest live subscription. `None` while disconnected.
    #[must_use]
    pub const fn uptime(&self) -> Option<Duration> {
        self.uptime
    }

    /// Items and bytes that wait: at a producer for the network (of the fullest subscriber), at a consumer to be read.
    #[must_use]
    pub const fn queue(&self) -> (u64, u64) {
        (self.queue.items, self.queue.bytes)
    }

    /// The most items and bytes that ever waited.
    #[must_use]
    pub const fn high_water(&self) -> (u64, u64) {
        (self.high_water.items, self.high_water.bytes)
    }

    /// The smoothed round-trip time to the peer, of a single connected subscription.
    #[must_use]
    pub const fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// What carries the items of a single connected subscription: packets, or within one host sockets or memory.
    #[must_use]
    pub const fn lane(&self) -> Option<Lane> {
        self.lane
    }
}

/// The state of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChannelState {
    /// No connection yet, or none any more; it is tried again.
    Connecting,
    /// The producer keeps it waiting.
    Waiting(WaitReason),
    /// Items flow.
    Connected,
    /// The consumer prefers another producer ([`prefer`](super::ConsumerBuilder::prefer)).
    Spare,
    /// The producer stands by: it tells how far it is, and takes over when another one fails
    /// ([`with_standby`](super::ConsumerBuilder::with_standby)).
    Standby,
}

/// One subscription as its producer or consumer sees it: an owned snapshot.
#[derive(Debug, Clone)]
pub struct ChannelInfo {
    pub(crate) peer: PeerEntry,
    pub(crate) state: ChannelState,
    pub(crate) late: bool,
    pub(crate) stats: Stats,
}

impl ChannelInfo {
    /// The other side, as it was last heard of.
    #[must_use]
    pub const fn peer(&self) -> &PeerEntry {
        &self.peer
    }

    /// What state the subscription is in.
    #[must_use]
    pub const fn state(&self) -> ChannelState {
        self.state
    }

    /// Whether items flow.
    #[must_use]
    pub const fn is_connected(&self) -> bool {
        matches!(self.state, ChannelState::Connected)
    }

    /// Whether no item has come for the consumer's [`deadline`](crate::streams::ConsumerBuilder::with_deadline); never at a
    /// producer.
    #[must_use]
    pub const fn is_late(&self) -> bool {
        self.late
    }

    /// Its figures.
    #[must_use]
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }
}
