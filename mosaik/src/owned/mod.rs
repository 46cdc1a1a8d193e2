//! Owned streams: their items are entries in the log of a group. Only its leader sends, an item is visible once it is committed, and
//! every member serves every consumer, from wherever that was. The deltas of an owned store (`store`) are such items.
//!
//! `groups` numbers the items as it applies them and keeps the newest (`groups/windows.rs`); `streams` moves them. This room
//! puts the two together, so that neither knows the other: `outbox` is what was sent and is not in the log yet, `bind` the
//! task between them.

mod bind;
mod outbox;
mod store;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio_util::sync::DropGuard;

use self::{bind::Binding, outbox::Outbox};
use crate::{
    groups::{Group, Groups, StateMachine},
    primitives::{GroupId, Streamed},
    streams::{
        Committed, ProducerBuilder, inspect,
        owner::{Offer, Owner, Run},
    },
};

/// What a producer's state holds; its end is that of the task.
struct Held {
    outbox: Arc<Outbox>,
    group: Option<GroupId>,
    _ends: DropGuard,
}

impl Owner for Held {
    fn offer(&self, framed: &[u8], reserved: bool) -> Offer {
        self.outbox.offer(framed, reserved)
    }

    fn room(&self) -> Offer {
        self.outbox.room()
    }

    fn is_bound(&self) -> bool {
        self.outbox.is_bound()
    }

    fn view(&self) -> inspect::Owned {
        inspect::Owned { group: self.group, leads: self.room() != Offer::NotLeader, serves: self.is_bound() }
    }

    fn committed(&self) -> futures::future::BoxFuture<'_, Committed> {
        Box::pin(self.outbox.committed())
    }
}

impl<T: Streamed> ProducerBuilder<T> {
    /// The stream belongs to this group: its items are entries in the group's log. Every member builds such a producer; only that
    /// of the leader sends ([`SendErrorKind::NotLeader`](crate::streams::SendErrorKind::NotLeader) otherwise), and every one
    /// serves consumers, which say [`owned`](crate::streams::ConsumerBuilder::owned).
    ///
    /// An item is delivered once it is committed, in one order at all consumers, and carries its
    /// [place in the log](crate::streams::Origin::fence). Each member keeps the newest 4 MiB or 65,536 items, whichever is less,
    /// and a consumer that loses its member goes on at any other. An item is at most 512 KiB when encoded.
    ///
    /// The producer may be built before the group is joined on this node, and outlives it.
    pub fn owned_by<M: StateMachine>(self, group: &Group<M>) -> Self {
        let groups = group.groups();
        self.owned_in(groups, Ok(group.id()))
    }

    /// As [`owned_by`](Self::owned_by), for a member that may yet have to be joined. Without a group, and why there is none, nothing is
    /// ever sent.
    pub(crate) fn owned_in(self, groups: Groups, group: Result<GroupId, String>) -> Self {
        self.with_owner(move |stream, run: Run, tasks| {
            let (outbox, gone) = (Arc::new(Outbox::new()), groups.ending());
            let known = group.as_ref().ok().copied();
            match group {
                Ok(group) => {
                    // It may lead already.
                    outbox.attach(groups.outlet(group));
                    let binding = Binding { groups, group, stream, run, outbox: outbox.clone(), gone: gone.clone() };
                    tasks.spawn("owned stream", binding.run());
                }
                Err(error) => tracing::error!(?stream, error, "a stream has no owner: nothing can be sent on it"),
            }
            Arc::new(Held { outbox, group: known, _ends: gone.drop_guard() })
        })
    }
}
