//! Directed schedules: each shows one thing, passes on the sound core, and kills the bug planted for it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use crate::{
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

type Schedule = fn(Plan);

/// Every planted bug, and the schedule that kills it.
pub const KILLS: &[(Mutant, Schedule)] = &[
    (Mutant::ResumeRepeats, who_comes_back_gets_what_it_lacks),
    (Mutant::RingOffByOne, who_comes_back_gets_what_it_lacks),
    (Mutant::ResumeAtHead, who_comes_back_gets_what_it_lacks),
    (Mutant::ReplayOverlapsLive, who_comes_back_gets_what_it_lacks),
    (Mutant::GapToldTwice, who_comes_back_late_is_told_what_is_gone),
    (Mutant::WrongEpochAccepted, who_comes_back_to_a_new_run_gets_all_of_it),
    (Mutant::SilentDrop, who_is_slow_is_told_what_was_dropped),
    (Mutant::ConflateKeepsFirst, who_is_slow_gets_the_last_of_each_key),
    (Mutant::HeartbeatIgnored, who_waits_is_told_that_the_last_items_expired),
    (Mutant::ReleasedByFastest, who_is_slow_keeps_what_others_have_had),
    (Mutant::SnapshotCutEarly, who_comes_late_gets_what_is_kept_and_then_what_is_live),
    (Mutant::ReplayPastCut, who_is_cut_off_in_a_replay_goes_on_with_it),
    (Mutant::ReplayNotResumed, who_is_cut_off_in_a_replay_goes_on_with_it),
    (Mutant::ReplayGapUntold, who_comes_back_to_a_new_run_is_told_what_is_not_kept),
    (Mutant::FilterAfterNumbering, who_has_a_filter_gets_its_items_and_no_gap),
    (Mutant::FilterHidesLoss, who_has_a_filter_is_told_what_was_dropped),
    (Mutant::FilterHidesHole, who_has_a_filter_is_told_what_is_not_kept),
];

fn send(world: &mut World, items: usize) {
    for item in 0..items {
        assert!(world.send((item % 3) as u8, 20), "there is room");
    }
}

fn flow(world: &mut World, subscriber: usize) {
    while world.write(subscriber, 4096) | world.read(subscriber, 4096) {}
}

fn who_comes_back_gets_what_it_lacks(plan: Plan) {
    let mut world = World::new(plan, 0);
    world.connect(0);
    send(&mut world, 5);
    flow(&mut world, 0);
    send(&mut world, 5);
    world.write(0, 150); // under way
    world.cut(0, true);
    send(&mut world, 5);
    world.connect(0);
    flow(&mut world, 0);
    send(&mut world, 5);
    flow(&mut world, 0);
    world.rest();
    assert_eq!((world.ledger(0).delivered, world.ledger(0).missed), (20, 0));
}

fn who_comes_back_late_is_told_what_is_gone(plan: Plan) {
    let mut world = World::new(Plan { ring: Limit { items: 0, bytes: 0 }, ..plan }, 0);
    world.connect(0);
    send(&mut world, 5);
    flow(&mut world, 0);
    world.cut(0, true);
    send(&mut world, 10);
    world.connect(0);
    send(&mut world, 1);
    world.rest();
    assert_eq!((world.ledger(0).delivered, world.ledger(0).missed), (6, 10));
}

fn who_comes_back_to_a_new_run_gets_all_of_it(plan: Plan) {
    let mut world = World::new(plan, 0);
    world.connect(0);
    send(&mut world, 10);
    flow(&mut world, 0);
    world.crash();
    send(&mut world, 15);
    world.rest();
    assert_eq!((world.ledger(0).epoch(), world.ledger(0).delivered, world.ledger(0).missed), (2, 25, 0));
}

fn who_is_slow_is_told_what_was_dropped(plan: Plan) {
    let mut world = World::new(Plan { policy: OnLag::DropOldest, ..plan }, 0);
    world.connect(0);
    send(&mut world, 100);
    world.rest();
    assert_eq!(world.ledger(0).delivered + world.ledger(0).missed, 100);
    assert!(world.ledger(0).delivered >= 14, "an eighth is left out at a time");
}

fn who_is_slow_gets_the_last_of_each_key(plan: Plan) {
    let mut world = World::new(Plan { policy: OnLag::Conflate, ..plan }, 0);
    world.connect(0);
    send(&mut world, 17); // full with 16, of 3 keys
    world.rest();
    assert_eq!((world.ledger(0).delivered, world.ledger(0).missed), (4, 13));
}

fn who_waits_is_told_that_the_last_items_expired(plan: Plan) {
    let mut world = World::new(Plan { lifespan: Some(Duration::from_millis(100)), ..plan }, 0);
    world.connect(0);
    send(&mut world, 5);
    world.now += Duration::from_millis(200);
    world.rest();
    assert_eq!((world.ledger(0).delivered, world.ledger(0).missed), (0, 5));
}

fn who_is_slow_keeps_what_others_have_had(plan: Plan) {
    let ring = Limit { items: 0, bytes: 0 };
    let mut world = World::new(Plan { subscribers: 2, ring, ..plan }, 0);
    world.connect(0);
    world.connect(1);
    for _ in 0..3 {
        send(&mut world, 4);
        flow(&mut world, 0);
    }
    world.rest();
    assert_eq!((world.ledger(0).delivered, world.ledger(1).delivered), (12, 12));
}

fn keeps(plan: Plan, keep: Keep, items: u64) -> Plan {
    let limit = Limit { items, bytes: 1 << 20 };
    Plan { retention: Some(Retention { keep, limit, max_age: None }), ..plan }
}

fn who_comes_late_gets_what_is_kept_and_then_what_is_live(plan: Plan) {
    for (keep, owed) in [(Keep::Newest, 10), (Keep::PerKey(2), 6), (Keep::KeyFrame, 2)] {
        let mut world = World::new(keeps(plan, keep, 10), 0);
        send(&mut world, 20);
        world.connect(0);
        send(&mut world, 5);
        while world.write_replay(0, 64) | world.write(0, 30) | world.read(0, 50) {}
        world.rest();
        assert_eq!((world.ledger(0).replays, world.ledger(0).delivered, world.ledger(0).missed), (owed, 5, 0));
    }
}

fn who_is_cut_off_in_a_replay_goes_on_with_it(plan: Plan) {
    for ring in [plan.ring, Limit { items: 0, bytes: 0 }] {
        let mut world = World::new(keeps(Plan { ring, ..plan }, Keep::Newest, 20), 0);
        send(&mut world, 20);
        world.connect(0);
        world.write_replay(0, 400);
        world.read(0, 400); // some of it
        let some = world.ledger(0).replays;
        assert!((10..20).contains(&some));
        world.cut(0, true);
        send(&mut world, 5);
        world.connect(0);
        send(&mut world, 5);
        world.rest();
        let ledger = world.ledger(0);
        assert_eq!((some + ledger.delivered, ledger.missed), (30, 0), "every item that was kept at first");
    }
}

fn who_comes_back_to_a_new_run_is_told_what_is_not_kept(plan: Plan) {
    let ring = Limit { items: 0, bytes: 0 };
    let mut world = World::new(keeps(Plan { ring, ..plan }, Keep::PerKey(1), 10), 0);
    world.connect(0);
    send(&mut world, 10);
    flow(&mut world, 0);
    world.crash();
    send(&mut world, 15);
    world.rest();
    assert_eq!((world.ledger(0).replays, world.ledger(0).delivered, world.ledger(0).missed), (3, 13, 12));
}

fn who_has_a_filter_gets_its_items_and_no_gap(plan: Plan) {
    let mut world = World::new(keeps(Plan { filters: Filters::Key(1), ..plan }, Keep::Newest, 20), 0);
    send(&mut world, 9);
    world.connect(0);
    send(&mut world, 9);
    world.rest();
    world.cut(0, true);
    send(&mut world, 9);
    world.rest();
    let ledger = world.ledger(0);
    assert_eq!((ledger.replays, ledger.delivered, ledger.missed, ledger.filtered), (3, 6, 0, 12));
}

fn who_has_a_filter_is_told_what_was_dropped(plan: Plan) {
    let mut world = World::new(Plan { policy: OnLag::DropOldest, filters: Filters::Key(1), ..plan }, 0);
    world.connect(0);
    send(&mut world, 99);
    world.rest();
    let ledger = world.ledger(0);
    assert!(ledger.delivered >= 4 && ledger.missed > 0, "{ledger:?}");
    assert_eq!(ledger.delivered + ledger.missed + ledger.filtered, 99);
}

fn who_has_a_filter_is_told_what_is_not_kept(plan: Plan) {
    let ring = Limit { items: 0, bytes: 0 };
    let mut world = World::new(keeps(Plan { ring, filters: Filters::Key(1), ..plan }, Keep::PerKey(1), 10), 0);
    world.connect(0);
    send(&mut world, 9);
    world.rest();
    world.cut(0, true);
    send(&mut world, 9);
    world.rest();
    let ledger = world.ledger(0);
    assert!(ledger.missed >= 2 && ledger.replays == 1, "{ledger:?}");
    assert_eq!(ledger.delivered, 4, "the last one of those that were sent meanwhile");
}

#[test]
fn the_sound_core_passes_every_schedule() {
    for (_, schedule) in KILLS {
        schedule(Plan::small(OnLag::Disconnect));
    }
}

#[test]
fn every_planted_bug_is_killed_by_its_schedule() {
    for (mutant, schedule) in KILLS {
        let plan = Plan { mutant: Some(*mutant), ..Plan::small(OnLag::Disconnect) };
        let killed = catch_unwind(AssertUnwindSafe(|| schedule(plan))).is_err();
        assert!(killed, "{mutant:?} survives");
    }
}
