//! The worker of a primary: it folds deltas, makes them durable, sends them on and publishes the state.
//!
//! Each batch goes through these in that order. What the view cannot fold is answered before anything of it is written or sent;
//! what is written before it is sent no replica shows although its primary could lose it. Readers see a batch when all of it is
//! sent. A full disk is waited for.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    Registry, StoreError,
    disk::{Disk, Failure, Origin},
    lineage::{Run, Witness},
    save::COMPACT,
    serve::{Contradiction, Snapshots},
    tried,
    view::{Position, Versioned, View},
};
use crate::{
    primitives::{
        Fence, StoreId,
        figures::{self, Watch},
        watch,
    },
    streams::{Encoded, Producer},
};

/// Deltas that may wait for the worker, and that it publishes at once.
pub(super) const COMMANDS: usize = 1024;
/// Between two attempts to write to a disk that is full.
const RETRY: Duration = Duration::from_secs(1);

type Answer = oneshot::Sender<Result<Position, StoreError>>;
/// A delta, of a store that a group owns the leadership under which it is applied, and who waits for it.
pub(super) type Command<V> = (<V as View>::Delta, Option<Fence>, Answer);
/// A delta that was folded, and is to be written and sent.
type Ready<V> = (Encoded<<V as View>::Delta>, Answer);

/// The file of a durable store.
pub(super) struct Durable {
    disk: Arc<Disk>,
    /// How long writing takes.
    writes: Watch,
    /// Bytes of the state that was written last, and of the deltas since.
    kept: usize,
    grown: usize,
    /// When the state may be put in the place of the deltas.
    compact_at: Instant,
}

impl Durable {
    pub(super) fn new(disk: Arc<Disk>, store: StoreId, (kept, grown): (usize, usize)) -> Self {
        let writes = Watch::new(figures::STORE_WRITE, "store", figures::label(store.as_bytes(), store));
        Self { disk, writes, kept, grown, compact_at: Instant::now() }
    }
}

pub(super) struct Worker<V: View> {
    pub(super) registry: Arc<Registry>,
    pub(super) store: StoreId,
    pub(super) producer: Producer<V::Delta>,
    pub(super) state: V,
    pub(super) position: Position,
    pub(super) durable: Option<Durable>,
    pub(super) published: watch::Sender<Versioned<V>>,
    pub(super) snapshots: Arc<Snapshots>,
    pub(super) cancel: CancellationToken,
}

impl<V: View> Drop for Worker<V> {
    /// A replica whose primary has failed must not take itself for synced. What is shut down, on the other hand, hands over what
    /// is queued first.
    fn drop(&mut self) {
        if !self.cancel.is_cancelled() {
            self.producer.close();
        }
        self.registry.remove_primary(self.store, &self.snapshots);
    }
}

impl<V: View> Worker<V> {
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command<V>>) {
        let (cancel, snapshots) = (self.cancel.clone(), self.snapshots.clone());
        let mut batch = Vec::new();
        loop {
            let taken = tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                contradiction = snapshots.contradicted() => {
                    if !self.begin_anew(contradiction).await {
                        return;
                    }
                    continue;
                }
                taken = commands.recv_many(&mut batch, COMMANDS) => taken,
            };
            if taken == 0 || !self.apply(&mut batch).await || !self.compact().await {
                return;
            }
            tokio::task::coop::consume_budget().await;
        }
    }

    /// Applies a batch and answers all of it. False when the store cannot go on.
    async fn apply(&mut self, batch: &mut Vec<Command<V>>) -> bool {
        let mut good: Vec<Ready<V>> = Vec::with_capacity(batch.len());
        for (delta, _, answer) in batch.drain(..) {
            let folded = self.producer.encode(&delta).map_err(|kind| StoreError::Delta(kind.to_string()));
            let folded = folded.and_then(|encoded| match tried(&mut self.state, delta) {
                Ok(()) => Ok(encoded),
                Err(panic) => {
                    tracing::error!(store = ?self.store, panic, "a view panicked on a delta, which is refused");
                    Err(StoreError::Panicked(panic))
                }
            });
            match folded {
                Ok(encoded) => good.push((encoded, answer)),
                Err(error) => {
                    let broken = matches!(error, StoreError::Panicked(_));
                    // Who asked may be gone; so below.
                    let _ = answer.send(Err(error));
                    if broken && !self.fold_again(&good) {
                        return false;
                    }
                }
            }
        }
        if let Err(error) = self.write(&good).await {
            tracing::error!(store = ?self.store, %error, "a delta cannot be written; the store is closed");
            good.into_iter().for_each(|(_, answer)| _ = answer.send(Err(error.clone())));
            return false;
        }
        let mut answers = Vec::with_capacity(good.len());
        for (encoded, answer) in good {
            // Nothing but the end of the stream can fail now.
            let sent = self.cancel.run_until_cancelled(self.producer.send_encoded(encoded)).await;
            if !matches!(sent, Some(Ok(()))) {
                return false;
            }
            self.position.seq += 1;
            answers.push((answer, self.position));
        }
        self.published.send_replace(Versioned::new(self.state.clone(), self.position));
        answers.into_iter().for_each(|(answer, position)| _ = answer.send(Ok(position)));
        true
    }

    /// The state as of before the batch, with these deltas folded: what a panic has left half done is gone.
    fn fold_again(&mut self, good: &[Ready<V>]) -> bool {
        self.state = V::clone(&self.published.borrow());
        for (encoded, _) in good {
            let folded = encoded.decode().map_err(|error| error.to_string());
            if let Err(reason) = folded.and_then(|delta| tried(&mut self.state, delta)) {
                tracing::error!(store = ?self.store, reason, "a delta cannot be folded a second time; the store is closed");
                return false;
            }
        }
        true
    }

    /// Makes a batch durable, if the store is. Waits while the disk is full.
    async fn write(&mut self, good: &[Ready<V>]) -> Result<(), StoreError> {
        let Some(durable) = self.durable.as_mut().filter(|_| !good.is_empty()) else { return Ok(()) };
        let deltas: Vec<Vec<u8>> = good.iter().map(|(encoded, _)| encoded.marked()).collect();
        durable.grown += deltas.iter().map(Vec::len).sum::<usize>();
        let (first, began) = (self.position.seq, durable.writes.start());
        let end = first + deltas.len() as u64;
        self.until_there_is_room(move |disk| disk.append(first, &deltas, None)).await?;
        if let Some(durable) = &self.durable {
            durable.writes.stop(began);
        }
        self.snapshots.run().end = end;
        Ok(())
    }

    /// Puts the state in the place of its deltas, if these have become many. False when it cannot be done.
    async fn compact(&mut self) -> bool {
        let due = |it: &&mut Durable| it.grown >= COMPACT.max(it.kept) && it.compact_at <= Instant::now();
        let Some(durable) = self.durable.as_mut().filter(due) else { return true };
        let (disk, state) = (durable.disk.clone(), self.published.borrow().clone());
        let origin = self.origin();
        let write = move || disk.replace(None, state.position(), &*state, &origin);
        let written = self.registry.node.tasks().blocking(write).await;
        let Some(durable) = &mut self.durable else { return true };
        match written {
            Some(Ok(bytes)) => {
                (durable.kept, durable.grown) = (bytes, 0);
                true
            }
            // What is there is as good, and there may be room for it later.
            Some(Err(Failure { is_full: true, error })) => {
                tracing::warn!(store = ?self.store, %error, "no room to write the state in the place of its deltas");
                durable.compact_at = Instant::now() + 10 * RETRY;
                true
            }
            Some(Err(Failure { error, .. })) => {
                tracing::error!(store = ?self.store, %error, "the state cannot be written; the store is closed");
                false
            }
            None => false,
        }
    }

    /// A replica has what this file never had: the file was put back to an older copy, and numbers would be used twice. Begins a
    /// new run with the state that is there. False when the store cannot go on.
    async fn begin_anew(&mut self, Contradiction { peer, has }: Contradiction) -> bool {
        let before = self.position;
        if has.epoch < before.epoch {
            return true;
        }
        let lineage = self.origin().lineage.continued(before.epoch, Some(has.epoch), self.registry.random());
        let after = Position { epoch: self.producer.epoch_after(has.epoch), seq: 0 };
        let state = self.published.borrow().clone();
        let origin = Origin { lineage: lineage.clone(), witness: Witness::default() };
        let write = move |disk: &Disk| disk.replace(None, after, &*state, &origin);
        match self.until_there_is_room(write).await {
            Ok(bytes) => {
                if let (Some(durable), Some(bytes)) = (&mut self.durable, bytes) {
                    (durable.kept, durable.grown) = (bytes, 0);
                }
            }
            Err(error) => {
                tracing::error!(store = ?self.store, %error, "a new run cannot be written; the store is closed");
                return false;
            }
        }
        self.producer.begin_anew(after.epoch);
        *self.snapshots.run() = Run { epoch: after.epoch, end: 0, lineage: Some(lineage) };
        self.position = after;
        self.published.send_replace(Versioned::new(self.state.clone(), after));
        let text = format!(
            "its file is an older copy: it ended at {before} when {peer} showed that it had been at {has}, and began the new \
             run {} with what it had",
            after.epoch
        );
        tracing::warn!(store = ?self.store, ?peer, had = %before, replica = %has, now = %after,
            "the file of a primary was put back to an older copy: deltas are lost, a new run begins");
        self.snapshots.set_trouble(Some(text));
        true
    }

    fn origin(&self) -> Origin {
        let lineage = self.snapshots.run().lineage.clone().unwrap_or_default();
        Origin { lineage, witness: Witness::default() }
    }

    /// Writes, again and again while the disk is full. Nothing if there is no disk.
    async fn until_there_is_room<T: Send + 'static>(
        &self,
        write: impl Fn(&Disk) -> Result<T, Failure> + Send + Sync + 'static,
    ) -> Result<Option<T>, StoreError> {
        let Some(durable) = &self.durable else { return Ok(None) };
        let write = Arc::new(write);
        let mut before = None;
        loop {
            let (disk, write) = (durable.disk.clone(), write.clone());
            match self.registry.node.tasks().blocking(move || write(&disk)).await {
                None => return Err(StoreError::Closed),
                Some(Ok(done)) => {
                    if let Some(before) = before {
                        self.snapshots.set_trouble(before);
                        tracing::warn!(store = ?self.store, "there is room on the disk again, a store goes on");
                    }
                    return Ok(Some(done));
                }
                Some(Err(Failure { is_full: true, error })) => {
                    if before.is_none() {
                        tracing::error!(store = ?self.store, %error, "the disk is full, deltas of a store wait for room");
                        let text = format!("the disk is full, deltas wait for room: {error}");
                        before = Some(self.snapshots.set_trouble(Some(text)));
                    }
                    if self.cancel.run_until_cancelled(sleep(RETRY)).await.is_none() {
                        return Err(StoreError::Closed);
                    }
                }
                Some(Err(Failure { error, .. })) => return Err(error),
            }
        }
    }
}
