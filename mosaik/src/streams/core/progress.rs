//! What a consumer has received from one producer: order, gaps and epochs.
//!
//! A producer counts its items from 0 in each epoch; epochs grow. This says, for every subscription made and every batch
//! received, what to deliver and what was missed. It outlives single subscriptions, so that a reconnect shows what it cost.
//!
//! A subscription may begin with a *replay* of what the producer keeps for late joiners, below its *cut*; the live flow waits until
//! the replay is over. What a consumer that was never there before is not replayed is no gap: it had not asked for it. What one
//! that comes back is not replayed is, also if it was cut off in the middle of its first replay.

use serde::{Deserialize, Serialize};

use super::mutants::{Mutant, Switch};

/// Why items were missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GapReason {
    /// They were sent while this consumer was not subscribed, and the producer no longer had them when it was again.
    Reconnected,
    /// The producer had started anew, and no longer had its first items when this consumer was subscribed again.
    Restarted,
    /// This consumer was too slow, and the producer left out the oldest items ([`OnLag::DropOldest`]).
    ///
    /// [`OnLag::DropOldest`]: crate::streams::OnLag::DropOldest
    Dropped,
    /// This consumer was too slow, and later items of the same keys replaced them ([`OnLag::Conflate`]).
    ///
    /// [`OnLag::Conflate`]: crate::streams::OnLag::Conflate
    Conflated,
    /// They were older than the producer's lifespan before they could be sent.
    Expired,
    /// The item could not be decoded.
    Undecodable,
    /// The producer left them out without a reason.
    Skipped,
}

impl GapReason {
    /// How a producer says it: see [`frames`](super::frames).
    pub(super) const fn code(self) -> u32 {
        match self {
            Self::Dropped => 1,
            Self::Conflated => 2,
            Self::Expired => 3,
            _ => 0,
        }
    }

    /// A code that this version does not know gives no reason.
    pub(super) const fn from_code(code: u32) -> Self {
        match code {
            1 => Self::Dropped,
            2 => Self::Conflated,
            3 => Self::Expired,
            _ => Self::Skipped,
        }
    }
}

/// What a consumer that comes back says it has: everything of this epoch before `next`, as far as it will ever want it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Resume {
    pub(crate) epoch: u64,
    pub(crate) next: u64,
}

impl Resume {
    /// From where on a producer of this epoch serves it. One that knew an earlier run gets this one from its start.
    pub(crate) const fn within(self, epoch: u64) -> u64 {
        if self.epoch == epoch { self.next } else { 0 }
    }
}

/// A replay under way.
#[derive(Debug, Clone, Copy)]
struct Replaying {
    /// Kept items before this one were handed on.
    next: u64,
    /// Where the live flow begins.
    cut: u64,
    /// Why what is missed before the cut is missed; `None` for a consumer that was never there before.
    reason: Option<GapReason>,
}

/// A replay that has something which belongs to the live flow, or that nobody asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a replay goes beyond its cut")]
pub(crate) struct BeyondCut;

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
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    /// This many of its first items were delivered before and are dropped.
    pub(crate) skip: u64,
    pub(crate) missed: Option<Missed>,
}

impl From<Resume> for Progress {
    /// Of a consumer that has what an earlier life of it had received.
    fn from(Resume { epoch, next }: Resume) -> Self {
        Self { at: Some((epoch, next)), ..Self::default() }
    }
}

/// See the module's text.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Progress {
    /// Epoch and next expected sequence number; `None` before the first subscription.
    at: Option<(u64, u64)>,
    replaying: Option<Replaying>,
    switch: Switch,
}

impl Progress {
    /// One with a planted bug.
    #[cfg(any(test, feature = "testing"))]
    #[allow(dead_code, reason = "for simulations")]
    pub(crate) fn with(switch: Switch) -> Self {
        Self { at: None, replaying: None, switch }
    }

    /// What to say to the producer when subscribing; `None` the first time.
    pub(crate) fn resume(&self) -> Option<Resume> {
        let back = u64::from(self.switch.is(Mutant::ResumeRepeats));
        self.known().map(|(epoch, next)| Resume { epoch, next: next.saturating_sub(back) })
    }

    /// The run of the producer that the numbers are of.
    #[allow(dead_code, reason = "simulations of the core do without")]
    pub(crate) fn epoch(&self) -> Option<u64> {
        self.at.map(|(epoch, _)| epoch)
    }

    /// Epoch and next expected sequence number of a subscription that has ended, perhaps in the middle of its replay.
    fn known(&self) -> Option<(u64, u64)> {
        match self.replaying {
            Some(Replaying { next, reason: None, .. }) if !self.switch.is(Mutant::ReplayNotResumed) => {
                self.at.map(|(epoch, _)| (epoch, next)).filter(|_| next > 0)
            }
            _ => self.at,
        }
    }

    /// The producer accepted a subscription whose live flow starts at `next`, after a replay if `replay` says so. An epoch older
    /// than the known one is still taken: a producer's clock may have gone back, and the items are new to us.
    pub(crate) fn joined(&mut self, epoch: u64, next: u64, replay: bool) -> Joined {
        self.at = self.known();
        let begin = |from, reason| replay.then_some(Replaying { next: from, cut: next, reason });
        let Some((known, expected)) = self.at else {
            self.replaying = begin(0, None);
            self.at = Some((epoch, next));
            return Joined::default();
        };
        if known != epoch && !self.switch.is(Mutant::WrongEpochAccepted) {
            self.replaying = begin(0, Some(GapReason::Restarted));
            let told = if self.switch.is(Mutant::ReplayGapUntold) { next } else { 0 };
            self.at = Some((epoch, told));
            let missed = if replay { None } else { self.left_out(next, GapReason::Restarted) };
            return Joined { restarted_from: Some(known), missed };
        }
        self.replaying = begin(expected, Some(GapReason::Reconnected));
        if self.switch.is(Mutant::ResumeRepeats) {
            self.at = Some((epoch, next));
        }
        let missed = if replay { None } else { self.left_out(next, GapReason::Reconnected) };
        Joined { restarted_from: None, missed }
    }

    /// A batch of the replay arrived: `count` kept items from `first` on.
    pub(crate) fn replayed(&mut self, first: u64, count: u64) -> Result<Step, BeyondCut> {
        let end = first.saturating_add(count);
        let replaying = self.replaying.as_mut().filter(|replaying| end <= replaying.cut).ok_or(BeyondCut)?;
        let skip = replaying.next.saturating_sub(first).min(count);
        replaying.next = replaying.next.max(end);
        let reason = replaying.reason.unwrap_or(GapReason::Skipped);
        let missed = self.left_out(first, reason);
        self.at = self.at.map(|(epoch, expected)| (epoch, expected.max(end)));
        Ok(Step { skip, missed })
    }

    /// The replay is over, and the live flow from `cut` on comes next.
    pub(crate) fn replay_ended(&mut self, cut: u64) -> Result<Option<Missed>, BeyondCut> {
        let replaying = self.replaying.take_if(|replaying| replaying.cut == cut).ok_or(BeyondCut)?;
        Ok(self.left_out(cut, replaying.reason.unwrap_or(GapReason::Skipped)))
    }

    /// A batch arrived: `count` items from `first` on.
    pub(crate) fn received(&mut self, first: u64, count: u64) -> Step {
        let Some((epoch, expected)) = self.at else { return Step { skip: count, missed: None } };
        let missed = self.left_out(first, GapReason::Skipped);
        let end = first.saturating_add(count);
        self.at = Some((epoch, expected.max(end)));
        Step { skip: expected.saturating_sub(first).min(count), missed }
    }

    /// The producer says that nothing more comes before `next`.
    pub(crate) fn marked(&mut self, next: u64, reason: GapReason) -> Option<Missed> {
        if self.switch.is(Mutant::HeartbeatIgnored) {
            return None;
        }
        self.left_out(next, reason)
    }

    /// The producer says that nothing more comes before `next` that was asked for: that is no gap. Of a replay too.
    pub(crate) fn filtered(&mut self, next: u64) -> Result<(), BeyondCut> {
        if let Some(replaying) = &mut self.replaying {
            if next > replaying.cut {
                return Err(BeyondCut);
            }
            replaying.next = replaying.next.max(next);
        }
        self.at = self.at.map(|(epoch, expected)| (epoch, expected.max(next)));
        Ok(())
    }

    fn left_out(&mut self, next: u64, reason: GapReason) -> Option<Missed> {
        let (epoch, expected) = self.at?;
        if next <= expected {
            return None;
        }
        if !self.switch.is(Mutant::GapToldTwice) {
            self.at = Some((epoch, next));
        }
        Some(Missed { from: expected, to: next, reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_in_order_are_no_event() {
        let mut progress = Progress::default();
        assert_eq!(progress.joined(1, 5, false), Joined::default(), "a late joiner has missed nothing it asked for");
        assert_eq!(progress.received(5, 3), Step::default());
        assert_eq!(progress.received(8, 1), Step::default());
    }

    #[test]
    fn a_jump_is_a_gap_and_a_repetition_is_dropped() {
        let mut progress = Progress::default();
        progress.joined(1, 0, false);
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
        progress.joined(1, 0, false);
        progress.received(0, 10);
        let missed = Missed { from: 10, to: 15, reason: GapReason::Reconnected };
        assert_eq!(progress.joined(1, 15, false), Joined { restarted_from: None, missed: Some(missed) });
        assert_eq!(progress.received(15, 1), Step::default());
        assert_eq!(progress.joined(1, 16, false), Joined::default());
    }

    #[test]
    fn what_is_had_is_said_when_coming_back() {
        let mut progress = Progress::default();
        assert_eq!(progress.resume(), None);
        progress.joined(7, 3, false);
        progress.received(3, 2);
        let resume = progress.resume().expect("was subscribed");
        assert_eq!(resume, Resume { epoch: 7, next: 5 });
        assert_eq!((resume.within(7), resume.within(8)), (5, 0));
    }

    #[test]
    fn a_mark_is_a_gap_once() {
        let mut progress = Progress::default();
        progress.joined(1, 0, false);
        progress.received(0, 2);
        let missed = Missed { from: 2, to: 7, reason: GapReason::Expired };
        assert_eq!(progress.marked(7, GapReason::Expired), Some(missed));
        assert_eq!(progress.marked(7, GapReason::Skipped), None);
        assert_eq!(progress.received(7, 1), Step::default());
    }

    #[test]
    fn a_restart_is_told_with_what_was_missed_of_the_new_epoch() {
        let mut progress = Progress::default();
        progress.joined(1, 0, false);
        progress.received(0, 10);
        assert_eq!(progress.joined(2, 0, false), Joined { restarted_from: Some(1), missed: None });
        let missed = Missed { from: 0, to: 4, reason: GapReason::Restarted };
        assert_eq!(progress.joined(3, 4, false), Joined { restarted_from: Some(2), missed: Some(missed) });
        assert_eq!(progress.received(4, 1), Step::default());
    }

    #[test]
    fn a_late_joiner_is_replayed_what_is_kept_and_misses_nothing() {
        let mut progress = Progress::default();
        assert_eq!(progress.joined(1, 10, true), Joined::default());
        assert_eq!(progress.replayed(3, 2), Ok(Step::default()));
        assert_eq!(progress.replayed(8, 2), Ok(Step::default()));
        assert_eq!(progress.replayed(9, 2), Err(BeyondCut));
        assert_eq!(progress.replay_ended(10), Ok(None));
        assert_eq!(progress.received(10, 1), Step::default());
        assert_eq!(progress.replayed(3, 2), Err(BeyondCut), "nobody asked");
    }

    #[test]
    fn an_interrupted_replay_goes_on_where_it_was() {
        let mut progress = Progress::default();
        progress.joined(1, 10, true);
        assert_eq!(progress.resume(), None, "nothing was replayed yet");
        assert_eq!(progress.joined(1, 10, true), Joined::default());
        assert_eq!(progress.replayed(3, 2), Ok(Step::default()));
        assert_eq!(progress.resume(), Some(Resume { epoch: 1, next: 5 }));
        assert_eq!(progress.joined(1, 14, true), Joined::default());
        let missed = Missed { from: 5, to: 7, reason: GapReason::Reconnected };
        assert_eq!(progress.replayed(7, 1), Ok(Step { skip: 0, missed: Some(missed) }));
        assert_eq!(progress.replayed(7, 2), Ok(Step { skip: 1, missed: None }));
        assert_eq!(progress.resume(), Some(Resume { epoch: 1, next: 9 }));
        let missed = Missed { from: 9, to: 14, reason: GapReason::Reconnected };
        assert_eq!(progress.replay_ended(14), Ok(Some(missed)));
        assert_eq!(progress.received(14, 1), Step::default());
    }

    #[test]
    fn of_a_new_run_everything_is_replayed_or_missed() {
        let mut progress = Progress::default();
        progress.joined(1, 10, false);
        assert_eq!(progress.joined(2, 5, true), Joined { restarted_from: Some(1), missed: None });
        let missed = Missed { from: 0, to: 4, reason: GapReason::Restarted };
        assert_eq!(progress.replayed(4, 1), Ok(Step { skip: 0, missed: Some(missed) }));
        assert_eq!(progress.replay_ended(5), Ok(None));
    }
}
