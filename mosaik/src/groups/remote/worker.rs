//! The one task of a client that owns its session: takes the callers' commands, sends batches to whoever leads, and tells the
//! callers what came of them. What is sent when, and again, is decided by the session's core, as at a member.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::lines::{Line, Lines, Lost};
use crate::{
    groups::{
        client::{CommandResult, Rejection, Request, Response, Session, bundle, decode_response, encode},
        error::{CallError, StopReason, Why},
        raft::{ClusterId, Member, Switch, Term},
        status::{WhyOffline, peer_of},
        worker::{Callers, Queue, RETENTION, fresh_session},
    },
    network::Node,
};

/// How soon a batch that was rejected or lost is sent again, microseconds.
const RETRY: u64 = 15_000;
/// How long nothing may come of what was sent until it is sent again, microseconds; doubled up to eight times.
const RESEND: u64 = 2_000_000;
/// How often callers that wait too long are looked for.
const LOOK: Duration = Duration::from_millis(50);

/// Ends the callers' wait when the worker ends, however it ends.
struct Ended(Arc<Queue>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.close(StopReason::Shutdown);
    }
}

pub(super) struct Worker {
    node: Node,
    lines: Arc<Lines>,
    queue: Arc<Queue>,
    session: Session,
    callers: Callers,
    calls: FuturesUnordered<BoxFuture<'static, (u64, Result<Bytes, Lost>)>>,
    next_look: Instant,
}

impl Worker {
    pub fn new(node: Node, lines: Arc<Lines>, queue: Arc<Queue>) -> Self {
        let now = Instant::now();
        let session = Session::new(fresh_session(&node), RESEND, RETENTION, 0, Switch::default());
        let (callers, calls) = (Callers::new(now), FuturesUnordered::new());
        Self { node, lines, queue, session, callers, calls, next_look: now }
    }

    /// Works until the client ends.
    pub async fn run(mut self, cancel: CancellationToken) {
        let _ended = Ended(self.queue.clone());
        let mut changed = self.lines.watch();
        loop {
            self.round();
            let now = Instant::now();
            let wake = self.session.wake_at(self.callers.micros(now)).map(|at| self.callers.instant(at));
            // Nobody waits for what could expire unless something is in flight.
            let look = (self.session.in_flight() > 0).then_some(self.next_look);
            let wake = [wake, look].into_iter().flatten().min();
            let Self { queue, calls, .. } = &mut self;
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                changed = changed.changed() => if changed.is_err() { break },
                Some((flight, result)) = calls.next(), if !calls.is_empty() => self.called(flight, result),
                () = queue.filled() => {}
                () = sleep_until(wake.unwrap_or(now)), if wake.is_some() => {}
            }
        }
        self.queue.close(StopReason::Shutdown);
        self.session.stop();
        self.tell();
    }

    fn micros(&self) -> u64 {
        self.callers.micros(Instant::now())
    }

    fn round(&mut self) {
        while !self.calls.is_empty()
            && let Some(Some((flight, result))) = self.calls.next().now_or_never()
        {
            self.called(flight, result);
        }
        let (leader, sealed) = self.leader();
        self.session.set_leader(leader);
        if sealed {
            // What was sent and not answered may have been applied before.
            self.session.seal(false);
            let refused = self.queue.take(|_| true);
            refused.into_iter().for_each(|submission| submission.answer.send(Err(CallError::Sealed)));
        }
        self.take();
        while let Some((flight, leader, batch)) = self.poll() {
            match peer_of(leader.node).and_then(|peer| self.lines.to(peer)) {
                Some(line) => {
                    let answer = line.batch(encode(&Request::Commands(batch)));
                    self.calls.push(Box::pin(async move { (flight, answer.await) }));
                }
                None => self.session.rejected(flight, Rejection::NotLeader, RETRY, self.micros()),
            }
        }
        let now = Instant::now();
        if now >= self.next_look {
            self.next_look = now + LOOK;
            self.expire(now);
        }
        self.tell();
    }

    fn poll(&mut self) -> Option<(u64, Member, crate::groups::client::Batch)> {
        let (now, node) = (self.micros(), &self.node);
        self.session.poll(now, || fresh_session(node))
    }

    /// Who leads, by the member that knows the latest term; and whether a member says that the machine is sealed.
    fn leader(&self) -> (Option<(ClusterId, Member, Term)>, bool) {
        let standings: Vec<_> = self.lines.live().iter().map(|line: &Arc<Line>| line.standing()).collect();
        let led = standings.iter().filter_map(|it| Some((it.cluster?, it.leader?, it.term)));
        (led.max_by_key(|(_, _, term)| *term), standings.iter().any(|it| it.sealed))
    }

    /// Takes commands of callers, as far as there is room.
    fn take(&mut self) {
        let (session, mut count, mut bytes) = (&self.session, 0, 0);
        let taken = self.queue.take(|next| {
            let room = session.has_room(count, bytes);
            count += bundle::count(&next.body);
            bytes += next.body.len();
            room
        });
        let Self { session, callers, .. } = self;
        session.submit(taken.into_iter().filter_map(|submission| callers.take(submission)));
    }

    fn called(&mut self, flight: u64, result: Result<Bytes, Lost>) {
        let now = self.micros();
        match result.map(|bytes| decode_response(&bytes)) {
            Ok(Some(Response::Done(results, time))) => {
                // There is no local machine that would have a long output: it is asked for again, by itself.
                let elsewhere = results.iter().filter(|done| done.result == CommandResult::Elsewhere);
                let (alone, last) = (results.len() == 1, elsewhere.map(|done| (done.sequence, done.index)).last());
                self.session.answered(flight, results, time, u64::MAX, now);
                match last {
                    Some((sequence, _)) if alone => self.session.output_missing(sequence),
                    Some((_, index)) => self.session.restored(index),
                    None => {}
                }
            }
            Ok(Some(Response::Queued)) => self.session.queued(flight),
            Ok(Some(Response::Rejected(why))) => self.session.rejected(flight, why, RETRY, now),
            Err(Lost::NotSent) => self.session.rejected(flight, Rejection::Busy, RETRY, now),
            Ok(Some(Response::Removed | Response::HandingOver(_)) | None) | Err(Lost::Unknown) => {
                self.session.lost(flight, RETRY, now);
            }
        }
    }

    fn expire(&mut self, now: Instant) {
        let Self { session, callers, .. } = self;
        session.expire(callers.micros(now), |id| callers.is_gone(id));
        let why = why(&self.lines);
        for late in self.queue.expired(now) {
            // Never taken, so its outcome is known.
            let waited = late.timeout;
            late.answer.send(Err(CallError::Timeout { waited, why: why.clone() }));
        }
    }

    fn tell(&mut self) {
        let Self { session, callers, lines, .. } = self;
        for event in session.events() {
            callers.tell(event, || why(lines), || StopReason::Shutdown);
        }
    }
}

/// Why the group does not answer, as far as this client knows.
pub(super) fn why(lines: &Lines) -> Why {
    let live = lines.live();
    if live.is_empty() {
        return Why(Some(WhyOffline::NoMemberReached { tried: lines.in_the_way() }));
    }
    let led = live.iter().any(|line| line.standing().leader.is_some());
    Why((!led).then_some(WhyOffline::NoLeader))
}
