//! One worker task per group: carries inputs to the consensus core and its outputs to the world, in rounds.
//!
//! A round takes everything that is waiting (messages, finished writes, applied commands, callers' requests) and hands
//! it to the core in as few steps as possible, so that many commands become one append, one write and one frame per
//! follower. It never waits for storage or for the machine: both answer as events. Who sends which command when is decided
//! in [`client`](super::client).
//!
//! Here is the event loop. Rooms: `setup` (how it begins), `life` (how it ends or begins again), `departure` (leaving and shutdown); `commands`, with
//! `callers`, `queue` and `batching` (the local callers) and `answering` (the others); `output` (what the core wants done); `applier`, `replica`,
//! `mend`, `busy` (the machine) and `reports` (what it has done); `reads`; `seal` (the end of a version); `handover` and `standing` (another leader);
//! `marks` (what is remembered of members' storages); `publish` (what the outside sees).

mod answering;
mod applier;
mod batching;
mod busy;
mod callers;
mod commands;
mod deferred;
mod departure;
mod handover;
mod lane;
mod life;
mod marks;
mod mend;
mod output;
mod publish;
mod queue;
mod reads;
mod replica;
mod reports;
mod seal;
mod setup;
mod standing;

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use self::{
    answering::Answering,
    applier::Lanes,
    batching::{Batching, Next},
    deferred::Deferred,
    departure::Departure,
    handover::Handovers,
    marks::{Marking, Tokens},
    reads::Reads,
    seal::Sealing,
    standing::Standing,
};
pub(super) use self::{
    callers::Callers,
    publish::Board,
    queue::{Answer, Ask, Queue, Slot, Submission, slots},
    replica::{Initial, NotAsked, RETENTION, Replica, SESSIONS, Unpacked, WINDOW, pack, unpack},
    setup::{Setup, fresh_session, incarnation, spawn, start},
};
use super::{
    bonds::{BondEvent, BondEvents, Bonds, CallFailed, Refusal as Unbonded},
    client::{Router, Session},
    error::{CallError, StopReason},
    raft::{ClusterId, Input, NodeId, Now, Raft, Refusal, Settings, Token},
    status::node_of,
    storage::{Storage, StorageError},
};
use crate::{network::Node, primitives::figures::Watch};

/// Events of bonds taken in one round.
const EVENTS: usize = 256;
/// How soon a batch that was rejected or lost is sent again, microseconds.
const RETRY: u64 = 15_000;
/// A member whose incarnation is refused as an old one adds so much first, microseconds, and then twice as much each time.
const FIRST_LEAP: u64 = 60_000_000;

/// The result of a request to another member.
type Called = (Purpose, Result<Bytes, CallFailed>);

#[derive(Clone, Copy, Debug)]
enum Purpose {
    Flight(u64),
    Removal,
    Seal,
    Transfer(NodeId),
}

struct Worker {
    node: Node,
    settings: Settings,
    raft: Raft,
    storage: Box<dyn Storage>,
    bonds: Bonds,
    events: BondEvents,
    queue: Arc<Queue>,
    board: Arc<Board>,
    lanes: Arc<Lanes>,
    session: Session,
    callers: Callers,
    router: Router<Answering>,
    reads: Reads,
    calls: FuturesUnordered<BoxFuture<'static, Called>>,
    cancel: CancellationToken,
    signals: Signals,
    epoch: Instant,
    /// Grows when the core is replaced: nothing of an earlier one counts.
    life: u64,
    /// Whether leadership, term and cluster are still those that the router and the bonds know.
    led: Option<u64>,
    cluster: Option<ClusterId>,
    /// The first proposal of this step that the core refused, with all after it.
    refused: Option<(u64, Refusal)>,
    wiping: bool,
    /// Others refuse this incarnation as an old one.
    is_outdated: bool,
    /// What the next incarnation adds when others refuse this one as an old one: the wall clock went back.
    leap: u64,
    /// Forget everything at the end: the member has left.
    wipe_on_end: bool,
    stop: Option<StopReason>,
    compaction: output::Compaction,
    /// How long writes take, and when those under way were given to storage.
    writes: Watch,
    written: VecDeque<(Token, Instant)>,
    /// What a leader writes after its frames have had a turn to leave.
    unwritten: Deferred,
    /// This start of the storage, and what is remembered of those of others.
    marking: Marking,
    /// The last batch of the core for storage, and the last that is durable.
    submitted: Token,
    durable: Token,
    publish: publish::Publish,
    departure: Departure,
    sealing: Sealing,
    handovers: Handovers,
    standing: Standing,
    next_look: Instant,
    /// When the core was last told the time, microseconds.
    ticked: u64,
    batching: Batching,
}

/// What the worker waits for all its life, registered once.
struct Signals {
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
    shutdown: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Goes off at the deadline or, which does no harm, before.
    alarm: Pin<Box<Sleep>>,
}

/// Why the worker woke up.
enum Woken {
    Callers,
    Cancelled,
    Shutdown,
    Event(Option<BondEvent>),
    Durable(Result<Token, StorageError>),
    Called(Called),
    Other,
}

impl Worker {
    /// Rounds until the end; returns why it ended.
    async fn run(mut self) -> StopReason {
        self.begin_start();
        // What the core has to do first: its writes, and the snapshot that it begins with.
        self.step(Input::Tick);
        loop {
            self.round();
            let is_held = self.bonds.flush(self.batching.holds_notices());
            self.write_own().await;
            if self.wiping {
                tracing::debug!(group = ?self.board.group(), "the cluster dissolved; the local member begins again");
                self.begin_again(0).await;
            } else if self.is_outdated {
                tracing::debug!(group = ?self.board.group(), leap = self.leap, "refused as an old incarnation; the local member begins again");
                self.begin_again(self.leap).await;
                self.leap = self.leap.saturating_mul(2);
            }
            if let Some(why) = self.stop.take() {
                tracing::debug!(group = ?self.board.group(), %why, "the local member stops");
                self.end(&why).await;
                return why;
            }
            match self.batching.after_round(is_held) {
                Next::Wait => {}
                Next::Yield => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Next::Gather => {
                    self.gather_batch().await;
                    continue;
                }
            }
            match self.wait().await {
                Woken::Callers => self.gather_batch().await,
                Woken::Cancelled => self.stop = Some(StopReason::Shutdown),
                Woken::Shutdown => self.departure.shut_down(Instant::now()),
                Woken::Event(Some(event)) => self.event(event),
                Woken::Event(None) => self.stop = Some(StopReason::Shutdown),
                Woken::Durable(done) => self.persisted(done),
                Woken::Called((purpose, result)) => self.called(purpose, result),
                Woken::Other => {}
            }
        }
    }

    /// Lets many callers submit what they have, so that the next round takes it as one batch.
    async fn gather_batch(&mut self) {
        let mut gather = self.batching.gather();
        while gather.goes_on(self.queue.submitted()) {
            tokio::task::yield_now().await;
        }
    }

    async fn wait(&mut self) -> Woken {
        let deadline = self.deadline();
        let shutting_down = self.departure.is_shutting_down();
        let Self { events, storage, calls, lanes, queue, signals, .. } = self;
        let Signals { cancelled, shutdown, alarm } = signals;
        if deadline < alarm.deadline() || alarm.is_elapsed() {
            alarm.as_mut().reset(deadline);
        }
        tokio::select! {
            biased;
            () = cancelled => Woken::Cancelled,
            () = shutdown, if !shutting_down => Woken::Shutdown,
            event = events.recv() => Woken::Event(event),
            done = poll_fn(|cx| storage.poll_durable(cx)) => Woken::Durable(done),
            () = lanes.reports.filled() => Woken::Other,
            Some(called) = calls.next(), if !calls.is_empty() => Woken::Called(called),
            () = queue.filled() => Woken::Callers,
            () = alarm => Woken::Other,
        }
    }

    fn deadline(&self) -> Instant {
        let now = Instant::now();
        let core = self.epoch + Duration::from_micros(self.tick_at());
        let session = self.session.wake_at(self.callers.micros(now)).map(|at| self.callers.instant(at));
        let wishes =
            [self.departure.wake_at(), self.sealing.wake_at(), self.handovers.wake_at(), self.standing.wake_at()];
        let others = [session, self.reads.wake_at(now)].into_iter().chain(wishes);
        others.flatten().chain([core, self.next_look]).min().unwrap_or(core)
    }

    /// When the core is to be told the time again, microseconds. What it waits for may be over already without anything
    /// to do about it, such as the election timeout of a blank member; so not too often.
    fn tick_at(&self) -> u64 {
        self.raft.deadline().max(self.ticked + self.settings.heartbeat / 4)
    }

    fn now(&self) -> Now {
        let mono = u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX);
        Now { mono, wall: self.node.transport().wall_clock() / 1000 }
    }

    /// Takes everything that waits.
    fn round(&mut self) {
        for _ in 0..EVENTS {
            let Some(event) = self.events.try_recv() else { break };
            self.event(event);
        }
        while !self.calls.is_empty()
            && let Some(Some((purpose, result))) = self.calls.next().now_or_never()
        {
            self.called(purpose, result);
        }
        self.look_at_storage();
        self.reports();
        let now = self.now().mono;
        if now >= self.tick_at() {
            self.ticked = now;
            self.step(Input::Tick);
        }
        self.asks();
        self.commands();
        self.look_at_storage();
        let now = Instant::now();
        if let Some(id) = self.reads.ask(now) {
            self.step(Input::Read { id });
        }
        if now >= self.next_look {
            self.next_look = now + Duration::from_micros(self.settings.heartbeat);
            self.expire(now);
            self.mark(now);
            self.is_outdated = self.is_refused_as_old(now);
        }
        self.stand();
        self.depart();
        self.hand_leadership();
        self.seal();
        self.compact();
        self.note();
    }

    fn event(&mut self, event: BondEvent) {
        match event {
            BondEvent::Up(member) => self.step(Input::PeerUp(member)),
            BondEvent::Down(member) => self.step(Input::PeerDown(member)),
            BondEvent::Message(envelope) => self.step(Input::Message(envelope)),
            BondEvent::Call { from, request, reply } => {
                tracing::trace!(group = ?self.board.group(), ?from, len = request.len(), "request");
                self.request(&request, Answering::Member(reply));
            }
        }
    }

    fn asks(&mut self) {
        let now = Instant::now();
        for ask in self.queue.asks() {
            match ask {
                Ask::Read { deadline, timeout, answer } => self.reads.add(answer, deadline, timeout),
                Ask::Seal { deadline, timeout, answer } => self.sealing.add(deadline, timeout, answer),
                Ask::Transfer { to, deadline, timeout, answer } => {
                    self.handovers.add(to, node_of(to), now, (deadline, timeout), answer);
                }
                Ask::Call { request, answer } => self.request(&request, Answering::Client(answer)),
                Ask::Prefer(preference) => self.standing.prefer(preference),
                Ask::Ready(ready) => self.standing.ready(ready, now),
                Ask::Leave { forced, deadline, answer } => self.departure.leave(forced, now, deadline, answer),
            }
        }
    }

    fn persisted(&mut self, done: Result<Token, StorageError>) {
        match done {
            Ok(token) => {
                self.marks_durable(token);
                let token = Tokens::of_core(token);
                if token == self.durable {
                    return;
                }
                self.durable = token;
                while let Some((_, at)) = self.written.front().copied().filter(|(written, _)| *written <= token) {
                    self.writes.stop(Some(at));
                    self.written.pop_front();
                }
                self.step(Input::Persisted { token });
            }
            Err(error) => {
                tracing::warn!(group = ?self.board.group(), %error, "storage failed; the local member stops");
                self.stop = Some(error.into());
            }
        }
    }

    /// Takes what is durable already, without waiting.
    fn look_at_storage(&mut self) {
        while self.durable < self.submitted && self.stop.is_none() && !self.wiping {
            match self.storage.poll_durable(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(done) => self.persisted(done),
                Poll::Pending => return,
            }
        }
    }

    fn expire(&mut self, now: Instant) {
        let why = self.board.why();
        let Self { session, callers, .. } = self;
        session.expire(callers.micros(now), |id| callers.is_gone(id));
        self.tell_callers();
        self.reads.expire(now, &why);
        for late in self.queue.expired(now) {
            // Never taken, so its outcome is known.
            let waited = late.timeout;
            late.answer.send(Err(CallError::Timeout { waited, why: why.clone() }));
        }
    }
}
