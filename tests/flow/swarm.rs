//! Random seeds: every seed draws its own world and must end without a violation.
//!
//! `FLOW_SEEDS` (default 500; 0: no limit) and `FLOW_SECONDS` bound a run, `FLOW_FROM` is its first seed, and `FLOW_SEED`
//! runs a single one.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::{
    schedules::KILLS,
    streams::{
        core::{
            lag::Limit,
            mutants::Mutant,
            retain::{Keep, Retention},
        },
        limits::OnLag,
    },
    world::{Filters, Plan, World},
};

#[derive(Default)]
struct Tally {
    seeds: u64,
    steps: u64,
    delivered: u64,
    replayed: u64,
    missed: u64,
    filtered: u64,
    gaps: BTreeMap<&'static str, u64>,
}

fn plan(seed: u64, mutant: Option<Mutant>) -> Plan {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x5EED);
    let pick = |rng: &mut SmallRng, of: &[u64]| of[rng.random_range(0..of.len())];
    let policy = match rng.random_range(0..4) {
        0 => OnLag::Disconnect,
        1 => OnLag::Block(Duration::from_millis(pick(&mut rng, &[0, 100, 1000]))),
        2 => OnLag::DropOldest,
        _ => OnLag::Conflate,
    };
    let limit = Limit { items: pick(&mut rng, &[1, 2, 7, 64, 1000]), bytes: pick(&mut rng, &[1, 500, 5000, 1 << 20]) };
    let ring = Limit { items: pick(&mut rng, &[0, 1, 10, 100, 10_000]), bytes: pick(&mut rng, &[0, 1000, 1 << 20]) };
    let keep = [Keep::Newest, Keep::PerKey(1), Keep::PerKey(3), Keep::KeyFrame][rng.random_range(0..4)];
    let kept = Limit { items: pick(&mut rng, &[1, 10, 100, 10_000]), bytes: pick(&mut rng, &[1, 2000, 1 << 20]) };
    let max_age = (rng.random_range(0..4) == 0).then(|| Duration::from_millis(rng.random_range(1..2000)));
    let retention = (rng.random_range(0..4) > 0).then_some(Retention { keep, limit: kept, max_age });
    Plan {
        policy,
        limit,
        ring,
        retention,
        lifespan: (rng.random_range(0..3) == 0).then(|| Duration::from_millis(rng.random_range(1..500))),
        subscribers: rng.random_range(1..9),
        keys: rng.random_range(1..20),
        window: usize::try_from(pick(&mut rng, &[100, 3000, 1 << 20])).unwrap(),
        large: u32::try_from(pick(&mut rng, &[0, 0, 5])).unwrap(),
        filters: if rng.random() { Filters::Mixed } else { Filters::None },
        mutant,
    }
}

fn one(seed: u64, mutant: Option<Mutant>, tally: &mut Tally) {
    let mut world = World::new(plan(seed, mutant), seed);
    let rests = world.rng.random_range(1..4);
    for _ in 0..rests {
        for _ in 0..world.rng.random_range(50..1500) {
            world.step();
        }
        world.rest();
    }
    tally.seeds += 1;
    tally.steps += world.steps;
    for which in 0..world.plan.subscribers {
        let ledger = world.ledger(which);
        tally.delivered += ledger.delivered;
        tally.replayed += ledger.replays;
        tally.missed += ledger.missed;
        tally.filtered += ledger.filtered;
        ledger.gaps.iter().for_each(|(reason, gaps)| *tally.gaps.entry(reason).or_default() += gaps);
    }
}

pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn swarm() {
    if let Some(seed) = number("FLOW_SEED") {
        eprintln!("{:#?}", plan(seed, None));
        return one(seed, None, &mut Tally::default());
    }
    let seeds = number("FLOW_SEEDS").unwrap_or(500);
    let budget = number("FLOW_SECONDS").map_or(Duration::MAX, Duration::from_secs);
    let from = number("FLOW_FROM").unwrap_or(1);
    let last = if seeds == 0 { u64::MAX } else { from + seeds };
    let began = Instant::now();
    let next = AtomicU64::new(from);
    let shared = Mutex::new((Tally::default(), Vec::new()));
    let work = || {
        while began.elapsed() < budget {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= last || shared.lock().unwrap_or_else(PoisonError::into_inner).1.len() >= 10 {
                break;
            }
            let mut tally = Tally::default();
            let sound = catch_unwind(AssertUnwindSafe(|| one(seed, None, &mut tally))).is_ok();
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            if !sound {
                eprintln!("^ seed {seed}");
                shared.1.push(seed);
            }
            shared.0.seeds += tally.seeds;
            shared.0.steps += tally.steps;
            shared.0.delivered += tally.delivered;
            shared.0.replayed += tally.replayed;
            shared.0.missed += tally.missed;
            shared.0.filtered += tally.filtered;
            tally.gaps.iter().for_each(|(reason, gaps)| *shared.0.gaps.entry(reason).or_default() += gaps);
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        (1..threads).for_each(|_| _ = scope.spawn(work));
        work();
    });
    let (tally, failed) = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
    let Tally { seeds, steps, delivered, replayed, missed, filtered, gaps } = tally;
    eprintln!(
        "{seeds} seeds in {:.1} s, {steps} steps, {delivered} items delivered, {replayed} replayed, {filtered} filtered out, {missed} missed \
         in gaps {gaps:?}; failed: {failed:?}",
        began.elapsed().as_secs_f64()
    );
    assert!(failed.is_empty());
}

/// Random search for the planted bugs: the first seed that finds each.
#[test]
#[ignore = "prints the table of docs/src/streams/flow.md"]
fn random_kills() {
    std::panic::set_hook(Box::new(|_| {}));
    for (mutant, _) in KILLS {
        let found = (1..=10_000)
            .find(|seed| catch_unwind(AssertUnwindSafe(|| one(*seed, Some(*mutant), &mut Tally::default()))).is_err());
        eprintln!("{mutant:?}: {}", found.map_or("not in 10,000 seeds".into(), |seed| format!("seed {seed}")));
    }
}
