//! The lane of one host: the bytes of streams between two processes of one user go through Unix sockets, and within one process
//! through memory. Encryption, packets and acknowledgements are for what leaves the machine.
//!
//! QUIC stays in charge: it says who is there, notices who fell silent, and ends the connection, which ends everything on its lane
//! at once. Above the seam a stream of the lane is a stream. The rooms: `session` (the lane at one end of one connection: what was
//! agreed on, opening, accepting), `hello` (what proves that a socket belongs to a connection), `listener` (the socket file, who is
//! let in), `socket` and `memory` (the two kinds of streams). Nothing here opens or closes a connection of QUIC.

mod hello;
#[cfg(unix)]
mod listener;
mod memory;
mod session;
#[cfg(unix)]
mod socket;
#[cfg(all(test, unix))]
mod tests;

use std::{path::PathBuf, sync::Arc, time::Duration};

#[cfg(unix)]
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::{sync::OwnedSemaphorePermit, time::timeout};
use tokio_util::sync::CancellationToken;

pub(super) use self::memory::{MemoryRecv, MemorySend};
pub(crate) use self::session::Session;
#[cfg(unix)]
pub(super) use self::socket::{SocketRecv, SocketSend};
use super::{ConnectionLost, Tasks, iroh::IrohConnection};

/// The other end of a stream is gone without a word: for so long the connection may still say why.
const GRACE: Duration = Duration::from_millis(250);

/// What carries the bytes of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Lane {
    /// Packets of the connection itself.
    Quic,
    /// Unix sockets, between two processes of one user on one host.
    Local,
    /// The memory of the process in which both ends are.
    Memory,
}

impl Lane {
    /// Its name in metrics and reports: `quic`, `local` or `memory`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Local => "local",
            Self::Memory => "memory",
        }
    }
}

impl std::fmt::Display for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// How a node offers a lane.
#[derive(Clone, Debug)]
pub(crate) struct LaneConfig {
    /// Directories for its socket; the first that can be used counts.
    pub(crate) dirs: Vec<PathBuf>,
    /// Whether there is one through memory within this process.
    pub(crate) memory: bool,
}

/// Where the lane of one end of a connection is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LaneOffer {
    /// The path of its socket; `None` for memory alone.
    pub(crate) socket: Option<String>,
}

/// What all lanes of a node have in common.
#[derive(Debug)]
pub(super) struct Lanes {
    tasks: Tasks,
    closing: CancellationToken,
    /// Whether there is one through memory.
    memory: bool,
    /// Where others of this host knock.
    #[cfg(unix)]
    socket: Option<PathBuf>,
    /// It was said that there are no descriptors left.
    #[cfg(unix)]
    exhausted: AtomicBool,
}

impl Lanes {
    /// Begins to listen where that is possible; says why where it is not, and does without.
    #[cfg(unix)]
    pub(super) async fn start(config: LaneConfig, tasks: &Tasks) -> Arc<Self> {
        let listener = listener::Listener::bind(&config.dirs).await;
        let lanes = Arc::new(Self {
            tasks: tasks.clone(),
            closing: CancellationToken::new(),
            memory: config.memory,
            socket: listener.as_ref().map(|listener| listener.path().to_owned()),
            exhausted: AtomicBool::new(false),
        });
        if let Some(listener) = listener {
            tasks.spawn("lane-accept", listener.accept_loop(lanes.clone()));
        }
        lanes
    }

    #[cfg(not(unix))]
    #[expect(clippy::unused_async, reason = "there are no sockets of the kind here")]
    pub(super) async fn start(config: LaneConfig, tasks: &Tasks) -> Arc<Self> {
        Arc::new(Self { tasks: tasks.clone(), closing: CancellationToken::new(), memory: config.memory })
    }

    /// Takes nobody in any more; the socket file goes.
    pub(super) fn close(&self) {
        self.closing.cancel();
    }

    /// An operator should know, once, that the limit of descriptors is reached: the lanes are the first to feel it.
    #[cfg(unix)]
    fn warn_exhausted(&self, error: &std::io::Error) {
        if !self.exhausted.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "no descriptors are left for streams within this host; they go over QUIC");
        }
    }
}

/// Whether the process, or the machine, has no descriptor left: `EMFILE` and `ENFILE`, which have these numbers on every Unix.
#[cfg(unix)]
fn is_exhausted(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(23 | 24))
}

/// What a stream of the lane hangs on: its connection, which it keeps, and its place among the streams that may be open.
#[derive(Clone, Debug)]
struct Tie {
    connection: IrohConnection,
    ended: CancellationToken,
    tasks: Tasks,
    _place: Arc<OwnedSemaphorePermit>,
}

impl Tie {
    /// Why the connection ended, if it has.
    fn lost(&self) -> Option<ConnectionLost> {
        self.connection.close_reason().or_else(|| self.ended.is_cancelled().then_some(ConnectionLost::ClosedLocally))
    }

    /// The same, when it is known to have.
    fn reason(&self) -> ConnectionLost {
        self.lost().unwrap_or(ConnectionLost::ClosedLocally)
    }

    /// Whether this end closed the connection: then nothing more is read, either.
    fn is_closed_here(&self) -> bool {
        self.lost() == Some(ConnectionLost::ClosedLocally)
    }

    /// Why the other end of a stream went without a word.
    async fn gone(&self) -> ConnectionLost {
        match timeout(GRACE, self.ended.cancelled()).await {
            Ok(()) => self.reason(),
            Err(_) => self.lost().unwrap_or_else(|| ConnectionLost::Other("the other end of the lane is gone".into())),
        }
    }
}
