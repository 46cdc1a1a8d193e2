//! The transport seam: everything above it sees these types and cannot tell QUIC from the simulator.
//!
//! The types are enums over two backends: [`iroh`](self::iroh) (QUIC over UDP, with a `lane` for streams that stay on one host)
//! and `sim` (memory, virtual time, injected faults). The `network` layer is the only caller. This room knows nothing of networks, peers' entries
//! or protocols; it moves bytes between two keys.

mod awake;
mod iroh;
mod lane;
mod lookup;
#[cfg(feature = "testing")]
pub(crate) mod sim;
mod tasks;
#[cfg(test)]
mod tests;

use std::{fmt, net::SocketAddr, time::Duration};

use ::iroh::EndpointAddr;
use bytes::Bytes;

pub(crate) use self::awake::Activity;
pub(crate) use self::iroh::{IrohConfig, IrohTransport};
pub use self::lane::Lane;
pub(crate) use self::lane::{LaneConfig, LaneOffer, Session};
pub(crate) use self::lookup::Lookups;
pub(crate) use self::tasks::Tasks;
pub use self::tasks::{NodeFailure, TaskProbe};
use crate::primitives::PeerId;

/// How long one `connect` may take before it fails with [`ConnectError::TimedOut`].
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Keep-alive period of a connection in simulation, as it is over QUIC by default: a fifth of the idle time-out.
#[cfg(any(test, feature = "testing"))]
pub(crate) const KEEP_ALIVE: Duration = Duration::from_millis(500);
/// A connection on which nothing arrives for so long is lost: the default, and what a simulation has.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_millis(2500);
/// Streams that the other side may have open at once on one connection: several for each of the 512 streams that an entry may list
/// as consumed, since a node may have several consumers of one and each may be replayed to. A stream that is not open costs nothing.
pub(crate) const MAX_STREAMS: u32 = 4096;

/// An application error code, carried by closed connections and reset or stopped streams.
pub(crate) type Code = u32;

/// A node's attachment to a network of bytes. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) enum Transport {
    Iroh(IrohTransport),
    #[cfg(feature = "testing")]
    Sim(sim::SimTransport),
}

/// An authenticated connection to one peer under one ALPN. Cheap to clone; it lives until closed by either side or lost.
#[derive(Clone, Debug)]
pub(crate) enum Connection {
    Iroh(iroh::IrohConnection),
    #[cfg(feature = "testing")]
    Sim(sim::SimConnection),
}

/// The sending half of an ordered, reliable stream. Dropping it without [`finish`](Self::finish) resets it with code 0.
#[derive(Debug)]
pub(crate) enum SendStream {
    Iroh(iroh::IrohSendStream),
    #[cfg(unix)]
    Local(lane::SocketSend),
    Memory(lane::MemorySend),
    #[cfg(feature = "testing")]
    Sim(sim::SimSendStream),
}

/// The receiving half of an ordered, reliable stream. Dropping it tells the sender to stop with code 0.
#[derive(Debug)]
pub(crate) enum RecvStream {
    Iroh(iroh::IrohRecvStream),
    #[cfg(unix)]
    Local(lane::SocketRecv),
    Memory(lane::MemoryRecv),
    #[cfg(feature = "testing")]
    Sim(sim::SimRecvStream),
}

/// Why a connection could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("no answer within {CONNECT_TIMEOUT:?}")]
    TimedOut,
    #[error("the peer speaks no protocol of this family and version")]
    UnsupportedProtocol,
    #[error("another node answers at the peer's address, and the peer at none of those known")]
    AnotherPeer,
    #[error("no address is known for the peer")]
    NoAddress,
    #[error("a node does not connect to itself")]
    ToSelf,
    #[error("the local node is shut down")]
    Closed,
    #[error("refused by the peer with code {code}")]
    Refused { code: Code },
    #[error("{0}")]
    Other(String),
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConnectionLost {
    #[error("closed by the peer with code {code}")]
    ClosedByPeer { code: Code },
    #[error("closed by this node")]
    ClosedLocally,
    #[error("the peer fell silent")]
    TimedOut,
    #[error("{0}")]
    Other(String),
}

/// Why reading from a stream failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("the sender reset the stream with code {code}")]
    Reset { code: Code },
    #[error(transparent)]
    Lost(#[from] ConnectionLost),
}

/// Why writing to a stream failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("the receiver stopped the stream with code {code}")]
    Stopped { code: Code },
    #[error("the stream was already finished or reset")]
    Finished,
    #[error(transparent)]
    Lost(#[from] ConnectionLost),
}

macro_rules! on {
    ($value:expr, $inner:pat => $call:expr) => {
        match $value {
            Self::Iroh($inner) => $call,
            #[cfg(feature = "testing")]
            Self::Sim($inner) => $call,
        }
    };
}

/// As `on`, for streams: those of one host have two more kinds.
macro_rules! on_stream {
    ($value:expr, $inner:pat => $call:expr) => {
        match $value {
            Self::Iroh($inner) => $call,
            #[cfg(unix)]
            Self::Local($inner) => $call,
            Self::Memory($inner) => $call,
            #[cfg(feature = "testing")]
            Self::Sim($inner) => $call,
        }
    };
}

impl Transport {
    /// The local node's identity.
    pub(crate) fn id(&self) -> PeerId {
        on!(self, t => t.id())
    }

    /// Where peers can dial this node now.
    pub(crate) fn addr(&self) -> EndpointAddr {
        on!(self, t => t.addr())
    }

    /// The addresses of this host at which others have reached it, at most 64 of them.
    pub(crate) fn reached(&self) -> std::collections::BTreeSet<std::net::IpAddr> {
        on!(self, t => t.reached())
    }

    /// Dials a peer; fails by itself after [`CONNECT_TIMEOUT`]. Cancellation-safe.
    pub(crate) async fn connect(&self, to: &EndpointAddr, alpn: &'static [u8]) -> Result<Connection, ConnectError> {
        match self {
            Self::Iroh(t) => t.connect(to, alpn).await.map(Connection::Iroh),
            #[cfg(feature = "testing")]
            Self::Sim(t) => t.connect(to, alpn).await.map(Connection::Sim),
        }
    }

    /// The next incoming connection, its handshake done; `None` once the transport is closed. Cancellation-safe.
    pub(crate) async fn accept(&self) -> Option<Connection> {
        match self {
            Self::Iroh(t) => t.accept().await.map(Connection::Iroh),
            #[cfg(feature = "testing")]
            Self::Sim(t) => t.accept().await.map(Connection::Sim),
        }
    }

    /// Closes every connection (code 0) and releases the socket.
    pub(crate) async fn close(&self) {
        on!(self, t => t.close().await);
    }

    /// Releases the socket without waiting, for a node whose last handle was dropped.
    pub(crate) fn abandon(&self) {
        on!(self, t => t.abandon());
    }

    /// The node's spawner: every task of the node runs on it.
    pub(crate) fn tasks(&self) -> &Tasks {
        on!(self, t => t.tasks())
    }

    /// Wall-clock time of this node in microseconds since the Unix epoch; may jump, may differ between nodes.
    pub(crate) fn wall_clock(&self) -> u64 {
        on!(self, t => t.wall_clock())
    }

    /// Nodes of one scope and one network may find each other through memory: this process (0), or one simulated network.
    pub(crate) fn scope(&self) -> u64 {
        on!(self, t => t.scope())
    }

    /// Fresh randomness: from the operating system, or in simulation from the network's seed.
    pub(crate) fn random_seed(&self) -> [u8; 32] {
        on!(self, t => t.random_seed())
    }
}

impl Connection {
    /// The authenticated remote peer.
    pub(crate) fn peer(&self) -> PeerId {
        on!(self, c => c.peer())
    }

    /// The negotiated protocol family.
    pub(crate) fn alpn(&self) -> &[u8] {
        on!(self, c => c.alpn())
    }

    /// A number that tells connections of this process apart.
    pub(crate) fn stable_id(&self) -> usize {
        on!(self, c => c.stable_id())
    }

    /// Opens a bidirectional stream; the peer sees it with its first byte. Waits at the peer's stream limit.
    pub(crate) async fn open_bi(&self) -> Result<(SendStream, RecvStream), ConnectionLost> {
        match self {
            Self::Iroh(c) => c.open_bi().await,
            #[cfg(feature = "testing")]
            Self::Sim(c) => c.open_bi().await.map(|(s, r)| (SendStream::Sim(s), RecvStream::Sim(r))),
        }
    }

    /// The next bidirectional stream that the peer opens. Cancellation-safe.
    pub(crate) async fn accept_bi(&self) -> Result<(SendStream, RecvStream), ConnectionLost> {
        match self {
            Self::Iroh(c) => c.accept_bi().await,
            #[cfg(feature = "testing")]
            Self::Sim(c) => c.accept_bi().await.map(|(s, r)| (SendStream::Sim(s), RecvStream::Sim(r))),
        }
    }

    /// Resolves when the connection has ended, however that came. Cancellation-safe.
    #[cfg(test)]
    pub(crate) async fn closed(&self) -> ConnectionLost {
        on!(self, c => c.closed().await)
    }

    /// Why the connection ended, if it has.
    pub(crate) fn close_reason(&self) -> Option<ConnectionLost> {
        on!(self, c => c.close_reason())
    }

    /// Closes the connection; data not yet delivered is dropped. Later calls change nothing.
    pub(crate) fn close(&self, code: Code) {
        on!(self, c => c.close(code));
    }

    /// Keying material of this very connection (RFC 5705, RFC 9266): both ends derive the same 32 bytes from the same
    /// label and context, and no other connection has them. It binds a proof to the connection on which it is given.
    /// `None` when the connection has ended.
    pub(crate) fn exporter(&self, label: &[u8], context: &[u8]) -> Option<[u8; 32]> {
        on!(self, c => c.exporter(label, context))
    }

    /// The lane of this host beside the connection, if the node has one.
    pub(crate) fn lane(&self) -> Option<&std::sync::Arc<Session>> {
        match self {
            Self::Iroh(c) => c.lane(),
            #[cfg(feature = "testing")]
            Self::Sim(_) => None,
        }
    }

    /// Gets the lane ready for streams of the peer, and says where it finds this node. `None` without a lane.
    pub(crate) fn offer_lane(&self) -> Option<LaneOffer> {
        match self {
            Self::Iroh(c) => c.offer_lane(),
            #[cfg(feature = "testing")]
            Self::Sim(_) => None,
        }
    }

    /// Where the packets of this connection go; `None` through a relay, before a path is chosen, and in a simulation, where
    /// addresses are made up.
    pub(crate) fn socket(&self) -> Option<SocketAddr> {
        on!(self, c => c.socket())
    }

    /// Whether the path in use goes through a relay; `None` while there is no path.
    pub(crate) fn is_relayed(&self) -> Option<bool> {
        on!(self, c => c.is_relayed())
    }

    /// The smoothed round-trip time of the path in use.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        on!(self, c => c.rtt())
    }
}

impl SendStream {
    /// Writes all bytes, waiting for flow control. NOT cancellation-safe: a part may have been written.
    pub(crate) async fn write_all(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        on_stream!(self, s => s.write_all(bytes).await)
    }

    /// Writes all chunks in one go; chunks above 1,452 bytes are kept by reference, not copied. Chunks that were written
    /// are left empty. NOT cancellation-safe.
    pub(crate) async fn write_all_chunks(&mut self, chunks: &mut [Bytes]) -> Result<(), WriteError> {
        on_stream!(self, s => s.write_all_chunks(chunks).await)
    }

    /// Ends the stream after what was written; the receiver reads to the end. Idempotent.
    pub(crate) fn finish(&mut self) {
        on_stream!(self, s => s.finish());
    }

    /// Ends the stream at once; what the receiver has not read yet is dropped. Idempotent.
    pub(crate) fn reset(&mut self, code: Code) {
        on_stream!(self, s => s.reset(code));
    }

    /// Resolves with the receiver's code when it stopped the stream, and with `None` when all of a finished stream has
    /// reached the peer's transport (not yet its application). Cancellation-safe.
    pub(crate) async fn stopped(&mut self) -> Result<Option<Code>, ConnectionLost> {
        on_stream!(self, s => s.stopped().await)
    }
}

impl RecvStream {
    /// What carries the stream. A simulated one counts as QUIC.
    pub(crate) fn lane(&self) -> Lane {
        match self {
            Self::Iroh(_) => Lane::Quic,
            #[cfg(unix)]
            Self::Local(_) => Lane::Local,
            Self::Memory(_) => Lane::Memory,
            #[cfg(feature = "testing")]
            Self::Sim(_) => Lane::Quic,
        }
    }

    /// The next bytes in order, at most `max` of them; `None` at the end of a finished stream. Cancellation-safe.
    pub(crate) async fn read_chunk(&mut self, max: usize) -> Result<Option<Bytes>, ReadError> {
        on_stream!(self, s => s.read_chunk(max).await)
    }

    /// Tells the sender that nothing more will be read. Idempotent.
    pub(crate) fn stop(&mut self, code: Code) {
        on_stream!(self, s => s.stop(code));
    }
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}#{}", self.peer(), self.stable_id())
    }
}
