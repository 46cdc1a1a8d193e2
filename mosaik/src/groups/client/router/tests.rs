//! Refusal, order and answers: by hand, and against a caller that resends at random.

use bytes::Bytes;

use super::*;
use crate::groups::{client::wire::Numbered, raft::Digest};

const SESSION: SessionId = SessionId(7);
const CLUSTER: ClusterId = ClusterId(Digest([1; 32]));
/// What a leader of the cluster says.
const LEADS: Option<ClusterId> = Some(CLUSTER);

fn batch(prior: u64, sequences: impl IntoIterator<Item = u64>) -> Batch {
    let command = |sequence| Numbered { sequence, attempted: 0, body: Bytes::from(vec![0; 8]) };
    Batch {
        cluster: CLUSTER,
        session: SESSION,
        opened: 1,
        settled: 1,
        prior,
        ack_on_append: false,
        commands: sequences.into_iter().map(command).collect(),
    }
}

fn done(sequence: u64, output: usize) -> Done {
    Done { sequence, index: 10 + sequence, result: CommandResult::Output(Bytes::from(vec![1; output])) }
}

/// The numbers that are proposed.
fn proposed(router: &mut Router<u64>) -> Vec<u64> {
    let sequence = |proposal: Proposal| match proposal.payload {
        Payload::Command(command) => command.sequence,
        _ => 0,
    };
    router.proposals().into_iter().map(sequence).collect()
}

fn applied(router: &mut Router<u64>, done: &Done) -> Vec<(u64, Vec<Done>)> {
    let mut told = Vec::new();
    router.applied(SESSION, done, 5, |notice| match notice {
        Notice::Remote(reply, Response::Done(done, _)) => told.push((reply, done)),
        other => panic!("{other:?} when a command was applied"),
    });
    told
}

fn is_rejected(notice: Option<&Notice<u64>>, why: Rejection) -> bool {
    match notice {
        Some(Notice::Rejected(_, no) | Notice::Remote(_, Response::Rejected(no))) => *no == why,
        _ => false,
    }
}

#[test]
fn commands_of_a_session_follow_each_other() {
    let mut router: Router<u64> = Router::new();
    assert!(is_rejected(router.take(batch(2, [3]), Source::Local(1), LEADS).as_ref(), Rejection::OutOfOrder));
    assert!(router.take(batch(0, [1, 2]), Source::Local(1), LEADS).is_none());
    assert!(is_rejected(router.take(batch(3, [4]), Source::Remote(2), LEADS).as_ref(), Rejection::OutOfOrder));
    assert!(router.take(batch(2, [3]), Source::Remote(3), LEADS).is_none());
    assert_eq!(proposed(&mut router), [1, 2, 3]);
    assert!(matches!(router.decided(None)[..], [Notice::Queued(1)]));
    // Another leadership has appended nothing.
    router.clear();
    assert!(is_rejected(router.take(batch(3, [4]), Source::Local(4), LEADS).as_ref(), Rejection::OutOfOrder));
    assert!(router.take(batch(0, [3]), Source::Local(5), LEADS).is_none());
    assert_eq!(proposed(&mut router), [3], "what an earlier leadership appended is proposed again");
}

#[test]
fn nobody_but_a_leader_takes_anything() {
    let mut router: Router<u64> = Router::new();
    assert!(is_rejected(router.take(batch(0, [1]), Source::Remote(1), None).as_ref(), Rejection::NotLeader));
    assert!(is_rejected(router.take(batch(0, []), Source::Remote(1), LEADS).as_ref(), Rejection::Unintelligible));
    let unopened = Batch { opened: 0, ..batch(0, [1]) };
    assert!(is_rejected(router.take(unopened, Source::Local(1), LEADS).as_ref(), Rejection::Unintelligible));
    let other = Some(ClusterId(Digest([2; 32])));
    assert!(is_rejected(router.take(batch(0, [1]), Source::Local(1), other).as_ref(), Rejection::NotLeader));
    assert!(router.is_idle() && proposed(&mut router).is_empty());
}

/// The core takes the first of five commands in three batches and refuses the others.
#[test]
fn after_a_refusal_nothing_of_the_session_is_taken_until_it_begins_again() {
    for (why, rejection) in [(Refusal::Busy, Rejection::Busy), (Refusal::NotLeader(None), Rejection::NotLeader)] {
        let mut router: Router<u64> = Router::new();
        assert!(router.take(batch(0, [1, 2]), Source::Local(1), LEADS).is_none());
        assert!(router.take(batch(2, [3, 4]), Source::Local(2), LEADS).is_none());
        assert!(router.take(batch(4, [5]), Source::Remote(3), LEADS).is_none());
        assert_eq!(proposed(&mut router), [1, 2, 3, 4, 5]);
        let notices = router.decided(Some((1, why)));
        let [Notice::Lost(1), Notice::Rejected(2, second), Notice::Remote(3, Response::Rejected(third))] = notices[..]
        else {
            panic!("{notices:?}")
        };
        assert_eq!((second, third), (rejection, rejection));
        // What follows a refused command is refused, too, or it would enter the log before that.
        assert!(is_rejected(router.take(batch(4, [5]), Source::Local(4), LEADS).as_ref(), Rejection::OutOfOrder));
        assert!(is_rejected(router.take(batch(1, [2]), Source::Local(4), LEADS).as_ref(), Rejection::OutOfOrder));
        assert!(router.take(batch(0, [1, 2, 3]), Source::Remote(5), LEADS).is_none());
        assert_eq!(proposed(&mut router), [2, 3], "the first is in the log already");
        assert!(router.decided(None).is_empty());
        assert!(applied(&mut router, &done(1, 1)).is_empty() && applied(&mut router, &done(2, 1)).is_empty());
        assert_eq!(applied(&mut router, &done(3, 1)), [(5, vec![done(1, 1), done(2, 1), done(3, 1)])]);
    }
}

/// Part of it is in the log: to say that none is would let the caller give it a known outcome.
#[test]
fn a_remote_batch_that_is_taken_in_part_gets_no_answer() {
    let mut router: Router<u64> = Router::new();
    assert!(router.take(batch(0, [1, 2]), Source::Remote(1), LEADS).is_none());
    assert_eq!(proposed(&mut router), [1, 2]);
    assert!(router.decided(Some((1, Refusal::Busy))).is_empty());
    assert!(applied(&mut router, &done(1, 1)).is_empty());
}

#[test]
fn an_answer_comes_when_all_are_applied_and_goes_to_everybody_who_asked() {
    let mut router: Router<u64> = Router::new();
    assert!(router.take(batch(0, [1, 2]), Source::Remote(1), LEADS).is_none());
    assert!(router.take(batch(0, [2]), Source::Remote(2), LEADS).is_none());
    assert!(router.take(batch(0, [2]), Source::Remote(3), LEADS).is_none());
    assert_eq!(proposed(&mut router), [1, 2], "each once");
    assert!(router.decided(None).is_empty(), "nothing is answered before it is applied");
    assert!(applied(&mut router, &done(1, 3)).is_empty());
    let both = vec![done(1, 3), done(2, 4)];
    assert_eq!(applied(&mut router, &done(2, 4)), [(1, both), (2, vec![done(2, 4)]), (3, vec![done(2, 4)])]);
    assert!(applied(&mut router, &done(2, 4)).is_empty(), "once");
}

#[test]
fn who_wants_no_more_is_answered_when_all_are_appended() {
    let mut router: Router<u64> = Router::new();
    assert!(router.take(Batch { ack_on_append: true, ..batch(0, [1]) }, Source::Remote(1), LEADS).is_none());
    assert_eq!(proposed(&mut router), [1]);
    assert!(matches!(router.decided(None)[..], [Notice::Remote(1, Response::Queued)]));
    assert!(applied(&mut router, &done(1, 1)).is_empty());
}

#[test]
fn outputs_that_do_not_fit_are_left_out() {
    let mut router: Router<u64> = Router::new();
    assert!(router.take(batch(0, [1, 2, 3]), Source::Remote(1), LEADS).is_none());
    assert_eq!(proposed(&mut router), [1, 2, 3]);
    assert!(router.decided(None).is_empty());
    assert!(applied(&mut router, &done(1, RESPONSE_BYTES - 1)).is_empty());
    assert!(applied(&mut router, &done(2, 2)).is_empty());
    let told = applied(&mut router, &done(3, 1));
    let results: Vec<_> = told[0].1.iter().map(|done| done.result == CommandResult::Elsewhere).collect();
    assert_eq!(results, [false, true, false]);
}

#[test]
fn remote_batches_that_wait_are_bounded() {
    let mut router: Router<u64> = Router::new();
    for n in 0..CALLS as u64 {
        assert!(router.take(batch(0, [1]), Source::Remote(n), LEADS).is_none());
        let _ = (proposed(&mut router), router.decided(None));
    }
    assert!(is_rejected(router.take(batch(0, [1]), Source::Remote(9), LEADS).as_ref(), Rejection::Busy));
    assert_eq!(applied(&mut router, &done(1, 1)).len(), CALLS);
    assert!(router.take(batch(0, [2]), Source::Remote(9), LEADS).is_none());
}

/// A caller with up to five batches under way, a core that refuses at random, leaderships that end at random. Within a
/// leadership a command is appended once, and only after all before it that the caller still waits for.
#[test]
fn whatever_is_refused_commands_enter_a_log_in_order() {
    let mut state = 1_u64;
    let mut below = |bound: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % bound
    };
    for _ in 0..2000 {
        let mut router: Router<u64> = Router::new();
        // Numbers in the log of this leadership; the next to be sent, the last that was sent before it, the lowest unsettled.
        let (mut log, mut next, mut prior, mut settled) = (Vec::new(), 1, 0, 1);
        for _ in 0..below(30) {
            let mut last_flight = 0;
            for flight in 1..=below(5) {
                let end = next + 1 + below(3);
                if router.take(batch(prior, next..end), Source::Local(flight), LEADS).is_none() {
                    (prior, next, last_flight) = (end - 1, end, flight);
                } else {
                    (prior, next) = (0, settled);
                }
            }
            let proposals = proposed(&mut router);
            let room = usize::try_from(below(2 + proposals.len() as u64)).expect("small");
            let refused = (room < proposals.len()).then_some((room as u64, Refusal::Busy));
            for sequence in proposals.into_iter().take(room) {
                assert!(!log.contains(&sequence), "{sequence} is appended twice: {log:?}");
                let follows = (settled..sequence).all(|before| log.contains(&before));
                assert!(follows, "{sequence} is appended before one that it follows: {log:?}, settled {settled}");
                log.push(sequence);
            }
            let notices = router.decided(refused);
            if notices.iter().any(|notice| !matches!(notice, Notice::Queued(_))) || last_flight == 0 {
                (prior, next) = (0, settled);
            }
            for _ in 0..below(4) {
                if log.contains(&settled) {
                    let _ = applied(&mut router, &done(settled, 1));
                    settled += 1;
                }
            }
            next = next.max(settled);
            if prior != 0 && prior < settled {
                prior = if below(2) == 0 { 0 } else { prior };
            }
            if below(20) == 0 {
                router.clear();
                log.clear();
                (prior, next) = (0, settled);
            }
        }
    }
}

/// A part of it that comes again takes nothing back.
#[test]
fn a_repetition_does_not_change_what_comes_next() {
    let mut router: Router<u64> = Router::new();
    assert!(router.take(batch(0, [1, 2, 3]), Source::Remote(1), LEADS).is_none());
    assert!(router.take(batch(0, [1]), Source::Remote(2), LEADS).is_none());
    assert!(router.take(batch(3, [4]), Source::Remote(3), LEADS).is_none(), "the third one is in the log");
    assert_eq!(proposed(&mut router), [1, 2, 3, 4]);
}

/// Openings of one session share an entry, and are answered when that is applied.
#[test]
fn a_session_is_opened_once() {
    let opening = || Batch { opened: 0, settled: 0, ..batch(0, []) };
    let mut router: Router<u64> = Router::new();
    assert!(router.take(opening(), Source::Remote(1), LEADS).is_none());
    assert!(router.take(opening(), Source::Remote(2), LEADS).is_none());
    let proposals = router.proposals();
    assert!(matches!(&proposals[..], [Proposal { payload: Payload::Open(SESSION), .. }]), "{proposals:?}");
    assert!(router.decided(None).is_empty());
    let opened = Done { sequence: 0, index: 3, result: CommandResult::Opened };
    assert_eq!(applied(&mut router, &opened), [(1, vec![opened.clone()]), (2, vec![opened.clone()])]);
    // A refused opening does not wait for ever.
    assert!(router.take(opening(), Source::Remote(3), LEADS).is_none());
    assert_eq!(router.proposals().len(), 1);
    let [Notice::Remote(3, Response::Rejected(Rejection::Busy))] = router.decided(Some((0, Refusal::Busy)))[..] else {
        panic!("it was refused")
    };
    assert!(router.take(opening(), Source::Remote(4), LEADS).is_none());
    assert_eq!(router.proposals().len(), 1, "it is proposed again");
}

/// Another session that comes in does not disturb the order of those that are known.
#[test]
fn sessions_follow_their_own_order() {
    let mut router: Router<u64> = Router::new();
    assert!(router.take(batch(0, [1]), Source::Local(1), LEADS).is_none());
    let other = Batch { session: SessionId(8), ..batch(0, [1]) };
    assert!(router.take(other, Source::Local(2), LEADS).is_none());
    assert!(router.take(batch(1, [2]), Source::Local(3), LEADS).is_none());
}

/// What the core refused from the first command of a batch on is not in its log.
#[test]
fn a_local_batch_is_rejected_or_lost() {
    for (refused, taken, expected) in [(2, 2, "[Queued(1), Rejected(2, NotLeader)]"), (3, 3, "[Queued(1), Lost(2)]")] {
        let mut router: Router<u64> = Router::new();
        assert!(router.take(batch(0, [1, 2]), Source::Local(1), LEADS).is_none());
        assert!(router.take(batch(2, [3, 4]), Source::Local(2), LEADS).is_none());
        assert_eq!(router.proposals().len(), 4);
        let notices = router.decided(Some((refused, Refusal::NotLeader(None))));
        assert_eq!(format!("{notices:?}"), expected, "{taken} were appended");
    }
}

/// Only so many sessions that wait for nothing are remembered, and none that waits is forgotten.
#[test]
fn sessions_that_wait_for_nothing_are_bounded() {
    let mut router: Router<u64> = Router::new();
    let more = 10;
    let session = |n: usize| SessionId(n as u128);
    for n in 0..SESSIONS + more {
        let one = Batch { session: session(n), ..batch(0, [1, 2]) };
        assert!(router.take(one, Source::Local(0), LEADS).is_none());
    }
    let _ = (router.proposals(), router.decided(None));
    router.applied(session(0), &done(1, 0), 5, |_| {});
    assert_eq!(router.waiting.len(), SESSIONS + more, "it waits for its other command");
    for (n, sequence) in (0..SESSIONS + more).flat_map(|n| [(n, 1), (n, 2)]) {
        router.applied(session(n), &done(sequence, 0), 5, |_| {});
    }
    assert_eq!(router.waiting.len(), SESSIONS);
}

#[test]
fn outputs_of_a_response_are_added_up() {
    let mut router: Router<u64> = Router::new();
    assert!(router.take(batch(0, [1, 2, 3]), Source::Remote(1), LEADS).is_none());
    let _ = (router.proposals(), router.decided(None));
    assert!(applied(&mut router, &done(1, 2_000)).is_empty() && applied(&mut router, &done(2, 2_000)).is_empty());
    let told = applied(&mut router, &done(3, RESPONSE_BYTES - 4_000));
    assert_eq!(told, [(1, vec![done(1, 2_000), done(2, 2_000), done(3, RESPONSE_BYTES - 4_000)])]);
}
