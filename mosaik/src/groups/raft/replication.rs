//! What a follower does with entries: verify, replace from the first mismatch on, acknowledge what is durable.

use super::{
    Entry, Halt, Index, Member, Mutant, Position, Quirk, Raft,
    message::{Conflict, Message},
};

impl Raft {
    /// Entries of this term's leader after `previous`.
    pub(super) fn on_append(
        &mut self,
        from: Member,
        previous: Position,
        entries: Vec<Entry>,
        commit: Index,
        round: u64,
        clock: u64,
    ) {
        self.note_clock(clock);
        self.leader_commit = self.leader_commit.max(commit);
        match self.compare(previous) {
            Compared::Equal => {}
            Compared::Diverged => return self.halt(Halt::Diverged { index: previous.index }),
            Compared::Differs(conflict) => {
                let matched = self.verified.min(self.log.durable());
                let reply = self.append_reply(matched, Some(previous.index), Some(conflict), round);
                return self.outbox.send(from, reply);
            }
        }
        if !self.log.verify(previous, &entries) && !self.settings.switch.is(Mutant::ChainNotVerified) {
            // Damaged on the way or in the sender's memory. Silence makes the leader try again.
            return;
        }
        let last = previous.index + entries.len() as u64;
        let is_empty = entries.is_empty();
        if let Err(halt) = self.take(entries) {
            return self.halt(halt);
        }
        self.verified = self.verified.max(last);
        if self.settings.switch.is(Mutant::AckBeyondVerified) {
            self.verified = self.log.last().index;
        }
        // Not only this message's: what tells of a commit may overtake the entries that it commits, and is not repeated soon.
        self.commit_to(self.leader_commit.min(self.verified));
        if self.odd(Quirk::ForgottenVerification) {
            self.verified = self.commit;
        }
        let durable = self.log.durable();
        let no_news = is_empty && round == 0 && self.verified.min(durable) == self.acked;
        // Entries that are being written are answered once they are durable, unless a round waits to be answered now.
        let later = !is_empty && round <= self.round && self.verified > durable;
        if self.odd(Quirk::DelayedAck) || no_news || later {
            return;
        }
        self.ack(from, Some(previous.index), round);
    }

    /// Compares a position of the leader's log with the own.
    fn compare(&self, previous: Position) -> Compared {
        if previous.index <= self.log.base().index {
            return Compared::Equal; // committed on both sides
        }
        let own = self.log.at(previous.index);
        if own == Some(previous) || (own.is_some() && self.settings.switch.is(Mutant::AckByIndexOnly)) {
            return Compared::Equal;
        }
        if previous.index <= self.commit || own.is_some_and(|own| own.term == previous.term) {
            return Compared::Diverged;
        }
        let index = self.log.last_at_or_below(previous.index - 1, previous.term);
        // Below the commit index nothing can differ, so the leader need not look there.
        let index = index.max(self.commit);
        Compared::Differs(Conflict { index, term: self.log.at(index).map_or(0, |at| at.term) })
    }

    /// Puts verified entries of the leader's log into the own: those that it holds already stay, and only from the
    /// first mismatch on anything is replaced, in one atomic write.
    pub(super) fn take(&mut self, mut entries: Vec<Entry>) -> Result<(), Halt> {
        let base = self.log.base().index;
        if self.settings.switch.is(Mutant::TruncationBelowCommit) {
            entries.retain(|entry| entry.index > base);
            if !entries.is_empty() {
                self.log.replace_unchecked(&entries);
                self.write_entries(entries);
            }
            return Ok(());
        }
        let news = entries
            .iter()
            .position(|entry| entry.index > base && self.log.at(entry.index).is_none_or(|own| own != entry.position()));
        let Some(news) = news else { return Ok(()) };
        entries.drain(..news);
        if entries[0].index <= self.commit {
            return Err(Halt::Diverged { index: entries[0].index });
        }
        self.log.replace(&entries, self.commit);
        self.write_entries(entries);
        Ok(())
    }

    /// Says what is durable and verified.
    pub(super) fn ack(&mut self, leader: Member, asked: Option<Index>, round: u64) {
        let mut matched = self.verified.min(self.log.durable());
        if self.settings.switch.is(Mutant::AckBeforeDurable) {
            matched = self.verified;
        }
        (self.acked, self.round) = (matched, self.round.max(round));
        let reply = self.append_reply(matched, asked, None, round);
        self.outbox.send(leader, reply);
    }

    pub(super) fn append_reply(
        &self,
        matched: Index,
        asked: Option<Index>,
        conflict: Option<Conflict>,
        round: u64,
    ) -> Message {
        Message::AppendReply { matched, asked, conflict, round, wall: self.now.wall, fitness: self.fitness_now() }
    }

    /// A write has finished: tells the leader if it waits for that.
    pub(super) fn ack_durable(&mut self) {
        if let Some(leader) = self.leader
            && self.verified.min(self.log.durable()) > self.acked
        {
            self.ack(leader, None, 0);
        }
    }
}

enum Compared {
    Equal,
    Differs(Conflict),
    /// The same index and term with another hash, or a difference below the commit index.
    Diverged,
}
