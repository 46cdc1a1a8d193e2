//! When a session is opened again, what goes into the next one, and when strong callers are answered.

mod limits;

use super::*;
use crate::groups::raft::{Digest, NodeId};

const CLUSTER: ClusterId = ClusterId(Digest([9; 32]));
const LEADER: Member = Member { node: NodeId::from_bytes([1; 32]), incarnation: 1 };
const FIRST: SessionId = SessionId(1);
const SECOND: SessionId = SessionId(2);
/// Milliseconds that the group keeps an unused session.
const RETENTION: u64 = 60_000;
/// Microseconds without a result before commands are sent again.
const RESEND: u64 = 1_000_000;

fn call(id: CallId, strong: bool) -> Call {
    let body = Bytes::from(vec![1, u8::try_from(id).unwrap_or(u8::MAX)]);
    Call { id, body, deadline: 1 << 50, strong, detached: false, ack_on_append: false }
}

fn new() -> Session {
    let mut session = Session::new(FIRST, RESEND, RETENTION, 0, Switch::default());
    session.set_leader(Some((CLUSTER, LEADER, 1)));
    session
}

fn poll(session: &mut Session, now: u64) -> Option<(u64, Batch)> {
    session.poll(now, || SECOND).map(|(flight, _, batch)| (flight, batch))
}

fn opened(session: &mut Session, flight: u64, index: Index, now: u64) {
    session.answered(flight, vec![Done { sequence: 0, index, result: CommandResult::Opened }], 100, 0, now);
}

/// One that was opened at index 5, with nothing in flight.
fn open() -> Session {
    let mut session = new();
    session.submit([call(0, false)]);
    let (flight, opening) = poll(&mut session, 0).expect("an opening");
    assert_eq!((opening.session, opening.opened, opening.commands.len()), (FIRST, 0, 0));
    opened(&mut session, flight, 5, 10);
    let (flight, batch) = poll(&mut session, 20).expect("the command");
    assert_eq!((batch.opened, numbers(&batch)), (5, vec![1]));
    answer(&mut session, flight, 1, 6, 6, 30);
    assert_eq!(told(&mut session), [Event::Done(0, Ok((6, Bytes::from_static(&[7]))))]);
    session
}

fn numbers(batch: &Batch) -> Vec<u64> {
    batch.commands.iter().map(|command| command.sequence).collect()
}

fn answer(session: &mut Session, flight: u64, sequence: u64, index: Index, applied: Index, now: u64) {
    // A single caller gets the output as it is.
    let done = Done { sequence, index, result: CommandResult::Output(Bytes::from_static(&[7])) };
    session.answered(flight, vec![done], 200, applied, now);
}

fn told(session: &mut Session) -> Vec<Event> {
    session.events().collect()
}

#[test]
fn an_opening_that_is_lost_is_sent_again_and_the_first_outcome_counts() {
    let mut session = new();
    session.submit([call(0, false)]);
    let (first, _) = poll(&mut session, 0).expect("an opening");
    assert!(poll(&mut session, 10).is_none(), "commands wait for it");
    session.lost(first, 0, 20);
    let (second, again) = poll(&mut session, 30).expect("again");
    assert_eq!((again.session, again.opened), (FIRST, 0));
    opened(&mut session, second, 8, 40);
    let (_, batch) = poll(&mut session, 50).expect("the command");
    assert_eq!((batch.opened, numbers(&batch)), (8, vec![1]));
    // A late word about another entry does not rename it.
    session.applied_here(FIRST, Done { sequence: 0, index: 9, result: CommandResult::Opened });
    session.submit([call(1, false)]);
    assert_eq!(poll(&mut session, 60).expect("the next").1.opened, 8);
}

#[test]
fn an_opening_that_is_seen_here_needs_no_answer() {
    let mut session = new();
    session.submit([call(0, false)]);
    let _ = poll(&mut session, 0).expect("an opening");
    session.applied_here(SECOND, Done { sequence: 0, index: 4, result: CommandResult::Opened });
    assert!(poll(&mut session, 10).is_none(), "that was another session");
    session.applied_here(FIRST, Done { sequence: 0, index: 5, result: CommandResult::Opened });
    assert_eq!(poll(&mut session, 20).expect("the command").1.opened, 5);
}

#[test]
fn a_group_without_room_for_the_session_fails_its_callers() {
    let mut session = new();
    session.submit([call(0, false), call(1, true)]);
    let (flight, _) = poll(&mut session, 0).expect("an opening");
    session.answered(flight, vec![Done { sequence: 0, index: 5, result: CommandResult::Full }], 100, 0, 10);
    assert_eq!(told(&mut session), [0, 1].map(|id| Event::Done(id, Err(Failure::SessionsFull))));
    assert_eq!(session.in_flight(), 0);
}

/// Half the retention without use, and the next command goes into another session; not before, and not with one in flight.
#[test]
fn a_session_that_was_long_unused_is_replaced() {
    let half = RETENTION / 2 * 1000;
    let mut session = open();
    session.submit([call(1, false)]);
    let (flight, batch) = poll(&mut session, half - 1000).expect("the command");
    assert_eq!((batch.session, numbers(&batch)), (FIRST, vec![2]), "not long enough");
    let later = half - 1000 + half + 100_000;
    session.submit([call(2, false)]);
    let (_, batch) = poll(&mut session, later).expect("the other");
    assert_eq!(batch.session, FIRST, "what is in flight cannot be taken along");
    answer(&mut session, flight, 2, 7, 7, later);
    answer(&mut session, flight + 1, 2, 7, 7, later);
    answer(&mut session, flight + 1, 3, 8, 8, later);
    session.applied_here(FIRST, Done { sequence: 3, index: 8, result: CommandResult::Undecodable });
    assert!(poll(&mut session, later).is_none());
    assert_eq!(session.in_flight(), 0);
    session.submit([call(3, false)]);
    let (flight, opening) = poll(&mut session, later + half).expect("another opening");
    assert_eq!((opening.session, opening.opened, opening.commands.len()), (SECOND, 0, 0));
    opened(&mut session, flight, 20, later + half);
    let (_, batch) = poll(&mut session, later + half).expect("the command");
    assert_eq!((batch.opened, batch.prior, batch.settled, numbers(&batch)), (20, 0, 1, vec![1]), "it begins anew");
}

/// A session belongs to one cluster: in another one it is replaced, and what may be in the log of the first stays there.
#[test]
fn another_cluster_gets_another_session() {
    let mut session = open();
    session.submit([call(1, false)]);
    let _ = poll(&mut session, 40).expect("the command");
    session.submit([call(2, false)]);
    let other = ClusterId(Digest([8; 32]));
    session.set_leader(Some((other, LEADER, 1)));
    let (flight, opening) = poll(&mut session, 50).expect("an opening");
    assert_eq!((opening.session, opening.opened, opening.cluster), (SECOND, 0, other));
    assert_eq!(told(&mut session), [Event::Done(1, Err(Failure::Expired))]);
    opened(&mut session, flight, 3, 60);
    let (_, batch) = poll(&mut session, 70).expect("what was never sent");
    assert_eq!((batch.opened, numbers(&batch), batch.commands[0].body[1]), (3, vec![1], 2));
}

/// A weak caller is answered by what the leader has applied; a strong one reads its own write here afterwards.
#[test]
fn a_strong_call_is_answered_when_the_local_machine_has_applied_it() {
    let mut session = open();
    session.submit([call(1, false)]);
    let (flight, _) = poll(&mut session, 40).expect("the command");
    answer(&mut session, flight, 2, 9, 6, 50);
    assert_eq!(told(&mut session), [Event::Done(1, Ok((9, Bytes::from_static(&[7]))))]);
    session.submit([call(2, true)]);
    let (flight, _) = poll(&mut session, 60).expect("the command");
    answer(&mut session, flight, 3, 10, 6, 70);
    assert_eq!(told(&mut session), [], "it is not applied here");
    session.applied(9);
    assert_eq!(told(&mut session), [], "nor now");
    assert_eq!(session.in_flight(), 1);
    session.applied(10);
    assert_eq!(told(&mut session), [Event::Done(2, Ok((10, Bytes::from_static(&[7]))))]);
    assert_eq!(session.in_flight(), 0);
}

/// Ends the wait of callers in some way.
type End = fn(&mut Session);
/// Ends the flight of a batch in some way.
type Land = fn(&mut Session, u64);

/// How a command can be on its way when its caller's wait ends.
const ON_THE_WAY: [&str; 5] = ["never sent", "in flight", "lost", "queued", "answered without an outcome"];

/// A session with one command that is on its way like that.
fn on_the_way(how: &str) -> Session {
    let mut session = open();
    session.submit([Call { deadline: 1_000_000, ..call(1, false) }]);
    if how == "never sent" {
        return session;
    }
    let (flight, _) = poll(&mut session, 40).expect("the command");
    match how {
        "lost" => session.lost(flight, 0, 50),
        "queued" => session.queued(flight),
        "answered without an outcome" => {
            let too_far = Done { sequence: 2, index: 7, result: CommandResult::TooFar };
            session.answered(flight, vec![too_far], 200, 7, 50);
        }
        _ => {}
    }
    assert_eq!(told(&mut session), []);
    session
}

/// Whoever is told that a command was not applied may do it again: so that is said only of what was never sent.
#[test]
fn what_may_have_been_applied_is_never_told_as_not_applied() {
    for how in ON_THE_WAY {
        let known = how == "never sent";
        let ends: [(&str, End, Failure, Failure); 4] = [
            ("late", |session| session.expire(1_000_000, |_| false), Failure::TimedOut, Failure::Unknown),
            ("gone", |session| session.expire(60, |_| true), Failure::TimedOut, Failure::Unknown),
            ("stopped", Session::stop, Failure::Stopped, Failure::Interrupted),
            ("sealed", |session| session.seal(false), Failure::Sealed, Failure::Unknown),
        ];
        for (what, end, not_applied, unknown) in ends {
            let mut session = on_the_way(how);
            end(&mut session);
            let why = if known { not_applied } else { unknown };
            assert_eq!(told(&mut session), [Event::Done(1, Err(why))], "{how}, {what}");
            assert_eq!((why.is_unknown(), session.in_flight()), (!known, 0), "{how}, {what}");
        }
        // All that came before the seal was applied here, and it was not among that.
        let mut session = on_the_way(how);
        session.seal(true);
        assert_eq!(told(&mut session), [Event::Done(1, Err(Failure::Sealed))], "{how}");
    }
}

/// The table knows a command by its number and judges its age by the first attempt.
#[test]
fn what_is_sent_again_is_what_was_sent_first() {
    let ends: [(&str, Land); 4] = [
        ("lost", |session, flight| session.lost(flight, 0, 50)),
        ("rejected", |session, flight| session.rejected(flight, Rejection::NotLeader, 0, 50)),
        ("no answer", |_, _| {}),
        ("another leader", |session, _| session.set_leader(Some((CLUSTER, LEADER, 2)))),
    ];
    for (why, end) in ends {
        let mut session = open();
        session.submit([call(1, false), call(2, false)]);
        let (flight, first) = poll(&mut session, 40).expect("the commands");
        session.observe_time(90_000, 45);
        end(&mut session, flight);
        let (_, again) = poll(&mut session, 9 * RESEND).expect("again");
        assert_eq!((again.opened, again.session, again.settled), (first.opened, FIRST, 2), "{why}");
        assert_eq!(again.commands, first.commands, "{why}");
        assert_eq!(again.prior, 0, "{why}: the lowest that is not settled follows nothing");
    }
}

#[test]
fn batches_under_way_name_what_they_follow() {
    let mut session = open();
    let mut batches = Vec::new();
    for id in 1..=3 {
        session.submit([call(id, false)]);
        batches.push(poll(&mut session, 40).expect("the next").1);
    }
    let priors: Vec<_> = batches.iter().map(|batch| (batch.prior, numbers(batch), batch.settled)).collect();
    assert_eq!(priors, [(1, vec![2], 2), (2, vec![3], 2), (3, vec![4], 2)]);
}

/// What the group has refused because its session has ended was not applied then. If it had been sent before, an earlier copy may
/// have been.
#[test]
fn of_an_ended_session_goes_on_what_was_sent_once() {
    for sent in [1, 2] {
        let mut session = open();
        session.submit([call(1, false)]);
        let mut flight = poll(&mut session, 40).expect("the command").0;
        if sent == 2 {
            session.lost(flight, 0, 50);
            flight = poll(&mut session, 60).expect("again").0;
        }
        session.answered(flight, vec![Done { sequence: 2, index: 9, result: CommandResult::Ended }], 200, 9, 70);
        let next = poll(&mut session, 80);
        if sent == 2 {
            assert_eq!(told(&mut session), [Event::Done(1, Err(Failure::Expired))]);
            continue;
        }
        let (flight, opening) = next.expect("another opening");
        assert_eq!((opening.session, opening.opened), (SECOND, 0));
        opened(&mut session, flight, 30, 90);
        let (_, batch) = poll(&mut session, 100).expect("the command");
        assert_eq!((batch.opened, numbers(&batch), batch.commands[0].body[1]), (30, vec![1], 1));
        assert_eq!(told(&mut session), []);
    }
}

#[test]
fn an_opening_that_is_in_a_log_is_waited_for() {
    let mut session = new();
    session.submit([call(0, false)]);
    let (flight, _) = poll(&mut session, 0).expect("an opening");
    session.queued(flight);
    assert!(poll(&mut session, 10).is_none(), "its outcome comes");
    opened(&mut session, flight, 5, 20);
    assert_eq!(poll(&mut session, 30).expect("the command").1.opened, 5);
}

/// The output was too long for the response, and a snapshot has taken the place of the command here: the leader has it still.
#[test]
fn an_output_that_was_to_be_seen_here_is_asked_for_again_after_a_snapshot() {
    let mut session = open();
    session.submit([call(1, true)]);
    let (flight, first) = poll(&mut session, 40).expect("the command");
    session.answered(flight, vec![Done { sequence: 2, index: 9, result: CommandResult::Elsewhere }], 200, 6, 50);
    session.restored(8);
    assert!(poll(&mut session, 60).is_none(), "it is still to come");
    session.restored(9);
    let (flight, again) = poll(&mut session, 70).expect("again");
    assert_eq!(again.commands, first.commands);
    answer(&mut session, flight, 2, 9, 9, 80);
    assert_eq!(told(&mut session), [Event::Done(1, Ok((9, Bytes::from_static(&[7]))))]);
}

#[test]
fn what_another_session_did_is_nobodys_answer_here() {
    let mut session = open();
    session.submit([call(1, false)]);
    let _ = poll(&mut session, 40).expect("the command");
    let done = Done { sequence: 2, index: 9, result: CommandResult::Output(Bytes::from_static(&[8])) };
    session.applied_here(SECOND, done.clone());
    assert_eq!(told(&mut session), []);
    session.applied_here(FIRST, done);
    assert_eq!(told(&mut session), [Event::Done(1, Ok((9, Bytes::from_static(&[8]))))]);
}

/// A rejection is no loss: what was rejected goes out again when its pause is over, at once if only the order was wrong.
#[test]
fn what_was_rejected_does_not_wait_for_the_timer() {
    for (why, pause) in [(Rejection::NotLeader, 500), (Rejection::Busy, 500), (Rejection::OutOfOrder, 0)] {
        let mut session = open();
        session.submit([call(1, false)]);
        let (flight, _) = poll(&mut session, 40).expect("the command");
        session.rejected(flight, why, 500, 50);
        assert_eq!(session.wake_at(50), (pause > 0).then_some(550).or(session.resend_at), "{why:?}");
        assert_eq!(poll(&mut session, 50 + pause / 2).is_some(), pause == 0, "{why:?}");
        if pause > 0 {
            assert_eq!(numbers(&poll(&mut session, 50 + pause).expect("again").1), [2], "{why:?}");
        }
    }
}
