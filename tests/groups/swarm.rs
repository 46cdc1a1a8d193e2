//! Random scenarios on the whole stack: every seed draws its own faults, clients write and read registers at all members,
//! and what they saw must be linearizable. `GROUPS_SEED=n` runs one seed, `GROUPS_SEEDS=n` so many,
//! `GROUPS_SECONDS=n` as many as fit.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    env,
    rc::Rc,
    time::Duration,
};

use futures::future::{join, join_all};
use mosaik::{
    groups::{ApplyContext, Group, MemberInfo, MemberKind, Outcome, Snapshots, StateMachine},
    prelude::*,
    testing::Sim,
};
use tokio::time::{Instant, sleep};

use crate::{
    lab::{Lab, until},
    linear::{self, Action, Event},
};

const KEYS: u64 = 3;
/// Seeds with every test run.
const USUAL: u64 = 40;

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }

    fn node(&mut self, count: usize) -> usize {
        usize::try_from(self.below(count as u64)).unwrap()
    }
}

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Registers(BTreeMap<u64, u64>);

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Change {
    Write { key: u64, value: u64 },
    Cas { key: u64, expect: u64, value: u64 },
}

impl StateMachine for Registers {
    type Command = Change;
    /// The value before.
    type Output = u64;
    type Query = u64;
    type QueryResult = u64;
    const NAME: &'static str = "registers";

    fn apply(&mut self, change: Change, _: &ApplyContext) -> u64 {
        let (Change::Write { key, .. } | Change::Cas { key, .. }) = change;
        let slot = self.0.entry(key).or_default();
        let was = *slot;
        match change {
            Change::Write { value, .. } => *slot = value,
            Change::Cas { expect, value, .. } if was == expect => *slot = value,
            Change::Cas { .. } => {}
        }
        was
    }

    fn query(&self, key: u64) -> u64 {
        self.0.get(&key).copied().unwrap_or_default()
    }

    fn snapshots() -> Snapshots<Self> {
        Snapshots::serde()
    }
}

/// What clients and faults share.
#[derive(Default)]
struct Shared {
    groups: RefCell<BTreeMap<usize, Group<Registers>>>,
    history: RefCell<BTreeMap<u64, Vec<Event>>>,
    done: RefCell<bool>,
    acknowledged: RefCell<u64>,
    values: RefCell<u64>,
}

async fn client(sim: Sim, shared: Rc<Shared>, mut rng: Rng, nodes: usize) {
    while !*shared.done.borrow() {
        sleep(rng.millis(1, 400)).await;
        let group = shared.groups.borrow().get(&rng.node(nodes)).cloned();
        let Some(group) = group else { continue };
        let group = group.with_timeout(rng.millis(200, 8000));
        let key = rng.below(KEYS);
        let micros = |sim: &Sim| u64::try_from(sim.elapsed().as_micros()).unwrap();
        let start = micros(&sim);
        let (end, action) = if rng.below(100) < 35 {
            let Ok(saw) = group.query(key, Consistency::Strong).await else { continue };
            (Some(micros(&sim)), Action::Read { saw: *saw })
        } else {
            *shared.values.borrow_mut() += 1;
            let value = *shared.values.borrow();
            let expect = value.saturating_sub(1 + rng.below(5));
            let cas = rng.below(100) < 25;
            let change = if cas { Change::Cas { key, expect, value } } else { Change::Write { key, value } };
            let consistency = if rng.below(2) == 0 { Consistency::Strong } else { Consistency::Weak };
            let result = group.execute(change, consistency).await;
            let was = match &result {
                Ok(was) => Some(*was),
                Err(error) if error.outcome() == Outcome::None => continue,
                Err(_) => None,
            };
            *shared.acknowledged.borrow_mut() += u64::from(was.is_some());
            let action = if cas { Action::Cas { expect, value, was } } else { Action::Write { value, was } };
            (was.map(|_| micros(&sim)), action)
        };
        shared.history.borrow_mut().entry(key).or_default().push(Event { start, end, action });
    }
}

struct Faults {
    lab: Lab<Registers>,
    shared: Rc<Shared>,
    rng: Rng,
    nodes: usize,
    paused: BTreeSet<usize>,
    log_limit: u64,
}

impl Faults {
    async fn start(&mut self, n: usize) {
        let limit = self.log_limit;
        self.lab.start_as(n, |builder| builder.with_log_limit(limit)).await;
        self.shared.groups.borrow_mut().insert(n, self.lab.group(n).clone());
    }

    fn stop(&mut self, n: usize) {
        self.shared.groups.borrow_mut().remove(&n);
        self.paused.remove(&n);
        self.lab.node(n).resume();
    }

    fn crash(&mut self, n: usize) {
        self.stop(n);
        self.lab.crash(n);
    }

    async fn fault(&mut self) {
        let (n, other) = (self.rng.node(self.nodes), self.rng.node(self.nodes));
        match self.rng.below(10) {
            0..=2 => self.crash(n),
            3 => {
                self.stop(n);
                self.lab.shut_down(n).await;
            }
            4 if self.lab.members.contains_key(&n) => {
                self.paused.insert(n);
                self.lab.node(n).pause();
            }
            5 | 6 => {
                let side = self.rng.next();
                let (one, rest): (Vec<_>, Vec<_>) = (0..self.nodes).partition(|n| side >> n & 1 == 1);
                self.lab.sim.partition(&self.lab.nodes(one), &self.lab.nodes(rest));
            }
            7 if n != other => self.lab.sim.cut(&self.lab.node(n), &self.lab.node(other)),
            8 => (0..self.nodes).for_each(|n| self.crash(n)),
            _ => self.mend(false).await,
        }
    }

    /// Takes back some of the faults, or all.
    async fn mend(&mut self, all: bool) {
        if all || self.rng.below(2) == 0 {
            self.lab.sim.heal();
        }
        for n in std::mem::take(&mut self.paused) {
            self.lab.node(n).resume();
        }
        for n in 0..self.nodes {
            if !self.lab.members.contains_key(&n) && (all || self.rng.below(3) > 0) {
                self.start(n).await;
            }
        }
    }

    /// One volatile member at a time loses its memory.
    async fn roll(&mut self) {
        let n = self.rng.node(self.nodes);
        if self.rng.below(2) == 0 {
            self.crash(n);
        } else {
            self.stop(n);
            self.lab.shut_down(n).await;
        }
        sleep(self.rng.millis(10, 3000)).await;
        self.start(n).await;
        self.lab.elected().await;
        sleep(Duration::from_secs(10)).await;
    }
}

async fn scenario(sim: Sim) -> u64 {
    let mut rng = Rng(sim.seed());
    let nodes = if rng.below(4) == 0 { 5 } else { 3 };
    let volatile = rng.below(5) == 0;
    let size = if rng.below(4) == 0 { 0 } else { u32::try_from(nodes).unwrap() };
    let mut lab = if volatile { Lab::new(&sim, size) } else { Lab::durable(&sim, size) };
    if rng.below(3) == 0 {
        lab.timing = Timing::lan();
    }
    let shared = Rc::new(Shared::default());
    let clients = (0..=nodes).map(|_| client(sim.clone(), shared.clone(), Rng(rng.next()), nodes));
    let clients: Vec<_> = clients.collect();
    let log_limit = if rng.below(2) == 0 { 8 << 10 } else { 16 << 20 };
    let mut faults = Faults { lab, shared: shared.clone(), rng, nodes, paused: BTreeSet::new(), log_limit };
    let story = async {
        for n in 0..nodes {
            faults.start(n).await;
            // An undeclared group begins with one: two that begin apart from each other are another story.
            if size == 0 {
                faults.lab.elected().await;
            }
        }
        // Two voters stop when one is lost; the others are to have been promoted.
        let voter = |member: &MemberInfo| member.kind() == MemberKind::Voter;
        until("all vote", || faults.lab.group(0).members().iter().filter(|it| voter(it)).count() == nodes).await;
        if volatile {
            for _ in 0..3 {
                faults.roll().await;
            }
        } else {
            let end = Instant::now() + Duration::from_secs(25);
            while Instant::now() < end {
                sleep(faults.rng.millis(50, 3000)).await;
                faults.fault().await;
            }
        }
        faults.mend(true).await;
        faults.lab.elected().await;
        let last = faults.lab.group(0).execute(Change::Cas { key: 0, expect: u64::MAX, value: 0 }, Consistency::Strong);
        last.await.unwrap();
        sleep(Duration::from_secs(10)).await;
        *shared.done.borrow_mut() = true;
        faults
    };
    let (faults, _) = join(story, join_all(clients)).await;
    faults.shared.groups.borrow_mut().clear();
    faults.lab.end().await;
    for (key, history) in shared.history.borrow().iter() {
        // `Err` is a history that is too large to judge.
        assert_ne!(linear::check(history), Ok(false), "register {key} is not linearizable: {history:#?}");
    }
    *shared.acknowledged.borrow()
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().unwrap())
}

#[test]
fn swarm() {
    let count = number("GROUPS_SEEDS").unwrap_or(USUAL);
    let (first, count) = number("GROUPS_SEED").map_or((number("GROUPS_FROM").unwrap_or(1), count), |seed| (seed, 1));
    let seconds = number("GROUPS_SECONDS").map(Duration::from_secs);
    let began = std::time::Instant::now();
    let (mut seed, mut acknowledged) = (first, 0);
    while seconds.map_or(seed < first + count, |limit| began.elapsed() < limit) {
        acknowledged += Sim::run(seed, scenario);
        seed += 1;
    }
    println!("{} seeds, {acknowledged} acknowledged commands, {:?}", seed - first, began.elapsed());
}
