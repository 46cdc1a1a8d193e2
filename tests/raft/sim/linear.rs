//! A linearizability checker for registers: Wing & Gong's search with Lowe's memory, one key at a time.

#[expect(clippy::disallowed_types, reason = "only asked whether it holds something, and that must be fast")]
use std::collections::HashSet;

/// What was done to one register, and what came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "the simulator and the ledger's processes each have actions of their own")]
pub enum Action {
    Read {
        saw: u64,
    },
    /// Output: the value before; unknown if the operation never returned.
    Write {
        value: u64,
        was: Option<u64>,
    },
    Cas {
        expect: u64,
        value: u64,
        was: Option<u64>,
    },
    /// Output: the sum; unknown if the operation never returned.
    Add {
        amount: u64,
        sum: Option<u64>,
    },
    /// Output: whether the value was the expected one; unknown if the operation never returned.
    Swap {
        expect: u64,
        value: u64,
        done: Option<bool>,
    },
}

/// One operation. Without `end` it may take effect at any time after `start`, or never.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    pub start: u64,
    pub end: Option<u64>,
    pub action: Action,
}

/// The state after the action, or none if it contradicts what was seen.
fn act(state: u64, action: Action) -> Option<u64> {
    match action {
        Action::Read { saw } => (saw == state).then_some(state),
        Action::Write { value, was } => was.is_none_or(|was| was == state).then_some(value),
        Action::Cas { expect, value, was } => {
            was.is_none_or(|was| was == state).then_some(if state == expect { value } else { state })
        }
        Action::Add { amount, sum } => {
            let next = state.checked_add(amount)?;
            sum.is_none_or(|sum| sum == next).then_some(next)
        }
        Action::Swap { expect, value, done } => {
            let swaps = state == expect;
            done.is_none_or(|done| done == swaps).then_some(if swaps { value } else { state })
        }
    }
}

/// Whether some order explains the history of one register that begins at 0. `Err` if the search is too large.
pub fn check(history: &[Event]) -> Result<bool, usize> {
    let mut events = history.to_vec();
    events.sort_by_key(|event| event.start);
    let words = events.len().div_ceil(64);
    #[expect(clippy::disallowed_types, reason = "only asked whether it holds something, and that must be fast")]
    let mut seen: HashSet<(Vec<u64>, u64)> = HashSet::new();
    let mut stack = vec![(vec![0u64; words], 0u64)];
    let has = |set: &[u64], at: usize| set[at / 64] & (1 << (at % 64)) != 0;
    while let Some((done, state)) = stack.pop() {
        let open = |at: &usize| !has(&done, *at);
        let returned = (0..events.len()).filter(open).filter_map(|at| events[at].end);
        let Some(first_end) = returned.min() else { return Ok(true) };
        // Only what began before the earliest return may come next.
        for at in (0..events.len()).filter(open).take_while(|at| events[*at].start <= first_end) {
            let Some(next) = act(state, events[at].action) else { continue };
            let mut more = done.clone();
            more[at / 64] |= 1 << (at % 64);
            if seen.insert((more.clone(), next)) {
                stack.push((more, next));
            }
        }
        if seen.len() > 300_000 {
            return Err(seen.len());
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: u64, end: u64, action: Action) -> Event {
        Event { start, end: (end > 0).then_some(end), action }
    }

    #[test]
    fn accepts_overlap_and_refuses_stale_reads() {
        let write = at(1, 5, Action::Write { value: 7, was: Some(0) });
        assert_eq!(check(&[write, at(2, 3, Action::Read { saw: 0 }), at(4, 6, Action::Read { saw: 7 })]), Ok(true));
        assert_eq!(check(&[write, at(6, 7, Action::Read { saw: 0 })]), Ok(false));
        assert_eq!(check(&[write, at(2, 3, Action::Read { saw: 7 }), at(4, 5, Action::Read { saw: 0 })]), Ok(false));
    }

    #[test]
    fn an_operation_without_return_may_or_may_not_have_happened() {
        let lost = at(1, 0, Action::Write { value: 7, was: None });
        assert_eq!(check(&[lost, at(6, 7, Action::Read { saw: 0 })]), Ok(true));
        assert_eq!(check(&[lost, at(6, 7, Action::Read { saw: 7 })]), Ok(true));
        let back = [lost, at(6, 7, Action::Read { saw: 7 }), at(8, 9, Action::Read { saw: 0 })];
        assert_eq!(check(&back), Ok(false));
    }

    #[test]
    fn a_deposit_applied_twice_or_lost_is_seen() {
        let lost = at(1, 0, Action::Add { amount: 5, sum: None });
        for (sum, linear) in [(2, true), (7, true), (12, false)] {
            assert_eq!(check(&[lost, at(6, 7, Action::Add { amount: 2, sum: Some(sum) })]), Ok(linear), "{sum}");
        }
        let swap = at(8, 9, Action::Swap { expect: 2, value: 1, done: Some(true) });
        let added = at(6, 7, Action::Add { amount: 2, sum: Some(2) });
        assert_eq!(check(&[added, swap, at(10, 11, Action::Read { saw: 1 })]), Ok(true));
        assert_eq!(check(&[added, swap, at(10, 11, Action::Read { saw: 2 })]), Ok(false));
    }

    #[test]
    fn a_write_applied_twice_is_seen() {
        let history = [
            at(1, 2, Action::Write { value: 1, was: Some(0) }),
            at(3, 4, Action::Write { value: 2, was: Some(1) }),
            at(5, 6, Action::Read { saw: 1 }),
        ];
        assert_eq!(check(&history), Ok(false));
    }
}
