//! Planted bugs: each must be killed by its directed schedule, which the honest core survives.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::schedules::KILLS;

#[test]
fn the_honest_core_survives_every_schedule() {
    let failed: Vec<_> = KILLS
        .iter()
        .filter(|(_, schedule)| catch_unwind(AssertUnwindSafe(|| schedule(None))).is_err())
        .map(|(mutant, _)| mutant)
        .collect();
    assert!(failed.is_empty(), "these schedules fail without their mutant: {failed:?}");
}

#[test]
fn every_mutant_is_killed_by_its_schedule() {
    let survivors: Vec<_> = KILLS
        .iter()
        .filter(|(mutant, schedule)| catch_unwind(AssertUnwindSafe(|| schedule(Some(*mutant)))).is_ok())
        .map(|(mutant, _)| mutant)
        .collect();
    assert!(survivors.is_empty(), "not killed: {survivors:?}");
}
