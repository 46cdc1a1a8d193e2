//! A node's attachment to a simulated network, and the controls that `testing` has over the network.

use std::{sync::Arc, time::Duration};

use iroh::{EndpointAddr, SecretKey};

use super::{
    Net,
    connection::{Handle, Signals, SimConnection, wait},
    event::{ConnId, NodeIx, Side},
    link::LinkQuality,
    world::{NodeState, Traffic},
};
use crate::{
    primitives::PeerId,
    transport::{CONNECT_TIMEOUT, ConnectError, Tasks},
};

/// One life of a simulated node. Cheap to clone; the last clone to go closes it as [`close`](Self::close) does.
#[derive(Clone, Debug)]
pub(crate) struct SimTransport(Arc<Attachment>);

#[derive(Debug)]
struct Attachment {
    net: Arc<Net>,
    node: NodeIx,
    life: u32,
    id: PeerId,
    addr: EndpointAddr,
    tasks: Tasks,
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.net.with(|world| world.shut(self.node, self.life, 0));
    }
}

impl SimTransport {
    /// Starts a node: under the key that the simulation gave it, or another one.
    pub(crate) fn start(net: &Arc<Net>, node: NodeIx, key: Option<SecretKey>, alpns: Vec<Vec<u8>>) -> Self {
        if net.with(|world| matches!(world.nodes[node].state, NodeState::Up | NodeState::Paused)) {
            net.crash(node);
        }
        let tasks = Tasks::default();
        let (life, id, addr) = net.with(|world| {
            let life = world.start(node, key, alpns, tasks.clone());
            let node = &world.nodes[node];
            (life, node.id, EndpointAddr::from(node.id).with_ip_addr(node.addr))
        });
        Self(Arc::new(Attachment { net: net.clone(), node, life, id, addr, tasks }))
    }

    pub(crate) fn id(&self) -> PeerId {
        self.0.id
    }

    pub(crate) fn addr(&self) -> EndpointAddr {
        self.0.addr.clone()
    }

    /// A simulated node has one address.
    #[expect(clippy::unused_self, reason = "on a real network a host has several")]
    pub(crate) fn reached(&self) -> std::collections::BTreeSet<std::net::IpAddr> {
        std::collections::BTreeSet::new()
    }

    pub(crate) async fn connect(&self, to: &EndpointAddr, alpn: &'static [u8]) -> Result<SimConnection, ConnectError> {
        let Attachment { net, node, life, .. } = &*self.0;
        let (conn, signals) = net.with(|world| world.dial(*node, *life, to, alpn))?;
        // Dropping the handle before the answer gives up the dial.
        let handle = self.handle(conn, Side::Dialler, signals);
        let dialled = wait(&handle.signals.changed, || net.with(|world| world.dialled(conn)));
        tokio::time::timeout(CONNECT_TIMEOUT, dialled).await.unwrap_or(Err(ConnectError::TimedOut))?;
        Ok(SimConnection::new(handle.clone(), PeerId::from(to.id), alpn))
    }

    pub(crate) async fn accept(&self) -> Option<SimConnection> {
        let Attachment { net, node, life, .. } = &*self.0;
        let signal = net.with(|world| world.nodes[*node].accept.clone());
        let (conn, signals) = wait(&signal, || net.with(|world| world.accept(*node, *life))).await?;
        let handle = self.handle(conn, Side::Acceptor, signals);
        let (peer, alpn) = net.with(|world| world.describe(conn, Side::Acceptor))?;
        Some(SimConnection::new(handle, peer, alpn))
    }

    fn handle(&self, conn: ConnId, side: Side, signals: Arc<Signals>) -> Arc<Handle> {
        Arc::new(Handle { net: self.0.net.clone(), conn, side, signals })
    }

    /// Closes at once. What was not delivered yet is dropped, as with QUIC.
    #[expect(clippy::unused_async, reason = "the seam awaits it on either backend")]
    pub(crate) async fn close(&self) {
        self.0.net.with(|world| world.shut(self.0.node, self.0.life, 0));
    }

    pub(crate) fn abandon(&self) {
        self.0.net.with(|world| world.shut(self.0.node, self.0.life, 0));
    }

    pub(crate) fn tasks(&self) -> &Tasks {
        &self.0.tasks
    }

    pub(crate) fn wall_clock(&self) -> u64 {
        self.0.net.with(|world| world.wall_clock(self.0.node))
    }

    pub(crate) fn random_seed(&self) -> [u8; 32] {
        self.0.net.with(|world| world.random_seed(self.0.node))
    }

    /// One for all nodes of a simulation; when they are not to meet through memory, one for each.
    pub(crate) fn scope(&self) -> u64 {
        let alone = self.0.net.with(|world| !world.rendezvous);
        (self.0.net.realm << 32) + if alone { self.0.node as u64 + 1 } else { 0 }
    }
}

/// What `testing` can do to a network.
impl Net {
    pub(crate) fn seed(&self) -> u64 {
        self.with(|world| world.seed)
    }

    pub(crate) fn elapsed(&self) -> Duration {
        Duration::from_micros(self.with(|world| world.now))
    }

    pub(crate) fn node(&self, name: &str) -> NodeIx {
        self.with(|world| world.node(name))
    }

    pub(crate) fn twin(&self, of: NodeIx, name: &str) -> NodeIx {
        self.with(|world| world.twin(of, name))
    }

    /// The machine of that key, the first one if there are twins.
    pub(crate) fn find(&self, id: PeerId) -> Option<NodeIx> {
        self.with(|world| world.nodes.iter().position(|node| node.id == id))
    }

    pub(crate) fn id(&self, node: NodeIx) -> PeerId {
        self.with(|world| world.nodes[node].id)
    }

    pub(crate) fn secret_key(&self, node: NodeIx) -> SecretKey {
        self.with(|world| world.nodes[node].key.clone())
    }

    pub(crate) fn addr(&self, node: NodeIx) -> EndpointAddr {
        self.with(|world| EndpointAddr::from(world.nodes[node].id).with_ip_addr(world.nodes[node].addr))
    }

    pub(crate) fn is_running(&self, node: NodeIx) -> bool {
        self.with(|world| world.nodes[node].state == NodeState::Up)
    }

    pub(crate) fn tasks(&self, node: NodeIx) -> Tasks {
        self.with(|world| world.nodes[node].tasks.clone())
    }

    pub(crate) fn set_rendezvous(&self, on: bool) {
        self.with(|world| world.rendezvous = on);
    }

    pub(crate) fn set_default_link(&self, quality: LinkQuality) {
        self.with(|world| world.paths.set_default(quality));
    }

    pub(crate) fn set_link(&self, a: NodeIx, b: NodeIx, quality: LinkQuality) {
        self.with(|world| world.paths.set(a, b, quality));
    }

    pub(crate) fn set_bandwidth(&self, node: NodeIx, up: Option<u64>, down: Option<u64>) {
        self.with(|world| (world.nodes[node].up.rate, world.nodes[node].down.rate) = (up, down));
    }

    /// Cuts or mends directed paths, all at one instant.
    pub(crate) fn set_cuts(&self, paths: impl IntoIterator<Item = (NodeIx, NodeIx)>, cut: bool) {
        self.with(|world| {
            paths.into_iter().for_each(|(from, to)| world.cut(from, to, cut));
            world.paths_changed();
        });
    }

    pub(crate) fn heal(&self) {
        self.with(|world| world.heal());
    }

    pub(crate) fn crash(&self, node: NodeIx) {
        self.with(|world| world.crash(node)).abort_all();
    }

    pub(crate) fn pause(&self, node: NodeIx) {
        if let Some(tasks) = self.with(|world| world.set_paused(node, true)) {
            tasks.pause();
        }
    }

    pub(crate) fn resume(&self, node: NodeIx) {
        if let Some(tasks) = self.with(|world| world.set_paused(node, false)) {
            tasks.resume();
        }
    }

    /// Sets the node's wall clock so many microseconds ahead of true time (behind, if negative).
    pub(crate) fn set_skew(&self, node: NodeIx, micros: i64) {
        self.with(|world| world.nodes[node].skew = micros);
    }

    pub(crate) fn traffic(&self, node: NodeIx) -> Traffic {
        self.with(|world| world.nodes[node].traffic)
    }

    pub(crate) fn keep_trace(&self, lines: usize) {
        self.with(|world| world.trace.keep(lines));
    }

    /// Digest, number of events, and the lines that were kept.
    pub(crate) fn trace(&self) -> ([u8; 32], u64, Vec<String>) {
        self.with(|world| (world.trace.digest(), world.trace.events(), world.trace.lines()))
    }
}
