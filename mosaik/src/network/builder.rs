//! [`NetworkBuilder`]: configuration of a node, checked when it is built.

use std::{net::SocketAddr, path::PathBuf};

use iroh::{RelayUrl, SecretKey};

use super::{
    handle::{Inner, Network},
    identity::{self, SecretError},
    link::Family,
    node::Node,
    router::{self, Acceptors},
};
use crate::{
    diagnostics::Diagnostics,
    discovery::{self, Bootstrap, BootstrapError, Discovery, EntryError},
    groups::{Groups, bonds::BondRegistry},
    metrics::Sampler,
    primitives::{NetworkId, Tag, Tags, figures, fresh_bytes},
    stores::Stores,
    streams::Streams,
    transport::{IrohConfig, IrohTransport, Transport},
};

/// Configures a node; made by [`Network::builder`].
#[derive(Debug)]
#[must_use = "a builder does nothing until built"]
pub struct NetworkBuilder {
    network_id: NetworkId,
    secret_key: Option<SecretKey>,
    listen: Option<SocketAddr>,
    data_dir: Option<PathBuf>,
    metrics: bool,
    relays: Vec<RelayUrl>,
    bootstrap: Vec<Result<Bootstrap, BootstrapError>>,
    tags: Tags,
    discovery: discovery::Config,
    transport: Option<(Transport, SecretKey)>,
}

/// Why a node could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The socket could not be bound.
    #[error("cannot listen on {listen}: {error}")]
    Bind {
        /// The address asked for, or "all interfaces".
        listen: String,
        /// What the operating system said.
        error: String,
    },
    /// The node's identity could not be read or kept.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A bootstrap peer was named by text that names no peer.
    #[error("bootstrap peer: {0}")]
    Bootstrap(#[from] BootstrapError),
    /// The tags are over the limit of an entry.
    #[error("the node's own entry: {0}")]
    Entry(#[from] EntryError),
}

impl NetworkBuilder {
    pub(super) fn new(network_id: NetworkId) -> Self {
        Self {
            network_id,
            secret_key: None,
            listen: None,
            data_dir: None,
            metrics: false,
            relays: Vec::new(),
            bootstrap: Vec::new(),
            tags: Tags::default(),
            discovery: discovery::Config::default(),
            transport: None,
        }
    }

    /// The node's identity. Default: fresh, or the one kept in the data directory.
    pub fn with_secret_key(mut self, secret_key: SecretKey) -> Self {
        self.secret_key = Some(secret_key);
        self
    }

    /// The address to listen on; port 0 takes a free one. Default: all interfaces, a free port.
    pub fn with_listen(mut self, listen: SocketAddr) -> Self {
        self.listen = Some(listen);
        self
    }

    /// Where the node keeps its identity and the peers it knew. Created when missing. Default: nothing is kept.
    pub fn with_data_dir(mut self, data_dir: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(data_dir.into());
        self
    }

    /// Relay servers through which peers that cannot reach each other directly connect. Default: none.
    pub fn with_relays(mut self, relays: impl IntoIterator<Item = RelayUrl>) -> Self {
        self.relays.extend(relays);
        self
    }

    /// A peer to contact first: an `EndpointAddr`, a [`PeerId`](crate::PeerId), or text such as `id@host:port`.
    /// Repeatable. The node stays in touch with it: when it is lost, it is looked for until it is back. Text that names no
    /// peer is reported by [`build`](Self::build).
    pub fn with_bootstrap<B>(mut self, peer: B) -> Self
    where
        B: TryInto<Bootstrap, Error: Into<BootstrapError>>,
    {
        self.bootstrap.push(peer.try_into().map_err(Into::into));
        self
    }

    /// Roles and properties that the node announces from its start. Repeatable.
    pub fn with_tags(mut self, tags: impl IntoIterator<Item = impl Into<Tag>>) -> Self {
        tags.into_iter().for_each(|tag| _ = self.tags.insert(tag));
        self
    }

    /// Publishes the [metrics](crate::metrics) of this node to the recorder of the crate `metrics` that the process has
    /// installed; to be installed before the node is built. Default: nothing is published.
    pub fn with_metrics(mut self) -> Self {
        self.metrics = true;
        self
    }

    /// Limits and intervals of discovery.
    pub fn with_discovery(mut self, config: impl Into<discovery::Config>) -> Self {
        self.discovery = config.into();
        self
    }

    /// Runs the node on a simulated network, which gives it its key.
    #[cfg(feature = "testing")]
    pub(crate) fn with_transport(mut self, transport: Transport, secret_key: SecretKey) -> Self {
        self.transport = Some((transport, secret_key));
        self
    }

    /// Starts the node. Returns as soon as the socket is bound; peers are found in the background.
    ///
    /// # Errors
    /// When the socket cannot be bound, the data directory cannot be used, a bootstrap peer is named wrongly, or there are
    /// more tags than an entry holds.
    pub async fn build(self) -> Result<Network, BuildError> {
        let bootstrap = self.bootstrap.into_iter().collect::<Result<_, _>>()?;
        let (transport, secret) = match self.transport {
            Some(given) => given,
            None => {
                let secret = secret_key(self.secret_key, self.data_dir.as_deref())?;
                (bind(secret.clone(), self.listen, self.relays).await?, secret)
            }
        };
        if self.metrics {
            figures::want();
        }
        let node = Node::new(self.network_id, transport);
        let mut acceptors = Acceptors::default();
        let setup = discovery::Setup {
            config: self.discovery,
            secret,
            bootstrap,
            tags: self.tags,
            data_dir: self.data_dir.clone(),
        };
        let discovery = Discovery::spawn(setup, &node, &mut acceptors).inspect_err(|_| {
            node.cancel().cancel();
            node.tasks().abort_all();
            node.transport().abandon();
        })?;
        let streams = Streams::new(node.clone(), discovery.clone(), &mut acceptors);
        let stores =
            Stores::new(node.clone(), discovery.clone(), streams.clone(), self.data_dir.clone(), &mut acceptors);
        let bonds = BondRegistry::new(&node, &mut acceptors);
        let groups = Groups::new(node.clone(), discovery.clone(), bonds, self.data_dir);
        let diagnostics = Diagnostics::new(&node, &discovery, &streams, &groups, &stores, &mut acceptors);
        node.set_acceptors(acceptors);
        if self.metrics {
            let (node, discovery, streams) = (node.clone(), discovery.clone(), streams.clone());
            let sampler = Sampler { node, discovery, streams, groups: groups.clone(), stores: stores.clone() };
            sampler.node.tasks().clone().spawn("metrics", sampler.run());
        }
        node.tasks().spawn("accept", router::accept_loop(node.clone()));
        Ok(Network::from_inner(Inner { node, discovery, streams, stores, groups, diagnostics }))
    }
}

/// A node of that network that announces nothing and serves nobody: for somebody who only wants to ask. Ends with
/// [`Node::abandon`].
pub(crate) async fn bare(network: NetworkId) -> Result<Node, BuildError> {
    let secret = SecretKey::from_bytes(&fresh_bytes());
    Ok(Node::new(network, bind(secret, None, Vec::new()).await?))
}

fn secret_key(given: Option<SecretKey>, data_dir: Option<&std::path::Path>) -> Result<SecretKey, SecretError> {
    match (given, data_dir) {
        (Some(key), _) => Ok(key),
        (None, Some(dir)) => identity::in_data_dir(dir),
        (None, None) => Ok(SecretKey::from_bytes(&fresh_bytes())),
    }
}

async fn bind(
    secret_key: SecretKey,
    listen: Option<SocketAddr>,
    relays: Vec<RelayUrl>,
) -> Result<Transport, BuildError> {
    let alpns = Family::ALL.iter().map(|family| family.alpn().as_bytes().to_vec()).collect();
    let transport = IrohTransport::bind(IrohConfig { secret_key, listen, relays, alpns }).await.map_err(|error| {
        let listen = listen.map_or_else(|| "all interfaces".to_owned(), |addr| addr.to_string());
        BuildError::Bind { listen, error }
    })?;
    Ok(Transport::Iroh(transport))
}
