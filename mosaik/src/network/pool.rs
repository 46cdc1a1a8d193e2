//! The connection pool: the connections of a node by peer and family, whoever dialled them.
//!
//! `node` opens links through it and `router` adds what comes in. The newest connection of a peer is used for new
//! links, because a peer that dials again has usually lost the older one; older ones serve their streams to the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use iroh::{EndpointAddr, TransportAddr};
use tokio::{sync::broadcast, time::Instant};

use super::{close::CloseCode, gate::Gate, link::Family};
use crate::{
    primitives::{PeerId, watch},
    transport::{ConnectError, Connection, ConnectionLost, Lane},
};

/// Dials of one peer at a time, each to addresses that those before did not know.
const MAX_DIALS: usize = 3;
/// Events that a slow listener may be behind before it misses some.
const EVENTS: usize = 1024;

/// A connection came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionEvent {
    pub(crate) peer: PeerId,
    pub(crate) family: Family,
    pub(crate) change: ConnectionChange,
}

/// What happened to a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionChange {
    /// It was made.
    Up,
    /// It ended. Another connection to the same peer may still be there.
    Down(ConnectionLost),
}

/// What a dial came to; `None` while it is under way.
pub(super) type DialResult = Option<Result<Arc<Entry>, ConnectError>>;

/// All connections of a node.
#[derive(Debug)]
pub(super) struct Pool {
    state: Mutex<State>,
    events: broadcast::Sender<ConnectionEvent>,
}

#[derive(Debug, Default)]
struct State {
    /// Oldest first.
    live: BTreeMap<(PeerId, Family), Vec<Arc<Entry>>>,
    dials: BTreeMap<(PeerId, Family), Dial>,
    next_dial: u64,
    /// How many of the live ones others have dialled.
    incoming: usize,
    closed: bool,
    /// Whose connections are refused: for trials that cut links of real sockets.
    blocked: BTreeSet<PeerId>,
}

/// The dials of a peer that are under way: the first connection, whichever way it is made, serves all who wait.
#[derive(Debug)]
struct Dial {
    /// Tells a dial that failed late from those that came after it.
    id: u64,
    result: watch::Sender<DialResult>,
    /// Where the peer is looked for.
    addrs: BTreeSet<TransportAddr>,
    running: usize,
}

/// One connection and its use.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) connection: Connection,
    pub(super) family: Family,
    /// Whether this node dialled it.
    pub(super) outgoing: bool,
    pub(super) since: Instant,
    /// Whether the two have proved to be of one network.
    pub(super) gate: Gate,
    /// When the peer was admitted by its ticket: by the clock that is never set, and by the wall clock in seconds.
    pub(super) admitted: OnceLock<(Instant, u64)>,
    /// Whether a stream with a valid preamble was ever seen, in either direction.
    spoken: AtomicBool,
    links: AtomicUsize,
    last_used: Mutex<Instant>,
}

/// A live connection as reports show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionInfo {
    pub(crate) family: Family,
    /// Whether this node dialled it.
    pub(crate) outgoing: bool,
    /// Whether it goes through a relay; `None` while no path is chosen.
    pub(crate) relayed: Option<bool>,
    pub(crate) rtt: Option<Duration>,
    /// What carries the streams that this node opens on it.
    pub(crate) lane: Lane,
    pub(crate) age: Duration,
}

/// Counts one user of a connection for as long as it lives.
#[derive(Debug)]
pub(crate) struct InUse(Arc<Entry>);

impl Entry {
    /// In an `open` network nothing has to be proved.
    pub(super) fn new(connection: Connection, family: Family, outgoing: bool, open: bool) -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Self {
            connection,
            family,
            outgoing,
            since: now,
            gate: Gate::new(open),
            admitted: OnceLock::new(),
            spoken: AtomicBool::new(outgoing),
            links: AtomicUsize::new(0),
            last_used: Mutex::new(now),
        })
    }

    pub(super) fn in_use(self: &Arc<Self>) -> Arc<InUse> {
        self.spoken.store(true, Ordering::Relaxed);
        self.links.fetch_add(1, Ordering::Relaxed);
        Arc::new(InUse(self.clone()))
    }

    /// Whether this node may open streams on it: what it says before the other side's proof is sealed.
    fn is_usable(&self) -> bool {
        self.outgoing || self.gate.is_open()
    }

    pub(super) fn has_spoken(&self) -> bool {
        self.spoken.load(Ordering::Relaxed)
    }

    /// For how long nobody has used the connection; zero while somebody does.
    pub(super) fn idle(&self) -> Duration {
        if self.links.load(Ordering::Relaxed) > 0 {
            return Duration::ZERO;
        }
        self.last_used.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

impl InUse {
    pub(super) fn gate(&self) -> &Gate {
        &self.0.gate
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        *self.0.last_used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.links.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How to get a connection.
pub(super) enum Way {
    Ready(Arc<Entry>),
    Wait(watch::Receiver<DialResult>),
    /// With the number to report.
    Dial(u64, watch::Receiver<DialResult>),
    Closed,
}

impl Pool {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), events: broadcast::channel(EVENTS).0 }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn events(&self) -> broadcast::Receiver<ConnectionEvent> {
        self.events.subscribe()
    }

    /// The way to a connection; for `Dial` the caller must dial and report through [`dialled`](Self::dialled). A peer that
    /// is being dialled already is dialled once more if `to` knows another address: the first may be stale.
    pub(super) fn way(&self, to: &EndpointAddr, family: Family) -> Way {
        let peer = to.id.into();
        let mut state = self.state();
        if state.closed {
            return Way::Closed;
        }
        if let Some(entry) = state.newest(peer, family) {
            return Way::Ready(entry);
        }
        let id = state.next_dial;
        state.next_dial += 1;
        let dial = state.dials.entry((peer, family)).or_insert_with(|| Dial {
            id,
            result: watch::Sender::new(None),
            addrs: BTreeSet::new(),
            running: 0,
        });
        let receiver = dial.result.subscribe();
        let known = dial.addrs.len();
        dial.addrs.extend(to.addrs.iter().cloned());
        if dial.running > 0 && (dial.addrs.len() == known || dial.running == MAX_DIALS) {
            return Way::Wait(receiver);
        }
        dial.running += 1;
        Way::Dial(dial.id, receiver)
    }

    /// Ends a dial. A failure is the result only if no other dial of the peer is left.
    pub(super) fn dialled(&self, key: (PeerId, Family), id: u64, result: Result<Arc<Entry>, ConnectError>) {
        let error = match result {
            Ok(entry) if self.add(&entry) => return,
            Ok(_) if !self.state().closed => ConnectError::TimedOut,
            Ok(_) => ConnectError::Closed,
            Err(error) => error,
        };
        let mut state = self.state();
        let Some(dial) = state.dials.get_mut(&key).filter(|dial| dial.id == id) else { return };
        dial.running -= 1;
        if dial.running == 0 {
            let dial = state.dials.remove(&key);
            drop(state);
            dial.iter().for_each(|dial| _ = dial.result.send_replace(Some(Err(error.clone()))));
        }
    }

    /// Adds a connection, also for those who wait for a dial; false when the pool is closed already (the connection is then
    /// closed, too).
    pub(super) fn add(&self, entry: &Arc<Entry>) -> bool {
        let (peer, family) = (entry.connection.peer(), entry.family);
        let dial = {
            let mut state = self.state();
            if state.closed || state.blocks(peer) {
                entry.connection.close(CloseCode::ShuttingDown.code());
                return false;
            }
            state.live.entry((peer, family)).or_default().push(entry.clone());
            state.incoming += usize::from(!entry.outgoing);
            if entry.is_usable() { state.dials.remove(&(peer, family)) } else { None }
        };
        dial.iter().for_each(|dial| _ = dial.result.send_replace(Some(Ok(entry.clone()))));
        if entry.gate.is_open() {
            self.tell(peer, family, ConnectionChange::Up);
        }
        true
    }

    /// The two ends of a connection, which was added before, have proved to be of one network.
    pub(super) fn admitted(&self, entry: &Arc<Entry>) {
        let (peer, family) = (entry.connection.peer(), entry.family);
        entry.spoken.store(true, Ordering::Relaxed);
        let dial = self.state().dials.remove(&(peer, family));
        dial.iter().for_each(|dial| _ = dial.result.send_replace(Some(Ok(entry.clone()))));
        self.tell(peer, family, ConnectionChange::Up);
    }

    /// Takes an ended connection out and tells the listeners.
    pub(super) fn remove(&self, entry: &Arc<Entry>, why: ConnectionLost) {
        let key = (entry.connection.peer(), entry.family);
        {
            let mut state = self.state();
            if let Some(entries) = state.live.get_mut(&key) {
                let before = entries.len();
                entries.retain(|other| !Arc::ptr_eq(other, entry));
                let removed = before > entries.len();
                if entries.is_empty() {
                    state.live.remove(&key);
                }
                state.incoming -= usize::from(removed && !entry.outgoing);
            }
        }
        if entry.gate.is_open() {
            self.tell(key.0, key.1, ConnectionChange::Down(why));
        }
    }

    fn tell(&self, peer: PeerId, family: Family, change: ConnectionChange) {
        // An error says that nobody listens, which is fine.
        let _ = self.events.send(ConnectionEvent { peer, family, change });
    }

    /// The live connections of a peer in one family, oldest first.
    pub(super) fn of(&self, peer: PeerId, family: Family) -> Vec<Arc<Entry>> {
        self.state().live.get(&(peer, family)).cloned().unwrap_or_default()
    }

    /// The incoming connections on which nothing was ever said, oldest first.
    pub(super) fn silent(&self) -> Vec<Arc<Entry>> {
        let mut silent: Vec<_> =
            self.state().live.values().flatten().filter(|entry| !entry.has_spoken()).cloned().collect();
        silent.sort_by_key(|entry| entry.since);
        silent
    }

    /// How many live connections others have dialled.
    pub(super) fn incoming(&self) -> usize {
        self.state().incoming
    }

    /// The incoming connection that has been without a stream for the longest time, if one is.
    pub(super) fn longest_unused(&self) -> Option<Arc<Entry>> {
        let state = self.state();
        let unused = state.live.values().flatten().filter(|entry| {
            !entry.outgoing && entry.connection.close_reason().is_none() && entry.idle() > Duration::ZERO
        });
        unused.max_by_key(|entry| entry.idle()).cloned()
    }

    pub(super) fn is_connected(&self, peer: PeerId) -> bool {
        let state = self.state();
        Family::ALL.into_iter().any(|family| state.proved(peer, family).is_some())
    }

    /// The peers of the connections whose other ends are known to be of this network, in ascending order.
    pub(super) fn connected(&self) -> Vec<PeerId> {
        let state = self.state();
        let proved = |entry: &Arc<Entry>| entry.gate.is_open() && entry.connection.close_reason().is_none();
        let live = state.live.iter().filter(|(_, entries)| entries.iter().any(proved));
        let mut peers: Vec<PeerId> = live.map(|((peer, _), _)| *peer).collect();
        peers.dedup();
        peers
    }

    pub(super) fn rtt(&self, peer: PeerId) -> Option<Duration> {
        let state = self.state();
        Family::ALL.into_iter().filter_map(|family| state.proved(peer, family)?.connection.rtt()).min()
    }

    /// The newest live connection of each family to a peer.
    pub(super) fn connections(&self, peer: PeerId) -> Vec<ConnectionInfo> {
        let state = self.state();
        let info = |family| {
            let entry = state.proved(peer, family)?;
            let (relayed, rtt) = (entry.connection.is_relayed(), entry.connection.rtt());
            let lane = entry.connection.lane().map_or(Lane::Quic, |lane| lane.lane());
            Some(ConnectionInfo { family, outgoing: entry.outgoing, relayed, rtt, lane, age: entry.since.elapsed() })
        };
        Family::ALL.into_iter().filter_map(info).collect()
    }

    /// The peer was started anew at `to`: what this node dialled elsewhere leads to nobody, or to somebody else. What the peer
    /// dialled is left alone, since behind a port mapping it comes from where nobody listens.
    pub(super) fn close_moved(&self, to: &EndpointAddr) {
        let peer: PeerId = to.id.into();
        let entries: Vec<_> = {
            let state = self.state();
            let families = Family::ALL.into_iter().filter_map(|family| state.live.get(&(peer, family)));
            families.flatten().filter(|entry| entry.outgoing).cloned().collect()
        };
        for entry in entries {
            let elsewhere = |socket: &SocketAddr| to.ip_addrs().all(|known| known != socket);
            if let Some(socket) = entry.connection.socket().filter(elsewhere) {
                tracing::debug!(?peer, family = entry.family.alpn(), %socket, "peer was started anew elsewhere");
                entry.connection.close(CloseCode::Normal.code());
            }
        }
    }

    /// Closes the connections to certain peers; those peers, each once, with why.
    pub(super) fn close_those<W>(
        &self,
        code: impl Fn(&W) -> CloseCode,
        why: impl Fn(PeerId) -> Option<W>,
    ) -> Vec<(PeerId, W)> {
        let entries: Vec<_> = self.state().live.values().flatten().cloned().collect();
        let mut closed: BTreeMap<PeerId, W> = BTreeMap::new();
        for entry in entries {
            let peer = entry.connection.peer();
            if let Some(reason) = why(peer) {
                entry.connection.close(code(&reason).code());
                closed.insert(peer, reason);
            }
        }
        closed.into_iter().collect()
    }

    /// Closes connections to these peers and refuses further ones, and those of no others.
    pub(super) fn block(&self, peers: BTreeSet<PeerId>) {
        let entries: Vec<_> = {
            let mut state = self.state();
            let cut = state.live.iter().filter(|((peer, _), _)| peers.contains(peer));
            let entries = cut.flat_map(|(_, entries)| entries.iter().cloned()).collect();
            state.blocked = peers;
            entries
        };
        entries.iter().for_each(|entry: &Arc<Entry>| entry.connection.close(CloseCode::Normal.code()));
    }

    /// Closes everything and refuses what comes later.
    pub(super) fn close(&self, code: CloseCode) {
        let entries: Vec<_> = {
            let mut state = self.state();
            state.closed = true;
            state.live.values().flatten().cloned().collect()
        };
        entries.iter().for_each(|entry| entry.connection.close(code.code()));
    }
}

impl State {
    fn blocks(&self, peer: PeerId) -> bool {
        self.blocked.contains(&peer)
    }

    /// The newest connection over which this node may open streams.
    fn newest(&self, peer: PeerId, family: Family) -> Option<Arc<Entry>> {
        self.find(peer, family, Entry::is_usable)
    }

    /// The newest connection whose other end is known to be of this network.
    fn proved(&self, peer: PeerId, family: Family) -> Option<Arc<Entry>> {
        self.find(peer, family, |entry| entry.gate.is_open())
    }

    fn find(&self, peer: PeerId, family: Family, which: impl Fn(&Entry) -> bool) -> Option<Arc<Entry>> {
        let entries = self.live.get(&(peer, family))?;
        entries.iter().rev().find(|entry| entry.connection.close_reason().is_none() && which(entry)).cloned()
    }
}
