//! How leadership moves without an election timeout (Raft dissertation 3.10): the leader takes no commands while the target
//! gets what it lacks, and then asks it to stand for election at once. If that does not happen within the shortest election
//! timeout the leader goes on as before.
//!
//! Who may be a target is said by [`Raft::heir_on`]. Members say with every acknowledgement how fit they are to lead; a leader
//! that is less fit than a living, caught-up voter hands over to it. Nothing here decides about safety: whoever stands is
//! elected by the same votes as ever.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};

use super::{Index, Member, Mutant, NodeId, Preference, Raft, Role, message::Message};

/// After a hand-over that came to nothing a leader waits so many of the longest election timeouts before it tries again by
/// itself, and twice as long each time, up to [`LONGEST_PAUSE`].
const PAUSE: u64 = 2;
/// Microseconds.
const LONGEST_PAUSE: u64 = 60_000_000;

/// How fit a member is to lead, as it says itself. The order counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Fitness {
    /// It says that it cannot do a leader's work now.
    Unready,
    /// It would rather not.
    Reluctant,
    /// As good as any.
    #[default]
    Normal,
    /// It is to lead whenever it can.
    Preferred,
}

impl From<Preference> for Fitness {
    fn from(preference: Preference) -> Self {
        match preference {
            Preference::Normal => Self::Normal,
            Preference::Reluctant | Preference::Observer => Self::Reluctant,
        }
    }
}

/// Why a leader does not hand over to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unfit {
    /// It is no member of the group.
    NotMember,
    /// It is a member that does not vote.
    NoVote,
    /// It was not heard for so long, microseconds.
    Silent { micros: u64 },
    /// It lacks so many entries of the log. They are on their way.
    Behind { entries: u64 },
    /// This member says that it is fitter to lead, and would take leadership back at once.
    Outranked { by: NodeId },
}

/// When the leader last handed over by itself, and what came of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moving {
    /// Not before, microseconds.
    not_before: u64,
    tried: u32,
}

impl Raft {
    /// How fit this member says that it is.
    #[must_use]
    pub const fn fitness(&self) -> Fitness {
        self.fitness
    }

    /// What others are told: a member whose disk hangs would not stand for election.
    pub(super) fn fitness_now(&self) -> Fitness {
        if self.hangs() { Fitness::Unready } else { self.fitness }
    }

    /// The member says how fit it is from now on. The leader hears it with the next acknowledgement.
    pub(super) fn on_fitness(&mut self, fitness: Fitness) {
        self.fitness = fitness;
    }

    /// The voter on a node, if this leader could hand over to it now: it is alive, and lacks so little that the hand-over keeps
    /// nobody waiting.
    ///
    /// # Errors
    /// What is in the way; the only thing that passes by itself is to be [`Unfit::Behind`].
    pub fn heir_on(&self, node: NodeId) -> Result<Member, Unfit> {
        let membership = self.log.membership();
        let Some(member) = membership.voters.iter().copied().find(|voter| voter.node == node) else {
            let known = membership.everyone().iter().any(|member| member.node == node);
            return Err(if known { Unfit::NoVote } else { Unfit::NotMember });
        };
        if member == self.me {
            return Ok(member);
        }
        let Role::Leader(leader) = &self.role else { return Err(Unfit::NotMember) };
        let Some(progress) = leader.progress.get(&member) else { return Err(Unfit::NotMember) };
        let micros = self.now.mono.saturating_sub(progress.heard);
        if micros >= self.settings.election_min || self.is_dead(&member) {
            return Err(Unfit::Silent { micros });
        }
        if !self.is_caught_up(&member) {
            return Err(Unfit::Behind { entries: self.behind(progress.matched) });
        }
        Ok(member)
    }

    /// As [`heir_on`](Self::heir_on), for somebody who asks for that node: leadership must also stay there.
    ///
    /// # Errors
    /// As there, and [`Unfit::Outranked`].
    pub fn may_hand_to(&self, node: NodeId) -> Result<Member, Unfit> {
        let member = self.heir_on(node)?;
        let Role::Leader(leader) = &self.role else { return Err(Unfit::NotMember) };
        let fitness = leader.progress.get(&member).map_or(self.fitness, |progress| progress.fitness);
        let others =
            leader.progress.iter().filter(|(other, it)| it.fitness > fitness && self.heir_on(other.node).is_ok());
        let mut fitter = others.map(|(other, _)| other.node).chain((self.fitness > fitness).then_some(self.me.node));
        fitter.next().map_or(Ok(member), |by| Err(Unfit::Outranked { by }))
    }

    fn behind(&self, matched: Index) -> u64 {
        self.log.last().index.saturating_sub(matched).max(1)
    }

    /// Whether leadership is being handed over at the moment, and to whom.
    #[must_use]
    pub fn is_handing_over(&self) -> Option<Member> {
        match &self.role {
            Role::Leader(leader) => leader.transfer.map(|(to, _)| to),
            _ => None,
        }
    }

    pub(super) fn on_transfer(&mut self, to: Option<Member>) {
        let now = self.now.mono;
        let best = self.heir();
        let membership = self.log.membership();
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(to) = to.filter(|to| membership.voters.contains(to) && *to != self.me).or(best) else { return };
        leader.transfer = Some((to, now + self.settings.election_min));
        self.transfer_if_ready(to);
    }

    /// The living voter to hand over to: the fittest, of those the one that has most of the log.
    fn heir(&self) -> Option<Member> {
        let Role::Leader(leader) = &self.role else { return None };
        let membership = self.log.membership();
        let alive = self.now.mono.saturating_sub(self.settings.election_min);
        let all = leader.progress.iter();
        let living = all.filter(|(member, it)| membership.voters.contains(member) && it.heard >= alive);
        living.max_by_key(|(_, progress)| (progress.fitness, progress.matched)).map(|(member, _)| *member)
    }

    /// The target campaigns only when its log is complete.
    pub(super) fn transfer_if_ready(&mut self, member: Member) {
        let Role::Leader(leader) = &self.role else { return };
        if leader.transfer.is_none_or(|(to, _)| to != member) {
            return;
        }
        let complete = leader.progress.get(&member).is_some_and(|it| it.matched == self.log.last().index);
        if complete || self.settings.switch.is(Mutant::TransferWithoutCatchUp) {
            self.outbox.send(member, Message::TimeoutNow);
        }
    }

    /// Whether leadership ends now because the own disk hangs: it is handed over first, which gets a bounded time. If the disk
    /// answers meanwhile, nothing is given up.
    pub(super) fn gives_up(&mut self) -> bool {
        let hangs = self.hangs() && !self.settings.switch.is(Mutant::LeadsOnHungDisk);
        let (now, bound) = (self.now.mono, self.settings.election_min);
        let Role::Leader(leader) = &mut self.role else { return false };
        match leader.gives_up_at {
            _ if !hangs => leader.gives_up_at = None,
            Some(at) => return now >= at,
            None => {
                leader.gives_up_at = Some(now + bound);
                self.on_transfer(None);
            }
        }
        false
    }

    /// A follower has said how fit it is.
    pub(super) fn hear_fitness(&mut self, from: Member, fitness: Fitness) {
        if let Role::Leader(leader) = &mut self.role
            && let Some(progress) = leader.progress.get_mut(&from)
        {
            progress.fitness = fitness;
        }
    }

    /// Hands over to a voter that is fitter than this leader, with a growing pause after each attempt. A seal or a change of
    /// the voters comes first.
    pub(super) fn hand_to_fitter(&mut self) {
        let now = self.now.mono;
        let Role::Leader(leader) = &self.role else { return };
        if leader.transfer.is_some() || now < leader.moving.not_before || !self.is_established() {
            return;
        }
        let membership = self.log.membership();
        if membership.outgoing.is_some() || self.log.membership_index() > self.commit || self.log.is_yielding() {
            return;
        }
        let fitter = leader.progress.iter().filter(|(_, progress)| progress.fitness > self.fitness);
        let fitter = fitter.filter(|(member, _)| self.heir_on(member.node) == Ok(**member));
        let best = fitter.max_by_key(|(member, progress)| (progress.fitness, progress.matched, Reverse(**member)));
        let Some(to) = best.map(|(member, _)| *member) else { return };
        let pause = (PAUSE * self.settings.election_max).saturating_mul(1 << leader.moving.tried.min(16));
        if let Role::Leader(leader) = &mut self.role {
            leader.moving.not_before = now + pause.min(LONGEST_PAUSE);
            leader.moving.tried += 1;
        }
        self.on_transfer(Some(to));
    }
}
