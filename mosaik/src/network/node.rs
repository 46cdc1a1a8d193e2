//! What every subsystem gets of the network: identity, spawner, cancellation, and links to peers.
//!
//! `Node` is a cheap clone. It does not keep the network alive: when the last `Network` handle goes, the tasks end and
//! every call here fails.

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::BytesMut;
use iroh::{EndpointAddr, TransportAddr};
use tokio::{sync::broadcast, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    close::CloseCode,
    gate, lane,
    link::{Family, Link, LinkError, MAX_PREAMBLE, Preamble, Protocol, encode_frame},
    pool::{ConnectionEvent, ConnectionInfo, Entry, Pool, Way},
    router::{self, Acceptors},
};
use crate::{
    primitives::{NetworkId, PeerId},
    transport::{ConnectError, MAX_STREAMS, Tasks, Transport},
    trust::{Needed, NetworkKind, Reason, RefusedBy, Trust},
};

/// How long a new link waits while its connection carries as many streams as it may.
const STREAM_LIMIT_TIMEOUT: Duration = Duration::from_secs(2);

/// The node as its subsystems see it.
#[derive(Clone, Debug)]
pub(crate) struct Node(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    network_id: NetworkId,
    trust: Trust,
    transport: Transport,
    cancel: CancellationToken,
    pool: Pool,
    acceptors: RwLock<Arc<Acceptors>>,
    limits: Limits,
    /// It was said that grants are asked for which nobody holds.
    ungranted: AtomicBool,
}

/// What the builder's settings say about connections and the end of a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// How long an orderly end may take before what is left is aborted.
    pub(super) shutdown: Duration,
    /// Connections that peers have dialled, of all peers and families together.
    pub(super) connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { shutdown: Duration::from_millis(1500), connections: 16_384 }
    }
}

/// Why a link could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("cannot connect: {0}")]
    Connect(#[from] ConnectError),
    #[error("cannot open a stream: {0}")]
    Link(#[from] LinkError),
}

impl Node {
    /// Closes all connections and ends all tasks at once, without a farewell, and lets go of what serves protocols, which
    /// holds the node in its turn: else nothing of it would ever be freed.
    pub(crate) fn abandon(&self) {
        self.cancel().cancel();
        self.pool().close(CloseCode::ShuttingDown);
        self.tasks().abort_all();
        self.transport().abandon();
        self.set_acceptors(Acceptors::default());
    }

    /// As [`abandon`](Self::abandon), but peers learn of it at once, for which it waits a moment.
    pub(crate) async fn close(&self) {
        self.pool().close(CloseCode::ShuttingDown);
        self.transport().close().await;
        self.abandon();
    }

    /// Refuses connections of these peers and of no others.
    pub(crate) fn block(&self, peers: std::collections::BTreeSet<PeerId>) {
        self.pool().block(peers);
    }

    pub(super) fn new(network_id: NetworkId, trust: Trust, transport: Transport, limits: Limits) -> Self {
        Self(Arc::new(Inner {
            network_id,
            trust,
            transport,
            cancel: CancellationToken::new(),
            pool: Pool::new(),
            acceptors: RwLock::default(),
            limits,
            ungranted: AtomicBool::new(false),
        }))
    }

    pub(super) fn limits(&self) -> Limits {
        self.0.limits
    }

    /// How long a subsystem may take to end in an orderly way: three fifths of a whole shutdown, so that time is left to say
    /// farewell and to close connections.
    pub(crate) fn shutdown_share(&self) -> Duration {
        self.0.limits.shutdown * 3 / 5
    }

    /// Ends the node when an essential task has panicked, until it ends otherwise.
    pub(super) async fn end_on_failure(self) {
        tokio::select! {
            biased;
            () = self.cancel().cancelled() => {}
            failure = self.tasks().failed() => {
                tracing::error!(%failure, "the node ends");
                self.abandon();
            }
        }
    }

    pub(crate) fn network_id(&self) -> NetworkId {
        self.0.network_id
    }

    /// Who may be in the network.
    pub(crate) fn trust(&self) -> &Trust {
        &self.0.trust
    }

    /// Something here is declared with grants. In a network without tickets nobody can hold one: said once, unless the node listens
    /// on loopback alone, as in a trial.
    pub(crate) fn asks_for<'a>(&self, needed: impl IntoIterator<Item = &'a Needed>) {
        let kind = self.trust().kind();
        let Some(asks) = needed.into_iter().find(|needed| needed.names_grants()) else { return };
        if kind != NetworkKind::Authority && self.is_beyond_loopback() && !self.0.ungranted.swap(true, Relaxed) {
            tracing::warn!(
                of = asks.of(),
                "declared with grants, which nobody holds in {kind}: every member may do everything"
            );
        }
    }

    /// Whether other machines may reach this node.
    pub(crate) fn is_beyond_loopback(&self) -> bool {
        self.addr().addrs.iter().any(|addr| match addr {
            TransportAddr::Ip(socket) => !socket.ip().is_loopback(),
            _ => true,
        })
    }

    pub(crate) fn id(&self) -> PeerId {
        self.0.transport.id()
    }

    pub(crate) fn addr(&self) -> EndpointAddr {
        self.0.transport.addr()
    }

    pub(crate) fn transport(&self) -> &Transport {
        &self.0.transport
    }

    pub(crate) fn tasks(&self) -> &Tasks {
        self.0.transport.tasks()
    }

    /// The root of the cancellation tree: network, then subsystem, then connection.
    pub(crate) fn cancel(&self) -> &CancellationToken {
        &self.0.cancel
    }

    /// The smoothed round-trip time to a connected peer.
    pub(crate) fn rtt(&self, peer: PeerId) -> Option<Duration> {
        self.0.pool.rtt(peer)
    }

    pub(crate) fn is_connected(&self, peer: PeerId) -> bool {
        self.0.pool.is_connected(peer)
    }

    /// The peers that this node is connected to, in ascending order of their ids.
    pub(crate) fn connected(&self) -> Vec<PeerId> {
        self.0.pool.connected()
    }

    /// The live connections to a peer, one per family.
    pub(crate) fn connections(&self, peer: PeerId) -> Vec<ConnectionInfo> {
        self.0.pool.connections(peer)
    }

    /// The peer was started anew at this address: connections to where it was before are closed.
    pub(crate) fn close_moved(&self, to: &EndpointAddr) {
        self.0.pool.close_moved(to);
    }

    /// Ends the connections to peers of which no ticket counts any more; whom that concerns, and why, is noted.
    pub(crate) fn close_excluded(&self) {
        let trust = self.trust();
        let code = |reason: &Reason| match reason {
            Reason::Revoked { .. } => CloseCode::Revoked,
            _ => CloseCode::Refused,
        };
        for (peer, reason) in self.0.pool.close_those(code, |peer| trust.exclusion_of(peer)) {
            trust.note(peer, RefusedBy::Us, reason, self.transport().wall_clock());
        }
    }

    /// Ends a connection whose peer has let its ticket run out; who that is, is noted.
    pub(super) fn expire(&self, entry: &Entry) {
        let (peer, now) = (entry.connection.peer(), self.transport().wall_clock());
        entry.connection.close(CloseCode::Expired.code());
        if let Some((not_after, _)) = self.trust().holds_until(peer) {
            let reason = Reason::Expired { not_after, now: now / 1_000_000, theirs: None };
            self.trust().note(peer, RefusedBy::Us, reason, now);
        }
    }

    /// Connections coming and going. A listener that is more than 1,024 events behind is told so and misses some.
    pub(crate) fn connection_events(&self) -> broadcast::Receiver<ConnectionEvent> {
        self.0.pool.events()
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.0.pool
    }

    pub(super) fn set_acceptors(&self, acceptors: Acceptors) {
        let mut new = Arc::new(acceptors);
        std::mem::swap(&mut *self.0.acceptors.write().unwrap_or_else(PoisonError::into_inner), &mut new);
        // Those before end here, without the lock.
    }

    pub(super) fn acceptors(&self) -> Arc<Acceptors> {
        self.0.acceptors.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Opens a link over the peer's connection, dialling when there is none. The peer answers the protocol, not the
    /// opening: a refusal arrives with the first `recv`, also that of a stranger. What is sent before the peer has proved to be of
    /// this network is sealed. Cancellation-safe; a dial that has begun goes on for others.
    pub(crate) async fn open<P: Protocol>(&self, to: &EndpointAddr) -> Result<Link<P>, OpenError> {
        let entry = self.connection(to, P::FAMILY).await?;
        lane::settled(self, &entry).await;
        Ok(self.link_on(&entry).await?)
    }

    /// Opens a link over this very connection, as [`open`](Self::open).
    pub(super) async fn link_on<P: Protocol>(&self, entry: &Arc<Entry>) -> Result<Link<P>, LinkError> {
        let in_use = entry.in_use();
        // It waits for nothing but a place among the streams that the peer allows.
        let opened = timeout(STREAM_LIMIT_TIMEOUT, entry.connection.open_bi()).await;
        let opened = opened.map_err(|_| LinkError::NoStream { limit: MAX_STREAMS })?;
        let (mut send, recv) = opened.map_err(|error| entry.gate.explain(error))?;
        let preamble = Preamble { network: self.network_id(), protocol: P::NAME.into() };
        let frame = entry.gate.seal(encode_frame(&preamble, MAX_PREAMBLE)?);
        send.write_all_chunks(&mut [frame]).await.map_err(|error| entry.gate.explain(error))?;
        Ok(Link::new(entry.connection.clone(), (send, recv), BytesMut::new(), in_use))
    }

    /// Connects unless there is a connection. Cancellation-safe, as [`open`](Self::open).
    pub(crate) async fn reach(&self, to: &EndpointAddr, family: Family) -> Result<(), ConnectError> {
        self.connection(to, family).await.map(drop)
    }

    async fn connection(&self, to: &EndpointAddr, family: Family) -> Result<Arc<Entry>, ConnectError> {
        let mut dial = match self.0.pool.way(to, family) {
            Way::Ready(entry) => return Ok(entry),
            Way::Closed => return Err(ConnectError::Closed),
            Way::Wait(dial) => dial,
            Way::Dial(id, receiver) => {
                self.tasks().spawn("connection", dial(self.clone(), to.clone(), family, id));
                receiver
            }
        };
        // The sender goes unanswered only when the dialling task was aborted.
        let result = dial.wait_for(Option::is_some).await.map_err(|_| ConnectError::Closed)?;
        result.clone().unwrap_or(Err(ConnectError::Closed))
    }
}

/// Dials and then serves the connection to its end.
async fn dial(node: Node, to: EndpointAddr, family: Family, id: u64) {
    let connected = tokio::select! {
        biased;
        () = node.cancel().cancelled() => Err(ConnectError::Closed),
        connected = node.transport().connect(&to, family.alpn().as_bytes()) => connected,
    };
    let peer = PeerId::from(to.id);
    let proved = match connected {
        Ok(connection) => {
            let entry = Entry::new(connection, family, true, node.trust().is_open());
            gate::say(&node, &entry).await.map(|said| (entry, said))
        }
        Err(error) => Err(error),
    };
    let (entry, said) = match proved {
        Ok((entry, said)) => (Ok(entry), said),
        Err(error) => (Err(error), None),
    };
    if let Err(error) = &entry {
        tracing::debug!(?peer, family = family.alpn(), %error, "dial failed");
    }
    node.pool().dialled((peer, family), id, entry.clone());
    if let Ok(entry) = entry {
        router::serve(node, entry, said).await;
    }
}
