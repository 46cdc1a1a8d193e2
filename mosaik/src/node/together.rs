//! Handlers with `concurrency = n`: several calls share the role at a time, until a handler is due that has it for itself.
//!
//! All of them are polled by the role's one task, so they take turns at their `await`s and never compute at the same time. Calls
//! begin in the order of the items and may end in any other. When a handler without `concurrency` is due, no further call begins;
//! it runs once those under way have ended, so that a busy stream does not keep it waiting for ever.
//!
//! While calls share the role, nobody has it for itself: their fields are polled by handles of their own
//! ([`Feeds::detach`](super::feed::Feeds)). A role that is shared between threads is `Sync`; only generated code knows that it is,
//! which is why it lends the role ([`lend`]).

use std::{future::poll_fn, pin::Pin};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    role::{Handlers, RoleError},
    runner::{Contained, Ending, Runner, begin_call, finish_call, grace, look_again},
    table::OnError,
};

/// A role that calls share.
pub trait Lent<'a, R>: Send {
    /// The role.
    fn role(&self) -> &'a R;
}

/// How generated code lends its role.
pub(super) type Lend<R> = for<'a> fn(&'a R) -> Box<dyn Lent<'a, R> + 'a>;

struct Shared<'a, R>(&'a R);

impl<'a, R: Sync> Lent<'a, R> for Shared<'a, R> {
    fn role(&self) -> &'a R {
        self.0
    }
}

/// Lends a role to several calls at a time.
#[must_use]
pub fn lend<'a, R: Sync>(role: &'a R) -> Box<dyn Lent<'a, R> + 'a> {
    Box::new(Shared(role))
}

/// A call that has ended.
struct Ended {
    /// The place of its source.
    place: usize,
    handler: (&'static str, OnError),
    origin: String,
    began: Option<Instant>,
    result: Contained,
}

type Running<'a> = FuturesUnordered<Pin<Box<dyn Future<Output = Ended> + Send + 'a>>>;

/// What comes when no call is under way any more.
enum Next {
    /// The handler of this source, with the role for itself.
    Alone(usize),
    /// The end of this life.
    End(Ending),
}

impl<R: Handlers> Runner<R> {
    /// One life of a role that has a handler with `concurrency`.
    pub(super) async fn live_together(&mut self, role: &mut R, lend: Lend<R>) -> Result<Ending, RoleError> {
        self.table.detach(role);
        loop {
            let index = match self.share(lend(role)).await {
                Next::Alone(index) => index,
                Next::End(ending) => return Ok(ending),
            };
            if self.cancel.is_cancelled() {
                return Ok(Ending::Stopped);
            }
            if let Some(failed) = self.handle(role, index).await {
                return Ok(failed);
            }
            self.look(role);
            tokio::task::coop::consume_budget().await;
        }
    }

    /// Calls handlers that share the role, as long as there is nothing else to do.
    async fn share<'a>(&mut self, lent: Box<dyn Lent<'a, R> + 'a>) -> Next {
        let ending = self.cancel.child_token();
        let mut under_way = vec![0; self.watches.len()];
        let mut running = Running::new();
        let mut next = None;
        loop {
            next = match next {
                Some(next) if running.is_empty() => return next,
                next => next,
            };
            let (begins, asks) = (next.is_none(), self.table.ready.is_some());
            let table = &mut self.table;
            tokio::select! {
                biased;
                () = self.cancel.cancelled(), if begins => next = Some(Next::End(Ending::Stopped)),
                Some(ended) = running.next() => {
                    under_way[ended.place] -= 1;
                    if let Some(failed) = self.settle(ended) {
                        // The others get the time that they would get at any end.
                        ending.cancel();
                        next = Some(Next::End(failed));
                    }
                }
                index = poll_fn(|cx| table.poll_free(&under_way, cx)), if begins => {
                    if self.table.sources[index].source.limit() == 0 {
                        next = Some(Next::Alone(index));
                    } else {
                        under_way[self.table.sources[index].place] += 1;
                        self.begin(index, lent.role(), &ending, &running);
                    }
                }
                () = look_again(asks) => {}
            }
            self.look(lent.role());
            tokio::task::coop::consume_budget().await;
        }
    }

    /// Begins a call.
    fn begin<'a>(&mut self, index: usize, role: &'a R, ending: &CancellationToken, running: &Running<'a>) {
        let listed = &mut self.table.sources[index];
        let (place, activity) = (listed.place, self.activity.clone());
        let began = self.watches[place].start();
        let call = begin_call((&activity, place), || listed.source.call_shared(role));
        let (handler, origin) = ((listed.source.name(), listed.on_error), listed.source.origin());
        let ending = ending.clone();
        running.push(Box::pin(async move {
            let result = finish_call((&activity, place), call, grace(&ending)).await;
            Ended { place, handler, origin, began, result }
        }));
    }

    /// Counts and reports a call; what comes of it if that is the end of this life.
    fn settle(&mut self, ended: Ended) -> Option<Ending> {
        let Ended { place, handler, origin, began, result } = ended;
        self.watches[place].stop(began);
        self.conclude(handler, || origin, result)
    }
}
