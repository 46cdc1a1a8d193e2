//! Random scenarios on the whole stack: every seed draws its own group, its own faults and its own load, and what the
//! clients saw is judged at the end.
//!
//! `GROUPS_SEED=n` runs one seed, `GROUPS_FROM=n` begins at another one than 1, `GROUPS_SEEDS=n` runs so many,
//! `GROUPS_SECONDS=n` as many as fit. All cores run seeds, each in a runtime and a virtual time of its own. Half an hour:
//!
//! ```text
//! GROUPS_SECONDS=1800 cargo test --release -p mosaik-tests --test groups swarm::swarm -- --nocapture
//! ```

use std::{
    env,
    rc::Rc,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use futures::future::{join, join_all};
use mosaik::{prelude::*, testing::Sim};
use tokio::time::sleep;

use crate::{
    faults::Faults,
    lab::{LIMIT, Lab, until},
    random::Rng,
    registers::{Ask, Judged, Next, Registers, Shared, Told, client, first_write},
};

/// Seeds with every test run.
const USUAL: u64 = 40;
/// After a majority is back.
const BACK: Duration = Duration::from_secs(3);

/// What came of a seed.
struct Run {
    judged: Judged,
    /// From the end of all faults to the first write.
    recovery: Duration,
}

/// The group of a seed.
fn draw(sim: &Sim, rng: &mut Rng) -> (Lab<Registers>, usize) {
    let nodes = if rng.below(4) == 0 { 5 } else { 3 };
    let volatile = rng.below(5) == 0;
    let size = if rng.below(4) == 0 { 0 } else { u32::try_from(nodes).unwrap() };
    let mut lab = if volatile { Lab::new(sim, size) } else { Lab::durable(sim, size) };
    if rng.below(3) == 0 {
        lab.timing = Timing::lan();
    }
    lab.known = nodes;
    (lab, nodes)
}

async fn scenario(sim: Sim) -> Run {
    let mut rng = Rng(sim.seed());
    let (lab, nodes) = draw(&sim, &mut rng);
    let shared = Rc::new(Shared::default());
    let clients = (0..=nodes).map(|_| client(sim.clone(), shared.clone(), Rng(rng.next()), nodes));
    let clients: Vec<_> = clients.collect();
    let mut faults = Faults::new(lab, shared.clone(), rng, nodes);
    let story = async {
        faults.begin().await;
        faults.trouble(Duration::from_secs(25)).await;
        faults.mend(true).await;
        let recovery = first_write(&shared).await;
        faults.lab.elected().await;
        faults.nobody_was_taken_for_a_copy().await;
        sleep(Duration::from_secs(10)).await;
        *shared.done.borrow_mut() = true;
        (faults, recovery)
    };
    let ((mut faults, recovery), _) = join(story, join_all(clients)).await;
    let judged = shared.judge(faults.lab.group(0)).await;
    shared.groups.borrow_mut().clear();
    if faults.lab.disks.is_some() && faults.rng.below(2) == 0 {
        shared.unjam(faults.lab.group(0)).await;
        Box::pin(next_version(faults)).await;
    } else {
        faults.lab.end().await;
    }
    Run { judged, recovery }
}

/// Seals the group while members fail, and goes on with the next version of the machine. One member may have missed it all.
async fn next_version(mut faults: Faults) {
    let nodes = faults.nodes;
    let missing = (faults.rng.below(2) == 0).then(|| faults.rng.node(nodes));
    missing.into_iter().for_each(|n| faults.lab.crash(n));
    let there: Vec<usize> = (0..nodes).filter(|n| Some(*n) != missing).collect();
    faults.lab.elected().await;
    let asked = there[faults.rng.node(there.len())];
    let sealing = faults.lab.group(asked).clone().with_timeout(LIMIT);
    let crashed = there[faults.rng.node(there.len())];
    let pause = faults.rng.millis(0, 60);
    let (sealed, ()) = join(async { sealing.seal().await }, async {
        sleep(pause).await;
        // With one that is missing, a majority must stay for the seal to come.
        if missing.is_none() {
            faults.lab.crash(crashed);
            sleep(pause).await;
            faults.lab.start(crashed).await;
        }
    })
    .await;
    let again = faults.lab.group(there[0]).with_timeout(LIMIT).seal().await.unwrap();
    assert!(sealed.is_err() || sealed.is_ok_and(|index| index == again), "one index");
    for n in &there {
        until("sealed", || faults.lab.group(*n).status().machine().sealed() == Some(again)).await;
    }
    let told = faults.lab.group(there[0]).query(Ask::All, Consistency::Strong).await.unwrap().into_inner();
    for n in there.clone() {
        faults.lab.shut_down(n).await;
    }
    let Lab { sim, size, timing, known, disks, .. } = faults.lab;
    let mut lab = Lab::<Next> { timing, known, disks, ..Lab::durable(&sim, size) };
    for n in there {
        lab.start(n).await;
    }
    lab.elected().await;
    if let Some(n) = missing {
        lab.disks.as_mut().unwrap().remove(&n);
        lab.start(n).await;
        lab.elected().await;
    }
    for n in 0..nodes {
        let (migrated, registers) = lab.group(n).query((), Consistency::Strong).await.unwrap().into_inner();
        assert!(migrated && Told::All(registers) == told, "n{n} has taken something else over");
    }
    for n in 0..nodes {
        let count = lab.group(n).execute((), Consistency::Strong).await.unwrap();
        assert_eq!(count, n as u64 + 1);
    }
    lab.end().await;
}

pub fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().unwrap())
}

/// Tells the other threads when one ends with a panic.
struct Alarm<'a>(&'a AtomicBool);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        self.0.fetch_or(thread::panicking(), Ordering::Relaxed);
    }
}

#[test]
fn swarm() {
    let count = number("GROUPS_SEEDS").unwrap_or(USUAL);
    let (first, count) = number("GROUPS_SEED").map_or((number("GROUPS_FROM").unwrap_or(1), count), |seed| (seed, 1));
    let seconds = number("GROUPS_SECONDS").map(Duration::from_secs);
    let (began, next, failed) = (Instant::now(), AtomicU64::new(first), AtomicBool::new(false));
    let runs = Mutex::new(Vec::new());
    let work = || {
        let _alarm = Alarm(&failed);
        while !failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seconds.map_or(seed >= first + count, |limit| began.elapsed() >= limit) {
                break;
            }
            let run = Sim::run(seed, scenario);
            runs.lock().unwrap_or_else(PoisonError::into_inner).push((seed, run));
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        (0..cores).for_each(|_| _ = thread::Builder::new().spawn_scoped(scope, work).unwrap());
    });
    report(&runs.into_inner().unwrap_or_else(PoisonError::into_inner), began.elapsed());
}

fn report(runs: &[(u64, Run)], took: Duration) {
    let mut all = Judged::default();
    runs.iter().for_each(|(_, run)| all.add(run.judged));
    let mut recoveries: Vec<_> = runs.iter().map(|(seed, run)| (run.recovery, *seed)).collect();
    recoveries.sort_unstable();
    let Judged { acknowledged, unknown, reads, failed_reads, histories, too_large } = all;
    println!("{} seeds, {acknowledged} acknowledged commands, {unknown} of unknown outcome, {took:.1?}", runs.len());
    println!("  {reads} strong reads, {failed_reads} of which failed");
    assert!(failed_reads * 3 <= reads, "{failed_reads} of {reads} strong reads failed");
    println!("  {histories} histories linearizable but for {too_large} that are too large to judge");
    if let (Some((median, _)), Some((longest, seed))) = (recoveries.get(runs.len() / 2), recoveries.last()) {
        println!("  service back after all faults: median {median:.0?}, longest {longest:.0?} (seed {seed})");
        assert!(*longest <= BACK, "seed {seed}: {longest:?} until the first write after all faults were over");
    }
    assert!(too_large * 20 <= histories, "{too_large} of {histories} histories are too large to judge");
}

#[test]
fn a_seed_runs_twice_alike() {
    let trace = || {
        Sim::run(3, async |sim| {
            scenario(sim.clone()).await;
            sim.trace()
        })
    };
    assert_eq!(trace(), trace());
}
