//! The thread that writes, and what it shares with the storage's owner: a thread of its own, because there is no
//! asynchronous `fdatasync` and a worker must send heartbeats while one is under way.

use std::{
    collections::VecDeque,
    error::Error,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{super::StorageError, log::Log};
use crate::groups::raft::{Token, Write};

/// Bytes of commands and snapshots that one group takes, unless a single batch has more.
const GROUP: usize = 8 << 20;
/// A group waits for company at most for this part of the time that an `fdatasync` takes, and at most that long.
const GATHER: (u32, Duration) = (4, Duration::from_millis(1));
/// The end of the thread is waited for as long as something becomes durable in such a time. A device that hangs would otherwise
/// hold up whoever ends.
const PROGRESS: Duration = Duration::from_secs(2);
/// After waiting in vain, so many groups do not wait.
const ALONE: u32 = 16;

/// What the owner and the thread share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Batches came, or the end.
    work: Condvar,
    /// The thread has ended.
    end: Condvar,
    /// Something is durable, or will not be.
    written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<(Token, Vec<Write>)>,
    /// Their sizes, summed.
    bytes: usize,
    /// The thread sleeps until so many bytes wait. To wake it costs more than to submit.
    wanted: Option<usize>,
    submitted: Token,
    durable: Token,
    given: Token,
    error: Option<StorageError>,
    waker: Option<Waker>,
    closing: bool,
    ended: bool,
}

impl State {
    fn fail(&mut self, error: StorageError) -> Option<Waker> {
        self.error.get_or_insert(error);
        (self.waiting, self.bytes) = (VecDeque::new(), 0);
        self.waker.take()
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn submit(&self, token: Token, writes: Vec<Write>) {
        let mut state = self.lock();
        if token <= state.submitted {
            let error = format!("token {token} after token {}", state.submitted);
            let waker = state.fail(StorageError::Misuse(error));
            drop(state);
            return wake(waker);
        }
        state.submitted = token;
        if state.error.is_none() {
            state.bytes += size(&writes);
            state.waiting.push_back((token, writes));
            let enough = state.bytes;
            let wake = state.wanted.take_if(|wanted| *wanted <= enough).is_some();
            drop(state);
            if wake {
                self.work.notify_one();
            }
        }
    }

    /// Blocks until a batch is durable, or never will be.
    pub fn until_durable(&self, token: Token) {
        let mut state = self.lock();
        while state.durable < token && state.error.is_none() && !state.ended {
            state = self.written.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub fn poll_durable(&self, cx: &mut Context<'_>) -> Poll<Result<Token, StorageError>> {
        let mut state = self.lock();
        if state.durable > state.given {
            state.given = state.durable;
            return Poll::Ready(Ok(state.durable));
        }
        if let Some(error) = &state.error {
            return Poll::Ready(Err(error.clone()));
        }
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Fails for good, unless that has happened already.
    pub fn fail(&self, error: StorageError) {
        let waker = self.lock().fail(error);
        self.written.notify_all();
        wake(waker);
    }

    /// Forgets what waits.
    pub fn discard(&self) {
        let mut state = self.lock();
        state.waiting.clear();
        state.bytes = 0;
    }

    /// A new life. Who waits for the old one will hear of the new one.
    pub fn reset(&self) {
        let mut state = self.lock();
        let waker = state.waker.take();
        *state = State { waker, ..State::default() };
    }

    /// Waits for batches and takes as many as one group should have; none at the end.
    fn take(&self, writes: &mut Vec<Write>, gather: &mut Gather) -> Option<Token> {
        let mut state = self.lock();
        while state.waiting.is_empty() {
            if state.closing || state.error.is_some() {
                return None;
            }
            state.wanted = Some(0);
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state = self.gather(state, gather);
        let (mut last, mut taken) = (None, 0);
        while taken < GROUP
            && let Some((token, batch)) = state.waiting.pop_front()
        {
            taken += size(&batch);
            writes.extend(batch);
            last = Some(token);
        }
        state.bytes = state.bytes.saturating_sub(taken);
        gather.before = taken;
        last
    }

    /// When a group has become durable, those who waited for it submit again, one after the other. Without a little
    /// patience the first of them goes alone and the others wait for the next group: half the speed.
    fn gather<'a>(&'a self, mut state: MutexGuard<'a, State>, gather: &mut Gather) -> MutexGuard<'a, State> {
        if gather.alone > 0 {
            gather.alone -= 1;
            return state;
        }
        let (first, until) = (state.bytes, now() + (gather.sync / GATHER.0).min(GATHER.1));
        while state.bytes < gather.before && !state.closing {
            let left = until.saturating_duration_since(now());
            if left.is_zero() {
                break;
            }
            state.wanted = Some(gather.before);
            state = self.work.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.wanted = None;
        if state.bytes == first && first < gather.before {
            gather.alone = ALONE;
        }
        state
    }

    /// Tells the thread to end when everything that waits is written.
    fn close(&self) {
        self.lock().closing = true;
        self.work.notify_one();
    }

    /// Waits for the end of the thread; false if nothing moves any more.
    fn ended(&self) -> bool {
        let mut state = self.lock();
        while !state.ended {
            let before = state.durable;
            let waited = self.end.wait_timeout(state, PROGRESS).unwrap_or_else(PoisonError::into_inner);
            state = waited.0;
            if waited.1.timed_out() && !state.ended && state.durable == before {
                return false;
            }
        }
        true
    }

    fn is_idle(&self) -> bool {
        self.lock().waiting.is_empty()
    }

    fn complete(&self, token: Token) {
        let mut state = self.lock();
        state.durable = token;
        let waker = state.waker.take();
        drop(state);
        self.written.notify_all();
        wake(waker);
    }
}

/// How much the batch weighs, bytes.
fn size(batch: &[Write]) -> usize {
    let of = |write: &Write| match write {
        Write::Hard(_) | Write::Founding(_) | Write::Machine(_) => 64,
        Write::Marks(marks) => 64 + 80 * marks.others.len(),
        Write::Replace(entries) => entries.iter().map(|entry| entry.payload.size()).sum(),
        Write::Snapshot { snapshot, .. } => snapshot.data.len(),
    };
    batch.iter().map(of).sum()
}

/// What the thread knows of the recent past.
#[derive(Debug, Default)]
struct Gather {
    /// The size of the last group.
    before: usize,
    /// How long it took.
    sync: Duration,
    /// Groups that shall not wait.
    alone: u32,
}

#[expect(clippy::disallowed_methods, reason = "the thread and its device live in real time")]
fn now() -> Instant {
    Instant::now()
}

/// The running thread. Dropping it waits until everything that was submitted is written, unless the device hangs.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub fn start(log: Log, shared: Arc<Shared>) -> Result<Self, StorageError> {
        let path = log.dir.path.clone();
        {
            let mut state = shared.lock();
            (state.closing, state.ended) = (false, false);
        }
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new().name("mosaik-disk".to_owned()).spawn(move || run(log, &of_thread));
        let thread = thread.map_err(|error| StorageError::io("start a thread for", path, error))?;
        Ok(Self { shared, thread: Some(thread) })
    }
}

impl Writer {
    /// Ends the thread. False if that would take for ever: it is left behind then.
    pub fn end(&mut self) -> bool {
        let Some(thread) = self.thread.take() else { return false };
        self.shared.close();
        if !self.shared.ended() {
            tracing::warn!("the disk of a storage does not answer; the thread that writes is left behind");
            return false;
        }
        if thread.join().is_err() {
            tracing::warn!("the writer of a storage has panicked; what waited is not written");
        }
        true
    }

    /// The thread writes what waits, if it can, and ends by itself. Nobody waits for it.
    pub fn leave_behind(&mut self) {
        self.shared.close();
        self.thread = None;
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.end();
        }
    }
}

/// Says that the thread has ended, and fails the storage if that was by a panic: its owner would wait for ever.
struct OnEnd<'a>(&'a Shared);

impl Drop for OnEnd<'_> {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.end.notify_all();
        self.0.written.notify_all();
        if thread::panicking() {
            self.0
                .fail(StorageError::Other(Arc::from(Box::<dyn Error + Send + Sync>::from("the writer has panicked"))));
        }
    }
}

fn run(mut log: Log, shared: &Shared) {
    let _guard = OnEnd(shared);
    let (mut writes, mut gather) = (Vec::new(), Gather::default());
    while let Some(token) = shared.take(&mut writes, &mut gather) {
        let began = now();
        let appended = log.append(&writes);
        gather.sync = now() - began;
        writes.clear();
        // The proof goes ahead of the report: nothing is acknowledged that could later pass for torn.
        let done = appended.and_then(|()| if shared.is_idle() { log.mark() } else { Ok(()) });
        match done {
            Ok(()) => shared.complete(token),
            Err(error) => {
                tracing::warn!(path = %log.dir.path.display(), %error, "storage has failed, the member must stop");
                return shared.fail(error);
            }
        }
    }
    if let Err(error) = log.segment.sync() {
        shared.fail(error);
    }
}
