//! [`Cluster`]: a declared app under test, as it was declared: so many nodes of each role, in a simulation or on loopback with
//! one text.
//!
//! `builder` says what runs, `member` starts and ends one node of it, `converge` waits until what is declared is so and
//! explains what is not, `schedule` draws faults from a seed, and `run` is what `#[mosaik::test]` calls.

mod builder;
mod converge;
mod keys;
mod member;
mod run;
mod schedule;

use std::{
    any::{Any, TypeId},
    collections::BTreeMap,
    fmt,
    marker::PhantomData,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

pub use self::{
    builder::ClusterBuilder,
    converge::{MissingEdge, NotConverged},
    member::{ClusterError, Member},
    run::{Passes, Plan, run},
    schedule::{FaultKind, Faults as FaultSchedule, Planned},
};
use self::{member::Instance, schedule::Faults};
use super::Sim;
use crate::{
    network::Network,
    node::{App, Declared, Handlers, Replica, RoleError, RoleHandle, StreamType, private},
    primitives::{NetworkId, PeerId, watch},
    streams::Consumer,
};

/// How long [`Cluster::converged`] waits, in the cluster's own time.
const CONVERGES: Duration = Duration::from_mins(1);

/// A running app: nodes with its roles, and one node more that observes them. Cheap to clone; the nodes end as in a crash when
/// the last clone is dropped.
///
/// ```
/// use mosaik::{prelude::*, testing::{Cluster, Sim}};
///
/// #[mosaik::stream]
/// pub struct Tick(u64);
///
/// #[mosaik::node]
/// pub struct Clock {
///     #[mosaik(default)]
///     now: u64,
///     ticks: Producer<Tick>,
/// }
///
/// #[mosaik::handlers]
/// impl Clock {
///     #[every("1s", emit = ticks)]
///     fn tick(&mut self) -> Tick {
///         self.now += 1;
///         Tick(self.now)
///     }
/// }
///
/// #[mosaik::app(roles = [Clock])]
/// pub struct Clocks;
///
/// Sim::run(7, |sim| async move {
///     let cluster = Cluster::<Clocks>::in_sim(&sim).with::<Clock>(2).start().await.unwrap();
///     cluster.converged().await.unwrap();
///     let mut ticks = cluster.tap::<Tick>();
///     assert!(ticks.recv().await.is_some());
///     cluster.kill::<Clock>(0);
///     cluster.restart::<Clock>(0).await.unwrap();
///     cluster.converged().await.unwrap();
/// });
/// ```
pub struct Cluster<A> {
    inner: Arc<Inner>,
    app: PhantomData<fn() -> A>,
}

struct Inner {
    world: World,
    network: NetworkId,
    instances: Vec<Instance>,
    observer: Network,
    /// Clients of groups that the observer is, by their machines.
    clients: Mutex<BTreeMap<TypeId, Box<dyn Any + Send>>>,
    /// Who must not reach whom, on loopback.
    cuts: Mutex<Vec<(PeerId, PeerId)>>,
    faults: Faults,
    /// Whether all faults of the schedule are over.
    calm: watch::Sender<bool>,
    /// Of the data directories, if there are any; removed at the end.
    dir: Option<PathBuf>,
}

/// Where the nodes run.
#[derive(Clone)]
enum World {
    Sim(Sim),
    Loopback,
}

impl<A: App> Cluster<A> {
    /// In a simulation of its own, on the current runtime, which should be one thread with paused time (as that of
    /// [`Sim::run`] or `#[mosaik::test]`).
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn sim(seed: u64) -> ClusterBuilder<A> {
        Self::in_sim(&Sim::new(seed))
    }

    /// In this simulation.
    pub fn in_sim(sim: &Sim) -> ClusterBuilder<A> {
        ClusterBuilder::new(World::Sim(sim.clone()), NetworkId::from(A::GRAPH.app))
    }

    /// On real sockets of the loopback interface, in real time.
    pub fn loopback() -> ClusterBuilder<A> {
        ClusterBuilder::new(World::Loopback, NetworkId::random())
    }
}

impl<A> Cluster<A> {
    /// The simulation, unless it runs on loopback.
    #[must_use]
    pub fn simulation(&self) -> Option<&Sim> {
        match &self.inner.world {
            World::Sim(sim) => Some(sim),
            World::Loopback => None,
        }
    }

    /// The node number `index` of a role, counted from 0.
    ///
    /// # Panics
    /// When the cluster has no such node.
    #[must_use]
    pub fn member<R: Handlers>(&self, index: usize) -> Member {
        let named = |at: &usize| {
            let Member { role, index: number, .. } = self.inner.instances[*at].member;
            role == R::ROLE.name && number == index
        };
        let at = (0..self.inner.instances.len()).find(named);
        let at = at.unwrap_or_else(|| panic!("the cluster has no {} number {index}", R::ROLE.name));
        self.inner.instances[at].member
    }

    /// All nodes, role by role.
    pub fn members(&self) -> impl Iterator<Item = Member> {
        self.inner.instances.iter().map(|instance| instance.member)
    }

    fn instance(&self, member: Member) -> &Instance {
        &self.inner.instances[member.at]
    }

    /// What the handlers of a running node do.
    ///
    /// # Panics
    /// When the node is down, or there is none.
    #[must_use]
    pub fn role<R: Handlers>(&self, index: usize) -> RoleHandle {
        self.running::<R, _>(index, |running| running.handle.clone())
    }

    /// A running node itself.
    ///
    /// # Panics
    /// When the node is down, or there is none.
    #[must_use]
    pub fn network<R: Handlers>(&self, index: usize) -> Network {
        self.running::<R, _>(index, |running| running.network.clone())
    }

    fn running<R: Handlers, T>(&self, index: usize, show: impl Fn(&member::Running) -> T) -> T {
        let member = self.member::<R>(index);
        let shown = self.instance(member).running().as_ref().map(show);
        shown.unwrap_or_else(|| panic!("{member} is down"))
    }

    /// The node that observes: it has no role, and no fault hits it.
    #[must_use]
    pub fn observer(&self) -> &Network {
        &self.inner.observer
    }

    /// Kills a node at this instant: nothing more of it reaches anyone. Nothing happens if it is down.
    ///
    /// # Panics
    /// When the cluster has no such node.
    pub fn kill<R: Handlers>(&self, index: usize) {
        self.instance(self.member::<R>(index)).kill();
    }

    /// Starts a node again, with its identity, its flags and its data directory; one that still runs is killed first.
    ///
    /// # Errors
    /// When the node or its role cannot be started.
    ///
    /// # Panics
    /// When the cluster has no such node.
    pub async fn restart<R: Handlers>(&self, index: usize) -> Result<(), ClusterError> {
        self.start_again(self.member::<R>(index)).await
    }

    async fn start_again(&self, member: Member) -> Result<(), ClusterError> {
        let instance = self.instance(member);
        instance.kill();
        instance.start(&self.inner.world, self.inner.network).await?;
        self.inner.apply_cuts();
        Ok(())
    }

    /// Freezes a node as SIGSTOP does: its tasks are not polled. In a simulation it does not hear either.
    ///
    /// # Panics
    /// When the cluster has no such node.
    pub fn pause<R: Handlers>(&self, index: usize) {
        self.instance(self.member::<R>(index)).pause();
    }

    /// Lets a frozen node go on.
    ///
    /// # Panics
    /// When the cluster has no such node.
    pub fn resume<R: Handlers>(&self, index: usize) {
        self.instance(self.member::<R>(index)).resume();
    }

    /// Cuts every link between the two sides, both ways, until [`heal`](Self::heal). Nodes that are on neither side, and the
    /// observer, still reach everybody.
    pub fn partition(&self, one: impl IntoIterator<Item = Member>, other: impl IntoIterator<Item = Member>) {
        let id = |member: Member| self.instance(member).id();
        let other: Vec<_> = other.into_iter().map(id).collect();
        let cuts: Vec<_> = one.into_iter().map(id).flat_map(|a| other.iter().map(move |b| (a, *b))).collect();
        self.inner.cut(&cuts);
    }

    /// Cuts a node off from all others and from the observer, until [`heal`](Self::heal).
    ///
    /// # Panics
    /// When the cluster has no such node.
    pub fn isolate<R: Handlers>(&self, index: usize) {
        self.cut_off(self.member::<R>(index));
    }

    fn cut_off(&self, member: Member) {
        let me = self.instance(member).id();
        let others = self.inner.instances.iter().map(Instance::id).filter(|id| *id != me);
        let cuts: Vec<_> = others.chain([self.inner.observer.local().id()]).map(|other| (me, other)).collect();
        self.inner.cut(&cuts);
    }

    /// Undoes every partition.
    pub fn heal(&self) {
        self.inner.cuts.lock().unwrap_or_else(PoisonError::into_inner).clear();
        match &self.inner.world {
            World::Sim(sim) => sim.heal(),
            World::Loopback => self.inner.apply_cuts(),
        }
    }

    /// A consumer of a declared stream on the observer: sees what every producer sends from now on, and what they keep for late
    /// joiners. It counts as a consumer, as for `max_consumers` and `online_when`.
    #[must_use = "a consumer subscribes as long as it lives"]
    pub fn tap<T: StreamType>(&self) -> Consumer<T> {
        private::consumer::<T>(&self.inner.observer).build()
    }

    /// A client of a declared group: the observer becomes a member that never votes. The second call gives the same one.
    ///
    /// # Errors
    /// When the group cannot be joined.
    pub async fn client<M: Declared>(&self) -> Result<Replica<M>, RoleError> {
        let known = |clients: &BTreeMap<TypeId, Box<dyn Any + Send>>| {
            clients.get(&TypeId::of::<M>())?.downcast_ref::<Replica<M>>().cloned()
        };
        if let Some(client) = known(&self.inner.clients.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(client);
        }
        let client = Replica::<M>::observe(&self.inner.observer).await?;
        let mut clients = self.inner.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.insert(TypeId::of::<M>(), Box::new(client.clone()));
        Ok(client)
    }

    /// Where the data directories of the nodes are, if they have some.
    #[must_use]
    pub fn data_dir(&self) -> Option<&Path> {
        self.inner.dir.as_deref()
    }

    /// Waits until the faults that were drawn for this test are over and undone; at once when none were.
    pub async fn calm(&self) {
        if self.inner.calm.subscribe().wait_for(|calm| *calm).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until every node runs and is ready, every declared subscription that no rule forbids is there, every member of a
    /// group is online, and every replica of a store is in step. Waits for up to 60 s, of virtual time in a simulation.
    ///
    /// # Errors
    /// With every edge that is missing by then, and why: by the checks of `explain`.
    pub async fn converged(&self) -> Result<(), NotConverged> {
        converge::converged(&self.inner, CONVERGES).await
    }

    /// As [`converged`](Self::converged), for as long as that.
    ///
    /// # Errors
    /// As there.
    pub async fn converged_within(&self, limit: Duration) -> Result<(), NotConverged> {
        converge::converged(&self.inner, limit).await
    }

    /// Stops all roles and lets their nodes leave gracefully.
    ///
    /// # Errors
    /// With the first role that had ended with an error; all nodes are stopped all the same.
    pub async fn stop(&self) -> Result<(), ClusterError> {
        let stopped = futures::future::join_all(self.inner.instances.iter().map(Instance::stop)).await;
        self.inner.observer.shutdown().await;
        stopped.into_iter().collect()
    }
}

impl Inner {
    fn cut(&self, cuts: &[(PeerId, PeerId)]) {
        self.cuts.lock().unwrap_or_else(PoisonError::into_inner).extend(cuts);
        match &self.world {
            World::Sim(sim) => sim.cut_peers(cuts),
            World::Loopback => self.apply_cuts(),
        }
    }

    /// On loopback nodes refuse each other's connections.
    fn apply_cuts(&self) {
        if matches!(self.world, World::Sim(_)) {
            return;
        }
        let cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        let running: Vec<Network> = self.instances.iter().filter_map(Instance::network).collect();
        for network in running.iter().chain([&self.observer]) {
            let me = network.local().id();
            let blocked = cuts.iter().filter_map(|(a, b)| match me {
                me if me == *a => Some(*b),
                me if me == *b => Some(*a),
                _ => None,
            });
            network.node().block(blocked.collect());
        }
    }
}

impl<A> Clone for Cluster<A> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), app: PhantomData }
    }
}

impl<A: App> fmt::Debug for Cluster<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members = self.inner.instances.iter().map(|instance| instance.member.to_string());
        f.debug_struct("Cluster").field("app", &A::GRAPH.app).field("members", &members.collect::<Vec<_>>()).finish()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.instances.iter().for_each(Instance::kill);
        self.observer.node().abandon();
        if let Some(dir) = &self.dir {
            // What is left of it lies in the system's own place for such files.
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}
