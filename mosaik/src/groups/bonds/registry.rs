//! [`BondRegistry`]: the accept side. Finds the group that a hello names, and keeps strangers within bounds.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{
    BondProtocol,
    group::{Group, next_message},
    handshake::{Message, Refusal},
    limits::{HANDSHAKE, MAX_PENDING, MAX_PENDING_PER_PEER},
};
use crate::{
    network::{Acceptors, CloseCode, Incoming, Link, Node},
    primitives::{GroupId, PeerId},
};

/// The joined groups of a node. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct BondRegistry(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    groups: Mutex<BTreeMap<GroupId, Weak<Group>>>,
    pending: Mutex<Pending>,
}

/// Links whose handshake is not done, oldest first.
#[derive(Debug, Default)]
struct Pending {
    next: u64,
    links: BTreeMap<u64, (PeerId, CancellationToken)>,
}

impl BondRegistry {
    /// Registers the protocol of bonds.
    pub(crate) fn new(node: &Node, acceptors: &mut Acceptors) -> Self {
        let registry = Self::default();
        let (weak, node) = (Arc::downgrade(&registry.0), node.clone());
        acceptors.accept::<BondProtocol>(move |incoming| {
            let Some(inner) = weak.upgrade() else { return };
            node.tasks().spawn("bond-greet", Self(inner).greet(incoming));
        });
        registry
    }

    /// A group is joined. One of the same id that was there before gets no new bonds.
    pub(super) fn enter(&self, group: &Arc<Group>) {
        self.groups().insert(group.id, Arc::downgrade(group));
    }

    fn groups(&self) -> MutexGuard<'_, BTreeMap<GroupId, Weak<Group>>> {
        self.0.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.0.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, id: GroupId) -> Option<Arc<Group>> {
        let mut groups = self.groups();
        let group = groups.get(&id)?.upgrade().filter(|group| !group.cancel.is_cancelled());
        if group.is_none() {
            groups.remove(&id);
        }
        group
    }

    async fn greet(self, incoming: Incoming) {
        let link = incoming.link::<BondProtocol>();
        let place = self.take_place(link.peer());
        let served = self.serve(link);
        tokio::select! {
            biased;
            // Dropping the link resets it.
            () = place.evicted.cancelled() => tracing::debug!("too many handshakes; the oldest is dropped"),
            () = served => {}
        }
    }

    async fn serve(&self, mut link: Link<BondProtocol>) {
        match timeout(HANDSHAKE, next_message(&mut link)).await {
            Ok(Ok(Message::Hello(hello))) => match self.find(hello.group) {
                Some(group) => group.accept(link, Message::Hello(hello)).await,
                None => link.close(Refusal::NotMember.code()),
            },
            Ok(Ok(_)) => link.close(CloseCode::Undecodable),
            Ok(Err(error)) => tracing::debug!(peer = ?link.peer(), %error, "no hello"),
            Err(_) => link.close(CloseCode::Timeout),
        }
    }

    fn take_place(&self, peer: PeerId) -> Place {
        let mut pending = self.pending();
        let of_peer = |pending: &Pending| pending.links.values().filter(|(id, _)| *id == peer).count();
        if of_peer(&pending) >= MAX_PENDING_PER_PEER {
            pending.evict(|id| id == peer);
        }
        if pending.links.len() >= MAX_PENDING {
            pending.evict(|_| true);
        }
        let (id, evicted) = (pending.next, CancellationToken::new());
        pending.next += 1;
        pending.links.insert(id, (peer, evicted.clone()));
        Place { registry: self.clone(), id, evicted }
    }
}

impl Pending {
    fn evict(&mut self, which: impl Fn(PeerId) -> bool) {
        let oldest = self.links.iter().find(|(_, (peer, _))| which(*peer)).map(|(id, _)| *id);
        if let Some((_, evicted)) = oldest.and_then(|id| self.links.remove(&id)) {
            evicted.cancel();
        }
    }
}

/// A place among the pending handshakes.
struct Place {
    registry: BondRegistry,
    id: u64,
    evicted: CancellationToken,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.registry.pending().links.remove(&self.id);
    }
}
