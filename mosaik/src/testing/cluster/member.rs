//! One node of a cluster: what it is made of, and its lives one after the other.

use std::{
    fmt,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use iroh::SecretKey;

use super::World;
#[cfg(feature = "attest")]
use crate::trust::attest::SimEvidence;
use crate::{
    network::{Network, NetworkBuilder, TaskProbe},
    node::{ArgError, ArgValues, RoleEntry, RoleError, RoleHandle, Setup},
    primitives::{NetworkId, PeerId},
    testing::{SimNode, eventually},
};

/// How long the tasks of a killed node may take to end.
const LETS_GO: Duration = Duration::from_secs(5);

/// One node of a cluster: the role and its number, counted from 0. `Display` prints `sensor-1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    pub(super) role: &'static str,
    pub(super) index: usize,
    /// Its place among all nodes.
    pub(super) at: usize,
}

impl Member {
    /// The role's name.
    #[must_use]
    pub const fn role(&self) -> &'static str {
        self.role
    }

    /// Its number among the nodes of its role, counted from 0.
    #[must_use]
    pub const fn index(&self) -> usize {
        self.index
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.role, self.index)
    }
}

/// Why a cluster or a node of it could not be started.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// The app has no role of that name.
    #[error("the app {app} has no role {role}")]
    NoRole {
        /// The role's name.
        role: &'static str,
        /// The app's name.
        app: &'static str,
    },
    /// The file of a role with `attest` cannot be used.
    #[error("what may run at {member}: {error}")]
    Measurements {
        /// Whose.
        member: Member,
        /// Why.
        error: String,
    },
    /// A flag of a role is missing or malformed: see [`with_args`](super::ClusterBuilder::with_args).
    #[error("the flags of {member}: {error}")]
    Args {
        /// Whose.
        member: Member,
        /// Why.
        error: ArgError,
    },
    /// A node could not be built.
    #[error("cannot start the node of {member}: {error}")]
    Node {
        /// Which.
        member: Member,
        /// Why.
        error: String,
    },
    /// The node that observes could not be built.
    #[error("cannot start the node that observes: {error}")]
    Observer {
        /// Why.
        error: String,
    },
    /// There is no place for data directories.
    #[error("cannot create {dir}: {error}", dir = dir.display())]
    Dir {
        /// The place.
        dir: PathBuf,
        /// Why.
        error: String,
    },
    /// A role could not be started, or ended with an error.
    #[error("{member}: {error}")]
    Role {
        /// Which.
        member: Member,
        /// Why.
        error: Box<RoleError>,
    },
}

pub(super) struct Running {
    pub(super) network: Network,
    pub(super) handle: RoleHandle,
}

/// A node with all that it keeps from one life to the next.
pub(super) struct Instance {
    pub(super) member: Member,
    pub(super) entry: &'static RoleEntry,
    values: ArgValues,
    machine: Machine,
    dir: Option<PathBuf>,
    #[cfg(feature = "attest")]
    attesting: Attesting,
    running: Mutex<Option<Running>>,
    /// The tasks of the life before, which may hold its files for a moment longer.
    former: Mutex<Option<TaskProbe>>,
}

/// Whether a node shows evidence, and whom it asks for some.
#[cfg(feature = "attest")]
#[derive(Clone)]
pub(super) enum Attesting {
    /// Its role does not declare it.
    Nobody,
    /// Its role does, and this is a trial.
    Waived,
    Everybody {
        evidence: SimEvidence,
        /// Whether it shows some itself.
        makes: bool,
    },
}

#[cfg(feature = "attest")]
impl Attesting {
    fn configure(self, builder: NetworkBuilder) -> NetworkBuilder {
        match self {
            Self::Nobody => builder,
            Self::Waived => builder.with_waived_evidence(),
            Self::Everybody { evidence, makes: true } => builder.with_evidence(evidence).with_attested_peers(),
            Self::Everybody { evidence, makes: false } => builder.with_verifier(evidence).with_attested_peers(),
        }
    }
}

enum Machine {
    Sim(SimNode),
    Loopback(SecretKey),
}

impl Instance {
    pub(super) fn new(
        world: &World,
        member: Member,
        entry: &'static RoleEntry,
        values: ArgValues,
        dir: Option<PathBuf>,
    ) -> Self {
        let machine = match world {
            World::Sim(sim) => Machine::Sim(sim.node(&member.to_string())),
            World::Loopback => Machine::Loopback(SecretKey::generate()),
        };
        Self {
            member,
            entry,
            values,
            machine,
            dir,
            #[cfg(feature = "attest")]
            attesting: Attesting::Nobody,
            running: Mutex::new(None),
            former: Mutex::new(None),
        }
    }

    #[cfg(feature = "attest")]
    pub(super) fn with_attesting(self, attesting: Attesting) -> Self {
        Self { attesting, ..self }
    }

    pub(super) fn id(&self) -> PeerId {
        match &self.machine {
            Machine::Sim(node) => node.id(),
            Machine::Loopback(secret) => secret.public().into(),
        }
    }

    pub(super) fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn network(&self) -> Option<Network> {
        self.running().as_ref().map(|running| running.network.clone())
    }

    pub(super) async fn start(&self, world: &World, id: NetworkId) -> Result<(), ClusterError> {
        let member = self.member;
        let former = self.former.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(former) = former
            && !eventually(LETS_GO, || former.count() == 0).await
        {
            let error = format!("tasks of its former life go on: {:?}", former.names());
            return Err(ClusterError::Node { member, error });
        }
        let secret = match &self.machine {
            Machine::Sim(_) => None,
            Machine::Loopback(secret) => Some(secret.clone()),
        };
        let tags = self.entry.role.tags.iter().map(|declared| declared.tag);
        let builder = network(world, &member.to_string(), secret, id).with_tags(tags);
        let builder = self.dir.iter().fold(builder, NetworkBuilder::with_data_dir);
        #[cfg(feature = "attest")]
        let builder = self.attesting.clone().configure(builder);
        let network = builder.build().await.map_err(|error| ClusterError::Node { member, error: error.to_string() })?;
        let started = self.entry.start(&mut Setup::new(&network, &self.values)).await;
        let handle = started.map_err(|error| ClusterError::Role { member, error: Box::new(error) })?;
        *self.running() = Some(Running { network, handle });
        Ok(())
    }

    /// At this instant.
    pub(super) fn kill(&self) {
        let running = self.running().take();
        if let Some(running) = &running {
            let probe = running.network.task_probe();
            self.former.lock().unwrap_or_else(PoisonError::into_inner).replace(probe);
        }
        match &self.machine {
            Machine::Sim(node) if running.is_some() => node.crash(),
            _ => running.iter().for_each(|running| running.network.node().abandon()),
        }
    }

    pub(super) fn pause(&self) {
        match (&self.machine, &*self.running()) {
            (_, None) => {}
            (Machine::Sim(node), _) => node.pause(),
            (Machine::Loopback(_), Some(running)) => running.network.node().tasks().pause(),
        }
    }

    pub(super) fn resume(&self) {
        match (&self.machine, &*self.running()) {
            (_, None) => {}
            (Machine::Sim(node), _) => node.resume(),
            (Machine::Loopback(_), Some(running)) => running.network.node().tasks().resume(),
        }
    }

    pub(super) async fn stop(&self) -> Result<(), ClusterError> {
        let Some(Running { network, handle }) = self.running().take() else { return Ok(()) };
        let stopped = handle.stop().await;
        network.shutdown().await;
        stopped.map_err(|error| ClusterError::Role { member: self.member, error: Box::new(error) })
    }
}

/// Configures a node.
pub(super) fn network(world: &World, name: &str, secret: Option<SecretKey>, id: NetworkId) -> NetworkBuilder {
    match world {
        World::Sim(sim) => sim.node(name).builder(id),
        World::Loopback => {
            let builder = Network::builder(id).with_listen(([127, 0, 0, 1], 0).into());
            secret.into_iter().fold(builder, NetworkBuilder::with_secret_key)
        }
    }
}
