//! The core in worlds of its own, which draw more of what can happen to it than a whole network does in the same time.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::sim::World;

/// Worlds with every test run; `--test raft` runs more of them.
const WORLDS: u64 = 10;

#[test]
fn random_worlds_end_without_a_violation() {
    for seed in 1..=WORLDS {
        let mut world = World::swarm(seed, None);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.run())) {
            eprintln!("seed {seed}");
            world.dump();
            resume_unwind(panic);
        }
        assert!(world.checks.committed > 0, "seed {seed} has committed nothing");
    }
}
