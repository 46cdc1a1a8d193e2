//! What a replica asks a primary for: one snapshot, counted, checked against its hash, and decoded; or whether what it has of a
//! run can be.

use std::{
    fmt,
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use iroh::EndpointAddr;
use tokio::time::timeout;

use super::{
    Registry,
    core::{Claim, Wanted},
    lineage::Witness,
    protocol::{MAX_STATE, Message, Snapshot, TIMEOUT},
    view::View,
};
use crate::{
    network::Link,
    primitives::{PeerId, StoreId, codec::Codec},
};

/// How long a dial may take.
const DIAL: Duration = Duration::from_secs(5);

/// Why there is no snapshot, or no check. It is tried again.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("no other member of the group that owns the store is known")]
    Nobody,
    #[error("the primary is not in the catalog")]
    Unknown,
    #[error("the primary is not reached: {0}")]
    Unreachable(String),
    #[error("the primary does not answer")]
    Timeout,
    #[error("the snapshot was broken off: {0}")]
    Broken(String),
    #[error("the snapshot is not what it should be: {0}")]
    Invalid(&'static str),
    /// Not tried again.
    #[error("its history does not continue the one that is kept here")]
    OtherHistory,
}

/// A state of the wanted run.
pub(super) struct Fetched<V> {
    pub(super) state: V,
    /// How many deltas are in it.
    pub(super) seq: u64,
    /// The start of the primary that gave it.
    pub(super) witness: Witness,
}

/// How far a fetch is.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Others that are served first, while this one waits.
    served: AtomicU32,
    bytes: AtomicU64,
    of: AtomicU64,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.of.load(Relaxed), self.served.load(Relaxed)) {
            (0, 0) => f.write_str("a snapshot is asked for"),
            (0, served) => write!(f, "a snapshot is asked for, the primary serves {served} others first"),
            (of, _) => write!(f, "a snapshot is on its way, {} of {of} bytes", self.bytes.load(Relaxed)),
        }
    }
}

/// A state of the wanted run, from the primary or whoever has the same; if `continues` names an epoch, only of a run that continues that one.
pub(super) async fn fetch<V: View>(
    registry: &Registry,
    store: StoreId,
    wanted: Wanted,
    from: PeerId,
    continues: Option<u64>,
    progress: &Progress,
) -> Result<Fetched<V>, FetchError> {
    let mut link = open(registry, from).await?;
    let ask = Message::Ask { store, epoch: wanted.epoch, at_least: wanted.at_least };
    link.send(&ask).await.map_err(|error| FetchError::Broken(error.to_string()))?;
    let (seq, bytes, hash, start, parents) = loop {
        match next(&mut link, 2 * TIMEOUT).await? {
            Message::Head { seq, bytes, hash, start, parents } => break (seq, bytes, hash, start, parents),
            Message::Wait { served } => progress.served.store(served, Relaxed),
            _ => return Err(FetchError::Invalid("it does not begin with its head")),
        }
    };
    if continues.is_some_and(|epoch| !parents.contains(&epoch)) {
        return Err(FetchError::OtherHistory);
    }
    if bytes > MAX_STATE {
        return Err(FetchError::Invalid("it is larger than allowed"));
    }
    if seq < wanted.at_least {
        return Err(FetchError::Invalid("it is too old"));
    }
    progress.of.store(bytes, Relaxed);
    let bytes = usize::try_from(bytes).map_err(|_| FetchError::Invalid("it is larger than allowed"))?;
    // Grows with what comes, not with what was announced.
    let mut image = Vec::new();
    while image.len() < bytes {
        let Message::Chunk(chunk) = next(&mut link, TIMEOUT).await? else {
            return Err(FetchError::Invalid("something else comes within it"));
        };
        if chunk.is_empty() || image.len() + chunk.len() > bytes {
            return Err(FetchError::Invalid("its length is not what was announced"));
        }
        image.extend_from_slice(&chunk);
        progress.bytes.store(image.len() as u64, Relaxed);
    }
    if blake3::hash(&image) != hash {
        return Err(FetchError::Invalid("its hash differs"));
    }
    match Codec::of().decode_marked(&image) {
        Ok(state) => Ok(Fetched { state, seq, witness: start.into() }),
        Err(error) => {
            tracing::warn!(?store, %error, "the state of a store cannot be decoded");
            Err(FetchError::Invalid("it cannot be decoded"))
        }
    }
}

/// Whether the primary can have given what is claimed to be of its run, and who vouches for it from now on.
pub(super) async fn check(registry: &Registry, store: StoreId, claim: Claim) -> Result<Option<Witness>, FetchError> {
    let mut link = open(registry, claim.primary).await?;
    let Claim { epoch, next: has, start, .. } = claim;
    let check = Message::Check { store, epoch, next: has, start };
    link.send(&check).await.map_err(|error| FetchError::Broken(error.to_string()))?;
    match next(&mut link, TIMEOUT).await? {
        Message::Checked { start } => Ok(Some(start.into())),
        Message::Contradicted => Ok(None),
        _ => Err(FetchError::Invalid("the answer to a check is another one")),
    }
}

async fn open(registry: &Registry, primary: PeerId) -> Result<Link<Snapshot>, FetchError> {
    let addr: Option<EndpointAddr> = registry.discovery.catalog().get(primary).map(|entry| entry.addr().clone());
    let addr = addr.ok_or(FetchError::Unknown)?;
    let opened = timeout(DIAL, registry.node.open::<Snapshot>(&addr)).await.map_err(|_| FetchError::Timeout)?;
    opened.map_err(|error| FetchError::Unreachable(error.to_string()))
}

async fn next(link: &mut Link<Snapshot>, limit: Duration) -> Result<Message, FetchError> {
    match timeout(limit, link.recv()).await {
        Ok(Ok(Some(message))) => Ok(message),
        Ok(Ok(None)) => Err(FetchError::Broken("it ended early".into())),
        Ok(Err(error)) => Err(FetchError::Broken(error.to_string())),
        Err(_) => Err(FetchError::Timeout),
    }
}
