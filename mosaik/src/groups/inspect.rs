//! What diagnostics may see of the groups of a node: the published status of each member, its bonds and refusals.

use std::{sync::Arc, time::Duration};

use super::{
    Groups,
    bonds::{Refused, WeakBonds},
    key::GroupKey,
    outlet::Outlet,
    remote::{Asking, Shape},
    status::GroupStatus,
    worker::{Board, Queue},
};
use crate::{
    primitives::{GroupId, PeerId},
    trust::Needed,
};

/// Where the state of a running member can be read.
#[derive(Clone)]
pub(super) struct Window {
    pub(super) board: Arc<Board>,
    pub(super) bonds: WeakBonds,
    /// For what operators ask of it, and what they prove first.
    pub(super) queue: Arc<Queue>,
    pub(super) key: GroupKey,
    /// What the ticket of a client needs.
    pub(super) call: Needed,
    /// Declared founders; 0: undeclared.
    pub(super) size: u32,
    /// The machine's version.
    pub(super) version: u32,
    /// What clients must agree with.
    pub(super) shape: Shape,
    /// For clients' queries.
    pub(super) asking: Asking,
    /// For streams that the group owns.
    pub(super) outlet: Outlet,
}

/// A member on this node.
#[derive(Debug)]
pub(crate) struct GroupView {
    pub(crate) group: GroupId,
    /// The machine's name.
    pub(crate) name: &'static str,
    pub(crate) size: u32,
    pub(crate) version: u32,
    pub(crate) status: GroupStatus,
    /// Peer, round-trip time and age of each bond.
    pub(crate) bonds: Vec<(PeerId, Option<Duration>, Duration)>,
    pub(crate) refusals: Vec<Refused>,
}

impl Groups {
    /// The members that run on this node, in the order of their groups. One that is being joined is not there yet.
    pub(crate) fn inspect(&self) -> Vec<GroupView> {
        let joined: Vec<_> = {
            let joined = self.0.joined();
            joined.iter().filter_map(|(id, joined)| Some((*id, joined.name, joined.window.clone()?))).collect()
        };
        let view = |(group, name, window): (GroupId, &'static str, Window)| {
            let bonds = window.bonds.upgrade();
            let live = bonds.as_ref().map_or_else(Vec::new, |bonds| bonds.peers());
            GroupView {
                group,
                name,
                size: window.size,
                version: window.version,
                status: window.board.status(),
                bonds: live.iter().map(|bond| (bond.peer, bond.rtt, bond.since.elapsed())).collect(),
                refusals: bonds.map_or_else(Vec::new, |bonds| bonds.refusals()),
            }
        };
        joined.into_iter().map(view).collect()
    }
}
