//! What the outside may know of a member: for displays, for "why is this not online", and for the driver's conditions.
//!
//! A snapshot of values, made on demand; it decides nothing. What is asked after every step has its own cheap accessor.

use std::collections::BTreeSet;

use super::{
    Ballot, ClusterId, Contradiction, Halt, Index, Member, Membership, Position, Preference, Raft, Role, Term,
    progress::Mode as FollowerMode,
};

/// Everything that a member can say about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Who it is.
    pub me: Member,
    /// What it is.
    pub standing: Standing,
    /// Its cluster.
    pub cluster: Option<ClusterId>,
    /// Its term.
    pub term: Term,
    /// The leader that it follows; itself if it leads.
    pub leader: Option<Member>,
    /// Whether it leads.
    pub is_leader: bool,
    /// What it knows to be committed.
    pub commit: Index,
    /// The highest commit index that the leader of this term named; what `commit` is on its way to.
    pub leader_commit: Index,
    /// What its machine has applied.
    pub applied: Index,
    /// Its last position.
    pub last: Position,
    /// Why it has stopped.
    pub halted: Option<Halt>,
    /// How far the founding is; none once the member belongs to a cluster.
    pub founding: Option<FoundingStatus>,
    /// The configuration in force; none while there is no cluster, or before the first entries have arrived.
    pub membership: Option<Membership>,
    /// Whether the configuration in force is committed. A change is under way until then, and while it is joint.
    pub membership_committed: bool,
    /// The members that this one replicates to; empty unless it leads. In the order of members.
    pub followers: Vec<FollowerStatus>,
    /// What is being fetched from other members, if this one is far behind.
    pub fetching: Option<Fetching>,
    /// Voters, this member included, that are linked or were heard within the longest election timeout. A leader counts
    /// those that answered it within that time.
    pub reachable: BTreeSet<Member>,
    /// Whether the reachable voters are a quorum of the configuration in force.
    pub has_quorum: bool,
    /// How far this member's wall clock is ahead of the voters' median, milliseconds, as its leader last told.
    pub skew: Option<i64>,
    /// What storage owes.
    pub storage: Owed,
    /// The group has so many members that no more fit. Known to the leader, and to who asked to be taken in.
    pub full: Option<u32>,
    /// Members that said what cannot be, in the order of their nodes.
    pub contradicted: Vec<(Member, Contradiction)>,
}

/// What a member has given to storage and has no answer for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owed {
    /// For how long storage has owed an answer and given none, microseconds; 0 if it owes none.
    pub silence: u64,
    /// Whether that is so long that the member neither leads nor campaigns.
    pub hangs: bool,
    /// Batches without an answer.
    pub batches: usize,
    /// Their bytes.
    pub bytes: usize,
}

/// What a member is, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It belongs to no cluster yet.
    Blank,
    /// It belongs to a cluster whose configuration does not name it, as far as it knows: it asks to be taken in.
    Outsider,
    /// It is replicated to and may become a voter.
    Learner,
    /// It is replicated to and never votes.
    Observer,
    /// It votes and follows.
    Follower,
    /// It stands for election, or asks whether it could.
    Candidate,
    /// It leads.
    Leader,
    /// It has stopped for good.
    Halted,
}

/// How a blank member stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundingStatus {
    /// Founders that must agree; 0 if the size is not declared.
    pub declared: u32,
    /// Blank members that would found with this one, itself included.
    pub candidates: BTreeSet<Member>,
    /// The ballot under way: the own one, or the accepted one.
    pub ballot: Option<Ballot>,
    /// Founders that are known here to have accepted it.
    pub accepted: BTreeSet<Member>,
    /// Founders that are not known here to have accepted it. Only the proposer knows all of them.
    pub missing: BTreeSet<Member>,
    /// Whether a cluster was seen lately: then this member waits to be taken in instead of founding.
    pub sees_cluster: bool,
}

/// How entries reach a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The leader is finding out where the logs agree.
    Probe,
    /// Entries flow.
    Replicate,
    /// It fetches entries from several members.
    CatchUp,
    /// It fetches a snapshot.
    Snapshot,
}

/// A follower, as its leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerStatus {
    /// Who.
    pub member: Member,
    /// Durable there, verified.
    pub matched: Index,
    /// Entries that the leader has committed and the follower has not acknowledged.
    pub lag: u64,
    /// How entries reach it.
    pub mode: Mode,
    /// Microseconds since it last answered.
    pub silent: u64,
    /// Whether it is near enough to the commit index to become a voter.
    pub caught_up: bool,
    /// How far its wall clock is ahead of the voters' median, milliseconds, if both are known.
    pub skew: Option<i64>,
}

/// A bulk transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetching {
    /// What is fetched.
    pub mode: Mode,
    /// The index that it leads to.
    pub target: Index,
    /// Entries or chunks that have arrived.
    pub have: u64,
    /// Entries or chunks in all.
    pub of: u64,
}

impl Status {
    /// How much of what the group has committed is applied here, in percent. 100 if nothing is missing that is known of.
    #[must_use]
    pub fn percent(&self) -> u8 {
        let goal = self.leader_commit.max(self.commit);
        let percent = (u128::from(self.applied) * 100).checked_div(u128::from(goal)).unwrap_or(100);
        u8::try_from(percent.min(100)).unwrap_or(100)
    }
}

impl From<FollowerMode> for Mode {
    fn from(mode: FollowerMode) -> Self {
        match mode {
            FollowerMode::Probe { .. } => Self::Probe,
            FollowerMode::Replicate => Self::Replicate,
            FollowerMode::CatchUp { .. } => Self::CatchUp,
            FollowerMode::Snapshot { .. } => Self::Snapshot,
        }
    }
}

impl Raft {
    /// Everything at once, for displays. Costs a few allocations; the accessors beside it cost none.
    #[must_use]
    pub fn status(&self) -> Status {
        let membership = self.log.membership();
        let reachable: BTreeSet<Member> = membership.all_voters().filter(|voter| self.reaches(voter)).collect();
        Status {
            me: self.me,
            standing: self.standing(),
            cluster: self.cluster(),
            term: self.term(),
            leader: self.leader(),
            is_leader: self.is_leader(),
            commit: self.commit,
            leader_commit: self.leader_commit.max(self.commit),
            applied: self.applied,
            last: self.log.last(),
            halted: self.halted,
            founding: self.hard.cluster.is_none().then(|| self.founding_status()),
            membership: (!membership.voters.is_empty()).then(|| membership.clone()),
            membership_committed: self.log.membership_index() <= self.commit,
            followers: self.followers(),
            fetching: self.fetching(),
            has_quorum: membership.quorum(|voter| reachable.contains(voter)),
            reachable,
            skew: self.skew(),
            storage: self.owed(),
            full: self.full_with(),
            contradicted: self.contradictions(),
        }
    }

    fn owed(&self) -> Owed {
        let (batches, bytes) = self.outbox.owed();
        Owed { silence: self.outbox.silence(), hangs: self.hangs(), batches, bytes }
    }

    fn full_with(&self) -> Option<u32> {
        if self.is_leader() {
            let members = u32::try_from(self.log.membership().everyone().len()).unwrap_or(u32::MAX);
            return self.has_no_room().then_some(members);
        }
        let fresh = |at: u64| self.now.mono < at + 20 * self.settings.heartbeat;
        self.full.filter(|(at, _)| fresh(*at)).map(|(_, members)| members)
    }

    fn contradictions(&self) -> Vec<(Member, Contradiction)> {
        let shown = |at: u64| self.now.mono < at + super::CONTRADICTED_FOR;
        let all = self.contradicted.values().filter(|(_, _, at)| shown(*at));
        all.map(|(member, what, _)| (*member, *what)).collect()
    }

    /// What it is, in one word.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let membership = self.log.membership();
        match &self.role {
            _ if self.halted.is_some() => Standing::Halted,
            _ if self.hard.cluster.is_none() => Standing::Blank,
            Role::Leader(_) => Standing::Leader,
            Role::Candidate(_) | Role::PreCandidate(_) => Standing::Candidate,
            Role::Follower if membership.is_voter(&self.me) => Standing::Follower,
            Role::Follower if membership.observers.contains(&self.me) => Standing::Observer,
            Role::Follower if membership.learners.contains(&self.me) => Standing::Learner,
            Role::Follower => Standing::Outsider,
        }
    }

    /// Its cluster.
    #[must_use]
    pub const fn cluster(&self) -> Option<ClusterId> {
        self.hard.cluster
    }

    /// Its term.
    #[must_use]
    pub const fn term(&self) -> Term {
        self.hard.term
    }

    /// The leader that it follows; itself if it leads. One that has been silent for too long is none any more.
    #[must_use]
    pub const fn leader(&self) -> Option<Member> {
        match self.role {
            Role::Leader(_) => Some(self.me),
            Role::Follower => self.leader,
            Role::PreCandidate(_) | Role::Candidate(_) => None,
        }
    }

    /// Whether it leads.
    #[must_use]
    pub const fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// What its machine has applied.
    #[must_use]
    pub const fn applied(&self) -> Index {
        self.applied
    }

    /// Whether storage has owed an answer for so long that the member neither leads nor campaigns.
    #[must_use]
    pub fn storage_hangs(&self) -> bool {
        self.hangs()
    }

    /// Why it has stopped.
    #[must_use]
    pub const fn halted(&self) -> Option<Halt> {
        self.halted
    }

    /// How far this member's wall clock is ahead of the voters' median, milliseconds, as far as it is known.
    #[must_use]
    pub fn skew(&self) -> Option<i64> {
        match &self.role {
            Role::Leader(leader) => leader.clock.skew(&self.me),
            _ => self.skew,
        }
    }

    fn reaches(&self, voter: &Member) -> bool {
        let since = self.now.mono.saturating_sub(self.settings.election_max);
        match &self.role {
            _ if *voter == self.me => true,
            Role::Leader(leader) => leader.heard_since(voter, since),
            _ => self
                .peers
                .get(&voter.node)
                .is_some_and(|peer| peer.member == *voter && (peer.up || peer.heard >= since)),
        }
    }

    fn founding_status(&self) -> FoundingStatus {
        let record = &self.founder.record;
        let mut candidates = self.candidates();
        if self.settings.preference != Preference::Observer {
            candidates.insert(self.me);
        }
        let mut accepted = self.founder.votes.clone();
        if record.accepted.is_some() {
            accepted.insert(self.me);
        }
        let ballot = record.open.as_ref().or(record.accepted.as_ref()).cloned();
        let founders = ballot.as_ref().map(|ballot| ballot.founders.clone()).unwrap_or_default();
        accepted.retain(|member| founders.contains(member));
        FoundingStatus {
            declared: self.settings.declared,
            candidates,
            missing: &founders - &accepted,
            accepted,
            ballot,
            sees_cluster: self.sees_cluster(),
        }
    }

    fn followers(&self) -> Vec<FollowerStatus> {
        let Role::Leader(leader) = &self.role else { return Vec::new() };
        let follower = |(member, progress): (&Member, &super::progress::Progress)| FollowerStatus {
            member: *member,
            matched: progress.matched,
            lag: self.commit.saturating_sub(progress.matched),
            mode: progress.mode.into(),
            silent: self.now.mono.saturating_sub(progress.heard),
            caught_up: self.is_caught_up(member),
            skew: leader.clock.skew(member),
        };
        leader.progress.iter().map(follower).collect()
    }

    fn fetching(&self) -> Option<Fetching> {
        let catching = self.catching.as_ref().map(super::CatchUp::fetching);
        catching.or_else(|| self.installing.as_ref().map(super::Install::fetching))
    }
}
