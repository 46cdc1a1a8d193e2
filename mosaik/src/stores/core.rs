//! What a replica does with what comes from its primary: which deltas it folds, which wait, and when it needs a snapshot.
//!
//! A pure state machine. Deltas carry (primary, epoch, sequence number), a snapshot says which deltas it has: all of an epoch
//! before its position. So the cut is exact whatever the order in which the two arrive: deltas before the position are dropped,
//! the one at it is the next. A replica follows one primary at a time, and never folds what is of another one or another run.
//!
//! Two rules guard what a replica has. Before it goes on with a run after a reconnect it lets a durable primary
//! [check](Claim) that its file was not put back to an older copy meanwhile. And one whose state is durable and came from a durable primary leaves
//! that history for an unrelated one only on an operator's word.
//!
//! Invariant: what was folded is a snapshot and all deltas behind it, each once, in order.

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::{
    lineage::{Start, Witness},
    mutants::{Mutant, Switch},
};
use crate::primitives::PeerId;

/// What to do with a delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the next one.
    Fold,
    /// It comes behind a snapshot that is needed, or behind a check; ask again when there is one.
    Hold,
    /// It is in the state already, of no concern, or there is no room for it; the last is remembered.
    Drop,
}

/// A snapshot that is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) primary: PeerId,
    pub(super) epoch: u64,
    /// It must have all deltas before this one, or another one is needed after it.
    pub(super) at_least: u64,
}

/// What the state has: of this primary, in this epoch, all deltas before `next`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At {
    pub(super) primary: PeerId,
    pub(super) epoch: u64,
    pub(super) next: u64,
}

/// What the primary is to be asked before its deltas are folded: whether it ever gave so many deltas of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) primary: PeerId,
    pub(super) epoch: u64,
    pub(super) next: u64,
    /// The start of the primary from which the last of them came, if it is durable.
    pub(super) start: Option<Start>,
}

/// How the replica stands to its primaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// No primary is connected.
    Alone,
    /// It needs a snapshot, or a check.
    Catching(PeerId),
    /// Its state is all that is known to exist, but for deltas on their way.
    Synced(PeerId),
    /// This primary is connected, and has another history.
    Refused(PeerId),
}

/// A connection whose check is under way.
#[derive(Debug, Clone, Copy)]
struct Checking {
    claim: Claim,
    /// As [`Cut::connected`] was told.
    next: u64,
    resumed: bool,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Cut {
    at: Option<At>,
    /// Who vouches for `at`.
    witness: Witness,
    /// Whether the state must not be given up for an unrelated one.
    guarded: bool,
    /// Whether the state is worth that before its first delta: the run continues another one, or began with a state.
    begun: bool,
    /// The primary whose history may replace the state whatever it is.
    word: Option<PeerId>,
    /// The state lacks something before this number, so that only a snapshot which has that will do, also after a reconnect.
    lacks: Option<u64>,
    wanted: Option<Wanted>,
    checking: Option<Checking>,
    /// The primaries that are connected: their epoch, and the number of the next delta to come from them.
    connected: BTreeMap<PeerId, (u64, u64)>,
    /// Those of them that have another history, and the epoch in which they had it.
    refused: BTreeMap<PeerId, u64>,
    /// How often a connection was made again and the state could go on.
    pub(super) resumed: u64,
    /// Deltas for which there was no room since the last snapshot.
    pub(super) left_out: u64,
    /// A bug that is planted for tests.
    switch: Switch,
}

impl Cut {
    /// One whose state is what an earlier life had.
    pub(super) fn restored(at: At, witness: Witness) -> Self {
        Self { at: Some(at), witness, ..Self::default() }
    }

    /// The same state, with nothing known of who is connected, for a subscription that begins where the state ends. An operator's
    /// word goes on.
    pub(super) fn begun_again(&self) -> Self {
        let &Self { at, witness, guarded, begun, word, resumed, switch, .. } = self;
        Self { at, witness, guarded, begun, word, resumed, switch, ..Self::default() }
    }

    /// Whether what came from this primary and was not folded is of its run also after a reconnect. A volatile primary begins
    /// a new run whenever it has forgotten something. A durable one may be put back to an older copy of its file meanwhile, and
    /// use the numbers again that a check does not see, because the state has not come to them: so what waits must not be folded
    /// on what comes then.
    pub(super) fn survives(&self, primary: PeerId) -> bool {
        let run = self.at.map(|at| (at.primary, at.epoch));
        let same = run.is_some_and(|(of, _)| of == primary) && (self.wanted.is_none() || self.wanted_run() == run);
        same && self.witness == Witness::Volatile || self.switch.is(Mutant::UnfoldedSurvives)
    }

    fn wanted_run(&self) -> Option<(PeerId, u64)> {
        self.wanted.map(|wanted| (wanted.primary, wanted.epoch))
    }

    /// Never gives up the state of a durable primary for an unrelated one without a word.
    pub(super) fn guarded(mut self, guarded: bool) -> Self {
        self.guarded = guarded;
        self
    }

    /// Tells whether a state without deltas has something all the same.
    pub(super) fn begins_with(&mut self, something: bool) {
        self.begun = something;
    }

    pub(super) fn at(&self) -> Option<At> {
        self.at
    }

    pub(super) fn witness(&self) -> Witness {
        self.witness
    }

    pub(super) fn wanted(&self) -> Option<Wanted> {
        self.wanted
    }

    /// Whether a fetch may begin now. Before the state that it replaces is checked it may be for nothing.
    pub(super) fn may_fetch(&self) -> bool {
        self.checking.is_none() || self.switch.is(Mutant::RestartUnchecked)
    }

    /// What the primary is to be asked now.
    pub(super) fn claim(&self) -> Option<Claim> {
        self.checking.map(|checking| checking.claim)
    }

    /// The epoch that a snapshot of the wanted run must continue, if not every history will do.
    pub(super) fn must_continue(&self) -> Option<u64> {
        let (wanted, at) = (self.wanted?, self.at?);
        let same = (wanted.primary, wanted.epoch) == (at.primary, at.epoch);
        let something = at.next > 0 || self.begun;
        let guarded = self.guarded && something && matches!(self.witness, Witness::Durable(_));
        let guarded = guarded && !self.switch.is(Mutant::GuardIgnored);
        (guarded && !same && self.word != Some(wanted.primary)).then_some(at.epoch)
    }

    /// How many primaries are connected. More than one is a mistake.
    pub(super) fn primaries(&self) -> usize {
        self.connected.len()
    }

    pub(super) fn standing(&self) -> Standing {
        if let Some(wanted) = self.wanted.filter(|_| !self.switch.is(Mutant::SyncedTooEarly)) {
            let connected = self.connected.contains_key(&wanted.primary);
            return if connected { Standing::Catching(wanted.primary) } else { Standing::Alone };
        }
        if let Some(checking) = self.checking {
            return Standing::Catching(checking.claim.primary);
        }
        match self.at.filter(|at| self.epoch_of(at.primary) == Some(at.epoch) && !self.is_refused(at.primary)) {
            Some(at) => Standing::Synced(at.primary),
            None => self.refused.keys().next().map_or(Standing::Alone, |peer| Standing::Refused(*peer)),
        }
    }

    /// Deltas of a primary flow, from `next` on. `resumed`: what was missed before that, if something was, is told as missed.
    pub(super) fn connected(&mut self, primary: PeerId, epoch: u64, next: u64, resumed: bool) {
        self.connected.insert(primary, (epoch, next));
        self.refused.remove(&primary);
        match self.at {
            Some(at) if (at.primary, at.epoch) == (primary, epoch) => {
                // A volatile primary has a new epoch whenever it has forgotten something.
                if self.witness == Witness::Volatile && at.next <= next || self.switch.is(Mutant::CheckSkipped) {
                    return self.goes_on(at, next, resumed);
                }
                self.check(at, next, resumed);
            }
            // An earlier run than the one that it gave out: it may have been put back to a copy that knows nothing of that.
            Some(at)
                if at.primary == primary
                    && epoch < at.epoch
                    && self.witness.start().is_some()
                    && !self.switch.is(Mutant::EarlierRunUnchecked) =>
            {
                self.check(at, next, resumed);
            }
            _ => self.choose(),
        }
    }

    fn check(&mut self, At { primary, epoch, next: has }: At, next: u64, resumed: bool) {
        let claim = Claim { primary, epoch, next: has, start: self.witness.start() };
        // Its own primary is back: no other one is followed, unless an operator says so.
        self.wanted.take_if(|wanted| wanted.primary != primary && self.word != Some(wanted.primary));
        self.checking = Some(Checking { claim, next, resumed });
    }

    /// The primary has checked the claim: its run is the one that the state is of.
    pub(super) fn checked(&mut self, claim: Claim, witness: Witness) {
        let Some(checking) = self.checking.take_if(|checking| checking.claim == claim) else { return };
        match self.at.filter(|at| self.epoch_of(at.primary) == Some(at.epoch)) {
            Some(at) => {
                self.witness = witness;
                self.goes_on(at, checking.next, checking.resumed);
            }
            None => self.choose(),
        }
    }

    /// The primary does not know of deltas that the state has: it was put back to an older copy. It begins a new run.
    pub(super) fn contradicted(&mut self, claim: Claim) {
        if self.switch.is(Mutant::ContradictionIgnored) {
            return self.checked(claim, self.witness);
        }
        if self.checking.take_if(|checking| checking.claim == claim).is_some() {
            self.wanted.take_if(|wanted| wanted.primary == claim.primary);
            self.refused.extend(self.epoch_of(claim.primary).map(|epoch| (claim.primary, epoch)));
            self.choose();
        }
    }

    fn goes_on(&mut self, at: At, next: u64, resumed: bool) {
        match self.lacks.filter(|_| !self.switch.is(Mutant::LackForgotten)) {
            Some(to) => self.want(at.primary, at.epoch, to.max(if resumed { 0 } else { next })),
            None if !resumed && at.next < next => self.lack(at.primary, at.epoch, next),
            None => {
                self.wanted = None;
                self.resumed += 1;
            }
        }
    }

    pub(super) fn disconnected(&mut self, primary: PeerId) {
        self.connected.remove(&primary);
        self.refused.remove(&primary);
        self.checking.take_if(|checking| checking.claim.primary == primary);
        // A snapshot that is on its way is as good as before, unless there is somebody else to follow.
        if self.candidate().is_some() {
            self.wanted.take_if(|wanted| wanted.primary == primary);
        }
        self.choose();
    }

    /// Deltas of a primary were missed, all before `to`.
    pub(super) fn missed(&mut self, primary: PeerId, to: u64) {
        if self.switch.is(Mutant::GapIgnored) {
            return;
        }
        let Some((epoch, next)) = self.connected.get_mut(&primary) else { return };
        *next = (*next).max(to);
        let epoch = *epoch;
        if self.at.is_some_and(|at| (at.primary, at.epoch) == (primary, epoch) && at.next < to) {
            self.lack(primary, epoch, to);
        } else if let Some(wanted) = self.wanted.as_mut().filter(|wanted| wanted.primary == primary) {
            wanted.at_least = wanted.at_least.max(to);
        }
    }

    /// A delta came; `room` says whether it can be held.
    pub(super) fn delta(&mut self, primary: PeerId, epoch: u64, seq: u64, room: bool) -> Verdict {
        if let Some((known, next)) = self.connected.get_mut(&primary)
            && *known == epoch
        {
            *next = (*next).max(seq + 1);
        }
        let verdict = if room { Verdict::Hold } else { Verdict::Drop };
        let switch = self.switch;
        let refused = self.is_refused(primary) && !switch.is(Mutant::RefusedIsFolded);
        match &mut self.at {
            Some(at) if at.primary == primary && (at.epoch == epoch || switch.is(Mutant::OtherRunFolded)) => {
                if seq < at.next && switch.is(Mutant::FoldsTwice) {
                    return Verdict::Fold;
                }
                if seq < at.next || refused {
                    return Verdict::Drop;
                }
                if self.checking.is_some() && !switch.is(Mutant::FoldsUnchecked) {
                    if !room {
                        self.left_out += 1;
                        self.lacks = self.lacks.max(Some(seq + 1));
                    }
                    return verdict;
                }
                if seq == at.next || switch.is(Mutant::FoldsOverGap) {
                    at.next = seq + 1;
                    let next = at.next;
                    // What was lacking may still have come. A snapshot that is older than the state must not replace it.
                    self.lacks.take_if(|to| *to <= next);
                    self.wanted.take_if(|it| (it.primary, it.epoch) == (primary, epoch) && it.at_least <= next);
                    return Verdict::Fold;
                }
                self.left_out += u64::from(!room);
                let has = room || switch.is(Mutant::LeftOutForgotten);
                self.lack(primary, epoch, if has { seq } else { seq + 1 });
                verdict
            }
            _ => match &mut self.wanted {
                Some(wanted) if (wanted.primary, wanted.epoch) == (primary, epoch) => {
                    if !room && !switch.is(Mutant::LeftOutForgotten) {
                        self.left_out += 1;
                        wanted.at_least = wanted.at_least.max(seq + 1);
                    }
                    verdict
                }
                _ => Verdict::Drop,
            },
        }
    }

    /// A snapshot came: whether it is to replace the state. Then deltas that were held are to be asked about again. One that has
    /// not all that is needed is taken too if it has more than the state, and another one is wanted after it.
    pub(super) fn snapshot(&mut self, primary: PeerId, epoch: u64, position: u64, witness: Witness) -> bool {
        let run = (primary, epoch);
        let Some(Wanted { at_least, .. }) = self.wanted.filter(|it| (it.primary, it.epoch) == run) else {
            return false;
        };
        let known = self.at.filter(|at| (at.primary, at.epoch) == run).map(|at| at.next);
        // What came when nobody was connected and found no room is lacking as well.
        let at_least = at_least.max(known.and(self.lacks).unwrap_or(0));
        if known.is_some_and(|next| position < next || (position == next && position < at_least)) {
            return false;
        }
        // The primary has started again since it vouched for the state, perhaps from an older copy: that is asked first.
        let vouched =
            self.witness == witness || self.witness.start().is_none() || self.switch.is(Mutant::RestartUnchecked);
        if known.is_some() && !vouched {
            return false;
        }
        if self.word.is_some_and(|word| word == primary) {
            self.word = None;
        }
        (self.at, self.witness) = (Some(At { primary, epoch, next: position }), witness);
        (self.wanted, self.lacks, self.left_out, self.begun) = (None, None, 0, false);
        if position < at_least && !self.switch.is(Mutant::ShortSnapshotSuffices) {
            self.lacks = Some(at_least);
            self.want(primary, epoch, at_least);
        }
        true
    }

    /// A snapshot could not be had. It is tried again while the primary is connected.
    pub(super) fn failed(&mut self, primary: PeerId) {
        if !self.connected.contains_key(&primary) {
            self.wanted.take_if(|wanted| wanted.primary == primary);
        }
    }

    /// What this primary has in this epoch is another history, which must not replace the state.
    pub(super) fn refuse(&mut self, primary: PeerId, epoch: u64) {
        if self.epoch_of(primary) == Some(epoch) {
            self.refused.insert(primary, epoch);
        }
        self.wanted.take_if(|wanted| (wanted.primary, wanted.epoch) == (primary, epoch));
        self.choose();
    }

    /// The operator says that the history of this primary may replace the state.
    pub(super) fn follow(&mut self, primary: PeerId) {
        self.word = Some(primary);
        // Deltas of a run that contradicts the state must not be folded on it all the same. That run is about to end.
        if self.at.is_none_or(|at| at.primary != primary || self.epoch_of(primary) != Some(at.epoch)) {
            self.refused.remove(&primary);
        }
        self.choose();
    }

    /// The state cannot be brought further by this delta and is as it was when `next` was the next one: only a snapshot helps.
    pub(super) fn unfoldable(&mut self, next: u64, seq: u64) {
        if let Some(at) = self.at.as_mut().filter(|_| !self.switch.is(Mutant::UnfoldableCounts)) {
            at.next = next;
            let At { primary, epoch, .. } = *at;
            self.lack(primary, epoch, seq + 1);
        }
    }

    /// The state is as it was when `next` was the next one, and goes on from there.
    pub(super) fn back_to(&mut self, next: u64) {
        if let Some(at) = &mut self.at {
            at.next = next;
        }
    }

    fn epoch_of(&self, primary: PeerId) -> Option<u64> {
        self.connected.get(&primary).map(|(epoch, _)| *epoch)
    }

    fn is_refused(&self, primary: PeerId) -> bool {
        !self.refused.is_empty() && self.refused.get(&primary).copied() == self.epoch_of(primary)
    }

    /// Whom to follow of those that are connected: whom the operator names, or else whom it followed, or else the first.
    fn candidate(&self) -> Option<PeerId> {
        let is_there = |peer: &PeerId| self.connected.contains_key(peer) && !self.is_refused(*peer);
        let own = self.at.map(|at| at.primary).filter(|_| !self.switch.is(Mutant::LeavesItsOwn));
        let known = [self.word, own, self.wanted.map(|wanted| wanted.primary)];
        let first = || self.connected.keys().copied().find(is_there);
        known.into_iter().flatten().find(is_there).or_else(first)
    }

    fn choose(&mut self) {
        let Some(primary) = self.candidate() else { return };
        let Some((epoch, next)) = self.connected.get(&primary).copied() else { return };
        if self.at.is_none_or(|at| (at.primary, at.epoch) != (primary, epoch)) {
            self.want(primary, epoch, next);
        }
    }

    fn lack(&mut self, primary: PeerId, epoch: u64, to: u64) {
        self.lacks = self.lacks.max(Some(to));
        if self.epoch_of(primary) == Some(epoch) {
            self.want(primary, epoch, to);
        }
    }

    fn want(&mut self, primary: PeerId, epoch: u64, at_least: u64) {
        let known = self.wanted.filter(|wanted| (wanted.primary, wanted.epoch) == (primary, epoch));
        let at_least = known.map_or(at_least, |wanted| wanted.at_least.max(at_least));
        self.wanted = Some(Wanted { primary, epoch, at_least });
    }
}
