//! Forced recovery: an operator makes one survivor the beginning of a new cluster. Members that can be reached are asked first.

use std::{collections::BTreeSet, future::poll_fn, sync::Arc};

use tokio_util::sync::CancellationToken;

use super::{
    Registry,
    bonds::{BondInfo, Identity, Refusal},
    builder::{Entered, GroupBuilder, Opened, identity},
    error::JoinError,
    machine::StateMachine,
    raft::{self, Extent, Member, Membership, Stored, Write},
    status::node_of,
    storage::StorageError,
    survey::survey,
    worker,
};
use crate::primitives::PeerId;

/// Why a recovery failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// As for joining.
    #[error(transparent)]
    Join(JoinError),
    /// The storage could not be written.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The storage holds no cluster.
    #[error("there is nothing to recover: the storage holds no cluster")]
    Blank,
    /// Members of the cluster live.
    #[error("nothing is recovered without force: members of the group are alive: {members:?}; {why}")]
    Alive {
        /// Who.
        members: Vec<PeerId>,
        /// What that means, and what to do.
        why: &'static str,
    },
}

impl<M: StateMachine> GroupBuilder<M> {
    /// Makes the local storage the beginning of a new cluster that replaces the old one: for a group that lost its majority
    /// for good. The member must not run. Everything in its log is kept; what only the lost majority had is gone, which is why
    /// nothing does this by itself. Join afterwards; other members of the old cluster stop with
    /// [`Superseded`](super::StopReason::Superseded) when they meet the new one: wipe them, and they join it.
    ///
    /// First the members that can be reached are asked, for 5 s at most: nothing is recovered while, with this one, a majority
    /// of the voters lives (start this member instead), while one of them has more than this one (recover that one), or while
    /// one of them refuses this storage as a copy. Cancelled before that has ended, it has changed nothing.
    ///
    /// # Errors
    /// When the storage cannot be read or written, holds no cluster, or the member runs;
    /// [`Alive`](RecoverError::Alive), with names, when others make it unnecessary or harmful.
    pub async fn recover(self) -> Result<(), RecoverError> {
        self.recover_unless(true).await
    }

    /// As [`recover`](Self::recover), whoever lives. What only the others have is gone, and they stop.
    ///
    /// # Errors
    /// As [`recover`](Self::recover), but never for what lives.
    pub async fn recover_forced(self) -> Result<(), RecoverError> {
        self.recover_unless(false).await
    }

    async fn recover_unless(mut self, alive: bool) -> Result<(), RecoverError> {
        let (group, registry) = (self.key.group_id(M::NAME), self.registry.clone());
        let (cancel, shutdown) = (CancellationToken::new(), CancellationToken::new());
        registry.enter(group, M::NAME, &cancel, &shutdown).map_err(RecoverError::Join)?;
        let _entered = Entered::new(registry.clone(), group, cancel);
        let Opened { mut storage, stored, outdated, .. } = self.open(group).await.map_err(RecoverError::Join)?;
        if let Some(error) = outdated {
            return Err(RecoverError::Join(error));
        }
        if stored.hard.cluster.is_none() {
            return Err(RecoverError::Blank);
        }
        let me = Member { node: node_of(registry.node.id()), incarnation: stored.hard.incarnation };
        if alive {
            let settings = self.settings(!storage.is_durable());
            let terms = self.terms(&settings);
            // As in its last life: no start is counted that others would remember.
            let identity =
                identity((group, self.key, terms), self.member.about(M::NAME), me, stored.marks.start, &stored);
            ask(&registry, identity, &stored).await?;
        }
        // It owes nothing of what the others have seen of the old one.
        let me = Member { incarnation: worker::incarnation(&registry.node, me.incarnation), ..me };
        let salt = registry.node.transport().wall_clock();
        let recovered = raft::recover(stored, me, salt).ok_or(RecoverError::Blank)?;
        let last = recovered.entries.last().cloned().into_iter().collect();
        storage.submit(1, vec![Write::Hard(recovered.hard), Write::Replace(last)]);
        poll_fn(|cx| storage.poll_durable(cx)).await?;
        Ok(())
    }
}

/// Whether those who live leave anything to recover.
async fn ask(registry: &Arc<Registry>, identity: Identity, stored: &Stored) -> Result<(), RecoverError> {
    let survivor = Survivor { me: identity.me, own: stored.extent(), stored };
    let verdict = survey(registry, identity, |bonds, over| {
        let refusals = bonds.refusals().into_iter().filter(|it| it.by_peer && is_about_copies(&it.reason));
        survivor.judge(&bonds.peers(), refusals.map(|it| it.peer).collect(), over)
    });
    verdict.await.unwrap_or(Err(RecoverError::Join(JoinError::Shutdown)))
}

const fn is_about_copies(reason: &Refusal) -> bool {
    matches!(reason, Refusal::OlderCopy | Refusal::SecondStart | Refusal::OldIncarnation)
}

/// The one that is to be recovered.
struct Survivor<'a> {
    me: Member,
    own: Extent,
    stored: &'a Stored,
}

impl Survivor<'_> {
    /// What those who answered mean for it; none while others may still answer.
    fn judge(&self, peers: &[BondInfo], refused: Vec<PeerId>, over: bool) -> Option<Result<(), RecoverError>> {
        let alive = |members, why| Some(Err(RecoverError::Alive { members, why }));
        let membership = self.stored.membership();
        let voters: BTreeSet<_> = membership.iter().flat_map(Membership::all_voters).map(|it| it.node).collect();
        let living = peers.iter().filter(|it| it.cluster == self.stored.hard.cluster);
        let living: Vec<&BondInfo> = living.filter(|it| voters.contains(&it.member.node)).collect();
        let is_alive = |node| node == self.me.node || living.iter().any(|it| it.member.node == node);
        let majority = membership.as_ref().is_some_and(|it| it.quorum(|voter| is_alive(voter.node)));
        if majority && !living.is_empty() {
            let members = living.iter().map(|it| it.peer).collect();
            return alive(members, "with this member they are a majority, so start it");
        }
        if !refused.is_empty() {
            return alive(refused, "they refuse this storage as a copy that is not the last one");
        }
        let end = |extent: &Extent| (extent.term, extent.last);
        let ahead = living.iter().filter(|it| end(&it.extent) > end(&self.own));
        let ahead: Vec<PeerId> = ahead.map(|it| it.peer).collect();
        match over {
            false => None,
            true if ahead.is_empty() => Some(Ok(())),
            true => alive(ahead, "they hold more than this member, so recover one of them"),
        }
    }
}
