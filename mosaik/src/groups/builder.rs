//! [`GroupBuilder`]: how a node becomes a member.

use std::{future::poll_fn, path::PathBuf, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{
    Registry,
    bonds::{Bonds, Identity, Terms},
    error::JoinError,
    group::{Group, Handle},
    inspect::Window,
    key::GroupKey,
    machine::{NoOp, StateMachine},
    options::{MemberRole, Timing},
    raft::{self, Member, Preference, Settings, Stored, Write},
    status::node_of,
    storage::{Disk, InMemory, Storage, StorageError},
    worker::{self, Board, Queue, RETENTION, Replica, SESSIONS, Setup, WINDOW},
};
use crate::primitives::{
    GroupId,
    figures::{self, Watch},
};

/// Configures a member of a group; made by [`Groups::with_key`](super::Groups::with_key).
#[derive(Debug)]
#[must_use = "a builder does nothing until joined"]
pub struct GroupBuilder<M = NoOp> {
    registry: Arc<Registry>,
    key: GroupKey,
    machine: M,
    storage: Option<Box<dyn Storage>>,
    size: u32,
    role: MemberRole,
    timing: Timing,
    log_limit: u64,
}

impl GroupBuilder<NoOp> {
    pub(super) fn new(registry: Arc<Registry>, key: GroupKey) -> Self {
        Self {
            registry,
            key,
            machine: NoOp,
            storage: None,
            size: 0,
            role: MemberRole::default(),
            timing: Timing::default(),
            log_limit: 16 << 20,
        }
    }
}

impl<M> GroupBuilder<M> {
    /// The machine in its first state, which must be the same at all members. Default: [`NoOp`], for a group that only
    /// agrees on a leader.
    pub fn with_state_machine<N: StateMachine>(self, machine: N) -> GroupBuilder<N> {
        let Self { registry, key, storage, size, role, timing, log_limit, .. } = self;
        GroupBuilder { registry, key, machine, storage, size, role, timing, log_limit }
    }

    /// Where the member keeps its log and what it promised. Default: on disk below the network's data directory if there
    /// is one, otherwise in memory.
    pub fn with_storage(mut self, storage: impl Storage) -> Self {
        self.storage = Some(Box::new(storage));
        self
    }

    /// How many founders must agree before the group exists: the usual number of members. All members must declare the same.
    /// Without it the first node founds the group alone and the others join it.
    pub fn with_size(mut self, size: u32) -> Self {
        self.size = size;
        self
    }

    /// What this member is willing to be. Default: a voter.
    pub fn with_role(mut self, role: MemberRole) -> Self {
        self.role = role;
        self
    }

    /// How quickly a lost leader is noticed. All members must have the same.
    pub fn with_timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// Bytes of log after which a snapshot is taken and the log is cut, if the machine has snapshots and the log is twice as
    /// long as the last one. Default: 16 MiB. Members may differ.
    pub fn with_log_limit(mut self, bytes: u64) -> Self {
        self.log_limit = bytes;
        self
    }
}

impl<M: StateMachine> GroupBuilder<M> {
    /// Becomes a member. Resolves when the local member runs, not when there is a leader: see
    /// [`Group::when`](super::Group::when). Cancelled, it has not joined.
    ///
    /// # Errors
    /// When the storage cannot be opened or read, when this node is a member of the group already, or when the network is
    /// shut down.
    pub async fn join(mut self) -> Result<Group<M>, JoinError> {
        let group = self.key.group_id(M::NAME);
        let registry = self.registry.clone();
        let (cancel, shutdown) = (registry.cancel(), CancellationToken::new());
        registry.enter(group, M::NAME, &cancel, &shutdown)?;
        let entered = Entered { registry: registry.clone(), group, cancel: Some(cancel.clone()) };
        let (storage, stored) = self.open(group).await?;
        let group = self.start(group, storage, stored, cancel, shutdown);
        entered.keep();
        Ok(group)
    }

    /// Opens the storage and reads it.
    async fn open(&mut self, group: GroupId) -> Result<(Box<dyn Storage>, Stored), JoinError> {
        let (given, dir) = (self.storage.take(), self.registry.dir(group));
        let opened = self.registry.node.tasks().blocking(move || {
            let mut storage = open(given, dir)?;
            let stored = storage.load()?;
            Ok::<_, StorageError>((storage, stored))
        });
        Ok(opened.await.ok_or(JoinError::Shutdown)??)
    }

    fn start(
        self,
        group: GroupId,
        storage: Box<dyn Storage>,
        stored: Stored,
        cancel: CancellationToken,
        shutdown: CancellationToken,
    ) -> Group<M> {
        let node = self.registry.node.clone();
        let blank = stored.hard.incarnation == 0;
        let incarnation = if blank { worker::incarnation(&node, 0) } else { stored.hard.incarnation };
        let me = Member { node: node_of(node.id()), incarnation };
        let settings = self.settings(!storage.is_durable());
        let identity =
            Identity { group, key: self.key.clone(), terms: terms::<M>(&settings), me, cluster: stored.hard.cluster };
        let (bonds, events) = Bonds::join(&self.registry.bonds, &node, &self.registry.discovery, identity);
        let compacts = M::snapshots().any();
        let (queue, board) = (Arc::new(Queue::default()), Arc::new(Board::new(group, node.id(), compacts)));
        let (size, version) = (self.size, M::VERSION);
        self.registry.show(group, Window { board: board.clone(), bonds: bonds.downgrade(), size, version });
        let replica = Arc::new(Replica::new(self.machine));
        let setup = Setup {
            node,
            settings,
            me,
            stored,
            storage,
            bonds: bonds.clone(),
            events,
            queue: queue.clone(),
            board: board.clone(),
            compacts,
            log_limit: self.log_limit,
            writes: Watch::new(figures::GROUP_WRITE, "group", M::NAME),
            cancel: cancel.clone(),
            shutdown,
        };
        worker::spawn(setup, replica.clone());
        let executes = Watch::new(figures::GROUP_EXECUTE, "group", M::NAME);
        Group::new(Handle { registry: self.registry, replica, queue, board, bonds, cancel, executes })
    }

    fn settings(&self, volatile: bool) -> Settings {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let heartbeat = micros(self.timing.heartbeat).max(1000);
        let election_min = micros(self.timing.election_min).max(3 * heartbeat);
        Settings {
            heartbeat,
            election_min,
            election_max: micros(self.timing.election_max).max(2 * election_min),
            founding_delay: micros(self.timing.founding_delay),
            declared: self.size,
            target_voters: (self.size as usize | 1).max(5),
            volatile,
            preference: match self.role {
                MemberRole::Voter => Preference::Normal,
                MemberRole::Reluctant => Preference::Reluctant,
                MemberRole::Observer => Preference::Observer,
            },
            ..Settings::default()
        }
    }

    /// Makes the local storage the beginning of a new cluster that replaces the old one: for a group that lost its majority
    /// for good. The member must not run. Everything in its log is kept; what only the lost majority had is gone, which is why
    /// nothing does this by itself. Join afterwards; other members of the old cluster stop with
    /// [`Superseded`](super::StopReason::Superseded) when they meet the new one: wipe them, and they join it.
    ///
    /// # Errors
    /// When the storage cannot be read or written, holds no cluster, or the member runs.
    pub async fn recover(mut self) -> Result<(), RecoverError> {
        let group = self.key.group_id(M::NAME);
        let (cancel, shutdown) = (CancellationToken::new(), CancellationToken::new());
        self.registry.enter(group, M::NAME, &cancel, &shutdown).map_err(RecoverError::Join)?;
        let _entered = Entered { registry: self.registry.clone(), group, cancel: Some(cancel) };
        let (mut storage, stored) = self.open(group).await.map_err(RecoverError::Join)?;
        let node = &self.registry.node;
        let me = Member { node: node_of(node.id()), incarnation: stored.hard.incarnation };
        let recovered = raft::recover(stored, me, node.transport().wall_clock()).ok_or(RecoverError::Blank)?;
        let last = recovered.entries.last().cloned().into_iter().collect();
        storage.submit(1, vec![Write::Hard(recovered.hard), Write::Replace(last)]);
        poll_fn(|cx| storage.poll_durable(cx)).await?;
        Ok(())
    }
}

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
}

/// What was given, else the disk if the node has a directory, else memory.
fn open(given: Option<Box<dyn Storage>>, dir: Option<PathBuf>) -> Result<Box<dyn Storage>, StorageError> {
    Ok(match (given, dir) {
        (Some(storage), _) => storage,
        (None, Some(dir)) => Box::new(Disk::open(dir)?),
        (None, None) => Box::<InMemory>::default(),
    })
}

/// What members must agree on.
fn terms<M: StateMachine>(settings: &Settings) -> Terms {
    let mut hasher = blake3::Hasher::new_derive_key("mosaik 1 agreed settings of a group");
    let Settings { heartbeat, election_min, election_max, target_voters, .. } = settings;
    let numbers = [*heartbeat, *election_min, *election_max, *target_voters as u64, SESSIONS as u64, RETENTION, WINDOW];
    numbers.iter().for_each(|number| _ = hasher.update(&number.to_le_bytes()));
    hasher.update(&[u8::from(M::SCHEMA.is_some()), u8::from(M::snapshots().any())]);
    hasher.update(&M::SCHEMA.unwrap_or_default());
    Terms { size: settings.declared, version: M::VERSION, settings: *hasher.finalize().as_bytes() }
}

/// Gives the place of the group up again unless the member runs.
struct Entered {
    registry: Arc<Registry>,
    group: GroupId,
    cancel: Option<CancellationToken>,
}

impl Entered {
    fn keep(mut self) {
        self.cancel = None;
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Some(cancel) = self.cancel.take() {
            cancel.cancel();
            self.registry.forget(self.group);
        }
    }
}
