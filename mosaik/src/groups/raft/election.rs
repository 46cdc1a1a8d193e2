//! Terms, votes and who is alive: pre-vote, leader stickiness, the gate that every message passes.
//!
//! A term grows only after a quorum said that it would vote (pre-vote), and a vote is asked for or given only when it is
//! durable (`outbox`), so a node that returns from isolation or restart disturbs nobody and votes once per term.

use std::collections::BTreeSet;

use super::{
    Contradiction, Fitness, Member, Mutant, Peer, Position, Preference, Quirk, Raft, Role, Term,
    message::{Envelope, Message},
    read,
};

impl Raft {
    pub(super) fn reset_election(&mut self) {
        let (min, max) = (self.settings.election_min, self.settings.election_max);
        let factor = if self.fitness < Fitness::Normal { 3 } else { 1 };
        let wait = min + self.random() % (max - min + 1);
        self.election_at = self.now.mono + wait * factor;
    }

    pub(super) fn on_peer_up(&mut self, member: Member) {
        if self.note_peer(member)
            && let Some(peer) = self.peers.get_mut(&member.node)
        {
            peer.up = true;
        }
    }

    pub(super) fn on_peer_down(&mut self, member: Member) {
        if let Some(peer) = self.peers.get_mut(&member.node)
            && peer.member == member
        {
            peer.up = false;
            peer.blank = None;
        }
    }

    /// Remembers that the member lives. False if its storage is known to have a later life: then it is dead.
    fn note_peer(&mut self, member: Member) -> bool {
        if member.node == self.me.node {
            return false;
        }
        let fresh = Peer { member, up: false, heard: self.now.mono, blank: None, cluster: None };
        if self.peers.len() >= self.settings.peers && !self.peers.contains_key(&member.node) {
            let oldest = self.peers.values().filter(|peer| !peer.up).min_by_key(|peer| peer.heard);
            let Some(oldest) = oldest.map(|peer| peer.member.node) else { return false };
            self.peers.remove(&oldest);
        }
        let peer = self.peers.entry(member.node).or_insert(fresh);
        if peer.member.incarnation > member.incarnation {
            return false;
        }
        if peer.member.incarnation < member.incarnation {
            *peer = Peer { up: peer.up, ..fresh };
        }
        peer.heard = self.now.mono;
        true
    }

    /// Peers that a broadcast goes to.
    pub(super) fn linked(&self) -> Vec<Member> {
        self.peers.values().filter(|peer| peer.up).map(|peer| peer.member).collect()
    }

    /// The gate: ends, cluster and term are checked here and nowhere else.
    pub(super) fn on_message(&mut self, envelope: Envelope) {
        if envelope.to != self.me || !self.note_peer(envelope.from) {
            return;
        }
        // As if it were lost: storage must answer first. Heartbeats are heard, so nobody is taken for dead.
        if self.is_full() && (envelope.term > self.hard.term || envelope.body.asks_for_writes()) {
            return;
        }
        if let Some(peer) = self.peers.get_mut(&envelope.from.node) {
            peer.cluster = envelope.cluster;
        }
        if self.on_founding_message(&envelope) {
            return;
        }
        match (self.hard.cluster, envelope.cluster) {
            (Some(ours), Some(theirs)) if ours == theirs => {}
            (None, Some(theirs)) => {
                if !self.enter(theirs, &envelope) {
                    return;
                }
            }
            (Some(_), Some(_)) => return self.on_foreign(&envelope),
            (_, None) => return,
        }
        self.on_member_message(envelope);
    }

    fn on_member_message(&mut self, envelope: Envelope) {
        let Envelope { from, term, body, .. } = envelope;
        match body {
            Message::PreVote { term: asked, last } => self.on_pre_vote(from, asked, last),
            Message::Vote { last, transfer } => self.on_vote(from, term, last, transfer),
            Message::Append { previous, entries, commit, round, clock } => {
                if self.follow(from, term, round) {
                    self.on_append(from, previous, entries, commit, round, clock);
                }
            }
            Message::CatchUp { target, sources, commit, round } => {
                if self.follow(from, term, round) {
                    self.on_catch_up(target, sources, commit);
                }
            }
            Message::Offer { manifest, round } => {
                if self.follow(from, term, round) {
                    self.on_offer(from, *manifest);
                }
            }
            Message::TimeoutNow => {
                let willing = !self.hangs() && self.log.membership().is_voter(&self.me);
                if term == self.hard.term && self.leader == Some(from) && willing {
                    self.campaign(true);
                }
            }
            Message::Pull { from: first, to } => self.on_pull(from, first, to),
            Message::Pulled { from: first, entries, .. } => self.on_pulled(from, first, entries),
            Message::PullChunk { snapshot, chunk } => self.on_pull_chunk(from, snapshot, chunk),
            Message::Chunk { snapshot, chunk, data } => self.on_chunk(from, snapshot, chunk, data),
            reply => self.on_reply(from, term, reply),
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "an input is handed over whole")]
    fn on_reply(&mut self, from: Member, term: Term, reply: Message) {
        // A higher term counts only from a member: one that was removed must not unseat anybody.
        if term > self.hard.term && self.log.membership().contains(&from) {
            self.step_down(term);
        }
        match reply {
            Message::PreVoteReply { term: asked, granted: true } => self.on_pre_vote_granted(from, asked),
            Message::VoteReply { granted: true } if term == self.hard.term => self.on_vote_granted(from),
            Message::AppendReply { matched, asked, conflict, round, wall, fitness } if term == self.hard.term => {
                self.hear_clock(from, wall);
                self.hear_fitness(from, fitness);
                self.on_append_reply(from, matched, asked, conflict, round);
            }
            Message::ReadIndex { id } => self.on_read_asked(read::Origin::Remote(from, id)),
            Message::ReadIndexReply { id, index } => self.on_read_index(id, index),
            _ => {}
        }
    }

    /// Accepts the sender as leader of its term. False if the term is over; the sender is told.
    fn follow(&mut self, leader: Member, term: Term, round: u64) -> bool {
        if term < self.hard.term {
            // The round is one of that term. By now the sender may lead a later one, in which it would prove a read.
            let round = if self.settings.switch.is(Mutant::OldRoundCounted) { round } else { 0 };
            let reply = self.append_reply(0, None, None, round);
            self.outbox.send(leader, reply);
            return false;
        }
        if term > self.hard.term {
            self.step_down(term);
        }
        let first = if matches!(self.role, Role::Leader(_)) { Some(self.me) } else { self.leader };
        if let Some(first) = first.filter(|first| *first != leader) {
            // A voter has voted twice, because it is a copy or was put back. The first leader stays: with a majority for it
            // the second one finds none and steps down.
            self.contradict(leader, Contradiction::SecondLeader { term, first });
            return false;
        }
        if first.is_none() {
            self.leader = Some(leader);
            self.round = 0;
        }
        self.role = Role::Follower;
        self.leader_heard = self.now.mono;
        self.reset_election();
        true
    }

    /// Becomes a follower, of a new term if `term` is higher.
    pub(super) fn step_down(&mut self, term: Term) {
        assert!(term >= self.hard.term, "terms never go back");
        self.drop_leadership();
        self.role = Role::Follower;
        if term > self.hard.term {
            self.hard.term = term;
            self.hard.voted = None;
            self.leader = None;
            // Only what is committed is certain to be in the next leader's log.
            self.verified = self.commit;
            self.leader_commit = self.commit;
            self.acked = 0;
            self.catching = None;
            self.installing = None;
            self.write_hard();
        }
        self.reset_election();
    }

    /// Whether a living leader is known: then nobody else is supported.
    fn is_led(&self) -> bool {
        matches!(self.role, Role::Leader(_))
            || (self.leader.is_some() && self.now.mono < self.leader_heard + self.settings.election_min)
    }

    fn is_up_to_date(&self, last: Position) -> bool {
        let own = self.log.last();
        (last.term, last.index) >= (own.term, own.index) || self.settings.switch.is(Mutant::NoUpToDateCheck)
    }

    /// The election timeout passed.
    pub(super) fn on_silence(&mut self) {
        self.reset_election();
        if !self.may_campaign() || self.settings.preference == Preference::Observer {
            return;
        }
        if self.hangs() && !self.settings.switch.is(Mutant::CampaignsOnHungDisk) {
            self.role = Role::Follower;
            return;
        }
        self.role = Role::PreCandidate(BTreeSet::from([self.me]));
        if self.log.membership().quorum(|member| *member == self.me) {
            return self.campaign(false);
        }
        let ask = Message::PreVote { term: self.hard.term + 1, last: self.log.last() };
        self.ask_voters(&ask);
    }

    /// Voters campaign, and also those whose removal is in their log but not known to be committed: theirs may be the
    /// only log that the others can vote for (Raft dissertation 4.2.2). Their own vote does not count.
    fn may_campaign(&self) -> bool {
        let log = &self.log;
        log.membership().is_voter(&self.me) || log.membership_at(self.commit).is_voter(&self.me)
    }

    fn ask_voters(&mut self, message: &Message) {
        for voter in self.log.membership().all_voters().filter(|voter| *voter != self.me) {
            self.outbox.send(voter, message.clone());
        }
    }

    fn on_pre_vote(&mut self, from: Member, term: Term, last: Position) {
        // A vote that would not become durable is not promised either.
        let granted = term > self.hard.term && !self.is_led() && !self.hangs() && self.is_up_to_date(last);
        self.outbox.send(from, Message::PreVoteReply { term, granted });
    }

    fn on_pre_vote_granted(&mut self, from: Member, term: Term) {
        let Role::PreCandidate(votes) = &mut self.role else { return };
        if term != self.hard.term + 1 {
            return;
        }
        votes.insert(from);
        if self.log.membership().quorum(|member| votes.contains(member)) {
            self.campaign(false);
        }
    }

    /// Stands for election in the next term. The own vote counts when it is durable.
    pub(super) fn campaign(&mut self, transfer: bool) {
        debug_assert!(self.may_campaign());
        self.step_down(self.hard.term + 1);
        self.hard.voted = Some(self.me);
        self.write_hard();
        self.role = Role::Candidate(BTreeSet::new());
        let ask = Message::Vote { last: self.log.last(), transfer };
        self.ask_voters(&ask);
    }

    pub(super) fn count_own_vote(&mut self) {
        if matches!(self.role, Role::Candidate(_)) && self.outbox.settled() {
            self.on_vote_granted(self.me);
        }
    }

    fn on_vote(&mut self, from: Member, term: Term, last: Position, transfer: bool) {
        if term > self.hard.term {
            if self.is_led() && !transfer {
                return;
            }
            self.step_down(term);
        }
        let free = self.hard.voted.is_none_or(|voted| voted == from) && self.leader.is_none();
        // Whether this vote counts is for the candidate's configuration to say, which may be a newer one.
        let granted = term == self.hard.term && free && self.is_up_to_date(last) && !self.odd(Quirk::Refusal);
        if self.settings.switch.is(Mutant::VoteNotPersisted) {
            self.hard.voted = if granted { Some(from) } else { self.hard.voted };
            return self.outbox.send_unsafely(from, Message::VoteReply { granted });
        }
        if granted {
            self.reset_election();
            if self.hard.voted.is_none() {
                self.hard.voted = Some(from);
                self.write_hard();
            }
        }
        self.outbox.send(from, Message::VoteReply { granted });
    }

    fn on_vote_granted(&mut self, from: Member) {
        let Role::Candidate(votes) = &mut self.role else { return };
        votes.insert(from);
        let membership = self.log.membership();
        let won = if self.settings.switch.is(Mutant::OneMajorityInJoint) {
            membership.incoming_quorum(|member| votes.contains(member))
        } else {
            membership.quorum(|member| votes.contains(member))
        };
        if won {
            self.become_leader();
        }
    }
}
