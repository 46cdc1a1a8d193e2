//! How a member ends in an orderly way: `leave` takes it out of the group first, a shutdown hands leadership over and
//! leaves its vote where it is.

use std::time::Duration;

use tokio::{sync::oneshot, time::Instant};

use super::{Answering, Purpose, Worker};
use crate::groups::{
    client::{Request, Response, encode},
    error::{LeaveError, StopReason},
    raft::{Change, Input, Member},
};

/// A shutdown waits so long for another leader.
const HAND_OVER: Duration = Duration::from_millis(400);
/// And so long for writes under way.
pub(super) const FLUSH: Duration = Duration::from_millis(200);
/// Between two requests to be removed.
const AGAIN: Duration = Duration::from_millis(200);
/// Removals that a leader answers when they are committed.
const REMOVALS: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Departure {
    leaving: Option<Leaving>,
    /// Until when a shutdown waits for another leader.
    shutdown: Option<Instant>,
    /// Leader: who waits to hear that a member is removed.
    removals: Vec<(Member, Answering)>,
    removed: bool,
}

#[derive(Debug)]
struct Leaving {
    forced: bool,
    began: Instant,
    deadline: Instant,
    next: Instant,
    answers: Vec<oneshot::Sender<Result<(), LeaveError>>>,
}

impl Departure {
    pub fn leave(
        &mut self,
        forced: bool,
        now: Instant,
        deadline: Instant,
        answer: oneshot::Sender<Result<(), LeaveError>>,
    ) {
        let new = || Leaving { forced: false, began: now, deadline, next: now, answers: Vec::new() };
        let leaving = self.leaving.get_or_insert_with(new);
        leaving.forced |= forced;
        leaving.deadline = leaving.deadline.max(deadline);
        leaving.answers.push(answer);
    }

    pub fn shut_down(&mut self, now: Instant) {
        self.shutdown = Some(now + HAND_OVER);
    }

    pub const fn is_shutting_down(&self) -> bool {
        self.shutdown.is_some()
    }

    /// Whether the member is on its way out.
    pub const fn is_under_way(&self) -> bool {
        self.shutdown.is_some() || self.leaving.is_some()
    }

    /// The leader's answer to the request to remove this member.
    pub fn answered(&mut self, removed: bool, now: Instant) {
        self.removed |= removed;
        if let Some(leaving) = &mut self.leaving {
            leaving.next = leaving.next.min(now + AGAIN);
        }
    }

    pub fn wake_at(&self) -> Option<Instant> {
        let leaving = self.leaving.as_ref().map(|leaving| leaving.next.min(leaving.deadline));
        [self.shutdown, leaving].into_iter().flatten().min()
    }

    fn answer(&mut self, result: &Result<(), LeaveError>) {
        for answer in self.leaving.take().into_iter().flat_map(|leaving| leaving.answers) {
            // The caller may have gone.
            let _ = answer.send(result.clone());
        }
    }

    pub fn stop(&mut self, why: &StopReason) {
        let left = matches!(why, StopReason::Left);
        self.answer(&if left { Ok(()) } else { Err(LeaveError::Stopped(why.clone())) });
    }
}

impl Worker {
    /// Leader: takes a member out, and answers when that is committed.
    pub(super) fn remove(&mut self, member: Member, reply: Answering) {
        if self.departure.removals.len() < REMOVALS {
            self.step(Input::Change(Change::Remove(member)));
            self.departure.removals.push((member, reply));
        }
    }

    /// Leadership is gone; whoever waits asks the next leader.
    pub(super) fn removals_lost(&mut self) {
        self.departure.removals.clear();
    }

    /// Moves a departure along.
    pub(super) fn depart(&mut self) {
        if !self.departure.removals.is_empty() {
            let committed = self.raft.log().membership_index() <= self.raft.commit();
            let membership = self.raft.log().membership();
            let out = |member: &Member| committed && !membership.contains(member);
            for (_, reply) in self.departure.removals.extract_if(.., |(member, _)| out(member)) {
                reply.send(encode(&Response::Removed));
            }
        }
        if let Some(until) = self.departure.shutdown {
            self.hand_over(until);
        }
        if self.departure.leaving.is_some() {
            self.go_on_leaving();
        }
    }

    fn hand_over(&mut self, until: Instant) {
        let others = self.raft.log().membership().voters.len() > 1;
        if self.raft.is_leader() && others && Instant::now() < until {
            self.step(Input::Transfer { to: None });
        } else {
            self.stop.get_or_insert(StopReason::Shutdown);
        }
    }

    fn go_on_leaving(&mut self) {
        let now = Instant::now();
        let Some(leaving) = &mut self.departure.leaving else { return };
        let membership = self.raft.log().membership();
        let me = self.raft.me();
        let (voters, floor) = (membership.voters.len(), membership.floor());
        if leaving.forced || self.departure.removed || self.raft.cluster().is_none() {
            self.wipe_on_end = true;
            self.stop.get_or_insert(StopReason::Left);
        } else if membership.voters.contains(&me) && voters <= floor && !self.departure.removed {
            self.departure.answer(&Err(LeaveError::BelowFloor { voters, floor }));
        } else if now >= leaving.deadline {
            let waited = leaving.deadline.saturating_duration_since(leaving.began);
            self.departure.answer(&Err(LeaveError::Timeout { waited, why: self.board.why() }));
        } else if now >= leaving.next {
            leaving.next = now + AGAIN;
            match self.raft.leader() {
                Some(leader) if leader == me => self.step(Input::Transfer { to: None }),
                Some(leader) => {
                    leaving.next = now + 5 * AGAIN;
                    self.call(leader, &Request::Remove(me), Purpose::Removal);
                }
                None => {}
            }
        }
    }
}
