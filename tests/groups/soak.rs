//! What must not grow: memory and tasks, over a day of virtual time under faults and over twenty minutes of load.
//!
//! Each by one command, alone in its process; `GROUPS_HOURS` and `GROUPS_MINUTES` set other lengths:
//!
//! ```text
//! cargo test -p mosaik-tests --test groups a_day_of_faults -- --ignored --nocapture
//! cargo test -p mosaik-tests --test groups twenty_minutes_of_load -- --ignored --nocapture
//! ```

use std::{rc::Rc, time::Duration};

use futures::future::{join, join_all};
use mosaik::{
    groups::{Group, Outcome},
    prelude::*,
    testing::Sim,
};
use tokio::time::{Instant, sleep};

use crate::{
    faults::Faults,
    lab::{Counter, Increment, Lab, until},
    random::Rng,
    registers::{Change, Judged, Shared, client},
    swarm::number,
};

/// Memory may be so much more, in KiB, and by a quarter, than at the end of the warm-up.
const SLACK: u64 = 8 << 10;
/// So many more tasks may be there than in the warm-up, of all nodes: dials and exchanges that are under way.
const MORE_TASKS: usize = 6;

/// No log may have more entries: members compact theirs at 8 KiB, and keep some for those who are behind.
const MOST_ENTRIES: usize = 5_000;

/// Resident memory of this process in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// What there is at a quiet moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// KiB.
    memory: u64,
    tasks: usize,
    /// Of the longest log; 0 where that cannot be seen.
    entries: usize,
}

/// The first quarter is warm-up; the last one must not have more.
fn assert_flat(samples: &[Sample]) {
    let quarter = samples.len() / 4;
    assert!(quarter > 0, "too short: {} samples", samples.len());
    let most = |of: &[Sample]| Sample {
        memory: of.iter().map(|it| it.memory).max().unwrap(),
        tasks: of.iter().map(|it| it.tasks).max().unwrap(),
        entries: of.iter().map(|it| it.entries).max().unwrap(),
    };
    let quarters: Vec<_> = samples.chunks(quarter).take(4).map(most).collect();
    println!("  most in each quarter: {quarters:?}");
    let (warm, end) = (quarters[0], quarters[3]);
    assert!(end.tasks <= warm.tasks + MORE_TASKS, "tasks grow: {quarters:?}");
    assert!(end.entries <= MOST_ENTRIES, "logs grow: {quarters:?}");
    assert!(end.memory <= warm.memory * 5 / 4 + SLACK, "memory grows: {quarters:?}");
}

#[tokio::test]
async fn a_node_that_has_ended_is_freed() {
    for graceful in [true, false] {
        let id = NetworkId::random();
        let network = Network::new(id).await.unwrap();
        let other = Network::new(id).await.unwrap();
        let group = network.groups().with_key(GroupKey::random()).with_state_machine(Counter::default());
        let group = group.join().await.unwrap();
        group.when().is_leader().await;
        until("they meet", || network.discovery().catalog().contains(other.local().id())).await;
        let probe = network.task_probe();
        drop(group);
        if graceful {
            network.shutdown().await;
        }
        drop(network);
        until("nothing holds it", || probe.is_freed()).await;
        other.shutdown().await;
    }
}

#[test]
#[ignore = "takes many minutes, and looks at the memory of the whole process"]
fn a_day_of_faults() {
    let hours = number("GROUPS_HOURS").unwrap_or(24);
    let began = std::time::Instant::now();
    let (samples, judged) = Sim::run(1, async |sim| day(&sim, Duration::from_hours(hours)).await);
    println!("{hours} h of virtual time, {} rounds, {judged:?}, {:.0?}", samples.len(), began.elapsed());
    assert_flat(&samples);
}

/// Rounds of a minute of faults and a minute of peace.
async fn day(sim: &Sim, time: Duration) -> (Vec<Sample>, Judged) {
    let (nodes, mut rng) = (3, Rng(sim.seed()));
    let mut lab = Lab::durable(sim, 3);
    lab.known = nodes;
    let shared = Rc::new(Shared::default());
    let mut faults = Faults::new(lab, shared.clone(), Rng(rng.next()), nodes);
    faults.log_limit = 8 << 10;
    faults.begin().await;
    let (mut samples, mut judged) = (Vec::new(), Judged::default());
    while sim.elapsed() < time {
        *shared.done.borrow_mut() = false;
        *shared.round.borrow_mut() += 1;
        let clients: Vec<_> = (0..nodes).map(|_| client(sim.clone(), shared.clone(), Rng(rng.next()), nodes)).collect();
        let story = async {
            faults.trouble(Duration::from_mins(1)).await;
            faults.mend(true).await;
            faults.lab.elected().await;
            *shared.done.borrow_mut() = true;
        };
        join(story, join_all(clients)).await;
        let group = faults.lab.group(0);
        judged.add(shared.judge(group).await);
        group.execute(Change::Clear, Consistency::Strong).await.unwrap();
        sleep(Duration::from_mins(1)).await;
        let tasks = (0..nodes).map(|n| faults.lab.node(n).task_probe().count()).sum();
        let disks = faults.lab.disks.as_ref().unwrap().values();
        let entries = disks.map(|disk| disk.durable().entries.len()).max().unwrap();
        samples.push(Sample { memory: resident(), tasks, entries });
        if samples.len() % 60 == 0 {
            println!("  {:.1} h: {:?}", sim.elapsed().as_secs_f64() / 3600.0, samples.last());
        }
    }
    shared.groups.borrow_mut().clear();
    faults.lab.end().await;
    (samples, judged)
}

#[test]
#[ignore = "takes twenty minutes, and looks at the memory of the whole process"]
fn twenty_minutes_of_load() {
    let time = Duration::from_mins(number("GROUPS_MINUTES").unwrap_or(20));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (samples, done) = runtime.block_on(load(time));
    println!("{time:?} of load, {} commands acknowledged, {} of unknown outcome", done[0], done[1]);
    assert_flat(&samples);
}

/// Three members on disk and over real connections, each with callers that never stop. Their logs are cut often: until the
/// first time, memory grows as it should.
async fn load(time: Duration) -> (Vec<Sample>, [i64; 2]) {
    const CALLERS: i64 = 32;
    let dir = tempfile::tempdir().unwrap();
    let (id, key) = (NetworkId::random(), GroupKey::random());
    let mut members: Vec<(Network, Group<Counter>)> = Vec::new();
    for n in 0..3 {
        let network = Network::builder(id)
            .with_listen("127.0.0.1:0".parse().unwrap())
            .with_data_dir(dir.path().join(n.to_string()));
        let network = network.build().await.unwrap();
        let group = network.groups().with_key(key.clone()).with_state_machine(Counter::default()).with_size(3);
        members.push((network, group.with_log_limit(1 << 20).join().await.unwrap()));
    }
    let end = Instant::now() + time;
    let callers = members.iter().flat_map(|(_, group)| (0..CALLERS).map(move |_| calls(group, end)));
    let (samples, done) = join(sample(&members, end), join_all(callers)).await;
    let done = done.into_iter().fold([0, 0], |[all, unknown], it| [all + it[0], unknown + it[1]]);
    let sum = *members[0].1.query((), Consistency::Strong).await.unwrap();
    assert!((done[0]..=done[0] + done[1]).contains(&sum), "every command counts once: {sum}, {done:?}");
    for (network, _) in members {
        let tasks = network.task_probe();
        network.shutdown().await;
        assert_eq!(tasks.names(), Vec::<&str>::new(), "tasks left after a shutdown");
    }
    (samples, done)
}

/// How many commands were acknowledged, and of how many nobody knows: on a busy machine leaders change.
async fn calls(group: &Group<Counter>, end: Instant) -> [i64; 2] {
    let [mut done, mut unknown] = [0, 0];
    while Instant::now() < end {
        match group.execute(Increment(1), Consistency::Weak).await {
            Ok(_) => done += 1,
            Err(error) if error.outcome() == Outcome::None => {}
            Err(_) => unknown += 1,
        }
        sleep(Duration::from_millis(20)).await;
    }
    [done, unknown]
}

async fn sample(members: &[(Network, Group<Counter>)], end: Instant) -> Vec<Sample> {
    let mut samples = Vec::new();
    while Instant::now() < end {
        sleep(Duration::from_secs(5)).await;
        let tasks = members.iter().map(|(network, _)| network.task_probe().count()).sum();
        samples.push(Sample { memory: resident(), tasks, entries: 0 });
        if samples.len() % 24 == 0 {
            println!("  {:?}", samples.last());
        }
    }
    samples
}
