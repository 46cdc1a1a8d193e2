//! Getting one snapshot from a primary: asked, counted, checked against its hash, and decoded.

use std::time::Duration;

use iroh::EndpointAddr;
use tokio::time::timeout;

use super::{
    Registry,
    core::Wanted,
    protocol::{MAX_STATE, Message, PATIENCE, Snapshot},
    view::View,
};
use crate::{network::Link, primitives::StoreId};

/// How long a dial may take.
const DIAL: Duration = Duration::from_secs(5);

/// Why there is no snapshot. It is tried again.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("the primary is not in the catalog")]
    Unknown,
    #[error("the primary is not reached: {0}")]
    Unreachable(String),
    #[error("the primary says nothing")]
    Timeout,
    #[error("the snapshot was broken off: {0}")]
    Broken(String),
    #[error("the snapshot is not what it should be: {0}")]
    Invalid(&'static str),
}

/// A state of the wanted run, and how many deltas are in it.
pub(super) async fn fetch<V: View>(
    registry: &Registry,
    store: StoreId,
    wanted: Wanted,
) -> Result<(V, u64), FetchError> {
    let addr = registry.discovery.catalog().get(wanted.primary).map(|entry| entry.addr().clone());
    let addr = addr.ok_or(FetchError::Unknown)?;
    let mut link = open(registry, &addr).await?;
    let ask = Message::Ask { store, epoch: wanted.epoch, at_least: wanted.at_least };
    link.send(&ask).await.map_err(|error| FetchError::Broken(error.to_string()))?;
    let Message::Head { seq, bytes, hash } = next(&mut link, 2 * PATIENCE).await? else {
        return Err(FetchError::Invalid("it does not begin with its head"));
    };
    if bytes > MAX_STATE {
        return Err(FetchError::Invalid("it is larger than allowed"));
    }
    if seq < wanted.at_least {
        return Err(FetchError::Invalid("it is too old"));
    }
    let bytes = usize::try_from(bytes).map_err(|_| FetchError::Invalid("it is larger than allowed"))?;
    // Grows with what comes, not with what is said.
    let mut image = Vec::new();
    while image.len() < bytes {
        let Message::Chunk(chunk) = next(&mut link, PATIENCE).await? else {
            return Err(FetchError::Invalid("something else comes within it"));
        };
        if chunk.is_empty() || image.len() + chunk.len() > bytes {
            return Err(FetchError::Invalid("its length is not what was said"));
        }
        image.extend_from_slice(&chunk);
    }
    if blake3::hash(&image) != hash {
        return Err(FetchError::Invalid("its hash differs"));
    }
    match postcard::take_from_bytes(&image) {
        Ok((state, [])) => Ok((state, seq)),
        _ => Err(FetchError::Invalid("it cannot be decoded")),
    }
}

async fn open(registry: &Registry, addr: &EndpointAddr) -> Result<Link<Snapshot>, FetchError> {
    let opened = timeout(DIAL, registry.node.open::<Snapshot>(addr)).await.map_err(|_| FetchError::Timeout)?;
    opened.map_err(|error| FetchError::Unreachable(error.to_string()))
}

async fn next(link: &mut Link<Snapshot>, patience: Duration) -> Result<Message, FetchError> {
    match timeout(patience, link.recv()).await {
        Ok(Ok(Some(message))) => Ok(message),
        Ok(Ok(None)) => Err(FetchError::Broken("it ended early".into())),
        Ok(Err(error)) => Err(FetchError::Broken(error.to_string())),
        Err(_) => Err(FetchError::Timeout),
    }
}
