//! What the outside may know of the local member, and why it is not online if it is not, in plain words.
//!
//! The worker publishes [`Facts`] after each of its rounds (cheap, for conditions) and a [`GroupStatus`] whenever
//! something in it may have changed and with every heartbeat.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    bonds::Refused,
    error::StopReason,
    fence::Fence,
    health::MachineStatus,
    leadership::LeaderPreference,
    raft::{ClusterId, Contradiction, Index, Member, NodeId, SKEW_LIMIT, Status, Term},
};
use crate::primitives::PeerId;

/// What changes often.
#[expect(clippy::struct_excessive_bools, reason = "conditions that are waited for")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Committed and applied here; never goes back.
    pub applied: Index,
    /// The end of the local log.
    pub last: Index,
    pub term: Term,
    pub leader: Option<Member>,
    pub is_leader: bool,
    /// It leads, and what is applied here reaches into its own term: so all that was acknowledged before is.
    pub leads: bool,
    /// Belongs to a cluster and follows another member.
    pub is_follower: bool,
    pub online: bool,
    pub has_quorum: bool,
    pub bonds: usize,
    pub cluster: Option<ClusterId>,
    /// The machine takes no commands any more, and its snapshot is durable.
    pub sealed: bool,
}

impl Facts {
    /// The leadership that lasts.
    pub fn fence(&self) -> Option<Fence> {
        self.leads.then(|| Fence::new(self.term, self.applied))
    }
}

/// What a member is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// It leads the group.
    Leader,
    /// It votes and follows the leader.
    Follower,
    /// It votes and knows no leader; or it is about to found the group.
    Candidate,
    /// It is being brought up to date and does not vote yet.
    Learner,
    /// It has all of the state and never votes.
    Observer,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Learner => "learner",
            Self::Observer => "observer",
        })
    }
}

/// What a member of the group does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemberKind {
    /// Its vote counts.
    Voter,
    /// It is being brought up to date, or stands by to become a voter.
    Learner,
    /// It is replicated to and never votes.
    Observer,
}

impl fmt::Display for MemberKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Voter => "voter",
            Self::Learner => "learner",
            Self::Observer => "observer",
        })
    }
}

/// A member of the group, from its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberInfo {
    id: PeerId,
    kind: MemberKind,
    lag: Option<u64>,
    incarnation: u64,
    skew: Option<i64>,
}

impl MemberInfo {
    /// The node.
    #[must_use]
    pub const fn id(&self) -> PeerId {
        self.id
    }

    /// What it does.
    #[must_use]
    pub const fn kind(&self) -> MemberKind {
        self.kind
    }

    /// Committed entries that it has not acknowledged. Known of every member at the leader, and of the local one everywhere.
    #[must_use]
    pub const fn lag(&self) -> Option<u64> {
        self.lag
    }

    /// The life of its storage: another number means that it began blank.
    #[must_use]
    pub const fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// How far its wall clock is ahead of the median of the voters', milliseconds, if that is more than a second: negative if
    /// it is behind. Known of every member at the leader, and of the local one everywhere.
    #[must_use]
    pub const fn clock_skew(&self) -> Option<i64> {
        self.skew
    }
}

/// Why a member is not online. `Display` says it in plain words.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum WhyOffline {
    /// No cluster was found yet, and it is too early to found one.
    Looking,
    /// The group is founded when so many more members are there.
    WaitingForFounders {
        /// Founders that are missing.
        missing: usize,
        /// The declared size.
        declared: u32,
    },
    /// The founders are agreeing; these have not answered.
    Founding {
        /// Founders that are not known to have accepted.
        missing: Vec<PeerId>,
    },
    /// There is a cluster, and it has not taken this member in yet.
    WaitingToBeTakenIn,
    /// There is a cluster, and it has no room: every member is there or was lately.
    Full {
        /// Its members.
        members: usize,
    },
    /// The local disk owes an answer and gives none: the member neither leads nor campaigns until it does. Calls may be served
    /// through another leader for a while.
    StorageHangs {
        /// For how long.
        silent: Duration,
    },
    /// The member is being brought up to date.
    CatchingUp {
        /// Applied part of what the group has committed.
        percent: u8,
    },
    /// Fewer voters than a majority are reachable from here.
    NoQuorum {
        /// Reachable voters, this member included if it is one.
        reachable: usize,
        /// Voters of the group.
        voters: usize,
    },
    /// Members of a volatile group lost their memory, a majority at once: what was acknowledged may exist nowhere any more.
    /// Shut all members down and start them anew; nothing happens by itself.
    VolatileMajorityLost {
        /// Voters that came back blank.
        lost: usize,
        /// Voters of the group.
        voters: usize,
    },
    /// A leader is being elected.
    NoLeader,
    /// Another node has the key, but refuses this member or is refused by it.
    Refused(Vec<Refused>),
    /// A [client](super::GroupClient) has no link to any member; what is in the way of those that it knows of.
    NoMemberReached {
        /// Each member that it tried.
        tried: Vec<(PeerId, String)>,
    },
    /// The member has stopped.
    Stopped(StopReason),
}

impl fmt::Display for WhyOffline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMemberReached { tried } if tried.is_empty() => f.write_str("no member of the group is known"),
            Self::NoMemberReached { tried } => {
                f.write_str("no member of the group is reached: ")?;
                for (at, (peer, why)) in tried.iter().enumerate() {
                    write!(f, "{}{peer:?}: {why}", if at == 0 { "" } else { "; " })?;
                }
                Ok(())
            }
            Self::Looking => f.write_str("looking for members of the group"),
            Self::WaitingForFounders { missing: 1, .. } => f.write_str("waiting for 1 more founder"),
            Self::WaitingForFounders { missing, .. } => write!(f, "waiting for {missing} more founders"),
            Self::Founding { missing } if missing.is_empty() => f.write_str("founding the group"),
            Self::Founding { missing } => write!(f, "founding the group: waiting for {missing:?} to accept"),
            Self::WaitingToBeTakenIn => f.write_str("waiting to be taken in by the group"),
            Self::Full { members } => {
                write!(f, "the group is full: it has {members} members, and none of them has been silent for long")
            }
            Self::StorageHangs { silent } => write!(f, "its disk has not answered for {:.1} s", silent.as_secs_f64()),
            Self::CatchingUp { percent } => write!(f, "catching up {percent} %"),
            Self::NoQuorum { reachable, voters } => {
                write!(f, "no quorum: {reachable} of {voters} voters reachable")
            }
            Self::VolatileMajorityLost { lost, voters } => write!(
                f,
                "a majority of this volatile group lost its memory ({lost} of {voters} voters): restart all members"
            ),
            Self::NoLeader => f.write_str("electing a leader"),
            Self::Refused(all) => {
                f.write_str("refused:")?;
                let mut separator = "";
                for Refused { peer, reason, by_peer, .. } in all {
                    let way = if *by_peer { "by" } else { "refusing" };
                    write!(f, "{separator} {way} {peer:?}: {reason}")?;
                    separator = ";";
                }
                Ok(())
            }
            Self::Stopped(why) => write!(f, "stopped: {why}"),
        }
    }
}

/// A member that said what none says whose storage is its own: it was not believed. It or a voter is a copy, or was put back to
/// an older state. `Display` says it in plain words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contradicted {
    peer: PeerId,
    what: Contradiction,
}

impl Contradicted {
    pub(crate) fn new(by: Member, what: Contradiction) -> Option<Self> {
        Some(Self { peer: peer_of(by.node)?, what })
    }

    /// Who said it.
    #[must_use]
    pub const fn peer(&self) -> PeerId {
        self.peer
    }
}

impl fmt::Display for Contradicted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peer = self.peer;
        match self.what {
            Contradiction::SecondLeader { term, first } => {
                write!(f, "{peer:?} says that it leads term {term}, in which ")?;
                match peer_of(first.node) {
                    Some(first) => write!(f, "{first:?} leads")?,
                    None => write!(f, "{first:?} leads")?,
                }
            }
            Contradiction::BeyondTheEnd { matched, last } => {
                write!(f, "{peer:?} acknowledges entry {matched} of a log that ends at {last}")?;
            }
        }
        f.write_str(": refused; some member is a copy of another one, or its disk was put back to an older state")
    }
}

/// How the local member stands.
#[expect(clippy::struct_excessive_bools, reason = "what an operator asks, one by one")]
#[derive(Clone, Debug)]
pub struct GroupStatus {
    pub(crate) me: PeerId,
    pub(crate) role: Role,
    pub(crate) leader: Option<PeerId>,
    pub(crate) term: Term,
    pub(crate) committed: Index,
    pub(crate) log_position: Index,
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) members: Arc<[MemberInfo]>,
    pub(crate) voters: usize,
    pub(crate) floor: usize,
    pub(crate) settled: bool,
    pub(crate) has_quorum: bool,
    pub(crate) bonds: usize,
    pub(crate) dropped: u64,
    pub(crate) compacts: bool,
    pub(crate) machine: MachineStatus,
    pub(crate) storage_silence: Option<Duration>,
    pub(crate) storage_hangs: bool,
    pub(crate) unwritten: (usize, usize),
    pub(crate) full: bool,
    pub(crate) contradictions: Arc<[Contradicted]>,
    pub(crate) copied: bool,
    pub(crate) preference: LeaderPreference,
    pub(crate) ready: bool,
    pub(crate) why: Option<WhyOffline>,
}

impl GroupStatus {
    pub(crate) fn new(me: PeerId, compacts: bool) -> Self {
        Self {
            me,
            role: Role::Candidate,
            leader: None,
            term: 0,
            committed: 0,
            log_position: 0,
            cluster: None,
            members: Arc::new([]),
            voters: 0,
            floor: 0,
            settled: false,
            has_quorum: false,
            bonds: 0,
            dropped: 0,
            compacts,
            machine: MachineStatus::default(),
            storage_silence: None,
            storage_hangs: false,
            unwritten: (0, 0),
            full: false,
            contradictions: Arc::new([]),
            copied: false,
            preference: LeaderPreference::default(),
            ready: true,
            why: Some(WhyOffline::Looking),
        }
    }

    /// The local node.
    #[must_use]
    pub const fn me(&self) -> PeerId {
        self.me
    }

    /// What it is.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// The leader that it knows.
    #[must_use]
    pub const fn leader(&self) -> Option<PeerId> {
        self.leader
    }

    /// Its term: grows with every election.
    #[must_use]
    pub const fn term(&self) -> u64 {
        self.term
    }

    /// The last index that is committed and applied here.
    #[must_use]
    pub const fn committed(&self) -> u64 {
        self.committed
    }

    /// The end of the local log.
    #[must_use]
    pub const fn log_position(&self) -> u64 {
        self.log_position
    }

    /// The members of the group, in the order of their ids.
    #[must_use]
    pub fn members(&self) -> &[MemberInfo] {
        &self.members
    }

    /// The smallest number of voters to which the group shrinks by itself.
    #[must_use]
    pub const fn floor(&self) -> usize {
        self.floor
    }

    /// Whether the voters are settled: as far as this member knows, no change of them is under way. Until it is over, a group
    /// needs a majority of the voters before it, too: one that grows from two voters to three does not stand the loss of either of
    /// the two. Before a member is stopped on purpose, let all of them say so.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.settled
    }

    /// Whether a majority of the voters is reachable from here.
    #[must_use]
    pub const fn has_quorum(&self) -> bool {
        self.has_quorum
    }

    /// Members that this one has a link to.
    #[must_use]
    pub const fn bonds(&self) -> usize {
        self.bonds
    }

    /// Messages to other members that were dropped because there was no link or no room; they are sent again.
    #[must_use]
    pub const fn dropped_messages(&self) -> u64 {
        self.dropped
    }

    /// Whether the machine has snapshots; if not, the log grows without end.
    #[must_use]
    pub const fn compacts(&self) -> bool {
        self.compacts
    }

    /// How the local state machine fares: its snapshots, commands that panicked or take long.
    #[must_use]
    pub const fn machine(&self) -> &MachineStatus {
        &self.machine
    }

    /// How far the local wall clock is ahead of the median of the voters', milliseconds, if that is more than a second:
    /// negative if it is behind. The group does not depend on it; what reads the local clock does.
    #[must_use]
    pub fn clock_skew(&self) -> Option<i64> {
        self.members.iter().find(|member| member.id == self.me)?.skew
    }

    /// For how long the local storage has owed an answer and given none; none while it owes none. After two seconds, or twice
    /// the longest election timeout if that is more, it is taken to hang: the member gives leadership up.
    #[must_use]
    pub const fn storage_silence(&self) -> Option<Duration> {
        self.storage_silence
    }

    /// Batches that the local storage has not answered. From 16,384 on nothing more is taken.
    #[must_use]
    pub const fn unwritten_batches(&self) -> usize {
        self.unwritten.0
    }

    /// Bytes that the local storage has not answered. From 64 MiB on nothing more is taken.
    #[must_use]
    pub const fn unwritten_bytes(&self) -> usize {
        self.unwritten.1
    }

    /// Whether the group has as many members as it can have (256), so that no further one is taken in. Known to the leader.
    /// Members without a vote that have been silent for 30 s make room.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.full
    }

    /// Members that said in the last ten minutes what cannot be. What they said was not believed.
    #[must_use]
    pub fn contradictions(&self) -> &[Contradicted] {
        &self.contradictions
    }

    /// Whether another process ran on a copy of this member's storage within the last 12 s. The others refuse it: stop it, and
    /// give it a data directory of its own.
    #[must_use]
    pub const fn is_copied(&self) -> bool {
        self.copied
    }

    /// How much it is to lead ([`set_preference`](super::Group::set_preference)).
    #[must_use]
    pub const fn preference(&self) -> LeaderPreference {
        self.preference
    }

    /// Whether it counts as ready to lead ([`set_ready`](super::Group::set_ready)).
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        self.ready
    }

    /// Whether calls are served.
    #[must_use]
    pub const fn is_online(&self) -> bool {
        self.why.is_none()
    }

    /// Why not, if not.
    #[must_use]
    pub const fn why_offline(&self) -> Option<&WhyOffline> {
        self.why.as_ref()
    }

    /// Whether anything but the indexes differs, so that somebody who watches should be told.
    pub(crate) fn differs(&self, other: &Self) -> bool {
        let said = |it: &Self| (it.full, it.copied, it.preference, it.ready, it.contradictions.clone());
        let group = |it: &Self| (it.cluster, it.has_quorum, it.bonds, it.voters, it.settled, it.floor);
        let head = |it: &Self| (it.role, it.leader, it.term, group(it));
        head(self) != head(other)
            || self.members != other.members
            || self.why_kind() != other.why_kind()
            || said(self) != said(other)
            || self.machine.differs(&other.machine)
    }

    /// Why it is not online, without what changes all the time.
    pub(crate) fn why_kind(&self) -> Option<String> {
        match &self.why {
            Some(WhyOffline::StorageHangs { .. }) => Some("storage hangs".to_owned()),
            why => why.as_ref().map(ToString::to_string),
        }
    }
}

impl fmt::Display for GroupStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in term {}, {} applied", self.role, self.term, self.committed)?;
        if let Some(why) = &self.why {
            write!(f, ", not online: {why}")?;
        }
        if let Some(skew) = self.clock_skew() {
            write!(f, ", {}", Skew(skew))?;
        }
        if self.full {
            write!(f, ", the group is full ({} members)", self.members.len())?;
        }
        for contradicted in self.contradictions.iter() {
            write!(f, ", {contradicted}")?;
        }
        if self.copied {
            f.write_str(", another process runs on a copy of its storage and is refused")?;
        }
        if !self.compacts {
            f.write_str(", the log is never compacted (the machine has no snapshots)")?;
        }
        self.machine.notes().iter().try_for_each(|note| write!(f, ", {note}"))
    }
}

/// How wrong a wall clock is, in words: milliseconds ahead of the median of the voters'.
pub(crate) struct Skew(pub i64);

impl fmt::Display for Skew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = std::time::Duration::from_millis(self.0.unsigned_abs());
        write!(f, "wall clock {by:?} {}", if self.0 < 0 { "behind" } else { "ahead" })
    }
}

/// The node's public name, if its bytes are one.
pub(crate) fn peer_of(node: NodeId) -> Option<PeerId> {
    iroh::PublicKey::from_bytes(node.as_bytes()).ok().map(PeerId::from)
}

pub(crate) fn node_of(peer: PeerId) -> NodeId {
    NodeId::from_bytes(*peer.as_bytes())
}

/// The members of a configuration with what is known of their lag.
pub(crate) fn members(status: &Status) -> Vec<MemberInfo> {
    let Some(membership) = &status.membership else { return Vec::new() };
    let own = status.leader_commit.saturating_sub(status.applied);
    let lag = |member: &Member| {
        let follower = status.followers.iter().find(|follower| follower.member == *member);
        follower.map(|it| it.lag).or_else(|| (*member == status.me).then_some(own))
    };
    let skew = |member: &Member| {
        let follower = status.followers.iter().find(|follower| follower.member == *member);
        let skew = if *member == status.me { status.skew } else { follower.and_then(|it| it.skew) };
        // To the nearest second: what a message takes on its way is no change.
        let wrong = skew.filter(|skew| skew.unsigned_abs() > SKEW_LIMIT);
        wrong.map(|skew| skew.saturating_add(500).div_euclid(1000) * 1000)
    };
    let info = |kind: MemberKind| {
        move |member: Member| {
            let id = peer_of(member.node)?;
            Some(MemberInfo { id, kind, lag: lag(&member), incarnation: member.incarnation, skew: skew(&member) })
        }
    };
    let voters = membership.all_voters().filter_map(info(MemberKind::Voter));
    let learners = membership.learners.iter().filter(|member| !membership.is_voter(member)).copied();
    let observers = membership.observers.iter().copied().filter_map(info(MemberKind::Observer));
    let mut all: Vec<_> = voters.chain(learners.filter_map(info(MemberKind::Learner))).chain(observers).collect();
    all.sort_by_key(|member| (member.id, member.incarnation));
    all
}

pub(crate) fn role(status: &Status, observer: bool) -> Role {
    let voter = status.membership.as_ref().is_some_and(|membership| membership.is_voter(&status.me));
    match &status.membership {
        _ if status.is_leader => Role::Leader,
        _ if observer => Role::Observer,
        None if status.cluster.is_none() => Role::Candidate,
        _ if !voter => Role::Learner,
        _ if status.leader.is_none() => Role::Candidate,
        _ => Role::Follower,
    }
}

/// Why the member is not online, if it is not. `reborn` counts voters that came back without their memory.
pub(crate) fn why(status: &Status, caught_up: u64, volatile: bool, reborn: usize) -> Option<WhyOffline> {
    if let Some(halt) = status.halted {
        return Some(WhyOffline::Stopped(halt.into()));
    }
    if status.storage.hangs {
        return Some(WhyOffline::StorageHangs { silent: Duration::from_micros(status.storage.silence) });
    }
    let outside = || match status.full {
        Some(members) => WhyOffline::Full { members: members as usize },
        None => WhyOffline::WaitingToBeTakenIn,
    };
    if let Some(founding) = &status.founding {
        let missing = (founding.declared as usize).saturating_sub(founding.candidates.len());
        return Some(match &founding.ballot {
            Some(_) => {
                WhyOffline::Founding { missing: founding.missing.iter().filter_map(|it| peer_of(it.node)).collect() }
            }
            None if founding.sees_cluster => outside(),
            None if missing > 0 => WhyOffline::WaitingForFounders { missing, declared: founding.declared },
            None => WhyOffline::Looking,
        });
    }
    let Some(membership) = &status.membership else { return Some(WhyOffline::CatchingUp { percent: 0 }) };
    let voters = membership.voters.len();
    if status.leader.is_none() {
        return Some(if volatile && reborn > 0 && voters - reborn.min(voters) <= voters / 2 {
            WhyOffline::VolatileMajorityLost { lost: reborn, voters }
        } else if !status.has_quorum {
            let reachable = membership.voters.iter().filter(|voter| status.reachable.contains(voter)).count();
            WhyOffline::NoQuorum { reachable, voters }
        } else {
            WhyOffline::NoLeader
        });
    }
    let behind = status.leader_commit.saturating_sub(status.applied);
    if !membership.contains(&status.me) {
        return Some(outside());
    }
    (behind > caught_up || status.fetching.is_some())
        .then(|| WhyOffline::CatchingUp { percent: status.percent().min(99) })
}
