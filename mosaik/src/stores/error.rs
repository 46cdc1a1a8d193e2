//! Why a store refuses or fails.

use super::view::Position;
use crate::primitives::StoreId;

/// An error of a store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store or the network is shut down. Whether a delta that was on its way has been applied is not known.
    #[error("the store is closed")]
    Closed,
    /// This node is the primary of that store already.
    #[error("this node is the primary of the store {store:?} already")]
    Exists {
        /// The store.
        store: StoreId,
    },
    /// The delta is larger than a stream's item may be, or cannot be encoded. It was not applied.
    #[error("the delta cannot be sent: {0}")]
    Delta(String),
    /// The primary has started anew before its replica had that position: it will never be reached.
    #[error("position {wanted} was not reached before the primary started anew: the replica is at {at}")]
    Superseded {
        /// What was waited for.
        wanted: Position,
        /// Where the replica is.
        at: Position,
    },
}
