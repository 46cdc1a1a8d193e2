//! What a stream may hold and how fast it may go: the values that builders take, and the fixed limits.
//!
//! Everything here is plain data. The cores enforce it.

use std::time::Duration;

/// The largest encoded item in bytes; `send` hands a larger one back with `TooLarge`.
pub const MAX_ITEM: usize = 16 << 20;
/// A subscriber that has something to take and takes nothing for this long is closed.
pub(crate) const STALL: Duration = Duration::from_secs(2);
/// How long a peer may take to say what it wants, and a producer to answer.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(5);
/// Subscriptions that may wait for admission at one producer; more are refused.
pub(crate) const MAX_WAITING: usize = 1024;
/// Predicates are asked again at least this often, since a closure may look at the outside world.
pub(crate) const RECHECK: Duration = Duration::from_secs(1);
/// How often an idle producer says what the next item's number is; the first time up to twice as long after its last item.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(1);
/// Heads to one that stands by are at least so far apart: at 1,000 items/s one head for twenty items.
pub(crate) const HEADS: Duration = Duration::from_millis(20);
/// For how long the items of a producer may trail the heads of one that stands by; or for the consumer's deadline, if that is less.
pub(crate) const BEHIND: Duration = Duration::from_secs(1);
/// How long a closing stream may take to hand over what is queued.
pub(crate) const DRAIN: Duration = Duration::from_secs(1);
/// Bytes that one producer's items may take up at a consumer before they are read from the network no further.
pub(crate) const CONSUMER_BUFFER: usize = 512 << 10;

/// How many bytes of live items wait at a consumer while a replay is under way, before they are read no further; or as many as
/// were replayed so far, if that is more.
pub(crate) const HELD: usize = 8 << 20;
/// The pace of all replays of a producer together, unless it is configured.
pub(crate) const REPLAY_PACE: ByteRate = ByteRate::mib_per_sec(16);

/// How much one subscriber may be behind before it counts as full: the default is 4 MiB or 65,536 items, whichever is
/// reached first.
///
/// An item that is larger than the byte limit is sent when the queue is below the limit; so a queue exceeds its limit
/// by at most one item.
///
/// ```
/// # use mosaik::streams::Buffer;
/// let small = Buffer::items(1024).bytes(1 << 20);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffer {
    pub(crate) items: usize,
    pub(crate) bytes: usize,
}

impl Default for Buffer {
    fn default() -> Self {
        Self { items: 65_536, bytes: 4 << 20 }
    }
}

impl Buffer {
    /// At most this many items (at least 1), and the default number of bytes.
    #[must_use]
    pub fn items(items: usize) -> Self {
        Self { items: items.max(1), ..Self::default() }
    }

    /// Nothing at all, where that makes sense: see [`with_replay`](super::ProducerBuilder::with_replay).
    #[must_use]
    pub const fn none() -> Self {
        Self { items: 0, bytes: 0 }
    }

    /// The same with at most this many encoded bytes (at least 1).
    #[must_use]
    pub const fn bytes(mut self, bytes: usize) -> Self {
        self.bytes = if bytes == 0 { 1 } else { bytes };
        self
    }
}

/// What happens when a subscriber cannot keep up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnLag {
    /// The producer runs at the pace of its fastest subscriber. A subscriber whose queue is full while another one has
    /// nothing left to take, or that takes nothing for 2 s, is closed with `TooSlow`.
    ///
    /// So that equals do not close each other, a full subscriber may hold up another one for 500 ms without any
    /// progress, or for 2 s in which it never gets down to half of its queue.
    #[default]
    Disconnect,
    /// `send` waits for the slowest subscriber for up to this long; then that one is closed with `TooSlow`. So is one that, in
    /// this long, has been full and has not taken half of its queue: it may slow its producer to half a queue per this long,
    /// not further. With a [`Buffer`] of one or two items that is one item, so give it a larger one.
    ///
    /// How often `send` has had to wait and how many subscribers were closed is counted: see
    /// [`waits`](super::Stats::waits) and [`too_slow`](super::Stats::too_slow).
    Block(Duration),
    /// A subscriber whose queue is full loses an eighth of it, the oldest items, and is told so by a gap
    /// ([`Dropped`](super::GapReason::Dropped)). Nobody is closed and `send` never waits for room.
    DropOldest,
    /// A subscriber whose queue is full keeps only the last item of each key of
    /// [`with_key`](super::ProducerBuilder::with_key), and without keys only the last one at all; the rest is told by gaps
    /// ([`Conflated`](super::GapReason::Conflated)). If there are too many keys for that, it loses the oldest as with
    /// `DropOldest`. Nobody is closed and `send` never waits for room.
    Conflate,
}

impl OnLag {
    /// Whether it leaves out items rather than making somebody wait.
    pub(crate) const fn is_lossy(self) -> bool {
        matches!(self, Self::DropOldest | Self::Conflate)
    }
}

/// A rate in bytes per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteRate(u64);

impl ByteRate {
    /// This many bytes per second (at least 1).
    #[must_use]
    pub const fn bytes_per_sec(bytes: u64) -> Self {
        Self(if bytes == 0 { 1 } else { bytes })
    }

    /// This many KiB per second.
    #[must_use]
    pub const fn kib_per_sec(kib: u64) -> Self {
        Self::bytes_per_sec(kib.saturating_mul(1 << 10))
    }

    /// This many MiB per second.
    #[must_use]
    pub const fn mib_per_sec(mib: u64) -> Self {
        Self::bytes_per_sec(mib.saturating_mul(1 << 20))
    }

    /// Bytes per second.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}
