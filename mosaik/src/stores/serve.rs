//! What a primary answers its replicas beside the deltas: snapshots of the state that is published, serialised once asked, in
//! paced chunks; and whether what a replica has of the run can be.

use std::{
    fmt,
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, Semaphore},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Registry,
    inspect::StoreView,
    lineage::{Answer, Lineage, Run, Start},
    protocol::{CHUNK, CHUNK_TIME, MAX_STATE, Message, Snapshot, TIMEOUT, TURN, codec},
    view::{Position, Versioned, View},
};
use crate::{
    discovery::PeerEntry,
    network::{CloseCode, Link},
    primitives::{PeerId, StoreId, watch},
    trust::Needed,
};

/// Snapshots that one primary serves at a time; further replicas wait for their turn.
const AT_ONCE: u32 = 4;
/// Replicas that may wait for their turn; more are refused and try again.
const WAITING: usize = 256;

/// A serialised state.
struct Image {
    position: Position,
    bytes: Bytes,
}

type Making = Pin<Box<dyn Future<Output = Result<Image, CloseCode>> + Send>>;

/// Whether a peer may have a replica.
pub(super) type Predicate = Arc<dyn Fn(&PeerEntry) -> bool + Send + Sync>;

/// What a replica has that this primary never gave out, as its file says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Contradiction {
    pub(super) peer: PeerId,
    pub(super) has: Position,
}

/// How a primary of any view serves snapshots.
pub(super) struct Snapshots {
    make: Box<dyn Fn(u64, u64) -> Making + Send + Sync>,
    /// What the ticket of a replica needs.
    replica: Needed,
    accept_if: Option<Predicate>,
    slots: Semaphore,
    waiting: Semaphore,
    /// When the next chunk may be written.
    pace: Mutex<Instant>,
    run: Mutex<Run>,
    contradiction: Mutex<Option<Contradiction>>,
    contradicted: Notify,
    /// What an operator should know of this primary.
    trouble: Mutex<Option<String>>,
    /// Snapshots that were written to their end.
    pub(super) served: AtomicU64,
    look: Box<dyn Fn() -> StoreView + Send + Sync>,
    cancel: CancellationToken,
}

impl Snapshots {
    pub(super) fn new<V: View>(
        store: StoreId,
        published: &watch::Sender<Versioned<V>>,
        (replica, accept_if): (Needed, Option<Predicate>),
        run: Run,
        cancel: CancellationToken,
    ) -> Arc<Self> {
        let published = published.subscribe();
        let seen = published.clone();
        let look = move || StoreView::new::<V>(store, seen.borrow().position());
        let make = move |epoch, at_least| -> Making { Box::pin(image(published.clone(), epoch, at_least)) };
        Arc::new(Self {
            make: Box::new(make),
            replica,
            accept_if,
            slots: Semaphore::new(AT_ONCE as usize),
            waiting: Semaphore::new(WAITING),
            pace: Mutex::new(Instant::now()),
            run: Mutex::new(run),
            contradiction: Mutex::default(),
            contradicted: Notify::new(),
            trouble: Mutex::default(),
            served: AtomicU64::new(0),
            look: Box::new(look),
            cancel,
        })
    }

    /// What the primary is, and how far.
    pub(super) fn look(&self) -> StoreView {
        (self.look)()
    }

    pub(super) fn run(&self) -> MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets what an operator should know; gives what it was.
    pub(super) fn set_trouble(&self, trouble: Option<String>) -> Option<String> {
        std::mem::replace(&mut *self.trouble.lock().unwrap_or_else(PoisonError::into_inner), trouble)
    }

    /// Resolves when a replica has proved that this primary's file is an older copy. Cancellation-safe; for one waiter.
    pub(super) async fn contradicted(&self) -> Contradiction {
        loop {
            let known = self.contradiction.lock().unwrap_or_else(PoisonError::into_inner).take();
            match known {
                Some(contradiction) => return contradiction,
                None => self.contradicted.notified().await,
            }
        }
    }

    /// The answer to a replica that has so many deltas of a run, the last of them from that start.
    fn check(&self, peer: PeerId, epoch: u64, next: u64, start: Option<Start>) -> Result<Message, CloseCode> {
        match self.run().check(epoch, next, start) {
            Answer::Agrees(start) => Ok(Message::Checked { start }),
            Answer::OtherRun => Err(CloseCode::NotAllowed),
            Answer::Contradicts => {
                let contradiction = Contradiction { peer, has: Position { epoch, seq: next } };
                *self.contradiction.lock().unwrap_or_else(PoisonError::into_inner) = Some(contradiction);
                self.contradicted.notify_one();
                Ok(Message::Contradicted)
            }
        }
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
    // Another run of this primary was asked for: the replica will be told of this one.
    let right = |state: &Versioned<V>| state.position().epoch != epoch || state.position().seq >= at_least;
    let state = published.wait_for(right).await.map_err(|_| CloseCode::ShuttingDown)?.clone();
    if state.position().epoch != epoch {
        return Err(CloseCode::NotAllowed);
    }
    let bytes = codec::<V, V>().whole(&*state).map_err(|error| {
        tracing::error!(view = V::NAME, %error, "the state of a store cannot be serialised; no replica gets it");
        CloseCode::Undecodable
    })?;
    if bytes.len() as u64 > MAX_STATE {
        tracing::error!(view = V::NAME, bytes = bytes.len(), "the state of a store is too large; no replica gets it");
        return Err(CloseCode::TooLarge);
    }
    Ok(Image { position: state.position(), bytes: bytes.into() })
}

/// Serves a link that a replica opened, to its end.
pub(super) async fn serve(registry: Arc<Registry>, mut link: Link<Snapshot>) {
    let peer = link.peer();
    let question = match timeout(TIMEOUT, link.recv()).await {
        Ok(Ok(Some(question))) => question,
        Ok(Ok(None)) => return link.close(CloseCode::Normal),
        Ok(Err(error)) => {
            tracing::debug!(?peer, %error, "snapshot request failed");
            return;
        }
        Err(_) => return link.close(CloseCode::Timeout),
    };
    let (Message::Ask { store, .. } | Message::Check { store, .. }) = question else {
        return link.close(CloseCode::Undecodable);
    };
    let Some(snapshots) = registry.snapshots(store) else { return link.close(CloseCode::StreamNotFound) };
    let catalog = registry.discovery.catalog();
    let entry = catalog.get(peer);
    // Its subscription to the deltas says so, too, and is noted.
    if let Some(missing) = snapshots.replica.lacks(registry.node.trust(), peer, entry.and_then(PeerEntry::ticket)) {
        tracing::debug!(?peer, %missing, "no snapshot");
        return link.close(CloseCode::NotGranted);
    }
    let allowed = snapshots.accept_if.as_ref().is_none_or(|accept_if| {
        // One that panics ends this task and admits nobody.
        entry.is_some_and(|entry| accept_if(entry))
    });
    if !allowed {
        return link.close(CloseCode::NotAllowed);
    }
    drop(registry);
    let cancel = snapshots.cancel.clone();
    let answered = cancel.run_until_cancelled(answer(&snapshots, &mut link, question)).await;
    let code = answered.unwrap_or(Err(CloseCode::ShuttingDown)).err().unwrap_or(CloseCode::Normal);
    tracing::debug!(?peer, ?store, %code, "snapshot over");
    link.close(code);
}

async fn answer(snapshots: &Snapshots, link: &mut Link<Snapshot>, question: Message) -> Result<(), CloseCode> {
    match question {
        Message::Ask { epoch, at_least, .. } => write(snapshots, link, epoch, at_least).await?,
        Message::Check { epoch, next, start, .. } => {
            let answer = snapshots.check(link.peer(), epoch, next, start)?;
            send(link, &answer).await?;
        }
        _ => return Err(CloseCode::Undecodable),
    }
    link.finish();
    // The replica closes when it has it all; a reset now would overtake it.
    let _ = timeout(TIMEOUT, link.recv()).await;
    Ok(())
}

async fn write(snapshots: &Snapshots, link: &mut Link<Snapshot>, epoch: u64, at_least: u64) -> Result<(), CloseCode> {
    let _waits = snapshots.waiting.try_acquire().map_err(|_| CloseCode::NoCapacity)?;
    let mut slot = pin!(snapshots.slots.acquire());
    let _slot = loop {
        match timeout(TURN, slot.as_mut()).await {
            Ok(slot) => break slot.map_err(|_| CloseCode::ShuttingDown)?,
            Err(_) => send(link, &Message::Wait { served: AT_ONCE }).await?,
        }
    };
    let image = timeout(TIMEOUT, (snapshots.make)(epoch, at_least)).await.map_err(|_| CloseCode::Timeout)??;
    let (start, parents) = {
        let run = snapshots.run();
        if run.epoch != image.position.epoch {
            return Err(CloseCode::NotAllowed);
        }
        let lineage = run.lineage.as_ref();
        (lineage.and_then(Lineage::current), lineage.map_or_else(Vec::new, |lineage| lineage.parents().to_vec()))
    };
    let hash = *blake3::hash(&image.bytes).as_bytes();
    let mut rest = image.bytes;
    let mut next = Message::Head { seq: image.position.seq, bytes: rest.len() as u64, hash, start, parents };
    loop {
        sleep_until(snapshots.turn()).await;
        send(link, &next).await?;
        if rest.is_empty() {
            break;
        }
        next = Message::Chunk(rest.split_to(rest.len().min(CHUNK)));
    }
    snapshots.served.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

async fn send(link: &mut Link<Snapshot>, message: &Message) -> Result<(), CloseCode> {
    let sent = timeout(TIMEOUT, link.send(message)).await;
    sent.map_err(|_| CloseCode::TooSlow)?.map_err(|_| CloseCode::Normal)
}
