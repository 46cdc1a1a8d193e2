//! Chooses how a declared machine becomes bytes, by what its type can do: cloned and encoded if it is `Clone` and serde,
//! encoded in place if it is serde, not at all otherwise.
//!
//! The traits are tried in the order of the references that they take: `(&&&probe).snapshots()` finds the first whose
//! bounds hold. Generated code is the only caller; it knows the type, so the choice is made when it is compiled.

use std::marker::PhantomData;

use serde::{Serialize, de::DeserializeOwned};

use crate::groups::Snapshots;

/// Stands for a machine of type `M` in the choice.
#[derive(Debug)]
pub struct Probe<M>(PhantomData<fn() -> M>);

impl<M> Probe<M> {
    /// The only one.
    pub const NEW: Self = Self(PhantomData);
}

/// First choice.
pub trait SnapshotsCloned<M> {
    /// The machine's snapshots.
    fn snapshots(&self) -> Snapshots<M>;
}

impl<M: Serialize + DeserializeOwned + Clone + Send + 'static> SnapshotsCloned<M> for &&Probe<M> {
    fn snapshots(&self) -> Snapshots<M> {
        Snapshots::cloned()
    }
}

/// Second choice.
pub trait SnapshotsSerde<M> {
    /// The machine's snapshots.
    fn snapshots(&self) -> Snapshots<M>;
}

impl<M: Serialize + DeserializeOwned + 'static> SnapshotsSerde<M> for &Probe<M> {
    fn snapshots(&self) -> Snapshots<M> {
        Snapshots::serde()
    }
}

/// Last choice.
pub trait SnapshotsNone<M> {
    /// The machine's snapshots.
    fn snapshots(&self) -> Snapshots<M>;
}

impl<M> SnapshotsNone<M> for Probe<M> {
    fn snapshots(&self) -> Snapshots<M> {
        Snapshots::none()
    }
}
