//! The callers of this node whose commands the session has: where each outcome goes, and what it means to them.

use std::time::Duration;

use slab::Slab;
use tokio::{sync::oneshot, time::Instant};

use super::queue::{Slot, Submission};
use crate::groups::{
    client::{Call, CallId, Event, Failure},
    error::{CallError, StopReason, Why},
};

#[derive(Debug)]
struct Waiting {
    answer: Slot,
    /// Told when a leader has appended the command.
    queued: Option<oneshot::Sender<()>>,
    /// What the caller gave it, for the error.
    timeout: Duration,
}

#[derive(Debug)]
pub(in crate::groups) struct Callers {
    waiting: Slab<Waiting>,
    /// When the session's clock began.
    epoch: Instant,
}

impl Callers {
    pub const fn new(epoch: Instant) -> Self {
        Self { waiting: Slab::new(), epoch }
    }

    /// The session's clock at that moment, microseconds.
    pub fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_micros()).unwrap_or(u64::MAX)
    }

    pub fn instant(&self, micros: u64) -> Instant {
        self.epoch + Duration::from_micros(micros)
    }

    /// What the session is to do for the caller, unless that has gone.
    pub fn take(&mut self, submission: Submission) -> Option<Call> {
        let Submission { body, strong, deadline, timeout, answer, queued } = submission;
        if answer.is_closed() {
            return None;
        }
        let (deadline, detached) = (self.micros(deadline), queued.is_some());
        let id = self.waiting.insert(Waiting { answer, queued, timeout });
        Some(Call { id, body, deadline, strong, detached, ack_on_append: detached })
    }

    pub fn is_gone(&self, id: CallId) -> bool {
        self.waiting.get(id).is_none_or(|waiting| waiting.answer.is_closed())
    }

    /// Tells a caller. `why`: why the group does not answer; `stopped`: why the member has ended, if it has.
    pub fn tell(&mut self, event: Event, why: impl FnOnce() -> Why, stopped: impl FnOnce() -> StopReason) {
        match event {
            Event::Appended(id) => {
                if let Some(queued) = self.waiting.get_mut(id).and_then(|waiting| waiting.queued.take()) {
                    // The caller may have gone.
                    let _ = queued.send(());
                }
            }
            Event::Done(id, answer) => {
                let Some(Waiting { answer: slot, timeout, .. }) = self.waiting.try_remove(id) else { return };
                slot.send(answer.map_err(|failure| error(failure, timeout, why, stopped)));
            }
        }
    }
}

fn error(
    failure: Failure,
    waited: Duration,
    why: impl FnOnce() -> Why,
    stopped: impl FnOnce() -> StopReason,
) -> CallError {
    match failure {
        Failure::TimedOut => CallError::Timeout { waited, why: why() },
        Failure::Unknown => CallError::Unknown { waited, why: why() },
        Failure::SessionsFull => CallError::SessionsFull,
        Failure::Expired => CallError::Expired,
        Failure::Sealed => CallError::Sealed,
        Failure::Fenced => CallError::Fenced,
        Failure::Undecodable => CallError::Undecodable,
        Failure::OutputMissing => CallError::UndecodableOutput("it is missing".to_owned()),
        Failure::Stopped => CallError::Stopped(stopped()),
        Failure::Interrupted => CallError::Interrupted(stopped()),
    }
}
