//! The way of commands: from local callers and other members to the session and the router, to the core, and back.

use bytes::Bytes;
use tokio::time::Instant;

use super::{Purpose, RETRY, Worker, answering::Answering, setup::fresh_session};

use crate::groups::{
    bonds::CallFailed,
    client::{Batch, Notice, Rejection, Request, Response, Source, bundle, decode_request, decode_response, encode},
    error::{CallError, StopReason},
    raft::{ClusterId, Input, Member},
    status::peer_of,
};

impl Worker {
    /// Commands of local callers, and those of others that came with the events, go to the core in one step.
    pub(super) fn commands(&mut self) {
        if self.batching.take_submissions() {
            self.take_submissions();
        }
        loop {
            let cluster = self.raft.cluster();
            let leader = cluster.zip(self.raft.leader()).map(|(cluster, leader)| (cluster, leader, self.raft.term()));
            self.session.set_leader(leader);
            while let Some((flight, leader, batch)) = self.poll_session() {
                if leader == self.raft.me() {
                    let notice = self.router.take(batch, Source::Local(flight), self.leads());
                    notice.into_iter().for_each(|notice| self.notice(notice));
                } else {
                    self.call(leader, &Request::Commands(batch), Purpose::Flight(flight));
                }
            }
            if self.router.is_idle() {
                break;
            }
            self.refused = None;
            let proposals = self.router.proposals();
            if !proposals.is_empty() {
                self.step(Input::Propose(proposals));
            }
            let refused = self.refused.take();
            for notice in self.router.decided(refused) {
                self.notice(notice);
            }
        }
        self.tell_callers();
    }

    pub(super) fn poll_session(&mut self) -> Option<(u64, Member, Batch)> {
        let (now, node) = (self.micros(), &self.node);
        self.session.poll(now, || fresh_session(node))
    }

    /// The cluster that this member leads, if any.
    pub(super) fn leads(&self) -> Option<ClusterId> {
        self.raft.cluster().filter(|_| self.raft.is_leader())
    }

    /// The session's clock, microseconds. Unlike that of the core it goes on when the member begins again.
    pub(super) fn micros(&self) -> u64 {
        self.callers.micros(Instant::now())
    }

    /// Hands over what the session has for its callers.
    pub(super) fn tell_callers(&mut self) {
        let Self { session, callers, board, queue, .. } = self;
        for event in session.events() {
            let stopped = || queue.closed().unwrap_or(StopReason::Shutdown);
            callers.tell(event, || board.why(), stopped);
        }
    }

    /// Takes the commands of local callers, as far as there is room.
    pub(super) fn take_submissions(&mut self) {
        if self.sealing.is_applied() {
            return self.queue.take(|_| true).into_iter().for_each(|refused| {
                refused.answer.send(Err(CallError::Sealed));
            });
        }
        let (session, mut count, mut bytes, mut full) = (&self.session, 0, 0, false);
        let taken = self.queue.take(|next| {
            full = !session.has_room(count, bytes);
            count += bundle::count(&next.body);
            bytes += next.body.len();
            !full
        });
        self.batching.taken(taken.len(), self.session.in_flight(), full);
        let Self { session, callers, .. } = self;
        session.submit(taken.into_iter().filter_map(|submission| callers.take(submission)));
    }

    pub(super) fn call(&mut self, to: Member, request: &Request, purpose: Purpose) {
        let Some(peer) = peer_of(to.node) else { return };
        let answer = self.bonds.call(peer, encode(request));
        self.calls.push(Box::pin(async move { (purpose, answer.await) }));
    }

    pub(super) fn called(&mut self, purpose: Purpose, result: Result<Bytes, CallFailed>) {
        let response = result.map(|bytes| decode_response(&bytes));
        let flight = match purpose {
            Purpose::Flight(flight) => flight,
            Purpose::Removal => {
                return self.departure.answered(matches!(response, Ok(Some(Response::Removed))), Instant::now());
            }
            // The seal itself, when it comes, is the answer.
            Purpose::Seal => return,
            Purpose::Transfer(node) => return self.transfer_answered(node, &response),
        };
        let now = self.micros();
        match response {
            Ok(Some(Response::Done(results, time))) => {
                self.session.answered(flight, results, time, self.raft.applied(), now);
            }
            Ok(Some(Response::Queued)) => self.session.queued(flight),
            Ok(Some(Response::Rejected(why))) => self.session.rejected(flight, why, RETRY, now),
            Err(CallFailed::NotSent | CallFailed::TooLarge { .. }) => {
                self.session.rejected(flight, Rejection::NotLeader, RETRY, now);
            }
            Ok(Some(Response::Removed | Response::HandingOver(_)) | None) | Err(CallFailed::Lost) => {
                self.session.lost(flight, RETRY, now);
            }
        }
        self.tell_callers();
    }

    pub(super) fn notice(&mut self, notice: Notice<Answering>) {
        match notice {
            Notice::Remote(reply, response) => reply.send(encode(&response)),
            Notice::Queued(flight) => self.session.queued(flight),
            Notice::Lost(flight) => self.session.lost(flight, RETRY, self.micros()),
            Notice::Rejected(flight, why) => self.session.rejected(flight, why, RETRY, self.micros()),
        }
    }

    /// Another member asks for something.
    pub(super) fn request(&mut self, request: &[u8], reply: Answering) {
        let rejected = |why| encode(&Response::Rejected(why));
        match decode_request(request) {
            Some(Request::Commands(batch)) => {
                let notice = self.router.take(batch, Source::Remote(reply), self.leads());
                notice.into_iter().for_each(|notice| self.notice(notice));
            }
            Some(Request::Remove(member)) if self.raft.is_leader() => self.remove(member, reply),
            Some(Request::Remove(_)) => reply.send(rejected(Rejection::NotLeader)),
            Some(Request::Seal) => {
                self.step(Input::Seal);
                reply.send(encode(&Response::Queued));
            }
            Some(Request::Transfer(node)) => self.transfer_asked(node, reply),
            None => reply.send(rejected(Rejection::Unintelligible)),
        }
    }
}
