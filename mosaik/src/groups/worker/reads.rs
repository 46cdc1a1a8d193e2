//! Strong reads of this node's callers: all that wait are proven with one request to the leader.

use std::{collections::BTreeMap, time::Duration};

use tokio::{sync::oneshot, time::Instant};

use crate::groups::{
    error::{CallError, StopReason, Why},
    raft::Index,
};

/// A caller that waits for its local machine to reflect all that was acknowledged before.
#[derive(Debug)]
struct Waiter {
    answer: oneshot::Sender<Result<Index, CallError>>,
    deadline: Instant,
    timeout: Duration,
}

/// Requests to the leader at once.
const ASKED: usize = 16;
/// After a request that failed, at least so long until the next.
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(super) struct Reads {
    waiting: Vec<Waiter>,
    asked: BTreeMap<u64, Vec<Waiter>>,
    next: u64,
    not_before: Instant,
}

impl Reads {
    pub fn new(now: Instant) -> Self {
        Self { waiting: Vec::new(), asked: BTreeMap::new(), next: 0, not_before: now }
    }

    pub fn add(&mut self, answer: oneshot::Sender<Result<Index, CallError>>, deadline: Instant, timeout: Duration) {
        self.waiting.push(Waiter { answer, deadline, timeout });
    }

    /// The number of a read to ask the core for, on behalf of everybody who waits.
    pub fn ask(&mut self, now: Instant) -> Option<u64> {
        if self.waiting.is_empty() || now < self.not_before || self.asked.len() >= ASKED {
            return None;
        }
        self.next += 1;
        self.asked.insert(self.next, std::mem::take(&mut self.waiting));
        Some(self.next)
    }

    pub fn ready(&mut self, id: u64, index: Index) {
        for waiter in self.asked.remove(&id).into_iter().flatten() {
            // The caller may have gone.
            let _ = waiter.answer.send(Ok(index));
        }
    }

    pub fn failed(&mut self, id: u64, now: Instant) {
        self.waiting.extend(self.asked.remove(&id).into_iter().flatten());
        self.not_before = now + PAUSE;
    }

    /// The core has forgotten what it was asked.
    pub fn restart(&mut self) {
        for (_, waiters) in std::mem::take(&mut self.asked) {
            self.waiting.extend(waiters);
        }
    }

    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        (!self.waiting.is_empty() && self.not_before > now).then_some(self.not_before)
    }

    pub fn expire(&mut self, now: Instant, why: &Why) {
        let give_up = |waiters: &mut Vec<Waiter>| {
            let late = |it: &mut Waiter| it.deadline <= now || it.answer.is_closed();
            for Waiter { answer, timeout, .. } in waiters.extract_if(.., late) {
                let _ = answer.send(Err(CallError::Timeout { waited: timeout, why: why.clone() }));
            }
        };
        give_up(&mut self.waiting);
        self.asked.values_mut().for_each(give_up);
    }

    pub fn stop(&mut self, why: &StopReason) {
        self.restart();
        for waiter in std::mem::take(&mut self.waiting) {
            let _ = waiter.answer.send(Err(CallError::Stopped(why.clone())));
        }
    }
}
