//! How a durable replica keeps what it has: the deltas that it folds are appended about once a second, and the state is written
//! in their place when it was replaced, or when they have become many.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    StoreError,
    core::At,
    disk::{Disk, Failure, Origin},
    lineage::{Lineage, Witness},
    protocol::codec,
    view::{Position, View},
};
use crate::transport::Tasks;

/// Between two writes.
const EVERY: Duration = Duration::from_secs(1);
/// The state is written in the place of its deltas when these have so many bytes, and at least as many as the state. So many
/// also wait for the next write at most.
pub(super) const COMPACT: usize = 4 << 20;

/// So many deltas, or bytes of them, do not wait for that.
const MANY: (usize, usize) = (8192, 512 << 10);

/// What a delta costs beside its bytes, in memory and on disk.
const ENTRY: usize = 24;

/// What is on disk.
type Known = (At, Witness);

/// The bytes of a state that was written whole, or none.
type Saving = Pin<Box<dyn Future<Output = Result<Option<usize>, Failure>> + Send>>;

/// See the module's text.
pub(super) struct Saver {
    disk: Arc<Disk>,
    saved: Option<Known>,
    /// Encoded deltas from `first` on that are not on disk, and their bytes.
    unsaved: Vec<Vec<u8>>,
    first: u64,
    waiting: usize,
    /// What is on disk cannot be brought further by deltas.
    whole: bool,
    /// Bytes of the state that was written last, and of the deltas since.
    kept: usize,
    grown: usize,
    writing: Option<(Known, Saving)>,
    due: Instant,
    /// Why the last write failed.
    pub(super) trouble: Option<String>,
}

impl Saver {
    /// Of a file that holds this much, in so many bytes of state and deltas.
    pub(super) fn new(disk: Arc<Disk>, saved: Option<Known>, bytes: (usize, usize)) -> Self {
        let first = saved.map_or(0, |(at, _)| at.next);
        Self {
            disk,
            saved,
            unsaved: Vec::new(),
            first,
            waiting: 0,
            whole: saved.is_none(),
            kept: bytes.0,
            grown: bytes.1,
            writing: None,
            due: Instant::now(),
            trouble: None,
        }
    }

    pub(super) fn disk(&self) -> &Arc<Disk> {
        &self.disk
    }

    /// This delta is about to be folded.
    pub(super) fn folds<V: View>(&mut self, delta: &V::Delta) {
        if self.whole {
            return;
        }
        match codec::<V, _>().marked(delta, usize::MAX) {
            Ok(bytes) if self.waiting + bytes.len() + ENTRY <= COMPACT.max(self.kept) => {
                self.waiting += bytes.len() + ENTRY;
                self.unsaved.push(bytes);
            }
            _ => self.replaced(),
        }
    }

    /// The state was replaced, or deltas cannot be appended any more.
    pub(super) fn replaced(&mut self) {
        self.whole = true;
        self.unsaved = Vec::new();
        self.waiting = 0;
    }

    /// By how many deltas, and about how many bytes of them, the file is behind a state.
    pub(super) fn behind(&self, at: Option<At>) -> (u64, usize) {
        let Some(at) = at else { return (0, 0) };
        let saved = self.saved.filter(|(saved, _)| (saved.primary, saved.epoch) == (at.primary, at.epoch));
        (at.next.saturating_sub(saved.map_or(0, |(saved, _)| saved.next)), self.waiting)
    }

    /// When to write, if there is anything to write and nothing is being written.
    pub(super) fn due(&self, at: Option<At>, witness: Witness) -> Option<Instant> {
        let changed = at.is_some_and(|at| self.saved != Some((at, witness)));
        let many = self.unsaved.len() >= MANY.0 || self.waiting >= MANY.1;
        (changed && self.writing.is_none()).then(|| if many { Instant::now() } else { self.due })
    }

    /// Begins to write.
    pub(super) fn write<V: View>(&mut self, tasks: &Tasks, at: At, witness: Witness, state: &V) {
        let (tasks, disk) = (tasks.clone(), self.disk.clone());
        let origin = Origin { lineage: Lineage::default(), witness };
        let run = self.saved.map(|(saved, _)| (saved.primary, saved.epoch));
        let follows = run == Some((at.primary, at.epoch)) && self.first + self.unsaved.len() as u64 == at.next;
        let saving: Saving = if self.whole || !follows || self.grown + self.waiting >= COMPACT.max(self.kept) {
            let (state, position) = (state.clone(), Position { epoch: at.epoch, seq: at.next });
            let write = move || disk.replace(Some(at.primary), position, &state, &origin).map(Some);
            Box::pin(async move { tasks.blocking(write).await.unwrap_or_else(|| Err(ended())) })
        } else {
            let (first, deltas) = (self.first, std::mem::take(&mut self.unsaved));
            self.grown += self.waiting;
            let write = move || disk.append(first, &deltas, Some(&origin)).map(|()| None);
            Box::pin(async move { tasks.blocking(write).await.unwrap_or_else(|| Err(ended())) })
        };
        (self.unsaved, self.waiting, self.first, self.whole) = (Vec::new(), 0, at.next, false);
        self.writing = Some(((at, witness), saving));
        self.due = Instant::now() + EVERY;
    }

    /// Resolves when a write is over. Cancellation-safe; never resolves while there is none.
    pub(super) async fn written(&mut self) -> Result<Option<usize>, Failure> {
        match &mut self.writing {
            Some((_, saving)) => saving.await,
            None => std::future::pending().await,
        }
    }

    /// A write is over. Whether that is worth a line: it has failed for the first time (with the error), or is good again.
    pub(super) fn over(&mut self, result: Result<Option<usize>, Failure>) -> Option<Result<(), StoreError>> {
        let (what, _) = self.writing.take()?;
        match result {
            Ok(whole) => {
                self.saved = Some(what);
                if let Some(bytes) = whole {
                    (self.kept, self.grown) = (bytes, 0);
                }
                self.trouble.take().map(|_| Ok(()))
            }
            Err(Failure { error, .. }) => {
                // Whether it is there nobody knows.
                self.replaced();
                self.trouble.replace(error.to_string()).is_none().then_some(Err(error))
            }
        }
    }
}

/// The runtime is ending, or writing has panicked.
fn ended() -> Failure {
    Failure { is_full: false, error: StoreError::Closed }
}
