//! A storage of an earlier version of the machine that missed the seal: it is given up for the state of the others, once they
//! are seen to run this version.

use std::collections::BTreeSet;

use super::{
    bonds::Bonds,
    builder::{GroupBuilder, Opened, identity},
    error::JoinError,
    machine::StateMachine,
    raft::{ClusterId, Member, Membership, NodeId, Stored},
    shapes::Shapes,
    status::node_of,
    storage::Storage,
    survey::{ASK, survey},
};
use crate::primitives::GroupId;

impl<M: StateMachine> GroupBuilder<M> {
    /// The storage to join with. One of an earlier version that is not sealed is emptied if a majority of its voters, this member
    /// not counted, run this version in the same cluster: only a sealed snapshot lets them, so the seal is committed, and what
    /// stands here and not there never was. The member then joins as a new incarnation.
    pub(super) async fn made_fit(
        &mut self,
        group: GroupId,
        opened: Opened,
    ) -> Result<(Box<dyn Storage>, Stored), JoinError> {
        let Opened { mut storage, stored, dir, outdated } = opened;
        let Some(error) = outdated else { return Ok((storage, stored)) };
        tracing::warn!(%error, "the storage is of an earlier version; asking for {ASK:?} whether the others run this one");
        if !self.others_run_this_version(group, !storage.is_durable(), &stored).await {
            return Err(error);
        }
        tracing::warn!(
            group = ?group,
            "the others run this version: the storage is emptied, and this member takes their state as a new incarnation"
        );
        let emptied = self.registry.node.tasks().blocking(move || {
            storage.wipe()?;
            let blank = storage.load()?;
            if let Some(dir) = dir {
                Shapes::of::<M>().keep_beside(&dir);
            }
            Ok((storage, blank))
        });
        emptied.await.ok_or(JoinError::Shutdown)?
    }

    async fn others_run_this_version(&mut self, group: GroupId, volatile: bool, stored: &Stored) -> bool {
        let (Some(cluster), Some(membership)) = (stored.hard.cluster, stored.membership()) else { return false };
        let me = Member { node: node_of(self.registry.node.id()), incarnation: stored.hard.incarnation };
        let settings = self.settings(volatile);
        let (key, needed) = ((group, self.key.clone(), self.terms(&settings)), self.member.clone().about(M::NAME));
        let mut identity = identity(key, needed, me, stored.marks.start, stored);
        // Nobody may count this one among those who run this version.
        identity.cluster = None;
        let seen = |bonds: &Bonds, _| is_majority(bonds, cluster, &membership, me.node).then_some(());
        survey(&self.registry, identity, seen).await.is_some()
    }
}

/// Whether a majority of the voters is bonded, which takes the same version of the machine, and in the cluster.
fn is_majority(bonds: &Bonds, cluster: ClusterId, membership: &Membership, me: NodeId) -> bool {
    let peers = bonds.peers();
    let running = peers.iter().filter(|it| it.cluster == Some(cluster)).map(|it| it.member.node);
    let running: BTreeSet<NodeId> = running.filter(|node| *node != me).collect();
    membership.quorum(|voter| running.contains(&voter.node))
}
