//! What a leader does for clients, its own node's and other members': puts their commands into the log in order, and
//! answers when they are applied.
//!
//! Commands of one session enter the log in the order of their numbers: a batch that does not follow what this leadership
//! has appended of the session is refused, and its client begins again from its lowest unsettled command.

use std::{collections::BTreeMap, ops::Range};

use super::{
    ordered::Ordered,
    wire::{Batch, Done, No, REPLY_BYTES, Ran, Reply},
};
use crate::groups::raft::{Command, Payload, Proposal, Refusal, SessionId};

/// Sessions whose order is remembered; beyond it all begin again.
const SESSIONS: usize = 8192;
/// Remote batches that may wait for their application; beyond it clients are told to come later.
const CALLS: usize = 4096;

/// Who is to hear what becomes of a batch.
#[derive(Debug)]
pub(super) enum Caller<R> {
    /// The client of this node; the number of its flight.
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
    caller: Caller<R>,
    session: SessionId,
    /// Those of a remote batch that is to be answered when they are applied.
    sequences: Vec<u64>,
    hasty: bool,
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

/// What is to be said to whom.
#[derive(Debug)]
pub(super) enum Say<R> {
    Remote(R, Reply),
    Queued(u64),
    Refused(u64, No),
    /// Some of it may be in the log.
    Lost(u64),
}

#[derive(Debug)]
pub(super) struct Desk<R> {
    /// The last number of each session that is in the log of this leadership.
    last: BTreeMap<SessionId, u64>,
    /// Commands in the log of this leadership and not applied, by session and number.
    waiting: BTreeMap<SessionId, Ordered<Waits>>,
    calls: BTreeMap<u64, Call<R>>,
    next_call: u64,
    proposals: Vec<Proposal>,
    /// Which commands the proposals of this step are; openings are none.
    proposing: Vec<Option<(SessionId, u64)>>,
    proposed: Vec<Proposed<R>>,
}

impl<R> Desk<R> {
    pub fn new() -> Self {
        Self {
            last: BTreeMap::new(),
            waiting: BTreeMap::new(),
            calls: BTreeMap::new(),
            next_call: 0,
            proposals: Vec::new(),
            proposing: Vec::new(),
            proposed: Vec::new(),
        }
    }

    /// Takes a batch for the next step of the core, or says why not.
    pub fn take(&mut self, batch: Batch, caller: Caller<R>, is_leader: bool) -> Option<Say<R>> {
        let last = self.last.get(&batch.session).copied();
        let no = if !is_leader {
            Some(No::NotLeader)
        } else if batch.commands.is_empty() {
            Some(No::Unintelligible)
        } else if batch.prior != 0 && last.is_none_or(|last| last < batch.prior) {
            Some(No::OutOfOrder)
        } else if self.calls.len() >= CALLS {
            Some(No::Busy)
        } else {
            None
        };
        if let Some(no) = no {
            return Some(refuse(caller, no));
        }
        let first = self.proposals.len();
        if batch.open {
            self.proposing.push(None);
            let payload = Payload::Open(batch.session);
            self.proposals.push(Proposal { id: self.proposals.len() as u64, payload });
        }
        let session = batch.session;
        let answered = matches!(caller, Caller::Remote(_)) && !batch.hasty;
        let sequences: Vec<u64> =
            if answered { batch.commands.iter().map(|command| command.sequence).collect() } else { Vec::new() };
        let newest = batch.commands.last().map(|command| command.sequence);
        let waiting = self.waiting.entry(session).or_default();
        for command in batch.commands {
            if waiting.get(command.sequence).is_some() {
                continue;
            }
            waiting.insert(command.sequence, Waits::default());
            self.proposing.push(Some((session, command.sequence)));
            let payload = Payload::Command(Command {
                session,
                sequence: command.sequence,
                settled: batch.settled,
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
            caller,
            session,
            sequences,
            hasty: batch.hasty,
            proposals: first..self.proposals.len(),
        });
        None
    }

    /// What was taken since the last time, for the core.
    pub fn proposals(&mut self) -> Vec<Proposal> {
        std::mem::take(&mut self.proposals)
    }

    /// Whether a batch waits to be handed to the core.
    pub fn is_idle(&self) -> bool {
        self.proposed.is_empty()
    }

    /// The core has appended everything that it was given, or what came before the first that it refused.
    pub fn decided(&mut self, refused: Option<(u64, Refusal)>) -> Vec<Say<R>> {
        let (proposed, proposing) = (std::mem::take(&mut self.proposed), std::mem::take(&mut self.proposing));
        let Some((first, why)) = refused else {
            return proposed.into_iter().filter_map(|batch| self.appended(batch)).collect();
        };
        let taken = usize::try_from(first).unwrap_or(usize::MAX).min(proposing.len());
        for (session, sequence) in proposing[taken..].iter().flatten() {
            self.settle(*session, *sequence);
        }
        let no = if matches!(why, Refusal::Busy) { No::Busy } else { No::NotLeader };
        let mut says = Vec::new();
        for batch in proposed {
            if batch.proposals.end <= taken {
                says.extend(self.appended(batch));
                continue;
            }
            // Its client begins again with what is not settled.
            self.last.remove(&batch.session);
            match batch.caller {
                // Part of it is in the log: silence, which the other side takes for a loss.
                Caller::Remote(reply) if batch.proposals.start < taken => drop(reply),
                Caller::Local(flight) if batch.proposals.start < taken => says.push(Say::Lost(flight)),
                caller => says.push(refuse(caller, no)),
            }
        }
        says
    }

    fn appended(&mut self, batch: Proposed<R>) -> Option<Say<R>> {
        let reply = match batch.caller {
            Caller::Local(flight) => return Some(Say::Queued(flight)),
            Caller::Remote(reply) if batch.hasty => return Some(Say::Remote(reply, Reply::Queued)),
            Caller::Remote(reply) => reply,
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

    /// A command was applied here. Says what is complete by that.
    pub fn applied(&mut self, session: SessionId, done: &Done, mut say: impl FnMut(Say<R>)) {
        let Some(Waits { first, more }) = self.settle(session, done.sequence) else { return };
        for id in first.into_iter().chain(more) {
            let Some(call) = self.calls.get_mut(&id) else { continue };
            let mut done = done.clone();
            if let Ran::Output(output) = &done.result {
                if call.bytes + output.len() > REPLY_BYTES {
                    done.result = Ran::Elsewhere;
                } else {
                    call.bytes += output.len();
                }
            }
            call.done.push(done);
            call.waits -= 1;
            if call.waits == 0
                && let Some(call) = self.calls.remove(&id)
            {
                say(Say::Remote(call.reply, Reply::Done(call.done)));
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

fn refuse<R>(caller: Caller<R>, no: No) -> Say<R> {
    match caller {
        Caller::Local(flight) => Say::Refused(flight, no),
        Caller::Remote(reply) => Say::Remote(reply, Reply::Refused(no)),
    }
}
