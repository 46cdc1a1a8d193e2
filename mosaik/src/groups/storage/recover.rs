//! Forced recovery of a member's storage; what it means is said in `groups::raft::recover`.

use std::future::poll_fn;

use super::{Storage, StorageError};
use crate::groups::raft::{self, ClusterId, Entry, Member, Write};

/// Turns a storage, not loaded yet, into that of the sole voter `me` of a new cluster that names its ancestor. For a group
/// that has lost its majority for good, on an operator's word. `salt` must be fresh.
///
/// Resolves to the new cluster once it is durable; none if the storage holds no cluster. Atomic: cancelled or interrupted,
/// the storage is as before or recovered.
///
/// # Errors
/// When the storage cannot be read or written.
pub async fn recover<S: Storage>(mut storage: S, me: Member, salt: u64) -> Result<Option<ClusterId>, StorageError> {
    let stored = storage.load()?;
    let Some(recovered) = raft::recover(stored, me, salt) else { return Ok(None) };
    let cluster = recovered.hard.cluster;
    let added: Vec<Entry> = recovered.entries.last().cloned().into_iter().collect();
    storage.submit(1, vec![Write::Hard(recovered.hard), Write::Replace(added)]);
    let token = poll_fn(|cx| storage.poll_durable(cx)).await?;
    if token == 1 {
        return Ok(cluster);
    }
    Err(StorageError::Misuse(format!("token {token} was never submitted")))
}
