//! The session of this node's callers: numbers the bodies of their commands, decides what is sent to whom and when again, and knows of
//! each command whether it can still be applied.
//!
//! No IO: the worker carries batches to the leader (itself or another member) and brings back what became of them. One
//! session per life of the node and group, opened with the first command. Commands go out in order; after a change of
//! leader, a refusal or a loss everything unresolved is sent again, in order, under the same numbers.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use tokio::time::Instant;

use super::{
    callers::{Caller, Joining, Pending},
    ordered::Ordered,
    queue::{Answer, Submission},
    wire::{BATCH_BYTES, BATCH_COMMANDS, Batch, Done, No, Numbered, Ran},
};
use crate::groups::{
    error::{CallError, StopReason, Why},
    raft::{Index, Member, SessionId, Term},
};

/// Commands under way at once; one more body may exceed it. At most half of the window that the replicated table keeps for a
/// session, should each have a body of its own.
const COMMANDS: usize = 8192;
/// Bytes of commands under way at once; one more command may exceed it.
const BYTES: usize = 16 << 20;
/// Batches under way at once to another member.
const FLIGHTS: usize = 32;

/// One batch that was handed to a leader.
#[derive(Debug)]
struct Flight {
    /// The numbers in it, and perhaps some that were settled before.
    sequences: Range<u64>,
    /// Of the present run to the present leader: its failure starts the run again.
    current: bool,
}

#[derive(Debug)]
pub(super) struct Client {
    session: SessionId,
    opened: bool,
    /// The next number.
    next: u64,
    pending: Ordered<Pending>,
    /// Commands that were not answered, and their bytes.
    under_way: (usize, usize),
    /// Strong commands that the leader has applied, by the index that the local machine must reach.
    awaiting: Ordered<Vec<(Caller, Answer)>>,
    /// To whom commands go, and in which term.
    target: Option<(Member, Term)>,
    /// Numbers below were sent in this run.
    unsent: u64,
    /// The last number sent in this run; 0 at its beginning.
    prior: u64,
    flights: BTreeMap<u64, Flight>,
    next_flight: u64,
    /// Nothing is sent before.
    not_before: Instant,
    /// When to send everything again if nothing is resolved until then.
    resend_at: Option<Instant>,
    /// Something was resolved since then was decided.
    moved: bool,
    resend_after: Duration,
    patience: Duration,
    /// There are many callers, so more commands may be about to come.
    pub crowded: bool,
}

impl Client {
    /// `session` must be fresh and random. `patience`: how long without any result before commands are sent again.
    pub fn new(session: SessionId, patience: Duration, now: Instant) -> Self {
        Self {
            session,
            opened: false,
            next: 1,
            pending: Ordered::default(),
            under_way: (0, 0),
            awaiting: Ordered::default(),
            target: None,
            unsent: 1,
            prior: 0,
            flights: BTreeMap::new(),
            next_flight: 0,
            not_before: now,
            resend_at: None,
            moved: false,
            resend_after: patience,
            patience,
            crowded: false,
        }
    }

    /// Whether more may be taken beside so many commands and bytes.
    pub const fn has_room(&self, commands: usize, bytes: usize) -> bool {
        self.under_way.0 + commands < COMMANDS && self.under_way.1 + bytes < BYTES
    }

    /// Commands that were taken and not answered.
    pub const fn under_way(&self) -> usize {
        self.under_way.0
    }

    /// Takes commands of callers. `wall` is the wall clock in milliseconds.
    pub fn accept(&mut self, submissions: Vec<Submission>, wall: u64) {
        let mut joining = Joining::default();
        for submission in submissions {
            if !submission.answer.is_closed()
                && let Some(pending) = joining.add(submission, wall)
            {
                self.add(pending);
            }
        }
        joining.done(wall).into_iter().for_each(|pending| self.add(pending));
    }

    fn add(&mut self, pending: Pending) {
        for Caller { weight: (commands, bytes), .. } in pending.callers.iter().flatten() {
            self.under_way = (self.under_way.0 + commands, self.under_way.1 + bytes);
        }
        self.pending.insert(self.next, pending);
        self.next += 1;
    }

    fn answer(&mut self, caller: Caller, answer: Answer) {
        let (commands, bytes) = caller.weight;
        self.under_way = (self.under_way.0 - commands, self.under_way.1 - bytes);
        caller.answer.send(answer);
    }

    /// Who leads now, as far as known.
    pub fn leader(&mut self, target: Option<(Member, Term)>) {
        if self.target != target {
            self.target = target;
            self.restart();
        }
    }

    /// Everything unresolved is sent again, from the lowest number on.
    fn restart(&mut self) {
        self.unsent = 0;
        self.prior = 0;
        self.flights.values_mut().for_each(|flight| flight.current = false);
    }

    /// When something is to be done without any event.
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        let waiting = self.target.is_some() && self.not_before > now && self.pending.reaches(self.unsent);
        let resend = self.resend_at.filter(|_| self.target.is_some());
        [resend, waiting.then_some(self.not_before)].into_iter().flatten().min()
    }

    /// The next batch to send, with its number and the leader.
    pub fn batch(&mut self, now: Instant) -> Option<(u64, Member, Batch)> {
        let (leader, _) = self.target?;
        if std::mem::take(&mut self.moved) {
            self.resend_at = (!self.pending.is_empty()).then(|| now + self.resend_after);
        }
        if self.resend_at.is_some_and(|at| now >= at) {
            self.resend_after = (self.resend_after * 2).min(8 * self.patience);
            self.restart();
            self.resend_at = Some(now + self.resend_after);
        }
        if now < self.not_before || !self.pending.reaches(self.unsent) {
            return None;
        }
        if self.flights.values().filter(|flight| flight.current).count() >= FLIGHTS {
            return None;
        }
        let settled = self.pending.first().map_or(self.next, |(first, _)| first);
        let mut commands = Vec::new();
        let (mut bytes, mut hasty) = (0, false);
        for (sequence, pending) in self.pending.range_mut(self.unsent) {
            if commands.len() == BATCH_COMMANDS || (bytes + pending.body.len() > BATCH_BYTES && !commands.is_empty()) {
                break;
            }
            bytes += pending.body.len();
            hasty |= pending.is_hasty();
            pending.flying += 1;
            pending.sends += 1;
            let (attempted, body) = (pending.attempted, pending.body.clone());
            commands.push(Numbered { sequence, attempted, body });
        }
        let (first, last) = (commands.first()?.sequence, commands.last()?.sequence);
        let flight = self.next_flight;
        self.next_flight += 1;
        self.flights.insert(flight, Flight { sequences: first..last + 1, current: true });
        let batch = Batch { session: self.session, open: !self.opened, settled, prior: self.prior, hasty, commands };
        self.prior = last;
        self.unsent = last + 1;
        self.resend_at.get_or_insert(now + self.resend_after);
        Some((flight, leader, batch))
    }

    fn land(&mut self, flight: u64, mut each: impl FnMut(&mut Pending)) -> Option<Flight> {
        let flight = self.flights.remove(&flight)?;
        for (_, pending) in
            self.pending.range_mut(flight.sequences.start).take_while(|(at, _)| *at < flight.sequences.end)
        {
            pending.flying = pending.flying.saturating_sub(1);
            each(pending);
        }
        Some(flight)
    }

    /// The batch is in the leader's log.
    pub fn queued(&mut self, flight: u64) {
        self.land(flight, |pending| {
            pending.unsure = true;
            pending.queued();
        });
    }

    /// The batch was not appended. It is tried again after `pause`.
    pub fn refused(&mut self, flight: u64, why: No, pause: Duration, now: Instant) {
        let Some(flight) = self.land(flight, |_| {}) else { return };
        if flight.current {
            self.restart();
            let pause = if why == No::OutOfOrder { Duration::ZERO } else { pause };
            self.not_before = now + pause;
        }
    }

    /// Whether the batch arrived is not known.
    pub fn lost(&mut self, flight: u64, pause: Duration, now: Instant) {
        let Some(flight) = self.land(flight, |pending| pending.unsure = true) else { return };
        if flight.current {
            self.restart();
            self.not_before = now + pause;
        }
    }

    /// The leader has applied the batch.
    pub fn answered(&mut self, flight: u64, results: Vec<Done>, applied: Index, fresh: impl FnOnce() -> SessionId) {
        if self.land(flight, |pending| pending.unsure = true).is_none() {
            return;
        }
        let mut lost = false;
        for done in results {
            lost |= self.done(done, applied);
        }
        if lost {
            self.unknown_session(fresh);
        }
    }

    /// A command of this session was applied, by the leader or here; `applied` is how far the local machine is. True if
    /// the group does not know the session.
    fn done(&mut self, Done { sequence, index, result }: Done, applied: Index) -> bool {
        let Some(pending) = self.pending.get_mut(sequence) else { return false };
        let output = match result {
            Ran::Output(output) => output,
            Ran::Elsewhere => {
                self.opened = true;
                pending.elsewhere = Some(index);
                return false;
            }
            Ran::NoSession => return true,
            // An older copy of it, or one that came too early; another one decides.
            Ran::Settled | Ran::TooFar => return false,
            Ran::Undecodable => {
                self.finish(sequence, &CallError::Undecodable);
                return false;
            }
            Ran::Expired => {
                self.finish(sequence, &CallError::Expired);
                return false;
            }
        };
        self.opened = true;
        self.resend_after = self.patience;
        pending.queued();
        let Some(pending) = self.remove(sequence) else { return false };
        let mut later = Vec::new();
        for (caller, answer) in pending.answers(index, &output) {
            if caller.strong && index > applied {
                later.push((caller, answer));
            } else {
                self.answer(caller, answer);
            }
        }
        if !later.is_empty() {
            self.awaiting.insert(index, later);
        }
        false
    }

    /// The local machine has applied a command of this session.
    pub fn applied_here(&mut self, session: SessionId, done: Done, fresh: impl FnOnce() -> SessionId) {
        let index = done.index;
        if session == self.session && self.done(done, index) {
            self.unknown_session(fresh);
        }
    }

    /// The local machine is there: strong commands whose output is known are done.
    pub fn applied(&mut self, applied: Index) {
        while self.awaiting.first().is_some_and(|(first, _)| first <= applied) {
            let Some((_, waiting)) = self.awaiting.pop_first() else { break };
            waiting.into_iter().for_each(|(caller, answer)| self.answer(caller, answer));
        }
    }

    /// A snapshot took the place of applying commands: outputs that were to be seen here are asked for again.
    pub fn restored(&mut self, applied: Index) {
        self.applied(applied);
        if self.pending.iter().any(|(_, pending)| pending.elsewhere.is_some_and(|index| index <= applied)) {
            self.restart();
        }
    }

    fn remove(&mut self, sequence: u64) -> Option<Pending> {
        let pending = self.pending.remove(sequence)?;
        self.moved = true;
        Some(pending)
    }

    fn finish(&mut self, sequence: u64, error: &CallError) {
        let callers = self.remove(sequence).map(|pending| pending.callers);
        for caller in callers.into_iter().flatten().flatten() {
            self.answer(caller, Err(error.clone()));
        }
    }

    /// The table of sessions said whether it has this session.
    pub fn session_opened(&mut self, session: SessionId, opened: bool, fresh: impl FnOnce() -> SessionId) {
        if session == self.session && opened {
            self.opened = true;
        } else if session == self.session {
            self.unknown_session(fresh);
        }
    }

    /// A session that was never opened did not find room; one that was open has ended for lack of use.
    fn unknown_session(&mut self, fresh: impl FnOnce() -> SessionId) {
        if !self.opened {
            for (sequence, sends) in self.pending.iter().map(|(at, it)| (at, it.sends)).collect::<Vec<_>>() {
                // Another copy of it may find room later.
                let (waited, why) = (Duration::ZERO, Why(None));
                let unknown = CallError::Unknown { waited, why };
                self.finish(sequence, &if sends > 1 { unknown } else { CallError::SessionsFull });
            }
        }
        self.reopen(fresh());
    }

    /// The group does not know the session any more, so none of its commands will be applied in it: they begin again in
    /// another one.
    fn reopen(&mut self, session: SessionId) {
        self.session = session;
        self.opened = false;
        let pending = std::mem::take(&mut self.pending);
        self.next = 1;
        for (_, mut command) in pending {
            if command.elsewhere.is_some() {
                for caller in command.callers.into_iter().flatten() {
                    self.answer(caller, Err(CallError::Expired));
                }
                continue;
            }
            command.flying = 0;
            command.unsure = false;
            self.pending.insert(self.next, command);
            self.next += 1;
        }
        self.flights.clear();
        self.restart();
    }

    /// Gives up what is past its time, or whose caller has gone.
    pub fn expire(&mut self, now: Instant, why: &Why) {
        let mut late = Vec::new();
        let mut forgotten = Vec::new();
        for (sequence, pending) in self.pending.range_mut(0) {
            let out = pending.is_out();
            late.extend(pending.late(now).into_iter().map(|caller| (caller, out)));
            if pending.is_forgotten() {
                forgotten.push(sequence);
            }
        }
        for sequence in forgotten {
            self.remove(sequence);
        }
        for (_, waiting) in self.awaiting.range_mut(0) {
            let gone = waiting.extract_if(.., |(caller, _)| caller.deadline <= now || caller.answer.is_closed());
            late.extend(gone.map(|(caller, _)| (caller, true)));
        }
        for (caller, unknown) in late {
            let (waited, why) = (caller.timeout, why.clone());
            let error = if unknown { CallError::Unknown { waited, why } } else { CallError::Timeout { waited, why } };
            self.answer(caller, Err(error));
        }
    }

    /// The member stops: nobody waits in vain.
    pub fn stop(&mut self, why: &StopReason) {
        for sequence in self.pending.iter().map(|(sequence, _)| sequence).collect::<Vec<_>>() {
            let Some(pending) = self.pending.get(sequence) else { continue };
            let (out, why) = (pending.is_out(), why.clone());
            self.finish(sequence, &if out { CallError::Interrupted(why) } else { CallError::Stopped(why) });
        }
        for (caller, _) in std::mem::take(&mut self.awaiting).into_iter().flat_map(|(_, waiting)| waiting) {
            self.answer(caller, Err(CallError::Interrupted(why.clone())));
        }
    }
}
