//! What a consumer has of one sequence that several producers publish alike: item `n` of each of them is the same item. So it goes on at
//! the next item with another producer, and what two of them send is handed on once.
//!
//! Gaps are found in what each producer sends ([`progress`](super::progress)); here is only said which of them were not told yet. A
//! producer that trails a [standby's](Trail) heads for too long is to be replaced.

use std::time::Duration;

use super::{
    mutants::{Mutant, Switch},
    progress::{Missed, Step},
};

/// See the module's text.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Union {
    /// Everything before was handed on or is told as missed; `None` before the first item.
    next: Option<u64>,
    switch: Switch,
}

impl Union {
    /// One with a planted bug, or none.
    #[allow(dead_code, reason = "for simulations and consumers")]
    pub(crate) fn with(switch: Switch) -> Self {
        Self { next: None, switch }
    }

    /// The number of the next item: from there on a producer is to send.
    pub(crate) fn next(&self) -> Option<u64> {
        let ahead = u64::from(self.switch.is(Mutant::HandOverLoses));
        self.next.map(|next| next + ahead)
    }

    /// Other numbers count from now on, of which nothing is had.
    #[allow(dead_code, reason = "simulations of the core do without")]
    pub(crate) fn restart(&mut self) {
        self.next = Some(0);
    }

    /// A producer whose items nobody has is accepted from `next` on.
    pub(crate) fn begins(&mut self, next: u64) {
        self.next.get_or_insert(next);
    }

    /// `count` items from `first` on came from a producer, of which its first `step.skip` are not new.
    pub(crate) fn received(&mut self, first: u64, count: u64, step: Step) -> Step {
        let missed = step.missed.and_then(|missed| self.missed(missed));
        let end = first.saturating_add(count);
        let had = self.next.unwrap_or(first).saturating_sub(first).min(count);
        let skip = if self.switch.is(Mutant::HandOverRepeats) { step.skip } else { had.max(step.skip) };
        self.next = Some(self.next.map_or(end, |next| next.max(end)));
        Step { skip, missed }
    }

    /// A producer does not have these: the part that nobody else has sent.
    pub(crate) fn missed(&mut self, missed: Missed) -> Option<Missed> {
        let from = missed.from.max(self.next.unwrap_or(missed.from));
        if from >= missed.to {
            return None;
        }
        self.next = Some(missed.to);
        Some(Missed { from, ..missed })
    }

    /// Nothing that is asked for comes before `next`.
    pub(crate) fn passed(&mut self, next: u64) {
        self.next = self.next.map(|known| known.max(next));
    }
}

/// How far the items that a consumer has are behind a standby's heads, in time.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Trail {
    /// A number that the standby has reached and the consumer has not, and since when.
    waits: Option<(u64, Duration)>,
    /// The standby's last head.
    head: u64,
}

impl Trail {
    /// The standby says that `next` comes next there; the consumer has everything before `had`.
    pub(crate) fn head(&mut self, next: u64, had: Option<u64>, now: Duration) {
        self.head = self.head.max(next);
        self.look(had, now);
    }

    /// Since when the consumer lacks what the standby has, if it does.
    pub(crate) fn look(&mut self, had: Option<u64>, now: Duration) -> Option<Duration> {
        let had = had?;
        if self.waits.is_some_and(|(seq, _)| seq <= had) {
            self.waits = None;
        }
        if self.waits.is_none() && self.head > had {
            self.waits = Some((self.head, now));
        }
        self.waits.map(|(_, since)| since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::core::progress::GapReason;

    #[test]
    fn what_two_producers_send_is_handed_on_once() {
        let mut union = Union::default();
        let step = Step::default();
        assert_eq!(union.next(), None);
        assert_eq!(union.received(5, 3, step), step);
        assert_eq!(union.received(6, 4, step).skip, 2);
        assert_eq!(union.received(5, 2, step).skip, 2);
        assert_eq!(union.next(), Some(10));
    }

    #[test]
    fn only_what_nobody_sent_is_missed() {
        let mut union = Union::default();
        union.received(0, 10, Step::default());
        let gap = |from, to| Missed { from, to, reason: GapReason::Reconnected };
        assert_eq!(union.missed(gap(4, 9)), None);
        assert_eq!(union.missed(gap(4, 12)), Some(gap(10, 12)));
        let step = Step { skip: 0, missed: Some(gap(8, 15)) };
        assert_eq!(union.received(15, 1, step), Step { skip: 0, missed: Some(gap(12, 15)) });
        assert_eq!(union.next(), Some(16));
    }

    #[test]
    fn a_trail_is_as_old_as_what_is_lacking() {
        let at = Duration::from_millis;
        let mut trail = Trail::default();
        trail.head(10, Some(10), at(0));
        assert_eq!(trail.look(Some(10), at(5)), None);
        trail.head(12, Some(10), at(10));
        trail.head(20, Some(11), at(20));
        assert_eq!(trail.look(Some(11), at(30)), Some(at(10)));
        assert_eq!(trail.look(Some(12), at(40)), Some(at(40)), "it has what it lacked, and lacks more");
        assert_eq!(trail.look(Some(20), at(50)), None);
        assert_eq!(trail.look(None, at(60)), None);
    }
}
