//! Where a member keeps what it must not forget: the trait between the worker and any storage, and the storages.
//!
//! [`InMemory`] forgets everything at the end of the process. The worker is the only caller: it loads once, submits
//! batches without waiting and hands completions to the consensus core, which holds back every message that reveals
//! something not yet durable. Storages never look into a batch further than its order demands.

#[cfg(feature = "testing")]
mod conformance;
mod disk;
mod error;
#[cfg(feature = "testing")]
mod faulty;
mod image;
mod memory;
mod recover;
#[cfg(feature = "testing")]
mod script;
#[cfg(feature = "testing")]
mod sim;

use std::{
    fmt,
    task::{Context, Poll},
};

#[cfg(feature = "testing")]
pub use self::{
    conformance::storage_conformance,
    disk::Faults,
    faulty::{Fault, Faulty},
    script::StorageScript,
    sim::SimDisk,
};
pub use self::{
    disk::Disk,
    error::StorageError,
    image::{Contradiction, apply, check},
    memory::InMemory,
    recover::recover,
};
use super::raft::{Stored, Token, Write};

/// Durable memory of one member.
///
/// # Contract
///
/// * [`load`](Self::load) comes first and once; then any number of [`submit`](Self::submit) and
///   [`poll_durable`](Self::poll_durable). [`wipe`](Self::wipe) may come at any time and leads back to the beginning.
/// * Tokens grow from batch to batch within one life (from `load` to `wipe` or drop); a new life begins again at 1.
/// * A batch is atomic and batches are ordered: whatever happens, what `load` finds later is the effect ([`apply`]) of a
///   *prefix* of the batches that were submitted, never part of a batch and never a batch without those before it.
/// * Once `poll_durable` has given a token, that prefix contains its batch and all before it, across a crash of the
///   process and, for storages that say so, of the machine. An empty batch counts as well.
/// * A batch whose token has not been given may be in the prefix or not.
/// * After an error nothing is ever given again, only that error: whether what was under way is durable cannot be known
///   (a failed `fsync` may have dropped it, and the next one would say that all is well). The member must stop; a new
///   life may open the storage again and will find a prefix.
/// * What cannot be read back as it was written is an error of `load` that says where the damage is. The one exception:
///   a last record that is cut short, as a crash leaves it behind, was never given as durable and is dropped.
/// * A storage takes whatever it is given: how much may wait is bounded by the caller (the core bounds what is in flight).
///
/// `mosaik::testing::storage_conformance` checks an implementation against this.
pub trait Storage: fmt::Debug + Send + 'static {
    /// Reads all that is stored. Blocking.
    ///
    /// # Errors
    /// When something cannot be read, or is not what was written.
    fn load(&mut self) -> Result<Stored, StorageError>;

    /// Takes a batch. Never blocks, never fails: errors are given by [`poll_durable`](Self::poll_durable).
    fn submit(&mut self, token: Token, writes: Vec<Write>);

    /// Resolves to the newest durable token each time it has moved since the last call. One task at a time may wait.
    /// Cancellation safe: it is a poll.
    ///
    /// # Errors
    /// When a batch could not be made durable; the same at every later call.
    fn poll_durable(&mut self, cx: &mut Context<'_>) -> Poll<Result<Token, StorageError>>;

    /// Discards everything, atomically even across a crash, and forgets batches under way. Blocking; afterwards the
    /// storage is like a new one, errors included.
    ///
    /// # Errors
    /// When that failed; the storage is then as after any error.
    fn wipe(&mut self) -> Result<(), StorageError>;

    /// The last call of a member that ends while storage owes it an answer and does not give one: from now on nobody may wait
    /// for what is under way, not even by dropping the storage. What was submitted may still be written.
    fn abandon(&mut self) {}

    /// Whether what is durable survives the end of the process. If not, each start of the process is a new incarnation.
    fn is_durable(&self) -> bool;
}

#[cfg(test)]
mod tests;
