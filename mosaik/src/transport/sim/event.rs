//! What the simulated network carries: packets between two nodes, and timers of connections.
//!
//! The world (`world.rs`) queues these by (time, sequence) and handles them one by one; nothing else happens in a
//! simulation. Plain data, no behaviour.

use std::cmp::Ordering;

use bytes::Bytes;

use crate::transport::{Code, ConnectError};

/// Index of a node in its world, in the order of creation.
pub(crate) type NodeIx = usize;
/// Connections are numbered in the order in which they were dialled.
pub(super) type ConnId = u64;
/// Microseconds of virtual time since the world began.
pub(super) type Micros = u64;

/// One end of a connection; also the owner of the streams which that end opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    Dialler = 0,
    Acceptor = 1,
}

impl Side {
    pub(super) const BOTH: [Self; 2] = [Self::Dialler, Self::Acceptor];

    pub(super) fn other(self) -> Self {
        match self {
            Self::Dialler => Self::Acceptor,
            Self::Acceptor => Self::Dialler,
        }
    }
}

/// A bidirectional stream of one connection: who opened it, and which of theirs it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StreamKey {
    pub(super) opener: Side,
    pub(super) index: u64,
}

/// Something on its way to the end `to` of a connection.
#[derive(Debug)]
pub(super) struct Packet {
    pub(super) conn: ConnId,
    pub(super) to: Side,
    pub(super) body: Body,
}

/// The contents of a packet. Data carries its offset, so packets may overtake each other, as UDP's do.
#[derive(Debug)]
pub(super) enum Body {
    Dial,
    Refused(ConnectError),
    Accepted,
    Established,
    Closed { code: Code },
    Data { stream: StreamKey, offset: u64, bytes: Bytes },
    Fin { stream: StreamKey, offset: u64 },
    Reset { stream: StreamKey, code: Code },
    Stop { stream: StreamKey, code: Code },
    Credit { stream: StreamKey, bytes: u64 },
    Acked { stream: StreamKey },
    StreamCredit,
}

impl Body {
    /// Name for the trace.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Dial => "dial",
            Self::Refused(_) => "refused",
            Self::Accepted => "accepted",
            Self::Established => "established",
            Self::Closed { .. } => "closed",
            Self::Data { .. } => "data",
            Self::Fin { .. } => "fin",
            Self::Reset { .. } => "reset",
            Self::Stop { .. } => "stop",
            Self::Credit { .. } => "credit",
            Self::Acked { .. } => "acked",
            Self::StreamCredit => "stream-credit",
        }
    }
}

#[derive(Debug)]
pub(super) enum Event {
    Packet(Packet),
    /// The idle timer of one end: it counts only if the end has heard nothing since (`epoch` unchanged).
    Idle {
        conn: ConnId,
        side: Side,
        epoch: u32,
    },
}

/// A queued event; ordered so that the maximum of a `BinaryHeap` is the earliest, first queued first.
#[derive(Debug)]
pub(super) struct Scheduled {
    pub(super) at: Micros,
    pub(super) seq: u64,
    pub(super) event: Event,
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.seq).cmp(&(self.at, self.seq))
    }
}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scheduled {}
