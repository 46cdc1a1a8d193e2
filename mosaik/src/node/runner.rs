//! Runs a role on a node: one task owns the role's state and calls one handler at a time. A handler that fails or panics
//! is reported and counted, and the role goes on; a start handler that fails ends the role.

use std::{
    any::Any,
    fmt,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::FutureExt;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    network::Network,
    primitives::{
        figures::{self, Watch},
        watch,
    },
    transport::Activity,
};

use super::{
    outcome::{Call, Done, Outcome},
    role::{Handlers, RoleError},
    table::{Listed, Once, Table},
};

/// How long a running handler may go on once the role is asked to stop.
const HANDLER_GRACE: Duration = Duration::from_millis(250);
/// How long the stop handler may take.
const STOP_LIMIT: Duration = Duration::from_millis(500);

/// Runs `role` on the node until it is stopped or the node is shut down; `#[stop]` is called in both cases. The role
/// goes on when the handle is dropped.
///
/// Usually the generated main does this; call it to run a role that was made by hand, as in a test.
pub fn spawn<R: Handlers>(network: &Network, role: R) -> RoleHandle {
    let node = network.node();
    let cancel = node.cancel().child_token();
    let counters = Arc::new(Counters::default());
    let (end, ended) = watch::channel(None);
    let handle = RoleHandle { role: R::ROLE.name, cancel: cancel.clone(), counters: counters.clone(), ended };
    let mut table = Table::new();
    R::handlers(&mut table);
    let names = table.names();
    let watch = |name: &&'static str| Watch::with(figures::ROLE_HANDLER, [("role", R::ROLE.name), ("handler", *name)]);
    let watches = names[..table.sources.len()].iter().map(watch).collect();
    let activity = Activity::new(R::ROLE.name, names);
    let runner = Runner { role, table, cancel, counters, watches, activity: activity.clone() };
    let span = tracing::debug_span!("role", role = R::ROLE.name);
    let tasks = node.tasks().clone();
    let task = async move {
        tasks.watch(&activity);
        drop(activity);
        let result = runner.run().await;
        end.send_replace(Some(result));
    };
    node.tasks().spawn("role", task.instrument(span));
    handle
}

/// A running role. Cheap to clone.
#[derive(Clone)]
pub struct RoleHandle {
    role: &'static str,
    cancel: CancellationToken,
    counters: Arc<Counters>,
    ended: watch::Receiver<Option<Result<(), RoleError>>>,
}

impl RoleHandle {
    /// What the role's handlers have done so far.
    #[must_use]
    pub fn status(&self) -> RoleStatus {
        self.counters.status()
    }

    /// Asks the role to stop and waits until it has: the running handler gets 250 ms to end, then `#[stop]` is
    /// called and gets half a second. Cancellation-safe: the role stops anyway.
    ///
    /// # Errors
    /// As [`ended`](Self::ended).
    pub async fn stop(&self) -> Result<(), RoleError> {
        self.cancel.cancel();
        self.ended().await
    }

    /// Waits until the role has ended. Cancellation-safe.
    ///
    /// # Errors
    /// When the start handler failed, or the node was gone before the role had stopped.
    pub async fn ended(&self) -> Result<(), RoleError> {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(result) => result.clone().unwrap_or(Ok(())),
            Err(_) => Err(RoleError::NodeEnded { role: self.role }),
        }
    }
}

impl fmt::Debug for RoleHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoleHandle").field("role", &self.role).field("status", &self.status()).finish_non_exhaustive()
    }
}

/// Counts since the role began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoleStatus {
    /// Handler calls that have ended, however they did.
    pub handled: u64,
    /// Items returned for `emit` that went out.
    pub emitted: u64,
    /// Items returned for `emit` that were dropped: the producer was offline, or its queues were full.
    pub dropped: u64,
    /// Handlers that returned an error.
    pub errors: u64,
    /// Handlers that panicked.
    pub panics: u64,
}

#[derive(Debug, Default)]
struct Counters {
    handled: AtomicU64,
    emitted: AtomicU64,
    dropped: AtomicU64,
    errors: AtomicU64,
    panics: AtomicU64,
}

impl Counters {
    fn status(&self) -> RoleStatus {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RoleStatus {
            handled: read(&self.handled),
            emitted: read(&self.emitted),
            dropped: read(&self.dropped),
            errors: read(&self.errors),
            panics: read(&self.panics),
        }
    }

    fn count(&self, result: &Contained) {
        self.handled.fetch_add(1, Ordering::Relaxed);
        let counter = match result {
            Contained::Ended(Ok(Done::Nothing)) | Contained::Abandoned => return,
            Contained::Ended(Ok(Done::Emitted)) => &self.emitted,
            Contained::Ended(Ok(Done::Dropped)) => &self.dropped,
            Contained::Ended(Err(_)) => &self.errors,
            Contained::Panicked(_) => &self.panics,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// How a handler call went.
enum Contained {
    Ended(Outcome),
    Panicked(String),
    /// It was still running when the role had to stop.
    Abandoned,
}

struct Runner<R> {
    role: R,
    table: Table<R>,
    cancel: CancellationToken,
    counters: Arc<Counters>,
    /// Of each source of the table, by its place.
    watches: Vec<Watch>,
    /// Shows which handler runs.
    activity: Arc<Activity>,
}

impl<R: Handlers> Runner<R> {
    async fn run(mut self) -> Result<(), RoleError> {
        let sources = self.table.sources.len();
        let first_stop = sources + self.table.starts.len();
        tracing::debug!(handlers = ?self.table, "role begins");
        self.table.begin(&mut self.role);
        for (number, start) in (sources..).zip(std::mem::take(&mut self.table.starts)) {
            self.start(number, &start).await?;
        }
        while let Some(index) = self.due().await {
            self.handle(index).await;
            // A stream that is always ready must not keep the executor from everything else.
            tokio::task::coop::consume_budget().await;
        }
        for (number, stop) in (first_stop..).zip(std::mem::take(&mut self.table.stops)) {
            self.stop(number, &stop).await;
        }
        tracing::debug!(status = ?self.counters.status(), "role ended");
        Ok(())
    }

    async fn start(&mut self, number: usize, start: &Once<R>) -> Result<(), RoleError> {
        let call = start.call;
        let handler = (&*self.activity, number);
        let error = match contain(handler, || Some(call(&mut self.role)), grace(&self.cancel)).await {
            Contained::Ended(Ok(_)) | Contained::Abandoned => return Ok(()),
            Contained::Ended(Err(error)) => error,
            Contained::Panicked(message) => format!("panicked: {message}"),
        };
        Err(RoleError::Start { role: R::ROLE.name, handler: start.name, error })
    }

    /// The next source whose handler is due; nothing when the role has to stop.
    async fn due(&mut self) -> Option<usize> {
        let (table, role) = (&mut self.table, &mut self.role);
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => None,
            index = poll_fn(|cx| table.poll_due(role, cx)) => Some(index),
        }
    }

    async fn handle(&mut self, index: usize) {
        let Listed { place, source } = &mut self.table.sources[index];
        let began = self.watches[*place].start();
        let handler = (&*self.activity, *place);
        let result = contain(handler, || source.call(&mut self.role), grace(&self.cancel)).await;
        self.watches[*place].stop(began);
        let (name, origin) = (source.name(), || source.origin());
        self.counters.count(&result);
        report(R::ROLE.name, name, origin, &result);
    }

    async fn stop(&mut self, number: usize, stop: &Once<R>) {
        let call = stop.call;
        let handler = (&*self.activity, number);
        let result = contain(handler, || Some(call(&mut self.role)), sleep(STOP_LIMIT)).await;
        self.counters.count(&result);
        report(R::ROLE.name, stop.name, || String::from("stop"), &result);
    }
}

/// Ends a while after the role was asked to stop.
async fn grace(cancel: &CancellationToken) {
    cancel.cancelled().await;
    sleep(HANDLER_GRACE).await;
}

/// Calls a handler and waits for its end or for `limit`. The state that a panicking handler leaves behind is the
/// user's own: the role goes on with it.
///
/// Whatever is the user's code of it runs within [`Activity::run`].
async fn contain<'a>(
    (activity, handler): (&Activity, usize),
    call: impl FnOnce() -> Option<Call<'a>>,
    limit: impl Future<Output = ()>,
) -> Contained {
    let future = match activity.run(handler, || catch_unwind(AssertUnwindSafe(call))) {
        Ok(None) => return Contained::Ended(Ok(Done::Nothing)),
        Ok(Some(Call::Done(outcome))) => return Contained::Ended(outcome),
        Ok(Some(Call::Later(future))) => future,
        Err(panic) => return Contained::Panicked(message(&*panic)),
    };
    let mut future = AssertUnwindSafe(future).catch_unwind();
    tokio::select! {
        biased;
        result = poll_fn(|cx| activity.run(handler, || future.poll_unpin(cx))) => match result {
            Ok(outcome) => Contained::Ended(outcome),
            Err(panic) => Contained::Panicked(message(&*panic)),
        },
        () = limit => Contained::Abandoned,
    }
}

fn report(role: &'static str, handler: &'static str, source: impl FnOnce() -> String, result: &Contained) {
    match result {
        Contained::Ended(Ok(_)) => {}
        Contained::Ended(Err(error)) => {
            metrics::counter!(figures::ROLE_ERRORS, "role" => role, "handler" => handler).increment(1);
            tracing::error!(role, handler, source = source(), error, "handler failed; the role goes on");
        }
        Contained::Panicked(message) => {
            metrics::counter!(figures::ROLE_PANICS, "role" => role, "handler" => handler).increment(1);
            tracing::error!(role, handler, source = source(), panic = message, "handler panicked; the role goes on");
        }
        Contained::Abandoned => {
            tracing::warn!(role, handler, source = source(), "handler did not end in time and was dropped");
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| String::from("a value that is not text"))
}
