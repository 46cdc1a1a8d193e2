//! Streams: typed, ordered items from producers to every consumer that wants them.
//!
//! [`Streams`] makes producers and consumers and knows those of this node. `core` decides (queue, lag policy, admission,
//! gaps), `producer` and `consumer` do the IO over links of `network`, and who is there comes from `discovery`. Nothing
//! here knows groups or stores.
//!
//! Promise: a consumer gets the items of one producer in order, each at most once, and is told of whatever it misses.

mod conditions;
mod consumer;
pub(crate) mod core;
mod error;
mod events;
mod filter;
#[cfg(test)]
mod fixtures;
pub(crate) mod inspect;
pub(crate) mod limits;
pub(crate) mod owner;
mod prefer;
mod producer;
mod protocol;
mod retain;
mod stats;

use std::{
    any::TypeId,
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub use self::core::mutants::{Mutant, Switch};
pub(crate) use self::owner::framed_items;
pub(crate) use self::producer::Encoded;
pub use self::{
    conditions::{Conditions, IntoTags, Online, Subscribed, When},
    consumer::{Consumer, ConsumerBuilder, Origin},
    core::{admission::WaitReason, filter::FilterRefusal},
    error::{BuildError, ConsumeError, SendError, SendErrorKind, TrySendError},
    events::{DisconnectReason, Event, Events, Gap, GapReason},
    filter::{Filter, FilterError},
    limits::{Buffer, ByteRate, MAX_ITEM, OnLag},
    owner::Committed,
    prefer::Prefer,
    producer::{Producer, ProducerBuilder},
    retain::Retain,
    stats::{ChannelInfo, ChannelState, Stats},
};
use self::{
    producer::Handle,
    protocol::{Replay, Subscription},
};
use crate::{
    discovery::Discovery,
    network::{Acceptors, CloseCode, Node},
    primitives::{StreamId, Streamed, figures},
};

/// How long a shutdown lets producers hand over what is queued.
const SHUTDOWN_DRAIN: Duration = Duration::from_millis(500);

/// The streams of a node: makes producers and consumers. Cheap to clone.
#[derive(Clone)]
pub struct Streams(Arc<Registry>);

/// The producers and consumers of this node.
pub(crate) struct Registry {
    node: Node,
    discovery: Discovery,
    producers: Mutex<BTreeMap<StreamId, Slot>>,
    /// How many consumers there are of each stream.
    consumed: Mutex<BTreeMap<StreamId, usize>>,
    /// The consumers themselves, for reports.
    consumers: Mutex<Vec<Weak<consumer::Shared>>>,
    last_epoch: AtomicU64,
    closed: AtomicBool,
    /// Ends every consumer.
    cancel: CancellationToken,
}

/// A producer of this node.
struct Slot {
    shared: Arc<producer::Shared>,
    datum: TypeId,
    datum_name: &'static str,
}

impl Streams {
    /// Prepares the streams of a node and registers their protocol.
    pub(crate) fn new(node: Node, discovery: Discovery, acceptors: &mut Acceptors) -> Self {
        let cancel = node.cancel().child_token();
        let registry = Arc::new(Registry {
            node,
            discovery,
            producers: Mutex::default(),
            consumed: Mutex::default(),
            consumers: Mutex::default(),
            last_epoch: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            cancel,
        });
        let weak = Arc::downgrade(&registry);
        acceptors.accept::<Subscription>(move |incoming| {
            let Some(registry) = weak.upgrade() else { return };
            let tasks = registry.node.tasks().clone();
            tasks.spawn("subscriber", producer::serve(registry, incoming.link()));
        });
        let weak = Arc::downgrade(&registry);
        acceptors.accept::<Replay>(move |incoming| {
            let Some(registry) = weak.upgrade() else { return };
            let tasks = registry.node.tasks().clone();
            tasks.spawn("replay", producer::serve_replay(registry, incoming.link()));
        });
        Self(registry)
    }

    /// A producer of `T` with default settings, or another handle to the one that this node has already.
    ///
    /// # Panics
    /// When this node produces the stream of that name with items of another type (`with_stream_id` is the way out), or
    /// produces 512 streams already, which is all that its entry can list; when the type has no name
    /// ([`Unnamed`](crate::primitives::Unnamed)); when a group owns it. See [`producer`](Self::producer) for a way that
    /// says so with an error.
    #[must_use]
    pub fn produce<T: Streamed>(&self) -> Producer<T> {
        match self.producer().build() {
            Ok(producer) | Err(BuildError::Exists { existing: producer, .. }) => producer,
            Err(error @ BuildError::OtherType { .. }) => panic!("{error}; give one of them `with_stream_id`"),
            Err(error @ (BuildError::NotAnnounced { .. } | BuildError::NoOwner { .. } | BuildError::Unnamed(_))) => {
                panic!("{error}")
            }
        }
    }

    /// A consumer of `T` with default settings. Each call makes one of its own, which gets all items.
    ///
    /// # Panics
    /// When the type has no name ([`Unnamed`](crate::primitives::Unnamed)).
    pub fn consume<T: Streamed>(&self) -> Consumer<T> {
        self.consumer().build()
    }

    /// Configures a producer.
    pub fn producer<T: Streamed>(&self) -> ProducerBuilder<T> {
        ProducerBuilder::new(self.0.clone())
    }

    /// Configures a consumer.
    pub fn consumer<T: Streamed>(&self) -> ConsumerBuilder<T> {
        ConsumerBuilder::new(self.0.clone())
    }

    /// Ends everything: producers hand over what is queued for up to half a second and close with `ShuttingDown`.
    /// Handles fail from then on.
    pub(crate) async fn shutdown(&self) {
        self.0.closed.store(true, Ordering::SeqCst);
        let producers: Vec<_> = self.0.producers().values().map(|slot| slot.shared.clone()).collect();
        producers.iter().for_each(|producer| producer.close(CloseCode::ShuttingDown));
        let drained = async {
            for producer in &producers {
                producer.drained().await;
            }
        };
        if timeout(SHUTDOWN_DRAIN, drained).await.is_err() {
            tracing::debug!("subscribers did not take everything before the shutdown");
        }
        self.0.cancel.cancel();
    }
}

impl Registry {
    fn producers(&self) -> MutexGuard<'_, BTreeMap<StreamId, Slot>> {
        self.producers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, stream: StreamId) -> Option<Arc<producer::Shared>> {
        self.producers().get(&stream).map(|slot| slot.shared.clone())
    }

    /// Enters a producer; or the handle, datum type and its name of the one that is there.
    fn add_producer(&self, stream: StreamId, slot: Slot) -> Result<(), (Arc<Handle>, TypeId, &'static str)> {
        let mut producers = self.producers();
        if let Some(there) = producers.get(&stream)
            && let Some(handle) = there.shared.handle()
        {
            return Err((handle, there.datum, there.datum_name));
        }
        if self.closed.load(Ordering::SeqCst) {
            slot.shared.close(CloseCode::ShuttingDown);
        }
        producers.insert(stream, slot);
        Ok(())
    }

    /// The last handle of a producer is gone.
    fn producer_closed(&self, shared: &Arc<producer::Shared>) {
        let stream = shared.stream();
        let mut producers = self.producers();
        // Another producer of the stream may have taken the place already.
        if let Entry::Occupied(slot) = producers.entry(stream)
            && Arc::ptr_eq(&slot.get().shared, shared)
        {
            slot.remove();
            self.discovery.update_local(|entry| {
                entry.produces.remove(stream);
            });
        }
    }

    fn consumer_opened(&self, stream: StreamId, fingerprint: Option<protocol::Fingerprint>) {
        let mut consumed = self.consumed.lock().unwrap_or_else(PoisonError::into_inner);
        *consumed.entry(stream).or_default() += 1;
        if let Err(error) = self.discovery.try_update_local(|entry| entry.consumes.insert(stream, fingerprint)) {
            let stream = figures::label(stream.as_bytes(), stream);
            tracing::warn!(stream, %error, "others do not see that this node consumes the stream; it does all the same");
        }
    }

    fn add_consumer(&self, shared: &Arc<consumer::Shared>) {
        let mut consumers = self.consumers.lock().unwrap_or_else(PoisonError::into_inner);
        consumers.retain(|consumer| consumer.strong_count() > 0);
        consumers.push(Arc::downgrade(shared));
    }

    fn open_consumers(&self) -> Vec<Arc<consumer::Shared>> {
        let consumers = self.consumers.lock().unwrap_or_else(PoisonError::into_inner);
        consumers.iter().filter_map(Weak::upgrade).filter(|shared| !shared.is_closed()).collect()
    }

    fn consumer_closed(&self, stream: StreamId) {
        let mut consumed = self.consumed.lock().unwrap_or_else(PoisonError::into_inner);
        let Entry::Occupied(mut count) = consumed.entry(stream) else { return };
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
            self.discovery.update_local(|entry| {
                entry.consumes.remove(stream);
            });
        }
    }

    /// An epoch after that one, which an earlier life of a producer may have had.
    fn epoch_after(&self, epoch: u64) -> u64 {
        self.last_epoch.fetch_max(epoch, Ordering::SeqCst);
        self.next_epoch()
    }

    /// Wall-clock microseconds, but always more than the last time.
    fn next_epoch(&self) -> u64 {
        let now = self.node.transport().wall_clock();
        let next = |last: u64| now.max(last + 1);
        match self.last_epoch.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| Some(next(last))) {
            Ok(last) | Err(last) => next(last),
        }
    }
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams")
            .field("produces", &self.0.producers().keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
