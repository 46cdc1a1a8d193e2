//! What diagnostics may see of the stores of a node. Read-only, off the path of deltas.

use std::sync::{Arc, atomic::Ordering};

use super::{
    Registry, Stores,
    replica::{Published, ReplicaState, ReplicaStats},
    serve::Snapshots,
    view::{Position, View},
};
use crate::primitives::{StoreId, StreamId, watch};

/// What both sides say of a store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoreView {
    pub(crate) store: StoreId,
    /// The stream on which its deltas travel.
    pub(crate) deltas: StreamId,
    pub(crate) view: &'static str,
    pub(crate) version: u32,
    pub(crate) position: Position,
}

impl StoreView {
    pub(super) fn new<V: View>(store: StoreId, position: Position) -> Self {
        Self { store, deltas: super::protocol::deltas(store), view: V::NAME, version: V::VERSION, position }
    }
}

/// A primary of this node.
#[derive(Debug)]
pub(crate) struct PrimaryView {
    pub(crate) store: StoreView,
    /// Snapshots that were served.
    pub(crate) snapshots: u64,
    /// What an operator should know of it.
    pub(crate) trouble: Option<String>,
}

/// A replica of this node.
#[derive(Debug)]
pub(crate) struct ReplicaView {
    pub(crate) store: StoreView,
    pub(crate) state: ReplicaState,
    pub(crate) stats: ReplicaStats,
    /// Why it is not in step, or not on disk.
    pub(crate) trouble: Option<String>,
}

/// A replica as the registry knows it: how to look at it.
pub(super) type Look = Box<dyn Fn() -> ReplicaView + Send + Sync>;

pub(super) fn look<V: View>(store: StoreId, published: watch::Receiver<Published<V>>) -> Look {
    Box::new(move || {
        let now = published.borrow();
        let (state, stats, trouble) = (now.state, now.stats, now.trouble.clone());
        ReplicaView { store: StoreView::new::<V>(store, now.value.position()), state, stats, trouble }
    })
}

impl Snapshots {
    fn inspect(&self) -> PrimaryView {
        PrimaryView { store: self.look(), snapshots: self.served.load(Ordering::Relaxed), trouble: self.trouble() }
    }
}

impl Stores {
    /// The primaries of this node in the order of their ids, and the replicas, those of one store in the order in which they
    /// were made.
    pub(crate) fn inspect(&self) -> (Vec<PrimaryView>, Vec<ReplicaView>) {
        let registry: &Registry = &self.0;
        let primaries: Vec<Arc<Snapshots>> = registry.primaries().values().cloned().collect();
        let mut replicas: Vec<_> = registry.replicas().values().map(|look| look()).collect();
        replicas.sort_by_key(|replica| replica.store.store);
        (primaries.iter().map(|primary| primary.inspect()).collect(), replicas)
    }
}
