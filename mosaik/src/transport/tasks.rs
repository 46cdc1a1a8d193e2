//! The tracked spawner: the only place that calls `tokio::spawn`.
//!
//! Every task of a node runs here, so that the node can wait for them all at shutdown, tests can assert that none
//! is left, and the simulator can crash a node (`abort_all`) or freeze it (`pause`: tasks are not polled). A panic ends its
//! task; that of an essential task is the failure of the node, which ends with it.

use std::{
    any::Any,
    collections::BTreeMap,
    fmt,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use futures::FutureExt;
use tokio::{sync::Notify, task::AbortHandle};
use tracing::Instrument;

use super::awake::{Activity, Awake};
use crate::primitives::watch;

/// Spawns and tracks the tasks of one node. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Tasks(Arc<Shared>);

/// Observes how many tasks a node has left, without keeping the node alive.
#[derive(Clone, Debug)]
pub struct TaskProbe(Weak<Shared>);

/// Why a node ended by itself: a task without which it is of no use to anybody panicked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node ended because its task \"{task}\" panicked: {message}")]
#[non_exhaustive]
pub struct NodeFailure {
    /// The name of the task.
    pub task: &'static str,
    /// What the panic said.
    pub message: String,
}

struct Shared {
    next: AtomicU64,
    paused: AtomicBool,
    /// Whether long computations may go to threads; not in a simulation, whose time they would stop.
    threads: bool,
    /// Keeps the runtime looking after timers and sockets; where there are threads.
    awake: Option<Awake>,
    live: Mutex<Live>,
    empty: Notify,
    failure: watch::Sender<Option<NodeFailure>>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            next: AtomicU64::default(),
            paused: AtomicBool::default(),
            threads: false,
            awake: None,
            live: Mutex::default(),
            empty: Notify::default(),
            failure: watch::Sender::new(None),
        }
    }
}

#[derive(Default)]
struct Live {
    closed: bool,
    tasks: BTreeMap<u64, (&'static str, Option<AbortHandle>)>,
    /// Tasks that were woken while the node was paused, with their newest waker.
    parked: BTreeMap<u64, Waker>,
}

impl Shared {
    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes why the node has to end; the first reason stays.
    fn failed(&self, failure: NodeFailure) {
        self.failure.send_if_modified(|known| known.is_none() && known.replace(failure).is_none());
    }

    fn ended(&self, id: u64) {
        let mut live = self.live();
        live.tasks.remove(&id);
        live.parked.remove(&id);
        if live.tasks.is_empty() {
            self.empty.notify_waiters();
        }
    }
}

impl Tasks {
    /// A spawner that may also use the runtime's threads for blocking work.
    pub(crate) fn with_threads() -> Self {
        Self(Arc::new(Shared { threads: true, awake: Awake::begin(), ..Shared::default() }))
    }

    /// Whether blocking work goes to threads; in a simulation it does not.
    pub(crate) fn has_threads(&self) -> bool {
        self.0.threads
    }

    /// Runs a computation or system call that may take long, beside the runtime's workers; in a simulation at once. `None`
    /// when it panicked or the runtime is ending. When cancelled, it still runs to its end.
    pub(crate) async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        if self.0.threads {
            #[expect(clippy::disallowed_methods, reason = "the one place that uses threads")]
            return tokio::task::spawn_blocking(work).await.ok();
        }
        std::panic::catch_unwind(AssertUnwindSafe(work)).ok()
    }

    /// Watches the handlers of a role that runs here; not in a simulation, where computing takes no time.
    pub(crate) fn watch(&self, activity: &Arc<Activity>) {
        if self.0.awake.is_some() {
            activity.watch();
        }
    }

    /// Runs a future to its end on the node's runtime. A panic is contained and logged with the task's name. After
    /// [`abort_all`](Self::abort_all) nothing is spawned any more: the future is dropped.
    pub(crate) fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        self.spawn_as(name, false, future);
    }

    /// As [`spawn`](Self::spawn), for a task without which the node is of no use: its panic is the node's
    /// [`failure`](Self::failure).
    pub(crate) fn spawn_essential(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        self.spawn_as(name, true, future);
    }

    fn spawn_as(&self, name: &'static str, essential: bool, future: impl Future<Output = ()> + Send + 'static) {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        {
            let mut live = self.0.live();
            if live.closed {
                return;
            }
            live.tasks.insert(id, (name, None));
        }
        let guard = EndGuard { shared: self.0.clone(), id };
        let task = async move {
            let guard = guard;
            if let Err(panic) = AssertUnwindSafe(future).catch_unwind().await {
                let panic = panic_text(&*panic);
                tracing::error!(
                    task = name,
                    panic,
                    essential,
                    "task panicked; this is a bug in mosaik or in a callback given to it"
                );
                if essential {
                    guard.shared.failed(NodeFailure { task: name, message: panic });
                }
            }
        }
        .in_current_span();
        #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
        let handle = tokio::spawn(Gate { shared: self.0.clone(), id, future: Box::pin(task) });
        let mut live = self.0.live();
        if live.closed {
            handle.abort();
        } else if let Some(task) = live.tasks.get_mut(&id) {
            task.1 = Some(handle.abort_handle());
        }
    }

    /// Why the node has to end, if an essential task has panicked.
    pub(crate) fn failure(&self) -> Option<NodeFailure> {
        self.0.failure.borrow().clone()
    }

    /// Resolves when an essential task has panicked. Cancellation-safe.
    pub(crate) async fn failed(&self) -> NodeFailure {
        let mut failure = self.0.failure.subscribe();
        let failure = failure.wait_for(Option::is_some).await.map_or(None, |failure| failure.clone());
        // The sender is in `self`, and nothing takes the failure back.
        match failure {
            Some(failure) => failure,
            None => std::future::pending().await,
        }
    }

    /// Aborts every task and refuses new ones: the way a node crashes, and the last resort of a shutdown.
    pub(crate) fn abort_all(&self) {
        let handles: Vec<_> = {
            let mut live = self.0.live();
            live.closed = true;
            live.tasks.values().filter_map(|(_, handle)| handle.clone()).collect()
        };
        handles.iter().for_each(AbortHandle::abort);
        self.resume();
    }

    /// Stops polling tasks until [`resume`](Self::resume).
    pub(crate) fn pause(&self) {
        self.0.paused.store(true, Ordering::SeqCst);
    }

    /// Polls tasks again.
    pub(crate) fn resume(&self) {
        let parked = {
            let mut live = self.0.live();
            self.0.paused.store(false, Ordering::SeqCst);
            std::mem::take(&mut live.parked)
        };
        parked.into_values().for_each(Waker::wake);
    }

    /// Resolves when no task is left. Cancellation-safe.
    pub(crate) async fn drained(&self) {
        loop {
            let empty = self.0.empty.notified();
            tokio::pin!(empty);
            empty.as_mut().enable();
            if self.0.live().tasks.is_empty() {
                return;
            }
            empty.await;
        }
    }

    /// An observer that outlives the node.
    pub(crate) fn probe(&self) -> TaskProbe {
        TaskProbe(Arc::downgrade(&self.0))
    }
}

impl TaskProbe {
    /// The names of the tasks that are still there, in the order they were spawned.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        self.0.upgrade().map_or_else(Vec::new, |shared| shared.live().tasks.values().map(|(name, _)| *name).collect())
    }

    /// How many tasks are still there.
    #[must_use]
    pub fn count(&self) -> usize {
        self.names().len()
    }

    /// Whether the node has been freed: it has ended, and no handle and no task holds any part of it. That of a simulated
    /// node is known to the simulation until the node starts again.
    #[must_use]
    pub fn is_freed(&self) -> bool {
        self.0.strong_count() == 0
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.probe().names()).finish()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").finish_non_exhaustive()
    }
}

/// What a panic said.
fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| String::from("a value that is not text"))
}

/// Takes the task off the list however it ends: return, panic or abort.
struct EndGuard {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.shared.ended(self.id);
    }
}

/// Polls the inner future unless the node is paused.
struct Gate {
    shared: Arc<Shared>,
    id: u64,
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Future for Gate {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.shared.paused.load(Ordering::SeqCst) {
            let mut live = self.shared.live();
            // Looked at again under the lock, under which `resume` takes the wakers.
            if self.shared.paused.load(Ordering::SeqCst) {
                live.parked.insert(self.id, cx.waker().clone());
                return Poll::Pending;
            }
        }
        self.future.poll_unpin(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panicking_task_is_contained_and_leaves_the_list() {
        let tasks = Tasks::default();
        tasks.spawn("boom", async { panic!("expected by the test") });
        tasks.drained().await;
        assert_eq!(tasks.probe().count(), 0);
    }

    #[tokio::test]
    async fn the_panic_of_an_essential_task_is_the_failure_of_the_node() {
        let tasks = Tasks::default();
        tasks.spawn("other", async { panic!("expected by the test") });
        tasks.drained().await;
        assert_eq!(tasks.failure(), None);
        tasks.spawn_essential("heart", async { panic!("expected by the test, {}", 1) });
        let failure = tasks.failed().await;
        assert_eq!(failure, NodeFailure { task: "heart", message: "expected by the test, 1".into() });
        tasks.spawn_essential("late", async { panic!("expected by the test") });
        tasks.drained().await;
        assert_eq!(tasks.failure(), Some(failure), "the first reason stays");
    }

    #[tokio::test]
    async fn blocking_work_gives_its_result_or_nothing_if_it_panics() {
        for tasks in [Tasks::default(), Tasks::with_threads()] {
            assert_eq!(tasks.blocking(|| 7).await, Some(7));
            assert_eq!(tasks.blocking(|| panic!("expected by the test")).await, None::<u8>);
        }
    }

    #[tokio::test]
    async fn abort_ends_every_task_and_refuses_new_ones() {
        let tasks = Tasks::default();
        tasks.spawn("stuck", std::future::pending());
        assert_eq!(tasks.probe().names(), ["stuck"]);
        tasks.abort_all();
        tasks.spawn("late", std::future::pending());
        tasks.drained().await;
    }

    #[cfg(feature = "testing")]
    #[tokio::test]
    async fn a_paused_task_is_not_polled_and_parks_one_waker() {
        let (tasks, wake) = (Tasks::default(), Arc::new(Notify::new()));
        let (woken, polls) = (wake.clone(), Arc::new(AtomicU64::new(0)));
        let counter = polls.clone();
        tasks.spawn("counter", async move {
            loop {
                woken.notified().await;
                counter.fetch_add(1, Ordering::SeqCst);
            }
        });
        tokio::task::yield_now().await;
        tasks.pause();
        for _ in 0..3 {
            wake.notify_one();
            tokio::task::yield_now().await;
        }
        assert_eq!((polls.load(Ordering::SeqCst), tasks.0.live().parked.len()), (0, 1));
        tasks.resume();
        tokio::task::yield_now().await;
        assert!(polls.load(Ordering::SeqCst) > 0 && tasks.0.live().parked.is_empty());
    }
}
