//! What a group survives, one scenario each.

use std::{io, time::Duration};

use futures::future::join_all;
use mosaik::{
    groups::{LeaveError, MemberKind, Outcome, Role, StopReason, WhyOffline},
    prelude::*,
    testing::Sim,
};
use tokio::time::{Instant, sleep};

use crate::lab::{Increment, Lab, until, within};

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn three_members_elect_a_leader_and_any_of_them_executes_and_answers() {
    Sim::run(1, async |sim| {
        let lab = Lab::new(&sim, 3).started(3).await;
        let leader = within(secs(2), "elected and online", lab.elected()).await;
        assert!(sim.elapsed() < secs(2), "joined, elected and online after {:?}", sim.elapsed());
        assert_eq!(lab.add(leader, 5).await, 5);
        for n in 0..3 {
            let before = lab.sum(leader).await;
            assert_eq!(lab.add(n, 1).await, before + 1);
            assert_eq!(lab.sum(n).await, before + 1);
            let weak = lab.group(n).query((), Consistency::Weak).await.unwrap();
            assert_eq!((*weak, weak.at()), (before + 1, lab.group(n).committed()), "strong sees itself");
        }
        lab.all_have(8).await;
        assert_eq!(lab.group(1).execute(Increment(2), Consistency::Weak).await.unwrap(), 10);
        let members = lab.group(leader).members();
        assert_eq!(members.iter().filter(|member| member.kind() == MemberKind::Voter).count(), 3);
        lab.end().await;
    });
}

#[test]
fn commands_of_one_handle_keep_their_order() {
    Sim::run(2, async |sim| {
        let lab = Lab::new(&sim, 3).started(3).await;
        let leader = lab.elected().await;
        for n in [leader, (leader + 1) % 3] {
            let base = lab.sum(n).await;
            let group = lab.group(n);
            let calls = (1..=300).map(|_| group.execute(Increment(1), Consistency::Weak));
            let outputs: Vec<i64> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
            assert_eq!(outputs, (base + 1..=base + 300).collect::<Vec<_>>());
            let many = group.execute_many((0..2000).map(|_| Increment(1)), Consistency::Strong).await.unwrap();
            assert_eq!(many, (base + 301..=base + 2300).collect::<Vec<_>>());
            assert_eq!(*group.query((), Consistency::Weak).await.unwrap(), base + 2300);
            let fed = group.feed(Increment(7)).await.unwrap();
            assert_eq!(fed.await.unwrap(), base + 2307);
        }
    });
}

#[test]
fn a_crash_of_the_leader_costs_an_election_and_nothing_else() {
    Sim::run(3, async |sim| {
        let mut lab = Lab::durable(&sim, 3).started(3).await;
        let mut sum = 0;
        for round in 0..5 {
            let leader = lab.elected().await;
            let other = (leader + 1) % 3;
            sum += 1;
            assert_eq!(lab.add(other, 1).await, sum);
            lab.crash(leader);
            let began = Instant::now();
            sum += 10;
            assert_eq!(lab.add(other, 10).await, sum, "round {round}");
            assert!(began.elapsed() < secs(5), "round {round}: {:?}", began.elapsed());
            lab.start(leader).await;
        }
        lab.elected().await;
        lab.all_have(sum).await;
    });
}

#[test]
fn a_minority_acknowledges_nothing_and_the_majority_goes_on() {
    Sim::run(4, async |sim| {
        let lab = Lab::new(&sim, 3).started(3).await;
        let leader = lab.elected().await;
        assert_eq!(lab.add(leader, 1).await, 1);
        let rest: Vec<usize> = (0..3).filter(|n| *n != leader).collect();
        sim.partition(&lab.nodes([leader]), &lab.nodes(rest.clone()));

        let alone = lab.group(leader).with_timeout(secs(15));
        let (lost, found) = tokio::join!(alone.execute(Increment(100), Consistency::Weak), async {
            lab.elected_among(rest.clone()).await;
            let sum = lab.add(rest[0], 10).await;
            let old = lab.group(leader).with_timeout(secs(3));
            assert!(old.query((), Consistency::Strong).await.is_err(), "a deposed leader answers no strong query");
            sum
        });
        let error = lost.unwrap_err();
        assert_eq!(found, 11);
        assert_eq!(error.outcome(), Outcome::Unknown, "it may be in the old leader's log: {error}");
        let why = lab.group(leader).status().why_offline().map(ToString::to_string);
        assert_eq!(why.as_deref(), Some("no quorum: 1 of 3 voters reachable"));
        let never = lab.group(leader).with_timeout(secs(2)).execute(Increment(1000), Consistency::Weak).await;
        let error = never.unwrap_err();
        assert_eq!(error.outcome(), Outcome::None, "it never left the queue: {error}");

        sim.heal();
        lab.elected().await;
        assert_eq!(lab.add(leader, 1).await, 12);
        lab.all_have(12).await;
    });
}

#[test]
fn durable_members_restart_one_by_one_and_all_at_once() {
    Sim::run(5, async |sim| {
        let mut lab = Lab::durable(&sim, 3).started(3).await;
        lab.elected().await;
        assert_eq!(lab.add(0, 1).await, 1);
        for n in 0..3 {
            lab.shut_down(n).await;
            sleep(secs(3)).await;
            lab.start(n).await;
            sleep(secs(3)).await;
        }
        lab.elected().await;
        assert_eq!(lab.add(1, 1).await, 2);
        (0..3).for_each(|n| lab.crash(n));
        sleep(secs(1)).await;
        for n in 0..3 {
            lab.start(n).await;
        }
        within(secs(5), "a leader", lab.elected()).await;
        assert_eq!(lab.sum(2).await, 2);
        assert_eq!(lab.group(0).members().len(), 3);
    });
}

#[test]
fn a_volatile_group_keeps_its_state_over_a_rolling_restart() {
    Sim::run(6, async |sim| {
        let mut lab = Lab::new(&sim, 3).started(3).await;
        lab.elected().await;
        for n in 0..3 {
            lab.add(n, 1).await;
        }
        for n in [0, 1, 2, 0, 1, 2] {
            lab.shut_down(n).await;
            lab.start(n).await;
            sleep(secs(10)).await;
        }
        lab.elected().await;
        assert_eq!(lab.sum(0).await, 3);
        assert_eq!(lab.group(0).members().len(), 3, "{:?}", lab.group(0).members());
    });
}

#[test]
fn a_volatile_member_whose_clock_went_back_is_taken_in_again() {
    for hours in [1.0, 1000.0] {
        Sim::run(15, async |sim| {
            let mut lab = Lab::new(&sim, 3).started(3).await;
            let leader = lab.elected().await;
            assert_eq!(lab.add(leader, 1).await, 1);
            for n in [(leader + 1) % 3, leader] {
                lab.crash(n);
                lab.node(n).skew(-3600.0 * hours);
                sleep(secs(3)).await;
                lab.start(n).await;
                within(secs(20), "online again", lab.elected()).await;
                sleep(secs(10)).await;
            }
            assert_eq!(lab.add((leader + 2) % 3, 1).await, 2);
            assert_eq!(lab.group(leader).members().len(), 3, "{:?}", lab.group(leader).members());
            lab.end().await;
        });
    }
}

#[test]
fn a_survivor_of_three_alone_never_acknowledges_anything() {
    for volatile in [false, true] {
        Sim::run(16, async |sim| {
            let lab = if volatile { Lab::new(&sim, 3) } else { Lab::durable(&sim, 3) };
            let mut lab = lab.started(3).await;
            let leader = lab.elected().await;
            assert_eq!(lab.add(leader, 1).await, 1);
            lab.all_have(1).await;
            let dead = [(leader + 1) % 3, (leader + 2) % 3];
            dead.iter().for_each(|n| lab.crash(*n));
            // Far longer than anything that is given up, demoted or founded.
            let alone = lab.group(leader).with_timeout(secs(10));
            for round in 0..30 {
                let (command, query) = tokio::join!(
                    alone.execute(Increment(100), Consistency::Weak),
                    alone.query((), Consistency::Strong)
                );
                assert!(command.is_err() && query.is_err(), "round {round}: {command:?}, {query:?}");
            }
            let members = lab.group(leader).members();
            assert_eq!(members.iter().filter(|it| it.kind() == MemberKind::Voter).count(), 3, "{members:?}");
            if !volatile {
                lab.start(dead[0]).await;
                lab.elected().await;
                let sum = lab.add(dead[0], 1).await;
                assert!(sum == 2 || sum == 102, "the first of those commands may count, the others never left: {sum}");
            }
            lab.end().await;
        });
    }
}

/// A group of two voters that becomes one of three does not stand the loss of either of the two before it is settled.
#[test]
fn when_all_say_that_the_voters_are_settled_any_one_of_them_may_be_lost() {
    let mut grew = 0;
    for seed in 40..60 {
        grew += u32::from(Sim::run(seed, async |sim| {
            // Without a declared size a group begins with one.
            let mut lab = Lab::new(&sim, 0).started(1).await;
            until("one is settled", || lab.group(0).status().is_settled()).await;
            lab.start(1).await;
            lab.start(2).await;
            let mut changing = false;
            let voters = |lab: &Lab, n| {
                lab.group(n).members().iter().filter(|member| member.kind() == MemberKind::Voter).count()
            };
            while !(0..3).all(|n| voters(&lab, n) == 3 && lab.group(n).status().is_settled()) {
                changing |= !lab.group(0).status().is_settled();
                assert!(sim.elapsed() < secs(30), "settled within half a minute");
                sleep(Duration::from_micros(100)).await;
            }
            let lost = lab.elected().await;
            lab.crash(lost);
            let leader = lab.elected().await;
            assert_eq!(lab.add(leader, 1).await, 1);
            changing
        }));
    }
    assert!(grew > 10, "a change that is under way is seen, not in {grew} of 20 groups only");
}

#[test]
fn five_of_which_two_are_gone_for_good_become_three_and_survive_another() {
    Sim::run(7, async |sim| {
        let mut lab = Lab::durable(&sim, 5).started(5).await;
        lab.elected().await;
        lab.add(0, 1).await;
        lab.crash(3);
        lab.crash(4);
        let voters =
            |lab: &Lab| lab.group(0).members().iter().filter(|member| member.kind() == MemberKind::Voter).count();
        until("three voters", || voters(&lab) == 3).await;
        lab.elected().await;
        lab.crash(2);
        lab.elected().await;
        assert_eq!(lab.add(1, 1).await, 2);
        lab.crash(1);
        for _ in 0..10 {
            let alone = lab.group(0).with_timeout(secs(5)).execute(Increment(5), Consistency::Weak).await;
            assert!(alone.is_err(), "a survivor of three acknowledges nothing");
        }
        assert_eq!(voters(&lab), 3, "three do not become fewer");
    });
}

#[test]
fn an_operator_recovers_a_group_that_lost_its_majority() {
    Sim::run(8, async |sim| {
        let mut lab: Lab = Lab::durable(&sim, 3).started(3).await;
        lab.elected().await;
        assert_eq!(lab.add(0, 4).await, 4);
        lab.all_have(4).await;
        lab.shut_down(0).await;
        lab.crash(1);
        lab.crash(2);
        let network = lab.node(0).restart(lab.network).build().await.unwrap();
        lab.builder(0, &network).recover().await.unwrap();
        let group = lab.builder(0, &network).join().await.unwrap();
        lab.members.insert(0, (network, group));
        lab.elected().await;
        assert_eq!(lab.add(0, 1).await, 5);

        // A member of the old cluster finds out and stops; wiped, it joins the new one.
        lab.start(1).await;
        let superseded = |lab: &Lab| {
            matches!(lab.group(1).status().why_offline(), Some(WhyOffline::Stopped(StopReason::Superseded(_))))
        };
        until("superseded", || superseded(&lab)).await;
        lab.crash(1);
        lab.disks.as_mut().unwrap().remove(&1);
        lab.start(1).await;
        lab.elected().await;
        lab.all_have(5).await;
    });
}

#[test]
fn a_shutdown_hands_leadership_over_and_stays_a_voter() {
    Sim::run(9, async |sim| {
        let mut lab: Lab = Lab::durable(&sim, 3).started(3).await;
        let leader = lab.elected().await;
        lab.add(leader, 1).await;
        let began = Instant::now();
        lab.shut_down(leader).await;
        let next = lab.elected().await;
        assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
        assert_eq!(lab.add(next, 1).await, 2);
        let id = lab.node(leader).id();
        assert!(lab.group(next).members().iter().any(|it| it.id() == id && it.kind() == MemberKind::Voter));
    });
}

#[test]
fn the_status_says_why_a_member_is_not_online() {
    Sim::run(10, async |sim| {
        let mut lab: Lab = Lab::new(&sim, 3).started(1).await;
        let why = |lab: &Lab, n| lab.group(n).status().why_offline().map_or("online".into(), ToString::to_string);
        until("two missing", || why(&lab, 0) == "waiting for 2 more founders").await;
        let failed = lab.group(0).with_timeout(secs(1)).execute(Increment(1), Consistency::Weak).await.unwrap_err();
        assert_eq!(failed.outcome(), Outcome::None);
        assert!(failed.to_string().contains("waiting for 2 more founders"), "{failed}");
        lab.start(1).await;
        until("one missing", || why(&lab, 0) == "waiting for 1 more founder").await;
        lab.start_as(2, |builder| builder.with_size(5)).await;
        until("sizes differ", || why(&lab, 2).contains("incompatible size")).await;
        assert!(why(&lab, 0).contains("incompatible size"), "both see it: {}", why(&lab, 0));
        lab.shut_down(2).await;
        lab.start(2).await;
        lab.elected().await;
        assert_eq!((why(&lab, 0), lab.group(0).status().floor()), ("online".to_owned(), 3));
    });
}

#[test]
fn an_undeclared_group_grows_from_one_and_an_observer_never_votes() {
    Sim::run(11, async |sim| {
        let mut lab: Lab = Lab::new(&sim, 0).started(1).await;
        lab.elected().await;
        assert_eq!(lab.add(0, 1).await, 1);
        lab.start(1).await;
        lab.start(2).await;
        let voters =
            |lab: &Lab| lab.group(0).members().iter().filter(|member| member.kind() == MemberKind::Voter).count();
        until("three voters", || voters(&lab) == 3).await;
        lab.start_as(3, |builder| builder.with_role(MemberRole::Observer)).await;
        lab.elected().await;
        assert_eq!(lab.add(3, 1).await, 2);
        assert_eq!(lab.sum(3).await, 2);
        assert_eq!(lab.group(3).status().role(), Role::Observer);
        until("it is listed", || lab.group(0).members().iter().any(|it| it.kind() == MemberKind::Observer)).await;
        assert_eq!(voters(&lab), 3);
        lab.group(3).leave().await.unwrap();
        until("it is gone", || lab.group(0).members().len() == 3).await;
        let kept = lab.group(1).leave().await.unwrap_err();
        assert!(matches!(kept, LeaveError::BelowFloor { voters: 3, floor: 3 }), "{kept}");
        assert!(lab.group(3).execute(Increment(1), Consistency::Weak).await.is_err());
    });
}

#[test]
fn a_member_whose_disk_fails_stops_and_says_so() {
    Sim::run(13, async |sim| {
        let lab: Lab = Lab::durable(&sim, 3).started(3).await;
        let leader = lab.elected().await;
        let other = (leader + 1) % 3;
        lab.add(leader, 1).await;
        lab.disks.as_ref().unwrap()[&leader].fail_next_sync(io::ErrorKind::StorageFull);
        assert_eq!(lab.add(other, 1).await, 2);
        until("it stops", || {
            matches!(lab.group(leader).status().why_offline(), Some(WhyOffline::Stopped(StopReason::Storage(_))))
        })
        .await;
        let error = lab.group(leader).execute(Increment(1), Consistency::Weak).await.unwrap_err();
        assert!(matches!(error, CallError::Stopped(StopReason::Storage(_))), "{error}");
        assert_eq!(lab.add(other, 1).await, 3);
    });
}

#[test]
fn a_node_joins_a_group_once_and_again_after_it_has_left() {
    Sim::run(14, async |sim| {
        let mut lab: Lab = Lab::new(&sim, 0).started(1).await;
        lab.elected().await;
        let network = lab.members[&0].0.clone();
        let twice = lab.builder(0, &network).join().await.unwrap_err();
        assert!(twice.to_string().contains("already a member"), "{twice}");
        lab.group(0).leave_forced().await.unwrap();
        let again = lab.builder(0, &network).join().await.unwrap();
        again.when().is_leader().await;
        lab.end().await;
    });
}
