//! How a cluster comes to be, at most once: ballots that every founder accepts durably, the proposer last.
//!
//! A node has at most one ballot accepted. It is released only when the ballot provably cannot become a genesis: a
//! named founder refused it durably, or its proposer, who had not accepted it yet, gave it up durably. Time releases
//! nothing. So of 2N-1 possible founders two sets of N share a node, and that node cannot have accepted both.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{
    ClusterId, Digest, Entry, Log, Member, Membership, Mutant, Now, Payload, Preference, Raft, Write,
    message::{Envelope, Message},
};

/// A proposal to found a cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ballot {
    /// Who proposes; a founder too.
    pub proposer: Member,
    /// The proposer's count of ballots; grows.
    pub number: u64,
    /// Everybody who must accept, and nobody else: the first voters.
    pub founders: BTreeSet<Member>,
    /// The declared size; 0 if undeclared.
    pub declared: u32,
}

impl Ballot {
    /// Its name.
    #[must_use]
    pub fn id(&self) -> Digest {
        let mut bytes = b"mosaik genesis 1".to_vec();
        bytes.extend_from_slice(self.proposer.node.as_bytes());
        for number in [self.proposer.incarnation, self.number, u64::from(self.declared)] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for founder in &self.founders {
            bytes.extend_from_slice(founder.node.as_bytes());
            bytes.extend_from_slice(&founder.incarnation.to_le_bytes());
        }
        Digest(*blake3::hash(&bytes).as_bytes())
    }

    /// The cluster that it founds.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        ClusterId(self.id())
    }

    /// The first entry of its log: the same at every founder.
    #[must_use]
    pub fn genesis(&self) -> Entry {
        let membership = Membership::founding(self.cluster(), self.founders.clone(), self.declared);
        Entry::after(&Log::root().hash, 1, 1, (0, 0), Payload::Config(Box::new(membership)))
    }
}

/// What a node must not forget about foundings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Founding {
    /// The number of the last own ballot.
    pub number: u64,
    /// The own ballot that is put to the others; not accepted by this node yet.
    pub open: Option<Ballot>,
    /// The ballot that this node accepted.
    pub accepted: Option<Ballot>,
    /// Refused for ever: ballots of the proposer up to the number.
    pub refused: std::collections::BTreeMap<Member, u64>,
    /// The ballot that founded this node's cluster.
    pub founded: Option<Ballot>,
}

/// The founding record with what need not survive.
#[derive(Clone, Debug)]
pub(super) struct Founder {
    pub record: Founding,
    /// Who accepted the open ballot.
    pub votes: BTreeSet<Member>,
    started: u64,
    opened: u64,
    accepted_at: u64,
    propose_at: u64,
    resend_at: u64,
    /// When a member of some cluster was last heard.
    pub cluster_seen: Option<u64>,
    /// This node was a member of a cluster and has discarded its storage: it founds nothing, however long it is alone.
    expects_cluster: bool,
}

impl Founder {
    pub const fn new(record: Founding, now: Now) -> Self {
        Self {
            record,
            votes: BTreeSet::new(),
            started: now.mono,
            opened: now.mono,
            accepted_at: now.mono,
            propose_at: now.mono,
            resend_at: now.mono,
            cluster_seen: None,
            expects_cluster: false,
        }
    }
}

impl Raft {
    fn write_founding(&mut self) {
        self.outbox.write_hard(Write::Founding(self.founder.record.clone()));
    }

    /// Handles what blank nodes talk about. False if the message is none of that.
    pub(super) fn on_founding_message(&mut self, envelope: &Envelope) -> bool {
        let from = envelope.from;
        match &envelope.body {
            Message::Join { observer } => match (self.hard.cluster, envelope.cluster) {
                (None, None) => {
                    if let Some(peer) = self.peers.get_mut(&from.node) {
                        peer.blank = (!observer).then_some(self.now.mono);
                    }
                }
                (Some(ours), theirs) if theirs.is_none_or(|theirs| theirs == ours) => {
                    if theirs.is_none() {
                        self.remind_founder(from);
                    }
                    self.on_join(from, *observer);
                }
                _ => {}
            },
            Message::Present => self.founder.cluster_seen = Some(self.now.mono),
            Message::Full { members } => {
                self.founder.cluster_seen = Some(self.now.mono);
                self.full = Some((self.now.mono, *members));
            }
            Message::Propose { ballot } => self.on_ballot(from, ballot),
            Message::Accepted { ballot } => self.on_accepted(from, *ballot),
            Message::Refused { ballot } => self.on_refused(from, ballot),
            Message::Abandoned { ballot } => {
                if from == ballot.proposer {
                    self.release(ballot);
                }
            }
            Message::Founded { ballot } => {
                if self.hard.cluster.is_none() && ballot.founders.contains(&self.me) {
                    self.found(ballot.clone());
                }
            }
            Message::Inquire { ballot } => self.on_inquire(from, ballot),
            Message::Census { .. } => self.on_foreign(envelope),
            _ => return false,
        }
        true
    }

    /// A blank founder of this very cluster has missed that it exists. With volatile storage it may even have forgotten
    /// its ballot, and then nothing but this would tell it whom its vote belongs to.
    fn remind_founder(&mut self, from: Member) {
        if let Some(ballot) = &self.founder.record.founded
            && ballot.founders.contains(&from)
        {
            let body = Message::Founded { ballot: ballot.clone() };
            self.outbox.send(from, body);
        }
    }

    fn on_ballot(&mut self, from: Member, ballot: &Ballot) {
        let valid = from == ballot.proposer
            && ballot.founders.contains(&self.me)
            && ballot.founders.contains(&from)
            && ballot.declared == self.settings.declared
            && ballot.founders.len() == ballot.declared.max(1) as usize;
        if !valid {
            return;
        }
        if let Some(cluster) = self.hard.cluster {
            let known = cluster == ballot.cluster();
            let ballot = ballot.clone();
            let reply = if known { Message::Founded { ballot } } else { Message::Refused { ballot } };
            return self.outbox.send(from, reply);
        }
        let record = &self.founder.record;
        if record.accepted.as_ref() == Some(ballot) {
            return self.outbox.send(from, Message::Accepted { ballot: ballot.id() });
        }
        let refused = record.refused.get(&from).is_some_and(|number| *number >= ballot.number);
        let outranked = record.open.is_some() && self.me < from;
        if refused || outranked || record.accepted.is_some() || self.founder.expects_cluster {
            let number = self.founder.record.refused.entry(from).or_insert(0);
            if *number < ballot.number {
                *number = ballot.number;
                self.write_founding();
            }
            return self.outbox.send(from, Message::Refused { ballot: ballot.clone() });
        }
        self.abandon();
        self.founder.record.accepted = Some(ballot.clone());
        self.founder.accepted_at = self.now.mono;
        self.write_founding();
        self.outbox.send(from, Message::Accepted { ballot: ballot.id() });
    }

    fn on_accepted(&mut self, from: Member, id: Digest) {
        let Some(open) = &self.founder.record.open else { return };
        if open.id() != id || !open.founders.contains(&from) {
            return;
        }
        self.founder.votes.insert(from);
        self.accept_own();
    }

    /// Everybody else has accepted: now the proposer does, and the moment that is durable the cluster exists.
    fn accept_own(&mut self) {
        let record = &mut self.founder.record;
        let Some(open) = &record.open else { return };
        let others = open.founders.iter().filter(|founder| **founder != self.me);
        if others.into_iter().all(|founder| self.founder.votes.contains(founder)) {
            record.accepted = record.open.take();
            self.write_founding();
        }
    }

    pub(super) fn founding_persisted(&mut self) {
        if self.hard.cluster.is_some() || !self.outbox.settled() {
            return;
        }
        let record = &self.founder.record;
        if (record.open.is_none() || self.settings.switch.is(Mutant::ProposerAcceptsFirst))
            && let Some(ballot) = record.accepted.clone().filter(|ballot| ballot.proposer == self.me)
        {
            for founder in ballot.founders.iter().filter(|founder| **founder != self.me) {
                self.outbox.send(*founder, Message::Founded { ballot: ballot.clone() });
            }
            self.found(ballot);
        }
    }

    /// Begins the log of a cluster that exists because all its founders accepted.
    fn found(&mut self, ballot: Ballot) {
        debug_assert!(self.hard.cluster.is_none() && ballot.founders.contains(&self.me));
        let genesis = ballot.genesis();
        self.hard.cluster = Some(ballot.cluster());
        self.hard.term = genesis.term;
        self.hard.voted = None;
        let record = &mut self.founder.record;
        record.open = None;
        record.accepted = None;
        record.founded = Some(ballot);
        self.write_founding();
        self.write_hard();
        self.log.replace(std::slice::from_ref(&genesis), 0);
        self.write_entries(vec![genesis]);
        self.verified = 1;
        self.commit_to(1);
        self.reset_election();
    }

    fn on_refused(&mut self, from: Member, ballot: &Ballot) {
        if !ballot.founders.contains(&from) || from == self.me {
            return;
        }
        if self.founder.record.open.as_ref() == Some(ballot) {
            self.abandon();
        } else if ballot.proposer != self.me {
            self.release(ballot);
        }
    }

    /// The ballot cannot become a genesis any more.
    fn release(&mut self, ballot: &Ballot) {
        if self.founder.record.accepted.as_ref() == Some(ballot) && ballot.proposer != self.me {
            self.founder.record.accepted = None;
            self.write_founding();
        }
    }

    /// Gives up the own open ballot, which this node has not accepted.
    fn abandon(&mut self) {
        let Some(ballot) = self.founder.record.open.take() else { return };
        if self.settings.switch.is(Mutant::ProposerAcceptsFirst) {
            self.founder.record.accepted = None;
        }
        self.write_founding();
        self.founder.votes.clear();
        self.founder.propose_at = self.now.mono + self.random() % self.settings.election_max;
        for founder in ballot.founders.iter().filter(|founder| **founder != self.me) {
            self.outbox.send(*founder, Message::Abandoned { ballot: ballot.clone() });
        }
    }

    fn on_inquire(&mut self, from: Member, ballot: &Ballot) {
        let record = &self.founder.record;
        let ballot = ballot.clone();
        let reply = if self.hard.cluster == Some(ballot.cluster()) || record.founded.as_ref() == Some(&ballot) {
            Message::Founded { ballot }
        } else if !ballot.founders.contains(&self.me) {
            return;
        } else if ballot.proposer == self.me {
            if record.open.as_ref() == Some(&ballot) || record.accepted.as_ref() == Some(&ballot) {
                return;
            }
            Message::Abandoned { ballot }
        } else if self.hard.cluster.is_some()
            || record.refused.get(&ballot.proposer).is_some_and(|number| *number >= ballot.number)
        {
            Message::Refused { ballot }
        } else {
            return;
        };
        self.outbox.send(from, reply);
    }

    /// An operator's word that the proposer is gone for good, with everybody who belonged to what it may have founded.
    pub(super) fn release_ballot(&mut self) {
        if let Some(ballot) = self.founder.record.accepted.clone() {
            self.release(&ballot);
        }
    }

    /// A blank node's clock.
    pub(super) fn founding_tick(&mut self) {
        self.founding_persisted();
        if self.hard.cluster.is_some() || self.settings.preference == Preference::Observer {
            return;
        }
        let now = self.now.mono;
        if now >= self.founder.resend_at {
            self.founder.resend_at = now + 2 * self.settings.heartbeat;
            self.pursue();
        }
        let record = &self.founder.record;
        if record.open.is_none() && record.accepted.is_none() && now >= self.founder.propose_at && !self.hangs() {
            self.propose_founding();
        }
    }

    /// Presses on with the ballot under way, if any.
    fn pursue(&mut self) {
        let now = self.now.mono;
        let record = &self.founder.record;
        if let Some(open) = record.open.clone() {
            let reborn = open.founders.iter().any(|founder| {
                self.peers.get(&founder.node).is_some_and(|peer| peer.member.incarnation > founder.incarnation)
            });
            if reborn || self.sees_cluster() || now > self.founder.opened + 4 * self.settings.election_max {
                return self.abandon();
            }
            let waiting = open.founders.iter().filter(|it| **it != self.me && !self.founder.votes.contains(it));
            for founder in waiting {
                self.outbox.send(*founder, Message::Propose { ballot: open.clone() });
            }
        } else if let Some(accepted) = record.accepted.clone() {
            let proposer = accepted.proposer;
            let reborn = |peer: &super::Peer| peer.member.incarnation > proposer.incarnation;
            // Volatile storage has forgotten its ballot; unique only without restarts, as the documentation says.
            let forgotten = self.settings.volatile && self.peers.get(&proposer.node).is_some_and(reborn);
            let late = now > self.founder.accepted_at + 2 * self.settings.election_max;
            if forgotten || (late && self.settings.switch.is(Mutant::AcceptanceReleasedByTime)) {
                return self.release(&accepted);
            }
            for founder in accepted.founders.iter().filter(|founder| **founder != self.me) {
                self.outbox.send(*founder, Message::Inquire { ballot: accepted.clone() });
            }
        }
    }

    pub(super) fn sees_cluster(&self) -> bool {
        let lately = |at| self.now.mono < at + 3 * self.settings.founding_delay;
        self.founder.expects_cluster || self.founder.cluster_seen.is_some_and(lately)
    }

    /// The storage is blank because its owner has discarded it: there is a cluster, which this node joins or waits for.
    pub const fn expect_cluster(&mut self) {
        self.founder.expects_cluster = true;
    }

    /// Other blank members that said lately that they would found.
    pub(super) fn candidates(&self) -> BTreeSet<Member> {
        let fresh = self.now.mono.saturating_sub(20 * self.settings.heartbeat);
        let blank = self.peers.values().filter(|peer| peer.blank.is_some_and(|at| at >= fresh));
        blank.map(|peer| peer.member).collect()
    }

    fn propose_founding(&mut self) {
        let now = self.now.mono;
        let waited = now.saturating_sub(self.founder.started);
        if waited < self.settings.founding_delay || self.sees_cluster() {
            return;
        }
        let candidates = self.candidates();
        let size = self.settings.declared.max(1) as usize;
        let lowest = candidates.first().is_none_or(|first| self.me < *first);
        let patient = self.settings.declared > 0 && waited > 4 * self.settings.founding_delay;
        if candidates.len() + 1 < size || !(lowest || patient) {
            return;
        }
        let founders: BTreeSet<Member> = candidates.into_iter().take(size - 1).chain([self.me]).collect();
        let record = &mut self.founder.record;
        record.number += 1;
        let ballot = Ballot { proposer: self.me, number: record.number, founders, declared: self.settings.declared };
        record.open = Some(ballot.clone());
        if self.settings.switch.is(Mutant::ProposerAcceptsFirst) {
            record.accepted = Some(ballot);
        }
        self.founder.votes.clear();
        self.founder.opened = now;
        self.founder.resend_at = now;
        self.write_founding();
        self.accept_own();
        self.pursue();
    }

    /// A blank node is addressed by a member of a cluster. True if it belongs to that cluster from now on.
    pub(super) fn enter(&mut self, cluster: ClusterId, envelope: &Envelope) -> bool {
        self.founder.cluster_seen = Some(self.now.mono);
        let leads = matches!(envelope.body, Message::Append { .. } | Message::CatchUp { .. } | Message::Offer { .. });
        if let Some(ballot) = self.founder.record.accepted.clone() {
            // Bound by an acceptance: only the cluster that came of it may take this node in.
            if ballot.cluster() == cluster {
                self.found(ballot);
                return true;
            }
            return false;
        }
        if !leads {
            return false;
        }
        self.abandon();
        self.hard.cluster = Some(cluster);
        self.write_hard();
        self.reset_election();
        true
    }
}
