//! Who is served by a producer, who waits, and who must go.
//!
//! A subscription that a predicate or the consumer limit keeps out waits, with its stream open, and is admitted as soon
//! as it can be, first come first served. Predicates are run by the worker, outside of any lock; here are only their answers.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    SubId,
    mutants::{Mutant, Switch},
};

/// Why a subscription waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum WaitReason {
    /// The producer's predicate does not admit this peer at present; or its member of the group that owns the stream does not run yet.
    NotAllowed,
    /// The producer has as many consumers as it takes.
    NoCapacity,
    /// The ticket of this peer grants none of what the stream's declaration asks of a consumer.
    NotGranted,
}

/// The answer to a new subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Admit,
    Wait(WaitReason),
    /// Too many are waiting already.
    Refuse,
}

/// What a re-evaluation changes for one subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Admit(SubId),
    /// It was served and no longer qualifies, for this reason.
    Expel(SubId, WaitReason),
    /// It still waits, now for this reason.
    Wait(SubId, WaitReason),
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Admission {
    capacity: usize,
    max_waiting: usize,
    served: BTreeSet<SubId>,
    /// Those that get heads only, and take no place. At most as many as may wait.
    standby: BTreeSet<SubId>,
    waiting: BTreeMap<SubId, WaitReason>,
    switch: Switch,
}

impl Admission {
    pub(crate) fn new(capacity: usize, max_waiting: usize) -> Self {
        let (served, standby, waiting) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        Self { capacity, max_waiting, served, standby, waiting, switch: Switch::default() }
    }

    /// The same with a planted bug.
    #[cfg(any(test, feature = "testing"))]
    #[allow(dead_code, reason = "for simulations")]
    pub(crate) fn planted(self, switch: Switch) -> Self {
        Self { switch, ..self }
    }

    /// A new subscription that gets heads only, of a peer that nothing speaks against: it takes no place, so it never waits for one.
    pub(crate) fn stand_by(&mut self, id: SubId) -> Answer {
        if self.switch.is(Mutant::StandbyTakesPlace) {
            return self.request(id, None);
        }
        if self.standby.len() >= self.max_waiting {
            return Answer::Refuse;
        }
        self.standby.insert(id);
        Answer::Admit
    }

    /// A new subscription; `keeps_out` is what speaks against its peer. Ids grow with the order of arrival.
    pub(crate) fn request(&mut self, id: SubId, keeps_out: Option<WaitReason>) -> Answer {
        let reason = match keeps_out {
            None if self.served.len() < self.capacity => {
                self.served.insert(id);
                return Answer::Admit;
            }
            None => WaitReason::NoCapacity,
            Some(reason) => reason,
        };
        if self.waiting.len() >= self.max_waiting {
            return Answer::Refuse;
        }
        self.waiting.insert(id, reason);
        Answer::Wait(reason)
    }

    /// A subscription ended, served or waiting. Follow with [`recheck`](Self::recheck): its place may be free.
    pub(crate) fn gone(&mut self, id: SubId) {
        self.served.remove(&id);
        self.standby.remove(&id);
        self.waiting.remove(&id);
    }

    /// Brings everything up to date with what speaks against each now. One that `keeps_out` does not know stays as it is.
    pub(crate) fn recheck(&mut self, keeps_out: &BTreeMap<SubId, Option<WaitReason>>) -> Vec<Change> {
        let mut changes = Vec::new();
        for admitted in [&mut self.served, &mut self.standby] {
            admitted.retain(|id| {
                let out = keeps_out.get(id).copied().flatten();
                changes.extend(out.map(|reason| Change::Expel(*id, reason)));
                out.is_none()
            });
        }
        let served = &mut self.served;
        let capacity = self.capacity;
        self.waiting.retain(|id, reason| {
            let now = match keeps_out.get(id) {
                Some(None) if served.len() < capacity => {
                    served.insert(*id);
                    changes.push(Change::Admit(*id));
                    return false;
                }
                Some(None) => WaitReason::NoCapacity,
                Some(Some(reason)) => *reason,
                None => *reason,
            };
            if now != *reason {
                *reason = now;
                changes.push(Change::Wait(*id, now));
            }
            true
        });
        changes
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::SmallRng};

    use super::*;

    const IN: Option<WaitReason> = None;
    const OUT: Option<WaitReason> = Some(WaitReason::NotAllowed);

    fn all(keeps_out: &[(SubId, Option<WaitReason>)]) -> BTreeMap<SubId, Option<WaitReason>> {
        keeps_out.iter().copied().collect()
    }

    #[test]
    fn who_waits_for_capacity_follows_who_leaves_in_order() {
        let mut admission = Admission::new(1, 10);
        assert_eq!(admission.request(1, IN), Answer::Admit);
        assert_eq!(admission.request(2, IN), Answer::Wait(WaitReason::NoCapacity));
        assert_eq!(admission.request(3, IN), Answer::Wait(WaitReason::NoCapacity));
        admission.gone(1);
        assert_eq!(admission.recheck(&all(&[(2, IN), (3, IN)])), [Change::Admit(2)]);
        assert_eq!(admission.recheck(&all(&[(2, IN), (3, IN)])), []);
    }

    #[test]
    fn a_predicate_that_changes_its_mind_moves_both_ways() {
        let mut admission = Admission::new(5, 10);
        assert_eq!(admission.request(1, OUT), Answer::Wait(WaitReason::NotAllowed));
        assert_eq!(admission.recheck(&all(&[(1, IN)])), [Change::Admit(1)]);
        assert_eq!(admission.recheck(&all(&[(1, OUT)])), [Change::Expel(1, WaitReason::NotAllowed)]);
        assert_eq!(admission.recheck(&all(&[(1, IN)])), [], "expelled is gone; the consumer asks again");
    }

    #[test]
    fn who_loses_a_grant_goes_and_waits_for_it() {
        let missing = Some(WaitReason::NotGranted);
        let mut admission = Admission::new(5, 10);
        assert_eq!(admission.request(1, IN), Answer::Admit);
        assert_eq!(admission.recheck(&all(&[(1, missing)])), [Change::Expel(1, WaitReason::NotGranted)]);
        assert_eq!(admission.request(2, missing), Answer::Wait(WaitReason::NotGranted));
        assert_eq!(admission.recheck(&all(&[(2, OUT)])), [Change::Wait(2, WaitReason::NotAllowed)]);
        assert_eq!(admission.recheck(&all(&[(2, IN)])), [Change::Admit(2)]);
    }

    #[test]
    fn the_waiting_room_is_bounded() {
        let mut admission = Admission::new(0, 2);
        assert_eq!(admission.request(1, IN), Answer::Wait(WaitReason::NoCapacity));
        assert_eq!(admission.request(2, OUT), Answer::Wait(WaitReason::NotAllowed));
        assert_eq!(admission.request(3, IN), Answer::Refuse);
        admission.gone(1);
        assert_eq!(admission.request(4, IN), Answer::Wait(WaitReason::NoCapacity));
    }

    #[test]
    fn never_more_than_the_capacity_and_never_an_idle_place() {
        for seed in 0..500 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let capacity = rng.random_range(0..4);
            let mut admission = Admission::new(capacity, 6);
            let mut allowed = BTreeMap::new();
            for id in 0..200 {
                match rng.random_range(0..3) {
                    0 => {
                        allowed.insert(id, rng.random::<bool>().then_some(WaitReason::NotAllowed));
                        if admission.request(id, allowed[&id]) == Answer::Refuse {
                            allowed.remove(&id);
                        }
                    }
                    1 => {
                        if let Some(id) = allowed.keys().nth(rng.random_range(0..=allowed.len())).copied() {
                            allowed.remove(&id);
                            admission.gone(id);
                        }
                    }
                    _ => allowed
                        .values_mut()
                        .for_each(|out| *out = rng.random::<bool>().then_some(WaitReason::NotAllowed)),
                }
                for change in admission.recheck(&allowed) {
                    if let Change::Expel(id, _) = change {
                        allowed.remove(&id);
                    }
                }
                assert!(admission.served.len() <= capacity);
                assert!(admission.served.iter().all(|id| allowed[id].is_none()));
                let could = admission.waiting.keys().filter(|id| allowed[id].is_none()).count();
                assert!(admission.served.len() == capacity || could == 0, "seed {seed}: a place stays free");
            }
        }
    }

    #[test]
    fn who_stands_by_takes_no_place_and_is_bounded() {
        let mut admission = Admission::new(1, 2);
        assert_eq!(admission.stand_by(1), Answer::Admit);
        assert_eq!(admission.request(2, IN), Answer::Admit);
        assert_eq!(admission.stand_by(3), Answer::Admit);
        assert_eq!(admission.stand_by(4), Answer::Refuse);
        assert_eq!(admission.recheck(&all(&[(1, OUT), (2, IN), (3, IN)])), [Change::Expel(1, WaitReason::NotAllowed)]);
        assert_eq!(admission.stand_by(4), Answer::Admit);
    }
}
