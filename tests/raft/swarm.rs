//! Random seeds: every seed draws its own world and must end without a violation.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use mosaik::groups::raft::Mutant;

use crate::sim::World;

/// Seeds that once found a bug; replayed first.
const PAST: &[u64] = &[
    11, 33, 1169, 1249, 1552, 1723, 24_778, 124_984, 161_284, 180_447, 192_076, 199_265, 217_383, 223_182, 277_257,
    284_239, 287_886, 1_002_187, 1_004_112, 1_004_507, 1_005_423, 3_007_029, 3_017_029,
];

#[derive(Default)]
pub struct Tally {
    pub seeds: u64,
    pub live: u64,
    pub seconds: f64,
    pub steps: u64,
    pub committed: u64,
    pub writes: u64,
    pub reads: u64,
    pub unjudged: u64,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.live += other.live;
        self.seconds += other.seconds;
        self.steps += other.steps;
        self.committed += other.committed;
        self.writes += other.writes;
        self.reads += other.reads;
        self.unjudged += other.unjudged;
    }
}

pub fn one(seed: u64, mutant: Option<Mutant>, tally: &mut Tally) {
    let mut world = World::swarm(seed, mutant);
    let live = world.run();
    tally.seeds += 1;
    tally.live += u64::from(live);
    tally.seconds += world.ends as f64 / 1e6;
    tally.steps += world.steps;
    tally.committed += world.checks.committed;
    tally.writes += world.clients.writes;
    tally.reads += world.clients.reads;
    tally.unjudged += world.clients.unjudged;
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn swarm() {
    if let Some(seed) = number("RAFT_SEED") {
        let mut world = World::swarm(seed, None);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.run())) {
            world.dump();
            std::panic::resume_unwind(panic);
        }
        return;
    }
    let budget = Duration::from_secs(number("RAFT_SECONDS").unwrap_or(10));
    let from = number("RAFT_FROM").unwrap_or(1);
    let last = number("RAFT_SEEDS").map_or(u64::MAX, |seeds| seeds + PAST.len() as u64);
    let threads =
        number("RAFT_THREADS").unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |it| it.get() as u64));
    let began = Instant::now();
    let next = AtomicU64::new(0);
    let shared = Mutex::new((Tally::default(), Vec::new()));
    let work = || {
        let mut tally = Tally::default();
        while began.elapsed() < budget && shared.lock().unwrap_or_else(PoisonError::into_inner).1.len() < 10 {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= last {
                break;
            }
            let seed = PAST.get(at as usize).copied().unwrap_or_else(|| from + at - PAST.len() as u64);
            if catch_unwind(AssertUnwindSafe(|| one(seed, None, &mut tally))).is_err() {
                eprintln!("^ seed {seed}");
                shared.lock().unwrap_or_else(PoisonError::into_inner).1.push(seed);
            }
        }
        shared.lock().unwrap_or_else(PoisonError::into_inner).0.add(&tally);
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let (tally, failed) = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
    eprintln!(
        "{} seeds ({} with liveness demanded), {:.1} simulated hours, {} steps, {} entries committed, {} writes and {} \
         strong reads judged, {} histories too large to judge; failed: {failed:?}",
        tally.seeds,
        tally.live,
        tally.seconds / 3600.0,
        tally.steps,
        tally.committed,
        tally.writes,
        tally.reads,
        tally.unjudged
    );
    assert!(failed.is_empty());
}

/// Random search for the planted bugs: the first seed that finds each, in `RAFT_SECONDS` for all of them together.
#[test]
#[ignore = "minutes; prints the table of docs/src/groups/consensus.md"]
fn random_kills() {
    std::panic::set_hook(Box::new(|_| {}));
    let kills = crate::schedules::KILLS;
    let each = Duration::from_secs(number("RAFT_SECONDS").unwrap_or(600)) / kills.len() as u32;
    for (mutant, _) in kills {
        let (began, mut seed) = (Instant::now(), 0);
        let found = loop {
            seed += 1;
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| one(seed, Some(*mutant), &mut Tally::default()))) {
                let text = panic.downcast_ref::<String>().cloned();
                break text.or_else(|| panic.downcast_ref::<&str>().map(|it| (*it).to_owned()));
            }
            if began.elapsed() > each {
                break None;
            }
        };
        match found {
            Some(text) => eprintln!("{mutant:?}: seed {seed}: {:.140}", text.replace('\n', " ")),
            None => eprintln!("{mutant:?}: not in {seed} seeds"),
        }
    }
}
