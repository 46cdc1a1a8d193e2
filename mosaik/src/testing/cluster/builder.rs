//! [`ClusterBuilder`]: how many nodes of which role, with which flags, and what is drawn for them.

use std::{
    collections::BTreeMap,
    env, fs,
    marker::PhantomData,
    path::PathBuf,
    process,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    Cluster, Inner, World, keys,
    member::{ClusterError, Instance, Member, network},
    schedule::Faults,
};
use crate::{
    node::{App, ArgValues, EndpointDecl, Handlers, RoleEntry},
    primitives::{NetworkId, watch},
};
#[cfg(feature = "attest")]
use {
    super::member::Attesting,
    crate::trust::attest::{Policy, SimEvidence, SimPlatform},
};

/// The flags of a role's node, by its number.
type Flags = Box<dyn Fn(usize) -> Vec<String> + Send>;
/// What a role's node runs on, by its number.
#[cfg(feature = "attest")]
type Platforms = Box<dyn Fn(usize) -> SimPlatform + Send>;

/// Says what a [`Cluster`] runs: one node of each role unless told otherwise, of a role with a member of a group as many as the
/// group declares.
#[must_use = "a builder does nothing until started"]
pub struct ClusterBuilder<A> {
    world: World,
    network: NetworkId,
    counts: BTreeMap<&'static str, usize>,
    flags: BTreeMap<&'static str, Flags>,
    #[cfg(feature = "attest")]
    platforms: BTreeMap<&'static str, Platforms>,
    durable: bool,
    faults: Faults,
    app: PhantomData<fn() -> A>,
}

impl<A: App> ClusterBuilder<A> {
    pub(super) fn new(world: World, network: NetworkId) -> Self {
        Self {
            world,
            network,
            counts: BTreeMap::new(),
            flags: BTreeMap::new(),
            #[cfg(feature = "attest")]
            platforms: BTreeMap::new(),
            durable: false,
            faults: Faults::default(),
            app: PhantomData,
        }
    }

    /// So many nodes of a role; with 0, none.
    pub fn with<R: Handlers>(self, count: usize) -> Self {
        self.count(R::ROLE.name, count)
    }

    pub(super) fn count(mut self, role: &'static str, count: usize) -> Self {
        self.counts.insert(role, count);
        self
    }

    /// The flags of a role's nodes, as on the command line, by the node's number: `|i| vec!["--id".into(), i.to_string()]`.
    pub fn with_args<R: Handlers>(mut self, flags: impl Fn(usize) -> Vec<String> + Send + 'static) -> Self {
        self.flags.insert(R::ROLE.name, Box::new(flags));
        self
    }

    /// The simulated machines that nodes of a role with `attest` run on, by the node's number. As soon as one role has some, all roles
    /// with `attest` read their file, relative to the working directory, and ask everybody for evidence of kind `sim`; those without a
    /// machine make none. Default: no role has any, and nobody is asked. The observer shows no evidence.
    #[cfg(feature = "attest")]
    pub fn with_platform<R: Handlers>(mut self, platform: impl Fn(usize) -> SimPlatform + Send + 'static) -> Self {
        self.platforms.insert(R::ROLE.name, Box::new(platform));
        self
    }

    /// How the node of a role is attested.
    #[cfg(feature = "attest")]
    fn attesting(&self, entry: &RoleEntry, member: Member) -> Result<Attesting, ClusterError> {
        let Some(file) = entry.role.attest else { return Ok(Attesting::Nobody) };
        if self.platforms.is_empty() {
            return Ok(Attesting::Waived);
        }
        let policy =
            Policy::from_file(file).map_err(|error| ClusterError::Measurements { member, error: error.to_string() })?;
        let platform = self.platforms.get(entry.role.name).map(|platform| platform(member.index));
        let makes = platform.is_some();
        let evidence = SimEvidence::new(platform.unwrap_or_else(|| SimPlatform::new(0, 0)), policy);
        Ok(Attesting::Everybody { evidence, makes })
    }

    /// Gives every node a data directory, which it keeps over restarts and which is removed with the cluster. Groups and stores
    /// are then durable.
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    pub(super) fn with_faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// The nodes that there will be.
    pub(super) fn members(&self) -> Result<Vec<Member>, ClusterError> {
        let plan = self.plan()?.into_iter().enumerate();
        Ok(plan.map(|(at, (entry, index))| Member { role: entry.role.name, index, at }).collect())
    }

    /// Who will run: the roles with the numbers of their nodes.
    pub(super) fn plan(&self) -> Result<Vec<(&'static RoleEntry, usize)>, ClusterError> {
        let named = self.counts.keys().chain(self.flags.keys());
        #[cfg(feature = "attest")]
        let named = named.chain(self.platforms.keys());
        let unknown = named.copied().find(|name| A::GRAPH.role(name).is_none());
        if let Some(role) = unknown {
            return Err(ClusterError::NoRole { role, app: A::GRAPH.app });
        }
        let entries = A::GRAPH.roles.iter();
        let counted = entries.map(|entry| {
            let groups = entry.role.endpoints.iter().filter_map(EndpointDecl::machine);
            let founders = groups.filter_map(|machine| machine.group.size).max().unwrap_or(1);
            let usual = usize::try_from(founders).unwrap_or(1);
            (entry, self.counts.get(entry.role.name).copied().unwrap_or(usual))
        });
        Ok(counted.flat_map(|(entry, count)| (0..count).map(move |index| (entry, index))).collect())
    }

    /// Starts all nodes, one after the other. Keys of groups that the environment should hold and does not are made up, the same
    /// for all.
    ///
    /// # Errors
    /// When a flag is missing or malformed, or a node or a role cannot be started; those that were started end.
    pub async fn start(self) -> Result<Cluster<A>, ClusterError> {
        let plan = self.plan()?;
        keys::make_up(&A::GRAPH);
        #[cfg(feature = "attest")]
        let attesting = plan
            .iter()
            .enumerate()
            .map(|(at, (entry, index))| self.attesting(entry, Member { role: entry.role.name, index: *index, at }))
            .collect::<Result<Vec<_>, _>>()?;
        let Self { world, network: id, flags, durable, faults, .. } = self;
        let dir = durable.then(new_dir).transpose()?;
        let mut instances = Vec::new();
        for (at, (entry, index)) in plan.into_iter().enumerate() {
            let member = Member { role: entry.role.name, index, at };
            let given = flags.get(entry.role.name).map(|flags| flags(index)).unwrap_or_default();
            let values = ArgValues::parse(&entry.role, given).map_err(|error| ClusterError::Args { member, error })?;
            let dir = dir.as_ref().map(|dir| dir.join(member.to_string()));
            let instance = Instance::new(&world, member, entry, values, dir);
            #[cfg(feature = "attest")]
            let instance = instance.with_attesting(attesting[at].clone());
            instances.push(instance);
        }
        let observer = network(&world, "observer", None, id).build().await;
        let observer = observer.map_err(|error| ClusterError::Observer { error: error.to_string() })?;
        let calm = watch::Sender::new(faults.is_empty());
        let (clients, cuts) = (Mutex::default(), Mutex::default());
        let inner = Inner { world, network: id, instances, observer, clients, cuts, faults, calm, dir };
        let cluster = Cluster { inner: Arc::new(inner), app: PhantomData };
        for instance in &cluster.inner.instances {
            instance.start(&cluster.inner.world, id).await?;
        }
        Ok(cluster)
    }
}

impl<A> std::fmt::Debug for ClusterBuilder<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterBuilder").field("counts", &self.counts).finish_non_exhaustive()
    }
}

/// A directory that nobody else has.
fn new_dir() -> Result<PathBuf, ClusterError> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let dir = env::temp_dir().join(format!("mosaik-cluster-{}-{number}", process::id()));
    let made = fs::create_dir_all(&dir);
    made.map_err(|error| ClusterError::Dir { dir: dir.clone(), error: error.to_string() })?;
    Ok(dir)
}
