//! Runs a role on a node: one task owns the role's state and calls one handler at a time. A handler that fails or panics
//! is reported and counted, and the role goes on, is made anew or ends, as the handler says; a start handler that fails ends the
//! role.

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

use futures::{FutureExt, future::BoxFuture};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    groups::fence::{self, Fence},
    network::Network,
    primitives::{
        GroupId,
        figures::{self, Watch},
        watch,
    },
    transport::Activity,
};

use super::{
    outcome::{Call, Done, Outcome},
    restart::{Delays, Maker},
    role::{Handlers, RoleError},
    table::{AtLeader, Listed, OnError, Once, Source, Table},
};

/// How long a running handler may go on once the role is asked to stop.
const HANDLER_GRACE: Duration = Duration::from_millis(250);
/// How often a role with `#[ready]` is asked at least.
const LOOK: Duration = Duration::from_millis(100);
/// How long the stop handler may take.
const STOP_LIMIT: Duration = Duration::from_millis(500);

/// Runs `role` on the node until it is stopped or the node is shut down; `#[stop]` is called in both cases. The role
/// goes on when the handle is dropped.
///
/// Usually the generated main does this; call it to run a role that was made by hand, as in a test. Nobody can make such a role
/// anew, so it ends where a handler says `on_error = restart`.
pub fn spawn<R: Handlers>(network: &Network, role: R) -> RoleHandle {
    run(network, role, None)
}

/// As [`spawn`], for a role that can be made anew.
pub(super) fn run<R: Handlers>(network: &Network, role: R, maker: Option<Maker<R>>) -> RoleHandle {
    let node = network.node();
    let cancel = node.cancel().child_token();
    let counters = Arc::new(Counters::default());
    let (end, ended) = watch::channel(None);
    let (ready, is_ready) = watch::channel(false);
    let handle =
        RoleHandle { role: R::ROLE.name, cancel: cancel.clone(), counters: counters.clone(), ended, ready: is_ready };
    let table = Table::of();
    let names = table.names();
    let watch = |name: &&'static str| Watch::with(figures::ROLE_HANDLER, [("role", R::ROLE.name), ("handler", *name)]);
    let watches = names[..table.sources.len()].iter().map(watch).collect();
    let activity = Activity::new(R::ROLE.name, names);
    let runner = Runner { table, cancel, counters, watches, activity: activity.clone(), ready };
    let span = tracing::debug_span!("role", role = R::ROLE.name);
    let tasks = node.tasks().clone();
    let task = async move {
        tasks.watch(&activity);
        drop(activity);
        let result = runner.run(role, maker).await;
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
    ready: watch::Receiver<bool>,
}

impl RoleHandle {
    /// What the role's handlers have done so far.
    #[must_use]
    pub fn status(&self) -> RoleStatus {
        RoleStatus { ready: self.is_ready(), ..self.counters.status() }
    }

    /// Whether the role has started and its `#[ready]` method, if it has one, said yes. That is asked again after every handler
    /// and ten times a second.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow() && self.has_ended().is_none()
    }

    /// Waits until the role is ready. Pending for ever if it never is. Cancellation-safe.
    pub async fn when_ready(&self) {
        if self.ready.clone().wait_for(|ready| *ready).await.is_err() {
            std::future::pending::<()>().await;
        }
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

    /// How the role has ended, if it has: as [`ended`](Self::ended).
    #[must_use]
    pub fn has_ended(&self) -> Option<Result<(), RoleError>> {
        self.ended().now_or_never()
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
    /// How often the role was made anew (`on_error = restart`).
    pub restarts: u64,
    /// Whether it is ready: see [`is_ready`](RoleHandle::is_ready).
    pub ready: bool,
}

#[derive(Debug, Default)]
struct Counters {
    handled: AtomicU64,
    emitted: AtomicU64,
    dropped: AtomicU64,
    errors: AtomicU64,
    panics: AtomicU64,
    restarts: AtomicU64,
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
            restarts: read(&self.restarts),
            ready: false,
        }
    }

    /// As [`count`](Self::count), for what counts as no handler.
    fn count_items(&self, result: &Contained) {
        if let Contained::Ended(Ok(Done { emitted, dropped })) = result {
            self.emitted.fetch_add(*emitted, Ordering::Relaxed);
            self.dropped.fetch_add(*dropped, Ordering::Relaxed);
        }
    }

    fn count(&self, result: &Contained) {
        self.count_items(result);
        self.handled.fetch_add(1, Ordering::Relaxed);
        let counter = match result {
            Contained::Abandoned | Contained::Ended(Ok(_)) => return,
            Contained::Ended(Err(_)) => &self.errors,
            Contained::Panicked(_) => &self.panics,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// How a handler call went.
pub(super) enum Contained {
    Ended(Outcome),
    Panicked(String),
    /// It was still running when the role had to stop.
    Abandoned,
}

pub(super) struct Runner<R> {
    pub(super) table: Table<R>,
    pub(super) cancel: CancellationToken,
    counters: Arc<Counters>,
    /// Of each source of the table, by its place.
    pub(super) watches: Vec<Watch>,
    /// Shows which handler runs.
    pub(super) activity: Arc<Activity>,
    ready: watch::Sender<bool>,
}

/// How a life of a role ended.
pub(super) enum Ending {
    /// It was asked to stop.
    Stopped,
    /// A handler failed, of those whose failure is not only reported.
    Failed(OnError, RoleError),
}

impl<R: Handlers> Runner<R> {
    /// One life after the other.
    async fn run(mut self, mut role: R, maker: Option<Maker<R>>) -> Result<(), RoleError> {
        let mut delays = Delays::default();
        loop {
            let ending = self.live(&mut role).await?;
            self.ready.send_replace(false);
            let (error, maker) = match (ending, &maker) {
                (Ending::Failed(OnError::Restart, error), Some(maker)) => (error, maker),
                (ending, _) => {
                    self.end(&mut role).await;
                    tracing::debug!(status = ?self.counters.status(), "role ended");
                    return match ending {
                        Ending::Stopped => Ok(()),
                        Ending::Failed(_, error) => Err(error),
                    };
                }
            };
            // Its endpoints close before others of the same streams are opened.
            self.table.sources.clear();
            drop(role);
            tracing::error!(%error, "the role is made anew");
            let cancel = self.cancel.clone();
            let Some(again) = cancel.run_until_cancelled(delays.make(maker)).await else { return Ok(()) };
            role = again?;
            self.table = Table::of();
            self.counters.restarts.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn live(&mut self, role: &mut R) -> Result<Ending, RoleError> {
        let sources = self.table.sources.len();
        tracing::debug!(handlers = ?self.table, "role begins");
        self.table.begin(role);
        if self.table.ready.is_some() {
            role.set_ready(false);
        }
        for (number, start) in (sources..).zip(std::mem::take(&mut self.table.starts)) {
            self.start(role, number, &start).await?;
        }
        self.look(role);
        if let Some(lend) = self.table.lend {
            return self.live_together(role, lend).await;
        }
        while let Some(due) = self.due(role).await {
            if let Due::Handler(index) = due
                && let Some(failed) = self.handle(role, index).await
            {
                return Ok(failed);
            }
            self.look(role);
            // A stream that is always ready must not keep the executor from everything else.
            tokio::task::coop::consume_budget().await;
        }
        Ok(Ending::Stopped)
    }

    async fn end(&mut self, role: &mut R) {
        for (number, stop) in (self.table.first_stop()..).zip(std::mem::take(&mut self.table.stops)) {
            self.stop(role, number, &stop).await;
        }
    }

    /// Whether the role is ready now.
    pub(super) fn look(&self, role: &R) {
        let ready = self.table.ready.is_none_or(|ready| {
            // It is asked again soon: one that panics says no.
            catch_unwind(AssertUnwindSafe(|| ready(role))).unwrap_or_default()
        });
        let changed = self.ready.send_if_modified(|before| std::mem::replace(before, ready) != ready);
        if changed && self.table.ready.is_some() {
            role.set_ready(ready);
        }
    }

    async fn start(&mut self, role: &mut R, number: usize, start: &Once<R>) -> Result<(), RoleError> {
        let call = start.call;
        let handler = (&*self.activity, number);
        let result = contain(handler, || Some(call(role)), grace(&self.cancel)).await;
        let error = match &result {
            Contained::Ended(Ok(_)) => {
                self.counters.count_items(&result);
                return Ok(());
            }
            Contained::Abandoned => return Ok(()),
            Contained::Ended(Err(error)) => error.clone(),
            Contained::Panicked(message) => format!("panicked: {message}"),
        };
        Err(RoleError::Start { role: R::ROLE.name, handler: start.name, error })
    }

    /// What comes next; nothing when the role has to stop.
    async fn due(&mut self, role: &mut R) -> Option<Due> {
        let table = &mut self.table;
        let asks = table.ready.is_some();
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => None,
            index = poll_fn(|cx| table.poll_due(role, cx)) => Some(Due::Handler(index)),
            () = look_again(asks) => Some(Due::Look),
        }
    }

    /// Calls the handler of a source; what comes of it if that is the end of this life.
    pub(super) async fn handle(&mut self, role: &mut R, index: usize) -> Option<Ending> {
        let Listed { place, source, once, .. } = &mut self.table.sources[index];
        let under = once.as_ref().map(AtLeader::fence);
        if under == Some(None) {
            // Another member leads, and its role does it.
            source.skip();
            return None;
        }
        let under = under.flatten();
        let began = self.watches[*place].start();
        let handler = (&*self.activity, *place);
        let result = contain(handler, || call(&mut **source, role, under), grace(&self.cancel)).await;
        self.watches[*place].stop(began);
        let Listed { source, on_error, once, .. } = &self.table.sources[index];
        // What fails because another member leads by now is that one's to do.
        let is_over = once.as_ref().is_some_and(|once| once.has_ended(under));
        let on_error = if is_over { OnError::Log } else { *on_error };
        self.conclude((source.name(), on_error), || source.origin(), result)
    }

    /// Counts and reports a call of a handler; what comes of it if that is the end of this life.
    pub(super) fn conclude(
        &self,
        (name, on_error): (&'static str, OnError),
        origin: impl FnOnce() -> String,
        result: Contained,
    ) -> Option<Ending> {
        self.counters.count(&result);
        report(R::ROLE.name, name, origin, &result);
        let error = match result {
            Contained::Ended(Err(error)) => error,
            Contained::Panicked(message) => format!("panicked: {message}"),
            Contained::Ended(Ok(_)) | Contained::Abandoned => return None,
        };
        let failed = RoleError::Handler { role: R::ROLE.name, handler: name, error };
        (on_error != OnError::Log).then_some(Ending::Failed(on_error, failed))
    }

    async fn stop(&mut self, role: &mut R, number: usize, stop: &Once<R>) {
        let call = stop.call;
        let handler = (&*self.activity, number);
        let result = contain(handler, || Some(call(role)), sleep(STOP_LIMIT)).await;
        self.counters.count(&result);
        report(R::ROLE.name, stop.name, || String::from("stop"), &result);
    }
}

/// What comes next.
enum Due {
    /// The source at this index.
    Handler(usize),
    /// A look at whether the role is ready.
    Look,
}

/// Calls the handler of a source, under a leadership if it is one of the leader's.
fn call<'a, R>(source: &mut dyn Source<R>, role: &'a mut R, under: Option<(GroupId, Fence)>) -> Option<Call<'a>> {
    match under {
        Some(under) => fence::within(under, || source.call(role)).map(|call| call.under(under)),
        None => source.call(role),
    }
}

/// Ends when a role that can say whether it is ready is to be asked again.
pub(super) async fn look_again(asks: bool) {
    if asks {
        sleep(LOOK).await;
    } else {
        std::future::pending::<()>().await;
    }
}

/// Ends a while after the role was asked to stop.
pub(super) async fn grace(cancel: &CancellationToken) {
    cancel.cancelled().await;
    sleep(HANDLER_GRACE).await;
}

/// Calls a handler and waits for its end or for `limit`. The state that a panicking handler leaves behind is the
/// user's own: the role goes on with it.
///
/// Whatever is the user's code of it runs within [`Activity::run`].
async fn contain<'a>(
    handler: (&Activity, usize),
    call: impl FnOnce() -> Option<Call<'a>>,
    limit: impl Future<Output = ()>,
) -> Contained {
    finish_call(handler, begin_call(handler, call), limit).await
}

/// Calls a handler; what is left to be waited for, if it is not done with that.
pub(super) fn begin_call<'a>(
    (activity, handler): (&Activity, usize),
    call: impl FnOnce() -> Option<Call<'a>>,
) -> Result<BoxFuture<'a, Outcome>, Contained> {
    match activity.run(handler, || catch_unwind(AssertUnwindSafe(call))) {
        Ok(None) => Err(Contained::Ended(Ok(Done::default()))),
        Ok(Some(Call::Done(outcome))) => Err(Contained::Ended(outcome)),
        Ok(Some(Call::Later(future))) => Ok(future),
        Err(panic) => Err(Contained::Panicked(message(&*panic))),
    }
}

/// Waits for the end of a handler that was called, or for `limit`.
pub(super) async fn finish_call(
    (activity, handler): (&Activity, usize),
    called: Result<BoxFuture<'_, Outcome>, Contained>,
    limit: impl Future<Output = ()>,
) -> Contained {
    let future = match called {
        Ok(future) => future,
        Err(contained) => return contained,
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
            tracing::error!(role, handler, source = source(), error, "handler failed");
        }
        Contained::Panicked(message) => {
            metrics::counter!(figures::ROLE_PANICS, "role" => role, "handler" => handler).increment(1);
            tracing::error!(role, handler, source = source(), panic = message, "handler panicked");
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
