//! [`Network`]: the handle that keeps a node running.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use iroh::EndpointAddr;
use tokio::time::timeout;

use super::{builder::NetworkBuilder, close::CloseCode, lock::DataDirLock, node::Node};
use crate::{
    diagnostics::Diagnostics,
    discovery::Discovery,
    groups::Groups,
    network::BuildError,
    primitives::{NetworkId, PeerId},
    stores::Stores,
    streams::Streams,
    transport::{NodeFailure, TaskProbe},
    trust::Trust,
};

/// A running node of a network. Cheap to clone; when the last clone is dropped the node ends at once, as in a crash.
/// Call [`shutdown`](Self::shutdown) to leave gracefully.
///
/// ```
/// use futures::StreamExt;
/// use mosaik::{Network, NetworkId, discovery::Event};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), mosaik::network::BuildError> {
/// let network_id = NetworkId::random();
/// let first = Network::new(network_id).await?;
/// let mut events = first.discovery().events();
///
/// let second = Network::builder(network_id).with_tags(["sensor"]).build().await?;
/// if let Some(Event::PeerDiscovered(peer)) = events.next().await {
///     assert_eq!(peer.id(), second.local().id());
///     assert!(peer.tags().contains("sensor"));
/// }
/// second.shutdown().await;
/// first.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Network(Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) node: Node,
    pub(super) discovery: Discovery,
    pub(super) streams: Streams,
    pub(super) stores: Stores,
    pub(super) groups: Groups,
    pub(super) diagnostics: Diagnostics,
    /// Held until the node has ended; a handle may outlive it.
    pub(super) data_dir: Mutex<Option<DataDirLock>>,
}

impl Inner {
    fn release_data_dir(&self) {
        self.data_dir.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// The local node of a [`Network`].
#[derive(Clone, Debug)]
pub struct Local(Node);

impl Network {
    /// Starts a node with no configuration: a fresh identity, all interfaces, a free port. It finds the other nodes
    /// of this process by itself. Works without internet and waits for nobody.
    ///
    /// # Errors
    /// When the socket cannot be bound.
    pub async fn new(network_id: impl Into<NetworkId>) -> Result<Self, BuildError> {
        Self::builder(network_id).build().await
    }

    /// Configures a node.
    pub fn builder(network_id: impl Into<NetworkId>) -> NetworkBuilder {
        NetworkBuilder::new(network_id.into())
    }

    pub(super) fn from_inner(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    /// A handle that does not keep the node running.
    pub(crate) fn downgrade(&self) -> WeakNetwork {
        WeakNetwork(Arc::downgrade(&self.0))
    }

    pub(crate) fn node(&self) -> &Node {
        &self.0.node
    }

    /// The network that this node belongs to.
    #[must_use]
    pub fn network_id(&self) -> NetworkId {
        self.0.node.network_id()
    }

    /// The local node: who and where it is.
    #[must_use]
    pub fn local(&self) -> Local {
        Local(self.0.node.clone())
    }

    /// Who is in the network.
    #[must_use]
    pub fn discovery(&self) -> &Discovery {
        &self.0.discovery
    }

    /// Producers and consumers.
    #[must_use]
    pub fn streams(&self) -> &Streams {
        &self.0.streams
    }

    /// States that one node changes and others follow.
    #[must_use]
    pub fn stores(&self) -> &Stores {
        &self.0.stores
    }

    /// Replicated state machines.
    #[must_use]
    pub fn groups(&self) -> &Groups {
        &self.0.groups
    }

    /// What keeps strangers out of this network, and who was refused.
    #[must_use]
    pub fn trust(&self) -> &Trust {
        self.0.node.trust()
    }

    /// What this node can tell about itself, and a client to ask others.
    #[must_use]
    pub fn diagnostics(&self) -> &Diagnostics {
        &self.0.diagnostics
    }

    /// Leaves gracefully: departs, drains, closes every connection and joins every task, within two seconds or as
    /// [`with_shutdown_limit`](NetworkBuilder::with_shutdown_limit) says; what is not done by then is aborted. Other handles of this node then fail. Safe to call twice. When cancelled, the node is still
    /// closing and ends when the last handle is dropped.
    pub async fn shutdown(&self) {
        let node = &self.0.node;
        let orderly = async {
            self.0.groups.shutdown().await;
            self.0.stores.shutdown();
            self.0.streams.shutdown().await;
            self.0.discovery.shutdown().await;
            node.pool().close(CloseCode::ShuttingDown);
            node.cancel().cancel();
            node.transport().close().await;
            node.tasks().drained().await;
        };
        if timeout(node.limits().shutdown, orderly).await.is_err() {
            tracing::warn!(left = ?node.tasks(), "shutdown took too long; aborting what is left");
        }
        node.tasks().abort_all();
        node.tasks().drained().await;
        self.0.release_data_dir();
    }

    /// Why the node has ended by itself, if it has: a task without which it is of no use to anybody panicked. All calls then
    /// fail; start a new node.
    #[must_use]
    pub fn failure(&self) -> Option<NodeFailure> {
        self.0.node.tasks().failure()
    }

    /// Resolves when the node ends by itself, with the reason; a node that is well or was shut down never does.
    /// Cancellation-safe.
    ///
    /// A generated main returns this as its error. A program with a main of its own waits for it beside its work:
    ///
    /// ```
    /// # async fn work() -> Result<(), Box<dyn std::error::Error>> { Ok(()) }
    /// # async fn run(net: mosaik::Network) -> Result<(), Box<dyn std::error::Error>> {
    /// tokio::select! {
    ///     failure = net.failed() => Err(failure.into()),
    ///     result = work() => result,
    /// }
    /// # }
    /// ```
    pub async fn failed(&self) -> NodeFailure {
        self.0.node.tasks().failed().await
    }

    /// Observes this node's tasks, also after it has ended: for tests that assert that none is left.
    #[must_use]
    pub fn task_probe(&self) -> TaskProbe {
        self.0.node.tasks().probe()
    }
}

/// A [`Network`] that may have ended.
#[derive(Clone, Debug)]
pub(crate) struct WeakNetwork(Weak<Inner>);

impl WeakNetwork {
    /// The node, if somebody else still keeps it.
    pub(crate) fn upgrade(&self) -> Option<Network> {
        self.0.upgrade().map(Network)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.node.abandon();
        self.release_data_dir();
    }
}

impl Local {
    /// The node's identity.
    #[must_use]
    pub fn id(&self) -> PeerId {
        self.0.id()
    }

    /// Where peers can reach the node now.
    #[must_use]
    pub fn addr(&self) -> EndpointAddr {
        self.0.addr()
    }
}
