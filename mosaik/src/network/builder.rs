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
    primitives::NetworkId,
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
    relays: Vec<RelayUrl>,
    transport: Option<Transport>,
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
}

impl NetworkBuilder {
    pub(super) fn new(network_id: NetworkId) -> Self {
        Self { network_id, secret_key: None, listen: None, data_dir: None, relays: Vec::new(), transport: None }
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

    /// Runs the node on a simulated network.
    #[cfg(feature = "testing")]
    pub(crate) fn with_transport(mut self, transport: Transport) -> Self {
        self.transport = Some(transport);
        self
    }

    /// Starts the node. Returns as soon as the socket is bound; peers are found in the background.
    ///
    /// # Errors
    /// When the socket cannot be bound or the data directory cannot be used.
    pub async fn build(self) -> Result<Network, BuildError> {
        let transport = match self.transport {
            Some(transport) => transport,
            None => bind(self.secret_key, self.listen, self.data_dir.as_deref(), self.relays).await?,
        };
        let node = Node::new(self.network_id, transport);
        let acceptors = Acceptors::default();
        node.set_acceptors(acceptors);
        node.tasks().spawn("accept", router::accept_loop(node.clone()));
        Ok(Network::from_inner(Inner { node }))
    }
}

async fn bind(
    secret_key: Option<SecretKey>,
    listen: Option<SocketAddr>,
    data_dir: Option<&std::path::Path>,
    relays: Vec<RelayUrl>,
) -> Result<Transport, BuildError> {
    let secret_key = match (secret_key, data_dir) {
        (Some(key), _) => key,
        (None, Some(dir)) => identity::in_data_dir(dir)?,
        (None, None) => SecretKey::from_bytes(&rand::random()),
    };
    let alpns = Family::ALL.iter().map(|family| family.alpn().as_bytes().to_vec()).collect();
    let transport = IrohTransport::bind(IrohConfig { secret_key, listen, relays, alpns }).await.map_err(|error| {
        let listen = listen.map_or_else(|| "all interfaces".to_owned(), |addr| addr.to_string());
        BuildError::Bind { listen, error }
    })?;
    Ok(Transport::Iroh(transport))
}
