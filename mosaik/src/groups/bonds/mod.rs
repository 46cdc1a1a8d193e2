//! Bonds: one authenticated, bidirectional link between every two members of a group.
//!
//! [`Bonds`] is what the group's worker holds: it sends messages and calls by member, and [`BondEvents`] brings what the
//! others say. Members are found through discovery and through each other. `handshake` proves the key, `mesh` decides who
//! is dialled and which of two links stays, `claims` asks who knows of a copy, `group` dials and `registry` accepts, `io` moves frames (`wire`) through the
//! bounded `queue` of each `bond`. Nothing here knows what the messages mean, and no quorum depends on who is bonded.
//! The protocol: `docs/src/groups/bonds.md`.

mod bond;
mod claims;
mod entries;
#[cfg(test)]
mod fixtures;
mod group;
mod handshake;
mod io;
mod limits;
mod marks;
mod mesh;
mod queue;
mod registry;
#[cfg(test)]
mod tests;
mod wire;

use std::{
    future::Future,
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

pub(crate) use self::{
    bond::{CallFailed, Reply},
    handshake::Terms,
    registry::BondRegistry,
};
use self::{
    group::{Group, Told},
    limits::{INBOX, LEAVE},
    marks::Table,
    mesh::Mesh,
    wire::Frame,
};
pub use self::{handshake::Refusal, mesh::Refused};
use super::{
    key::GroupKey,
    raft::{ClusterId, Envelope, Extent, Marks, Member, Start},
};
use crate::{
    discovery::Discovery,
    network::{CloseCode, Family, Node, Protocol},
    primitives::{GroupId, PeerId, watch},
    trust::Needed,
};

/// The longest request or reply of a call, and the longest command of which an entry can still be sent, in bytes.
pub(crate) const MAX_CALL: usize = wire::MAX_BODY;

/// The handshake of a bond; what follows has frames of its own.
#[derive(Debug)]
pub(crate) struct BondProtocol;

impl Protocol for BondProtocol {
    type Message = handshake::Message;
    const FAMILY: Family = Family::GROUPS;
    const NAME: &'static str = "bond/9";
    const MAX_FRAME: usize = 32 << 10; // the shapes of a machine and little else
}

/// Who a member is, and what it expects of the others.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) group: GroupId,
    pub(crate) key: GroupKey,
    /// Must be equal at all members.
    pub(crate) terms: Terms,
    /// What the ticket of a member needs.
    pub(crate) needed: Needed,
    /// The local node and the life of its storage.
    pub(crate) me: Member,
    /// The cluster that it belongs to, if any yet.
    pub(crate) cluster: Option<ClusterId>,
    /// The start of the storage, and what it remembers of others.
    pub(crate) marks: Marks,
    /// How far the storage is durable.
    pub(crate) extent: Extent,
}

/// The bonds of one member. Cheap to clone; when the last clone is dropped, all of them end.
#[derive(Clone, Debug)]
pub(crate) struct Bonds(Arc<Handle>);

/// Sees the bonds of a member without keeping them.
#[derive(Clone, Debug)]
pub(crate) struct WeakBonds(Weak<Handle>);

impl WeakBonds {
    /// The bonds, while the member holds them.
    pub(crate) fn upgrade(&self) -> Option<Bonds> {
        self.0.upgrade().map(Bonds)
    }
}

#[derive(Debug)]
struct Handle(Arc<Group>);

/// What the bonds bring, in order for each member: one `Up`, its messages and calls, one `Down`.
#[derive(Debug)]
pub(crate) enum BondEvent {
    /// The member has proved the key.
    Up(Member),
    /// Its link is gone.
    Down(Member),
    /// Between an `Up` and a `Down` of its author. Its ends are those that the handshake has proved.
    Message(Envelope),
    /// Dropping `reply` tells the caller that the call is lost.
    Call { from: PeerId, request: Bytes, reply: Reply },
}

/// The receiving end. Bounded: while it is full the links are not read, and nothing is lost.
#[derive(Debug)]
pub(crate) struct BondEvents(mpsc::Receiver<Told>);

/// A live bond.
#[derive(Clone, Debug)]
pub(crate) struct BondInfo {
    pub(crate) peer: PeerId,
    pub(crate) member: Member,
    /// When the bond was made.
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) extent: Extent,
    /// Smoothed, queues included; `None` until the first ping came back.
    pub(crate) rtt: Option<Duration>,
    pub(crate) since: Instant,
}

impl Bonds {
    /// Announces the group in the node's own entry and begins to look for its members. A node joins a group once at a
    /// time.
    pub(crate) fn join(
        registry: &BondRegistry,
        node: &Node,
        discovery: &Discovery,
        identity: Identity,
    ) -> (Self, BondEvents) {
        let Identity { group: id, key, terms, needed, me, cluster, marks, extent } = identity;
        let (events, inbox) = mpsc::channel(INBOX);
        let mut mesh = Mesh::new(node.id(), id, me, Table::new(marks.others), node.transport().random_seed());
        mesh.set_cluster(cluster);
        mesh.set_storage(marks.start, extent);
        let group = Group::new((node.clone(), discovery.clone()), (id, key, terms), needed, mesh, events);
        registry.enter(&group);
        discovery.update_local(|entry| _ = entry.groups.insert(id));
        node.tasks().spawn_essential("bonds", group.clone().run());
        (Self(Arc::new(Handle(group))), BondEvents(inbox))
    }

    fn group(&self) -> &Group {
        &self.0.0
    }

    /// Writes what was queued by [`send`](Self::send), [`call`](Self::call) and replies since the last time; until then it
    /// waits for more. `hold_commits`: links with nothing but notices of commits wait on; true if there are any.
    pub(crate) fn flush(&self, hold_commits: bool) -> bool {
        let mut waits = false;
        for bond in self.group().mesh().bonds() {
            waits |= bond.queue.flush(hold_commits);
        }
        waits
    }

    /// Sends a message to the member that it names. Never blocks. Without a bond to that very member, or without room in
    /// the bond's queue, it is dropped and counted.
    pub(crate) fn send(&self, envelope: Envelope) {
        let bond = self.group().mesh().bond_to(envelope.to.node).cloned();
        if !bond.is_some_and(|bond| bond.send(envelope)) {
            self.group().count_dropped();
        }
    }

    /// Messages that were dropped by [`send`](Self::send).
    pub(crate) fn dropped(&self) -> u64 {
        self.group().dropped.load(Ordering::Relaxed)
    }

    /// Asks a member. The request is queued when this returns, to leave with the next [`flush`](Self::flush), so requests
    /// arrive in the order of the calls; the future is the answer. Dropping it forgets the call, which may be served all the
    /// same.
    pub(crate) fn call(
        &self,
        to: PeerId,
        request: Bytes,
    ) -> impl Future<Output = Result<Bytes, CallFailed>> + Send + use<> {
        let bond = self.group().mesh().bond(to).cloned();
        let answer = bond.map(|bond| bond.call(request));
        async move {
            match answer {
                Some(answer) => answer.await,
                None => Err(CallFailed::NotSent),
            }
        }
    }

    pub(crate) fn downgrade(&self) -> WeakBonds {
        WeakBonds(Arc::downgrade(&self.0))
    }

    /// The live bonds, by peer.
    pub(crate) fn peers(&self) -> Vec<BondInfo> {
        let info = |bond: &Arc<bond::Bond>| BondInfo {
            peer: bond.peer,
            member: bond.member,
            cluster: bond.cluster,
            extent: bond.extent,
            rtt: bond.rtt(),
            since: bond.since,
        };
        self.group().mesh().bonds().map(info).collect()
    }

    /// The bonded members as they change, by peer.
    pub(crate) fn watch(&self) -> watch::Receiver<Vec<Member>> {
        self.group().watch()
    }

    /// Who was refused or has refused this member, oldest first; the last 64 that differ.
    pub(crate) fn refusals(&self) -> Vec<Refused> {
        self.group().mesh().refusals().cloned().collect()
    }

    /// The cluster for handshakes from now on.
    pub(crate) fn set_cluster(&self, cluster: Option<ClusterId>) {
        self.group().mesh().set_cluster(cluster);
    }

    /// How far the local storage is durable by now. Told to the others with the next pings.
    pub(crate) fn set_extent(&self, extent: Extent) {
        self.group().mesh().set_extent(extent);
    }

    /// What others have acknowledged to this member as durable.
    pub(crate) fn acknowledged(&self, all: impl Iterator<Item = (Member, Extent)>) {
        let mut mesh = self.group().mesh();
        all.for_each(|(member, extent)| mesh.acknowledged(member, extent));
    }

    /// What is to be stored, and the version that this is.
    pub(crate) fn marks(&self, start: Start) -> (Marks, u64) {
        let mesh = self.group().mesh();
        (Marks { start, others: mesh.marks().others(mesh.me().node) }, mesh.marks().version())
    }

    /// Grows when something about another member changes, or about this one.
    pub(crate) fn marks_version(&self) -> u64 {
        self.group().mesh().marks().version()
    }

    /// The start of the storage is durable: others may hear of it. Until then nobody is dialled or answered.
    pub(crate) fn open(&self) {
        self.group().mesh().open();
        self.group().wake();
    }

    /// A new life of the local storage: all bonds are made anew.
    pub(crate) fn set_me(&self, me: Member, start: Start) {
        let former = self.group().mesh().set_me(me, start, Instant::now());
        former.iter().for_each(|bond| bond.close(CloseCode::Normal));
        self.group().wake();
    }

    /// Says farewell: withdraws the group from the node's entry, sends what is queued and ends the bonds, within 600 ms.
    pub(crate) async fn leave(&self) {
        let group = self.group();
        self.withdraw();
        let bonds = group.mesh().close();
        for bond in &bonds {
            if bond.queue.push(Frame::Goodbye).is_err() {
                bond.close(CloseCode::ShuttingDown);
            }
        }
        let all_ended = futures::future::join_all(bonds.iter().map(|bond| bond.ended.cancelled()));
        if timeout(LEAVE, all_ended).await.is_err() {
            tracing::debug!(group = ?group.id, "not every member heard the farewell");
        }
        group.cancel.cancel();
    }

    fn withdraw(&self) {
        let id = self.group().id;
        self.group().discovery.update_local(|entry| _ = entry.groups.remove(&id));
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let group = &self.0;
        if !group.cancel.is_cancelled() {
            group.discovery.update_local(|entry| _ = entry.groups.remove(&group.id));
            group.cancel.cancel();
        }
    }
}

impl BondEvents {
    /// The next event; `None` when the group is left. Cancellation-safe.
    pub(crate) async fn recv(&mut self) -> Option<BondEvent> {
        self.0.recv().await.map(|(event, _)| event)
    }

    /// The next event if there is one now.
    pub(crate) fn try_recv(&mut self) -> Option<BondEvent> {
        self.0.try_recv().ok().map(|(event, _)| event)
    }
}
