//! The life of nodes and the faults that a test injects: start, close, crash, pause, cuts and clocks.
//!
//! Called by `testing` and by the transport of a node. A fault changes which paths are open; the idle timers and the
//! packets that waited follow from that.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::Arc,
};

use iroh::SecretKey;

use super::{
    connection::EndState,
    event::{Body, Event, NodeIx, Packet, Side},
    link::{self, Bottleneck},
    world::{Node, NodeState, Traffic, World},
};
use crate::transport::{Code, ConnectionLost, KEEP_ALIVE, Tasks};

/// The port of every simulated node.
const PORT: u16 = 4433;
/// 2026-01-01T00:00:00Z in microseconds since the Unix epoch: when every simulation begins.
const EPOCH: u64 = 1_767_225_600_000_000;

impl World {
    /// The node of that name, made if there is none. Its key follows from the seed and the name.
    pub(super) fn node(&mut self, name: &str) -> NodeIx {
        let key = SecretKey::from_bytes(&self.derive("key", name, 0));
        self.machine(name, key)
    }

    /// A node with the key of another one, at an address of its own.
    pub(super) fn twin(&mut self, of: NodeIx, name: &str) -> NodeIx {
        let key = self.nodes[of].key.clone();
        self.machine(name, key)
    }

    fn machine(&mut self, name: &str, key: SecretKey) -> NodeIx {
        if let Some(ix) = self.nodes.iter().position(|node| node.name == name) {
            return ix;
        }
        let ix = self.nodes.len();
        self.nodes.push(Node {
            name: name.to_owned(),
            id: key.public().into(),
            key,
            addr: address(ix),
            state: NodeState::Down,
            life: 0,
            alpns: Vec::new(),
            tasks: Tasks::default(),
            backlog: Default::default(),
            accept: Arc::default(),
            skew: 0,
            seeds: 0,
            up: Bottleneck::default(),
            down: Bottleneck::default(),
            traffic: Traffic::default(),
            overdue: Vec::new(),
        });
        self.by_addr.insert(address(ix), ix);
        ix
    }

    fn derive(&self, what: &str, name: &str, counter: u64) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes()).update(&counter.to_le_bytes());
        hasher.update(what.as_bytes()).update(b":").update(name.as_bytes());
        *hasher.finalize().as_bytes()
    }

    pub(super) fn random_seed(&mut self, node: NodeIx) -> [u8; 32] {
        self.nodes[node].seeds += 1;
        self.derive("randomness", &self.nodes[node].name, self.nodes[node].seeds)
    }

    pub(super) fn wall_clock(&self, node: NodeIx) -> u64 {
        (EPOCH + self.now).saturating_add_signed(self.nodes[node].skew)
    }

    /// Starts a node's next life, ending one that still runs. Returns the number of the life.
    pub(super) fn start(&mut self, node: NodeIx, key: Option<SecretKey>, alpns: Vec<Vec<u8>>, tasks: Tasks) -> u32 {
        self.end_all(node, &ConnectionLost::Other("the node was started anew".into()));
        let this = &mut self.nodes[node];
        if let Some(key) = key {
            this.id = key.public().into();
            this.key = key;
        }
        (this.state, this.alpns, this.tasks) = (NodeState::Up, alpns, tasks);
        this.life += 1;
        let life = this.life;
        self.note("start", node, node, u64::from(life));
        self.paths_changed();
        life
    }

    /// Closes a node's transport in an orderly way: its peers are told.
    pub(super) fn shut(&mut self, node: NodeIx, life: u32, code: Code) {
        if !self.is_alive(node, life) {
            return;
        }
        self.note("shut", node, node, u64::from(life));
        for (conn, side) in self.ends_of(node) {
            self.close(conn, side, code);
        }
        self.end_all(node, &ConnectionLost::ClosedLocally);
        self.nodes[node].state = NodeState::Closed;
    }

    /// Kills a node: nothing it does from now on reaches anyone. Returns its tasks, to be aborted.
    pub(super) fn crash(&mut self, node: NodeIx) -> Tasks {
        self.note("crash", node, node, u64::from(self.nodes[node].life));
        self.nodes[node].state = NodeState::Down;
        self.end_all(node, &ConnectionLost::Other("the node crashed".into()));
        self.paths_changed();
        self.nodes[node].tasks.clone()
    }

    /// Ends all connections of a node at its own end only, and wakes whoever waits to accept one.
    fn end_all(&mut self, node: NodeIx, reason: &ConnectionLost) {
        let backlog = std::mem::take(&mut self.nodes[node].backlog);
        for conn in backlog {
            if let Some(connection) = self.conns.get_mut(&conn) {
                connection.end_mut(Side::Acceptor).held = false;
            }
        }
        for (conn, side) in self.ends_of(node) {
            self.finish(conn, side, reason.clone());
        }
        self.nodes[node].overdue.clear();
        self.wakes.signal(&self.nodes[node].accept.clone());
    }

    fn ends_of(&self, node: NodeIx) -> Vec<(u64, Side)> {
        let ends = self.conns.iter().flat_map(|(conn, connection)| {
            Side::BOTH
                .into_iter()
                .filter(|side| {
                    let end = connection.end(*side);
                    end.node == node && end.state != EndState::Unborn
                })
                .map(|side| (*conn, side))
        });
        ends.collect()
    }

    /// Stops or continues a node, as SIGSTOP and SIGCONT do.
    pub(super) fn set_paused(&mut self, node: NodeIx, paused: bool) -> Option<Tasks> {
        let this = &mut self.nodes[node];
        let (from, to) = if paused { (NodeState::Up, NodeState::Paused) } else { (NodeState::Paused, NodeState::Up) };
        if this.state != from {
            return None;
        }
        this.state = to;
        self.note(if paused { "pause" } else { "resume" }, node, node, 0);
        // Timers that ran out meanwhile fire before anything is heard.
        for (conn, side, epoch) in std::mem::take(&mut self.nodes[node].overdue) {
            self.idle(conn, side, epoch);
        }
        self.paths_changed();
        Some(self.nodes[node].tasks.clone())
    }

    pub(super) fn cut(&mut self, from: NodeIx, to: NodeIx, cut: bool) {
        self.note(if cut { "cut" } else { "mend" }, from, to, 0);
        self.paths.set_cut(from, to, cut);
    }

    pub(super) fn heal(&mut self) {
        self.note("heal", 0, 0, 0);
        self.paths.clear_cuts();
        self.paths_changed();
    }

    /// Follows up on a change of which paths are open.
    pub(super) fn paths_changed(&mut self) {
        self.refresh_all();
        let open: Vec<_> = self.held.keys().copied().filter(|(from, to)| self.is_open(*from, *to)).collect();
        for path in open {
            // Retransmitted when the sender's probe time-out next runs out.
            let wait = link::draw(&mut self.rng, link::micros(KEEP_ALIVE));
            for packet in self.held.remove(&path).unwrap_or_default() {
                self.resend(path, packet, wait);
            }
        }
    }

    fn resend(&mut self, (from, to): (NodeIx, NodeIx), packet: Packet, wait: u64) {
        if matches!(packet.body, Body::Dial) && self.nodes[to].state != NodeState::Up {
            self.held.entry((from, to)).or_default().push(packet);
            return;
        }
        let at = self.now + link::micros(self.paths.quality(from, to).latency) + wait;
        self.schedule(at, Event::Packet(packet));
    }
}

/// 10.x.y.z, by the node's index.
fn address(ix: NodeIx) -> SocketAddr {
    let [_, b, c, d] = u32::try_from(ix + 1).unwrap_or(u32::MAX).to_be_bytes();
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(10, b, c, d), PORT))
}
