//! A simulated group of counters with its controls.

use std::{collections::BTreeMap, future::Future, time::Duration};

use mosaik::{
    groups::{ApplyContext, Group, GroupBuilder, Snapshots, StateMachine},
    prelude::*,
    testing::{Sim, SimNode},
};
use tokio::time::{Instant, timeout};

/// Adds; its output is the sum.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Counter {
    pub sum: i64,
    pub applied: u64,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Increment(pub i64);

impl StateMachine for Counter {
    type Command = Increment;
    type Output = i64;
    type Query = ();
    type QueryResult = i64;
    const NAME: &'static str = "counter";

    fn apply(&mut self, Increment(by): Increment, _: &ApplyContext) -> i64 {
        self.sum += by;
        self.applied += 1;
        self.sum
    }

    fn query(&self, (): ()) -> i64 {
        self.sum
    }

    fn snapshots() -> Snapshots<Self> {
        Snapshots::serde()
    }
}

pub const LIMIT: Duration = Duration::from_secs(60);

/// Nodes of a simulation that are members of one group.
pub struct Lab {
    pub sim: Sim,
    pub key: GroupKey,
    pub network: NetworkId,
    pub size: u32,
    pub members: BTreeMap<usize, (Network, Group<Counter>)>,
}

impl Lab {
    pub fn new(sim: &Sim, size: u32) -> Self {
        let (key, network) = (GroupKey::from_secret("test"), NetworkId::from("groups"));
        Self { sim: sim.clone(), key, network, size, members: BTreeMap::new() }
    }

    /// With so many members started.
    pub async fn with(sim: &Sim, size: u32, count: usize) -> Self {
        let mut lab = Self::new(sim, size);
        for n in 0..count {
            lab.start(n).await;
        }
        lab
    }

    pub fn node(&self, n: usize) -> SimNode {
        self.sim.node(&format!("n{n}"))
    }

    pub async fn start(&mut self, n: usize) {
        self.start_as(n, |builder| builder).await;
    }

    pub async fn start_as(&mut self, n: usize, configure: impl FnOnce(GroupBuilder<Counter>) -> GroupBuilder<Counter>) {
        let network = self.node(n).restart(self.network).build().await.unwrap();
        let builder = network.groups().with_key(self.key.clone()).with_state_machine(Counter::default());
        let group = configure(builder.with_size(self.size)).join().await.unwrap();
        self.members.insert(n, (network, group));
    }

    pub fn crash(&mut self, n: usize) {
        self.node(n).crash();
        self.members.remove(&n);
    }

    pub async fn shut_down(&mut self, n: usize) {
        if let Some((network, _)) = self.members.remove(&n) {
            let tasks = network.task_probe();
            network.shutdown().await;
            assert_eq!(tasks.names(), Vec::<&str>::new(), "tasks left after a shutdown");
        }
    }

    pub fn group(&self, n: usize) -> &Group<Counter> {
        &self.members[&n].1
    }

    pub fn leader(&self) -> Option<usize> {
        self.members.iter().find(|(_, (_, group))| group.is_leader()).map(|(n, _)| *n)
    }

    /// Waits until one member leads and all members follow it.
    pub async fn elected(&self) -> usize {
        let all = || self.members.values().map(|(_, group)| group);
        eventually("a leader that all follow", || {
            let leader = self.leader()?;
            let id = Some(self.members[&leader].0.local().id());
            all().all(|group| group.leader() == id && group.status().is_online()).then_some(leader)
        })
        .await
    }

    pub async fn add(&self, n: usize, by: i64) -> i64 {
        self.group(n).execute(Increment(by), Consistency::Strong).await.unwrap()
    }

    pub async fn sum(&self, n: usize) -> i64 {
        *self.group(n).query((), Consistency::Strong).await.unwrap()
    }

    /// Waits until all members have the sum.
    pub async fn all_have(&self, sum: i64) {
        for (_, group) in self.members.values() {
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
            assert!(in_time, "{:?} has {last} instead of {sum}: {}", group, group.status());
        }
    }
}

/// Waits until something is there; panics after [`LIMIT`].
pub async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub async fn within<F: Future>(limit: Duration, what: &str, future: F) -> F::Output {
    let Ok(output) = timeout(limit, future).await else { panic!("not within {limit:?}: {what}") };
    output
}
