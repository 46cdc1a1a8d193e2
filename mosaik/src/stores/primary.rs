//! The primary of a store: the one node that folds deltas first and sends them on. [`Primary`] is the handle.
//!
//! One worker owns the state. It sends each delta on the store's stream and folds it, in that order, and publishes the state
//! after each batch; readers and snapshots use what is published and never wait for it. Deltas of a durable store are on disk
//! before that: no replica ever shows what its primary could lose.

use std::{fmt, marker::PhantomData, sync::Arc};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    Registry, StoreError,
    disk::{Disk, Kept},
    protocol::{fingerprint, named_deltas},
    serve::{Predicate, Snapshots},
    view::{Position, Versioned, View},
};
use crate::{
    discovery::PeerEntry,
    primitives::{
        Datum, StoreId,
        figures::{self, Watch},
        watch,
    },
    streams::{Buffer, BuildError, ChannelInfo, MAX_ITEM, Producer, ProducerBuilder, SendErrorKind},
};

/// Deltas that may wait for the worker, and that it publishes at once.
const COMMANDS: usize = 1024;
/// A durable store puts its state in the place of its deltas when these have so many bytes, and at least as many as the state.
const COMPACT: usize = 4 << 20;
/// What is kept of the newest deltas for replicas that come back.
const REPLAY: usize = 8 << 20;

type Command<V> = (<V as View>::Delta, oneshot::Sender<Result<Position, StoreError>>);

/// Configures the primary of a store; made by [`Stores::primary`](super::Stores::primary).
#[must_use = "a builder does nothing until built"]
pub struct PrimaryBuilder<V: View> {
    registry: Arc<Registry>,
    store: StoreId,
    producer: ProducerBuilder<V::Delta>,
    accept_if: Option<Predicate>,
    initial: V,
    durable: bool,
}

impl<V: View> PrimaryBuilder<V> {
    pub(super) fn new(registry: Arc<Registry>, store: StoreId) -> Self {
        let replay = Buffer::default().bytes(REPLAY);
        let producer =
            registry.streams.producer().with_stream_id(named_deltas(store)).with_fingerprint(fingerprint::<V>());
        let producer = producer.online_when(|c| c.minimum_of(0)).with_replay(replay);
        Self { registry, store, producer, accept_if: None, initial: V::default(), durable: false }
    }

    /// Serves only replicas on peers for which this holds; as [`ProducerBuilder::accept_if`].
    pub fn accept_if(mut self, predicate: impl Fn(&PeerEntry) -> bool + Send + Sync + 'static) -> Self {
        let predicate: Predicate = Arc::new(predicate);
        self.accept_if = Some(predicate.clone());
        self.producer = self.producer.accept_if(move |peer| predicate(peer));
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
    /// written in their place, for which deltas wait. Default: the state ends with the handle.
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// The state to begin with, unless there is one on disk. Default: `V::default()`.
    pub fn with_state(mut self, state: V) -> Self {
        self.initial = state;
        self
    }

    /// Starts the store and announces it. Of a durable store it reads the file, which blocks.
    ///
    /// # Errors
    /// When this node is the primary of that store already. Of a durable one: when there is no data directory, or the file
    /// cannot be read, is in use, or holds another view or version.
    pub fn build(self) -> Result<Primary<V>, StoreError> {
        let Self { registry, store, mut producer, accept_if, initial, durable } = self;
        if registry.primaries().contains_key(&store) {
            return Err(StoreError::Exists { store });
        }
        let opened = durable.then(|| Disk::open::<V>(registry.file(store, "primary")?)).transpose()?;
        let (disk, kept) = opened.map_or((None, None), |(disk, kept)| (Some(Arc::new(disk)), kept));
        let is_new = kept.is_none();
        let (state, seq, (mut kept, grown)) = match kept {
            None => (initial, 0, (0, 0)),
            Some(Kept { state, position, tail, bytes, .. }) => {
                let begun = producer.begin_at(position.epoch, position.seq, &tail);
                producer = begun.map_err(|kind| StoreError::Delta(kind.to_string()))?;
                (state, position.seq + tail.len() as u64, bytes)
            }
        };
        let producer = producer.build().map_err(|error| match error {
            BuildError::Exists { .. } | BuildError::OtherType { .. } => StoreError::Exists { store },
            BuildError::NotAnnounced { error, .. } => StoreError::NotAnnounced { store, reason: error.to_string() },
        })?;
        let position = Position { epoch: producer.epoch(), seq };
        // What is on disk is as good as what would be written now, unless there is nothing.
        if let Some(disk) = disk.as_ref().filter(|_| is_new) {
            kept = disk.replace(None, position, &state)?;
        }
        let published = watch::Sender::new(Versioned::new(state.clone(), position));
        let cancel = registry.cancel.child_token();
        let snapshots = Snapshots::new(store, &published, accept_if, cancel.clone());
        registry.add_primary(store, snapshots.clone());
        let (commands, received) = mpsc::channel(COMMANDS);
        let worker = Worker {
            registry: registry.clone(),
            store,
            producer: producer.clone(),
            state,
            position,
            disk,
            writes: Watch::new(figures::STORE_WRITE, "store", figures::label(store.as_bytes(), store)),
            kept,
            grown,
            published: published.clone(),
            snapshots,
            cancel: cancel.clone(),
        };
        registry.node.tasks().spawn_essential("primary", worker.run(received));
        let inner = Inner { commands, producer, published, store, cancel };
        Ok(Primary { inner: Arc::new(inner), view: PhantomData })
    }
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
    producer: Producer<V::Delta>,
    published: watch::Sender<Versioned<V>>,
    store: StoreId,
    cancel: CancellationToken,
}

impl<V: View> Drop for Inner<V> {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl<V: View> Primary<V> {
    /// Applies a delta: when it resolves, the delta is in the state that [`read`](Self::read) gives, on disk if the store is
    /// [durable](PrimaryBuilder::durable), and on its way to every replica; the position is the one right behind it. Waits while every replica that is connected is behind, as
    /// [`OnLag::Disconnect`](crate::streams::OnLag::Disconnect) says. Deltas of one handle keep their order. When cancelled, the
    /// delta may be applied or not.
    ///
    /// # Errors
    /// When the store is closed, the delta cannot be sent, or it cannot be written; after the last the store is closed.
    pub async fn apply(&self, delta: V::Delta) -> Result<Position, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.inner.commands.send((delta, answer)).await.map_err(|_| StoreError::Closed)?;
        answered.await.unwrap_or(Err(StoreError::Closed))
    }

    /// The state as of the last delta that was applied. Never waits for the store.
    #[must_use]
    pub fn read(&self) -> Versioned<V> {
        self.inner.published.borrow().clone()
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

struct Worker<V: View> {
    registry: Arc<Registry>,
    store: StoreId,
    producer: Producer<V::Delta>,
    state: V,
    position: Position,
    disk: Option<Arc<Disk>>,
    /// How long writing takes.
    writes: Watch,
    /// Bytes of the state that was written last, and of the deltas since.
    kept: usize,
    grown: usize,
    published: watch::Sender<Versioned<V>>,
    snapshots: Arc<Snapshots>,
    cancel: CancellationToken,
}

impl<V: View> Drop for Worker<V> {
    /// A replica whose primary has failed must not take itself for synced. What is shut down, on the other hand, hands over what
    /// is queued first.
    fn drop(&mut self) {
        if !self.cancel.is_cancelled() {
            self.producer.close();
        }
        self.registry.remove_primary(self.store, &self.snapshots);
    }
}

impl<V: View> Worker<V> {
    async fn run(mut self, mut commands: mpsc::Receiver<Command<V>>) {
        let cancel = self.cancel.clone();
        let mut batch = Vec::new();
        while cancel.run_until_cancelled(commands.recv_many(&mut batch, COMMANDS)).await.is_some_and(|taken| taken > 0)
        {
            if !self.write(&mut batch).await {
                return;
            }
            let mut answers = Vec::with_capacity(batch.len());
            for (delta, answer) in batch.drain(..) {
                let Some(result) = cancel.run_until_cancelled(self.apply(delta)).await else { return };
                answers.push((answer, result));
            }
            self.published.send_replace(Versioned::new(self.state.clone(), self.position));
            for (answer, result) in answers {
                // Who asked may be gone.
                let _ = answer.send(result);
            }
            if !self.compact().await {
                return;
            }
            tokio::task::coop::consume_budget().await;
        }
    }

    /// Makes a batch durable, if the store is; what cannot be sent is answered and taken out. False when it cannot be done:
    /// all are answered then.
    async fn write(&mut self, batch: &mut Vec<Command<V>>) -> bool {
        let Some(disk) = self.disk.clone() else { return true };
        let mut encoded = Vec::with_capacity(batch.len());
        let mut good = Vec::with_capacity(batch.len());
        for (delta, answer) in batch.drain(..) {
            match encode(&delta) {
                Ok(bytes) => {
                    self.grown += bytes.len();
                    encoded.push(bytes);
                    good.push((delta, answer));
                }
                // Who asked may be gone; so below.
                Err(reason) => _ = answer.send(Err(StoreError::Delta(reason))),
            }
        }
        *batch = good;
        let (first, began) = (self.position.seq, self.writes.start());
        let written = self.registry.node.tasks().blocking(move || disk.append(first, &encoded)).await;
        self.writes.stop(began);
        let error = match written {
            Some(Ok(())) => return true,
            Some(Err(error)) => error,
            None => StoreError::Closed,
        };
        tracing::error!(store = ?self.store, %error, "a delta cannot be written; the store is closed");
        batch.drain(..).for_each(|(_, answer)| _ = answer.send(Err(error.clone())));
        false
    }

    /// Writes the state in the place of its deltas, if these have become many. False when it cannot be done.
    async fn compact(&mut self) -> bool {
        let Some(disk) = self.disk.clone().filter(|_| self.grown >= COMPACT.max(self.kept)) else { return true };
        let state = self.published.borrow().clone();
        let write = move || disk.replace(None, state.position(), &*state);
        match self.registry.node.tasks().blocking(write).await.unwrap_or(Err(StoreError::Closed)) {
            Ok(bytes) => {
                (self.kept, self.grown) = (bytes, 0);
                true
            }
            Err(error) => {
                tracing::error!(store = ?self.store, %error, "the state cannot be written; the store is closed");
                false
            }
        }
    }

    async fn apply(&mut self, delta: V::Delta) -> Result<Position, StoreError> {
        self.producer.send(delta.clone()).await.map_err(|error| match error.kind() {
            SendErrorKind::Closed => StoreError::Closed,
            kind => StoreError::Delta(kind.to_string()),
        })?;
        self.state.fold(delta);
        self.position.seq += 1;
        Ok(self.position)
    }
}

/// A delta as it is on disk, if it can also be sent.
fn encode<D: Datum>(delta: &D) -> Result<Vec<u8>, String> {
    let bytes = postcard::to_allocvec(delta).map_err(|error| error.to_string())?;
    if bytes.len() > MAX_ITEM {
        return Err(SendErrorKind::TooLarge { size: bytes.len() }.to_string());
    }
    Ok(bytes)
}
