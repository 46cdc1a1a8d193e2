//! Our linearizability checker against another one (`todc-utils`), on random histories of a register, true and broken.

use todc_utils::{
    linearizability::{
        WGLChecker,
        history::{Action as Half, History},
    },
    specifications::Specification,
};

use crate::sim::{
    Rng,
    linear::{Action, Event, check},
};

struct Register;

impl Specification for Register {
    type State = u64;
    type Operation = Action;

    fn init() -> u64 {
        0
    }

    fn apply(operation: &Action, state: &u64) -> (bool, u64) {
        match *operation {
            Action::Read { saw } => (saw == *state, *state),
            Action::Write { value, was } => (was.is_none_or(|was| was == *state), value),
            Action::Cas { expect, value, was } => {
                (was.is_none_or(|was| was == *state), if *state == expect { value } else { *state })
            }
            Action::Add { amount, sum } => (sum.is_none_or(|sum| sum == *state + amount), *state + amount),
            Action::Swap { expect, value, done } => {
                (done.is_none_or(|done| done == (*state == expect)), if *state == expect { value } else { *state })
            }
        }
    }
}

/// The other checker knows no lost operations: each either never happened or ended last, so all choices are tried.
fn other(history: &[Event]) -> bool {
    let lost: Vec<usize> = (0..history.len()).filter(|at| history[*at].end.is_none()).collect();
    (0..1_u32 << lost.len()).any(|choice| {
        let happens = |at: &usize| lost.iter().position(|it| it == at).is_none_or(|bit| choice >> bit & 1 == 1);
        let mut halves = Vec::new();
        for at in (0..history.len()).filter(happens) {
            let event = history[at];
            halves.push((event.start, at, Half::Call(event.action)));
            halves.push((event.end.unwrap_or(u64::MAX), at, Half::Response(event.action)));
        }
        halves.sort_by_key(|(time, at, _)| (*time, *at));
        let halves: Vec<_> = halves.into_iter().map(|(_, at, half)| (at, half)).collect();
        halves.is_empty() || WGLChecker::<Register>::is_linearizable(History::from_actions(halves))
    })
}

/// What a true register may have shown: every operation takes effect at one point within its time.
fn history(rng: &mut Rng) -> Vec<Event> {
    let count = rng.between(2, 9);
    // Every point in time is used once, so that no order is ambiguous.
    let mut times: Vec<u64> = (1..=3 * count).collect();
    for at in (1..times.len()).rev() {
        times.swap(at, rng.below(at as u64 + 1) as usize);
    }
    let mut spans: Vec<Vec<u64>> = times.chunks(3).map(<[u64]>::to_vec).collect();
    spans.iter_mut().for_each(|span| span.sort_unstable());
    spans.sort_by_key(|span| span[1]);
    let mut state = 0;
    let mut out = Vec::new();
    for span in spans {
        let (value, expect) = (rng.between(1, 4), rng.below(4));
        let lost = rng.chance(150_000);
        let was = (!lost).then_some(state);
        let action = match rng.below(5) {
            0 if !lost => Action::Read { saw: state },
            1 => Action::Cas { expect, value, was },
            2 => Action::Add { amount: value, sum: was.map(|was| was + value) },
            3 => Action::Swap { expect, value, done: was.map(|was| was == expect) },
            _ => Action::Write { value, was },
        };
        if !lost || rng.chance(500_000) {
            state = Register::apply(&action, &state).1;
        }
        out.push(Event { start: span[0], end: (!lost).then_some(span[2]), action });
    }
    out
}

/// Changes what one operation saw, or when it was.
fn spoil(history: &mut [Event], rng: &mut Rng) {
    let at = rng.below(history.len() as u64) as usize;
    let seen = rng.below(5);
    match &mut history[at].action {
        Action::Read { saw } => *saw = seen,
        Action::Write { was, .. } | Action::Cas { was, .. } => *was = was.map(|_| seen),
        Action::Add { sum, .. } => *sum = sum.map(|_| seen),
        Action::Swap { done, .. } => *done = done.map(|done| !done),
    }
}

#[test]
fn two_checkers_agree() {
    let mut rng = Rng::new(1);
    let (mut linear, mut broken) = (0, 0);
    for _ in 0..4_000 {
        let mut history = history(&mut rng);
        assert_eq!(check(&history), Ok(true), "it came from a register: {history:?}");
        assert!(other(&history), "the other checker: {history:?}");
        for _ in 0..rng.below(3) {
            spoil(&mut history, &mut rng);
        }
        let ours = check(&history).expect("small");
        assert_eq!(ours, other(&history), "{history:?}");
        linear += u64::from(ours);
        broken += u64::from(!ours);
    }
    assert!(linear > 500 && broken > 500, "{linear} linear, {broken} broken: not much of a comparison");
}
