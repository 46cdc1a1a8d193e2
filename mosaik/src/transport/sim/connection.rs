//! A simulated connection: its state in the world, and the handle that the seam dispatches to.
//!
//! The world's side is [`Conn`] with one [`End`] per node; the handle is [`SimConnection`]. Handshake and end of a
//! connection are in `handshake.rs`, streams in `streams.rs`.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, OnceLock},
    task::Poll,
    time::Duration,
};

use tokio::sync::Notify;

use super::{
    Net,
    event::{ConnId, NodeIx, Side, StreamKey},
    pipe::Pipe,
    stream::{SimRecvStream, SimSendStream},
};
use crate::{
    primitives::PeerId,
    transport::{Code, ConnectError, ConnectionLost, MAX_STREAMS},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum EndState {
    /// The acceptor's end before the dial has arrived.
    Unborn,
    /// The dialler's end before the answer.
    Dialling,
    Refused(ConnectError),
    /// The acceptor's end before the dialler's confirmation.
    Handshaking,
    Open,
    Over(ConnectionLost),
}

/// What handles of one end wait on.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// The handshake went on, or the connection is over.
    pub(super) changed: Arc<Notify>,
    /// A stream came in, or the connection is over.
    pub(super) incoming: Arc<Notify>,
    /// One more stream may be opened, or the connection is over.
    pub(super) credit: Arc<Notify>,
    pub(super) over: OnceLock<ConnectionLost>,
}

#[derive(Debug)]
pub(super) struct End {
    pub(super) node: NodeIx,
    pub(super) state: EndState,
    pub(super) signals: Arc<Signals>,
    /// Some handle of this end exists, or the accepting node has yet to take it.
    pub(super) held: bool,
    /// Hears nothing from the other end; its idle timer runs.
    pub(super) deaf: bool,
    /// Counts the times that `deaf` changed, to tell a stale idle timer.
    pub(super) epoch: u32,
    /// Streams of the other end, in order, that wait to be accepted.
    pub(super) incoming: VecDeque<StreamKey>,
    /// How many streams of the other end have been seen.
    pub(super) seen: u64,
    pub(super) opened: u64,
    /// How many streams this end may open in all.
    pub(super) allowed: u64,
}

impl End {
    fn new(node: NodeIx, state: EndState) -> Self {
        Self {
            node,
            state,
            signals: Arc::default(),
            held: false,
            deaf: false,
            epoch: 0,
            incoming: VecDeque::new(),
            seen: 0,
            opened: 0,
            allowed: u64::from(MAX_STREAMS),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, EndState::Over(_) | EndState::Refused(_))
    }

    pub(super) fn closed_locally(&self) -> bool {
        self.state == EndState::Over(ConnectionLost::ClosedLocally)
    }

    /// Whether this end sends, if only keep-alives.
    pub(super) fn speaks(&self) -> bool {
        matches!(self.state, EndState::Dialling | EndState::Handshaking | EndState::Open)
    }
}

/// A stream: one pipe for each sender, and what still refers to it.
#[derive(Debug)]
pub(super) struct Stream {
    pipes: [Pipe; 2],
    /// Halves that handles of each end hold.
    pub(super) halves: [u8; 2],
    /// The end that did not open it has accepted it.
    pub(super) accepted: bool,
    /// The opener got its stream credit back.
    pub(super) returned: bool,
}

impl Stream {
    pub(super) fn new() -> Self {
        Self { pipes: [Pipe::new(), Pipe::new()], halves: [0; 2], accepted: false, returned: false }
    }

    /// The direction whose sender is `side`.
    pub(super) fn from(&mut self, side: Side) -> &mut Pipe {
        &mut self.pipes[side as usize]
    }
}

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) alpn: &'static [u8],
    /// The key that the dialler wants to reach.
    pub(super) wanted: PeerId,
    ends: [End; 2],
    pub(super) streams: BTreeMap<StreamKey, Stream>,
}

impl Conn {
    pub(super) fn new(alpn: &'static [u8], wanted: PeerId, dialler: NodeIx, acceptor: NodeIx) -> Self {
        let ends = [End::new(dialler, EndState::Dialling), End::new(acceptor, EndState::Unborn)];
        Self { alpn, wanted, ends, streams: BTreeMap::new() }
    }

    pub(super) fn end(&self, side: Side) -> &End {
        &self.ends[side as usize]
    }

    pub(super) fn end_mut(&mut self, side: Side) -> &mut End {
        &mut self.ends[side as usize]
    }
}

/// Shared by all handles of one end, its streams included; the last one to go closes the connection with code 0.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) net: Arc<Net>,
    pub(super) conn: ConnId,
    pub(super) side: Side,
    pub(super) signals: Arc<Signals>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.net.with(|world| world.release(self.conn, self.side));
    }
}

/// One end of a simulated connection.
#[derive(Clone, Debug)]
pub(crate) struct SimConnection {
    handle: Arc<Handle>,
    peer: PeerId,
    alpn: &'static [u8],
}

impl SimConnection {
    pub(super) fn new(handle: Arc<Handle>, peer: PeerId, alpn: &'static [u8]) -> Self {
        Self { handle, peer, alpn }
    }

    pub(crate) fn peer(&self) -> PeerId {
        self.peer
    }

    pub(crate) fn alpn(&self) -> &[u8] {
        self.alpn
    }

    pub(crate) fn stable_id(&self) -> usize {
        usize::try_from(self.handle.conn).unwrap_or(usize::MAX / 2) * 2 + self.handle.side as usize
    }

    pub(crate) async fn open_bi(&self) -> Result<(SimSendStream, SimRecvStream), ConnectionLost> {
        let Handle { net, conn, side, signals } = &*self.handle;
        let key = wait(&signals.credit, || net.with(|world| world.open_stream(*conn, *side))).await?;
        Ok(self.halves(key))
    }

    pub(crate) async fn accept_bi(&self) -> Result<(SimSendStream, SimRecvStream), ConnectionLost> {
        let Handle { net, conn, side, signals } = &*self.handle;
        let key = wait(&signals.incoming, || net.with(|world| world.accept_stream(*conn, *side))).await?;
        Ok(self.halves(key))
    }

    fn halves(&self, key: StreamKey) -> (SimSendStream, SimRecvStream) {
        (SimSendStream::new(self.handle.clone(), key), SimRecvStream::new(self.handle.clone(), key))
    }

    #[cfg(test)]
    pub(crate) async fn closed(&self) -> ConnectionLost {
        wait(&self.handle.signals.changed, || self.close_reason().map_or(Poll::Pending, Poll::Ready)).await
    }

    pub(crate) fn close_reason(&self) -> Option<ConnectionLost> {
        self.handle.signals.over.get().cloned()
    }

    pub(crate) fn close(&self, code: Code) {
        self.handle.net.with(|world| world.close(self.handle.conn, self.handle.side, code));
    }

    /// Follows from the seed and the connection's number, so that it is the same at both ends and in every run.
    #[expect(clippy::unnecessary_wraps, reason = "the seam's shape: QUIC may have none")]
    pub(crate) fn exporter(&self, label: &[u8], context: &[u8]) -> Option<[u8; 32]> {
        let Handle { net, conn, .. } = &*self.handle;
        let mut hasher = blake3::Hasher::new_derive_key("mosaik 2026 simulated exporter 1");
        for part in [&net.seed().to_le_bytes()[..], &conn.to_le_bytes(), &(label.len() as u64).to_le_bytes(), label] {
            hasher.update(part);
        }
        Some(*hasher.update(context).finalize().as_bytes())
    }

    #[expect(clippy::unused_self, reason = "as the other backend")]
    pub(crate) const fn socket(&self) -> Option<SocketAddr> {
        None
    }

    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "as the other backend")]
    pub(crate) const fn is_relayed(&self) -> Option<bool> {
        Some(false)
    }

    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.handle.net.with(|world| world.rtt(self.handle.conn))
    }
}

/// Waits for a signal until there is an answer.
pub(super) async fn wait<T>(signal: &Notify, mut answer: impl FnMut() -> Poll<T>) -> T {
    loop {
        let signalled = signal.notified();
        tokio::pin!(signalled);
        signalled.as_mut().enable();
        if let Poll::Ready(answer) = answer() {
            return answer;
        }
        signalled.await;
    }
}
