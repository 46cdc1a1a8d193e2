//! Stores: a state that one node changes by deltas and any number of nodes follow.
//!
//! A [`Primary`] folds deltas into a [`View`] and sends them on as a stream; a [`StoreReplica`] folds the same deltas. One that
//! comes late, or lacks some, gets a snapshot of the state and the deltas behind it, with an exact cut. `core` decides that; the
//! rest does the IO. It stands on the public surface of `streams` and on links of `network`, and knows no groups.
//!
//! Promise: whatever a replica shows is the fold of the first n deltas of one run of one primary, for the n that its position
//! says; and once deltas cease, n becomes all of them.

mod core;
mod disk;
mod error;
#[cfg(test)]
mod faults;
mod fetch;
#[cfg(test)]
mod fixtures;
mod follow;
pub(crate) mod inspect;
mod lead;
mod lineage;
mod mutants;
pub(crate) mod owned;
mod primary;
mod protocol;
mod replica;
mod save;
mod serve;
#[cfg(test)]
mod tests;
mod view;

use std::{
    any::Any,
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

pub use self::{
    error::StoreError,
    primary::{Primary, PrimaryBuilder},
    replica::{ReplicaBuilder, ReplicaState, ReplicaStats, StoreReplica, WhenReplica},
    view::{Position, Versioned, View},
};
use self::{protocol::Snapshot, serve::Snapshots};
use crate::{
    discovery::Discovery,
    network::{Acceptors, Node},
    primitives::StoreId,
    streams::Streams,
};

/// The stores of a node: makes primaries and replicas. Cheap to clone.
///
/// ```
/// use mosaik::{Network, NetworkId, stores::View};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Default, Serialize, Deserialize)]
/// struct Sum(i64);
///
/// impl View for Sum {
///     type Delta = i64;
///     const NAME: &'static str = "sum";
///
///     fn fold(&mut self, delta: i64) {
///         self.0 += delta;
///     }
/// }
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let network_id = NetworkId::random();
/// let (here, there) = (Network::new(network_id).await?, Network::new(network_id).await?);
/// let sum = here.stores().primary::<Sum>("total").build()?;
/// sum.apply(40).await?;
/// let position = sum.apply(2).await?;
///
/// let replica = there.stores().replica::<Sum>("total").build(); // comes late, lacks nothing
/// replica.when().reaches(position).await?;
/// assert_eq!(replica.read().0, 42);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Stores(Arc<Registry>);

/// The primaries of this node, and what stores are made from.
struct Registry {
    node: Node,
    discovery: Discovery,
    streams: Streams,
    /// Where durable stores are kept.
    data_dir: Option<PathBuf>,
    primaries: Mutex<BTreeMap<StoreId, Arc<Snapshots>>>,
    /// The replicas, in the order in which they were made.
    replicas: Mutex<BTreeMap<u64, inspect::Look>>,
    /// Ends every primary and every replica.
    cancel: CancellationToken,
}

impl Stores {
    /// Prepares the stores of a node and registers their protocol.
    pub(crate) fn new(
        node: Node,
        discovery: Discovery,
        streams: Streams,
        data_dir: Option<PathBuf>,
        acceptors: &mut Acceptors,
    ) -> Self {
        let cancel = node.cancel().child_token();
        let registry = Arc::new(Registry {
            node,
            discovery,
            streams,
            data_dir,
            primaries: Mutex::default(),
            replicas: Mutex::default(),
            cancel,
        });
        let weak = Arc::downgrade(&registry);
        acceptors.accept::<Snapshot>(move |incoming| {
            let Some(registry) = weak.upgrade() else { return };
            let tasks = registry.node.tasks().clone();
            tasks.spawn("snapshot", serve::serve(registry, incoming.link()));
        });
        Self(registry)
    }

    /// Configures the primary of a store on this node. A store has one primary; two that exist at the same time are a mistake,
    /// which replicas survive by following one of them.
    pub fn primary<V: View>(&self, store: impl Into<StoreId>) -> PrimaryBuilder<V> {
        PrimaryBuilder::new(self.0.clone(), store.into())
    }

    /// Configures a replica of a store.
    pub fn replica<V: View>(&self, store: impl Into<StoreId>) -> ReplicaBuilder<V> {
        ReplicaBuilder::new(self.0.clone(), store.into())
    }

    /// Whether there is a place to keep a store in.
    pub(crate) fn has_data_dir(&self) -> bool {
        self.0.data_dir.is_some()
    }

    /// Ends everything. Handles fail from then on; what was read last can still be read.
    pub(crate) fn shutdown(&self) {
        self.0.cancel.cancel();
    }
}

impl Registry {
    fn primaries(&self) -> MutexGuard<'_, BTreeMap<StoreId, Arc<Snapshots>>> {
        self.primaries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replicas(&self) -> MutexGuard<'_, BTreeMap<u64, inspect::Look>> {
        self.replicas.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that nobody else has drawn.
    fn random(&self) -> u64 {
        let transport = self.node.transport();
        let mut hasher = blake3::Hasher::new_derive_key("mosaik store start 1");
        hasher.update(&transport.random_seed()).update(&transport.wall_clock().to_le_bytes());
        hasher.finalize().as_bytes().iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// The file of a durable store.
    fn file(&self, store: StoreId, part: disk::Part) -> Result<PathBuf, StoreError> {
        let data_dir = self.data_dir.as_deref().ok_or(StoreError::NoDataDir)?;
        Ok(disk::file(data_dir, store, part))
    }

    /// Lets a replica be looked at; gives its number.
    fn add_replica(&self, look: inspect::Look) -> u64 {
        let mut replicas = self.replicas();
        let number = replicas.keys().next_back().map_or(0, |last| last + 1);
        replicas.insert(number, look);
        number
    }

    fn snapshots(&self, store: StoreId) -> Option<Arc<Snapshots>> {
        self.primaries().get(&store).cloned()
    }

    fn add_primary(&self, store: StoreId, snapshots: Arc<Snapshots>) {
        self.primaries().insert(store, snapshots);
        self.discovery.update_local(|entry| {
            entry.stores.insert(store);
        });
    }

    fn remove_primary(&self, store: StoreId, snapshots: &Arc<Snapshots>) {
        let mut primaries = self.primaries();
        // Another primary of the store may have taken the place already.
        if let Entry::Occupied(there) = primaries.entry(store)
            && Arc::ptr_eq(there.get(), snapshots)
        {
            there.remove();
            self.discovery.update_local(|entry| {
                entry.stores.remove(&store);
            });
        }
    }
}

/// Folds a delta. If the view panics, what it has done by then is left in the state, and what it said is told.
fn tried<V: View>(state: &mut V, delta: V::Delta) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| state.fold(delta))).map_err(|panic| said(&*panic))
}

/// The text of a panic.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a text".to_owned())
}

impl fmt::Debug for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stores")
            .field("primaries", &self.0.primaries().keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
