//! Keeps a runtime looking after its timers and sockets while a task computes.
//!
//! Of the workers of a tokio runtime, one waits for timers and sockets, the others sleep. When the one that waited is woken by a
//! timer and the task that it runs then computes for seconds, nobody takes its place until another worker happens to be woken:
//! keep-alives, heartbeats and all other tasks stand still, and peers take the node for dead. So one thread per process spawns an
//! empty task on each runtime with a node every [`PERIOD`]: that wakes a sleeping worker, which finds nothing else to do and
//! looks after timers and sockets from then on.
//!
//! The same thread sees handlers of roles that hold a worker ([`Activity`]). A handler that did so once is run beside the workers
//! from then on (`block_in_place`), so that even one per worker cannot stop a runtime for long; one that goes on for
//! [`LONG`] is named in a warning.
//!
//! None of this exists on simulated nodes: there, computing takes no time.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    runtime::{Handle, Id, RuntimeFlavor},
    time::Instant,
};

use crate::primitives::caller::{self, Caller};

/// How often a sleeping worker is woken. A tenth of the keep-alive period, so that none of a connection's timers is late by much.
const PERIOD: Duration = Duration::from_millis(50);
/// From when on a handler that holds a worker is named.
const LONG: Duration = Duration::from_millis(500);
/// From when on a runtime without a free worker is told.
const NO_WORKER: Duration = Duration::from_secs(1);
/// The same is told again after this time at the earliest.
const REPEAT: Duration = Duration::from_mins(1);

static STATE: Mutex<State> = Mutex::new(State { runtimes: Vec::new(), roles: Vec::new(), runs: false });

/// Keeps the current runtime awake for as long as it lives.
#[derive(Debug)]
pub(super) struct Awake(Id);

/// What the handlers of one role do now. Written by the role's task, read by the thread.
pub(crate) struct Activity {
    role: &'static str,
    handlers: Vec<Handler>,
    /// The handler that was polled last.
    current: AtomicUsize,
    /// Begins and ends of polls: odd while one is under way.
    polls: AtomicU64,
    /// Whether the role's runtime can run a handler beside its workers.
    replaces_workers: AtomicBool,
}

struct Handler {
    name: &'static str,
    /// It has held a worker for longer than [`PERIOD`].
    heavy: AtomicBool,
}

struct State {
    runtimes: Vec<Runtime>,
    roles: Vec<Watched>,
    /// Whether there is a thread.
    runs: bool,
}

/// A runtime with nodes on it.
struct Runtime {
    id: Id,
    handle: Handle,
    nodes: usize,
    /// The empty task that was spawned last, and when.
    wakeup: Option<(Arc<AtomicBool>, Instant)>,
    told: Option<Instant>,
}

/// A role as the thread sees it.
struct Watched {
    activity: Weak<Activity>,
    /// The poll that was under way at the last look, and when it was first seen.
    poll: Option<(u64, Instant)>,
    /// When each handler was named last.
    told: BTreeMap<usize, Instant>,
}

/// Something to be told.
enum Notice {
    Computes { role: &'static str, handler: &'static str, time: Duration },
    NoWorker { time: Duration, running: Vec<String> },
}

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Awake {
    /// Begins with the current runtime, if there is one.
    pub(super) fn begin() -> Option<Self> {
        let handle = Handle::try_current().ok()?;
        let id = handle.id();
        let mut state = state();
        match state.runtimes.iter_mut().find(|runtime| runtime.id == id) {
            Some(runtime) => runtime.nodes += 1,
            None => state.runtimes.push(Runtime { id, handle, nodes: 1, wakeup: None, told: None }),
        }
        if !state.runs {
            // The one exception to the rule that a node is tasks and no threads: what it does must not depend on the runtime.
            match thread::Builder::new().name("mosaik-awake".to_owned()).spawn(run) {
                Ok(_) => state.runs = true,
                Err(error) => tracing::warn!(%error, "no thread to keep the runtime awake while handlers compute"),
            }
        }
        Some(Self(id))
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        let mut state = state();
        let Some(at) = state.runtimes.iter().position(|runtime| runtime.id == self.0) else { return };
        state.runtimes[at].nodes -= 1;
        let last = (state.runtimes[at].nodes == 0).then(|| state.runtimes.swap_remove(at));
        drop(state);
        // Without the lock: the end of a runtime may be the end of other nodes.
        drop(last);
    }
}

/// The thread. It ends with the last node of the process.
fn run() {
    loop {
        thread::park_timeout(PERIOD);
        let mut notices = Vec::new();
        {
            let mut state = state();
            if state.runtimes.is_empty() {
                state.runs = false;
                return;
            }
            state.look(Instant::now(), &mut notices);
        }
        notices.iter().for_each(Notice::tell);
    }
}

impl State {
    fn look(&mut self, now: Instant, notices: &mut Vec<Notice>) {
        self.roles.retain_mut(|role| role.look(now, notices));
        let running: Vec<String> = self.roles.iter().filter_map(|role| role.running(now)).collect();
        self.runtimes.iter_mut().for_each(|runtime| runtime.look(now, &running, notices));
    }
}

impl Runtime {
    fn look(&mut self, now: Instant, running: &[String], notices: &mut Vec<Notice>) {
        if self.handle.runtime_flavor() != RuntimeFlavor::MultiThread {
            return;
        }
        match &self.wakeup {
            Some((done, since)) if !done.load(Ordering::Acquire) => {
                let time = now.saturating_duration_since(*since);
                if time >= NO_WORKER && is_due(self.told, now) {
                    self.told = Some(now);
                    notices.push(Notice::NoWorker { time, running: running.to_vec() });
                }
            }
            _ => {
                let done = Arc::new(AtomicBool::new(false));
                self.wakeup = Some((done.clone(), now));
                let done = SetWhenDropped(done);
                #[expect(clippy::disallowed_methods, reason = "it wakes a worker of a runtime from outside of it")]
                drop(self.handle.spawn(async move { drop(done) }));
            }
        }
    }
}

/// Set by the task's end, and by that of a runtime that runs no task any more.
struct SetWhenDropped(Arc<AtomicBool>);

impl Drop for SetWhenDropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn is_due(told: Option<Instant>, now: Instant) -> bool {
    told.is_none_or(|told| now.saturating_duration_since(told) >= REPEAT)
}

impl Watched {
    /// Whether the role is still there.
    fn look(&mut self, now: Instant, notices: &mut Vec<Notice>) -> bool {
        let Some(activity) = self.activity.upgrade() else { return false };
        let poll = activity.polls.load(Ordering::Acquire);
        let since = match self.poll {
            Some((before, since)) if before == poll && poll % 2 == 1 => since,
            _ => {
                self.poll = Some((poll, now));
                return true;
            }
        };
        let index = activity.current.load(Ordering::Relaxed);
        let Some(handler) = activity.handlers.get(index) else { return true };
        let time = now.saturating_duration_since(since);
        if time >= PERIOD {
            handler.heavy.store(true, Ordering::Relaxed);
        }
        if time >= LONG && is_due(self.told.get(&index).copied(), now) {
            self.told.insert(index, now);
            notices.push(Notice::Computes { role: activity.role, handler: handler.name, time });
        }
        true
    }

    /// The handler that holds a worker, if one does.
    fn running(&self, now: Instant) -> Option<String> {
        let activity = self.activity.upgrade()?;
        let (poll, since) = self.poll?;
        let handler = activity.handlers.get(activity.current.load(Ordering::Relaxed))?;
        let holds = poll % 2 == 1 && now.saturating_duration_since(since) >= PERIOD;
        holds.then(|| format!("{} of {}", handler.name, activity.role))
    }
}

impl Notice {
    fn tell(&self) {
        match self {
            Self::Computes { role, handler, time } => tracing::warn!(
                role,
                handler,
                ?time,
                "a handler computes or blocks without a pause; the role does nothing else meanwhile: await, or use a thread"
            ),
            Self::NoWorker { time, running } => tracing::warn!(
                ?time,
                ?running,
                "no worker of the runtime is free: timers and sockets wait, and peers may take this node for dead"
            ),
        }
    }
}

impl Activity {
    /// Of a role with these handlers, which are known by their places.
    pub(crate) fn new(role: &'static str, handlers: impl IntoIterator<Item = &'static str>) -> Arc<Self> {
        let handler = |name| Handler { name, heavy: AtomicBool::new(false) };
        Arc::new(Self {
            role,
            handlers: handlers.into_iter().map(handler).collect(),
            current: AtomicUsize::new(0),
            polls: AtomicU64::new(0),
            replaces_workers: AtomicBool::new(false),
        })
    }

    /// Shows it to the thread.
    pub(super) fn watch(self: &Arc<Self>) {
        let is_multi_thread = |handle: Handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread;
        self.replaces_workers.store(Handle::try_current().is_ok_and(is_multi_thread), Ordering::Relaxed);
        let activity = Arc::downgrade(self);
        state().roles.push(Watched { activity, poll: None, told: BTreeMap::new() });
    }

    /// Runs a part of a handler: user code that may compute. One call at a time.
    pub(crate) fn run<T>(&self, handler: usize, part: impl FnOnce() -> T) -> T {
        let Some(known) = self.handlers.get(handler) else { return part() };
        let _caller = caller::enter(Caller { role: self.role, handler: known.name });
        let _poll = Poll::begin(self, handler);
        if known.heavy.load(Ordering::Relaxed) && self.replaces_workers.load(Ordering::Relaxed) {
            #[expect(clippy::disallowed_methods, reason = "only on the workers of a real runtime")]
            return tokio::task::block_in_place(part);
        }
        part()
    }
}

/// A poll under way; also ends when it panics.
struct Poll<'a>(&'a Activity);

impl<'a> Poll<'a> {
    fn begin(activity: &'a Activity, handler: usize) -> Self {
        activity.current.store(handler, Ordering::Relaxed);
        activity.polls.fetch_add(1, Ordering::Release);
        Self(activity)
    }
}

impl Drop for Poll<'_> {
    fn drop(&mut self) {
        self.0.polls.fetch_add(1, Ordering::Release);
    }
}

impl fmt::Debug for Activity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Activity").field("role", &self.role).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poll_that_lasts_is_named_once_and_its_handler_is_heavy() {
        let activity = Activity::new("Role", ["quick", "slow"]);
        let mut watched = Watched { activity: Arc::downgrade(&activity), poll: None, told: BTreeMap::new() };
        let (began, mut notices) = (Instant::now(), Vec::new());
        activity.run(0, || ());
        assert!(watched.look(began, &mut notices) && watched.running(began).is_none());
        activity.run(1, || {
            for tick in 1..60 {
                let now = began + PERIOD * tick;
                assert!(watched.look(now, &mut notices));
                assert_eq!(caller::current(), Some(Caller { role: "Role", handler: "slow" }));
            }
            assert_eq!(watched.running(began + PERIOD * 60).as_deref(), Some("slow of Role"));
        });
        assert_eq!(caller::current(), None);
        assert!(matches!(notices[..], [Notice::Computes { role: "Role", handler: "slow", time }] if time == LONG));
        assert!(
            activity.handlers[1].heavy.load(Ordering::Relaxed) && !activity.handlers[0].heavy.load(Ordering::Relaxed)
        );
        assert!(watched.look(began + PERIOD * 61, &mut notices) && watched.running(began + PERIOD * 61).is_none());
        drop(activity);
        assert!(!watched.look(began, &mut notices), "a role that has ended is let go");
    }

    #[test]
    fn polls_that_are_short_are_never_heavy_however_many() {
        let activity = Activity::new("Role", ["quick"]);
        let mut watched = Watched { activity: Arc::downgrade(&activity), poll: None, told: BTreeMap::new() };
        let (began, mut notices) = (Instant::now(), Vec::new());
        for tick in 0..100 {
            activity.run(0, || assert!(watched.look(began + PERIOD * tick, &mut notices)));
        }
        assert!(notices.is_empty() && !activity.handlers[0].heavy.load(Ordering::Relaxed));
    }

    #[test]
    fn a_runtime_is_woken_and_one_without_a_free_worker_is_told() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("starts");
        let handle = runtime.handle().clone();
        let mut seen = Runtime { id: handle.id(), handle, nodes: 1, wakeup: None, told: None };
        let (began, mut notices) = (Instant::now(), Vec::new());
        let (release, blocked) = std::sync::mpsc::channel::<()>();
        let (begun, running) = std::sync::mpsc::channel();
        #[expect(clippy::disallowed_methods, reason = "no node is involved")]
        runtime.spawn(async move {
            begun.send(()).expect("the test waits");
            assert!(blocked.recv().is_err());
        });
        running.recv().expect("it runs");
        for tick in 0..30 {
            seen.look(began + PERIOD * tick, &["a handler".to_owned()], &mut notices);
        }
        assert!(matches!(&notices[..], [Notice::NoWorker { running, .. }] if running.len() == 1));
        drop(release);
        let wakeup = |seen: &Runtime| seen.wakeup.as_ref().is_some_and(|(done, _)| done.load(Ordering::Acquire));
        while !wakeup(&seen) {
            thread::yield_now();
        }
        // One that has ended drops what is spawned on it.
        runtime.shutdown_background();
        for tick in 30..100 {
            seen.look(began + PERIOD * tick, &[], &mut notices);
        }
        assert_eq!(notices.len(), 1);
    }
}
