//! What callers want of the worker and it has not taken yet.
//!
//! Each item belongs to a living future of a caller, which holds as much memory itself and takes the item back when it is
//! dropped; so the queue needs no limit, and waiting in it is the back-pressure. First come, first served.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use crate::groups::{
    error::{CallError, LeaveError, StopReason},
    raft::Index,
};

/// What a finished command gives: where it was applied, and its encoded output.
pub(in crate::groups) type Answer = Result<(Index, Bytes), CallError>;

/// A command on its way to the worker.
#[derive(Debug)]
pub(in crate::groups) struct Submission {
    pub body: Bytes,
    /// Only when the local machine has applied it, too.
    pub strong: bool,
    pub deadline: Instant,
    /// What the caller gave it, for the error.
    pub timeout: Duration,
    pub answer: oneshot::Sender<Answer>,
    /// Told when a leader has appended the command.
    pub queued: Option<oneshot::Sender<()>>,
}

/// Another request to the worker.
#[derive(Debug)]
pub(in crate::groups) enum Ask {
    /// Resolves when the local machine reflects all that was acknowledged before.
    Read { deadline: Instant, timeout: Duration, answer: oneshot::Sender<Result<Index, CallError>> },
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
    commands: BTreeMap<u64, Submission>,
    asks: Vec<Ask>,
    closed: Option<StopReason>,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds commands, in order. Returns the ticket of the first; the others follow.
    pub fn submit(&self, commands: impl IntoIterator<Item = Submission>) -> Result<u64, StopReason> {
        let mut state = self.state();
        if let Some(why) = &state.closed {
            return Err(why.clone());
        }
        let first = state.next;
        for command in commands {
            let ticket = state.next;
            state.next += 1;
            state.commands.insert(ticket, command);
        }
        drop(state);
        self.wake.notify_one();
        Ok(first)
    }

    /// Takes a command back, if it is still here.
    pub fn withdraw(&self, ticket: u64) {
        self.state().commands.remove(&ticket);
    }

    pub fn ask(&self, ask: Ask) -> Result<(), StopReason> {
        let mut state = self.state();
        if let Some(why) = &state.closed {
            return Err(why.clone());
        }
        // Whoever has gone is not served; this bounds the list by the callers that live.
        state.asks.retain(|ask| match ask {
            Ask::Read { answer, .. } => !answer.is_closed(),
            Ask::Leave { answer, .. } => !answer.is_closed(),
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
    pub(super) fn take(&self, mut room: impl FnMut(&Submission) -> bool) -> Vec<Submission> {
        let mut taken = Vec::new();
        let mut state = self.state();
        while let Some(first) = state.commands.first_entry() {
            if !room(first.get()) {
                break;
            }
            taken.push(first.remove());
        }
        taken
    }

    /// Takes out what is past its time.
    pub(super) fn expired(&self, now: Instant) -> Vec<Submission> {
        let mut state = self.state();
        let late = |command: &Submission| command.deadline <= now;
        if !state.commands.values().any(late) {
            return Vec::new();
        }
        let (late, rest) = std::mem::take(&mut state.commands).into_iter().partition(|(_, command)| late(command));
        state.commands = rest;
        let late: BTreeMap<u64, Submission> = late;
        late.into_values().collect()
    }

    pub(super) fn asks(&self) -> Vec<Ask> {
        std::mem::take(&mut self.state().asks)
    }

    /// Resolves when something came since the last time. One task waits. Cancellation-safe.
    pub(super) async fn filled(&self) {
        self.wake.notified().await;
    }
}
