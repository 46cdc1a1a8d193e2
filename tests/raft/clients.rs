//! G3 of the old engine, where acknowledged commands were applied twice: a session that ends because of a wrong clock, while
//! commands of its callers lie unanswered in the logs. And many operations over random seeds, counted by callers.

use mosaik::groups::client::{Event, Failure};

use crate::sim::{Plan, Rng, World};

/// A group of three in which the first leader's wall clock is two hours behind and dies with commands unanswered.
fn first_leader_behind(seed: u64) {
    let mut plan = Plan::calm(3);
    plan.clients = 4;
    plan.calm = 60_000_000;
    let mut world = World::new(plan, Rng::new(seed));
    world.nodes.iter_mut().for_each(|node| node.skew = 0);
    world.wait("a leader", 20, |world| world.leader().is_some());
    let leader = world.leader().expect("just seen");
    world.nodes[leader].skew = -7_200_000;
    world.wait("writes", 20, |world| world.clients.writes > 20);
    // Nobody hears the leader's commits: what callers submit lies in the logs and is not answered.
    world.filter = Some(Box::new(move |envelope| crate::sim::world::index_of(envelope.to.node) != leader));
    let until = world.now + 400_000;
    world.run_until(until);
    world.crash(leader);
    world.filter = None;
    let before = world.clients.writes;
    world.wait("another leader", 20, |world| world.leader().is_some());
    world.wait("writes", 20, |world| world.clients.writes > before + 20);
    world.start(leader);
    world.run();
    assert_eq!(world.clients.expired, 0, "seed {seed}: a session or an attempt expired");
}

#[test]
fn a_first_leader_with_a_clock_two_hours_behind_dies() {
    (1..=40).for_each(first_leader_behind);
}

/// No clock expires anything: every wall clock jumps by up to a lifetime, all the time, with sessions of a minute.
#[test]
fn wall_clocks_expire_nothing() {
    for seed in 1..=10 {
        let mut plan = Plan::calm(3);
        plan.sessions = (64, 60_000, 64);
        plan.skew = 300_000;
        plan.stormy = 20_000_000;
        plan.calm = 30_000_000;
        let mut world = World::new(plan, Rng::new(seed));
        world.run();
        assert!(world.clients.writes > 100, "{}", world.clients.writes);
        assert_eq!((world.clients.expired, world.clients.unknown), (0, 0), "seed {seed}");
    }
}

/// A session that was long unused is replaced before it ends, so its caller notices nothing.
#[test]
fn an_idle_session_is_replaced_in_time() {
    use mosaik::groups::client::{CommandResult, Done};
    let (mut session, flight, batch) = crate::schedules::in_flight(None);
    let done = Done { sequence: batch.commands[0].sequence, index: 6, result: CommandResult::Output(vec![1].into()) };
    session.answered(flight, vec![done], 100, 6, 1_000);
    assert!(matches!(session.events().next(), Some(Event::Done(0, Ok(_)))));
    session.submit([crate::schedules::call(1)]);
    let (flight, _) = crate::schedules::poll(&mut session, 2_000).expect("in the same session");
    session.rejected(flight, mosaik::groups::client::Rejection::NotLeader, 0, 3_000);
    // The retention of this session is ten seconds.
    let (_, opening) = crate::schedules::poll(&mut session, 5_100_000).expect("another session");
    assert_eq!((opening.opened, opening.session), (0, mosaik::groups::raft::SessionId(2)));
}

/// What was sent once and met an ended session was not applied, so it goes into the next one; its caller notices nothing.
#[test]
fn what_met_an_ended_session_alone_is_sent_in_the_next_one() {
    use mosaik::groups::client::{CommandResult, Done};
    let (mut session, flight, batch) = crate::schedules::in_flight(None);
    let ended = Done { sequence: batch.commands[0].sequence, index: 9, result: CommandResult::Ended };
    session.answered(flight, vec![ended], 200, 0, 30);
    let (flight, opening) = crate::schedules::poll(&mut session, 40).expect("another session");
    assert_eq!(opening.opened, 0);
    session.answered(flight, vec![Done { sequence: 0, index: 12, result: CommandResult::Opened }], 300, 0, 50);
    let (_, again) = crate::schedules::poll(&mut session, 60).expect("again");
    assert_eq!((again.opened, again.commands[0].body.clone()), (12, batch.commands[0].body.clone()));
    assert_eq!(again.commands[0].attempted, 300, "a first attempt of its own");
    assert_eq!(session.events().next(), None);
}

/// A leader of another cluster takes nothing, and a session does not outlive its cluster: what may have been applied in it is not
/// sent in the next one.
#[test]
fn a_session_belongs_to_one_cluster() {
    use mosaik::groups::{
        client::{Notice, Rejection, Response, Router, Source},
        raft::{ClusterId, Digest},
    };
    let (mut session, flight, batch) = crate::schedules::in_flight(None);
    let other = ClusterId(Digest([8; 32]));
    let notice = Router::new().take(batch, Source::Remote(()), Some(other));
    assert!(matches!(notice, Some(Notice::Remote((), Response::Rejected(Rejection::NotLeader)))), "{notice:?}");
    session.lost(flight, 0, 10);
    session.submit([crate::schedules::call(1)]);
    session.set_leader(Some((other, crate::schedules::LEADER, 1)));
    let (_, opening) = crate::schedules::poll(&mut session, 20).expect("a session of that cluster");
    assert_eq!((opening.opened, opening.cluster), (0, other));
    assert_eq!(session.events().collect::<Vec<_>>(), [Event::Done(0, Err(Failure::Expired))]);
}

/// A group without room for a session says so to all who wait, and nothing was sent.
#[test]
fn a_full_table_is_told_to_all_who_wait() {
    use mosaik::groups::client::{CommandResult, Done};
    let mut session = crate::schedules::session(None);
    session.set_leader(Some((crate::schedules::CLUSTER, crate::schedules::LEADER, 1)));
    session.submit([crate::schedules::call(0), crate::schedules::call(1)]);
    let (flight, _) = crate::schedules::poll(&mut session, 0).expect("an opening");
    session.answered(flight, vec![Done { sequence: 0, index: 9, result: CommandResult::Full }], 1, 0, 10);
    let full = |id| Event::Done(id, Err(Failure::SessionsFull));
    assert_eq!(session.events().collect::<Vec<_>>(), [full(0), full(1)]);
    session.submit([crate::schedules::call(2)]);
    assert!(crate::schedules::poll(&mut session, 20).is_some(), "another try");
}
