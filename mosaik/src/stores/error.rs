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
    /// The node's entry cannot list the stream of the store's deltas, so no replica would ever find it.
    #[error("this node cannot announce the store {store:?}: {reason}")]
    NotAnnounced {
        /// The store.
        store: StoreId,
        /// The limit that is in the way.
        reason: String,
    },
    /// The delta is larger than a stream's item may be, or cannot be encoded. It was not applied.
    #[error("the delta cannot be sent: {0}")]
    Delta(String),
    /// The view has panicked on the delta. It was not applied, nothing of it is in the state, on disk or at a replica, and the
    /// store goes on.
    #[error("the view panicked on the delta, which was not applied: {0}")]
    Panicked(String),
    /// The store belongs to a group, and this node does not lead it. Nothing was applied.
    #[error("this node does not lead the group that owns the store")]
    NotLeader,
    /// The store belongs to a group, which has not taken the delta: another member leads, or no majority was reached in time. It was not
    /// applied and never will be.
    #[error("the group that owns the store has not taken the delta: {0}")]
    NotCommitted(String),
    /// The store belongs to a group, and nothing answered in time: the delta may have been applied, or may still be.
    #[error("it is not known whether the group that owns the store has taken the delta: {0}")]
    OutcomeUnknown(String),
    /// The store belongs to a group, whose members all begin with the same state and leave out the same deltas: that cannot be said at one
    /// of them.
    #[error("a store that a group owns has no `{0}`: its members could differ")]
    Owned(&'static str),
    /// The store's file has deltas on which the view panics, so it cannot be opened. Build the primary with
    /// [`skip_delta`](super::PrimaryBuilder::skip_delta) for each, or write their numbers into the file `word`.
    #[error(
        "the store's file {file}: the view panics on its deltas {deltas:?}; to skip them, write their numbers into {word}"
    )]
    Unfoldable {
        /// The file.
        file: String,
        /// The numbers of the deltas in their run.
        deltas: Vec<u64>,
        /// The file by which an operator says that they are to be skipped: numbers, between them white space.
        word: String,
    },
    /// The store is to be kept on disk, and the network has no data directory
    /// ([`NetworkBuilder::with_data_dir`](crate::network::NetworkBuilder::with_data_dir)).
    #[error("the store is durable, and the network has no data directory to keep it in")]
    NoDataDir,
    /// The store's file cannot be used. After a failed write the store is closed, and whether the deltas that were on their way
    /// are kept is not known.
    #[error("the store's file {file}: {reason}")]
    Disk {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// The primary has started anew before its replica had that position: it will never be reached.
    #[error("position {wanted} was not reached before the primary started anew: the replica is at {at}")]
    Superseded {
        /// What was waited for.
        wanted: Position,
        /// Where the replica is.
        at: Position,
    },
}
