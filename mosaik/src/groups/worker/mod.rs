//! One worker task per group: carries inputs to the consensus core and its outputs to the world, in rounds.
//!
//! A round takes everything that is waiting (messages, finished writes, applied commands, callers' requests) and hands
//! it to the core in as few steps as possible, so that many commands become one append, one write and one frame per
//! follower. It never waits for storage or for the machine: both answer as events. Who sends which command when is decided
//! in [`client`](super::client). Rooms: `callers`, `queue` and `batching` (the local callers), `answering` (the others), `reads`, `applier`, `replica`, `mend` and
//! `busy` (the machine), `seal` (the end of a version of it), `handover` and `standing` (another leader), `output` (what the core wants done), `marks` (what
//! is remembered of members' storages), `publish` (what the outside sees), `departure` (leaving and shutdown).

mod answering;
mod applier;
mod batching;
mod busy;
mod callers;
mod deferred;
mod departure;
mod handover;
mod lane;
mod marks;
mod mend;
mod output;
mod publish;
mod queue;
mod reads;
mod replica;
mod seal;
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
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use self::{
    answering::Answering,
    applier::{Job, Lanes, Outcome, What},
    batching::{Batching, Next},
    busy::Busy,
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
    replica::{Initial, NotAsked, RETENTION, Replica, SESSIONS, WINDOW, pack, unpack},
};
use super::{
    bonds::{BondEvent, BondEvents, Bonds, CallFailed, Refusal as Unbonded},
    client::{
        Batch, Notice, Rejection, Request, Response, Router, Session, Source, bundle, decode_request, decode_response,
        encode,
    },
    error::{CallError, StopReason},
    leadership::LeaderPreference,
    machine::StateMachine,
    raft::{
        ClusterId, Extent, Index, Input, Member, NodeId, Now, Raft, Refusal, SessionId, Settings, Start, Stored, Token,
    },
    status::{node_of, peer_of},
    storage::{InMemory, Storage, StorageError},
};
use crate::{network::Node, primitives::figures::Watch};

/// Events of bonds taken in one round.
const EVENTS: usize = 256;
/// How soon a batch that was rejected or lost is sent again, microseconds.
const RETRY: u64 = 15_000;
/// A member whose incarnation is refused as an old one adds so much first, microseconds, and then twice as much each time.
const FIRST_LEAP: u64 = 60_000_000;

/// What a worker is made of.
pub(super) struct Setup {
    pub node: Node,
    pub settings: Settings,
    pub me: Member,
    /// Of the storage; the worker makes it durable.
    pub start: Start,
    pub stored: Stored,
    pub storage: Box<dyn Storage>,
    pub bonds: Bonds,
    pub events: BondEvents,
    pub queue: Arc<Queue>,
    pub board: Arc<Board>,
    pub compacts: bool,
    /// Bytes of log after which a snapshot is taken.
    pub log_limit: u64,
    /// How much the member is to lead at first.
    pub preference: LeaderPreference,
    /// How long writes take.
    pub writes: Watch,
    /// Ends the worker at once, as a crash does.
    pub cancel: CancellationToken,
    /// Asks it to end in an orderly way.
    pub shutdown: CancellationToken,
}

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

/// Starts the tasks of a member. They end when cancelled, or by themselves with a reason on the board.
pub(super) fn spawn<M: StateMachine>(setup: Setup, replica: Arc<Replica<M>>) {
    let tasks = setup.node.tasks().clone();
    let lanes = Arc::new(Lanes::default());
    let cancel = setup.cancel.clone();
    let worker = Worker::new(setup, lanes.clone(), replica.busy.clone());
    let ended = Ended { queue: worker.queue.clone(), board: worker.board.clone(), cancel: cancel.clone() };
    tasks.spawn("group machine", applier::run(replica, lanes, tasks.clone(), cancel));
    tasks.spawn("group", async move {
        let ended = ended;
        let why = worker.run().await;
        ended.with(why);
    });
}

/// Tells callers when the worker ends, however it ends.
struct Ended {
    queue: Arc<Queue>,
    board: Arc<Board>,
    cancel: CancellationToken,
}

impl Ended {
    fn with(&self, why: StopReason) {
        self.queue.close(why.clone());
        self.board.stopped(why);
        self.cancel.cancel();
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        if self.queue.closed().is_none() {
            self.with(if std::thread::panicking() { StopReason::Bug } else { StopReason::Shutdown });
        }
    }
}

impl Worker {
    fn new(setup: Setup, lanes: Arc<Lanes>, busy: Arc<Busy>) -> Self {
        let Setup { node, settings, me, start, stored, storage, bonds, events, queue, board, .. } = setup;
        let now = Instant::now();
        let seed = seed(&node);
        let wall = node.transport().wall_clock() / 1000;
        let raft = Raft::new(settings.clone(), me, stored, seed, Now { mono: 0, wall });
        let session = Session::new(fresh_session(&node), 2 * settings.election_max, RETENTION, 0, settings.switch);
        let mut compaction = output::Compaction::new(setup.compacts, setup.log_limit);
        compaction.spread(node.transport().random_seed()[0]);
        Self {
            publish: publish::Publish::new(setup.compacts, busy),
            departure: Departure::default(),
            sealing: Sealing::default(),
            handovers: Handovers::default(),
            standing: Standing::new(setup.preference, now),
            compaction,
            node,
            settings,
            raft,
            storage,
            bonds,
            events,
            queue,
            board,
            lanes,
            session,
            callers: Callers::new(now),
            router: Router::new(),
            reads: Reads::new(now),
            calls: FuturesUnordered::new(),
            signals: Signals {
                cancelled: Box::pin(setup.cancel.clone().cancelled_owned()),
                shutdown: Box::pin(setup.shutdown.cancelled_owned()),
                alarm: Box::pin(sleep_until(now)),
            },
            cancel: setup.cancel,
            epoch: now,
            life: 0,
            led: None,
            cluster: None,
            refused: None,
            wiping: false,
            is_outdated: false,
            leap: FIRST_LEAP,
            wipe_on_end: false,
            stop: None,
            writes: setup.writes,
            written: VecDeque::new(),
            unwritten: Deferred::default(),
            marking: Marking::new(start, now),
            submitted: 0,
            durable: 0,
            next_look: now,
            ticked: 0,
            batching: Batching::new(),
        }
    }

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

    /// Commands of local callers, and those of others that came with the events, go to the core in one step.
    fn commands(&mut self) {
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

    fn poll_session(&mut self) -> Option<(u64, Member, Batch)> {
        let (now, node) = (self.micros(), &self.node);
        self.session.poll(now, || fresh_session(node))
    }

    /// The cluster that this member leads, if any.
    fn leads(&self) -> Option<ClusterId> {
        self.raft.cluster().filter(|_| self.raft.is_leader())
    }

    /// The session's clock, microseconds. Unlike that of the core it goes on when the member begins again.
    fn micros(&self) -> u64 {
        self.callers.micros(Instant::now())
    }

    /// Hands over what the session has for its callers.
    fn tell_callers(&mut self) {
        let Self { session, callers, board, queue, .. } = self;
        for event in session.events() {
            let stopped = || queue.closed().unwrap_or(StopReason::Shutdown);
            callers.tell(event, || board.why(), stopped);
        }
    }

    /// Takes the commands of local callers, as far as there is room.
    fn take_submissions(&mut self) {
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

    fn call(&mut self, to: Member, request: &Request, purpose: Purpose) {
        let Some(peer) = peer_of(to.node) else { return };
        let answer = self.bonds.call(peer, encode(request));
        self.calls.push(Box::pin(async move { (purpose, answer.await) }));
    }

    fn called(&mut self, purpose: Purpose, result: Result<Bytes, CallFailed>) {
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

    fn notice(&mut self, notice: Notice<Answering>) {
        match notice {
            Notice::Remote(reply, response) => reply.send(encode(&response)),
            Notice::Queued(flight) => self.session.queued(flight),
            Notice::Lost(flight) => self.session.lost(flight, RETRY, self.micros()),
            Notice::Rejected(flight, why) => self.session.rejected(flight, why, RETRY, self.micros()),
        }
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

    /// Another member asks for something.
    fn request(&mut self, request: &[u8], reply: Answering) {
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

    /// Results of the machine.
    fn reports(&mut self) {
        let (mut applied, waited) = (None, self.session.in_flight());
        for report in self.lanes.reports.take() {
            if report.life != self.life {
                continue;
            }
            match report.what {
                What::Applied { index, time, results } => {
                    applied = Some(index);
                    self.publish.applied(index, &self.board);
                    self.session.observe_time(time, self.micros());
                    results.into_iter().for_each(|result| self.result(result, time));
                    self.session.applied(index);
                }
                What::Restored { index } => {
                    self.applied(&mut applied);
                    self.step(Input::Applied { index });
                    self.publish.applied(index, &self.board);
                    self.publish.restored(index);
                    if self.raft.is_sealed_at(index) {
                        self.sealed(false);
                    }
                    self.session.restored(index);
                }
                What::Captured { index, data, varies } => {
                    self.applied(&mut applied);
                    let size = data.len();
                    self.step(Input::Compact { index, data });
                    let snapshot = self.raft.snapshot().map(|snapshot| &snapshot.manifest);
                    if snapshot.is_none_or(|it| it.position.index < index) {
                        // The core took none, because too much waits for the disk.
                        let _ = self.compaction.failed(Instant::now());
                        self.compaction.wanted |= self.sealing.is_applied();
                        continue;
                    }
                    self.compaction.done(size);
                    self.publish.captured(index, varies);
                    if snapshot.is_some_and(|manifest| manifest.sealed && manifest.position.index == index) {
                        self.seal_written(index);
                    }
                }
                What::Sealed => {
                    self.applied(&mut applied);
                    self.sealed(true);
                }
                What::NotCaptured { index, why } => {
                    let retry = self.compaction.failed(Instant::now());
                    self.compaction.wanted |= self.sealing.is_applied();
                    tracing::warn!(group = ?self.board.group(), index, why, ?retry, "no snapshot, the log is kept; it is tried again");
                    self.publish.not_captured(index, why);
                }
                What::Broken { index, have } => self.rebuild(index, have),
                What::Panicked { index, commands } => self.publish.panicked(index, commands),
                What::Failed(why) => self.stop = Some(StopReason::Machine(why)),
            }
        }
        self.applied(&mut applied);
        self.tell_callers();
        self.batching.answered(waited.saturating_sub(self.session.in_flight()));
    }

    /// Tells the core once of everything that was applied since the last time.
    fn applied(&mut self, index: &mut Option<Index>) {
        if let Some(index) = index.take() {
            self.step(Input::Applied { index });
        }
    }

    /// A command was applied here. `time`: the group time of the last one of the same report.
    fn result(&mut self, Outcome { session, done }: Outcome, time: u64) {
        let mut notices = Vec::new();
        self.router.applied(session, &done, time, |notice| notices.push(notice));
        self.session.applied_here(session, done);
        notices.into_iter().for_each(|notice| self.notice(notice));
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

    /// The last act: everybody who waits is told, writes under way are finished if that is quick.
    async fn end(&mut self, why: &StopReason) {
        self.queue.close(why.clone());
        self.session.stop();
        self.tell_callers();
        self.reads.stop(why);
        self.departure.stop(why);
        self.sealing.stop(why);
        self.handovers.stop(why);
        self.router.clear();
        if !self.cancel.is_cancelled() {
            self.note_marks();
            self.store_marks();
            self.flush().await;
            if self.durable < self.submitted {
                tracing::warn!(group = ?self.board.group(), "storage does not answer; the local member ends without it");
                self.storage.abandon();
            }
            self.bonds.leave().await;
        } else if self.raft.storage_hangs() {
            self.storage.abandon();
        }
        if self.wipe_on_end {
            let mut storage = std::mem::replace(&mut self.storage, Box::new(InMemory::default()));
            if let Some(Err(error)) = self.node.tasks().blocking(move || storage.wipe()).await {
                tracing::warn!(group = ?self.board.group(), %error, "the state of a group that was left cannot be deleted");
            }
        }
    }

    /// Waits for writes under way, within a bound.
    async fn flush(&mut self) {
        let until = Instant::now() + departure::FLUSH;
        while self.durable < self.submitted || self.marking.is_writing() {
            let Self { storage, .. } = self;
            let next = tokio::time::timeout_at(until, poll_fn(|cx| storage.poll_durable(cx))).await;
            match next {
                Ok(Ok(token)) => {
                    self.marks_durable(token);
                    self.durable = Tokens::of_core(token);
                }
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }

    /// Forgets everything and begins as a new incarnation that is more than `leap` above the last: the cluster dissolved into
    /// another one, or others refuse this incarnation.
    async fn begin_again(&mut self, leap: u64) {
        (self.wiping, self.is_outdated) = (false, false);
        let mut storage = std::mem::replace(&mut self.storage, Box::new(InMemory::default()));
        // A wiped storage takes nothing until it is read again: a life of it begins so.
        let wiped = self.node.tasks().blocking(move || {
            let blank = storage.wipe().and_then(|()| storage.load());
            (blank.map(|_| ()), storage)
        });
        let wiped = wiped.await;
        match wiped {
            Some((Ok(()), storage)) => self.storage = storage,
            Some((Err(error), _)) => return self.stop = Some(error.into()),
            None => return self.stop = Some(StopReason::Bug),
        }
        let me = self.raft.me();
        let me = Member { incarnation: incarnation(&self.node, me.incarnation.saturating_add(leap)), ..me };
        self.life += 1;
        self.epoch = Instant::now();
        self.ticked = 0;
        self.raft = Raft::new(self.settings.clone(), me, Stored::default(), seed(&self.node), self.now());
        (self.submitted, self.durable) = (0, 0);
        let start = start(&self.node, self.settings.volatile, 0, Extent::default());
        self.marking = Marking::new(start, self.epoch);
        self.written.clear();
        self.unwritten.take();
        self.lanes.jobs.push((self.life, Job::Reset));
        self.router.clear();
        self.reads.restart();
        self.session.set_leader(None);
        self.compaction.restart();
        self.cluster = None;
        self.bonds.set_cluster(None);
        self.bonds.set_me(me, start);
        // Ahead of everything that the core writes: what is left of this life is left of its start, too.
        self.begin_start();
        self.step(Input::Tick);
    }
}

fn seed(node: &Node) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = node.transport().random_seed();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// The start of a storage after `last` ones of the same incarnation, with what it holds.
pub(super) fn start(node: &Node, volatile: bool, last: u64, held: Extent) -> Start {
    let number = if volatile { 0 } else { last.saturating_add(1) };
    Start { number, run: seed(node), term: held.term, last: held.last }
}

pub(super) fn fresh_session(node: &Node) -> SessionId {
    let bytes = node.transport().random_seed();
    let mut half = [0; 16];
    half.copy_from_slice(&bytes[..16]);
    SessionId(u128::from_le_bytes(half))
}

/// A number for a new life of this node's storage: above `last`, and above that of any earlier life as long as the wall
/// clock does not go back. If it does, the others refuse the number, and the next one is higher.
pub(super) fn incarnation(node: &Node, last: u64) -> u64 {
    node.transport().wall_clock().max(last.saturating_add(1))
}
