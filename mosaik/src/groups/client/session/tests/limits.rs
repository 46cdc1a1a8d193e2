//! How much goes out at once, when, and when again; what is counted, and how it is dated.

use super::*;

/// Its body takes so many bytes, and goes with no other if that are more than a few thousand.
fn sized(id: CallId, bytes: usize) -> Call {
    let body = Bytes::from([&[1], &*vec![7; bytes - 1]].concat());
    Call { body, ..call(id, false) }
}

fn submitted(calls: impl IntoIterator<Item = Call>) -> Session {
    let mut session = open();
    session.submit(calls);
    session
}

/// Who was told what, in order of the callers.
fn failures(session: &mut Session) -> Vec<(CallId, Failure)> {
    let failure = |event| match event {
        Event::Done(id, Err(failure)) => (id, failure),
        other => panic!("{other:?}"),
    };
    let mut failures: Vec<_> = session.events().map(failure).collect();
    failures.sort_by_key(|(id, _)| *id);
    failures
}

/// Long after every deadline.
const NEVER: u64 = 1 << 51;

#[test]
fn there_is_room_for_so_many_commands_and_bytes() {
    const MIB: usize = 1 << 20;
    let mut session = new();
    assert!(session.has_room(COMMANDS - 1, 0) && !session.has_room(COMMANDS, 0));
    assert!(session.has_room(0, 16 * MIB - 1) && !session.has_room(0, 16 * MIB));
    session.submit([sized(0, 4 * MIB), sized(1, 5 * MIB)]);
    assert_eq!(session.in_flight(), 2);
    assert!(session.has_room(COMMANDS - 3, 0) && !session.has_room(COMMANDS - 2, 0));
    assert!(session.has_room(0, 7 * MIB - 1) && !session.has_room(0, 7 * MIB));
    assert!(!session.has_room(COMMANDS, 7 * MIB), "neither");
    session.expire(0, |id| id == 0);
    assert!(session.has_room(0, 11 * MIB - 1) && !session.has_room(0, 11 * MIB), "one caller has gone");
    session.expire(NEVER, |_| false);
    assert!(session.has_room(COMMANDS - 1, 16 * MIB - 1), "what was answered takes no room");
}

#[test]
fn a_batch_ends_before_what_would_exceed_its_bytes() {
    let half = BATCH_BYTES / 2;
    let sizes = [half, half, BATCH_BYTES + 1, 20_000, 20_000];
    let mut session = submitted((0..).zip(sizes).map(|(id, bytes)| sized(id, bytes)));
    for expected in [&[2, 3][..], &[4], &[5, 6]] {
        assert_eq!(numbers(&poll(&mut session, 40).expect("more").1), expected);
    }
    assert!(poll(&mut session, 40).is_none());
}

#[test]
fn a_batch_has_so_many_commands() {
    // Fenced, so that each has a body of its own.
    let fenced = |id| Call { body: crate::groups::client::bundle::fenced(1, &[1, 7]), ..call(id, false) };
    let mut session = submitted((0..=BATCH_COMMANDS).map(fenced));
    let (first, batch) = poll(&mut session, 40).expect("the first");
    assert_eq!(batch.commands.len(), BATCH_COMMANDS);
    let (second, batch) = poll(&mut session, 40).expect("the rest");
    assert_eq!(numbers(&batch), [BATCH_COMMANDS as u64 + 2]);
    assert_ne!(first, second);
    assert!(poll(&mut session, 40).is_none());
}

/// Whether a leader is to say that it has appended a batch: if any of its callers wants to know.
#[test]
fn who_wants_to_know_is_told_that_it_is_in_the_log() {
    let wants = |id, ack_on_append| Call { ack_on_append, ..sized(id, 20_000) };
    for wanting in [&[][..], &[0], &[1], &[0, 1]] {
        let mut session = submitted((0..2).map(|id| wants(id, wanting.contains(&id))));
        let (flight, batch) = poll(&mut session, 40).expect("both");
        assert_eq!((batch.commands.len(), batch.ack_on_append), (2, !wanting.is_empty()));
        session.queued(flight);
        let expected: Vec<_> = wanting.iter().map(|id| Event::Appended(*id)).collect();
        assert_eq!(told(&mut session), expected);
        session.expire(NEVER, |_| false);
        assert_eq!(failures(&mut session), [0, 1].map(|id| (id, Failure::Unknown)));
    }
}

/// All of a rejected batch is known not to be in a log, and all of a lost one, and nothing else, may be.
#[test]
fn what_becomes_of_a_batch_becomes_of_its_commands() {
    let calls = || [sized(0, 20_000), sized(1, 20_000), sized(2, BATCH_BYTES)];
    let mut session = submitted(calls());
    let (flight, batch) = poll(&mut session, 40).expect("the first two");
    assert_eq!(numbers(&batch), [2, 3]);
    session.rejected(flight, Rejection::Busy, 0, 50);
    session.expire(NEVER, |_| false);
    assert_eq!(failures(&mut session), [0, 1, 2].map(|id| (id, Failure::TimedOut)));
    assert_eq!(session.in_flight(), 0);

    let mut session = submitted(calls());
    let (flight, _) = poll(&mut session, 40).expect("the first two");
    session.lost(flight, 0, 50);
    session.expire(NEVER, |_| false);
    let expected = [Failure::Unknown, Failure::Unknown, Failure::TimedOut];
    assert_eq!(failures(&mut session), (0..).zip(expected).collect::<Vec<_>>());
}

#[test]
fn after_a_loss_there_is_a_pause() {
    for is_lost in [true, false] {
        let mut session = submitted([call(1, false)]);
        let (flight, _) = poll(&mut session, 40).expect("the command");
        if is_lost {
            session.lost(flight, 700, 50);
        } else {
            session.rejected(flight, Rejection::Busy, 700, 50);
        }
        assert_eq!(session.wake_at(60), Some(750));
        assert!(poll(&mut session, 749).is_none());
        assert_eq!(numbers(&poll(&mut session, 750).expect("again").1), [2]);
    }
}

/// Without any result everything is sent again, after twice the time each time, up to eight times the first.
#[test]
fn what_is_not_answered_is_sent_again_less_and_less_often() {
    let mut session = submitted([call(1, false)]);
    let mut at = 40;
    for factor in [1, 2, 4, 8, 8] {
        assert_eq!(numbers(&poll(&mut session, at).expect("it is time").1), [2]);
        assert_eq!(session.wake_at(at), Some(at + factor * RESEND));
        assert!(poll(&mut session, at + factor * RESEND - 1).is_none());
        at += factor * RESEND;
    }
    session.submit([sized(2, 20_000)]);
    let (flight, _) = poll(&mut session, at).expect("both");
    answer(&mut session, flight, 2, 7, 7, at);
    assert!(poll(&mut session, at + 10).is_none());
    assert_eq!(session.wake_at(at + 10), Some(at + 10 + RESEND), "a result: the other one has the first time again");
    answer(&mut session, flight, 3, 8, 8, at + 20);
    session.applied_here(FIRST, Done { sequence: 3, index: 8, result: CommandResult::Output(Bytes::new()) });
    assert!(poll(&mut session, at + 30).is_none());
    assert_eq!(session.wake_at(at + 30), None, "nothing is left");
}

/// In group time as far as it is known, and on from there by the own clock.
#[test]
fn a_command_is_dated_when_it_is_sent_first() {
    let mut session = open();
    session.observe_time(5_000, 1_000_000);
    session.observe_time(4_000, 1_000_000);
    session.submit([call(1, false)]);
    let (flight, batch) = poll(&mut session, 3_500_000).expect("the command");
    assert_eq!(batch.commands[0].attempted, 7_500);
    session.lost(flight, 0, 3_600_000);
    assert_eq!(poll(&mut session, 9_000_000).expect("again").1.commands[0].attempted, 7_500);
    session.observe_time(70_000, 9_000_000);
    session.submit([call(2, false)]);
    let (_, batch) = poll(&mut session, 9_001_000).expect("the other one");
    assert_eq!(batch.commands.last().map(|command| command.attempted), Some(70_001));
}

#[test]
fn openings_are_not_kept_and_count_once() {
    let mut session = new();
    session.submit([sized(0, 20_000), sized(1, 20_000)]);
    let _ = poll(&mut session, 0).expect("an opening");
    session.set_leader(Some((CLUSTER, LEADER, 2)));
    let (opening, _) = poll(&mut session, 10).expect("another one");
    assert_eq!(session.flights.len(), 1, "nobody waits for the first one any more");
    let done = || Done { sequence: 0, index: 5, result: CommandResult::Opened };
    session.applied_here(FIRST, done());
    assert!(session.flights.is_empty());
    let (flight, batch) = poll(&mut session, 20).expect("the commands");
    assert_eq!(numbers(&batch), [1, 2]);
    session.answered(opening, vec![done()], 0, 0, 30);
    session.applied_here(FIRST, done());
    session.applied_here(FIRST, Done { sequence: 0, index: 6, result: CommandResult::Full });
    assert!(told(&mut session).is_empty(), "it is open: there was room");
    assert!(poll(&mut session, 40).is_none(), "it was open: nothing begins again");
    assert!(session.flights.contains_key(&flight));
}

#[test]
fn what_was_never_sent_is_numbered_anew_in_another_session() {
    let mut session = submitted([sized(1, 20_000), sized(2, 20_000), sized(3, 20_000)]);
    let other = ClusterId(Digest([8; 32]));
    session.set_leader(Some((other, LEADER, 1)));
    let (flight, _) = poll(&mut session, 40).expect("an opening");
    opened(&mut session, flight, 3, 50);
    assert_eq!(numbers(&poll(&mut session, 60).expect("all").1), [1, 2, 3]);
}

#[test]
fn an_output_that_is_nowhere_is_told() {
    let mut session = submitted([call(1, false)]);
    let _ = poll(&mut session, 40).expect("the command");
    session.output_missing(2);
    assert_eq!(failures(&mut session), [(1, Failure::OutputMissing)]);
    assert_eq!(session.in_flight(), 0);
}
