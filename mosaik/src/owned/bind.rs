//! The task of one producer of an owned stream: items that were sent go into the group's log, and what the local member has applied
//! goes to the subscribers. It waits for the member as long as there is none.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesOrdered};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::outbox::{Batch, Outbox};
use crate::{
    groups::{CallError, Groups, Outcome, StopReason, outlet::Outlet},
    primitives::{GroupId, StreamId},
    streams::owner::{Run, placed},
};

/// How often it is looked for the member.
const LOOK: Duration = Duration::from_millis(100);
/// Entries on their way at once; what is sent meanwhile goes together.
const UNDER_WAY: usize = 8;
/// How long an entry may take.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct Binding {
    pub(super) groups: Groups,
    pub(super) group: GroupId,
    pub(super) stream: StreamId,
    pub(super) run: Run,
    pub(super) outbox: Arc<Outbox>,
    /// Cancelled when the producer is gone.
    pub(super) gone: CancellationToken,
}

/// A number of items, and what became of them: the number of the first, or why there is none.
type Settled = (u64, Result<u64, CallError>);

impl Binding {
    pub(super) async fn run(self) {
        let gone = self.gone.clone();
        let bound = async {
            loop {
                let outlet = member(&self.groups, self.group).await;
                self.outbox.attach(Some(outlet.clone()));
                self.serve(&outlet).await;
                self.outbox.attach(None);
                // What the member did not take while it ran never gets into the log.
                while let Some(Batch { count, .. }) = self.outbox.take() {
                    self.settle((count, Err(CallError::Stopped(StopReason::Shutdown))));
                }
                self.unbind();
                self.run.wake();
            }
        };
        gone.run_until_cancelled(bound).await;
    }

    fn unbind(&self) {
        self.outbox.set_bound(false);
        self.run.end();
    }

    /// Until the member has ended.
    async fn serve(&self, outlet: &Outlet) {
        let (mut changes, mut standing) = (outlet.changes(), outlet.standing());
        let mut under_way: FuturesOrdered<BoxFuture<'static, Settled>> = FuturesOrdered::new();
        // Epoch and number of the next item for the subscribers.
        let mut at = None;
        let mut led = None;
        while !outlet.has_ended() {
            self.pump(outlet, &mut at);
            let leads = outlet.fence().map(|fence| fence.term());
            if leads != led {
                led = leads;
                // Who waits for room is told when another one leads.
                self.run.wake();
            }
            while under_way.len() < UNDER_WAY
                && let Some(Batch { fence, count, framed }) = self.outbox.take()
            {
                match outlet.offer(fence, (self.stream, count, &framed), TIMEOUT) {
                    Ok(offered) => under_way.push_back(offered.outcome().map(move |outcome| (count, outcome)).boxed()),
                    Err(why) => self.settle((count, Err(CallError::Stopped(why)))),
                }
                self.run.wake();
            }
            tokio::select! {
                biased;
                Some(settled) = under_way.next(), if !under_way.is_empty() => self.settle(settled),
                changed = changes.changed() => if changed.is_err() { break },
                () = self.outbox.filled.notified(), if under_way.len() < UNDER_WAY => {}
                changed = standing.changed() => if changed.is_err() { break },
            }
            tokio::task::coop::consume_budget().await;
        }
        while let Some(settled) = under_way.next().await {
            self.settle(settled);
        }
    }

    fn settle(&self, (items, outcome): Settled) {
        if let Err(error) = &outcome {
            tracing::warn!(group = ?self.group, stream = ?self.stream, items, %error, "items of an owned stream were not committed");
        }
        self.outbox.settle(|settled| match outcome {
            Ok(_) => settled.committed += items,
            Err(error) if error.outcome() == Outcome::None => settled.refused += items,
            Err(_) => settled.unknown += items,
        });
    }

    /// Gives to the subscribers what the member has applied since.
    fn pump(&self, outlet: &Outlet, at: &mut Option<(u64, u64)>) {
        let Some(epoch) = outlet.epoch() else {
            if at.take().is_some() {
                self.unbind();
            }
            return;
        };
        let known = at.filter(|(of, _)| *of == epoch).map(|(_, next)| next);
        if known.is_none() && !outlet.is_online() {
            // It may be far behind; others serve meanwhile.
            return;
        }
        let tail = outlet.tail(self.stream, known.unwrap_or(0));
        let first = tail.slices.first().map_or(tail.next, |slice| slice.first);
        let goes_on = known.is_some_and(|next| first <= next && tail.next >= next);
        if !goes_on {
            self.run.begin(epoch, first);
            self.outbox.set_bound(true);
            self.run.admit();
        }
        for slice in &tail.slices {
            self.run.deliver(&placed(&slice.data, (slice.term, slice.index)));
        }
        *at = Some((epoch, tail.next));
    }
}

/// The group's member on this node, once it runs.
pub(super) async fn member(groups: &Groups, group: GroupId) -> Outlet {
    loop {
        if let Some(outlet) = groups.outlet(group).filter(|outlet| !outlet.has_ended()) {
            return outlet;
        }
        sleep(LOOK).await;
    }
}
