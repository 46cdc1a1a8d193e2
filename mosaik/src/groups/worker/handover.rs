//! Who of this node's callers wants another member to lead: the request is put to the leader, wherever that is, until the
//! target leads or it is clear why it does not. How leadership moves is the core's matter (`raft/handover.rs`).

use std::time::Duration;

use tokio::{sync::oneshot, time::Instant};

use super::{Answering, Purpose, Worker};
use crate::{
    groups::{
        bonds::CallFailed,
        client::{Rejection, Request, Response, encode},
        error::{StopReason, TransferError},
        leadership::Transferred,
        raft::{Input, NodeId, Unfit},
        status::peer_of,
    },
    primitives::PeerId,
};

/// Between two questions to a leader, in addition to what an attempt may take.
const AGAIN: Duration = Duration::from_millis(200);
/// While no leader is known, or the one that was asked leads no more.
const SOON: Duration = Duration::from_millis(20);
/// Attempts of a leader that came to nothing, after which the caller is told.
const ATTEMPTS: u32 = 3;

type Answer = Result<Transferred, TransferError>;

/// A caller that waits for another leader.
#[derive(Debug)]
struct Waiter {
    to: NodeId,
    peer: PeerId,
    deadline: Instant,
    timeout: Duration,
    /// When the leader is asked again.
    next: Instant,
    attempts: u32,
    /// The target led already when it was first looked at.
    was_there: Option<bool>,
    /// What is in the way, if it may pass.
    behind: Option<u64>,
    answer: oneshot::Sender<Answer>,
}

impl Waiter {
    /// Why the target does not lead, if that will not pass.
    fn refused(&self, unfit: Unfit) -> Option<TransferError> {
        let peer = self.peer;
        Some(match unfit {
            Unfit::NotMember => TransferError::NotMember { peer },
            Unfit::NoVote => TransferError::NoVote { peer },
            Unfit::Silent { micros } => TransferError::Silent { peer, silence: Duration::from_micros(micros) },
            Unfit::Outranked { by } => TransferError::Outranked { peer, by: peer_of(by).unwrap_or(peer) },
            Unfit::Behind { .. } => return None,
        })
    }
}

/// The callers of this node that want another leader.
#[derive(Debug, Default)]
pub(super) struct Handovers {
    waiting: Vec<Waiter>,
}

impl Handovers {
    pub fn add(
        &mut self,
        peer: PeerId,
        to: NodeId,
        now: Instant,
        (deadline, timeout): (Instant, Duration),
        answer: oneshot::Sender<Answer>,
    ) {
        let waiter =
            Waiter { to, peer, deadline, timeout, next: now, attempts: 0, was_there: None, behind: None, answer };
        self.waiting.push(waiter);
    }

    pub fn wake_at(&self) -> Option<Instant> {
        self.waiting.iter().map(|waiter| waiter.next.min(waiter.deadline)).min()
    }

    pub fn stop(&mut self, why: &StopReason) {
        for waiter in std::mem::take(&mut self.waiting) {
            // The caller may have gone.
            let _ = waiter.answer.send(Err(TransferError::Stopped(why.clone())));
        }
    }

    /// The leader has begun an attempt, or said why not. `pause`: how long an attempt may take.
    fn told(&mut self, to: NodeId, said: Result<(), Unfit>, now: Instant, pause: Duration) {
        let mut rest = Vec::with_capacity(self.waiting.len());
        for mut waiter in std::mem::take(&mut self.waiting) {
            if waiter.to == to {
                match said {
                    Ok(()) => {
                        waiter.attempts += 1;
                        (waiter.behind, waiter.next) = (None, now + pause + AGAIN);
                    }
                    Err(unfit) => {
                        if let Some(error) = waiter.refused(unfit) {
                            // The caller may have gone.
                            let _ = waiter.answer.send(Err(error));
                            continue;
                        }
                        if let Unfit::Behind { entries } = unfit {
                            waiter.behind = Some(entries);
                        }
                        waiter.next = now + AGAIN;
                    }
                }
            }
            rest.push(waiter);
        }
        self.waiting = rest;
    }
}

impl Worker {
    /// What an attempt to hand over may take.
    fn attempt(&self) -> Duration {
        Duration::from_micros(self.settings.election_min)
    }

    /// As leader: begins to hand over to the voter on that node. With one attempt under way the next one waits.
    fn hand_to(&mut self, node: NodeId) -> Result<(), Unfit> {
        let member = self.raft.may_hand_to(node)?;
        if member != self.raft.me() && self.raft.is_handing_over().is_none() {
            self.step(Input::Transfer { to: Some(member) });
        }
        Ok(())
    }

    /// Another member asks for it.
    pub(super) fn transfer_asked(&mut self, node: NodeId, reply: Answering) {
        let response = if self.raft.is_leader() {
            Response::HandingOver(self.hand_to(node).err())
        } else {
            Response::Rejected(Rejection::NotLeader)
        };
        reply.send(encode(&response));
    }

    /// The leader's answer.
    pub(super) fn transfer_answered(&mut self, node: NodeId, response: &Result<Option<Response>, CallFailed>) {
        let now = Instant::now();
        match response {
            Ok(Some(Response::HandingOver(unfit))) => {
                self.handovers.told(node, (*unfit).map_or(Ok(()), Err), now, self.attempt());
            }
            // Whoever leads then is asked.
            _ => self.handovers.waiting.iter_mut().for_each(|waiter| waiter.next = waiter.next.min(now + SOON)),
        }
    }

    /// Moves the wishes for another leader along.
    pub(super) fn hand_leadership(&mut self) {
        if self.handovers.waiting.is_empty() {
            return;
        }
        let (now, me) = (Instant::now(), self.raft.me());
        let (leader, term) = (self.raft.leader(), self.raft.term());
        let mut due = Vec::new();
        for mut waiter in std::mem::take(&mut self.handovers.waiting) {
            let leads = leader.is_some_and(|leader| leader.node == waiter.to);
            let was_there = *waiter.was_there.get_or_insert(leads);
            let answer = if leads {
                Ok(Transferred::new(waiter.peer, term, !was_there))
            } else if waiter.answer.is_closed() {
                continue;
            } else if now >= waiter.deadline {
                Err(match (waiter.behind, waiter.attempts) {
                    (Some(entries), _) => TransferError::Behind { peer: waiter.peer, entries, waited: waiter.timeout },
                    (None, 0) => TransferError::Timeout { waited: waiter.timeout, why: self.board.why() },
                    (None, attempts) => TransferError::NotElected { peer: waiter.peer, attempts },
                })
            } else if now >= waiter.next && waiter.attempts >= ATTEMPTS {
                Err(TransferError::NotElected { peer: waiter.peer, attempts: waiter.attempts })
            } else {
                if now >= waiter.next {
                    waiter.next = now + if leader.is_some() { AGAIN } else { SOON };
                    due.push(waiter.to);
                }
                self.handovers.waiting.push(waiter);
                continue;
            };
            // The caller may have gone.
            let _ = waiter.answer.send(answer);
        }
        due.sort_unstable();
        due.dedup();
        for node in due {
            match leader {
                Some(leader) if leader == me => {
                    let said = self.hand_to(node);
                    self.handovers.told(node, said, now, self.attempt());
                }
                Some(leader) => self.call(leader, &Request::Transfer(node), Purpose::Transfer(node)),
                None => {}
            }
        }
    }
}
