//! The accept side: takes connections, reads each stream's preamble, and hands the stream to its protocol.
//!
//! In a closed network a connection passes `gate` first. Whatever a stranger sends ends here, within a bound: a connection that says nothing valid is closed after five
//! seconds, at most 128 such connections are kept (the oldest goes first), a peer has at most eight connections
//! of a family, all peers together have a limit, too, and a stream without a valid preamble is closed with a code.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use bytes::BytesMut;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until, timeout},
};

use super::{
    close::CloseCode,
    gate::{self, Said},
    lane,
    link::{Family, Link, LinkError, MAX_PREAMBLE, Preamble, Protocol, decode, read_frame},
    member::leave_at,
    node::Node,
    pool::{Entry, InUse},
};
use crate::{
    primitives::PeerId,
    transport::{Connection, ConnectionLost, RecvStream, SendStream},
    trust::{NetworkKind, Reason, RefusedBy, Revoked},
};

/// How long a new connection and a new stream may take to say something valid.
const PREAMBLE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that have said nothing yet.
const MAX_SILENT: usize = 128;
/// Streams of one connection that have not said yet what they are for; further ones are not looked at meanwhile.
const MAX_UNSPOKEN: usize = 256;
/// Incoming connections of one peer in one family.
const MAX_PER_PEER: usize = 8;
/// A connection without a stream is closed by its dialler after this time, and by the other side after twice of it.
const IDLE_LIMIT: Duration = Duration::from_secs(15);

/// What a subsystem does with a stream of its protocol. Must not block: it spawns a task or hands the stream on.
pub(crate) type Acceptor = Box<dyn Fn(Incoming) + Send + Sync>;

/// The acceptors by family and protocol name.
#[derive(Default)]
pub(crate) struct Acceptors(BTreeMap<Family, BTreeMap<&'static str, Acceptor>>);

/// A stream that a peer opened for a protocol.
#[derive(Debug)]
pub(crate) struct Incoming {
    connection: Connection,
    streams: (SendStream, RecvStream),
    buffer: BytesMut,
    in_use: Arc<InUse>,
}

impl Acceptors {
    /// Serves a protocol. Each is registered once, before the node accepts connections.
    pub(crate) fn accept<P: Protocol>(&mut self, acceptor: impl Fn(Incoming) + Send + Sync + 'static) {
        let before = self.0.entry(P::FAMILY).or_default().insert(P::NAME, Box::new(acceptor));
        debug_assert!(before.is_none(), "{} is registered twice", P::NAME);
    }

    fn find(&self, family: Family, name: &str) -> Option<&Acceptor> {
        self.0.get(&family)?.get(name)
    }
}

impl fmt::Debug for Acceptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.values().flat_map(BTreeMap::keys)).finish()
    }
}

impl Incoming {
    pub(crate) fn peer(&self) -> PeerId {
        self.connection.peer()
    }

    /// The stream as the link of its protocol. The router has checked that it is `P`.
    pub(crate) fn link<P: Protocol>(self) -> Link<P> {
        Link::new(self.connection, self.streams, self.buffer, self.in_use)
    }
}

/// Takes connections until the node ends.
pub(super) async fn accept_loop(node: Node) {
    loop {
        let connection = tokio::select! {
            biased;
            () = node.cancel().cancelled() => return,
            connection = node.transport().accept() => connection,
        };
        let Some(connection) = connection else { return };
        let Some(family) = Family::from_alpn(connection.alpn()) else {
            connection.close(CloseCode::UnsupportedProtocol.code());
            continue;
        };
        if !make_room(&node, connection.peer(), family) {
            tracing::debug!(%connection, "no room for another connection");
            connection.close(CloseCode::NoCapacity.code());
            continue;
        }
        let entry = Entry::new(connection, family, false, node.trust().is_open());
        if node.pool().add(&entry) {
            node.tasks().spawn("connection", serve(node.clone(), entry, None));
        }
    }
}

/// Closes the oldest connections that stand in the way of a new one: a peer that dials again has lost the older ones,
/// and strangers that say nothing must not keep honest peers out. False when there is no room all the same.
fn make_room(node: &Node, peer: PeerId, family: Family) -> bool {
    let close_oldest = |entries: Vec<Arc<Entry>>, limit: usize, code: CloseCode| {
        let excess = (entries.len() + 1).saturating_sub(limit);
        entries.iter().take(excess).for_each(|entry| entry.connection.close(code.code()));
    };
    let of_peer = node.pool().of(peer, family).into_iter().filter(|entry| !entry.outgoing).collect();
    close_oldest(of_peer, MAX_PER_PEER, CloseCode::NoCapacity);
    close_oldest(node.pool().silent(), MAX_SILENT, CloseCode::Timeout);
    if node.pool().incoming() < node.limits().connections {
        return true;
    }
    let Some(unused) = node.pool().longest_unused() else { return false };
    unused.connection.close(CloseCode::NoCapacity.code());
    true
}

/// Serves one connection to its end: the proofs of both sides where they are asked for, the streams that the peer opens,
/// silence, and idleness. `said` is this node's proof if it has dialled.
pub(super) async fn serve(node: Node, entry: Arc<Entry>, said: Option<Said>) {
    let connection = &entry.connection;
    if !entry.gate.is_open() {
        if let Err(lost) = gate::pass(&node, &entry, said).await {
            tracing::debug!(%connection, family = entry.family.alpn(), %lost, "connection not admitted");
            node.pool().remove(&entry, lost);
            return;
        }
        node.pool().admitted(&entry);
    }
    tracing::debug!(%connection, family = entry.family.alpn(), outgoing = entry.outgoing, "connection up");
    lane::begin(&node, &entry);
    let idle_limit = if entry.outgoing { IDLE_LIMIT } else { 2 * IDLE_LIMIT };
    let mut check_at = entry.since + if entry.outgoing { idle_limit } else { PREAMBLE_TIMEOUT };
    // Looked at again when it is due, and at each check: not with every stream, of which there may be many.
    let mut expires = expiry(&node, &entry);
    let unspoken = Arc::new(Semaphore::new(MAX_UNSPOKEN));
    let lost = loop {
        let next = async {
            let permit = unspoken.clone().acquire_owned().await.ok();
            connection.accept_bi().await.map(|streams| (streams, permit))
        };
        tokio::select! {
            biased;
            stream = next => match stream {
                Ok((streams, permit)) => {
                    node.tasks().spawn("stream", greet(node.clone(), entry.clone(), streams, permit));
                }
                Err(lost) => break lost,
            },
            () = sleep_until(expires.map_or(check_at, |at| at.min(check_at))) => {
                expires = expiry(&node, &entry);
                if expires.is_some_and(|at| at <= Instant::now()) {
                    node.expire(&entry);
                    continue;
                }
                if Instant::now() < check_at {
                    continue;
                }
                if !entry.has_spoken() {
                    connection.close(CloseCode::Timeout.code());
                } else if entry.idle() >= idle_limit {
                    connection.close(CloseCode::Idle.code());
                }
                check_at = Instant::now() + idle_limit;
            }
        }
    };
    tracing::debug!(%connection, family = entry.family.alpn(), %lost, "connection down");
    if let ConnectionLost::ClosedByPeer { code } = lost {
        let own = node.trust().ticket().map(|ticket| Revoked::Serial(ticket.serial()));
        let reason = match CloseCode::from(code) {
            CloseCode::Refused => Some(Reason::Untold { ours: node.trust().kind() }),
            CloseCode::Revoked => node.trust().revocation_of(node.id()).or(own).map(|what| Reason::Revoked { what }),
            // The peer's clock has judged; all that is known here is this one.
            CloseCode::Expired => node.trust().ticket().map(|ticket| {
                let (not_after, now) = (ticket.not_after(), node.transport().wall_clock() / 1_000_000);
                Reason::Expired { not_after, now, theirs: None }
            }),
            _ => None,
        };
        let now = node.transport().wall_clock();
        reason.into_iter().for_each(|reason| node.trust().note(connection.peer(), RefusedBy::Them, reason, now));
    }
    node.pool().remove(&entry, lost);
}

/// When the peer's ticket ends, and with it the connection, if it shows no other one until then. Counted from its admission on, so
/// that a clock that is set ends nothing.
fn expiry(node: &Node, entry: &Entry) -> Option<Instant> {
    let admitted = *entry.admitted.get()?;
    let (_, until) = node.trust().holds_until(entry.connection.peer())?;
    leave_at(admitted, until)
}

/// Reads a stream's preamble and hands the stream to its protocol, or closes it with the reason.
async fn greet(
    node: Node,
    entry: Arc<Entry>,
    (mut send, mut recv): (SendStream, RecvStream),
    unspoken: Option<OwnedSemaphorePermit>,
) {
    let mut buffer = BytesMut::new();
    let preamble = read_preamble(&mut recv, &mut buffer, &entry).await;
    drop(unspoken);
    let refusal = match preamble {
        Ok(preamble) if preamble.protocol == gate::PROOF && node.trust().is_open() => {
            let reason = Reason::WrongKind { ours: NetworkKind::Open, theirs: None };
            node.trust().note(entry.connection.peer(), RefusedBy::Us, reason, node.transport().wall_clock());
            entry.connection.close(CloseCode::Refused.code());
            return;
        }
        // It comes before what the peer is here for, which is to be told.
        Ok(preamble) if preamble.protocol == lane::NAME && preamble.network != node.network_id() => {
            CloseCode::DifferentNetwork
        }
        Ok(preamble) if preamble.network != node.network_id() => {
            tracing::debug!(peer = ?entry.connection.peer(), theirs = ?preamble.network, "peer is of another network");
            entry.connection.close(CloseCode::DifferentNetwork.code());
            return;
        }
        Ok(preamble) => match node.acceptors().find(entry.family, &preamble.protocol) {
            Some(acceptor) => {
                let (connection, in_use) = (entry.connection.clone(), entry.in_use());
                acceptor(Incoming { connection, streams: (send, recv), buffer, in_use });
                return;
            }
            None => CloseCode::UnsupportedProtocol,
        },
        Err(code) => code,
    };
    tracing::debug!(peer = ?entry.connection.peer(), %refusal, "stream refused");
    send.reset(refusal.code());
    recv.stop(refusal.code());
}

async fn read_preamble(recv: &mut RecvStream, buffer: &mut BytesMut, entry: &Entry) -> Result<Preamble, CloseCode> {
    let read = timeout(PREAMBLE_TIMEOUT, read_frame(recv, buffer, MAX_PREAMBLE, entry.gate.channel())).await;
    let read = read.map_err(|_| CloseCode::Timeout)?;
    match read.and_then(|frame| frame.map_or(Err(LinkError::Truncated), |frame| decode(&frame))) {
        Ok(preamble) => Ok(preamble),
        Err(LinkError::TooLarge { .. }) => Err(CloseCode::TooLarge),
        Err(LinkError::Stalled) => Err(CloseCode::Timeout),
        Err(LinkError::Closed(_) | LinkError::Lost(_)) => Err(CloseCode::Normal),
        Err(_) => Err(CloseCode::Undecodable),
    }
}
