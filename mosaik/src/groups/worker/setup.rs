//! How the tasks of a member begin, and what identifies a start of its storage.

use std::{collections::VecDeque, sync::Arc};

use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    Board, Callers, FIRST_LEAP, Queue, RETENTION, Replica, Signals, Worker, applier, applier::Lanes,
    batching::Batching, busy::Busy, deferred::Deferred, departure::Departure, handover::Handovers, marks::Marking,
    output, publish, reads::Reads, seal::Sealing, standing::Standing,
};

use crate::groups::{
    bonds::{BondEvents, Bonds},
    client::{Router, Session},
    error::StopReason,
    leadership::LeaderPreference,
    machine::StateMachine,
    raft::{Extent, Member, Now, Raft, SessionId, Settings, Start, Stored},
    storage::Storage,
};
use crate::{network::Node, primitives::figures::Watch};

/// What a worker is made of.
pub(in crate::groups) struct Setup {
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

/// Starts the tasks of a member. They end when cancelled, or by themselves with a reason on the board.
pub(in crate::groups) fn spawn<M: StateMachine>(setup: Setup, replica: Arc<Replica<M>>) {
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
}

pub(super) fn seed(node: &Node) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = node.transport().random_seed();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// The start of a storage after `last` ones of the same incarnation, with what it holds.
pub(in crate::groups) fn start(node: &Node, volatile: bool, last: u64, held: Extent) -> Start {
    let number = if volatile { 0 } else { last.saturating_add(1) };
    Start { number, run: seed(node), term: held.term, last: held.last }
}

pub(in crate::groups) fn fresh_session(node: &Node) -> SessionId {
    let bytes = node.transport().random_seed();
    let mut half = [0; 16];
    half.copy_from_slice(&bytes[..16]);
    SessionId(u128::from_le_bytes(half))
}

/// A number for a new life of this node's storage: above `last`, and above that of any earlier life as long as the wall
/// clock does not go back. If it does, the others refuse the number, and the next one is higher.
pub(in crate::groups) fn incarnation(node: &Node, last: u64) -> u64 {
    node.transport().wall_clock().max(last.saturating_add(1))
}
