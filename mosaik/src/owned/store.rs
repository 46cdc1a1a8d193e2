//! The log of an owned store: what the local member of the group has applied of the store's deltas, and the way into the group.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{FutureExt, future::BoxFuture};
use tokio_util::sync::CancellationToken;

use super::bind::{TIMEOUT, member};
use crate::{
    groups::{CallError, Fence, Group, Groups, Outcome, StateMachine, outlet::Outlet},
    primitives::{GroupId, StreamId, watch},
    stores::{
        PrimaryBuilder, StoreError, View,
        owned::{Log, Tail},
    },
};

struct GroupLog {
    stream: StreamId,
    member: Mutex<Bound>,
    changes: watch::Sender<u64>,
}

/// The member, while it runs, and the cluster in which it once had come as far as the others.
#[derive(Default)]
struct Bound {
    outlet: Option<Outlet>,
    epoch: Option<u64>,
}

impl GroupLog {
    fn member(&self) -> MutexGuard<'_, Bound> {
        self.member.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Tells of every change at the member, of one member after the other.
    async fn watch(&self, groups: &Groups, group: GroupId) {
        loop {
            let outlet = member(groups, group).await;
            let (mut changes, mut standing) = (outlet.changes(), outlet.standing());
            *self.member() = Bound { outlet: Some(outlet.clone()), epoch: None };
            while !outlet.has_ended() {
                self.changed();
                let changed = tokio::select! {
                    biased;
                    changed = changes.changed() => changed,
                    changed = standing.changed() => changed,
                };
                if changed.is_err() {
                    break;
                }
            }
            *self.member() = Bound::default();
            self.changed();
        }
    }
}

impl Log for GroupLog {
    fn epoch(&self) -> Option<u64> {
        let mut member = self.member();
        let now = member.outlet.as_ref()?.epoch();
        // One that has just begun may be far behind.
        if now != member.epoch && !member.outlet.as_ref()?.is_online() {
            return None;
        }
        member.epoch = now;
        now
    }

    fn tail(&self, next: u64) -> Tail {
        let outlet = self.member().outlet.clone();
        let Some(outlet) = outlet else { return Tail { first: next, next, parts: Vec::new() } };
        let tail = outlet.tail(self.stream, next);
        let first = tail.slices.first().map_or(tail.next, |slice| slice.first);
        Tail { first, next: tail.next, parts: tail.slices.into_iter().map(|slice| slice.data).collect() }
    }

    fn fence(&self) -> Option<Fence> {
        self.member().outlet.as_ref()?.fence()
    }

    fn offer(
        &self,
        fence: Fence,
        count: u64,
        framed: &[u8],
    ) -> Result<BoxFuture<'static, Result<u64, StoreError>>, StoreError> {
        let outlet = self.member().outlet.clone().ok_or(StoreError::NotLeader)?;
        let offered = outlet.offer(fence, (self.stream, count, framed), TIMEOUT).map_err(|_| StoreError::NotLeader)?;
        Ok(offered.outcome().map(|outcome| outcome.map_err(|error| refused(&error))).boxed())
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

fn refused(error: &CallError) -> StoreError {
    if error.outcome() == Outcome::None {
        StoreError::NotCommitted(error.to_string())
    } else {
        StoreError::OutcomeUnknown(error.to_string())
    }
}

impl<V: View> PrimaryBuilder<V> {
    /// The store belongs to this group: its deltas are entries in the group's log. Every member builds such a primary; only that of the
    /// leader applies deltas ([`StoreError::NotLeader`] otherwise), and every one has the state and serves replicas, which say
    /// [`owned`](crate::stores::ReplicaBuilder::owned). [`apply`](crate::stores::Primary::apply) resolves once the delta is committed and in
    /// the local state: it survives the loss of the leader.
    ///
    /// The group's log keeps the newest 4 MiB or 65,536 deltas, whichever is less; a member that lacks more gets the state from another
    /// one. Members that may all be down at once must be [`durable`](Self::durable), or the state is lost with them although
    /// the group is not: their files are written about once a second, and what they lack is in the log. A delta is at most 512 KiB when
    /// encoded. One on which the view panics is left out, at all members alike.
    ///
    /// The primary may be built before the group is joined on this node, and outlives it.
    pub fn owned_by<M: StateMachine>(self, group: &Group<M>) -> Self {
        let groups = group.groups();
        self.owned_in(groups, Ok(group.id()))
    }

    /// As [`owned_by`](Self::owned_by), for a member that may yet have to be joined. Without a group, and why there is none, nothing is
    /// ever applied.
    pub(crate) fn owned_in(self, groups: Groups, group: Result<GroupId, String>) -> Self {
        let (served, owner) = (groups.clone(), group.clone());
        self.with_owner(
            |producer| producer.owned_in(served, owner),
            move |stream, tasks, ends: CancellationToken| {
                let log = Arc::new(GroupLog { stream, member: Mutex::default(), changes: watch::Sender::new(0) });
                match group {
                    Ok(group) => {
                        let watched = log.clone();
                        tasks.spawn("owned store log", async move {
                            ends.run_until_cancelled(watched.watch(&groups, group)).await;
                        });
                    }
                    Err(error) => tracing::error!(?stream, error, "a store has no owner: nothing can be applied to it"),
                }
                log
            },
        )
    }
}
