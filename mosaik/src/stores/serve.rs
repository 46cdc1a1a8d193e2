//! Snapshots as a primary serves them: of the state that is published, serialised once asked, in paced chunks.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Registry,
    inspect::StoreView,
    protocol::{CHUNK, CHUNK_TIME, MAX_STATE, Message, PATIENCE, Snapshot},
    view::{Versioned, View},
};
use crate::{
    discovery::PeerEntry,
    network::{CloseCode, Link},
    primitives::{StoreId, watch},
};

/// Snapshots that one primary serves at a time; further replicas wait, and give up or try again.
const AT_ONCE: usize = 4;

/// A serialised state.
struct Image {
    seq: u64,
    bytes: Bytes,
}

type Making = Pin<Box<dyn Future<Output = Result<Image, CloseCode>> + Send>>;

/// Whether a peer may have a replica.
pub(super) type Predicate = Arc<dyn Fn(&PeerEntry) -> bool + Send + Sync>;

/// How a primary of any view serves snapshots.
pub(super) struct Snapshots {
    make: Box<dyn Fn(u64, u64) -> Making + Send + Sync>,
    accept_if: Option<Predicate>,
    slots: Semaphore,
    /// When the next chunk may be written.
    pace: Mutex<Instant>,
    /// Snapshots that were written to their end.
    pub(super) served: AtomicU64,
    look: Box<dyn Fn() -> StoreView + Send + Sync>,
    cancel: CancellationToken,
}

impl Snapshots {
    pub(super) fn new<V: View>(
        store: StoreId,
        published: &watch::Sender<Versioned<V>>,
        accept_if: Option<Predicate>,
        cancel: CancellationToken,
    ) -> Arc<Self> {
        let published = published.subscribe();
        let seen = published.clone();
        let look = move || StoreView::new::<V>(store, seen.borrow().position());
        let make = move |epoch, at_least| -> Making { Box::pin(image(published.clone(), epoch, at_least)) };
        let (slots, pace) = (Semaphore::new(AT_ONCE), Mutex::new(Instant::now()));
        let (make, look, served) = (Box::new(make), Box::new(look), AtomicU64::new(0));
        Arc::new(Self { make, accept_if, slots, pace, served, look, cancel })
    }

    /// What the primary is, and how far.
    pub(super) fn look(&self) -> StoreView {
        (self.look)()
    }

    /// When the next chunk may be written.
    fn turn(&self) -> Instant {
        let mut next = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = (*next).max(Instant::now());
        *next = turn + CHUNK_TIME;
        turn
    }
}

impl fmt::Debug for Snapshots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshots").finish_non_exhaustive()
    }
}

/// The state of this run, as soon as it has so many deltas.
async fn image<V: View>(
    mut published: watch::Receiver<Versioned<V>>,
    epoch: u64,
    at_least: u64,
) -> Result<Image, CloseCode> {
    // Another run of this primary was asked for: the replica will hear of this one.
    let right = |state: &Versioned<V>| state.position().epoch != epoch || state.position().seq >= at_least;
    let state = published.wait_for(right).await.map_err(|_| CloseCode::ShuttingDown)?.clone();
    if state.position().epoch != epoch {
        return Err(CloseCode::NotAllowed);
    }
    let bytes = postcard::to_allocvec(&*state).map_err(|error| {
        tracing::error!(view = V::NAME, %error, "the state of a store cannot be serialised; no replica gets it");
        CloseCode::Undecodable
    })?;
    if bytes.len() as u64 > MAX_STATE {
        tracing::error!(view = V::NAME, bytes = bytes.len(), "the state of a store is too large; no replica gets it");
        return Err(CloseCode::TooLarge);
    }
    Ok(Image { seq: state.position().seq, bytes: bytes.into() })
}

/// Serves a link that a replica opened, to its end.
pub(super) async fn serve(registry: Arc<Registry>, mut link: Link<Snapshot>) {
    let peer = link.peer();
    let (store, epoch, at_least) = match timeout(PATIENCE, link.recv()).await {
        Ok(Ok(Some(Message::Ask { store, epoch, at_least }))) => (store, epoch, at_least),
        Ok(Ok(Some(_))) => return link.close(CloseCode::Undecodable),
        Ok(Ok(None)) => return link.close(CloseCode::Normal),
        Ok(Err(error)) => {
            tracing::debug!(?peer, %error, "snapshot request failed");
            return;
        }
        Err(_) => return link.close(CloseCode::Timeout),
    };
    let Some(snapshots) = registry.snapshots(store) else { return link.close(CloseCode::StreamNotFound) };
    let allowed = snapshots.accept_if.as_ref().is_none_or(|accept_if| {
        let catalog = registry.discovery.catalog();
        // One that panics ends this task and admits nobody.
        catalog.get(peer).is_some_and(|entry| accept_if(entry))
    });
    if !allowed {
        return link.close(CloseCode::NotAllowed);
    }
    drop(registry);
    let cancel = snapshots.cancel.clone();
    let written = cancel.run_until_cancelled(write(&snapshots, &mut link, epoch, at_least)).await;
    let code = written.unwrap_or(Err(CloseCode::ShuttingDown)).err().unwrap_or(CloseCode::Normal);
    tracing::debug!(?peer, ?store, %code, "snapshot over");
    link.close(code);
}

async fn write(snapshots: &Snapshots, link: &mut Link<Snapshot>, epoch: u64, at_least: u64) -> Result<(), CloseCode> {
    let slot = timeout(PATIENCE, snapshots.slots.acquire()).await;
    let _slot = slot.map_err(|_| CloseCode::NoCapacity)?.map_err(|_| CloseCode::ShuttingDown)?;
    let image = timeout(PATIENCE, (snapshots.make)(epoch, at_least)).await.map_err(|_| CloseCode::Timeout)??;
    let hash = *blake3::hash(&image.bytes).as_bytes();
    let mut rest = image.bytes;
    let mut next = Message::Head { seq: image.seq, bytes: rest.len() as u64, hash };
    loop {
        sleep_until(snapshots.turn()).await;
        let sent = timeout(PATIENCE, link.send(&next)).await;
        sent.map_err(|_| CloseCode::TooSlow)?.map_err(|_| CloseCode::Normal)?;
        if rest.is_empty() {
            break;
        }
        next = Message::Chunk(rest.split_to(rest.len().min(CHUNK)));
    }
    snapshots.served.fetch_add(1, Ordering::Relaxed);
    link.finish();
    // The replica closes when it has it all; a reset now would overtake it.
    let _ = timeout(PATIENCE, link.recv()).await;
    Ok(())
}
