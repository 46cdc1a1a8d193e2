//! How a version of a machine ends: the seal is the last entry that changes the machine, every member takes a snapshot at
//! exactly that index, and no command is taken after it. The next version begins with that snapshot.

use std::time::Duration;

use tokio::{sync::oneshot, time::Instant};

use super::{Purpose, Worker};
use crate::groups::{
    client::Request,
    error::{SealError, StopReason},
    raft::{Index, Input, Token},
};

/// Between two requests to the leader.
const AGAIN: Duration = Duration::from_millis(200);

/// What is known of the seal, and who waits for it.
#[derive(Debug, Default)]
pub(super) struct Sealing {
    /// The seal was applied here, or a snapshot behind it restored.
    applied: bool,
    /// The snapshot that stands for it, and the write that makes it durable.
    snapshot: Option<(Index, Token)>,
    waiting: Vec<Waiter>,
    next: Option<Instant>,
}

#[derive(Debug)]
struct Waiter {
    deadline: Instant,
    timeout: Duration,
    answer: oneshot::Sender<Result<Index, SealError>>,
}

impl Sealing {
    pub fn add(&mut self, deadline: Instant, timeout: Duration, answer: oneshot::Sender<Result<Index, SealError>>) {
        self.waiting.push(Waiter { deadline, timeout, answer });
    }

    pub const fn is_applied(&self) -> bool {
        self.applied
    }

    pub fn wake_at(&self) -> Option<Instant> {
        let deadlines = self.waiting.iter().map(|waiter| waiter.deadline);
        deadlines.chain(self.next.filter(|_| !self.waiting.is_empty())).min()
    }

    fn answer(&mut self, result: &Result<Index, SealError>) {
        for waiter in std::mem::take(&mut self.waiting) {
            // The caller may have gone.
            let _ = waiter.answer.send(result.clone());
        }
    }

    pub fn stop(&mut self, why: &StopReason) {
        self.answer(&Err(SealError::Stopped(why.clone())));
    }
}

impl Worker {
    /// The machine has no commands after this any more. What is still under way was not applied before the seal, as far as
    /// this member has seen the log up to it.
    pub(super) fn sealed(&mut self, seen: bool) {
        self.sealing.applied = true;
        self.session.seal(seen);
        self.tell_callers();
    }

    /// A snapshot that stands for the seal is being written, or was read.
    pub(super) fn seal_written(&mut self, index: Index) {
        self.sealing.snapshot = Some((index, self.submitted));
    }

    /// Moves the seal along.
    pub(super) fn seal(&mut self) {
        if let Some((index, token)) = self.sealing.snapshot
            && self.durable >= token
        {
            self.publish.sealed(index);
            self.sealing.answer(&Ok(index));
        }
        if self.sealing.waiting.is_empty() {
            return;
        }
        let now = Instant::now();
        let late = |waiter: &mut Waiter| waiter.deadline <= now || waiter.answer.is_closed();
        for Waiter { timeout, answer, .. } in self.sealing.waiting.extract_if(.., late) {
            let error = match self.publish.snapshot_failure() {
                Some(why) if self.sealing.applied => SealError::Snapshot(why.to_owned()),
                _ => SealError::Timeout { waited: timeout, why: self.board.why() },
            };
            // The caller may have gone.
            let _ = answer.send(Err(error));
        }
        if self.sealing.applied || self.sealing.next.is_some_and(|next| now < next) {
            return;
        }
        self.sealing.next = Some(now + AGAIN);
        match self.raft.leader() {
            Some(leader) if leader == self.raft.me() => self.step(Input::Seal),
            Some(leader) => self.call(leader, &Request::Seal, Purpose::Seal),
            None => {}
        }
    }
}
