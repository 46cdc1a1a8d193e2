//! The session of a node's callers: numbers the bodies of their commands, decides what is sent to whom and when again, and
//! knows of each command whether it can still be applied.
//!
//! A session is opened with an entry of the log and named by that entry's index, too; commands are sent only once it is
//! known. They go out in order; after a change of leader, a rejection or a loss everything unresolved is sent again, in
//! order, under the same numbers. A session that the group has ended (it was not used for the retention time) is
//! replaced: what was never sent goes into the next one, and so does what was sent once and is known not to have been
//! applied. Of anything else the outcome is unknown, and it is never sent again. A session belongs to one cluster: when the
//! local member finds itself in another one, that is as if the session had ended.
//!
//! Times: `now` is the driver's monotonic clock in microseconds. Attempts are stamped in group time, which the session
//! knows from answers and counts on by that clock, so it may be ahead of the leader's and is never much behind it.

use std::{collections::BTreeMap, ops::Range};

use bytes::Bytes;

use super::{
    ordered::Ordered,
    pending::{Call, CallId, Caller, Joining, Pending},
    wire::{BATCH_BYTES, BATCH_COMMANDS, Batch, CommandResult, Done, Numbered, Rejection},
};
use crate::groups::raft::{ClusterId, Index, Member, Mutant, SessionId, Switch, Term};

/// Commands in flight at once; one more body may exceed it. At most half of the window that the replicated table keeps for a
/// session, should each have a body of its own.
const COMMANDS: usize = 8192;
/// Bytes of commands in flight at once; one more command may exceed it.
const BYTES: usize = 16 << 20;
/// Batches in flight at once to another member.
const BATCHES: usize = 32;

/// What a driver must tell a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Its command is in a leader's log.
    Appended(CallId),
    /// It is done: where it was applied and the encoded output, or why not.
    Done(CallId, Result<(Index, Bytes), Failure>),
}

/// Why a caller has no output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Out of time. Certainly not applied.
    TimedOut,
    /// Out of time, or the session ended: perhaps applied.
    Unknown,
    /// The group has no room for a session. Certainly not applied.
    SessionsFull,
    /// Older than the group remembers: perhaps applied.
    Expired,
    /// The group takes no commands any more. Certainly not applied.
    Sealed,
    /// The leadership that it was sent under is over. Not applied.
    Fenced,
    /// The machine could not decode it. Not applied.
    Undecodable,
    /// It was applied, and its output is missing from what came back.
    OutputMissing,
    /// The member stopped before the command was sent. Certainly not applied.
    Stopped,
    /// The member stopped while the command was in flight: perhaps applied.
    Interrupted,
}

impl Failure {
    /// Whether the command may have been applied, or may still be.
    #[must_use]
    pub const fn is_unknown(self) -> bool {
        matches!(self, Self::Unknown | Self::Expired | Self::OutputMissing | Self::Interrupted)
    }
}

/// One batch that was handed to a leader.
#[derive(Debug)]
struct Flight {
    /// The numbers in it, and perhaps some that were settled before.
    sequences: Range<u64>,
    /// Of the present run to the present leader: its failure starts the run again.
    current: bool,
}

/// The client side.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    /// The cluster in which it is opened, once something was sent.
    cluster: Option<ClusterId>,
    /// Index of the entry that opened it, once known.
    opened: Option<Index>,
    /// The next number.
    next: u64,
    pending: Ordered<Pending>,
    /// Commands that were not answered, and their bytes.
    in_flight: (usize, usize),
    /// Strong commands that the leader has applied, by the index that the local machine must reach.
    awaiting: Ordered<Vec<(Caller, Bytes)>>,
    /// To whom commands go, in which cluster and term.
    target: Option<(ClusterId, Member, Term)>,
    /// Numbers below were sent in this run.
    unsent: u64,
    /// The last number sent in this run; 0 at its beginning.
    prior: u64,
    flights: BTreeMap<u64, Flight>,
    next_flight: u64,
    /// Nothing is sent before.
    not_before: u64,
    /// When to send everything again if nothing is resolved until then.
    resend_at: Option<u64>,
    /// Something was resolved since then was decided.
    moved: bool,
    resend_after: u64,
    resend_base: u64,
    /// A group time, milliseconds, and when it was that late at the latest.
    clock: (u64, u64),
    /// When the session was last used, microseconds.
    used: u64,
    /// How long the group keeps an unused session, milliseconds of group time.
    retention: u64,
    /// The group has said that this session has ended.
    ended: bool,
    events: Vec<Event>,
    switch: Switch,
}

impl Session {
    /// `id` must be fresh and random. `resend_base`: microseconds without any result before commands are sent again; it doubles,
    /// up to eight times.
    /// `retention`: how long the group keeps an unused session, milliseconds.
    #[must_use]
    pub fn new(id: SessionId, resend_base: u64, retention: u64, now: u64, switch: Switch) -> Self {
        Self {
            id,
            cluster: None,
            opened: None,
            next: 1,
            pending: Ordered::default(),
            in_flight: (0, 0),
            awaiting: Ordered::default(),
            target: None,
            unsent: 1,
            prior: 0,
            flights: BTreeMap::new(),
            next_flight: 0,
            not_before: now,
            resend_at: None,
            moved: false,
            resend_after: resend_base,
            resend_base,
            clock: (0, now),
            used: now,
            retention,
            ended: false,
            events: Vec::new(),
            switch,
        }
    }

    /// The session's id.
    #[must_use]
    pub const fn id(&self) -> SessionId {
        self.id
    }

    /// Whether more may be taken beside so many commands and bytes.
    #[must_use]
    pub const fn has_room(&self, commands: usize, bytes: usize) -> bool {
        self.in_flight.0 + commands < COMMANDS && self.in_flight.1 + bytes < BYTES
    }

    /// Commands that were taken and not answered.
    #[must_use]
    pub const fn in_flight(&self) -> usize {
        self.in_flight.0
    }

    /// Takes commands of callers, in order. Short ones share a body.
    pub fn submit(&mut self, calls: impl IntoIterator<Item = Call>) {
        let mut joining = Joining::default();
        for call in calls {
            if let Some(pending) = joining.add(call) {
                self.add(pending);
            }
        }
        joining.done().into_iter().for_each(|pending| self.add(pending));
    }

    fn add(&mut self, pending: Pending) {
        for Caller { weight: (commands, bytes), .. } in pending.callers.iter().flatten() {
            self.in_flight = (self.in_flight.0 + commands, self.in_flight.1 + bytes);
        }
        self.pending.insert(self.next, pending);
        self.next += 1;
    }

    /// What callers are to be told, since the last time.
    pub fn events(&mut self) -> std::vec::Drain<'_, Event> {
        self.events.drain(..)
    }

    fn answer(&mut self, caller: &Caller, answer: Result<(Index, Bytes), Failure>) {
        let (commands, bytes) = caller.weight;
        self.in_flight = (self.in_flight.0 - commands, self.in_flight.1 - bytes);
        self.events.push(Event::Done(caller.id, answer));
    }

    /// Who leads now, as far as known, in which cluster and term.
    pub fn set_leader(&mut self, target: Option<(ClusterId, Member, Term)>) {
        if self.target != target {
            self.target = target;
            self.restart();
        }
    }

    /// Everything unresolved is sent again, from the lowest number on.
    fn restart(&mut self) {
        if self.switch.is(Mutant::RenumberedResend) {
            for (_, pending) in std::mem::take(&mut self.pending) {
                self.pending.insert(self.next, pending);
                self.next += 1;
            }
        }
        self.unsent = 0;
        self.prior = 0;
        self.flights.values_mut().for_each(|flight| flight.current = false);
    }

    /// The group time now, milliseconds.
    fn group_time(&self, now: u64) -> u64 {
        let (time, at) = self.clock;
        time.saturating_add(now.saturating_sub(at) / 1000)
    }

    /// The group's time was this late, milliseconds, at some moment not after `now`.
    pub fn observe_time(&mut self, time: u64, now: u64) {
        if time > self.group_time(now) {
            self.clock = (time, now);
        }
    }

    /// When something is to be done without any event, microseconds.
    #[must_use]
    pub fn wake_at(&self, now: u64) -> Option<u64> {
        let waiting = self.target.is_some() && self.not_before > now && self.pending.reaches(self.unsent);
        let resend = self.resend_at.filter(|_| self.target.is_some());
        [resend, waiting.then_some(self.not_before)].into_iter().flatten().min()
    }

    /// The next batch to send, with its number and the leader. `fresh` makes a random id for another session.
    pub fn poll(&mut self, now: u64, fresh: impl FnOnce() -> SessionId) -> Option<(u64, Member, Batch)> {
        let (cluster, leader, _) = self.target?;
        if std::mem::take(&mut self.moved) {
            self.used = now;
            self.resend_at = (!self.pending.is_empty()).then(|| now + self.resend_after);
        }
        let overdue = self.resend_at.is_some_and(|at| now >= at);
        let elsewhere = self.cluster.is_some_and(|of| of != cluster);
        if elsewhere || self.is_over(now, overdue) {
            self.replace(fresh());
        } else if self.ended {
            return None;
        }
        self.cluster = Some(cluster);
        if overdue {
            self.resend_after = (self.resend_after * 2).min(8 * self.resend_base);
            self.restart();
            self.resend_at = Some(now + self.resend_after);
        }
        if now < self.not_before || !self.pending.reaches(self.unsent) {
            return None;
        }
        if self.flights.values().filter(|flight| flight.current).count() >= BATCHES {
            return None;
        }
        let batch = match self.opened {
            Some(opened) => self.batch(cluster, opened, now)?,
            None if self.flights.values().any(|flight| flight.current) => return None,
            None => self.opening(cluster),
        };
        self.resend_at.get_or_insert(now + self.resend_after);
        let flight = self.next_flight;
        self.next_flight += 1;
        let sequences = match (batch.commands.first(), batch.commands.last()) {
            (Some(first), Some(last)) => first.sequence..last.sequence + 1,
            _ => 0..1,
        };
        self.flights.insert(flight, Flight { sequences, current: true });
        Some((flight, leader, batch))
    }

    fn opening(&mut self, cluster: ClusterId) -> Batch {
        self.flights.retain(|_, flight| flight.sequences.start != 0);
        let (session, commands) = (self.id, Vec::new());
        Batch { cluster, session, opened: 0, settled: 0, prior: 0, ack_on_append: false, commands }
    }

    fn batch(&mut self, cluster: ClusterId, opened: Index, now: u64) -> Option<Batch> {
        let (session, attempt) = (self.id, self.attempt(now));
        let mut settled = self.pending.first().map_or(self.next, |(first, _)| first);
        if self.switch.is(Mutant::SettledEarly) {
            settled = self.pending.range_mut(self.unsent).next().map_or(self.next, |(first, _)| first);
        }
        let mut commands = Vec::new();
        let (mut bytes, mut ack_on_append) = (0, false);
        for (sequence, pending) in self.pending.range_mut(self.unsent) {
            if commands.len() == BATCH_COMMANDS || (bytes + pending.body.len() > BATCH_BYTES && !commands.is_empty()) {
                break;
            }
            bytes += pending.body.len();
            ack_on_append |= pending.wants_ack();
            if pending.sends == 0 {
                pending.attempted = attempt;
            }
            pending.in_flight += 1;
            pending.sends += 1;
            let (attempted, body) = (pending.attempted, pending.body.clone());
            commands.push(Numbered { sequence, attempted, body });
        }
        let prior = if self.switch.is(Mutant::PriorSkipped) { 0 } else { self.prior };
        let last = commands.last()?.sequence;
        self.prior = last;
        self.unsent = last + 1;
        Some(Batch { cluster, session, opened, settled, prior, ack_on_append, commands })
    }

    fn attempt(&self, now: u64) -> u64 {
        if self.switch.is(Mutant::AttemptInLocalTime) { now / 1000 } else { self.group_time(now) }
    }

    /// Whether another session is needed: the group has ended this one and what became of its commands is known as far as it
    /// will ever be; or nothing of it is in flight and it was unused for so long that it may end soon.
    fn is_over(&self, now: u64, overdue: bool) -> bool {
        if self.ended {
            let undecided = |pending: &Pending| pending.is_out() && !pending.ended && pending.elsewhere.is_none();
            return overdue || !self.pending.iter().any(|(_, pending)| undecided(pending));
        }
        let unused = self.opened.is_some() && now.saturating_sub(self.used) / 1000 >= self.retention / 2;
        unused && !self.pending.iter().any(|(_, pending)| pending.is_out())
    }

    /// Begins another session. What may have been applied in this one is not taken along.
    fn replace(&mut self, id: SessionId) {
        let forgets = self.switch.is(Mutant::ForgetfulReplacement);
        self.id = id;
        self.cluster = None;
        self.opened = None;
        self.ended = false;
        self.next = 1;
        for (_, mut pending) in std::mem::take(&mut self.pending) {
            let never_applied = !pending.is_out() || (pending.ended && pending.sends == 1);
            if never_applied || forgets {
                (pending.in_flight, pending.sends) = (0, 0);
                (pending.maybe_logged, pending.ended) = (false, false);
                self.pending.insert(self.next, pending);
                self.next += 1;
            } else {
                self.fail(pending, Failure::Expired);
            }
        }
        self.flights.clear();
        self.unsent = 0;
        self.prior = 0;
        self.resend_at = None;
    }

    fn land(&mut self, flight: u64, mut each: impl FnMut(&mut Pending, &mut Vec<Event>)) -> Option<Flight> {
        let flight = self.flights.remove(&flight)?;
        let Self { pending, events, .. } = self;
        for (_, pending) in pending.range_mut(flight.sequences.start).take_while(|(at, _)| *at < flight.sequences.end) {
            pending.in_flight = pending.in_flight.saturating_sub(1);
            each(pending, events);
        }
        Some(flight)
    }

    /// The batch is in the leader's log.
    pub fn queued(&mut self, flight: u64) {
        // An opening waits for its outcome: nothing else goes out before.
        if self.flights.get(&flight).is_some_and(|flight| flight.sequences.start == 0) {
            return;
        }
        self.land(flight, |pending, events| {
            pending.maybe_logged = true;
            pending.appended(events);
        });
    }

    /// The batch was not appended. It is tried again after `pause`, microseconds.
    pub fn rejected(&mut self, flight: u64, why: Rejection, pause: u64, now: u64) {
        let Some(flight) = self.land(flight, |_, _| {}) else { return };
        if flight.current {
            self.restart();
            self.not_before = if why == Rejection::OutOfOrder { now } else { now + pause };
        }
    }

    /// Whether the batch arrived is not known. It is tried again after `pause`, microseconds.
    pub fn lost(&mut self, flight: u64, pause: u64, now: u64) {
        let Some(flight) = self.land(flight, |pending, _| pending.maybe_logged = true) else { return };
        if flight.current {
            self.restart();
            self.not_before = now + pause;
        }
    }

    /// The leader has applied the batch, at a group time of `time` milliseconds. `applied`: how far the local machine is.
    pub fn answered(&mut self, flight: u64, results: Vec<Done>, time: u64, applied: Index, now: u64) {
        self.observe_time(time, now);
        if self.land(flight, |pending, _| pending.maybe_logged = true).is_some() {
            results.into_iter().for_each(|done| self.done(done, applied));
        }
    }

    /// The local machine has applied a command of this session.
    pub fn applied_here(&mut self, session: SessionId, done: Done) {
        if session == self.id {
            let index = done.index;
            self.done(done, index);
        }
    }

    /// A command of this session was applied, by the leader or here; `applied` is how far the local machine is.
    fn done(&mut self, Done { sequence, index, result }: Done, applied: Index) {
        if sequence == 0 {
            return self.opening_done(index, &result);
        }
        let Some(pending) = self.pending.get_mut(sequence) else { return };
        let output = match result {
            CommandResult::Output(output) => output,
            CommandResult::Elsewhere => return pending.elsewhere = Some(index),
            CommandResult::Ended => {
                pending.ended = true;
                self.ended = true;
                return;
            }
            CommandResult::Undecodable => return self.finish(sequence, Failure::Undecodable),
            CommandResult::Expired => return self.finish(sequence, Failure::Expired),
            // Terms only grow along the log: a later copy is refused, too, and an earlier one would have been applied before.
            CommandResult::Fenced => return self.finish(sequence, Failure::Fenced),
            // An older copy of it, or one that came too early; another one decides.
            CommandResult::Settled | CommandResult::TooFar => return,
            CommandResult::Opened | CommandResult::Full => return,
        };
        self.resend_after = self.resend_base;
        pending.appended(&mut self.events);
        let Some(pending) = self.remove(sequence) else { return };
        let mut later = Vec::new();
        for (caller, answer) in pending.answers(index, &output) {
            match answer {
                Ok((_, output)) if caller.strong && index > applied => later.push((caller, output)),
                answer => self.answer(&caller, answer),
            }
        }
        if !later.is_empty() {
            self.awaiting.insert(index, later);
        }
    }

    fn opening_done(&mut self, index: Index, result: &CommandResult) {
        self.flights.retain(|_, flight| flight.sequences.start != 0);
        match result {
            CommandResult::Opened if self.opened.is_none() => {
                self.opened = Some(index);
                self.moved = true;
                self.resend_after = self.resend_base;
                self.restart();
            }
            // Nothing was sent in a session that is not open.
            CommandResult::Full if self.opened.is_none() => {
                let all: Vec<u64> = self.pending.iter().map(|(sequence, _)| sequence).collect();
                all.into_iter().for_each(|sequence| self.finish(sequence, Failure::SessionsFull));
            }
            _ => {}
        }
    }

    /// The local machine is there: strong commands whose output is known are done.
    pub fn applied(&mut self, applied: Index) {
        while self.awaiting.first().is_some_and(|(first, _)| first <= applied) {
            let Some((index, waiting)) = self.awaiting.pop_first() else { break };
            for (caller, output) in waiting {
                self.answer(&caller, Ok((index, output)));
            }
        }
    }

    /// A snapshot took the place of applying commands: outputs that were to be seen here are asked for again.
    pub fn restored(&mut self, applied: Index) {
        self.applied(applied);
        let missed = |pending: &Pending| pending.elsewhere.is_some_and(|index| index <= applied);
        if self.pending.iter().any(|(_, pending)| missed(pending)) {
            self.restart();
        }
    }

    fn remove(&mut self, sequence: u64) -> Option<Pending> {
        let pending = self.pending.remove(sequence)?;
        self.moved = true;
        Some(pending)
    }

    fn finish(&mut self, sequence: u64, why: Failure) {
        if let Some(pending) = self.remove(sequence) {
            self.fail(pending, why);
        }
    }

    /// The output of a command is too long to come back, and there is no local machine that would have it.
    pub fn output_missing(&mut self, sequence: u64) {
        self.finish(sequence, Failure::OutputMissing);
    }

    fn fail(&mut self, pending: Pending, why: Failure) {
        pending.callers.into_iter().flatten().for_each(|caller| self.answer(&caller, Err(why)));
    }

    /// Gives up what is past its time, or whose caller has gone.
    pub fn expire(&mut self, now: u64, is_gone: impl Fn(CallId) -> bool) {
        let (mut late, mut forgotten) = (Vec::new(), Vec::new());
        for (sequence, pending) in self.pending.range_mut(0) {
            let why = if pending.is_out() { Failure::Unknown } else { Failure::TimedOut };
            late.extend(pending.late(now, &is_gone).into_iter().map(|caller| (caller, why)));
            if pending.is_forgotten() {
                forgotten.push(sequence);
            }
        }
        for sequence in forgotten {
            self.remove(sequence);
        }
        for (_, waiting) in self.awaiting.range_mut(0) {
            let gone = waiting.extract_if(.., |(caller, _)| caller.is_late(now, &is_gone));
            late.extend(gone.map(|(caller, _)| (caller, Failure::Unknown)));
        }
        late.into_iter().for_each(|(caller, why)| self.answer(&caller, Err(why)));
    }

    /// The group is sealed: no command is applied any more. `seen`: the local machine has applied all that came before, so
    /// what was sent and is not resolved was not applied.
    pub fn seal(&mut self, seen: bool) {
        for (_, pending) in std::mem::take(&mut self.pending) {
            let why = if pending.is_out() && !seen { Failure::Unknown } else { Failure::Sealed };
            self.fail(pending, why);
        }
        self.moved = true;
    }

    /// The member stops: nobody waits in vain.
    pub fn stop(&mut self) {
        for (_, pending) in std::mem::take(&mut self.pending) {
            let why = if pending.is_out() { Failure::Interrupted } else { Failure::Stopped };
            self.fail(pending, why);
        }
        for (caller, _) in std::mem::take(&mut self.awaiting).into_iter().flat_map(|(_, waiting)| waiting) {
            self.answer(&caller, Err(Failure::Interrupted));
        }
    }
}

#[cfg(test)]
mod tests;
