//! The state of a simulated network and its event loop: one queue ordered by (time, sequence), one handler per kind.
//!
//! Everything here is synchronous and runs under the lock of [`Net`](super::Net); what has to be woken is collected
//! in [`Wakes`] and woken after the lock is released. The handlers of packets are in `handshake.rs` and `streams.rs`,
//! those of injected faults in `faults.rs`.

use std::{
    collections::{BTreeMap, BinaryHeap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    task::Waker,
};

use iroh::SecretKey;
use rand::{SeedableRng, rngs::SmallRng};
use tokio::{sync::Notify, time::Instant};

use super::{
    connection::Conn,
    event::{Body, ConnId, Event, Micros, NodeIx, Packet, Scheduled, Side},
    link::{self, Bottleneck, Paths},
    trace::{Entry, Trace},
};
use crate::{primitives::PeerId, transport::Tasks};

/// What a node has sent and received since the simulation began; only what streams carry is counted, no overhead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Payload bytes that the node wrote to streams.
    pub sent: u64,
    /// Payload bytes that were delivered to the node.
    pub received: u64,
    /// Connections that the node dialled.
    pub dials: u64,
    /// Streams that the node opened.
    pub streams: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NodeState {
    /// Created, not started yet or crashed: nothing reaches it.
    Down,
    Up,
    /// Like a stopped process: it keeps its connections but neither hears nor speaks.
    Paused,
    /// Its transport was closed in an orderly way; its last packets still get through.
    Closed,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) key: SecretKey,
    pub(super) id: PeerId,
    pub(super) addr: SocketAddr,
    pub(super) state: NodeState,
    /// Grows at each start; handles of an earlier life are dead.
    pub(super) life: u32,
    pub(super) alpns: Vec<Vec<u8>>,
    pub(super) tasks: Tasks,
    pub(super) backlog: VecDeque<ConnId>,
    pub(super) accept: Arc<Notify>,
    /// Wall clock minus true time, in microseconds.
    pub(super) skew: i64,
    pub(super) seeds: u64,
    pub(super) up: Bottleneck,
    pub(super) down: Bottleneck,
    pub(super) traffic: Traffic,
    /// Idle timers that ran out while the node was paused.
    pub(super) overdue: Vec<(ConnId, Side, u32)>,
}

impl Node {
    pub(super) fn running(&self) -> bool {
        matches!(self.state, NodeState::Up | NodeState::Closed)
    }
}

/// What to wake once the lock is released.
#[derive(Debug, Default)]
pub(super) struct Wakes {
    tasks: Vec<Waker>,
    signals: Vec<Arc<Notify>>,
}

impl Wakes {
    pub(super) fn task(&mut self, waker: &mut Option<Waker>) {
        self.tasks.extend(waker.take());
    }

    pub(super) fn signal(&mut self, signal: &Arc<Notify>) {
        self.signals.push(signal.clone());
    }

    pub(super) fn wake(self) {
        self.tasks.into_iter().for_each(Waker::wake);
        self.signals.iter().for_each(|signal| signal.notify_waiters());
    }
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) seed: u64,
    start: Instant,
    pub(super) now: Micros,
    pub(super) rng: SmallRng,
    seq: u64,
    queue: BinaryHeap<Scheduled>,
    /// When the driver will next look at the queue by itself.
    armed: Micros,
    pub(super) nodes: Vec<Node>,
    pub(super) by_addr: BTreeMap<SocketAddr, NodeIx>,
    pub(super) conns: BTreeMap<ConnId, Conn>,
    pub(super) next_conn: ConnId,
    pub(super) paths: Paths,
    /// Packets whose path was down when they should have arrived: sent again when it is up.
    pub(super) held: BTreeMap<(NodeIx, NodeIx), Vec<Packet>>,
    pub(super) trace: Trace,
    pub(super) wakes: Wakes,
    pub(super) rendezvous: bool,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            start: Instant::now(),
            now: 0,
            rng: SmallRng::seed_from_u64(seed),
            seq: 0,
            queue: BinaryHeap::new(),
            armed: Micros::MAX,
            nodes: Vec::new(),
            by_addr: BTreeMap::new(),
            conns: BTreeMap::new(),
            next_conn: 0,
            paths: Paths::new(seed),
            held: BTreeMap::new(),
            trace: Trace::default(),
            wakes: Wakes::default(),
            rendezvous: true,
        }
    }

    /// Reads the clock; called once whenever the world is entered.
    pub(super) fn tick(&mut self) {
        self.now = link::micros(self.start.elapsed());
    }

    /// The instant of a time of this world.
    pub(super) fn instant(&self, at: Micros) -> Instant {
        self.start + std::time::Duration::from_micros(at)
    }

    /// Whether the driver has to look at the queue earlier than it planned to.
    pub(super) fn must_rearm(&mut self) -> bool {
        let next = self.queue.peek().map_or(Micros::MAX, |event| event.at);
        let sooner = next < self.armed;
        self.armed = self.armed.min(next);
        sooner
    }

    pub(super) fn schedule(&mut self, at: Micros, event: Event) {
        self.seq += 1;
        self.queue.push(Scheduled { at, seq: self.seq, event });
    }

    /// Handles everything that is due and returns when the next event is.
    pub(super) fn run_due(&mut self) -> Option<Micros> {
        while let Some(next) = self.queue.peek()
            && next.at <= self.now
        {
            if let Some(Scheduled { event, .. }) = self.queue.pop() {
                self.handle(event);
            }
        }
        let next = self.queue.peek().map(|event| event.at);
        self.armed = next.unwrap_or(Micros::MAX);
        next
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Packet(packet) => self.arrive(packet),
            Event::Idle { conn, side, epoch } => self.idle(conn, side, epoch),
        }
    }

    /// Whether packets get from one node to the other now.
    pub(super) fn is_open(&self, from: NodeIx, to: NodeIx) -> bool {
        self.nodes[from].running() && self.nodes[to].running() && !self.paths.is_cut(from, to)
    }

    /// Puts a packet on its way from one end of a connection to the other.
    pub(super) fn send(&mut self, conn: ConnId, from: Side, body: Body) {
        let Some(connection) = self.conns.get(&conn) else { return };
        let (source, target) = (connection.end(from).node, connection.end(from.other()).node);
        let bytes = if let Body::Data { bytes, .. } = &body { bytes.len() } else { 0 };
        let node = &mut self.nodes[source];
        node.traffic.sent += bytes as u64;
        let at = self.paths.arrival((source, &mut node.up), target, self.now, bytes, &mut self.rng);
        let at = link::descend(&mut self.nodes[target].down, at, bytes);
        self.schedule(at, Event::Packet(Packet { conn, to: from.other(), body }));
    }

    fn arrive(&mut self, packet: Packet) {
        let Some(connection) = self.conns.get(&packet.conn) else { return };
        let (source, target) = (connection.end(packet.to.other()).node, connection.end(packet.to).node);
        let listening = !matches!(packet.body, Body::Dial) || self.nodes[target].state == NodeState::Up;
        if !self.is_open(source, target) || !listening {
            return self.hold(source, target, packet);
        }
        // A connection that its sender closed takes with it what was still on the way; but the end of a stream, which needs no
        // answer, may have left just before.
        let survives = matches!(packet.body, Body::Closed { .. } | Body::Reset { .. } | Body::Stop { .. });
        if connection.end(packet.to.other()).closed_locally() && !survives {
            return;
        }
        if connection.end(packet.to).is_over() {
            return;
        }
        self.note_packet(source, target, &packet);
        let Packet { conn, to, body } = packet;
        match body {
            Body::Dial => self.on_dial(conn),
            Body::Refused(error) => self.on_refused(conn, error),
            Body::Accepted => self.on_accepted(conn),
            Body::Established => self.on_established(conn),
            Body::Closed { code } => self.on_closed(conn, to, code),
            Body::Data { stream, offset, bytes } => self.on_data(conn, to, stream, offset, bytes),
            Body::Fin { stream, offset } => self.on_fin(conn, to, stream, offset),
            Body::Reset { stream, code } => self.on_reset(conn, to, stream, code),
            Body::Stop { stream, code } => self.on_stop(conn, to, stream, code),
            Body::Credit { stream, bytes } => self.on_credit(conn, to, stream, bytes),
            Body::Acked { stream } => self.on_acked(conn, to, stream),
            Body::StreamCredit => self.on_stream_credit(conn, to),
        }
    }

    /// Keeps a packet until its path is up again, as a sender that retransmits would. A close is sent once only.
    fn hold(&mut self, from: NodeIx, to: NodeIx, packet: Packet) {
        if matches!(packet.body, Body::Closed { .. }) {
            return;
        }
        let held = self.held.entry((from, to)).or_default();
        held.push(packet);
        if held.len().is_power_of_two() && held.len() >= 64 {
            let conns = &self.conns;
            held.retain(|packet| conns.get(&packet.conn).is_some_and(|conn| !conn.end(packet.to).is_over()));
        }
    }

    fn note_packet(&mut self, from: NodeIx, to: NodeIx, packet: &Packet) {
        let (detail, payload) = match &packet.body {
            Body::Data { stream, bytes, .. } => (stream.index, Some(bytes)),
            Body::Fin { stream, .. } | Body::Acked { stream } => (stream.index, None),
            Body::Reset { code, .. } | Body::Stop { code, .. } | Body::Closed { code } => (u64::from(*code), None),
            Body::Credit { bytes, .. } => (*bytes, None),
            _ => (0, None),
        };
        let kind = packet.body.kind();
        self.trace.note(&Entry { at: self.now, kind, from, to, conn: packet.conn, detail, payload });
    }

    /// Notes something that is no packet: a fault, or the end of a connection.
    pub(super) fn note(&mut self, kind: &'static str, from: NodeIx, to: NodeIx, conn: ConnId) {
        self.trace.note(&Entry { at: self.now, kind, from, to, conn, detail: 0, payload: None });
    }
}
