//! The worker of a replica: it folds what comes, fetches snapshots when the core wants one, and publishes.
//!
//! It never stops reading its deltas: those that it can neither fold nor hold are left out, and fetched with a later snapshot. A
//! consumer that is not read would be closed as too slow, and could not come back while its queue is full.

mod ask;
mod member;
mod status;

use std::{
    collections::{BTreeSet, VecDeque},
    future::Future,
    pin::Pin,
    sync::Arc,
};

use futures::FutureExt;
use tokio::time::{Instant, sleep_until};

pub(super) use self::member::Member;
use super::{
    Registry,
    core::{At, Claim, Cut, Verdict, Wanted},
    disk::Failure,
    fetch::{FetchError, Fetched, Progress},
    lineage::Witness,
    owned,
    protocol::codec,
    replica::{Published, ReplicaState, ReplicaStats, consumer},
    save::Saver,
    tried,
    view::{Position, View},
};
use crate::{
    discovery::PeerEntry,
    primitives::{
        Datum, PeerId, StoreId,
        codec::Codec,
        figures::{self, Watch},
        watch,
    },
    streams::{Consumer, Event, Events, Origin},
    trust::{Label, Needed},
};

/// Whether a primary may be followed.
pub(super) type Predicate = Arc<dyn Fn(&PeerEntry) -> bool + Send + Sync>;

/// Deltas, and their bytes, that wait for a snapshot; further ones are left out, and another snapshot is fetched after it.
const HELD: (usize, usize) = (65_536, 64 << 20);
/// Deltas that are folded before they are published.
const BATCH: usize = 1024;
/// The file that is an operator's word to follow another history; it has the name of the replica's own up to this.
const FOLLOW: &str = "follow";

type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Fetching<V> = Later<Result<Fetched<V>, FetchError>>;
type Checking = Later<Result<Option<Witness>, FetchError>>;
/// The run, its epoch and the number of a delta.
type Place = (PeerId, u64, u64);

/// What happens beside deltas.
enum Beside<V: View> {
    /// An operator has named a primary.
    Word,
    Looked(bool),
    Checked(Result<Option<Witness>, FetchError>),
    Fetched(Result<Fetched<V>, FetchError>),
    Saved(Result<Option<usize>, Failure>),
    SaveDue,
}

pub(super) struct Worker<V: View> {
    registry: Arc<Registry>,
    store: StoreId,
    /// What the ticket of a primary needs.
    primary: (Needed, Option<Label>),
    subscribe_if: Option<Predicate>,
    published: watch::Sender<Published<V>>,
    cut: Cut,
    state: V,
    held: VecDeque<(V::Delta, Place, usize)>,
    held_bytes: usize,
    fetching: Option<(Wanted, Fetching<V>)>,
    progress: Arc<Progress>,
    checking: Option<(Claim, Checking)>,
    failures: u32,
    stats: ReplicaStats,
    /// Why the last attempt to get a snapshot, or a check, has failed.
    failure: Option<String>,
    /// How the last connection to a primary has ended.
    last_end: Option<String>,
    /// A group owns the store: all producers of its deltas are one primary.
    is_owned: bool,
    /// Those of them that are connected.
    connected: BTreeSet<PeerId>,
    /// At a member of that group.
    member: Option<Member<V>>,
    /// By this the registry knows the replica.
    number: Option<u64>,
    /// How long snapshots take.
    watch: Watch,
    saver: Option<Saver>,
    /// The primary that the operator names.
    word: watch::Receiver<Option<PeerId>>,
    /// Whether the operator has left a file that says so.
    looking: Option<Later<bool>>,
}

impl<V: View> Drop for Worker<V> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.registry.replicas().remove(&number);
        }
        if let Some(member) = &self.member {
            self.registry.remove_primary(self.store, &member.snapshots);
        }
        self.published.send_modify(|published| {
            published.closed = true;
            published.state = ReplicaState::Alone;
        });
    }
}

/// Why a subscription to the deltas is over.
pub(super) enum Over {
    /// The network ends.
    Ended,
    /// Events were lost.
    Lost,
    /// What came and was not folded may not be of the run as it is after a reconnect.
    Disconnected,
    /// The state is another primary's now: what the subscription had of that one before does not count.
    Moved,
}

/// What a worker is made from.
pub(super) struct Parts<V: View> {
    pub(super) registry: Arc<Registry>,
    pub(super) store: StoreId,
    /// What its ticket needs, and its label.
    pub(super) primary: (Needed, Option<Label>),
    pub(super) subscribe_if: Option<Predicate>,
    pub(super) published: watch::Sender<Published<V>>,
    pub(super) is_owned: bool,
    pub(super) member: Option<Member<V>>,
    pub(super) number: Option<u64>,
    pub(super) saver: Option<Saver>,
    pub(super) kept: Option<(V, At, Witness)>,
    pub(super) word: watch::Receiver<Option<PeerId>>,
}

impl<V: View> Worker<V> {
    pub(super) fn new(parts: Parts<V>) -> Self {
        let Parts { registry, store, primary, subscribe_if, published, is_owned, member, number, saver, kept, word } =
            parts;
        let (state, cut) = kept
            .map_or_else(|| (V::default(), Cut::default()), |(state, at, witness)| (state, Cut::restored(at, witness)));
        let mut worker = Self {
            registry,
            store,
            primary,
            subscribe_if,
            published,
            // Whose run an owned store continues its group decides.
            cut: cut.guarded(saver.is_some() && !is_owned),
            state,
            held: VecDeque::new(),
            held_bytes: 0,
            fetching: None,
            progress: Arc::default(),
            checking: None,
            failures: 0,
            stats: ReplicaStats::default(),
            failure: None,
            last_end: None,
            is_owned,
            connected: BTreeSet::new(),
            member,
            number,
            watch: Watch::new(figures::STORE_SNAPSHOT, "store", figures::label(store.as_bytes(), store)),
            saver,
            word,
            looking: None,
        };
        worker.note_beginning();
        worker
    }

    /// Tells the core whether a state without deltas has something.
    fn note_beginning(&mut self) {
        if self.cut.at().is_some_and(|at| at.next == 0) {
            let [state, empty] = [&self.state, &V::default()].map(|state| codec::<V, V>().whole(state));
            self.cut.begins_with(state.ok() != empty.ok());
        }
    }

    /// Runs until it is cancelled or the network ends.
    pub(super) async fn run(mut self) {
        let store = self.store;
        if let Some(member) = &self.member {
            return self.fold_log(member.log.clone()).await;
        }
        loop {
            let mut builder = consumer::<V>(&self.registry, store, self.primary.clone(), self.subscribe_if.as_ref());
            if self.is_owned {
                builder = builder.owned();
            } else if let Some(At { primary, epoch, next }) = self.cut.at() {
                builder = builder.begin_at(primary, epoch, next);
            }
            self.connected.clear();
            let Ok((mut deltas, mut events)) = builder.build_watched() else {
                tracing::error!(?store, "the stream of a store has a name and no filter, and cannot be consumed");
                return;
            };
            match self.follow(&mut deltas, &mut events).await {
                Over::Ended => return,
                // Nothing is known for certain but what the state has.
                Over::Lost => {
                    tracing::warn!(?store, "a replica was too busy to take in every event; it subscribes again");
                }
                Over::Disconnected | Over::Moved => {}
            }
            self.cut = self.cut.begun_again();
            self.release();
            (self.fetching, self.checking) = (None, None);
        }
    }

    /// Follows until the network ends or it is to subscribe anew.
    async fn follow(&mut self, deltas: &mut Consumer<V::Delta>, events: &mut Events) -> Over {
        self.publish();
        loop {
            self.ask();
            let taken = tokio::select! {
                biased;
                // Before answers: those of a primary that has started again are not of the connection that it had.
                event = events.recv() => self.take(event),
                beside = self.beside() => self.did(beside),
                delta = deltas.recv_from() => self.fold_batch(delta, deltas, events),
            };
            if let Err(over) = taken {
                return over;
            }
            self.publish();
        }
    }

    /// What is due, or comes, beside deltas. Cancellation-safe.
    async fn beside(&mut self) -> Beside<V> {
        let save_at = self.saver.as_ref().and_then(|saver| saver.due(self.cut.at(), self.cut.witness()));
        let saver = &mut self.saver;
        let saved = async {
            match saver {
                Some(saver) => saver.written().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Ok(()) = self.word.changed() => Beside::Word,
            found = later(&mut self.looking) => Beside::Looked(found),
            result = job(&mut self.checking) => Beside::Checked(result),
            result = job(&mut self.fetching) => Beside::Fetched(result),
            result = saved => Beside::Saved(result),
            () = sleep_until(save_at.unwrap_or_else(Instant::now)), if save_at.is_some() => Beside::SaveDue,
        }
    }

    fn did(&mut self, beside: Beside<V>) -> Result<(), Over> {
        match beside {
            Beside::Word => {
                let named = *self.word.borrow_and_update();
                named.into_iter().for_each(|primary| self.cut.follow(primary));
            }
            Beside::Looked(found) => self.looked(found),
            Beside::Checked(result) => self.checked(result),
            Beside::Fetched(result) => return self.fetched(result),
            Beside::Saved(result) => self.was_saved(result),
            Beside::SaveDue => self.save(),
        }
        Ok(())
    }

    /// Folds this delta and some that are there behind it.
    fn fold_batch(
        &mut self,
        first: Option<(V::Delta, Origin)>,
        deltas: &mut Consumer<V::Delta>,
        events: &mut Events,
    ) -> Result<(), Over> {
        let mut next = Some(first.ok_or(Over::Ended)?);
        for _ in 0..BATCH {
            let Some((delta, origin)) = next.take() else { break };
            // What is connected must be known before its deltas are looked at. It is told before they come, so this is the one
            // place where the order of the two is decided.
            while let Some(event) = events.recv().now_or_never() {
                self.take(event)?;
            }
            self.fold(delta, (self.run_of(origin.producer), origin.epoch, origin.seq));
            next = deltas.recv_from().now_or_never().flatten();
        }
        Ok(())
    }

    fn take(&mut self, event: Option<Event>) -> Result<(), Over> {
        let before = (self.cut.primaries(), self.cut.standing());
        match &event.ok_or(Over::Ended)? {
            Event::Lost { .. } => return Err(Over::Lost),
            &Event::Connected { producer, epoch, next, resumed } => {
                self.connected.insert(producer);
                // A member may be behind the one whose deltas came before.
                let has = self.cut.at().filter(|at| self.is_owned && at.epoch == epoch).map_or(0, |at| at.next);
                self.cut.connected(self.run_of(producer), epoch, next.max(has), resumed);
            }
            Event::Disconnected { producer, reason } => {
                self.last_end = Some(format!("{producer:?} {reason}"));
                self.connected.remove(producer);
                if self.is_owned && !self.connected.is_empty() {
                    return Ok(());
                }
                let run = self.run_of(*producer);
                let again = !self.cut.survives(run);
                self.cut.disconnected(run);
                if again {
                    return Err(Over::Disconnected);
                }
            }
            Event::Incompatible { producer, what, ours, theirs } => {
                self.last_end =
                    Some(format!("{producer:?} is refused, the {what} differs: {ours} here, {theirs} there"));
            }
            &Event::Gap { producer, to, .. } => self.cut.missed(self.run_of(producer), to),
            _ => return Ok(()),
        }
        // What waits for a run that is not followed any more never has its turn.
        let runs = [self.cut.wanted().map(|it| (it.primary, it.epoch)), self.cut.at().map(|it| (it.primary, it.epoch))];
        if self.held.front().is_some_and(|(_, it, _)| !runs.contains(&Some((it.0, it.1)))) {
            self.held.retain(|(_, it, _)| runs.contains(&Some((it.0, it.1))));
            self.held_bytes = self.held.iter().map(|(_, _, bytes)| bytes).sum();
        }
        if before.0 < 2 && self.cut.primaries() > 1 {
            tracing::warn!(store = ?self.store, standing = ?self.cut.standing(), "a store has two primaries");
        }
        if before.1 != self.cut.standing() {
            tracing::debug!(store = ?self.store, standing = ?self.cut.standing(), "a replica stands otherwise");
        }
        Ok(())
    }

    fn fold(&mut self, delta: V::Delta, place: Place) {
        let (run, epoch, seq) = place;
        let room = self.held.len() < HELD.0 && self.held_bytes < HELD.1;
        match self.cut.delta(run, epoch, seq, room) {
            Verdict::Fold if self.member.as_ref().is_some_and(|member| member.shared.is_skipped(seq)) => {
                // A file would fold it.
                self.saver.iter_mut().for_each(Saver::replaced);
            }
            Verdict::Fold => {
                if let Some(saver) = &mut self.saver {
                    saver.folds::<V>(&delta);
                }
                match tried(&mut self.state, delta) {
                    Ok(()) => self.stats.deltas += 1,
                    Err(panic) if self.member.is_some() => self.skip(seq, &panic),
                    Err(panic) => self.unfoldable(seq, &panic),
                }
            }
            Verdict::Hold => {
                let bytes = encoded_size(&delta) + size_of::<V::Delta>();
                self.held_bytes += bytes;
                self.held.push_back((delta, place, bytes));
            }
            Verdict::Drop => {}
        }
    }

    /// The view panicked on a delta that the primary has folded: goes back to what is published, and has the primary's state
    /// instead.
    fn unfoldable(&mut self, seq: u64, panic: &str) {
        tracing::error!(store = ?self.store, seq, panic, "a view panicked on a delta that its primary has folded");
        let value = self.published.borrow().value.clone();
        self.state = V::clone(&value);
        self.cut.unfoldable(value.position().seq, seq);
        self.failure = Some(format!("the view panicked on delta {seq}: {panic}"));
        if let Some(saver) = &mut self.saver {
            saver.replaced();
        }
    }

    /// Asks about everything again that was held.
    fn fold_held(&mut self) {
        self.held_bytes = 0;
        for (delta, place, _) in std::mem::take(&mut self.held) {
            self.fold(delta, place);
        }
    }

    /// By whom the core knows what comes from this producer.
    fn run_of(&self, producer: PeerId) -> PeerId {
        if self.is_owned { self.identity() } else { producer }
    }

    fn identity(&self) -> PeerId {
        owned::identity(self.store)
    }

    fn release(&mut self) {
        self.held.clear();
        self.held_bytes = 0;
    }

    fn save(&mut self) {
        if let (Some(saver), Some(at)) = (&mut self.saver, self.cut.at()) {
            saver.write(self.registry.node.tasks(), at, self.cut.witness(), &self.state);
        }
    }

    fn was_saved(&mut self, result: Result<Option<usize>, Failure>) {
        let store = self.store;
        match self.saver.as_mut().and_then(|saver| saver.over(result)) {
            None => {}
            Some(Ok(())) => tracing::warn!(?store, "a replica is written again"),
            Some(Err(error)) => {
                tracing::error!(?store, %error, "a replica cannot be written; it is tried every second");
            }
        }
    }

    fn position(&self) -> Position {
        self.cut.at().map_or_else(Position::default, |at| Position { epoch: at.epoch, seq: at.next })
    }
}

/// How many bytes a delta has on the wire.
fn encoded_size<T: Datum>(delta: &T) -> usize {
    Codec::of().marked(delta, usize::MAX).map_or(0, |bytes| bytes.len())
}

/// Resolves with what is awaited, if anything is.
async fn later<T>(what: &mut Option<Later<T>>) -> T {
    match what {
        Some(what) => what.await,
        None => std::future::pending().await,
    }
}

/// The same of something that is known by what it is for.
async fn job<K, T>(what: &mut Option<(K, Later<T>)>) -> T {
    match what {
        Some((_, what)) => what.await,
        None => std::future::pending().await,
    }
}
