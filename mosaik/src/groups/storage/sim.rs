//! A disk for simulations: it outlives the node that uses it, takes virtual time, and loses what a crash loses.

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::time::{Sleep, sleep};

use super::{Storage, StorageError, apply};
use crate::groups::raft::{Stored, Token, Write};

/// A simulated disk. Clones are the same disk: hand one to the node, keep one to crash, slow or break it, and hand
/// another to the node's next life.
///
/// A life begins with [`load`](Storage::load); what an older life still does has no effect. What was not durable when
/// the node stopped is written all the same, as by a clean end, unless [`crash`](Self::crash) comes first.
#[derive(Debug, Default)]
pub struct SimDisk {
    disk: Arc<Mutex<State>>,
    life: u64,
    given: Token,
    sync: Option<Sync>,
}

/// An `fdatasync` under way.
struct Sync {
    token: Token,
    done: Pin<Box<Sleep>>,
}

#[derive(Debug, Default)]
struct State {
    durable: Stored,
    token: Token,
    /// The last one that this life was given.
    submitted: Token,
    waiting: VecDeque<(Token, Vec<Write>)>,
    life: u64,
    latency: Duration,
    fails: Option<io::ErrorKind>,
    hung: bool,
    error: Option<StorageError>,
    damaged: bool,
    waker: Option<Waker>,
}

impl State {
    /// The batches up to the token reach the platter.
    fn complete(&mut self, token: Token) -> Result<(), StorageError> {
        while self.waiting.front().is_some_and(|(of, _)| *of <= token) {
            let Some((of, writes)) = self.waiting.pop_front() else { break };
            for write in writes {
                apply(&mut self.durable, write).map_err(|error| StorageError::Misuse(error.to_string()))?;
            }
            self.token = of;
        }
        Ok(())
    }

    fn fail(&mut self, error: StorageError) {
        self.waiting.clear();
        self.error.get_or_insert(error);
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl SimDisk {
    /// A blank disk without latency.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// As [`set_latency`](Self::set_latency).
    #[must_use]
    pub fn with_latency(self, latency: Duration) -> Self {
        self.set_latency(latency);
        self
    }

    /// Each `fdatasync` takes so long from now on, in tokio's (virtual) time; what is submitted meanwhile goes into the next.
    pub fn set_latency(&self, latency: Duration) {
        self.with(|state| state.latency = latency);
    }

    /// Power is lost: of the batches that are not durable only the first `survive` are there at the next start. The life
    /// is over.
    pub fn crash(&self, survive: usize) {
        self.with(|state| {
            state.waiting.truncate(survive);
            let last = state.waiting.back().map_or(0, |(token, _)| *token);
            if let Err(error) = state.complete(last) {
                state.fail(error);
            }
            state.life += 1;
        });
    }

    /// The next `fdatasync` of this life fails and nothing after it succeeds (`StorageFull`, `Other` for EIO, ..).
    pub fn fail_next_sync(&self, kind: io::ErrorKind) {
        self.with(|state| {
            state.fails = Some(kind);
            state.wake();
        });
    }

    /// While it is set nothing completes, and nothing fails: a device or a mount that has stopped answering. What waits
    /// completes afterwards. A life that begins meanwhile reads what it can, as from a device that answers again.
    pub fn set_hung(&self, hung: bool) {
        self.with(|state| {
            state.hung = hung;
            state.wake();
        });
    }

    /// A bit has flipped where it matters: every load finds damage until the disk is wiped.
    pub fn damage(&self) {
        self.with(|state| state.damaged = true);
    }

    /// Another disk, with what is durable on this one now: a copy of it as a backup or a snapshot of a machine makes it.
    #[must_use]
    pub fn copied(&self) -> Self {
        let (durable, latency) = self.with(|state| (state.durable.clone(), state.latency));
        let copy = Self::new().with_latency(latency);
        copy.with(|state| state.durable = durable);
        copy
    }

    /// Puts the disk back to what another one holds. The life is over.
    pub fn put_back(&self, copy: &Self) {
        let durable = copy.durable();
        self.with(|state| {
            state.waiting.clear();
            state.durable = durable;
            state.life += 1;
        });
    }

    /// Batches that are submitted and not durable.
    pub fn waiting(&self) -> usize {
        self.with(|state| state.waiting.len())
    }

    /// The bytes of their commands and snapshots.
    pub fn waiting_bytes(&self) -> usize {
        let size = |write: &Write| match write {
            Write::Replace(entries) => entries.iter().map(|entry| entry.payload.size()).sum(),
            Write::Snapshot { snapshot, .. } => snapshot.data.len(),
            Write::Hard(_) | Write::Founding(_) | Write::Machine(_) | Write::Marks(_) => 0,
        };
        self.with(|state| state.waiting.iter().flat_map(|(_, writes)| writes).map(size).sum())
    }

    /// What is durable.
    pub fn durable(&self) -> Stored {
        self.with(|state| state.durable.clone())
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.disk.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Clone for SimDisk {
    fn clone(&self) -> Self {
        Self { disk: Arc::clone(&self.disk), life: 0, given: 0, sync: None }
    }
}

impl Storage for SimDisk {
    fn load(&mut self) -> Result<Stored, StorageError> {
        let (life, stored) = self.with(|state| {
            let last = state.waiting.back().map_or(0, |(token, _)| *token);
            state.complete(last)?;
            if state.damaged {
                return Err(damaged());
            }
            let life = state.life + 1;
            (state.life, state.token, state.submitted) = (life, 0, 0);
            (state.error, state.waker) = (None, None);
            Ok((life, state.durable.clone()))
        })?;
        (self.life, self.given, self.sync) = (life, 0, None);
        Ok(stored)
    }

    fn submit(&mut self, token: Token, writes: Vec<Write>) {
        let life = self.life;
        self.with(|state| {
            if state.life == life && state.error.is_none() {
                assert!(token > state.submitted, "token {token} comes after {}", state.submitted);
                state.submitted = token;
                state.waiting.push_back((token, writes));
                state.wake();
            }
        });
    }

    fn poll_durable(&mut self, cx: &mut Context<'_>) -> Poll<Result<Token, StorageError>> {
        let (life, given) = (self.life, self.given);
        loop {
            let hangs = self.with(|state| {
                if state.hung && state.life == life {
                    state.waker = Some(cx.waker().clone());
                }
                state.hung
            });
            if hangs {
                return Poll::Pending;
            }
            if let Some(Sync { token, done }) = &mut self.sync {
                if done.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                let token = *token;
                self.sync = None;
                self.with(|state| finish(state, life, token));
            }
            let mut state = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
            if state.life != life {
                return Poll::Pending;
            }
            if state.token > given {
                self.given = state.token;
                return Poll::Ready(Ok(state.token));
            }
            if let Some(error) = &state.error {
                return Poll::Ready(Err(error.clone()));
            }
            let Some(token) = state.waiting.back().map(|(token, _)| *token) else {
                state.waker = Some(cx.waker().clone());
                return Poll::Pending;
            };
            if state.latency.is_zero() {
                finish(&mut state, life, token);
            } else {
                self.sync = Some(Sync { token, done: Box::pin(sleep(state.latency)) });
            }
        }
    }

    fn wipe(&mut self) -> Result<(), StorageError> {
        self.with(|state| {
            let (latency, waker, life) = (state.latency, state.waker.take(), state.life + 1);
            *state = State { life, latency, waker, ..State::default() };
        });
        (self.life, self.given, self.sync) = (0, 0, None);
        Ok(())
    }

    fn is_durable(&self) -> bool {
        true
    }
}

/// An `fdatasync` of all batches up to the token is over.
fn finish(state: &mut State, life: u64, token: Token) {
    if state.life != life {
        return;
    }
    let done = match state.fails.take() {
        Some(kind) => Err(StorageError::io("sync", "the simulated disk", kind.into())),
        None => state.complete(token),
    };
    if let Err(error) = done {
        state.fail(error);
    }
}

fn damaged() -> StorageError {
    StorageError::Damaged {
        path: "the simulated disk".into(),
        offset: 0,
        expected: "what was written".to_owned(),
        found: "something else".to_owned(),
    }
}

impl fmt::Debug for Sync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sync of {}", self.token)
    }
}
