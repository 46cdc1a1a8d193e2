//! The primary of a store: the one node that folds deltas first and sends them on. [`Primary`] is the handle.
//!
//! Its worker ([`lead`](super::lead)) owns the state; readers and snapshots use what it publishes and never wait for it. Of a
//! durable store the file is read here, when it is built.

use std::{collections::BTreeSet, fmt, marker::PhantomData, sync::Arc};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    Registry, StoreError,
    disk::{Disk, Kept, Origin, Part, word},
    lead::{COMMANDS, Command, Durable, Worker},
    lineage::Run,
    owned::{self, Log, MakeLog},
    protocol::{Shape, fingerprint, named_deltas},
    serve::{Predicate, Snapshots},
    view::{Position, Versioned, View},
};
use crate::{
    discovery::PeerEntry,
    primitives::{StoreId, StreamId, Streamed, figures, watch},
    streams::{Buffer, BuildError, ChannelInfo, Producer, ProducerBuilder},
    transport::Tasks,
    trust::{Label, Needed, Right},
};

/// What is kept of the newest deltas for replicas that come back.
const REPLAY: usize = 8 << 20;
/// The word of an operator that deltas may be skipped: a file with their numbers.
const SKIP: &str = "skip";

/// Configures the primary of a store; made by [`Stores::primary`](super::Stores::primary).
#[must_use = "a builder does nothing until built"]
pub struct PrimaryBuilder<V: View> {
    registry: Arc<Registry>,
    store: StoreId,
    producer: ProducerBuilder<V::Delta>,
    /// What this node's ticket needs, and that of a replica.
    granted: (Needed, Needed),
    label: Option<Label>,
    accept_if: Option<Predicate>,
    initial: Option<V>,
    durable: bool,
    skipped: BTreeSet<u64>,
    owner: Option<MakeLog>,
}

impl<V: View> PrimaryBuilder<V> {
    pub(super) fn new(registry: Arc<Registry>, store: StoreId) -> Self {
        let replay = Buffer::default().bytes(REPLAY);
        let producer =
            registry.streams.producer().with_stream_id(named_deltas(store)).with_fingerprint(fingerprint::<V>());
        let producer = producer.with_evolve(V::EVOLVE).comparing::<Shape<V>>();
        let producer = producer.online_when(|c| c.minimum_of(0)).with_replay(replay);
        Self {
            registry,
            store,
            producer,
            granted: (Needed::nothing(Right::Primary), Needed::nothing(Right::Replica)),
            label: None,
            accept_if: None,
            initial: None,
            durable: false,
            skipped: BTreeSet::new(),
            owner: None,
        }
    }

    /// Deltas are put in order elsewhere, and come back through a log.
    pub(crate) fn with_owner(
        mut self,
        producer: impl FnOnce(ProducerBuilder<V::Delta>) -> ProducerBuilder<V::Delta>,
        log: impl FnOnce(StreamId, &Tasks, CancellationToken) -> Arc<dyn Log> + Send + 'static,
    ) -> Self {
        self.producer = producer(self.producer);
        let (stream, tasks) = (named_deltas(self.store), self.registry.node.tasks().clone());
        self.owner = Some(Box::new(move |ends| log(stream, &tasks, ends)));
        self
    }

    /// Serves only replicas on peers for which this holds; as [`ProducerBuilder::accept_if`].
    pub fn accept_if(mut self, predicate: impl Fn(&PeerEntry) -> bool + Send + Sync + 'static) -> Self {
        let predicate: Predicate = Arc::new(predicate);
        self.accept_if = Some(predicate.clone());
        self.producer = self.producer.accept_if(move |peer| predicate(peer));
        self
    }

    /// The roles and grants of which this node's own ticket needs one: what replicas with the same declaration ask for; as
    /// [`ProducerBuilder::with_produce_grants`].
    pub fn with_primary_grants(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.granted.0 = Needed::one_of(Right::Primary, names);
        self
    }

    /// Serves only replicas on peers whose ticket grants one of these roles or grants, deltas and snapshots; as
    /// [`ProducerBuilder::with_consume_grants`].
    pub fn with_replica_grants(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.granted.1 = Needed::one_of(Right::Replica, names);
        self
    }

    /// Serves only replicas that declare the same label, and in a network of an authority only those whose ticket clears it; as
    /// [`ProducerBuilder::with_label`].
    pub fn with_label(mut self, label: Label) -> Self {
        self.label = Some(label);
        self
    }

    /// What is kept of the newest deltas: a replica that loses its connection for no longer than that goes on where it was,
    /// without a snapshot. Default: 8 MiB or 65,536 deltas, whichever is less.
    pub fn with_replay(mut self, replay: Buffer) -> Self {
        self.producer = self.producer.with_replay(replay);
        self
    }

    /// How far a replica may be behind before it is too slow; as [`ProducerBuilder::with_buffer`].
    pub fn with_buffer(mut self, buffer: Buffer) -> Self {
        self.producer = self.producer.with_buffer(buffer);
        self
    }

    /// Keeps the store in the data directory: a delta is on disk before [`apply`](Primary::apply) resolves and before a replica
    /// gets it, and the next start goes on with the same run, so that replicas which lack nothing need no snapshot. Deltas
    /// that wait are written together, with one sync. When they have 4 MiB, and as many bytes as the state, the state is
    /// written in their place, for which deltas wait. While the disk is full, deltas wait until there is room again; see
    /// [`trouble`](Primary::trouble). Default: the state ends with the handle.
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// Leaves out a delta of the file on which the view panics, as [`StoreError::Unfoldable`] names it. An operator says the same
    /// by a file. The store then begins a new run. Repeatable. Default: such a file is not opened.
    pub fn skip_delta(mut self, number: u64) -> Self {
        self.skipped.insert(number);
        self
    }

    /// The state to begin with, unless there is one on disk. Default: `V::default()`.
    pub fn with_state(mut self, state: V) -> Self {
        self.initial = Some(state);
        self
    }

    /// Starts the store and announces it. Of a durable store it reads the file, which blocks.
    ///
    /// # Errors
    /// When this node is the primary of that store already. Of a durable one: when there is no data directory, or the file
    /// cannot be read or written, is in use, holds another view or version, or has a delta on which the view panics.
    pub fn build(self) -> Result<Primary<V>, StoreError> {
        let Self { registry, store, producer, granted, label: cleared, accept_if, initial, durable, skipped, owner } =
            self;
        let label = figures::label(store.as_bytes(), store);
        let (primary, replica) = (granted.0.about(&*label), granted.1.about(label).clearing(cleared.as_ref()));
        let producer = producer.granted(primary, replica.clone());
        let mut producer = cleared.into_iter().fold(producer, ProducerBuilder::with_label);
        if registry.primaries().contains_key(&store) {
            return Err(StoreError::Exists { store });
        }
        if let Some(owner) = owner {
            return owned::build(owned::Parts {
                registry,
                store,
                producer,
                replica: (replica, accept_if),
                initial,
                durable,
                skipped,
                owner,
            });
        }
        let opened = durable
            .then(|| Disk::open::<V>(registry.file(store, Part::Primary)?, Part::Primary))
            .transpose()?
            .map(|(disk, kept)| (Arc::new(disk), kept));
        let (disk, kept) = opened.map_or((None, None), |(disk, kept)| (Some(disk), kept));
        let initial = initial.unwrap_or_default();
        let (mut state, mut seq, mut bytes, mut origin, mut renew) = (initial, 0, (0, 0), Origin::default(), true);
        let mut before = None;
        if let Some(kept) = kept {
            renew = may_skip(disk.as_deref(), &kept, &skipped)?;
            let Kept { state: known, position, mut tail, .. } = kept;
            (state, seq, bytes, origin) = (known, position.seq + tail.len() as u64, kept.bytes, kept.origin);
            if renew {
                (before, tail) = (Some(position.epoch), Vec::new());
            }
            let begun = producer.begin_at(position.epoch, seq - tail.len() as u64, &tail);
            producer = begun.map_err(|kind| StoreError::Delta(kind.to_string()))?;
        }
        let producer = producer.build().map_err(|error| refused(store, error))?;
        let id = registry.random();
        if let Some(epoch) = before {
            // What was skipped is in the history that replicas know: it must not go on.
            origin.lineage = origin.lineage.continued(epoch, None, id);
            producer.begin_anew(producer.epoch_after(epoch));
            seq = 0;
        } else {
            origin.lineage.begin(id, seq);
        }
        let position = Position { epoch: producer.epoch(), seq };
        if let Some(disk) = &disk {
            if renew {
                bytes = (disk.replace(None, position, &state, &origin).map_err(|failure| failure.error)?, 0);
            } else {
                disk.begin::<V>(seq, &origin).map_err(|failure| failure.error)?;
            }
        }
        let published = watch::Sender::new(Versioned::new(state.clone(), position));
        let cancel = registry.cancel.child_token();
        let run = Run { epoch: position.epoch, end: seq, lineage: disk.is_some().then_some(origin.lineage) };
        let snapshots = Snapshots::new(store, &published, (replica, accept_if), run, cancel.clone());
        registry.add_primary(store, snapshots.clone());
        let (commands, received) = mpsc::channel(COMMANDS);
        let durable = disk.map(|disk| Durable::new(disk, store, bytes));
        let worker = Worker {
            registry: registry.clone(),
            store,
            producer: producer.clone(),
            state,
            position,
            durable,
            published: published.clone(),
            snapshots: snapshots.clone(),
            cancel: cancel.clone(),
        };
        registry.node.tasks().spawn_essential("primary", worker.run(received));
        let inner = Inner { commands, log: None, producer, published, snapshots, store, cancel };
        Ok(Primary { inner: Arc::new(inner), view: PhantomData })
    }
}

pub(super) fn refused<T: Streamed>(store: StoreId, error: BuildError<T>) -> StoreError {
    match error {
        BuildError::Exists { .. } | BuildError::OtherType { .. } => StoreError::Exists { store },
        error @ (BuildError::Unnamed(_) | BuildError::NoOwner { .. }) => StoreError::Delta(error.to_string()),
        BuildError::NotAnnounced { error, .. } => StoreError::NotAnnounced { store, reason: error.to_string() },
    }
}

/// Whether a file has deltas on which the view panics, all of which may be skipped.
fn may_skip<V: View>(disk: Option<&Disk>, kept: &Kept<V>, skipped: &BTreeSet<u64>) -> Result<bool, StoreError> {
    let Some(disk) = disk.filter(|_| !kept.unfoldable.is_empty()) else { return Ok(false) };
    let say = word(disk.file(), SKIP);
    let mut skipped = skipped.clone();
    match std::fs::read_to_string(&say) {
        Ok(text) => skipped.extend(text.split_whitespace().filter_map(|number| number.parse::<u64>().ok())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(StoreError::Disk { file: say.display().to_string(), reason: error.to_string() });
        }
    }
    if kept.unfoldable.iter().all(|number| skipped.contains(number)) {
        let file = disk.file().display();
        tracing::warn!(%file, deltas = ?kept.unfoldable, "the view panics on these deltas; they are skipped as told");
        return Ok(true);
    }
    Err(StoreError::Unfoldable {
        file: disk.file().display().to_string(),
        deltas: kept.unfoldable.clone(),
        word: say.display().to_string(),
    })
}

impl<V: View> fmt::Debug for PrimaryBuilder<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrimaryBuilder").field("store", &self.store).finish_non_exhaustive()
    }
}

/// The primary of a store: applies deltas, for itself and for every replica. Cheap to clone; the store closes when the last
/// clone is dropped.
pub struct Primary<V: View> {
    inner: Arc<Inner<V>>,
    view: PhantomData<fn() -> V>,
}

struct Inner<V: View> {
    commands: mpsc::Sender<Command<V>>,
    /// Of a store that a group owns.
    log: Option<Arc<dyn Log>>,
    producer: Producer<V::Delta>,
    published: watch::Sender<Versioned<V>>,
    snapshots: Arc<Snapshots>,
    store: StoreId,
    cancel: CancellationToken,
}

impl<V: View> Drop for Inner<V> {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl<V: View> Primary<V> {
    /// Of a store that a group owns.
    pub(super) fn of_member(
        commands: mpsc::Sender<Command<V>>,
        log: Arc<dyn Log>,
        producer: Producer<V::Delta>,
        published: watch::Sender<Versioned<V>>,
        (store, snapshots, cancel): (StoreId, Arc<Snapshots>, CancellationToken),
    ) -> Self {
        let inner = Inner { commands, log: Some(log), producer, published, snapshots, store, cancel };
        Self { inner: Arc::new(inner), view: PhantomData }
    }

    /// Applies a delta: when it resolves, the delta is in the state that [`read`](Self::read) gives, on disk if the store is
    /// [durable](PrimaryBuilder::durable), and on its way to every replica; the position is the one right behind it. Waits while every replica that is connected is behind, as
    /// [`OnLag::Disconnect`](crate::streams::OnLag::Disconnect) says. Deltas of one handle keep their order. When cancelled, the
    /// delta may be applied or not.
    ///
    /// # Errors
    /// When the store is closed, the delta cannot be sent, the view panics on it ([`StoreError::Panicked`]: nothing was changed, and
    /// the store goes on), or it cannot be written; after the last the store is closed. A full disk is no error: it waits. Of a store
    /// that a [group owns](PrimaryBuilder::owned_by) also [`NotLeader`](StoreError::NotLeader),
    /// [`NotCommitted`](StoreError::NotCommitted) and [`OutcomeUnknown`](StoreError::OutcomeUnknown).
    pub async fn apply(&self, delta: V::Delta) -> Result<Position, StoreError> {
        let (answer, answered) = oneshot::channel();
        let fence = match &self.inner.log {
            // Of the handler that is running, which the task behind the channel is not.
            Some(log) => Some(log.fence().ok_or(StoreError::NotLeader)?),
            None => None,
        };
        self.inner.commands.send((delta, fence, answer)).await.map_err(|_| StoreError::Closed)?;
        answered.await.unwrap_or(Err(StoreError::Closed))
    }

    /// The state as of the last delta that was applied. Never waits for the store.
    #[must_use]
    pub fn read(&self) -> Versioned<V> {
        self.inner.published.borrow().clone()
    }

    /// What an operator should know of this primary: that its disk is full, and since when deltas wait for it; or that its file
    /// was found to be an older copy. `None` while there is nothing.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.inner.snapshots.trouble()
    }

    /// The replicas that are served now.
    pub fn replicas(&self) -> impl Iterator<Item = ChannelInfo> + use<V> {
        self.inner.producer.consumers()
    }

    /// Futures that wait for replicas; as those of a producer.
    pub fn when(&self) -> crate::streams::When {
        self.inner.producer.when()
    }

    /// The store's id.
    #[must_use]
    pub fn store_id(&self) -> StoreId {
        self.inner.store
    }
}

impl<V: View> Clone for Primary<V> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), view: PhantomData }
    }
}

impl<V: View> fmt::Debug for Primary<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Primary").field("store", &self.inner.store).finish_non_exhaustive()
    }
}
