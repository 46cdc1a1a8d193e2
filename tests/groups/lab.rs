//! A simulated group with its controls.

use std::{collections::BTreeMap, future::Future, time::Duration};

use mosaik::{
    groups::{ApplyContext, Group, GroupBuilder, Snapshots, StateMachine},
    prelude::*,
    testing::{Sim, SimDisk, SimNode},
};
use tokio::time::{Instant, timeout};

/// Adds; its output is the sum.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Counter(i64);

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Increment(pub i64);

impl StateMachine for Counter {
    type Command = Increment;
    type Output = i64;
    type Query = ();
    type QueryResult = i64;
    const NAME: &'static str = "counter";

    fn apply(&mut self, Increment(by): Increment, _: &ApplyContext) -> i64 {
        self.0 += by;
        self.0
    }

    fn query(&self, (): ()) -> i64 {
        self.0
    }

    fn snapshots() -> Snapshots<Self> {
        Snapshots::cloned()
    }
}

pub const LIMIT: Duration = Duration::from_mins(1);

/// Nodes of a simulation that are members of one group.
pub struct Lab<M: StateMachine = Counter> {
    pub sim: Sim,
    pub key: GroupKey,
    pub network: NetworkId,
    pub size: u32,
    pub timing: Timing,
    /// So many nodes are each other's bootstrap: they look for each other for ever. Without that they meet as nodes of one
    /// process do, which give up when they cannot reach each other for long.
    pub known: usize,
    /// Given to members that are started; without them members are volatile.
    pub disks: Option<BTreeMap<usize, SimDisk>>,
    pub members: BTreeMap<usize, (Network, Group<M>)>,
}

impl<M: StateMachine + Default> Lab<M> {
    pub fn new(sim: &Sim, size: u32) -> Self {
        Self {
            sim: sim.clone(),
            key: GroupKey::from_secret("test"),
            network: NetworkId::from("groups"),
            size,
            timing: Timing::default(),
            known: 0,
            disks: None,
            members: BTreeMap::new(),
        }
    }

    /// As `new`, with disks.
    pub fn durable(sim: &Sim, size: u32) -> Self {
        Self { disks: Some(BTreeMap::new()), ..Self::new(sim, size) }
    }

    pub async fn started(mut self, count: usize) -> Self {
        for n in 0..count {
            self.start(n).await;
        }
        self
    }

    pub fn node(&self, n: usize) -> SimNode {
        self.sim.node(&format!("n{n}"))
    }

    pub fn nodes(&self, of: impl IntoIterator<Item = usize>) -> Vec<SimNode> {
        of.into_iter().map(|n| self.node(n)).collect()
    }

    pub async fn start(&mut self, n: usize) {
        self.start_as(n, |builder| builder).await;
    }

    pub async fn start_as(&mut self, n: usize, configure: impl FnOnce(GroupBuilder<M>) -> GroupBuilder<M>) {
        let mut node = self.node(n).restart(self.network);
        for other in (0..self.known).filter(|other| *other != n) {
            node = node.with_bootstrap(self.node(other).addr());
        }
        let network = node.build().await.unwrap();
        let builder = self.builder(n, &network);
        let group = configure(builder).join().await.unwrap();
        self.members.insert(n, (network, group));
    }

    pub fn builder(&mut self, n: usize, network: &Network) -> GroupBuilder<M> {
        let mut builder = network.groups().with_key(self.key.clone()).with_state_machine(M::default());
        if let Some(disks) = &mut self.disks {
            let latency = Duration::from_millis(1);
            builder =
                builder.with_storage(disks.entry(n).or_insert_with(|| SimDisk::new().with_latency(latency)).clone());
        }
        builder.with_size(self.size).with_timing(self.timing)
    }

    pub fn crash(&mut self, n: usize) {
        self.node(n).crash();
        if let Some(disk) = self.disks.as_ref().and_then(|disks| disks.get(&n)) {
            disk.crash(n % 3);
        }
        self.members.remove(&n);
    }

    pub async fn shut_down(&mut self, n: usize) {
        if let Some((network, _)) = self.members.remove(&n) {
            let tasks = network.task_probe();
            network.shutdown().await;
            assert_eq!(tasks.names(), Vec::<&str>::new(), "tasks left after a shutdown");
        }
    }

    pub fn group(&self, n: usize) -> &Group<M> {
        &self.members[&n].1
    }

    /// Waits until one member leads and all running ones follow it.
    pub async fn elected(&self) -> usize {
        self.elected_among(self.members.keys().copied().collect()).await
    }

    pub async fn elected_among(&self, some: Vec<usize>) -> usize {
        let until = Instant::now() + LIMIT;
        loop {
            let leader = some.iter().copied().find(|n| self.group(*n).is_leader());
            let id = leader.map(|leader| self.members[&leader].0.local().id());
            let follow = |n: &usize| self.group(*n).leader() == id && self.group(*n).status().is_online();
            if let Some(leader) = leader.filter(|_| some.iter().all(follow)) {
                return leader;
            }
            let all: Vec<_> = some.iter().map(|n| format!("n{n}: {}", self.group(*n).status())).collect();
            assert!(Instant::now() < until, "no leader that all follow: {all:#?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Heals everything and forgets everything.
    pub async fn end(mut self) {
        for n in self.members.keys().copied().collect::<Vec<_>>() {
            self.shut_down(n).await;
        }
    }
}

impl Lab<Counter> {
    pub async fn add(&self, n: usize, by: i64) -> i64 {
        self.group(n).execute(Increment(by), Consistency::Strong).await.unwrap()
    }

    pub async fn sum(&self, n: usize) -> i64 {
        *self.group(n).query((), Consistency::Strong).await.unwrap()
    }

    /// Waits until all running members have the sum.
    pub async fn all_have(&self, sum: i64) {
        for (n, (_, group)) in &self.members {
            let mut last = 0;
            let same = async {
                loop {
                    last = group.query((), Consistency::Weak).await.map_or(-1, |it| *it);
                    if last == sum {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            let in_time = timeout(LIMIT, same).await.is_ok();
            assert!(in_time, "n{n} has {last} instead of {sum}: {}", group.status());
        }
    }
}

/// Waits until a condition holds; panics after [`LIMIT`].
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub async fn within<F: Future>(limit: Duration, what: &str, future: F) -> F::Output {
    let Ok(output) = timeout(limit, future).await else { panic!("not within {limit:?}: {what}") };
    output
}
