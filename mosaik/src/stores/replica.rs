//! A replica of a store: the handle [`StoreReplica`], its state and the futures that wait for it.

use std::{fmt, marker::PhantomData, path::PathBuf, sync::Arc};

use tokio_util::sync::CancellationToken;

use super::{
    Registry, StoreError,
    core::At,
    disk::{Disk, Kept, Part},
    follow, inspect,
    lineage::Witness,
    protocol::{Shape, fingerprint, named_deltas},
    save::Saver,
    view::{Position, Versioned, View},
};
use crate::{
    discovery::PeerEntry,
    primitives::{PeerId, StoreId, figures, watch},
    streams::ConsumerBuilder,
    trust::{Label, Needed, Right},
};

/// How a replica stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplicaState {
    /// There is no primary, or none that is reached. What can be read is as old as it is.
    #[default]
    Alone,
    /// A snapshot is on its way: it is the first, or deltas are missing that the primary no longer has.
    Catching {
        /// The primary.
        primary: PeerId,
    },
    /// It has everything but what is on its way.
    Synced {
        /// The primary.
        primary: PeerId,
    },
    /// A primary is connected whose history does not continue what this durable replica keeps. It keeps that, and waits until
    /// the primary that has it is back, or for a word: [`StoreReplica::follow`].
    OtherHistory {
        /// That primary.
        primary: PeerId,
    },
}

/// What a replica did so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplicaStats {
    /// Deltas folded.
    pub deltas: u64,
    /// Snapshots that replaced the state.
    pub snapshots: u64,
    /// Connections made again after which the state went on without a snapshot.
    pub resumed: u64,
    /// How many primaries are connected. More than one is a mistake: only one of them is followed.
    pub primaries: usize,
}

/// What the worker publishes.
pub(super) struct Published<V> {
    pub(super) value: Versioned<V>,
    pub(super) state: ReplicaState,
    pub(super) stats: ReplicaStats,
    /// Why it is not in step, or not on disk.
    pub(super) trouble: Option<String>,
    /// The worker has ended.
    pub(super) closed: bool,
}

impl<V> Published<V> {
    pub(super) fn new(value: Versioned<V>) -> Self {
        let (state, stats) = (ReplicaState::default(), ReplicaStats::default());
        Self { value, state, stats, trouble: None, closed: false }
    }
}

/// Configures a replica; made by [`Stores::replica`](super::Stores::replica).
#[must_use = "a builder does nothing until built"]
pub struct ReplicaBuilder<V: View> {
    registry: Arc<Registry>,
    store: StoreId,
    primary: Needed,
    label: Option<Label>,
    subscribe_if: Option<follow::Predicate>,
    durable: bool,
    owned: bool,
    view: PhantomData<fn() -> V>,
}

impl<V: View> ReplicaBuilder<V> {
    pub(super) fn new(registry: Arc<Registry>, store: StoreId) -> Self {
        let primary = Needed::nothing(Right::Primary);
        Self {
            registry,
            store,
            primary,
            label: None,
            subscribe_if: None,
            durable: false,
            owned: false,
            view: PhantomData,
        }
    }

    /// Follows only primaries whose ticket grants one of these roles or grants; as
    /// [`ConsumerBuilder::with_produce_grants`]. Default: any.
    pub fn with_primary_grants(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.primary = Needed::one_of(Right::Primary, names);
        self
    }

    /// Follows only primaries that declare the same label; as [`ConsumerBuilder::with_label`].
    pub fn with_label(mut self, label: Label) -> Self {
        self.label = Some(label);
        self
    }

    /// Follows only primaries for which this holds; as [`ConsumerBuilder::subscribe_if`]. Default: any.
    pub fn subscribe_if(mut self, predicate: impl Fn(&PeerEntry) -> bool + Send + Sync + 'static) -> Self {
        self.subscribe_if = Some(Arc::new(predicate));
        self
    }

    /// Keeps what the replica has in the data directory: deltas are appended about once a second, and when they have 4 MiB and as
    /// many bytes as the state, that is written in their place. After a restart it can be read at once, also without a primary,
    /// and if the primary still has the deltas behind it no snapshot is needed. What came from a durable primary is not
    /// given up for an unrelated history without a word ([`ReplicaState::OtherHistory`]). Default: the state ends with the handle.
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// The store belongs to a group ([`owned_by`](super::PrimaryBuilder::owned_by)): every member serves it, and the replica goes on at any
    /// of them where it was. A [position](Position) then names the group's cluster and is the same at all of them. Default: it has one
    /// primary.
    pub fn owned(mut self) -> Self {
        self.owned = true;
        self
    }

    /// Starts to follow the store. Of a durable replica it reads the file, which blocks; one that cannot be used is told in
    /// the log, and the replica begins without it, as all that it held can be had from the primary.
    pub fn build(self) -> StoreReplica<V> {
        let Self { registry, store, primary, label, subscribe_if, durable, owned, .. } = self;
        let primary = primary.about(figures::label(store.as_bytes(), store));
        let cancel = registry.cancel.child_token();
        let file = durable.then(|| registry.file(store, Part::Replica));
        let restored = file.map(|file| file.and_then(|file| restore::<V>(store, file)));
        let (saver, restored) = restored.unwrap_or(Ok((None, None))).unwrap_or_else(|error| {
            tracing::error!(?store, %error, "a replica is not kept on disk");
            (None, None)
        });
        let mut published = Published::new(shown(restored.as_ref()));
        published.closed = cancel.is_cancelled();
        let (sender, receiver) = watch::channel(published);
        let number = Some(registry.add_replica(inspect::look(store, receiver.clone())));
        let (word, words) = watch::channel(None);
        let worker = follow::Worker::new(follow::Parts {
            registry: registry.clone(),
            store,
            primary: (primary, label),
            subscribe_if,
            published: sender,
            is_owned: owned,
            member: None,
            number,
            saver,
            kept: restored,
            word: words,
        });
        let until = cancel.clone();
        registry.node.tasks().spawn_essential("replica", async move {
            until.run_until_cancelled(worker.run()).await;
        });
        StoreReplica { published: receiver, inner: Arc::new(Inner { store, word, cancel }) }
    }
}

/// What a file has: the state, where it is, and who vouches for it.
pub(super) type Restored<V> = Option<(V, At, Witness)>;

/// Opens the file of a replica.
pub(super) fn restore<V: View>(store: StoreId, file: PathBuf) -> Result<(Option<Saver>, Restored<V>), StoreError> {
    let (disk, kept) = Disk::open::<V>(file, Part::Replica)?;
    let disk = Arc::new(disk);
    let Some(Kept { primary: Some(primary), state, position, tail, unfoldable, origin, bytes }) = kept else {
        return Ok((Some(Saver::new(disk, None, (0, 0))), None));
    };
    let at = At { primary, epoch: position.epoch, next: position.seq + tail.len() as u64 };
    let mut saver = Saver::new(disk, Some((at, origin.witness)), bytes);
    if let Some(number) = unfoldable.first() {
        tracing::error!(?store, number, "the view panics on a delta that a replica keeps; it begins before that");
        saver.replaced();
    }
    Ok((Some(saver), Some((state, at, origin.witness))))
}

/// The same as it is shown.
pub(super) fn shown<V: View>(restored: Option<&(V, At, Witness)>) -> Versioned<V> {
    restored.map_or_else(
        || Versioned::new(V::default(), Position::default()),
        |(state, at, _)| Versioned::new(state.clone(), Position { epoch: at.epoch, seq: at.next }),
    )
}

/// The consumer of a store's deltas.
pub(super) fn consumer<V: View>(
    registry: &Registry,
    store: StoreId,
    (primary, label): (Needed, Option<Label>),
    subscribe_if: Option<&follow::Predicate>,
) -> ConsumerBuilder<V::Delta> {
    let builder = registry.streams.consumer().with_stream_id(named_deltas(store)).with_fingerprint(fingerprint::<V>());
    let builder = builder.with_evolve(V::EVOLVE).comparing::<Shape<V>>().live_only().granted(primary);
    let builder = label.into_iter().fold(builder, ConsumerBuilder::with_label);
    match subscribe_if.cloned() {
        Some(predicate) => builder.subscribe_if(move |peer| predicate(peer)),
        None => builder,
    }
}

impl<V: View> fmt::Debug for ReplicaBuilder<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicaBuilder").field("store", &self.store).finish_non_exhaustive()
    }
}

/// A replica of a store: the state of its primary, as far as it has come. Cheap to clone; it ends when the last clone is
/// dropped.
///
/// What it shows is always the fold of the first deltas of one run of one primary, as many as its position says. Without a
/// primary it keeps what it has.
pub struct StoreReplica<V: View> {
    published: watch::Receiver<Published<V>>,
    inner: Arc<Inner>,
}

struct Inner {
    store: StoreId,
    /// The primary whose history may replace what is here.
    word: watch::Sender<Option<PeerId>>,
    cancel: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl<V: View> StoreReplica<V> {
    /// The state as it is here now; before the first snapshot `V::default()` at epoch 0. Never waits for the store.
    #[must_use]
    pub fn read(&self) -> Versioned<V> {
        self.published.borrow().value.clone()
    }

    /// How the replica stands.
    #[must_use]
    pub fn state(&self) -> ReplicaState {
        self.published.borrow().state
    }

    /// What it did so far.
    #[must_use]
    pub fn stats(&self) -> ReplicaStats {
        self.published.borrow().stats
    }

    /// Why it is not in step with its primary, or not on disk although it is durable; in plain words, for an operator. `None`
    /// while it is [`Synced`](ReplicaState::Synced) and there is nothing else.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.published.borrow().trouble.clone()
    }

    /// The word for which a replica waits that is in [`OtherHistory`](ReplicaState::OtherHistory): the history of this primary
    /// may replace what it has, which is kept as the previous generation of its file. An operator says the same by an empty
    /// file, which [`trouble`](Self::trouble) names. Holds until that primary was followed.
    pub fn follow(&self, primary: PeerId) {
        self.inner.word.send_replace(Some(primary));
    }

    /// Futures that wait for the replica.
    #[must_use]
    pub fn when(&self) -> WhenReplica<V> {
        WhenReplica { published: self.published.clone() }
    }

    /// The store's id.
    #[must_use]
    pub fn store_id(&self) -> StoreId {
        self.inner.store
    }
}

impl<V: View> Clone for StoreReplica<V> {
    fn clone(&self) -> Self {
        Self { published: self.published.clone(), inner: self.inner.clone() }
    }
}

impl<V: View> fmt::Debug for StoreReplica<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let published = self.published.borrow();
        f.debug_struct("StoreReplica")
            .field("store", &self.inner.store)
            .field("position", &published.value.position())
            .field("state", &published.state)
            .finish_non_exhaustive()
    }
}

/// Futures that wait for a replica; made by [`StoreReplica::when`]. All are cancellation-safe.
pub struct WhenReplica<V: View> {
    published: watch::Receiver<Published<V>>,
}

impl<V: View> WhenReplica<V> {
    /// Resolves when the replica has everything but what is on its way, at once if it is so already.
    ///
    /// # Errors
    /// When the network is shut down, or the view has panicked.
    pub async fn synced(mut self) -> Result<(), StoreError> {
        let synced = |now: &Published<V>| now.closed || matches!(now.state, ReplicaState::Synced { .. });
        let now = self.published.wait_for(synced).await.map_err(|_| StoreError::Closed)?;
        if matches!(now.state, ReplicaState::Synced { .. }) { Ok(()) } else { Err(StoreError::Closed) }
    }

    /// Resolves when the replica has all deltas before that position, such as the one that
    /// [`Primary::apply`](super::Primary::apply) gave.
    ///
    /// # Errors
    /// When the primary has started anew and the replica with it: whatever it had not reached by then is lost. When the network
    /// is shut down, or the view has panicked.
    pub async fn reaches(mut self, wanted: Position) -> Result<(), StoreError> {
        let settled = |now: &Published<V>| now.closed || now.value.position() >= wanted;
        let now = self.published.wait_for(settled).await.map_err(|_| StoreError::Closed)?;
        let at = now.value.position();
        match () {
            () if at < wanted => Err(StoreError::Closed),
            () if at.epoch > wanted.epoch => Err(StoreError::Superseded { wanted, at }),
            () => Ok(()),
        }
    }

    /// Resolves when the replica shows another state than that of this position, at once if it does so already.
    ///
    /// # Errors
    /// When the network is shut down, or the view has panicked.
    pub async fn changed_since(mut self, position: Position) -> Result<(), StoreError> {
        let changed = |now: &Published<V>| now.closed || now.value.position() != position;
        let now = self.published.wait_for(changed).await.map_err(|_| StoreError::Closed)?;
        if now.value.position() == position { Err(StoreError::Closed) } else { Ok(()) }
    }
}

impl<V: View> fmt::Debug for WhenReplica<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WhenReplica").finish_non_exhaustive()
    }
}
