//! [`Sim`]: a simulated network and its controls, and [`SimNode`]: one machine of it.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use iroh::{EndpointAddr, SecretKey};

use crate::{
    network::{Family, Network, NetworkBuilder},
    primitives::{NetworkId, PeerId},
    transport::{
        TaskProbe, Transport,
        sim::{LinkQuality, Net, NodeIx, SimTransport, Traffic},
    },
};

/// A simulated network. Cheap to clone. All of it runs on the tokio runtime on which it was made, in that runtime's
/// time; it is reproducible on a current-thread runtime with paused time, which [`run`](Self::run) sets up.
///
/// Nodes are told apart by name. Links have a latency of 1 to 10 ms, drawn from the seed for each pair, until
/// [`default_link`](Self::default_link) or [`link`](Self::link) says otherwise.
#[derive(Clone, Debug)]
pub struct Sim {
    net: Arc<Net>,
}

/// One machine of a [`Sim`]. Cheap to clone. Its key and address follow from the seed and its name and stay the same
/// over crashes and restarts.
#[derive(Clone)]
pub struct SimNode {
    net: Arc<Net>,
    name: String,
    ix: NodeIx,
}

/// What happened in a [`Sim`] so far: equal for two runs that did the same in the same order at the same times.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// BLAKE3 over every packet delivered (contents included), every connection lost and every fault injected.
    pub digest: [u8; 32],
    /// How many of them.
    pub events: u64,
}

impl Sim {
    /// A network without nodes.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { net: Net::new(seed) }
    }

    /// Runs a scenario to its end, in virtual time, on a runtime of its own; prints the seed if it panics.
    ///
    /// # Panics
    /// When the scenario does, or inside of a tokio runtime.
    pub fn run<F: Future>(seed: u64, scenario: impl FnOnce(Self) -> F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.unwrap_or_else(|error| panic!("cannot start a runtime: {error}"));
        runtime.block_on(async {
            super::trace();
            let sim = Self::new(seed);
            let _report = Report(sim.clone());
            scenario(sim).await
        })
    }

    #[cfg(test)]
    pub(crate) fn net(&self) -> &Arc<Net> {
        &self.net
    }

    /// The seed from which everything random follows.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.net.seed()
    }

    /// Virtual time since the network was made.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.net.elapsed()
    }

    /// The machine of that name, made at first mention. Nothing runs on it yet.
    #[must_use]
    pub fn node(&self, name: &str) -> SimNode {
        SimNode { net: self.net.clone(), name: name.to_owned(), ix: self.net.node(name) }
    }

    /// As [`node`](Self::node), with the key of another machine: what comes of a copied data directory.
    #[must_use]
    pub fn twin(&self, of: &SimNode, name: &str) -> SimNode {
        SimNode { net: self.net.clone(), name: name.to_owned(), ix: self.net.twin(of.ix, name) }
    }

    /// Whether nodes of one network id find each other without a bootstrap, as those of one process do. On by
    /// default; set it before nodes are built.
    pub fn rendezvous(&self, on: bool) {
        self.net.set_rendezvous(on);
    }

    /// The quality of all links for which none was set.
    pub fn default_link(&self, quality: LinkQuality) {
        self.net.set_default_link(quality);
    }

    /// The quality of the link between two nodes, both ways.
    pub fn link(&self, a: &SimNode, b: &SimNode, quality: LinkQuality) {
        self.net.set_link(a.ix, b.ix, quality);
    }

    /// Nothing that `from` sends reaches `to` any more; the other way is left as it is.
    pub fn cut(&self, from: &SimNode, to: &SimNode) {
        self.net.set_cuts([(from.ix, to.ix)], true);
    }

    /// Undoes [`cut`](Self::cut).
    pub fn mend(&self, from: &SimNode, to: &SimNode) {
        self.net.set_cuts([(from.ix, to.ix)], false);
    }

    /// Cuts every link between the two sides, both ways.
    pub fn partition(&self, one: &[SimNode], other: &[SimNode]) {
        let links = one.iter().flat_map(|a| other.iter().map(move |b| (a.ix, b.ix)));
        self.net.set_cuts(links.flat_map(|(a, b)| [(a, b), (b, a)]), true);
    }

    /// Cuts links between peers of this simulation, both ways.
    pub(super) fn cut_peers(&self, pairs: &[(PeerId, PeerId)]) {
        let found = pairs.iter().filter_map(|(a, b)| Some((self.net.find(*a)?, self.net.find(*b)?)));
        // All of them are found before the network is changed: both take its lock.
        let links: Vec<_> = found.flat_map(|(a, b)| [(a, b), (b, a)]).collect();
        self.net.set_cuts(links, true);
    }

    /// Undoes every cut and partition.
    pub fn heal(&self) {
        self.net.heal();
    }

    /// What happened so far.
    #[must_use]
    pub fn trace(&self) -> Trace {
        let (digest, events, _) = self.net.trace();
        Trace { digest, events }
    }

    /// Keeps the last so many lines of the trace, for [`trace_lines`](Self::trace_lines). None are kept by default.
    pub fn keep_trace(&self, lines: usize) {
        self.net.keep_trace(lines);
    }

    /// The last lines of the trace: time in microseconds, kind, node indices, connection, detail, payload size.
    #[must_use]
    pub fn trace_lines(&self) -> Vec<String> {
        self.net.trace().2
    }

    /// What a node has sent and received.
    #[must_use]
    pub fn bytes(&self, node: &SimNode) -> Traffic {
        node.traffic()
    }
}

impl SimNode {
    /// The node's name in its simulation.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The node's identity.
    #[must_use]
    pub fn id(&self) -> PeerId {
        self.net.id(self.ix)
    }

    /// The node's secret key, which its builder gets.
    #[must_use]
    pub fn secret_key(&self) -> SecretKey {
        self.net.secret_key(self.ix)
    }

    /// Where the node listens when it runs.
    #[must_use]
    pub fn addr(&self) -> EndpointAddr {
        self.net.addr(self.ix)
    }

    /// Powers the machine on and configures a node on it. The builder is the ordinary one; its key, listening address
    /// and relays are given by the simulation. A node that still runs here crashes.
    #[must_use = "dropping the builder switches the machine off again"]
    pub fn builder(&self, network_id: impl Into<NetworkId>) -> NetworkBuilder {
        let alpns = Family::ALL.iter().map(|family| family.alpn().as_bytes().to_vec()).collect();
        let transport = SimTransport::start(&self.net, self.ix, None, alpns);
        Network::builder(network_id).with_transport(Transport::Sim(transport), self.secret_key())
    }

    /// [`crash`](Self::crash), then [`builder`](Self::builder): the node comes back with its key and address and no memory.
    #[must_use = "dropping the builder switches the machine off again"]
    pub fn restart(&self, network_id: impl Into<NetworkId>) -> NetworkBuilder {
        self.crash();
        self.builder(network_id)
    }

    /// Kills the node at this instant: nothing more of it reaches anyone and its tasks are aborted. Handles of its
    /// `Network` only fail from now on. Its peers notice when their connections time out.
    pub fn crash(&self) {
        self.net.crash(self.ix);
    }

    /// Freezes the node, as SIGSTOP does: its tasks are not polled and it neither hears nor speaks. Its peers notice
    /// when their connections time out.
    pub fn pause(&self) {
        self.net.pause(self.ix);
    }

    /// Lets a paused node go on; what was sent to it meanwhile arrives, timers that ran out fire.
    pub fn resume(&self) {
        self.net.resume(self.ix);
    }

    /// Runs a part of the test on the node: it stops when the node is paused and ends when the node crashes or its
    /// network is shut down. Before the node is built and after it has ended, nothing is run.
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        self.net.tasks(self.ix).spawn(name, future);
    }

    /// Sets the node's wall clock so many seconds ahead of the others' (behind, if negative). The clock's rate and
    /// all timers stay true.
    pub fn skew(&self, seconds: f64) {
        #[expect(clippy::cast_possible_truncation, reason = "it saturates at 292,000 years")]
        self.net.set_skew(self.ix, (seconds * 1e6) as i64);
    }

    /// Limits what the node sends and receives in all, in bytes per second.
    pub fn bandwidth(&self, up: Option<u64>, down: Option<u64>) {
        self.net.set_bandwidth(self.ix, up, down);
    }

    /// What the node has sent and received, over all its lives.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.net.traffic(self.ix)
    }

    /// Whether a node runs here that was neither shut down, crashed nor paused.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.net.is_running(self.ix)
    }

    /// Observes the tasks of the node's current life.
    #[must_use]
    pub fn task_probe(&self) -> TaskProbe {
        self.net.tasks(self.ix).probe()
    }
}

impl fmt::Debug for SimNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({:?})", self.name, self.id())
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.digest;
        write!(f, "{a:02x}{b:02x}{c:02x}{d:02x} after {} events", self.events)
    }
}

/// Says which run it was when a scenario panics.
struct Report(Sim);

impl Drop for Report {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (seed, at, trace) = (self.0.seed(), self.0.elapsed(), self.0.trace());
            eprintln!("simulation with seed {seed} failed after {at:?}, trace {trace:?}");
            self.0.trace_lines().iter().for_each(|line| eprintln!("  {line}"));
        }
    }
}
