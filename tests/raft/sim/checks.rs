//! The invariants of consensus, judged from outside over all members, their disks and everything they send.
//!
//! The registry is what *was* committed, by whichever member first said so; nothing may ever contradict it.

use std::collections::{BTreeMap, BTreeSet};

use mosaik::groups::raft::{
    Ballot, ClusterId, Digest, Entry, Envelope, Index, Member, Membership, Message, Payload, Position, Raft, SessionId,
    Term,
};

use super::disk::Disk;

#[derive(Clone, Debug)]
struct Committed {
    position: Position,
    /// The term of the leader that committed it.
    by: Term,
}

#[derive(Default)]
struct Cluster {
    log: Vec<Committed>,
    config: Option<Membership>,
    peak: usize,
    adopted: BTreeSet<ClusterId>,
    user: bool,
    /// Group time and civil time of the last entry.
    times: (u64, u64),
}

/// What was last seen of one life of a member.
#[derive(Clone, Copy, Default)]
struct Seen {
    term: Term,
    leads: bool,
    last: Position,
    commit: Index,
    at_commit: Position,
}

#[derive(Default)]
pub struct Checks {
    clusters: BTreeMap<ClusterId, Cluster>,
    leaders: BTreeMap<(ClusterId, Term), Member>,
    entries: BTreeMap<(ClusterId, Term, Index), Digest>,
    ran: BTreeMap<(ClusterId, SessionId, u64), Index>,
    seen: BTreeMap<Member, Seen>,
    pub geneses: BTreeSet<ClusterId>,
    /// Every ballot that was put to somebody.
    ballots: BTreeMap<Digest, Ballot>,
    /// Clusters that dissolved into another one.
    pub dissolved: BTreeSet<ClusterId>,
    /// More than one genesis is a violation.
    pub one_genesis: bool,
    pub committed: u64,
}

/// Who lives where, for questions about other members' disks.
pub trait Disks {
    fn disk(&self, member: &Member) -> Option<&Disk>;
    /// Whether the member may still run: its storage was not lost.
    fn lives(&self, member: &Member) -> bool;
    /// The last position of the member's log, if it runs.
    fn last(&self, member: &Member) -> Option<Position>;
}

impl Checks {
    pub fn new(one_genesis: bool) -> Self {
        Self { one_genesis, ..Self::default() }
    }

    /// The cluster's last committed configuration.
    pub fn config(&self, cluster: ClusterId) -> Option<&Membership> {
        self.clusters.get(&cluster)?.config.as_ref()
    }

    /// The process died: what it knew beyond its disk may be gone.
    pub fn died(&mut self, member: Member) {
        self.seen.remove(&member);
    }

    pub fn after_step(&mut self, raft: &Raft, disks: &impl Disks) {
        let Some(cluster) = raft.cluster() else { return };
        let before = self.seen.get(&raft.me()).copied().unwrap_or_default();
        let (me, log) = (raft.me(), raft.log());
        let (term, commit, last, leads) = (raft.term(), raft.commit(), log.last(), raft.is_leader());
        assert!(term >= before.term, "{me:?}: term went back");
        assert!(commit >= before.commit, "{me:?}: commit went back");
        if before.commit > log.base().index {
            assert_eq!(log.at(before.commit), Some(before.at_commit), "{me:?}: truncation reached the commit index");
        }
        if last != before.last && last.index > 1 {
            let known = *self.entries.entry((cluster, last.term, last.index)).or_insert(last.hash);
            assert_eq!(known, last.hash, "{me:?}: log matching at {last:?}");
        }
        if leads {
            let holder = *self.leaders.entry((cluster, term)).or_insert(me);
            assert_eq!(holder, me, "election safety: two leaders in term {term}");
            if before.leads && before.term == term {
                let kept = before.last.index <= log.base().index || log.at(before.last.index) == Some(before.last);
                assert!(kept, "{me:?}: a leader changed its own log");
                for index in before.last.index + 1..=last.index {
                    config_is_alone(raft, index);
                }
            } else {
                self.leader_is_complete(raft, cluster);
            }
        }
        for index in before.commit.max(log.base().index) + 1..=commit {
            self.commit(raft, cluster, index, disks);
        }
        let at_commit = log.at(commit).unwrap_or_default();
        let now = Seen { term, leads, last, commit, at_commit };
        self.seen.insert(me, now);
    }

    fn leader_is_complete(&self, raft: &Raft, cluster: ClusterId) {
        let Some(known) = self.clusters.get(&cluster) else { return };
        let (term, log) = (raft.term(), raft.log());
        let Some(must) = known.log.iter().rev().find(|it| it.by < term) else { return };
        let has = must.position.index <= log.base().index || log.at(must.position.index) == Some(must.position);
        assert!(has, "{:?}: leader of {term} lacks {:?}, committed in {}", raft.me(), must.position, must.by);
    }

    fn commit(&mut self, raft: &Raft, cluster: ClusterId, index: Index, disks: &impl Disks) {
        let log = raft.log();
        let Some(position) = log.at(index) else { return };
        let known = self.clusters.entry(cluster).or_default();
        if let Some(before) = known.log.get(index as usize - 1) {
            assert_eq!(before.position, position, "{:?}: state machine safety at {index}", raft.me());
            return;
        }
        assert_eq!(known.log.len() as u64 + 1, index, "{:?}: committed with a hole", raft.me());
        known.log.push(Committed { position, by: raft.term() });
        self.committed += 1;
        let Some(entry) = log.get(index) else { return };
        known.tell_time(entry);
        match &entry.payload {
            Payload::Config(next) => known.configure(next),
            Payload::Adopt(other) => {
                known.adopted.insert(*other);
            }
            payload => known.user |= payload.is_user(),
        }
        if index > 1 && raft.is_leader() {
            let durable = |member: &Member| disks.disk(member).is_some_and(|disk| disk.has(index, position.hash));
            assert!(log.membership().quorum(durable), "{index} committed without a durable majority");
        }
    }

    /// A command really ran at some member.
    pub fn ran(&mut self, cluster: ClusterId, session: SessionId, sequence: u64, index: Index) {
        let at = *self.ran.entry((cluster, session, sequence)).or_insert(index);
        assert_eq!(at, index, "a command was applied twice");
    }

    /// A member dissolves.
    pub fn wiped(&mut self, from: ClusterId, into: ClusterId) {
        let user = self.clusters.get(&from).is_some_and(|it| it.user);
        assert!(!user, "a cluster with user data dissolved");
        let adopted = self.clusters.get(&into).is_some_and(|it| it.adopted.contains(&from));
        assert!(adopted, "a cluster dissolved into one that had not adopted it");
        self.dissolved.insert(from);
    }

    /// A genesis: every founder must have accepted durably.
    pub fn founded(&mut self, raft: &Raft, disks: &impl Disks) {
        let Some(ballot) = raft.founding().founded.clone() else { return };
        if !self.geneses.insert(ballot.cluster()) {
            return;
        }
        for founder in &ballot.founders {
            let Some(disk) = disks.disk(founder) else { continue };
            let record = &disk.durable.founding;
            let bound = record.accepted.as_ref() == Some(&ballot) || record.founded.as_ref() == Some(&ballot);
            assert!(bound, "genesis without {founder:?}'s durable acceptance");
        }
        assert!(!self.one_genesis || self.geneses.len() == 1, "two geneses");
    }

    /// A message leaves: what it reveals must be durable, and true.
    pub fn sent(&mut self, raft: &Raft, envelope: &Envelope, disk: &Disk, disks: &impl Disks) {
        assert_eq!(envelope.from, raft.me(), "a message in another's name");
        let stored = &disk.durable;
        assert!(stored.hard.term >= envelope.term, "term {} revealed before it was durable", envelope.term);
        if let Some(cluster) = envelope.cluster {
            assert_eq!(stored.hard.cluster, Some(cluster), "cluster revealed before it was durable");
        }
        let voted = |for_whom| stored.hard.term > envelope.term || stored.hard.voted == Some(for_whom);
        match &envelope.body {
            Message::Vote { .. } => assert!(voted(envelope.from), "own vote not durable"),
            Message::VoteReply { granted: true } => assert!(voted(envelope.to), "vote not durable"),
            Message::AppendReply { matched, .. } if *matched > 0 && envelope.term == raft.term() => {
                let at = raft.log().at(*matched);
                assert!(
                    at.is_none_or(|at| disk.has(*matched, at.hash)),
                    "{:?} acknowledged {matched} before it was durable",
                    raft.me()
                );
            }
            Message::Propose { ballot } => {
                self.ballots.entry(ballot.id()).or_insert_with(|| ballot.clone());
            }
            Message::Accepted { ballot } => {
                let record = &stored.founding;
                let held = [&record.accepted, &record.founded].into_iter().flatten().any(|it| it.id() == *ballot);
                let dead = || self.ballots.get(ballot).is_some_and(|ballot| is_dead(ballot, disks));
                assert!(held || stored.hard.term > 0 || dead(), "acceptance not durable");
            }
            Message::Refused { ballot } => {
                let never = stored.founding.refused.get(&ballot.proposer).is_some_and(|it| *it >= ballot.number);
                assert!(never || stored.hard.cluster.is_some(), "refusal not durable");
            }
            Message::Pulled { entries, .. } => {
                for entry in entries {
                    self.pulled(raft, entry);
                }
            }
            Message::TimeoutNow => {
                let behind = disks.last(&envelope.to).is_some_and(|last| last.index < raft.log().last().index);
                assert!(!behind, "leadership handed to a member that is behind");
            }
            _ => {}
        }
    }

    fn pulled(&self, raft: &Raft, entry: &Entry) {
        assert!(entry.index <= raft.commit(), "served an uncommitted entry");
        let cluster = raft.cluster().and_then(|cluster| self.clusters.get(&cluster));
        let known = cluster.and_then(|it| it.log.get(entry.index as usize - 1));
        assert_eq!(
            known.map(|it| it.position),
            Some(entry.position()),
            "served an entry that is not the committed one"
        );
    }
}

/// A ballot of which no genesis can come any more, so that whoever accepted it was right to let it go: a founder has
/// refused it or is bound elsewhere, or its proposer has given it up or died before it accepted; all of that on disks.
fn is_dead(ballot: &Ballot, disks: &impl Disks) -> bool {
    ballot.founders.iter().any(|founder| {
        let Some(disk) = disks.disk(founder) else { return true };
        let record = &disk.durable.founding;
        if record.founded.as_ref() == Some(ballot) {
            return false;
        }
        let refused = record.refused.get(&ballot.proposer).is_some_and(|number| *number >= ballot.number);
        let open = record.open.as_ref() == Some(ballot) && disks.lives(founder);
        let held = open || record.accepted.as_ref() == Some(ballot);
        refused || disk.durable.hard.cluster.is_some() || (*founder == ballot.proposer && !held)
    })
}

/// A configuration that a leader appends: the one before is committed, and so is something of its own term.
fn config_is_alone(raft: &Raft, index: Index) {
    let (log, commit) = (raft.log(), raft.commit());
    if !log.get(index).is_some_and(|entry| matches!(entry.payload, Payload::Config(_))) {
        return;
    }
    let uncommitted = (commit + 1..index).filter_map(|at| log.get(at));
    let others = uncommitted.filter(|entry| matches!(entry.payload, Payload::Config(_))).count();
    assert_eq!(others, 0, "two uncommitted changes of the configuration");
    let own = log.at(commit).is_some_and(|at| at.term == raft.term());
    assert!(own, "a change of the configuration before a commit of the own term");
}

impl Cluster {
    /// Both clocks go forward, civil time by at most twice what group time does, whatever the wall clocks show.
    fn tell_time(&mut self, entry: &Entry) {
        let (time, civil) = self.times;
        assert!(entry.time >= time && entry.civil >= civil, "a clock of the group went back");
        let most = if civil == 0 { u64::MAX } else { 2 * (entry.time - time) + 2 };
        assert!(entry.civil - civil <= most, "civil time jumped from {civil} to {}", entry.civil);
        self.times = (entry.time, entry.civil);
    }

    fn configure(&mut self, next: &Membership) {
        if let Some(before) = &self.config {
            assert!(next.follows(before), "config safety: {before:?} -> {next:?}");
            if before.cluster != next.cluster {
                self.peak = 0; // forced recovery: an operator's word goes below the floor
            }
        }
        if next.outgoing.is_none() {
            let floor = match next.declared {
                size @ 1..3 => self.peak.min(size as usize),
                _ => self.peak.min(3),
            };
            assert!(next.voters.len() >= floor, "below the floor: {} of {floor}", next.voters.len());
            self.peak = self.peak.max(next.voters.len());
        }
        self.config = Some(next.clone());
    }
}
