//! Groups: replicated state machines with a leader, over members that find each other.
//!
//! [`Groups`] makes members and knows those of this node. `raft` decides (the consensus core), `storage` remembers, `bonds`
//! links members, `worker` carries things between them, the state machine and the callers. Who is there comes from
//! `discovery`. Nothing here knows streams or stores.
//!
//! Promise: a command that was acknowledged is applied exactly once, in one order at all members, and not lost as long as
//! a majority keeps its memory; a strong query sees all that was acknowledged before it.

pub(crate) mod bonds;
mod build;
mod builder;
#[doc(hidden)]
pub mod client;
mod encoding;
mod error;
pub(crate) mod fence;
mod group;
mod health;
pub(crate) mod inspect;
mod key;
mod leadership;
mod machine;
pub(crate) mod operate;
mod options;
mod outdated;
pub(crate) mod outlet;
#[doc(hidden)]
pub mod raft;
mod recovery;
mod remote;
mod shapes;
mod snapshots;
mod status;
pub mod storage;
mod survey;
mod when;
pub(crate) mod windows;
mod worker;

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::bonds::BondRegistry;
pub use self::{
    bonds::{Refusal, Refused},
    builder::GroupBuilder,
    error::{CallError, JoinError, LeaveError, MAX_COMMAND, Outcome, SealError, StopReason, TransferError, Why},
    fence::Fence,
    group::{Answered, Bond, DEFAULT_TIMEOUT, Fed, Group},
    health::{LongCommand, MachineStatus, SnapshotFailure},
    key::{GroupKey, GroupKeyError, MIN_GROUP_SECRET},
    leadership::{LeaderPreference, Transferred, UnknownPreference},
    machine::{ApplyContext, NoOp, NoTransition, StateMachine},
    operate::OperateError,
    options::{Consistency, MemberRole, Timing},
    recovery::RecoverError,
    remote::GroupClient,
    snapshots::{Encode, SnapshotError, Snapshots},
    status::{Contradicted, GroupStatus, MemberInfo, MemberKind, Role, WhyOffline},
    when::{Bonded, Committed, When},
};
use crate::{discovery::Discovery, network::Node, primitives::GroupId};

/// How often the tickets of members and clients are looked at again, where a declaration asks for grants.
const RECHECK: Duration = Duration::from_secs(1);

/// The groups of a node: makes members. Cheap to clone.
#[derive(Clone)]
pub struct Groups(Arc<Registry>);

/// The members that run on this node.
pub(crate) struct Registry {
    node: Node,
    discovery: Discovery,
    bonds: BondRegistry,
    data_dir: Option<PathBuf>,
    joined: Mutex<BTreeMap<GroupId, Joined>>,
    closed: AtomicBool,
}

struct Joined {
    name: &'static str,
    /// Ends the member at once; cancelled when it has ended.
    cancel: CancellationToken,
    /// Asks it to end.
    shutdown: CancellationToken,
    /// Once it runs.
    window: Option<inspect::Window>,
}

impl Groups {
    /// Prepares the groups of a node.
    pub(crate) fn new(node: Node, discovery: Discovery, bonds: BondRegistry, data_dir: Option<PathBuf>) -> Self {
        let (joined, closed) = (Mutex::default(), AtomicBool::new(false));
        Self(Arc::new(Registry { node, discovery, bonds, data_dir, joined, closed }))
    }

    /// Begins to configure a member of the group of this key.
    pub fn with_key(&self, key: GroupKey) -> GroupBuilder {
        GroupBuilder::new(self.0.clone(), key)
    }

    /// Where members register to be bonded: the tests of bonds do it without a group.
    #[cfg(test)]
    fn bonds(&self) -> &BondRegistry {
        &self.0.bonds
    }

    /// Ends every member in an orderly way: leadership is handed over, votes stay where they are. Waits for members to finish
    /// writing for their share of a shutdown.
    pub(crate) async fn shutdown(&self) {
        self.0.closed.store(true, Ordering::SeqCst);
        let members: Vec<_> =
            self.0.joined().values().map(|joined| (joined.shutdown.clone(), joined.cancel.clone())).collect();
        members.iter().for_each(|(shutdown, _)| shutdown.cancel());
        let ended = async {
            for (_, cancel) in &members {
                cancel.cancelled().await;
            }
        };
        if timeout(self.0.node.shutdown_share(), ended).await.is_err() {
            tracing::debug!("a group did not end in time");
        }
        members.iter().for_each(|(_, cancel)| cancel.cancel());
    }
}

impl Registry {
    fn joined(&self) -> MutexGuard<'_, BTreeMap<GroupId, Joined>> {
        self.joined.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cancel(&self) -> CancellationToken {
        self.node.cancel().child_token()
    }

    /// Where the group keeps its state, if anything is kept.
    fn dir(&self, group: GroupId) -> Option<PathBuf> {
        self.data_dir.as_ref().map(|dir| dir.join("groups").join(group.to_string()))
    }

    /// Takes the place of a member.
    fn enter(
        &self,
        group: GroupId,
        name: &'static str,
        cancel: &CancellationToken,
        shutdown: &CancellationToken,
    ) -> Result<(), JoinError> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(JoinError::Shutdown);
        }
        let mut joined = self.joined();
        if joined.get(&group).is_some_and(|there| !there.cancel.is_cancelled()) {
            return Err(JoinError::AlreadyJoined { name });
        }
        joined.insert(group, Joined { name, cancel: cancel.clone(), shutdown: shutdown.clone(), window: None });
        Ok(())
    }

    /// The member runs: from now on it can be seen.
    fn show(&self, group: GroupId, window: inspect::Window) {
        if let Some(joined) = self.joined().get_mut(&group) {
            joined.window = Some(window);
        }
    }

    /// Gives the place of a member up that has ended or was never there.
    fn forget(&self, group: GroupId) {
        let mut joined = self.joined();
        // Another member may have taken the place already.
        if joined.get(&group).is_some_and(|there| there.cancel.is_cancelled()) {
            joined.remove(&group);
        }
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.joined().iter().map(|(id, joined)| (joined.name, id))).finish()
    }
}

impl fmt::Debug for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Groups").field(&self.0).finish()
    }
}
