//! What callers want of the worker and it has not taken yet.
//!
//! Each item belongs to a living future of a caller, which holds as much memory itself and takes the item back when it is
//! dropped; so the queue needs no limit, and waiting in it is the back-pressure. First come, first served.

use std::{
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use crate::groups::client::Ordered;
use crate::groups::{
    error::{CallError, LeaveError, SealError, StopReason, TransferError},
    leadership::{LeaderPreference, Transferred},
    raft::Index,
};
use crate::primitives::PeerId;

/// What a finished command gives: where it was applied, and its encoded output.
pub(in crate::groups) type Answer = Result<(Index, Bytes), CallError>;

/// Where the outcome of a command goes. Dropped without one, the caller is told that it was interrupted.
#[derive(Debug)]
pub(in crate::groups) enum Slot {
    One(oneshot::Sender<Answer>),
    Part(Part),
}

impl Slot {
    pub(in crate::groups) fn send(self, answer: Answer) {
        match self {
            // An error says that the caller has gone, which is its right.
            Self::One(sender) => _ = sender.send(answer),
            Self::Part(part) => part.send(answer),
        }
    }

    /// Whether the caller has gone.
    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::One(sender) => sender.is_closed(),
            Self::Part(part) => part.many.state().done.as_ref().is_none_or(oneshot::Sender::is_closed),
        }
    }
}

/// All outputs of a call of many bodies, or why there are none; nothing if the worker has dropped one of them.
pub(in crate::groups) type Answers = Result<Vec<Bytes>, Option<CallError>>;

/// The outcomes of the bodies of one call, which is woken once: when all are there, or by the first error.
#[derive(Debug)]
struct Many(Mutex<Gathered>);

#[derive(Debug)]
struct Gathered {
    outputs: Vec<Bytes>,
    missing: usize,
    /// Until the call was answered.
    done: Option<oneshot::Sender<Answers>>,
}

impl Many {
    fn state(&self) -> MutexGuard<'_, Gathered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, with: impl FnOnce(&mut Gathered) -> Option<Answers>) {
        let told = {
            let mut state = self.state();
            let answers = with(&mut state);
            answers.and_then(|answers| Some((state.done.take()?, answers)))
        };
        if let Some((done, answers)) = told {
            // The caller may have gone.
            let _ = done.send(answers);
        }
    }
}

/// The place of one body in the answer to a call of many.
#[derive(Debug)]
pub(in crate::groups) struct Part {
    many: Arc<Many>,
    at: usize,
    sent: bool,
}

impl Part {
    fn send(mut self, answer: Answer) {
        self.sent = true;
        self.many.end(|state| match answer {
            Ok((_, output)) => {
                state.outputs[self.at] = output;
                state.missing -= 1;
                (state.missing == 0).then(|| Ok(std::mem::take(&mut state.outputs)))
            }
            Err(error) => Some(Err(Some(error))),
        });
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.sent {
            self.many.end(|_| Some(Err(None)));
        }
    }
}

/// Places for the outcomes of `count` bodies, which must not be none.
pub(in crate::groups) fn slots(count: usize) -> (impl Iterator<Item = Slot>, oneshot::Receiver<Answers>) {
    let (done, answers) = oneshot::channel();
    let state = Gathered { outputs: vec![Bytes::new(); count], missing: count, done: Some(done) };
    let many = Arc::new(Many(Mutex::new(state)));
    ((0..count).map(move |at| Slot::Part(Part { many: many.clone(), at, sent: false })), answers)
}

/// A command on its way to the worker, or several in one body.
#[derive(Debug)]
pub(in crate::groups) struct Submission {
    pub body: Bytes,
    /// Only when the local machine has applied it, too.
    pub strong: bool,
    pub deadline: Instant,
    /// What the caller gave it, for the error.
    pub timeout: Duration,
    pub answer: Slot,
    /// Told when a leader has appended the command.
    pub queued: Option<oneshot::Sender<()>>,
}

/// Another request to the worker.
#[derive(Debug)]
pub(in crate::groups) enum Ask {
    /// Resolves when the local machine reflects all that was acknowledged before.
    Read { deadline: Instant, timeout: Duration, answer: oneshot::Sender<Result<Index, CallError>> },
    /// Ends this version of the machine. Resolves when the local snapshot of the seal is durable.
    Seal { deadline: Instant, timeout: Duration, answer: oneshot::Sender<Result<Index, SealError>> },
    /// A client's batch, encoded. Dropped without an answer, what became of it is not known.
    Call { request: Bytes, answer: oneshot::Sender<Bytes> },
    /// Makes another member the leader. Resolves when it leads.
    Transfer {
        to: PeerId,
        deadline: Instant,
        timeout: Duration,
        answer: oneshot::Sender<Result<Transferred, TransferError>>,
    },
    /// How much this member is to lead from now on.
    Prefer(LeaderPreference),
    /// Whether it can do a leader's work.
    Ready(bool),
    /// Removes this member from the group and ends it.
    Leave { forced: bool, deadline: Instant, answer: oneshot::Sender<Result<(), LeaveError>> },
}

#[derive(Debug, Default)]
pub(in crate::groups) struct Queue {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    commands: Ordered<Submission>,
    asks: Vec<Ask>,
    closed: Option<StopReason>,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds commands, in order. Returns their tickets.
    pub fn submit(&self, commands: impl IntoIterator<Item = Submission>) -> Result<Range<u64>, StopReason> {
        let mut state = self.state();
        if let Some(why) = &state.closed {
            return Err(why.clone());
        }
        let first = state.next;
        // Otherwise the worker was told already, or looks again as soon as it has room.
        let was_empty = state.commands.is_empty();
        for command in commands {
            let ticket = state.next;
            state.next += 1;
            state.commands.insert(ticket, command);
        }
        let tickets = first..state.next;
        drop(state);
        if was_empty {
            self.wake.notify_one();
        }
        Ok(tickets)
    }

    /// How many commands were submitted so far.
    pub(super) fn submitted(&self) -> u64 {
        self.state().next
    }

    /// Takes a command back, if it is still here.
    pub fn withdraw(&self, ticket: u64) {
        let withdrawn = self.state().commands.remove(ticket);
        drop(withdrawn);
    }

    pub fn ask(&self, ask: Ask) -> Result<(), StopReason> {
        let mut state = self.state();
        if let Some(why) = &state.closed {
            return Err(why.clone());
        }
        // Whoever has gone is not served; this bounds the list by the callers that live.
        state.asks.retain(|earlier| match earlier {
            Ask::Read { answer, .. } => !answer.is_closed(),
            Ask::Leave { answer, .. } => !answer.is_closed(),
            Ask::Seal { answer, .. } => !answer.is_closed(),
            Ask::Call { answer, .. } => !answer.is_closed(),
            Ask::Transfer { answer, .. } => !answer.is_closed(),
            // The last one counts.
            Ask::Prefer(_) => !matches!(&ask, Ask::Prefer(_)),
            // Also a short fall is one; of the same wish one is enough.
            Ask::Ready(ready) => !matches!(&ask, Ask::Ready(again) if again == ready),
        });
        state.asks.push(ask);
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    /// The worker has ended.
    pub fn close(&self, why: StopReason) {
        let (commands, asks) = {
            let mut state = self.state();
            state.closed.get_or_insert(why);
            (std::mem::take(&mut state.commands), std::mem::take(&mut state.asks))
        };
        // Dropping the answers tells the callers; outside of the lock, because it wakes them.
        drop((commands, asks));
    }

    /// Why the worker has ended, if it has.
    pub fn closed(&self) -> Option<StopReason> {
        self.state().closed.clone()
    }

    /// Commands in order, while `room` says that there is.
    pub(in crate::groups) fn take(&self, mut room: impl FnMut(&Submission) -> bool) -> Vec<Submission> {
        let mut taken = Vec::new();
        let mut state = self.state();
        while state.commands.first().is_some_and(|(_, first)| room(first)) {
            taken.extend(state.commands.pop_first().map(|(_, command)| command));
        }
        taken
    }

    /// Takes out what is past its time.
    pub(in crate::groups) fn expired(&self, now: Instant) -> Vec<Submission> {
        let late = self.state().commands.extract(|command| command.deadline <= now);
        late.into_iter().map(|(_, command)| command).collect()
    }

    pub(super) fn asks(&self) -> Vec<Ask> {
        std::mem::take(&mut self.state().asks)
    }

    /// Resolves when something came since the last time. One task waits. Cancellation-safe.
    pub(in crate::groups) async fn filled(&self) {
        self.wake.notified().await;
    }
}
