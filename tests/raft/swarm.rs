//! Random seeds: every seed draws its own world and must end without a violation.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use mosaik::groups::raft::Mutant;

use crate::sim::World;

/// Seeds that once found a bug; replayed first.
const PAST: &[u64] = &[];

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
    let mut tally = Tally::default();
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
    let began = Instant::now();
    let mut failed = Vec::new();
    for seed in PAST.iter().copied().chain(from..) {
        if began.elapsed() > budget || failed.len() >= 10 {
            break;
        }
        if catch_unwind(AssertUnwindSafe(|| one(seed, None, &mut tally))).is_err() {
            eprintln!("^ seed {seed}");
            failed.push(seed);
        }
    }
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

/// Random search for the planted bugs: which seed finds each, of the first `RAFT_MUTANT_SEEDS`.
#[test]
#[ignore = "minutes; prints the table of docs/src/groups/consensus.md"]
fn random_kills() {
    std::panic::set_hook(Box::new(|_| {}));
    let seeds = number("RAFT_MUTANT_SEEDS").unwrap_or(300);
    for (mutant, _) in crate::schedules::KILLS {
        let kill = (1..=seeds).find_map(|seed| {
            let panic = catch_unwind(AssertUnwindSafe(|| one(seed, Some(*mutant), &mut Tally::default()))).err()?;
            let text = panic.downcast_ref::<String>().cloned();
            Some((seed, text.or_else(|| panic.downcast_ref::<&str>().map(|it| (*it).to_owned())).unwrap_or_default()))
        });
        match kill {
            Some((seed, text)) => eprintln!("{mutant:?}: seed {seed}: {}", text.replace('\n', " ")),
            None => eprintln!("{mutant:?}: not found in {seeds} seeds"),
        }
    }
}
