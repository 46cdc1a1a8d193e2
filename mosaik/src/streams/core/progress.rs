//! What a consumer has received from one producer: order, gaps and epochs.
//!
//! A producer counts its items from 0 in each epoch; epochs grow. This says, for every subscription made and every batch
//! received, what to deliver and what was missed. It outlives single subscriptions, so that a reconnect shows what it cost.

use crate::streams::events::GapReason;

/// Items that were missed: from `from` up to, not including, `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Missed {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) reason: GapReason,
}

/// What a new subscription means.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Joined {
    /// The producer has started anew since the last subscription: its epoch before.
    pub(crate) restarted_from: Option<u64>,
    pub(crate) missed: Option<Missed>,
}

/// What to do with a batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Step {
    /// This many of its first items were delivered before and are dropped.
    pub(crate) skip: u64,
    pub(crate) missed: Option<Missed>,
}

/// See the module's text.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Progress {
    /// Epoch and next expected sequence number; `None` before the first subscription.
    at: Option<(u64, u64)>,
}

impl Progress {
    /// The producer accepted a subscription that starts at `next`. An epoch older than the known one is still taken: a
    /// producer's clock may have gone back, and the items are new to us.
    pub(crate) fn joined(&mut self, epoch: u64, next: u64) -> Joined {
        let Some((known, expected)) = self.at else {
            self.at = Some((epoch, next));
            return Joined::default();
        };
        if known != epoch {
            self.at = Some((epoch, next));
            let missed = (next > 0).then_some(Missed { from: 0, to: next, reason: GapReason::Restarted });
            return Joined { restarted_from: Some(known), missed };
        }
        let missed = (next > expected).then_some(Missed { from: expected, to: next, reason: GapReason::Reconnected });
        self.at = Some((epoch, expected.max(next)));
        Joined { restarted_from: None, missed }
    }

    /// A batch arrived: `count` items from `first` on.
    pub(crate) fn received(&mut self, first: u64, count: u64) -> Step {
        let Some((epoch, expected)) = self.at else { return Step { skip: count, missed: None } };
        let end = first.saturating_add(count);
        self.at = Some((epoch, expected.max(end)));
        Step {
            skip: expected.saturating_sub(first).min(count),
            missed: (first > expected).then_some(Missed { from: expected, to: first, reason: GapReason::Skipped }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_in_order_are_no_event() {
        let mut progress = Progress::default();
        assert_eq!(progress.joined(1, 5), Joined::default(), "a late joiner has missed nothing it asked for");
        assert_eq!(progress.received(5, 3), Step::default());
        assert_eq!(progress.received(8, 1), Step::default());
    }

    #[test]
    fn a_jump_is_a_gap_and_a_repetition_is_dropped() {
        let mut progress = Progress::default();
        progress.joined(1, 0);
        progress.received(0, 2);
        let missed = Missed { from: 2, to: 7, reason: GapReason::Skipped };
        assert_eq!(progress.received(7, 1), Step { skip: 0, missed: Some(missed) });
        assert_eq!(progress.received(5, 4), Step { skip: 3, missed: None });
        assert_eq!(progress.received(5, 4), Step { skip: 4, missed: None });
        assert_eq!(progress.received(9, 1), Step::default());
    }

    #[test]
    fn a_reconnect_tells_what_it_cost() {
        let mut progress = Progress::default();
        progress.joined(1, 0);
        progress.received(0, 10);
        let missed = Missed { from: 10, to: 15, reason: GapReason::Reconnected };
        assert_eq!(progress.joined(1, 15), Joined { restarted_from: None, missed: Some(missed) });
        assert_eq!(progress.received(15, 1), Step::default());
        assert_eq!(progress.joined(1, 16), Joined::default());
    }

    #[test]
    fn a_restart_is_told_with_what_was_missed_of_the_new_epoch() {
        let mut progress = Progress::default();
        progress.joined(1, 0);
        progress.received(0, 10);
        assert_eq!(progress.joined(2, 0), Joined { restarted_from: Some(1), missed: None });
        let missed = Missed { from: 0, to: 4, reason: GapReason::Restarted };
        assert_eq!(progress.joined(3, 4), Joined { restarted_from: Some(2), missed: Some(missed) });
        assert_eq!(progress.received(4, 1), Step::default());
    }
}
