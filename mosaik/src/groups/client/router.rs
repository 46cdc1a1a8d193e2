//! What a leader does for sessions, its own node's and other members': puts their commands into the log in order, and
//! answers when they are applied.
//!
//! Commands of one session enter the log in the order of their numbers: a batch that does not follow what this leadership
//! has appended of the session is rejected, and the session begins again from its lowest unsettled command. `R` is how the
//! driver answers a remote batch; dropped without an answer, the other side takes the batch for lost.

use std::{collections::BTreeMap, ops::Range};

use super::{
    ordered::Ordered,
    wire::{Batch, CommandResult, Done, RESPONSE_BYTES, Rejection, Response},
};
use crate::groups::raft::{ClusterId, Command, Payload, Proposal, Refusal, SessionId};

/// Sessions whose order is remembered; beyond it all begin again.
const SESSIONS: usize = 8192;
/// Remote batches that may wait for their application; beyond it clients are told to come later.
const CALLS: usize = 4096;

/// Who is to be told what becomes of a batch.
#[derive(Debug)]
pub enum Source<R> {
    /// The session of this node; the number of its flight.
    Local(u64),
    /// Another member.
    Remote(R),
}

/// A remote batch that waits for its application.
#[derive(Debug)]
struct Call<R> {
    reply: R,
    waits: usize,
    done: Vec<Done>,
    bytes: usize,
}

/// A batch that was handed to the core in this step.
#[derive(Debug)]
struct Proposed<R> {
    source: Source<R>,
    session: SessionId,
    /// Those of a remote batch that is to be answered when they are applied.
    sequences: Vec<u64>,
    ack_on_append: bool,
    /// Its part of the proposals of the step; what is missing was in the log already.
    proposals: Range<usize>,
}

/// The calls that wait for one command: mostly none (it is a local one) or one.
#[derive(Debug, Default)]
struct Waits {
    first: Option<u64>,
    more: Vec<u64>,
}

impl Waits {
    fn add(&mut self, call: u64) {
        if self.first.is_none() {
            self.first = Some(call);
        } else {
            self.more.push(call);
        }
    }
}

/// Who is to be told what.
#[derive(Debug)]
pub enum Notice<R> {
    /// Another member gets this response.
    Remote(R, Response),
    /// The local flight is in the log.
    Queued(u64),
    /// The local flight was not appended.
    Rejected(u64, Rejection),
    /// Some of the local flight may be in the log.
    Lost(u64),
}

/// The leader side.
#[derive(Debug)]
pub struct Router<R> {
    /// The last number of each session that is in the log of this leadership.
    last: BTreeMap<SessionId, u64>,
    /// Commands in the log of this leadership and not applied, by session and number.
    waiting: BTreeMap<SessionId, Ordered<Waits>>,
    calls: BTreeMap<u64, Call<R>>,
    next_call: u64,
    proposals: Vec<Proposal>,
    /// Which commands the proposals of this step are.
    proposing: Vec<(SessionId, u64)>,
    proposed: Vec<Proposed<R>>,
    /// Group time of the last command that was applied, milliseconds.
    time: u64,
}

impl<R> Default for Router<R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<R> Router<R> {
    /// Nothing waits.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            last: BTreeMap::new(),
            waiting: BTreeMap::new(),
            calls: BTreeMap::new(),
            next_call: 0,
            proposals: Vec::new(),
            proposing: Vec::new(),
            proposed: Vec::new(),
            time: 0,
        }
    }

    /// Takes a batch for the next step of the core, or says why not. `leads`: the cluster that this member leads, if any.
    pub fn take(&mut self, batch: Batch, source: Source<R>, leads: Option<ClusterId>) -> Option<Notice<R>> {
        let last = self.last.get(&batch.session).copied();
        let rejection = if leads != Some(batch.cluster) {
            Some(Rejection::NotLeader)
        } else if batch.commands.is_empty() != (batch.opened == 0) {
            Some(Rejection::Unintelligible)
        } else if batch.prior != 0 && last.is_none_or(|last| last < batch.prior) {
            Some(Rejection::OutOfOrder)
        } else if self.calls.len() >= CALLS {
            Some(Rejection::Busy)
        } else {
            None
        };
        if let Some(rejection) = rejection {
            return Some(reject(source, rejection));
        }
        let first = self.proposals.len();
        let (session, opened, settled) = (batch.session, batch.opened, batch.settled);
        let answered = matches!(source, Source::Remote(_)) && !batch.ack_on_append;
        let waiting = self.waiting.entry(session).or_default();
        let mut sequences = Vec::new();
        if answered && opened == 0 {
            sequences.push(0);
        } else if answered {
            sequences.extend(batch.commands.iter().map(|command| command.sequence));
        }
        if opened == 0 && waiting.get(0).is_none() {
            waiting.insert(0, Waits::default());
            self.proposing.push((session, 0));
            self.proposals.push(Proposal { id: self.proposals.len() as u64, payload: Payload::Open(session) });
        }
        let newest = batch.commands.last().map(|command| command.sequence);
        for command in batch.commands {
            if waiting.get(command.sequence).is_some() {
                continue;
            }
            waiting.insert(command.sequence, Waits::default());
            self.proposing.push((session, command.sequence));
            let payload = Payload::Command(Command {
                session,
                opened,
                sequence: command.sequence,
                settled,
                attempted: command.attempted,
                body: command.body,
            });
            self.proposals.push(Proposal { id: self.proposals.len() as u64, payload });
        }
        if let Some(newest) = newest {
            if self.last.len() >= SESSIONS && last.is_none() {
                self.last.clear();
            }
            let last = self.last.entry(session).or_insert(0);
            *last = newest.max(*last);
        }
        self.proposed.push(Proposed {
            source,
            session,
            sequences,
            ack_on_append: batch.ack_on_append,
            proposals: first..self.proposals.len(),
        });
        None
    }

    /// What was taken since the last time, for the core.
    #[must_use]
    pub fn proposals(&mut self) -> Vec<Proposal> {
        std::mem::take(&mut self.proposals)
    }

    /// Whether no batch waits to be handed to the core.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.proposed.is_empty()
    }

    /// The core has appended everything that it was given, or what came before the first that it refused.
    pub fn decided(&mut self, refused: Option<(u64, Refusal)>) -> Vec<Notice<R>> {
        let (proposed, proposing) = (std::mem::take(&mut self.proposed), std::mem::take(&mut self.proposing));
        let Some((first, why)) = refused else {
            return proposed.into_iter().filter_map(|batch| self.appended(batch)).collect();
        };
        let taken = usize::try_from(first).unwrap_or(usize::MAX).min(proposing.len());
        for (session, sequence) in &proposing[taken..] {
            self.settle(*session, *sequence);
        }
        let rejection = if matches!(why, Refusal::Busy) { Rejection::Busy } else { Rejection::NotLeader };
        let mut notices = Vec::new();
        for batch in proposed {
            if batch.proposals.end <= taken {
                notices.extend(self.appended(batch));
                continue;
            }
            // Its session begins again with what is not settled.
            self.last.remove(&batch.session);
            match batch.source {
                // Part of it is in the log: silence, which the other side takes for a loss.
                Source::Remote(reply) if batch.proposals.start < taken => drop(reply),
                Source::Local(flight) if batch.proposals.start < taken => notices.push(Notice::Lost(flight)),
                source => notices.push(reject(source, rejection)),
            }
        }
        notices
    }

    fn appended(&mut self, batch: Proposed<R>) -> Option<Notice<R>> {
        let reply = match batch.source {
            Source::Local(flight) => return Some(Notice::Queued(flight)),
            Source::Remote(reply) if batch.ack_on_append => return Some(Notice::Remote(reply, Response::Queued)),
            Source::Remote(reply) => reply,
        };
        let call = self.next_call;
        self.next_call += 1;
        let waits = batch.sequences.len();
        let waiting = self.waiting.entry(batch.session).or_default();
        for sequence in batch.sequences {
            match waiting.get_mut(sequence) {
                Some(calls) => calls.add(call),
                None => waiting.insert(sequence, Waits { first: Some(call), more: Vec::new() }),
            }
        }
        self.calls.insert(call, Call { reply, waits, done: Vec::with_capacity(waits), bytes: 0 });
        None
    }

    /// The command waits no longer. Returns who waited for it.
    fn settle(&mut self, session: SessionId, sequence: u64) -> Option<Waits> {
        let waiting = self.waiting.get_mut(&session)?;
        let calls = waiting.remove(sequence);
        if waiting.is_empty() && self.waiting.len() > SESSIONS {
            self.waiting.remove(&session);
        }
        calls
    }

    /// A command was applied here, at this group time, milliseconds. Gives what is complete by that to `tell`.
    pub fn applied(&mut self, session: SessionId, done: &Done, time: u64, mut tell: impl FnMut(Notice<R>)) {
        self.time = self.time.max(time);
        let Some(Waits { first, more }) = self.settle(session, done.sequence) else { return };
        for id in first.into_iter().chain(more) {
            let Some(call) = self.calls.get_mut(&id) else { continue };
            let mut done = done.clone();
            if let CommandResult::Output(output) = &done.result {
                if call.bytes + output.len() > RESPONSE_BYTES {
                    done.result = CommandResult::Elsewhere;
                } else {
                    call.bytes += output.len();
                }
            }
            call.done.push(done);
            call.waits -= 1;
            if call.waits == 0
                && let Some(call) = self.calls.remove(&id)
            {
                tell(Notice::Remote(call.reply, Response::Done(call.done, self.time)));
            }
        }
    }

    /// Leadership is gone: what was appended may be lost, so nobody is told anything.
    pub fn clear(&mut self) {
        self.last.clear();
        self.waiting.clear();
        self.calls.clear();
    }
}

fn reject<R>(source: Source<R>, why: Rejection) -> Notice<R> {
    match source {
        Source::Local(flight) => Notice::Rejected(flight, why),
        Source::Remote(reply) => Notice::Remote(reply, Response::Rejected(why)),
    }
}

#[cfg(test)]
mod tests;
