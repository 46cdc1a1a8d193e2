//! What a replica does with what it hears of its primary: which deltas it folds, which wait, and when it needs a snapshot.
//!
//! A pure state machine. Deltas carry (primary, epoch, sequence number), a snapshot says which deltas it has: all of an epoch
//! before its position. So the cut is exact whatever the order in which the two arrive: deltas before the position are dropped,
//! the one at it is the next. A replica follows one primary at a time, and never folds what is of another one or another run.
//!
//! Invariant: what was folded is a snapshot and all deltas behind it, each once, in order.

use std::collections::BTreeMap;

use crate::primitives::PeerId;

/// What to do with a delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the next one.
    Fold,
    /// It comes behind a snapshot that is needed; ask again when there is one.
    Hold,
    /// It is in the state already, or of no concern.
    Drop,
}

/// A snapshot that is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) primary: PeerId,
    pub(super) epoch: u64,
    /// It must have all deltas before this one.
    pub(super) at_least: u64,
}

/// What the state has: of this primary, in this epoch, all deltas before `next`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At {
    pub(super) primary: PeerId,
    pub(super) epoch: u64,
    pub(super) next: u64,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Cut {
    at: Option<At>,
    /// The state lacks something before this number, so that only a snapshot which has that will do, also after a reconnect.
    lacks: Option<u64>,
    wanted: Option<Wanted>,
    /// The primaries that are connected: their epoch, and the number of the next delta to come from them.
    connected: BTreeMap<PeerId, (u64, u64)>,
    /// How often a connection was made again and the state could go on.
    pub(super) resumed: u64,
}

impl Cut {
    /// One whose state is what an earlier life had.
    pub(super) fn restored(at: At) -> Self {
        Self { at: Some(at), ..Self::default() }
    }

    pub(super) fn at(&self) -> Option<At> {
        self.at
    }

    pub(super) fn wanted(&self) -> Option<Wanted> {
        self.wanted
    }

    /// How many primaries are connected. More than one is a mistake.
    pub(super) fn primaries(&self) -> usize {
        self.connected.len()
    }

    /// The primary that is followed, if it is connected.
    pub(super) fn followed(&self) -> Option<PeerId> {
        let followed = self.wanted.map(|wanted| wanted.primary).or(self.at.map(|at| at.primary))?;
        self.connected.contains_key(&followed).then_some(followed)
    }

    /// Whether the state is all that is known to exist, but for deltas on their way.
    pub(super) fn is_synced(&self) -> bool {
        self.wanted.is_none() && self.followed().is_some()
    }

    /// Deltas of a primary flow, from `next` on. `resumed`: what was missed before that, if something was, is told as missed.
    pub(super) fn connected(&mut self, primary: PeerId, epoch: u64, next: u64, resumed: bool) {
        self.connected.insert(primary, (epoch, next));
        match self.at {
            Some(at) if (at.primary, at.epoch) == (primary, epoch) => match self.lacks {
                Some(to) => self.want(primary, epoch, to.max(if resumed { 0 } else { next })),
                None if !resumed && at.next < next => self.lack(primary, epoch, next),
                None => {
                    self.wanted = None;
                    self.resumed += 1;
                }
            },
            _ => self.choose(),
        }
    }

    pub(super) fn disconnected(&mut self, primary: PeerId) {
        self.connected.remove(&primary);
        self.wanted.take_if(|wanted| wanted.primary == primary);
        self.choose();
    }

    /// Deltas of a primary were missed, all before `to`.
    pub(super) fn missed(&mut self, primary: PeerId, to: u64) {
        let Some((epoch, next)) = self.connected.get_mut(&primary) else { return };
        *next = (*next).max(to);
        let epoch = *epoch;
        if self.at.is_some_and(|at| (at.primary, at.epoch) == (primary, epoch) && at.next < to) {
            self.lack(primary, epoch, to);
        } else if let Some(wanted) = self.wanted.as_mut().filter(|wanted| wanted.primary == primary) {
            wanted.at_least = wanted.at_least.max(to);
        }
    }

    /// A delta came.
    pub(super) fn delta(&mut self, primary: PeerId, epoch: u64, seq: u64) -> Verdict {
        if let Some((known, next)) = self.connected.get_mut(&primary)
            && *known == epoch
        {
            *next = (*next).max(seq + 1);
        }
        match &mut self.at {
            Some(at) if (at.primary, at.epoch) == (primary, epoch) => {
                if seq < at.next {
                    return Verdict::Drop;
                }
                if seq == at.next {
                    at.next += 1;
                    let next = at.next;
                    // What was lacking may still have come. A snapshot that is older than the state must not replace it.
                    self.lacks.take_if(|to| *to <= next);
                    self.wanted.take_if(|it| (it.primary, it.epoch) == (primary, epoch) && it.at_least <= next);
                    return Verdict::Fold;
                }
                self.lack(primary, epoch, seq);
                Verdict::Hold
            }
            _ => match self.wanted {
                Some(wanted) if (wanted.primary, wanted.epoch) == (primary, epoch) => Verdict::Hold,
                _ => Verdict::Drop,
            },
        }
    }

    /// A snapshot came: whether it is to replace the state. Then deltas that were held are to be asked about again.
    pub(super) fn snapshot(&mut self, primary: PeerId, epoch: u64, position: u64) -> bool {
        let fits =
            |wanted: &mut Wanted| (wanted.primary, wanted.epoch) == (primary, epoch) && position >= wanted.at_least;
        if self.wanted.take_if(fits).is_none() {
            return false;
        }
        self.at = Some(At { primary, epoch, next: position });
        self.lacks = None;
        true
    }

    /// Follows whom it followed, if that one is connected, or else the first that is.
    fn choose(&mut self) {
        let Some(primary) = self.followed().or_else(|| self.connected.keys().next().copied()) else { return };
        let Some((epoch, next)) = self.connected.get(&primary).copied() else { return };
        if self.at.is_none_or(|at| (at.primary, at.epoch) != (primary, epoch)) {
            self.want(primary, epoch, next);
        }
    }

    fn lack(&mut self, primary: PeerId, epoch: u64, to: u64) {
        self.lacks = self.lacks.max(Some(to));
        if self.connected.get(&primary).is_some_and(|(connected, _)| *connected == epoch) {
            self.want(primary, epoch, to);
        }
    }

    fn want(&mut self, primary: PeerId, epoch: u64, at_least: u64) {
        let known = self.wanted.filter(|wanted| (wanted.primary, wanted.epoch) == (primary, epoch));
        let at_least = known.map_or(at_least, |wanted| wanted.at_least.max(at_least));
        self.wanted = Some(Wanted { primary, epoch, at_least });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use rand::{RngExt, SeedableRng, rngs::SmallRng};

    use super::*;

    fn peer(number: u8) -> PeerId {
        iroh::SecretKey::from_bytes(&[number; 32]).public().into()
    }

    fn wanted(primary: PeerId, epoch: u64, at_least: u64) -> Wanted {
        Wanted { primary, epoch, at_least }
    }

    #[test]
    fn a_late_joiner_takes_a_snapshot_and_the_deltas_behind_it() {
        let (mut cut, a) = (Cut::default(), peer(1));
        cut.connected(a, 7, 10, false);
        assert_eq!(cut.wanted(), Some(wanted(a, 7, 10)));
        assert!(!cut.is_synced());
        assert_eq!([cut.delta(a, 7, 10), cut.delta(a, 7, 11), cut.delta(a, 7, 12)], [Verdict::Hold; 3]);
        assert!(!cut.snapshot(a, 7, 9), "too old: delta 9 would be missing");
        assert!(cut.snapshot(a, 7, 12));
        assert_eq!([cut.delta(a, 7, 10), cut.delta(a, 7, 11), cut.delta(a, 7, 12)], {
            use Verdict::*;
            [Drop, Drop, Fold]
        });
        assert!(cut.is_synced());
        assert!(!cut.snapshot(a, 7, 13), "nobody asked");
    }

    #[test]
    fn who_comes_back_goes_on_unless_something_is_missing() {
        let (mut cut, a) = (Cut::default(), peer(1));
        cut.connected(a, 7, 0, false);
        assert!(cut.snapshot(a, 7, 0));
        assert_eq!(cut.delta(a, 7, 0), Verdict::Fold);
        cut.disconnected(a);
        assert!(!cut.is_synced());
        cut.connected(a, 7, 1, true);
        assert!(cut.is_synced() && cut.resumed == 1);
        cut.disconnected(a);
        cut.connected(a, 7, 5, true);
        cut.missed(a, 5);
        assert_eq!(cut.wanted(), Some(wanted(a, 7, 5)));
        assert_eq!(cut.delta(a, 7, 5), Verdict::Hold);
        assert!(cut.snapshot(a, 7, 5));
        assert_eq!(cut.delta(a, 7, 5), Verdict::Fold);
    }

    #[test]
    fn another_run_and_another_primary_are_never_mixed_in() {
        let (mut cut, a, b) = (Cut::default(), peer(1), peer(2));
        cut.connected(a, 7, 0, false);
        assert!(cut.snapshot(a, 7, 3));
        cut.connected(b, 9, 50, false);
        assert_eq!((cut.wanted(), cut.primaries()), (None, 2), "it stays with the one it has");
        assert_eq!(cut.delta(b, 9, 50), Verdict::Drop);
        cut.disconnected(a);
        assert_eq!(cut.wanted(), Some(wanted(b, 9, 51)), "a delta of it was dropped");
        assert_eq!(cut.delta(a, 7, 3), Verdict::Fold, "what was on its way still fits the state");
        assert!(!cut.snapshot(a, 7, 60));
        assert!(cut.snapshot(b, 9, 51));
        assert_eq!([cut.delta(a, 7, 4), cut.delta(b, 9, 51)], [Verdict::Drop, Verdict::Fold]);
        cut.connected(b, 10, 0, false);
        assert_eq!(cut.wanted(), Some(wanted(b, 10, 0)), "it has started anew");
        assert_eq!([cut.delta(b, 9, 52), cut.delta(b, 10, 0)], [Verdict::Fold, Verdict::Hold]);
    }

    #[test]
    fn what_is_lacked_is_not_forgotten_by_a_reconnect() {
        let (mut cut, a) = (Cut::default(), peer(1));
        cut.connected(a, 7, 0, false);
        assert!(cut.snapshot(a, 7, 5));
        assert_eq!(cut.delta(a, 7, 8), Verdict::Hold);
        cut.disconnected(a);
        assert_eq!(cut.wanted(), None);
        cut.connected(a, 7, 9, true); // the stream goes on behind delta 8
        assert_eq!((cut.wanted(), cut.is_synced()), (Some(wanted(a, 7, 8)), false));
        assert!(cut.snapshot(a, 7, 8));
        assert_eq!(cut.delta(a, 7, 8), Verdict::Fold);
    }

    #[test]
    fn who_forgot_what_it_received_asks_for_what_it_may_lack() {
        let (mut cut, a) = (Cut::default(), peer(1));
        cut.connected(a, 7, 0, false);
        assert!(cut.snapshot(a, 7, 5));
        cut.disconnected(a);
        cut.connected(a, 7, 6, false);
        assert_eq!((cut.wanted(), cut.is_synced()), (Some(wanted(a, 7, 6)), false));
        assert!(cut.snapshot(a, 7, 6));
        cut.disconnected(a);
        cut.connected(a, 7, 6, false);
        assert!(cut.is_synced() && cut.resumed == 1, "nothing is lacking");
        // What was on its way all the time makes a snapshot needless, and one that comes late is of no use.
        cut.disconnected(a);
        cut.connected(a, 7, 8, false);
        assert_eq!([cut.delta(a, 7, 6), cut.delta(a, 7, 7), cut.delta(a, 7, 8)], [Verdict::Fold; 3]);
        assert!(cut.is_synced() && !cut.snapshot(a, 7, 8), "the state is at 9");
    }

    /// Deltas and snapshots in any order that streams allow: the state is always a prefix of one run, and all of it when
    /// nothing is under way.
    #[test]
    fn what_is_folded_is_always_a_prefix() {
        for seed in 0..2000 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let (mut cut, a) = (Cut::default(), peer(1));
            let (mut epoch, mut head) = (1, 0u64);
            // What the consumer has: epoch and next number; and what the state has.
            let mut received: Option<(u64, u64)> = None;
            let mut state: Option<(u64, u64)> = None;
            let (mut queue, mut held, mut connected) = (VecDeque::new(), Vec::new(), false);
            for _ in 0..300 {
                match rng.random_range(0..10) {
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
                        let wanted = cut.wanted().filter(|it| it.epoch == epoch && position >= it.at_least);
                        assert_eq!(cut.snapshot(a, epoch, position), wanted.is_some());
                        if wanted.is_some() {
                            state = Some((epoch, position));
                            std::mem::take(&mut held).into_iter().rev().for_each(|delta| queue.push_front(delta));
                        }
                    }
                    _ => {
                        let Some((of, seq)) = queue.pop_front() else { continue };
                        match cut.delta(a, of, seq) {
                            Verdict::Fold => {
                                assert_eq!(state, Some((of, seq)), "seed {seed}: folded out of order");
                                state = Some((of, seq + 1));
                            }
                            Verdict::Hold => held.push((of, seq)),
                            Verdict::Drop => {}
                        }
                    }
                }
                if connected && cut.is_synced() && queue.is_empty() {
                    assert_eq!(state, Some((epoch, head)), "seed {seed}: synced and not all there");
                }
            }
        }
    }
}
