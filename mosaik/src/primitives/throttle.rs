//! Few lines instead of many: what an operator is told of each kind of event is bounded by the minute.
//!
//! A kind is told of line by line until it has had [`LINES`] within a minute. What comes after that is counted, and told in one line
//! at the end of each minute, until a minute has passed with fewer. Pure: time comes in as an argument.

use std::{collections::BTreeMap, time::Duration};

/// Lines of one kind in a minute.
pub(crate) const LINES: u32 = 20;
/// The minute.
pub(crate) const WINDOW: Duration = Duration::from_mins(1);

/// The kinds of events; `K` tells them apart and has few values.
#[derive(Debug)]
pub(crate) struct Throttle<K>(BTreeMap<K, Kind>);

#[derive(Debug)]
struct Kind {
    since: Duration,
    /// Events in this window.
    events: u32,
    /// Those of them that were not told.
    held: u32,
    /// Whether the window before had more than may be told one by one.
    flooded: bool,
}

impl<K> Default for Throttle<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Copy> Throttle<K> {
    /// Whether an event of that kind is to be told now; otherwise it is counted. `now` is time since any fixed moment.
    /// [`due`](Self::due) must have been asked with the same `now` before.
    pub(crate) fn admits(&mut self, kind: K, now: Duration) -> bool {
        let kind = self.0.entry(kind).or_insert(Kind { since: now, events: 0, held: 0, flooded: false });
        kind.events = kind.events.saturating_add(1);
        let admits = !kind.flooded && kind.events <= LINES;
        kind.held = kind.held.saturating_add(u32::from(!admits));
        admits
    }

    /// The kinds whose minute is over, each with how many of its events were not told.
    pub(crate) fn due(&mut self, now: Duration) -> Vec<(K, u32)> {
        let mut due = Vec::new();
        self.0.retain(|kind, state| {
            if now < state.since + WINDOW {
                return true;
            }
            if state.held > 0 {
                due.push((*kind, state.held));
            }
            let flooded = state.events > LINES;
            *state = Kind { since: now, events: 0, held: 0, flooded };
            flooded
        });
        due
    }

    /// What is held at the end, whether its minute is over or not.
    pub(crate) fn rest(&mut self) -> Vec<(K, u32)> {
        let held = std::mem::take(&mut self.0).into_iter();
        held.filter(|(_, state)| state.held > 0).map(|(kind, state)| (kind, state.held)).collect()
    }

    /// When [`due`](Self::due) has something to say next, if nothing else happens.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.0.values().filter(|state| state.held > 0).map(|state| state.since + WINDOW).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// Events of one kind at a moment; how many lines they make.
    fn lines(throttle: &mut Throttle<u8>, events: u32, at: u64) -> u32 {
        let summaries = u32::try_from(throttle.due(secs(at)).len()).unwrap();
        let told = (0..events).filter(|_| throttle.admits(1, secs(at))).count();
        summaries + u32::try_from(told).unwrap()
    }

    #[test]
    fn a_flood_makes_one_line_a_minute_for_as_long_as_it_lasts() {
        let mut throttle = Throttle::default();
        assert_eq!(lines(&mut throttle, 5, 0), 5);
        assert_eq!(lines(&mut throttle, 1000, 10), LINES - 5);
        assert_eq!(throttle.next(), Some(secs(60)));
        assert!(throttle.admits(2, secs(10)), "another kind");
        assert_eq!(throttle.due(secs(59)), []);
        assert_eq!(throttle.due(secs(60)), [(1, 985)]);
        for minute in 1..10 {
            assert_eq!(lines(&mut throttle, 1000, minute * 60 + 1), u32::from(minute > 1), "minute {minute}");
        }
        assert_eq!(throttle.due(secs(700)), [(1, 1000)]);
        assert_eq!(lines(&mut throttle, 3, 720), 0, "the minute after the flood");
        assert_eq!(throttle.due(secs(770)), [(1, 3)]);
        assert_eq!(lines(&mut throttle, 3, 771), 3, "one by one again");
        assert_eq!(throttle.rest(), []);
    }

    #[test]
    fn nothing_is_kept_of_kinds_that_are_quiet_and_the_rest_is_told_at_the_end() {
        let mut throttle = Throttle::default();
        lines(&mut throttle, 3, 0);
        assert_eq!((throttle.due(secs(60)), throttle.0.len(), throttle.next()), (vec![], 0, None));
        lines(&mut throttle, LINES + 2, 61);
        assert_eq!(throttle.rest(), [(1, 2)]);
    }
}
