//! High-water marks: how far the storage of each member was seen to be durable, so that an older copy of it is noticed.
//!
//! A disk that is put back to an older copy (a restored backup, a snapshot of a virtual machine) forgets votes and entries
//! that its owner has acknowledged. So each start of a storage has a number and a random id, which are durable before
//! anybody hears of them, and members remember of each other the last start and the durable end of the log. What a member
//! says of itself at its next start must not be less. Pure; `bonds` exchanges marks, the worker stores them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Index, Member, NodeId, Raft, Role, Term};

/// One start of a storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Counts the starts of one incarnation, from 1. 0: the storage is volatile, each start is an incarnation of its own.
    pub number: u64,
    /// Random: two starts of the same number are one original and one copy.
    pub run: u64,
    /// The term that it began with.
    pub term: Term,
    /// The end of the log that it began with.
    pub last: Index,
}

/// How far a storage is durable, as its owner knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// The term.
    pub term: Term,
    /// The end of the log, whatever it holds.
    pub last: Index,
    /// Up to here the log is that of the leader of `term`: it is not truncated in this term.
    pub verified: Index,
    /// Up to here it is committed: it is never truncated.
    pub committed: Index,
}

/// The most that was ever seen of the storage of one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The incarnation that all of this is about.
    pub incarnation: u64,
    /// Its last start.
    pub start: Start,
    /// The highest durable term.
    pub term: Term,
    /// Durable in that term.
    pub verified: Index,
    /// Durable and committed.
    pub committed: Index,
}

/// What a member remembers across restarts: its own start, and what it has seen of others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// The start of this storage.
    pub start: Start,
    /// Of other members.
    pub others: BTreeMap<NodeId, Mark>,
}

/// Why a storage cannot be the one that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// A later incarnation of the member was seen.
    Incarnation,
    /// A later start of it was seen, or another one of the same number.
    Start,
    /// It held more than it does now.
    End,
}

impl Mark {
    /// What a member's first word proves about it.
    #[must_use]
    pub const fn first(incarnation: u64, start: Start, term: Term) -> Self {
        Self { incarnation, start, term, verified: 0, committed: 0 }
    }

    /// What an owner says of its storage.
    #[must_use]
    pub const fn of(incarnation: u64, start: Start, extent: Extent) -> Self {
        let Extent { term, verified, committed, .. } = extent;
        Self { incarnation, start, term, verified, committed }
    }

    /// Whether that start can be one of the storage that was seen: it began with all of it. What comes later tells nothing, because
    /// others bring a copy up to date.
    ///
    /// # Errors
    /// When it cannot: it is an older copy, or an earlier incarnation.
    pub fn admits(&self, incarnation: u64, start: Start) -> Result<(), Stale> {
        if incarnation != self.incarnation {
            return if incarnation < self.incarnation { Err(Stale::Incarnation) } else { Ok(()) };
        }
        if (start.number, start.run) == (self.start.number, self.start.run) {
            return Ok(());
        }
        if start.number <= self.start.number {
            return Err(Stale::Start);
        }
        let in_term = start.term > self.term || (start.term == self.term && start.last >= self.verified);
        if in_term && start.last >= self.committed { Ok(()) } else { Err(Stale::End) }
    }

    /// Takes in what somebody else has seen of the same member, who may have met a copy of it. True if anything has changed.
    pub fn join(&mut self, other: &Self) -> bool {
        let before = *self;
        if other.incarnation != self.incarnation {
            if other.incarnation > self.incarnation {
                *self = *other;
            }
        } else if self.admits(other.incarnation, other.start).is_ok() {
            self.start = other.start;
            self.more(other);
        } else if other.start.number < self.start.number {
            if other.admits(self.incarnation, self.start).is_ok() {
                self.more(other);
            } else {
                // What is known here is of a copy that did not have what was seen before it.
                *self = *other;
            }
        }
        *self != before
    }

    fn more(&mut self, other: &Self) {
        (self.term, self.verified) = (self.term, self.verified).max((other.term, other.verified));
        self.committed = self.committed.max(other.committed);
    }
}

impl Raft {
    /// How far the own storage is durable; none while a term, a vote, a founding promise or a snapshot that the log rests on
    /// is being written.
    #[must_use]
    pub fn extent(&self) -> Option<Extent> {
        let last = self.log.durable();
        if !self.outbox.settled() || last < self.log.base().index {
            return None;
        }
        // A leader's log is that of its term by definition.
        let verified = if matches!(self.role, Role::Leader(_)) { last } else { self.verified.min(last) };
        Some(Extent { term: self.hard.term, last, verified, committed: self.commit.min(last) })
    }

    /// What followers have acknowledged to this leader as durable: until where, and how much of that is committed.
    pub fn acknowledged(&self) -> impl Iterator<Item = (Member, Extent)> {
        let leader = if let Role::Leader(leader) = &self.role { Some(leader) } else { None };
        let (term, commit) = (self.hard.term, self.commit);
        // Who has not answered in this term may not even know of it.
        let heard =
            leader.into_iter().flat_map(|leader| leader.progress.iter()).filter(|(_, progress)| progress.matched > 0);
        heard.map(move |(member, progress)| {
            let matched = progress.matched;
            (*member, Extent { term, last: matched, verified: matched, committed: matched.min(commit) })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn start(number: u64, run: u64, (term, last): (Term, Index)) -> Start {
        Start { number, run, term, last }
    }

    const SEEN: Mark = Mark { incarnation: 5, start: start(3, 30, (6, 30)), term: 7, verified: 40, committed: 38 };

    fn admits(incarnation: u64, (number, run): (u64, u64), began: (Term, Index)) -> Result<(), Stale> {
        SEEN.admits(incarnation, start(number, run, began))
    }

    #[test]
    fn a_later_start_with_all_that_was_seen_is_admitted() {
        assert_eq!(admits(5, (4, 40), (7, 40)), Ok(()));
        assert_eq!(admits(5, (9, 90), (8, 38)), Ok(()), "what was not committed may go in a later term");
        assert_eq!(admits(6, (1, 10), (0, 0)), Ok(()), "a new incarnation owes nothing");
        assert_eq!(admits(5, (3, 30), (6, 30)), Ok(()), "the start that was seen");
    }

    #[test]
    fn each_way_to_be_less_is_an_older_copy() {
        assert_eq!(admits(4, (9, 90), (9, 90)), Err(Stale::Incarnation));
        assert_eq!(admits(5, (2, 20), (9, 90)), Err(Stale::Start));
        assert_eq!(admits(5, (3, 31), (9, 90)), Err(Stale::Start), "two starts of one number");
        assert_eq!(admits(5, (4, 40), (7, 39)), Err(Stale::End), "an acknowledged entry is gone");
        assert_eq!(admits(5, (4, 40), (6, 90)), Err(Stale::End), "a term is gone, and the vote in it");
        assert_eq!(admits(5, (4, 40), (8, 37)), Err(Stale::End), "a committed entry is gone");
    }

    #[test]
    fn marks_only_grow() {
        let mut mark = SEEN;
        assert!(!mark.join(&SEEN));
        assert!(!mark.join(&Mark { incarnation: 4, term: 99, verified: 99, ..SEEN }));
        assert!(!mark.join(&Mark { start: start(3, 99, (9, 99)), ..SEEN }), "the first of a number counts");
        assert!(!mark.join(&Mark { term: 6, verified: 99, committed: 38, ..SEEN }), "of another term");
        assert!(mark.join(&Mark { term: 6, verified: 99, committed: 39, ..SEEN }));
        assert_eq!((mark.term, mark.verified, mark.committed), (7, 40, 39));
        assert!(mark.join(&Mark { term: 8, verified: 1, committed: 0, ..SEEN }));
        assert_eq!((mark.term, mark.verified, mark.committed), (8, 1, 39));
        assert!(mark.join(&Mark { start: start(4, 40, (8, 39)), ..SEEN }));
        assert_eq!((mark.start.run, mark.term), (40, 8), "a start keeps what is durable");
        let reborn = Mark::first(6, start(1, 1, (0, 0)), 0);
        assert!(mark.join(&reborn));
        assert_eq!(mark, reborn);
    }

    /// Whoever has met only the copy tells of its start. That does not make it known to who has seen more, whichever of the
    /// two words comes first, and however far the copy has been brought since.
    #[test]
    fn the_word_of_who_has_met_a_copy_does_not_admit_it() {
        let copy = start(4, 40, (7, 12));
        let met = Mark { start: copy, term: 9, verified: 99, committed: 99, ..SEEN };
        let (mut one, mut other) = (SEEN, met);
        assert!(!one.join(&met));
        assert!(other.join(&SEEN));
        assert_eq!((one, other), (SEEN, SEEN));
        assert_eq!(one.admits(5, copy), Err(Stale::End));
        // An honest start is joined in both orders, too.
        let honest = Mark { start: start(4, 41, (7, 44)), term: 7, verified: 38, committed: 38, ..SEEN };
        let joined = Mark { verified: 40, ..honest };
        let (mut one, mut other) = (SEEN, honest);
        assert!(one.join(&honest) && other.join(&SEEN));
        assert_eq!((one, other), (joined, joined));
    }
}
