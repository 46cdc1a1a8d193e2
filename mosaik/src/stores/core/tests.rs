//! What a replica may fold, wait for and take, step by step and at random.

use std::collections::VecDeque;

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::*;

pub(super) fn peer(number: u8) -> PeerId {
    iroh::SecretKey::from_bytes(&[number; 32]).public().into()
}

fn synced(cut: &Cut) -> bool {
    matches!(cut.standing(), Standing::Synced(_))
}

fn wanted(primary: PeerId, epoch: u64, at_least: u64) -> Wanted {
    Wanted { primary, epoch, at_least }
}

#[test]
fn a_late_joiner_takes_a_snapshot_and_the_deltas_behind_it() {
    let (mut cut, a) = (Cut::default(), peer(1));
    cut.connected(a, 7, 10, false);
    assert_eq!(cut.wanted(), Some(wanted(a, 7, 10)));
    assert!(!synced(&cut));
    assert_eq!([cut.delta(a, 7, 10, true), cut.delta(a, 7, 11, true), cut.delta(a, 7, 12, true)], [Verdict::Hold; 3]);
    assert!(cut.snapshot(a, 7, 9, Witness::Volatile), "more than nothing, and delta 9 is missing");
    assert_eq!((cut.wanted(), synced(&cut)), (Some(wanted(a, 7, 10)), false));
    assert_eq!([cut.delta(a, 7, 10, true), cut.delta(a, 7, 11, true), cut.delta(a, 7, 12, true)], [Verdict::Hold; 3]);
    assert!(cut.snapshot(a, 7, 12, Witness::Volatile));
    assert_eq!([cut.delta(a, 7, 10, true), cut.delta(a, 7, 11, true), cut.delta(a, 7, 12, true)], {
        use Verdict::*;
        [Drop, Drop, Fold]
    });
    assert!(synced(&cut));
    assert!(!cut.snapshot(a, 7, 13, Witness::Volatile), "nobody asked");
}

#[test]
fn who_comes_back_goes_on_unless_something_is_missing() {
    let (mut cut, a) = (Cut::default(), peer(1));
    cut.connected(a, 7, 0, false);
    assert!(cut.snapshot(a, 7, 0, Witness::Volatile));
    assert_eq!(cut.delta(a, 7, 0, true), Verdict::Fold);
    cut.disconnected(a);
    assert!(!synced(&cut));
    cut.connected(a, 7, 1, true);
    assert!(synced(&cut) && cut.resumed == 1);
    cut.disconnected(a);
    cut.connected(a, 7, 5, true);
    cut.missed(a, 5);
    assert_eq!(cut.wanted(), Some(wanted(a, 7, 5)));
    assert_eq!(cut.delta(a, 7, 5, true), Verdict::Hold);
    assert!(cut.snapshot(a, 7, 5, Witness::Volatile));
    assert_eq!(cut.delta(a, 7, 5, true), Verdict::Fold);
}

#[test]
fn another_run_and_another_primary_are_never_mixed_in() {
    let (mut cut, a, b) = (Cut::default(), peer(1), peer(2));
    cut.connected(a, 7, 0, false);
    assert!(cut.snapshot(a, 7, 3, Witness::Volatile));
    cut.connected(b, 9, 50, false);
    assert_eq!((cut.wanted(), cut.primaries()), (None, 2), "it stays with the one it has");
    assert_eq!(cut.delta(b, 9, 50, true), Verdict::Drop);
    cut.disconnected(a);
    assert_eq!(cut.wanted(), Some(wanted(b, 9, 51)), "a delta of it was dropped");
    assert_eq!(cut.delta(a, 7, 3, true), Verdict::Fold, "what was on its way still fits the state");
    assert!(!cut.snapshot(a, 7, 60, Witness::Volatile));
    assert!(cut.snapshot(b, 9, 51, Witness::Volatile));
    assert_eq!([cut.delta(a, 7, 4, true), cut.delta(b, 9, 51, true)], [Verdict::Drop, Verdict::Fold]);
    cut.connected(b, 10, 0, false);
    assert_eq!(cut.wanted(), Some(wanted(b, 10, 0)), "it has started anew");
    assert_eq!([cut.delta(b, 9, 52, true), cut.delta(b, 10, 0, true)], [Verdict::Fold, Verdict::Hold]);
}

#[test]
fn what_is_lacked_is_not_forgotten_by_a_reconnect() {
    let (mut cut, a) = (Cut::default(), peer(1));
    cut.connected(a, 7, 0, false);
    assert!(cut.snapshot(a, 7, 5, Witness::Volatile));
    assert_eq!(cut.delta(a, 7, 8, true), Verdict::Hold);
    cut.disconnected(a);
    assert_eq!((cut.wanted(), cut.standing()), (Some(wanted(a, 7, 8)), Standing::Alone), "it may still come");
    cut.connected(a, 7, 9, true); // the stream goes on behind delta 8
    assert_eq!((cut.wanted(), synced(&cut)), (Some(wanted(a, 7, 8)), false));
    assert!(cut.snapshot(a, 7, 8, Witness::Volatile));
    assert_eq!(cut.delta(a, 7, 8, true), Verdict::Fold);
}

#[test]
fn who_forgot_what_it_received_asks_for_what_it_may_lack() {
    let (mut cut, a) = (Cut::default(), peer(1));
    cut.connected(a, 7, 0, false);
    assert!(cut.snapshot(a, 7, 5, Witness::Volatile));
    cut.disconnected(a);
    cut.connected(a, 7, 6, false);
    assert_eq!((cut.wanted(), synced(&cut)), (Some(wanted(a, 7, 6)), false));
    assert!(cut.snapshot(a, 7, 6, Witness::Volatile));
    cut.disconnected(a);
    cut.connected(a, 7, 6, false);
    assert!(synced(&cut) && cut.resumed == 1, "nothing is lacking");
    // What was on its way all the time makes a snapshot needless, and one that comes late is of no use.
    cut.disconnected(a);
    cut.connected(a, 7, 8, false);
    assert_eq!([cut.delta(a, 7, 6, true), cut.delta(a, 7, 7, true), cut.delta(a, 7, 8, true)], [Verdict::Fold; 3]);
    assert!(synced(&cut) && !cut.snapshot(a, 7, 8, Witness::Volatile), "the state is at 9");
}

/// The start of a durable primary.
fn durable(number: u64) -> Witness {
    Witness::Durable(Start { number, id: 7 * number })
}

#[test]
fn what_finds_no_room_is_fetched_later() {
    let (mut cut, a) = (Cut::default(), peer(1));
    cut.connected(a, 7, 10, false);
    assert_eq!(cut.delta(a, 7, 10, true), Verdict::Hold);
    assert_eq!([cut.delta(a, 7, 11, false), cut.delta(a, 7, 12, false)], [Verdict::Drop; 2]);
    assert_eq!((cut.wanted(), cut.left_out), (Some(wanted(a, 7, 13)), 2));
    // The snapshot that is on its way is taken all the same: it is more than nothing.
    assert!(cut.snapshot(a, 7, 10, Witness::Volatile));
    assert_eq!(cut.delta(a, 7, 10, true), Verdict::Fold);
    assert_eq!((cut.wanted(), synced(&cut)), (Some(wanted(a, 7, 13)), false), "and another one is needed");
    assert!(!cut.snapshot(a, 7, 11, Witness::Volatile), "this one is known already");
    assert_eq!(cut.delta(a, 7, 13, true), Verdict::Hold);
    assert!(cut.snapshot(a, 7, 13, Witness::Volatile));
    assert_eq!((cut.delta(a, 7, 13, true), synced(&cut), cut.left_out), (Verdict::Fold, true, 0));
}

#[test]
fn who_comes_back_to_a_durable_primary_lets_it_check_first() {
    let (mut cut, a) = (Cut::default(), peer(1));
    cut.connected(a, 7, 0, false);
    assert!(cut.snapshot(a, 7, 5, durable(1)));
    cut.disconnected(a);
    cut.connected(a, 7, 5, true);
    let claim = cut.claim().expect("a claim");
    assert_eq!((claim.next, claim.start), (5, Some(Start { number: 1, id: 7 })));
    assert_eq!((cut.delta(a, 7, 5, true), cut.standing()), (Verdict::Hold, Standing::Catching(a)));
    assert_eq!(cut.delta(a, 7, 6, false), Verdict::Drop);
    cut.checked(claim, durable(2));
    assert_eq!((cut.claim(), cut.witness(), cut.wanted()), (None, durable(2), Some(wanted(a, 7, 7))));
    assert_eq!(cut.delta(a, 7, 5, true), Verdict::Fold);
    assert!(cut.snapshot(a, 7, 7, durable(2)));
    // It was put back to an older copy: nothing of what it says of this run counts any more.
    cut.disconnected(a);
    cut.connected(a, 7, 7, true);
    let claim = cut.claim().expect("a claim");
    cut.contradicted(claim);
    assert_eq!((cut.standing(), cut.delta(a, 7, 7, true)), (Standing::Refused(a), Verdict::Drop));
    cut.disconnected(a);
    cut.connected(a, 9, 0, false);
    assert_eq!((cut.wanted(), cut.must_continue()), (Some(wanted(a, 9, 0)), None));
}

#[test]
fn a_primary_that_is_behind_is_asked_whatever_it_is() {
    for witness in [Witness::Volatile, Witness::Unknown] {
        let mut cut = Cut::restored(At { primary: peer(1), epoch: 7, next: 5 }, witness);
        cut.connected(peer(1), 7, 3, true);
        assert!(cut.claim().is_some_and(|claim| claim.next == 5 && claim.start.is_none()));
    }
}

#[test]
fn a_guarded_state_is_left_for_another_history_on_a_word_only() {
    let (a, b) = (peer(1), peer(2));
    let kept = || {
        let mut cut = Cut::restored(At { primary: a, epoch: 7, next: 5 }, durable(1)).guarded(true);
        cut.connected(b, 9, 3, false);
        assert_eq!((cut.wanted(), cut.must_continue()), (Some(wanted(b, 9, 3)), Some(7)));
        cut.refuse(b, 9);
        assert_eq!((cut.standing(), cut.wanted()), (Standing::Refused(b), None));
        assert_eq!(cut.delta(b, 9, 3, true), Verdict::Drop);
        cut
    };
    let mut cut = kept();
    cut.connected(a, 7, 5, true);
    let claim = cut.claim().expect("a claim");
    cut.checked(claim, durable(1));
    assert_eq!(cut.standing(), Standing::Synced(a), "its own primary is back");
    cut.disconnected(a);
    assert_eq!(cut.standing(), Standing::Refused(b));

    let mut cut = kept();
    cut.follow(b);
    assert_eq!((cut.wanted(), cut.must_continue()), (Some(wanted(b, 9, 4)), None));
    assert!(cut.snapshot(b, 9, 4, durable(1)));
    assert_eq!(cut.standing(), Standing::Synced(b));
    cut.disconnected(b);
    cut.connected(b, 11, 0, false);
    assert_eq!(cut.must_continue(), Some(9), "a word counts once");

    // A later run of it may be another matter, and is looked at.
    let mut cut = kept();
    cut.disconnected(b);
    cut.connected(b, 10, 0, false);
    assert_eq!((cut.wanted(), cut.must_continue()), (Some(wanted(b, 10, 0)), Some(7)));

    // What is in memory only, or came from a primary in memory, or is nothing, goes.
    for (guarded, witness, next) in [(false, durable(1), 5), (true, Witness::Volatile, 5), (true, durable(1), 0)] {
        let mut cut = Cut::restored(At { primary: a, epoch: 7, next }, witness).guarded(guarded);
        cut.connected(b, 9, 0, false);
        assert_eq!((cut.wanted(), cut.must_continue()), (Some(wanted(b, 9, 0)), None));
    }

    // A run that continues another one has something before its first delta.
    let mut cut = Cut::restored(At { primary: a, epoch: 7, next: 0 }, durable(1)).guarded(true);
    cut.begins_with(true);
    cut.connected(b, 9, 0, false);
    assert_eq!(cut.must_continue(), Some(7));
}

#[test]
fn a_delta_that_cannot_be_folded_is_replaced_by_a_snapshot() {
    let (mut cut, a) = (Cut::default(), peer(1));
    cut.connected(a, 7, 0, false);
    assert!(cut.snapshot(a, 7, 5, Witness::Volatile));
    assert_eq!([cut.delta(a, 7, 5, true), cut.delta(a, 7, 6, true)], [Verdict::Fold; 2]);
    cut.unfoldable(5, 6); // what was folded before it is undone with it
    assert_eq!((cut.at().map(|at| at.next), cut.wanted()), (Some(5), Some(wanted(a, 7, 7))));
    assert_eq!(cut.delta(a, 7, 7, true), Verdict::Hold);
    assert!(!cut.snapshot(a, 7, 4, Witness::Volatile));
    assert!(cut.snapshot(a, 7, 7, Witness::Volatile));
    assert_eq!((cut.delta(a, 7, 7, true), synced(&cut)), (Verdict::Fold, true));
}

/// Deltas, snapshots, checks and a lack of room in any order that streams allow: the state is always a prefix of one run, and
/// all of it when nothing is under way.
#[test]
fn what_is_folded_is_always_a_prefix() {
    for seed in 0..3000 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let (mut cut, a) = (Cut::default(), peer(1));
        let witness = if rng.random() { durable(1) } else { Witness::Volatile };
        let (mut epoch, mut head) = (1, 0u64);
        // What the consumer has: epoch and next number; and what the state has.
        let mut received: Option<(u64, u64)> = None;
        let mut state: Option<(u64, u64)> = None;
        let (mut queue, mut held, mut connected) = (VecDeque::new(), Vec::new(), false);
        for _ in 0..300 {
            match rng.random_range(0..11) {
                0..4 => {
                    if connected {
                        queue.push_back((epoch, head));
                        received = Some((epoch, head + 1));
                    }
                    head += 1;
                }
                4 if !connected => {
                    // Now and then the consumer has forgotten what it had.
                    received = received.filter(|_| rng.random_range(0..4) > 0);
                    let had = received.map(|(of, next)| if of == epoch { next } else { 0 });
                    let next = if rng.random() { head } else { had.unwrap_or(head) };
                    cut.connected(a, epoch, next, received.is_some_and(|(of, _)| of == epoch));
                    if had.is_some_and(|had| had < next) {
                        cut.missed(a, next);
                    }
                    queue.extend((next..head).map(|seq| (epoch, seq)));
                    (received, connected) = (Some((epoch, head)), true);
                }
                5 if connected && rng.random_range(0..4) == 0 => {
                    cut.disconnected(a);
                    connected = false;
                    if rng.random() {
                        (epoch, head) = (epoch + 1, 0);
                    }
                }
                6 => {
                    let position = rng.random_range(0..=head);
                    let wanted = cut.wanted().filter(|it| it.epoch == epoch);
                    let has = state.filter(|(of, _)| *of == epoch).map(|(_, next)| next);
                    let taken = wanted.is_some_and(|wanted| {
                        has.is_none_or(|has| position > has || (position == has && position >= wanted.at_least))
                    });
                    assert_eq!(cut.snapshot(a, epoch, position, witness), taken, "seed {seed}");
                    if taken {
                        state = Some((epoch, position));
                        std::mem::take(&mut held).into_iter().rev().for_each(|delta| queue.push_front(delta));
                    }
                }
                7 => {
                    let Some(claim) = cut.claim() else { continue };
                    cut.checked(claim, witness);
                    std::mem::take(&mut held).into_iter().rev().for_each(|delta| queue.push_front(delta));
                }
                _ => {
                    let Some((of, seq)) = queue.pop_front() else { continue };
                    match cut.delta(a, of, seq, rng.random_range(0..4) > 0) {
                        Verdict::Fold => {
                            assert_eq!(state, Some((of, seq)), "seed {seed}: folded out of order");
                            state = Some((of, seq + 1));
                        }
                        Verdict::Hold => held.push((of, seq)),
                        Verdict::Drop => {}
                    }
                }
            }
            if connected && synced(&cut) && queue.is_empty() {
                assert_eq!(state, Some((epoch, head)), "seed {seed}: synced and not all there");
            }
        }
    }
}

/// A copy of a primary's file that is older than its present run.
#[test]
fn a_primary_that_is_back_in_an_earlier_run_is_asked_about_the_later_one() {
    let a = peer(1);
    let mut cut = Cut::restored(At { primary: a, epoch: 9, next: 5 }, durable(1)).guarded(true);
    cut.connected(a, 7, 100, false);
    let claim = cut.claim().expect("a claim");
    assert_eq!((claim.epoch, claim.next, cut.standing()), (9, 5, Standing::Catching(a)));
    cut.contradicted(claim);
    assert_eq!((cut.standing(), cut.wanted()), (Standing::Refused(a), None));
    cut.disconnected(a);
    cut.connected(a, 11, 0, false);
    assert_eq!((cut.wanted(), cut.must_continue()), (Some(wanted(a, 11, 0)), Some(9)));
}
