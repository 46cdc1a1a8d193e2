//! Leadership that moves on request or by fitness: who may be a target, and that nothing acknowledged is lost on the way.

use mosaik::groups::raft::{Fitness, Input, Message, Position, Unfit};

use crate::sim::{Lab, world::id};

const ALL: [usize; 3] = [0, 1, 2];

/// Three members, led by the first, with a session.
fn three() -> Lab {
    let mut lab = Lab::new(3, 3, None, |_| {});
    assert!(lab.stand(0, &ALL));
    lab.open(0, 1);
    lab.pass(300, &ALL);
    lab
}

fn transfer(lab: &mut Lab, from: usize, to: usize) {
    let to = Some(lab.member(to));
    lab.feed(from, Input::Transfer { to });
}

/// The new leader has everything, at once, and goes on from there.
#[test]
fn leadership_moves_without_a_timeout_and_keeps_every_write() {
    let mut lab = three();
    lab.write(0, 1, 1, 7);
    lab.flow(&ALL);
    assert_eq!(lab.raft(0).may_hand_to(id(2)), Ok(lab.member(2)));
    transfer(&mut lab, 0, 2);
    lab.flow(&ALL);
    assert!(lab.leads(2) && !lab.leads(0), "no time has passed");
    lab.write(2, 1, 2, 8);
    lab.pass(300, &ALL);
    assert_eq!((lab.value(0), lab.value(1), lab.value(2)), (8, 8, 8));
}

/// While the target gets what it lacks no command is taken; when that takes too long the leader goes on.
#[test]
fn a_target_that_is_behind_is_not_asked_to_stand_and_costs_a_timeout_at_most() {
    let mut lab = three();
    lab.write(0, 1, 1, 7);
    lab.flow(&[0, 1]);
    transfer(&mut lab, 0, 2);
    assert!(!lab.mail.iter().any(|mail| matches!(mail.body, Message::TimeoutNow)), "it lacks the write");
    let before = lab.last(0);
    lab.write(0, 1, 2, 8);
    assert_eq!(lab.last(0), before, "nothing is added to what it lacks");
    lab.drop_mail();
    lab.pass(600, &[0, 1]);
    assert!(lab.leads(0) && lab.raft(0).is_handing_over().is_none());
    lab.write(0, 1, 2, 8);
    lab.pass(300, &ALL);
    assert_eq!((lab.value(1), lab.value(2)), (8, 8));
}

/// The target hears that it shall stand, and nobody hears it: nothing is lost, and one of the two leads in the end.
#[test]
fn a_partition_in_the_middle_of_a_hand_over_loses_nothing() {
    let mut lab = three();
    lab.write(0, 1, 1, 7);
    lab.flow(&ALL);
    transfer(&mut lab, 0, 2);
    lab.flow_if(|mail| matches!(mail.body, Message::TimeoutNow));
    lab.drop_mail();
    assert!(lab.raft(2).term() > lab.raft(0).term(), "it stands, alone");
    lab.pass(600, &[0, 1]);
    assert!(lab.leads(0), "the others never heard of it");
    lab.write(0, 1, 2, 8);
    lab.pass(300, &[0, 1]);
    lab.link_all();
    lab.pass(6_000, &ALL);
    let leader = ALL.into_iter().find(|n| lab.leads(*n)).expect("somebody leads");
    lab.write(leader, 1, 3, 9);
    lab.pass(300, &ALL);
    assert_eq!((lab.value(0), lab.value(1), lab.value(2)), (9, 9, 9));
}

/// An order to stand that arrives late finds a member that lacks what was committed since: it gets no votes.
#[test]
fn a_late_order_to_stand_elects_nobody_who_lacks_a_commit() {
    let mut lab = three();
    transfer(&mut lab, 0, 2);
    let order: Vec<_> = lab.mail.iter().filter(|mail| matches!(mail.body, Message::TimeoutNow)).cloned().collect();
    assert_eq!(order.len(), 1);
    lab.drop_mail();
    // Just long enough for the leader to go on: the target still takes it for its leader.
    lab.pass(500, &[0, 1]);
    lab.write(0, 1, 1, 7);
    lab.flow(&[0, 1]);
    lab.drop_mail();
    lab.mail.extend(order);
    let before = lab.raft(0).term();
    lab.flow(&ALL);
    assert!(lab.raft(2).term() > before, "it stands");
    assert!(!lab.leads(2), "the others have a write that it lacks");
    lab.pass(6_000, &ALL);
    let leader = ALL.into_iter().find(|n| lab.leads(*n)).expect("somebody leads");
    assert_eq!(lab.value(leader), 7);
}

#[test]
fn a_leader_says_why_it_does_not_hand_over() {
    let mut lab = Lab::new(4, 3, None, |_| {});
    assert!(lab.stand(0, &ALL));
    lab.link_all();
    lab.pass(2_000, &[0, 1, 2, 3]);
    assert_eq!(lab.raft(0).may_hand_to(id(3)), Err(Unfit::NoVote), "a learner");
    let raft = lab.raft(0);
    assert_eq!(raft.may_hand_to(id(9)), Err(Unfit::NotMember));
    assert_eq!(raft.may_hand_to(id(0)), Ok(raft.me()), "it leads already");
    lab.pass(700, &[0, 1]);
    let silent = lab.raft(0).may_hand_to(id(2));
    assert!(matches!(silent, Err(Unfit::Silent { micros }) if micros >= 700_000), "{silent:?}");
    lab.pass(300, &ALL);
    lab.feed(1, Input::Fitness(Fitness::Reluctant));
    lab.pass(300, &ALL);
    assert!(matches!(lab.raft(0).may_hand_to(id(1)), Err(Unfit::Outranked { by }) if by != id(1)));
}

/// A member that lacks more than a little is not handed to, and nothing waits for it.
#[test]
fn a_target_far_behind_is_said_to_be() {
    let mut lab = Lab::new(3, 3, None, |settings| settings.caught_up = 4);
    assert!(lab.stand(0, &ALL));
    lab.open(0, 1);
    lab.pass(300, &ALL);
    for sequence in 1..=10 {
        lab.write(0, 1, sequence, sequence);
        lab.flow(&[0, 1]);
    }
    lab.flow_if(|mail| matches!(&mail.body, Message::Append { entries, .. } if entries.is_empty()));
    let behind = lab.raft(0).may_hand_to(id(2));
    assert_eq!(behind, Err(Unfit::Behind { entries: 10 }));
    lab.pass(300, &ALL);
    assert_eq!(lab.raft(0).may_hand_to(id(2)), Ok(lab.member(2)));
}

/// The preferred member leads as soon as it is there, and whoever is not ready leads only while nobody else can.
#[test]
fn leadership_follows_fitness() {
    let mut lab = three();
    lab.write(0, 1, 1, 7);
    lab.feed(2, Input::Fitness(Fitness::Preferred));
    lab.pass(300, &ALL);
    assert!(lab.leads(2), "within a few heartbeats");
    lab.feed(2, Input::Fitness(Fitness::Unready));
    lab.pass(2_500, &ALL);
    assert!(!lab.leads(2), "somebody else is ready");
    let leader = ALL.into_iter().find(|n| lab.leads(*n)).expect("somebody leads");
    for n in ALL.into_iter().filter(|n| *n != leader).chain([leader]) {
        lab.feed(n, Input::Fitness(Fitness::Unready));
        lab.pass(200, &ALL);
    }
    lab.pass(20_000, &ALL);
    assert!(lab.leads(leader), "nobody is fitter");
    lab.write(leader, 1, 2, 8);
    lab.pass(300, &ALL);
    assert_eq!((lab.value(0), lab.value(1), lab.value(2)), (8, 8, 8));
}

/// A preferred member that does not come to lead is asked again after growing pauses: writes go on between.
#[test]
fn a_preferred_member_that_never_stands_is_left_alone_for_longer_and_longer() {
    let mut lab = three();
    lab.feed(2, Input::Fitness(Fitness::Preferred));
    let mut orders = 0;
    for _ in 0..600 {
        lab.now += 50_000;
        ALL.into_iter().for_each(|n| lab.tick(n));
        lab.flow_if(|mail| !matches!(mail.body, Message::TimeoutNow));
        orders += lab.mail.iter().filter(|mail| matches!(mail.body, Message::TimeoutNow)).count();
        lab.drop_mail();
    }
    assert!(lab.leads(0));
    assert!((3..=5).contains(&orders), "after 0, 2, 6 and 14 s of 30: {orders}");
    assert!(lab.raft(0).log().last() != Position::default());
}
