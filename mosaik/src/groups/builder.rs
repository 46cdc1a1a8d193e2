//! [`GroupBuilder`]: how a node becomes a member.

use std::{any::type_name, fmt, path::PathBuf, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{
    Registry,
    bonds::{Bonds, Identity, Terms},
    build::Build,
    error::JoinError,
    group::{Group, Handle},
    inspect::Window,
    key::GroupKey,
    machine::{NoOp, StateMachine, machine_id},
    options::{MemberRole, Timing},
    outlet::Outlet,
    raft::{self, MachineId, Marks, Member, Preference, Settings, Start, Stored},
    remote::{self, Shape},
    shapes::Shapes,
    snapshots::{SnapshotError, Snapshots},
    status::node_of,
    storage::{Disk, InMemory, Storage, StorageError},
    worker::{self, Board, Initial, Queue, RETENTION, Replica, SESSIONS, Setup, Unpacked, WINDOW, pack, unpack},
};
use crate::{
    primitives::{
        GroupId,
        codec::Codec,
        figures::{self, Watch},
    },
    trust::{Label, Needed, Right},
};

/// Configures a member of a group; made by [`Groups::with_key`](super::Groups::with_key).
#[must_use = "a builder does nothing until joined"]
pub struct GroupBuilder<M = NoOp> {
    pub(super) registry: Arc<Registry>,
    pub(super) key: GroupKey,
    pub(super) machine: M,
    /// Makes the machine again.
    pub(super) initial: Option<Initial<M>>,
    /// Whether the machine must survive a snapshot before it joins.
    tried: bool,
    storage: Option<Box<dyn Storage>>,
    size: u32,
    role: MemberRole,
    timing: Timing,
    log_limit: u64,
    /// What the ticket of a member needs, and that of who calls.
    pub(super) member: Needed,
    call: Needed,
    label: Option<Label>,
}

impl GroupBuilder<NoOp> {
    pub(super) fn new(registry: Arc<Registry>, key: GroupKey) -> Self {
        Self {
            registry,
            key,
            machine: NoOp,
            initial: None,
            tried: false,
            storage: None,
            size: 0,
            role: MemberRole::default(),
            timing: Timing::default(),
            log_limit: 16 << 20,
            member: Needed::nothing(Right::Member),
            call: Needed::nothing(Right::Call),
            label: None,
        }
    }
}

impl<M> GroupBuilder<M> {
    /// The machine in its first state, which must be the same at all members. Default: [`NoOp`], for a group that only
    /// agrees on a leader.
    pub fn with_state_machine<N: StateMachine>(self, machine: N) -> GroupBuilder<N> {
        let Self { registry, key, storage, size, role, timing, log_limit, member, call, label, .. } = self;
        let (initial, tried) = (None, false);
        GroupBuilder {
            registry,
            key,
            machine,
            initial,
            tried,
            storage,
            size,
            role,
            timing,
            log_limit,
            member,
            call,
            label,
        }
    }

    /// As [`with_state_machine`](Self::with_state_machine), from a function that makes the machine in its first state, the same
    /// each time. A machine without snapshots is made anew with it when a command has panicked.
    pub fn with_initial<N: StateMachine>(self, initial: impl Fn() -> N + Send + Sync + 'static) -> GroupBuilder<N> {
        let machine = initial();
        GroupBuilder { initial: Some(Arc::new(initial)), ..self.with_state_machine(machine) }
    }

    /// Joining fails unless the machine, as it is, survives a snapshot, if it has any.
    pub(crate) fn tried(mut self) -> Self {
        self.tried = true;
        self
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
    /// long as the last one; by up to a half more, by chance, so that members do not all do it at once. Default: 16 MiB.
    /// Members may differ.
    pub fn with_log_limit(mut self, bytes: u64) -> Self {
        self.log_limit = bytes;
        self
    }

    /// Bonds only with members whose ticket grants one of these roles or grants, in a network of an authority, besides the group's
    /// key. It is looked at again when tickets change or run out: a member that no longer has one loses its bonds, as if it
    /// could not be reached. In an open or a secret network nobody holds a ticket, and the key alone decides. All members
    /// should declare the same. Default: the key alone decides.
    pub fn with_member_grants(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.member = Needed::one_of(Right::Member, names);
        self
    }

    /// Serves only [clients](super::GroupClient) on peers whose ticket grants one of these roles or grants, besides the group's key; as
    /// [`with_member_grants`](Self::with_member_grants). Members call by their membership. Default: the key alone decides.
    pub fn with_call_grants(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.call = Needed::one_of(Right::Call, names);
        self
    }

    /// Bonds only with members and serves only clients that declare the same label, and in a network of an authority only those whose
    /// ticket grants `clears:` and the label, besides what [`with_member_grants`](Self::with_member_grants) and
    /// [`with_call_grants`](Self::with_call_grants) ask. Default: no label, and only those without one.
    pub fn with_label(mut self, label: Label) -> Self {
        self.label = Some(label);
        self
    }
}

impl<M> fmt::Debug for GroupBuilder<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, storage, size, role, timing, log_limit, .. } = self;
        let mut debug = f.debug_struct("GroupBuilder");
        debug.field("key", key).field("storage", storage).field("size", size).field("role", role);
        debug.field("timing", timing).field("log_limit", log_limit).finish_non_exhaustive()
    }
}

impl<M: StateMachine> GroupBuilder<M> {
    /// Becomes a member. Resolves when the local member runs, not when there is a leader: see
    /// [`Group::when`](super::Group::when). Cancelled, it has not joined.
    ///
    /// # Errors
    /// When the storage cannot be opened or read, or was written by another version of the machine; when this node is a member
    /// of the group already; or when the network is shut down.
    pub async fn join(mut self) -> Result<Group<M>, JoinError> {
        let group = self.key.group_id(M::NAME);
        self.try_first()?;
        let registry = self.registry.clone();
        let (cancel, shutdown) = (registry.cancel(), CancellationToken::new());
        registry.enter(group, M::NAME, &cancel, &shutdown)?;
        let entered = Entered::new(registry.clone(), group, cancel.clone());
        let opened = self.open(group).await?;
        let (storage, stored) = self.made_fit(group, opened).await?;
        let group = self.start(group, storage, stored, cancel, shutdown);
        entered.keep();
        Ok(group)
    }

    /// Opens the storage and reads it.
    pub(super) async fn open(&mut self, group: GroupId) -> Result<Opened, JoinError> {
        let (given, dir) = (self.storage.take(), self.registry.dir(group));
        let tasks = self.registry.node.tasks();
        let is_simulated = !tasks.has_threads();
        let opened = tasks.blocking(move || {
            let beside = dir.clone().filter(|_| given.is_none());
            let mut storage = open(given, dir, is_simulated)?;
            let stored = storage.load()?;
            let (before, ours) = (beside.as_deref().and_then(Shapes::kept), Shapes::of::<M>());
            let (stored, outdated) = admit::<M>(stored, before.as_ref().map(|before| (&ours, before)))?;
            if let (Some(dir), None, true) = (&beside, &outdated, before.as_ref() != Some(&ours)) {
                ours.keep_beside(dir);
            }
            Ok(Opened { storage, stored, dir: beside, outdated })
        });
        opened.await.ok_or(JoinError::Shutdown)?
    }

    /// A state that does not survive a snapshot would show when the log is long already.
    fn try_first(&self) -> Result<(), JoinError> {
        let snapshots = M::snapshots();
        if !self.tried || !snapshots.any() {
            return Ok(());
        }
        let tried = snapshots.encode(&self.machine).and_then(|bytes| snapshots.read_back(&bytes));
        tried.map(|_| ()).map_err(|error| JoinError::Snapshot { machine: type_name::<M>(), error })
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
        let volatile = !storage.is_durable();
        let settings = self.settings(volatile);
        // What is not blank was started before, whether that was counted or not.
        let earlier = if blank { 0 } else { stored.marks.start.number.max(1) };
        let start = worker::start(&node, volatile, earlier, stored.extent());
        let terms = self.terms(&settings);
        let replica = Arc::new(Replica::new(self.machine, self.initial));
        let clearing = |needed: Needed| needed.about(M::NAME).clearing(self.label.as_ref());
        let (member, call) = (clearing(self.member), clearing(self.call));
        node.asks_for([&member, &call]);
        let identity = identity((group, self.key.clone(), terms), member, me, start, &stored);
        let (bonds, events) = Bonds::join(&self.registry.bonds, &node, &self.registry.discovery, identity);
        let compacts = M::snapshots().any();
        let (queue, board) = (Arc::new(Queue::default()), Arc::new(Board::new(group, node.id(), compacts)));
        let (size, version) = (self.size, M::VERSION);
        let (seen, key) = (bonds.downgrade(), self.key);
        let asking = remote::asking(&replica, &queue, &board, node.tasks());
        let (board_seen, queue_seen, shape) = (board.clone(), queue.clone(), Shape::of::<M>(self.label.as_ref()));
        let outlet = Outlet { board: board.clone(), queue: queue.clone(), shown: replica.shown() };
        let window = {
            let (board, queue) = (board_seen, queue_seen);
            Window { board, bonds: seen, queue, key, call, size, version, shape, asking, outlet }
        };
        self.registry.show(group, window);
        let setup = Setup {
            node,
            settings,
            me,
            start,
            stored,
            storage,
            bonds: bonds.clone(),
            events,
            queue: queue.clone(),
            board: board.clone(),
            compacts,
            log_limit: self.log_limit,
            preference: self.role.into(),
            writes: Watch::new(figures::GROUP_WRITE, "group", M::NAME),
            cancel: cancel.clone(),
            shutdown,
        };
        worker::spawn(setup, replica.clone());
        let executes = Watch::new(figures::GROUP_EXECUTE, "group", M::NAME);
        let (commands, outputs) = (Codec::of(), Codec::of());
        let registry = self.registry;
        Group::new(Handle { registry, replica, queue, board, bonds, cancel, executes, commands, outputs })
    }

    pub(super) fn settings(&self, volatile: bool) -> Settings {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let heartbeat = micros(self.timing.heartbeat).max(1000);
        let election_min = micros(self.timing.election_min).max(3 * heartbeat);
        Settings {
            heartbeat,
            election_min,
            election_max: micros(self.timing.election_max).max(2 * election_min),
            hung: Settings::default().hung.max(2 * micros(self.timing.election_max)),
            founding_delay: micros(self.timing.founding_delay),
            machine: Some(machine_id::<M>()),
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

    /// What members must agree on.
    pub(super) fn terms(&self, settings: &Settings) -> Terms {
        let mut hasher = blake3::Hasher::new_derive_key("mosaik 1 agreed settings of a group");
        let Settings { heartbeat, election_min, election_max, target_voters, .. } = settings;
        let numbers =
            [*heartbeat, *election_min, *election_max, *target_voters as u64, SESSIONS as u64, RETENTION, WINDOW];
        numbers.iter().for_each(|number| _ = hasher.update(&number.to_le_bytes()));
        let can_be_made_anew = Replica::can_be_made_anew(&self.machine, self.initial.clone());
        hasher.update(&[M::snapshots().any(), can_be_made_anew].map(u8::from));
        let (build, settings_digest) = (Build::of_this(), *hasher.finalize().as_bytes());
        let (size, version, shapes) = (settings.declared, M::VERSION, Shapes::of::<M>());
        let label = self.label.as_ref().map(Label::to_string);
        Terms { size, version, build, settings: settings_digest, shapes, label }
    }
}

/// A storage that was read.
pub(super) struct Opened {
    pub(super) storage: Box<dyn Storage>,
    pub(super) stored: Stored,
    /// Where it lies, if it is the node's own.
    pub(super) dir: Option<PathBuf>,
    /// Why nobody may join with it: it is of an earlier version of the machine and not sealed.
    pub(super) outdated: Option<JoinError>,
}

/// What was given, else the disk if the node has a directory, else memory.
fn open(
    given: Option<Box<dyn Storage>>,
    dir: Option<PathBuf>,
    #[cfg_attr(not(feature = "testing"), expect(unused_variables, reason = "nothing is simulated"))] is_simulated: bool,
) -> Result<Box<dyn Storage>, StorageError> {
    Ok(match (given, dir) {
        (Some(storage), _) => storage,
        #[cfg(feature = "testing")]
        (None, Some(dir)) if is_simulated => Box::new(Disk::open(dir)?.at_once()),
        (None, Some(dir)) => Box::new(Disk::open(dir)?),
        (None, None) => Box::<InMemory>::default(),
    })
}

/// What is stored, as it is for this version of the machine; and why the machine may not run on it, if the others may have what it
/// takes.
fn admit<M: StateMachine>(
    mut stored: Stored,
    shapes: Option<(&Shapes, &Shapes)>,
) -> Result<(Stored, Option<JoinError>), JoinError> {
    let ours = machine_id::<M>();
    let snapshots = M::snapshots();
    let sealed = stored.snapshot.as_mut().filter(|snapshot| snapshot.manifest.sealed);
    if let (Some(snapshot), Some(theirs)) = (sealed, &stored.machine)
        && theirs.name == ours.name
        && theirs.version != ours.version
        && snapshots.migrates_from(theirs.version)
    {
        // The worker writes it, with the new name of the machine: until then all is as it was.
        migrate(&snapshots, theirs.version, &ours, snapshot).map_err(|error| JoinError::Migration {
            stored: theirs.to_string(),
            ours: ours.to_string(),
            error,
        })?;
        return Ok((stored, None));
    }
    let theirs = stored.machine.as_ref();
    let migrates = snapshots.migrates_from(theirs.map_or(0, |theirs| theirs.version));
    let outdated = migrates && theirs.is_some_and(|it| it.name == ours.name && it.version < ours.version);
    match check(&ours, &stored, migrates, shapes) {
        Err(error) if outdated => Ok((stored, Some(error))),
        checked => checked.map(|()| (stored, None)),
    }
}

/// Makes the snapshot of an earlier version one of this version.
fn migrate<M: StateMachine>(
    snapshots: &Snapshots<M>,
    version: u32,
    ours: &MachineId,
    snapshot: &mut raft::Snapshot,
) -> Result<(), SnapshotError> {
    let old = unpack(&snapshot.data)?;
    let machine = snapshots.encode(&snapshots.migrate(version, &old.machine)?)?;
    snapshots.read_back(&machine)?;
    let data = pack(&Unpacked { machine, ..old })?;
    let manifest = &mut snapshot.manifest;
    manifest.chunks = raft::chunks(&data, Settings::default().chunk);
    (manifest.machine, manifest.sealed) = (Some(ours.clone()), false);
    snapshot.data = data;
    Ok(())
}

/// Whether the machine may run on what is stored. `shapes` are its own and those that were left beside the storage.
fn check(
    ours: &MachineId,
    stored: &Stored,
    migrates: bool,
    shapes: Option<(&Shapes, &Shapes)>,
) -> Result<(), JoinError> {
    let in_snapshot = stored.snapshot.as_ref().and_then(|snapshot| snapshot.manifest.machine.as_ref());
    let Some(theirs) = [stored.machine.as_ref(), in_snapshot].into_iter().flatten().find(|theirs| !ours.reads(theirs))
    else {
        return Ok(());
    };
    Err(JoinError::Machine {
        stored: theirs.to_string(),
        ours: ours.to_string(),
        remedy: remedy(ours, theirs, migrates, shapes),
    })
}

/// What to do about a storage of another machine.
fn remedy(ours: &MachineId, theirs: &MachineId, migrates: bool, shapes: Option<(&Shapes, &Shapes)>) -> String {
    let (old, new) = (theirs.version, ours.version);
    if ours.name != theirs.name {
        "it belongs to another group; give this member a storage of its own".to_owned()
    } else if old > new {
        format!("run version {old} or a later one")
    } else if old < new && migrates {
        format!(
            "it is not sealed; run version {old} once more with `group seal`, then version {new}. If the other members were \
             sealed, start version {new} there: this one takes their state when a majority without it can be reached"
        )
    } else if old < new {
        format!(
            "run version {old} once more with `group seal`, then version {new} declared with `migrate_from({old}, ..)`; or \
             remove the storage of all members to begin anew"
        )
    } else {
        let differs = shapes.and_then(|(ours, theirs)| ours.difference(theirs));
        let differs =
            differs.map_or_else(String::new, |(ours, theirs)| format!(" ({ours} here, {theirs} in the storage)"));
        format!(
            "the commands, what they give back, or the state have another shape{differs}: raise the version, run the program \
             that wrote it once more with `group seal`, then the new one declared with `migrate_from({old}, ..)`"
        )
    }
}

/// What others are told of a member.
pub(super) fn identity(
    (group, key, terms): (GroupId, GroupKey, Terms),
    needed: Needed,
    me: Member,
    start: Start,
    stored: &Stored,
) -> Identity {
    let marks = Marks { start, ..stored.marks.clone() };
    Identity { group, key, terms, needed, me, cluster: stored.hard.cluster, marks, extent: stored.extent() }
}

/// Gives the place of the group up again unless the member runs.
pub(super) struct Entered {
    registry: Arc<Registry>,
    group: GroupId,
    cancel: Option<CancellationToken>,
}

impl Entered {
    /// The place of a group that is entered already.
    pub(super) const fn new(registry: Arc<Registry>, group: GroupId, cancel: CancellationToken) -> Self {
        Self { registry, group, cancel: Some(cancel) }
    }

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
