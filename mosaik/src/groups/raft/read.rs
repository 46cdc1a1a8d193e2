//! Strong reads by ReadIndex (Raft dissertation 6.4): at the leader, and at any member through the leader.
//!
//! The leader notes its commit index, proves with one round of heartbeats that it still leads, and the reader waits
//! until its machine has applied that index. No clock is trusted.

use std::collections::{BTreeMap, VecDeque};

use super::{Index, Member, Mutant, Output, Raft, Role, message::Message};

/// Who asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    Local(u64),
    Remote(Member, u64),
}

/// Reads of one member.
#[derive(Clone, Debug, Default)]
pub(super) struct Reads {
    /// Asked of the leader, by the number on the wire: the caller's id and the time to give up. The number is random,
    /// because a late answer to an earlier life of this process must not answer a read of this one.
    asked: BTreeMap<u64, (u64, u64)>,
    /// Waiting for the machine.
    ready: VecDeque<(u64, Index)>,
}

/// Reads that a leader is proving.
#[derive(Clone, Debug, Default)]
pub(super) struct LeaderReads {
    /// Before the term's own first commit: the commit index means nothing yet.
    early: Vec<Origin>,
    /// With the index and the round that must be answered by a quorum.
    proving: VecDeque<(Origin, Index, u64)>,
}

impl Raft {
    pub(super) fn on_read(&mut self, id: u64) {
        if self.reads.asked.len() + self.reads.ready.len() >= self.settings.reads {
            return self.outbox.put(Output::ReadFailed { id });
        }
        if matches!(self.role, Role::Leader(_)) {
            return self.on_read_asked(Origin::Local(id));
        }
        let Some(leader) = self.leader else { return self.outbox.put(Output::ReadFailed { id }) };
        let number = self.random();
        self.reads.asked.insert(number, (id, self.now.mono + self.settings.election_max));
        self.outbox.send(leader, Message::ReadIndex { id: number });
    }

    /// A read arrived at the leader (or at who was taken for it).
    pub(super) fn on_read_asked(&mut self, origin: Origin) {
        let established = self.is_established() || self.settings.switch.is(Mutant::ReadBeforeOwnTermCommit);
        let Self { role: Role::Leader(leader), commit, settings, .. } = self else {
            return self.read_answer(origin, None);
        };
        let waiting = leader.reads.early.len() + leader.reads.proving.len();
        if waiting >= settings.reads {
            return self.read_answer(origin, None);
        }
        if !established {
            return leader.reads.early.push(origin);
        }
        if settings.switch.is(Mutant::ReadWithoutQuorum) {
            let index = *commit;
            return self.read_answer(origin, Some(index));
        }
        leader.reads.proving.push_back((origin, *commit, leader.round + 1));
        self.count_round();
    }

    /// The first commit of the term has happened.
    pub(super) fn start_reads(&mut self) {
        if !self.is_established() {
            return;
        }
        let Role::Leader(leader) = &mut self.role else { return };
        for origin in std::mem::take(&mut leader.reads.early) {
            self.on_read_asked(origin);
        }
    }

    /// Answers the reads whose round a quorum has answered. When none is under way it starts the next: one round serves
    /// all reads that arrived before it, so reads cost messages per round trip, not each.
    pub(super) fn count_round(&mut self) {
        loop {
            let Self { role: Role::Leader(leader), log, me, .. } = self else { return };
            let Some((origin, index, round)) = leader.reads.proving.front().copied() else { return };
            let proven = log.membership().quorum(|member| {
                member == me || leader.progress.get(member).is_some_and(|progress| progress.round >= round)
            });
            if !proven {
                if round > leader.round {
                    self.heartbeat();
                }
                return;
            }
            leader.reads.proving.pop_front();
            self.read_answer(origin, Some(index));
        }
    }

    fn read_answer(&mut self, origin: Origin, index: Option<Index>) {
        match (origin, index) {
            (Origin::Local(id), Some(index)) => {
                self.reads.ready.push_back((id, index));
                self.answer_reads();
            }
            (Origin::Local(id), None) => self.outbox.put(Output::ReadFailed { id }),
            (Origin::Remote(member, id), index) => self.outbox.send(member, Message::ReadIndexReply { id, index }),
        }
    }

    pub(super) fn on_read_index(&mut self, number: u64, index: Option<Index>) {
        let Some((id, _)) = self.reads.asked.remove(&number) else { return };
        match index {
            Some(index) => self.reads.ready.push_back((id, index)),
            None => self.outbox.put(Output::ReadFailed { id }),
        }
        self.answer_reads();
    }

    pub(super) fn answer_reads(&mut self) {
        let applied = self.applied;
        let Self { reads, outbox, .. } = self;
        reads.ready.retain(|(id, index)| {
            if *index <= applied {
                outbox.put(Output::ReadReady { id: *id, index: *index });
            }
            *index > applied
        });
    }

    /// Gives up on reads that the leader did not answer.
    pub(super) fn reads_tick(&mut self) {
        let now = self.now.mono;
        let Self { reads, outbox, .. } = self;
        reads.asked.retain(|_, (id, until)| {
            if now >= *until {
                outbox.put(Output::ReadFailed { id: *id });
            }
            now < *until
        });
    }

    pub(super) fn fail_leader_reads(&mut self, reads: LeaderReads) {
        let proving = reads.proving.into_iter().map(|(origin, _, _)| origin);
        for origin in reads.early.into_iter().chain(proving) {
            self.read_answer(origin, None);
        }
    }
}
