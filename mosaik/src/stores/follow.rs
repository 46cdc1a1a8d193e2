//! The worker of a replica: it folds what comes, fetches snapshots when the core wants one, and publishes.

use std::{collections::VecDeque, future::Future, pin::Pin, sync::Arc, time::Duration};

use futures::FutureExt;
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    Registry, StoreError,
    core::{At, Cut, Verdict, Wanted},
    disk::Disk,
    fetch::{FetchError, fetch},
    replica::{Published, ReplicaState, ReplicaStats, consumer},
    view::{Position, Versioned, View},
};
use crate::{
    discovery::PeerEntry,
    primitives::{
        StoreId,
        figures::{self, Watch},
        watch,
    },
    streams::{Consumer, Event, Events, Origin},
};

/// Whether a primary may be followed.
pub(super) type Predicate = Arc<dyn Fn(&PeerEntry) -> bool + Send + Sync>;

/// Deltas that wait for a snapshot; then the network's flow control holds the primary back.
const HELD: usize = 65_536;
/// Deltas that are folded before they are published.
const BATCH: usize = 1024;
/// Between two writes of a durable replica's state.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// Between attempts to get a snapshot: from the first to the second, doubling.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

type Saving = Pin<Box<dyn Future<Output = Result<usize, StoreError>> + Send>>;
type Fetching<V> = Pin<Box<dyn Future<Output = Result<(V, u64), FetchError>> + Send>>;

pub(super) struct Worker<V: View> {
    registry: Arc<Registry>,
    store: StoreId,
    subscribe_if: Option<Predicate>,
    published: watch::Sender<Published<V>>,
    cut: Cut,
    state: V,
    held: VecDeque<(V::Delta, Origin)>,
    fetching: Option<(Wanted, Fetching<V>)>,
    failures: u32,
    stats: ReplicaStats,
    /// Why there is no snapshot, while one is needed.
    failure: Option<String>,
    /// By this the registry knows the replica.
    number: u64,
    /// How long snapshots take.
    watch: Watch,
    disk: Option<Arc<Disk>>,
    /// The write under way, and what it writes.
    saving: Option<(Position, Saving)>,
    /// What is on disk, and when the next state may be written.
    saved: Position,
    save_at: Instant,
}

impl<V: View> Drop for Worker<V> {
    fn drop(&mut self) {
        self.registry.replicas().remove(&self.number);
        self.published.send_modify(|published| {
            published.closed = true;
            published.state = ReplicaState::Alone;
        });
    }
}

impl<V: View> Worker<V> {
    pub(super) fn new(
        registry: Arc<Registry>,
        store: StoreId,
        subscribe_if: Option<Predicate>,
        published: watch::Sender<Published<V>>,
        number: u64,
        disk: Option<Arc<Disk>>,
        kept: Option<(V, At)>,
    ) -> Self {
        let saved = kept.as_ref().map_or_else(Position::default, |(_, at)| Position { epoch: at.epoch, seq: at.next });
        let (state, cut) =
            kept.map_or_else(|| (V::default(), Cut::default()), |(state, at)| (state, Cut::restored(at)));
        Self {
            registry,
            store,
            subscribe_if,
            published,
            cut,
            state,
            held: VecDeque::new(),
            fetching: None,
            failures: 0,
            stats: ReplicaStats::default(),
            failure: None,
            number,
            watch: Watch::new(figures::STORE_SNAPSHOT, "store", figures::label(store.as_bytes(), store)),
            disk,
            saving: None,
            saved,
            save_at: Instant::now(),
        }
    }

    /// Runs until it is cancelled or the network ends.
    pub(super) async fn run(mut self) {
        let store = self.store;
        loop {
            let mut builder = consumer::<V>(&self.registry, store, self.subscribe_if.as_ref());
            if let Some(At { primary, epoch, next }) = self.cut.at() {
                builder = builder.begin_at(primary, epoch, next);
            }
            let (mut deltas, mut events) = builder.build_watched();
            if !self.follow(&mut deltas, &mut events).await {
                return;
            }
            // Events were lost, so nothing is known for certain but what the state has.
            tracing::warn!(?store, "a replica was too busy to hear of everything; it subscribes again");
            self.cut = self.cut.at().map_or_else(Cut::default, Cut::restored);
            self.held.clear();
            self.fetching = None;
        }
    }

    /// Follows until the network ends (false), or events were lost (true).
    async fn follow(&mut self, deltas: &mut Consumer<V::Delta>, events: &mut Events) -> bool {
        loop {
            let wanted = self.cut.wanted();
            let right = |now: Wanted| wanted.is_some_and(|it| (it.primary, it.epoch) == (now.primary, now.epoch));
            self.fetching.take_if(|(now, _)| !right(*now));
            if self.fetching.is_none()
                && let Some(wanted) = wanted
            {
                self.fetching = Some((wanted, self.fetch(wanted)));
            }
            let due = self.disk.is_some() && self.saving.is_none() && self.position() != self.saved;
            let fetched = async {
                match &mut self.fetching {
                    Some((wanted, fetching)) => (*wanted, fetching.await),
                    None => std::future::pending().await,
                }
            };
            let saved = async {
                match &mut self.saving {
                    Some((position, saving)) => (*position, saving.await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                event = events.recv() => match event {
                    Some(Event::Lost { .. }) => return true,
                    Some(event) => self.heard(&event),
                    None => return false,
                },
                (wanted, result) = fetched => self.fetched(wanted, result),
                (position, result) = saved => self.was_saved(position, result),
                () = sleep_until(self.save_at), if due => self.save(),
                delta = deltas.recv_from(), if self.held.len() < HELD => {
                    let Some((delta, origin)) = delta else { return false };
                    let mut next = Some((delta, origin));
                    for _ in 0..BATCH {
                        let Some((delta, origin)) = next.take() else { break };
                        // What is connected must be known before its deltas are looked at, and is told before they come.
                        while let Some(event) = events.recv().now_or_never() {
                            match event {
                                Some(Event::Lost { .. }) => return true,
                                Some(event) => self.heard(&event),
                                None => return false,
                            }
                        }
                        self.fold(delta, origin);
                        if self.held.len() < HELD {
                            next = deltas.recv_from().now_or_never().flatten();
                        }
                    }
                }
            }
            self.publish();
        }
    }

    fn heard(&mut self, event: &Event) {
        let before = self.cut.primaries();
        match *event {
            Event::Connected { producer, epoch, next, resumed } => self.cut.connected(producer, epoch, next, resumed),
            Event::Disconnected { producer, .. } => self.cut.disconnected(producer),
            Event::Gap { producer, to, .. } => self.cut.missed(producer, to),
            _ => return,
        }
        if before < 2 && self.cut.primaries() > 1 {
            tracing::warn!(store = ?self.store, following = ?self.cut.followed(), "a store has two primaries");
        }
        if let Some(wanted) = self.cut.wanted() {
            tracing::debug!(store = ?self.store, ?wanted, "needs a snapshot");
        }
    }

    fn fold(&mut self, delta: V::Delta, origin: Origin) {
        match self.cut.delta(origin.producer, origin.epoch, origin.seq) {
            Verdict::Fold => {
                self.state.fold(delta);
                self.stats.deltas += 1;
            }
            Verdict::Hold => self.held.push_back((delta, origin)),
            Verdict::Drop => {}
        }
    }

    /// Gets a snapshot, after a pause if the last attempts failed.
    fn fetch(&self, wanted: Wanted) -> Fetching<V> {
        let (registry, store, watch) = (self.registry.clone(), self.store, self.watch.clone());
        let pause = match self.failures {
            0 => Duration::ZERO,
            failures => (PAUSES.0 * 2u32.pow((failures - 1).min(8))).min(PAUSES.1),
        };
        Box::pin(async move {
            sleep(pause).await;
            let began = watch.start();
            let fetched = fetch::<V>(&registry, store, wanted).await;
            watch.stop(began.filter(|_| fetched.is_ok()));
            fetched
        })
    }

    fn fetched(&mut self, wanted: Wanted, result: Result<(V, u64), FetchError>) {
        self.fetching = None;
        match result {
            Ok((state, seq)) => {
                (self.failures, self.failure) = (0, None);
                if !self.cut.snapshot(wanted.primary, wanted.epoch, seq) {
                    return;
                }
                tracing::debug!(store = ?self.store, primary = ?wanted.primary, seq, "took a snapshot");
                self.state = state;
                self.stats.snapshots += 1;
                for (delta, origin) in std::mem::take(&mut self.held) {
                    self.fold(delta, origin);
                }
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                self.failure = Some(error.to_string());
                tracing::debug!(store = ?self.store, primary = ?wanted.primary, %error, "no snapshot");
            }
        }
    }

    /// Begins to write the state.
    fn save(&mut self) {
        let (Some(disk), Some(at)) = (self.disk.clone(), self.cut.at()) else { return };
        let (tasks, state, position) = (self.registry.node.tasks().clone(), self.state.clone(), self.position());
        let write = move || disk.replace(Some(at.primary), position, &state);
        let saving = async move { tasks.blocking(write).await.unwrap_or(Err(StoreError::Closed)) };
        self.saving = Some((position, Box::pin(saving)));
        self.save_at = Instant::now() + SAVE_EVERY;
    }

    fn was_saved(&mut self, position: Position, result: Result<usize, StoreError>) {
        self.saving = None;
        match result {
            Ok(_) => self.saved = position,
            Err(error) => tracing::error!(store = ?self.store, %error, "a replica was not written; tried again"),
        }
    }

    fn position(&self) -> Position {
        self.cut.at().map_or_else(Position::default, |at| Position { epoch: at.epoch, seq: at.next })
    }

    fn publish(&mut self) {
        let state = match self.cut.followed() {
            None => ReplicaState::Alone,
            Some(primary) if self.cut.is_synced() => ReplicaState::Synced { primary },
            Some(primary) => ReplicaState::Catching { primary },
        };
        (self.stats.resumed, self.stats.primaries) = (self.cut.resumed, self.cut.primaries());
        let position = self.position();
        let known = self.published.borrow().value.position();
        let value = (known != position).then(|| Versioned::new(self.state.clone(), position));
        let stats = self.stats;
        self.published.send_modify(|published| {
            published.state = state;
            published.stats = stats;
            published.failure.clone_from(&self.failure);
            if let Some(value) = value {
                published.value = value;
            }
        });
    }
}
