//! [`NetworkBuilder`]: configuration of a node, checked when it is built.

use std::{
    net::SocketAddr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use iroh::{RelayUrl, SecretKey};
#[cfg(feature = "mdns")]
use tokio::sync::mpsc;

use super::{
    handle::{Inner, Network},
    identity::{self, SecretError},
    lane,
    link::Family,
    lock::{DataDirError, DataDirLock},
    member::{TrustError, credentials, is_for, member, of_membership, trust},
    node::{Limits, Node},
    router::{self, Acceptors},
};
#[cfg(feature = "attest")]
use crate::trust::attest::{Demand, Evidence, Evidences};
use crate::{
    diagnostics::Diagnostics,
    discovery::{self, Bootstrap, BootstrapError, Discovery, EntryError},
    groups::{Groups, bonds::BondRegistry},
    metrics::Sampler,
    primitives::{NetworkId, Tag, Tags, figures, fresh_bytes},
    stores::Stores,
    streams::Streams,
    transport::{IDLE_TIMEOUT, IrohConfig, IrohTransport, LaneConfig, Lookups, Transport},
    trust::{AuthorityId, Credentials, Invitation, JoinError, Membership, NetworkKey, Scope, Ticket},
};

/// What the idle time-out of connections may be.
const IDLE_TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(500)..=Duration::from_mins(1);
/// What the limit of a shutdown may be.
const SHUTDOWN_LIMITS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_hours(1);
/// What the limit of incoming connections may be: a new one has to find room beside one that serves.
const CONNECTION_LIMITS: RangeInclusive<usize> = 2..=1 << 20;

/// Configures a node; made by [`Network::builder`].
#[derive(Debug)]
#[must_use = "a builder does nothing until built"]
#[allow(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub struct NetworkBuilder {
    network_id: NetworkId,
    secret_key: Option<SecretKey>,
    listen: Option<SocketAddr>,
    external: Vec<SocketAddr>,
    idle_timeout: Duration,
    limits: Limits,
    data_dir: Option<PathBuf>,
    local_lane: bool,
    memory_lane: bool,
    metrics: bool,
    #[cfg(feature = "mdns")]
    mdns: bool,
    #[cfg(feature = "pkarr")]
    pkarr: Vec<RelayUrl>,
    #[cfg(feature = "pkarr")]
    dns: Vec<String>,
    relays: Vec<RelayUrl>,
    bootstrap: Vec<Result<Bootstrap, BootstrapError>>,
    tags: Tags,
    discovery: discovery::Config,
    key: Option<NetworkKey>,
    authorities: Vec<(AuthorityId, Scope)>,
    ticket: Option<Ticket>,
    join: Option<Result<Invitation, JoinError>>,
    #[cfg(feature = "attest")]
    evidence: Evidences,
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
    /// The data directory cannot be used, or another node uses it.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The node's identity could not be read or kept.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A bootstrap peer was named by text that names no peer.
    #[error("bootstrap peer: {0}")]
    Bootstrap(#[from] BootstrapError),
    /// The invitation is none, or the membership in the data directory cannot be used.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The node could not prove that it belongs to its network.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Everybody is asked for evidence, and no verifier was given.
    #[cfg(feature = "attest")]
    #[error("everybody is asked for evidence, which nothing here verifies: give `with_evidence` or `with_verifier`")]
    NoVerifier,
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
            external: Vec::new(),
            idle_timeout: IDLE_TIMEOUT,
            limits: Limits::default(),
            data_dir: None,
            local_lane: false,
            memory_lane: false,
            metrics: false,
            #[cfg(feature = "mdns")]
            mdns: false,
            #[cfg(feature = "pkarr")]
            pkarr: Vec::new(),
            #[cfg(feature = "pkarr")]
            dns: Vec::new(),
            relays: Vec::new(),
            bootstrap: Vec::new(),
            tags: Tags::default(),
            discovery: discovery::Config::default(),
            key: None,
            authorities: Vec::new(),
            ticket: None,
            join: None,
            #[cfg(feature = "attest")]
            evidence: Evidences::default(),
            transport: None,
        }
    }

    /// The node's identity. Default: fresh, or the one kept in the data directory.
    pub fn with_secret_key(mut self, secret_key: SecretKey) -> Self {
        self.secret_key = Some(secret_key);
        self
    }

    /// Makes this a *secret* network: only who has this key is in it. Both ends of each connection prove it before anything
    /// else is said; the key itself never travels. Default: an open network, in which everybody is who knows its id.
    pub fn with_network_key(mut self, key: NetworkKey) -> Self {
        self.key = Some(key);
        self
    }

    /// Makes this a network of an *authority*: only who holds a [`Ticket`] of it is in it, this node included. Repeatable: during a
    /// change of authorities two are trusted, at most eight.
    pub fn with_authority(self, authority: AuthorityId) -> Self {
        self.with_scoped_authority(authority, Scope::everything())
    }

    /// The same for an authority that can give only certain roles and grants: a ticket of it with another one is refused. It can take
    /// nothing back, and of an authority that is named twice the last scope counts.
    pub fn with_scoped_authority(mut self, authority: AuthorityId, scope: Scope) -> Self {
        self.authorities.retain(|(other, _)| *other != authority);
        self.authorities.push((authority, scope));
        self
    }

    /// The ticket of this node, of one of its authorities. It is shown to peers, which verify it offline.
    pub fn with_ticket(mut self, ticket: Ticket) -> Self {
        self.ticket = Some(ticket);
        self
    }

    /// Joins the network of an authority by one string, as `mosaik invite` prints it: it says which network, so that the id
    /// which [`Network::builder`] was given does not count, whose, and where to begin, and from it the node makes its ticket. With a data
    /// directory the membership is kept there, and found again when nothing else is given. Text that is no invitation is reported by
    /// [`build`](Self::build).
    pub fn with_join(mut self, invitation: impl AsRef<str>) -> Self {
        self.join = Some(invitation.as_ref().parse());
        self
    }

    /// The same with an invitation that was read already.
    pub(crate) fn with_invitation(mut self, invitation: Invitation) -> Self {
        self.join = Some(Ok(invitation));
        self
    }

    /// Shows evidence of what runs on this node, and verifies that of others of the same kind: what it proves counts as grants of the
    /// peer (`attested:` and the kind, `measured:` and the name of what was measured) besides those of its ticket, for a day after it was
    /// made. It is made at the start and every few hours. Declarations ask for such grants in a network of an authority,
    /// [`with_attested_peers`](Self::with_attested_peers) in every kind. Default: none.
    #[cfg(feature = "attest")]
    pub fn with_evidence(mut self, evidence: impl Evidence) -> Self {
        self.evidence.make(evidence);
        self
    }

    /// Verifies evidence of this kind, on a node that shows none of it; as [`with_evidence`](Self::with_evidence). Repeatable, for
    /// several kinds. Default: none.
    #[cfg(feature = "attest")]
    pub fn with_verifier(mut self, evidence: impl Evidence) -> Self {
        self.evidence.verify(evidence);
        self
    }

    /// Asks everybody for evidence: who shows none that this node accepts, and whose last one has ended, is no end of its streams, stores
    /// and groups, whatever its ticket grants and in every kind of network. It is told what is missing, as with grants. Needs a verifier
    /// ([`with_evidence`](Self::with_evidence), [`with_verifier`](Self::with_verifier)), whose policy says what is accepted. A
    /// generated main sets this for a role with `attest`. Default: nobody is asked.
    #[cfg(feature = "attest")]
    pub fn with_attested_peers(mut self) -> Self {
        self.evidence.demand = Demand::Everybody;
        self
    }

    /// Roles with `attest` run and ask nobody for evidence: in a trial.
    #[cfg(feature = "attest")]
    pub(crate) fn with_waived_evidence(mut self) -> Self {
        self.evidence.demand = Demand::Waived;
        self
    }

    /// The address to listen on; port 0 takes a free one. Default: all interfaces, a free port.
    pub fn with_listen(mut self, listen: SocketAddr) -> Self {
        self.listen = Some(listen);
        self
    }

    /// An address at which peers reach this node although it does not find it by itself: a forwarded port, the address of a
    /// container's host, an elastic address. Announced besides the addresses that are found. Repeatable. Default: none.
    pub fn with_external_addr(mut self, addr: SocketAddr) -> Self {
        if !self.external.contains(&addr) {
            self.external.push(addr);
        }
        self
    }

    /// After how long without a packet a connection, and with it the peer, is taken to be lost; keep-alives are sent five times
    /// as often. Of two nodes the shorter one counts. Shorter notices a loss sooner; longer bears longer pauses of a network or
    /// of a machine. From 500 ms to 1 min; values out of bounds are brought into them. A simulated network keeps the default.
    /// Default: 2.5 s.
    pub fn with_idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout.clamp(*IDLE_TIMEOUTS.start(), *IDLE_TIMEOUTS.end());
        self
    }

    /// How long [`Network::shutdown`] may take to leave in an orderly way before what is left is aborted; groups have three
    /// fifths of it to hand over and to finish writing. From 100 ms to 1 h; values out of bounds are brought into them. A
    /// generated main is ended two seconds after the first signal in any case. Default: 1.5 s.
    pub fn with_shutdown_limit(mut self, limit: Duration) -> Self {
        self.limits.shutdown = limit.clamp(*SHUTDOWN_LIMITS.start(), *SHUTDOWN_LIMITS.end());
        self
    }

    /// How many connections that others dialled are kept, of all peers and kinds together; a peer that uses streams, groups and
    /// discovery has up to three. For a further one that is closed which has been without a stream for the longest time; where
    /// all are in use, the new one is refused. From 2 to 1,048,576; values out of bounds are brought into them. Default: 16,384.
    pub fn with_max_connections(mut self, limit: usize) -> Self {
        self.limits.connections = limit.clamp(*CONNECTION_LIMITS.start(), *CONNECTION_LIMITS.end());
        self
    }

    /// Where the node keeps its identity and the peers it knew, and groups and stores their state. Created when missing. It is
    /// locked for as long as the node runs: another node, of this process or another one, is refused. Default: nothing is kept.
    pub fn with_data_dir(mut self, data_dir: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(data_dir.into());
        self
    }

    /// Whether streams, stores and bonds between this node and peers of the same user on the same host go past the network, through
    /// Unix sockets. What does not leave the machine is not encrypted then. The socket
    /// is made in `$XDG_RUNTIME_DIR/mosaik`, or in the data directory; without both, or where a peer does not find it, everything
    /// goes over QUIC. Both ends must say so. Experimental: the streams of a process that was frozen, or started again, do not always
    /// come back. Default: everything goes over QUIC.
    pub fn with_local_lane(mut self, on: bool) -> Self {
        self.local_lane = on;
        self
    }

    /// Whether that goes through memory where both ends are in this process; otherwise it goes through sockets, as between two
    /// processes. For measurements: what is queued at a shutdown may be lost.
    #[doc(hidden)]
    pub fn with_memory_lane(mut self, on: bool) -> Self {
        self.memory_lane = on;
        self
    }

    /// Relay servers through which peers that cannot reach each other directly connect. They are probed over HTTP and QUIC,
    /// and the node can be reached through the nearest that answers. Default: none.
    pub fn with_relays(mut self, relays: impl IntoIterator<Item = RelayUrl>) -> Self {
        self.relays.extend(relays);
        self
    }

    /// Finds nodes of the same network on the local network by multicast DNS (RFC 6762), without any bootstrap peer, and is
    /// found by them; a bootstrap peer of which only the id is given is looked up there, too. Where there is no multicast,
    /// nobody is found that way, a warning is logged, and everything else works. The id of the node, its addresses and a digest of the
    /// network's id are told to everybody on the local network. Default: off.
    #[cfg(feature = "mdns")]
    pub fn with_mdns(mut self) -> Self {
        self.mdns = true;
        self
    }

    /// Publishes this node's addresses, signed, to a [pkarr](https://pkarr.org) relay, and looks up there peers of which only the
    /// id is known, such as a bootstrap peer given by its id. Repeatable. Whoever knows the id can read the addresses there. A
    /// relay that does not answer is tried again in the background, and delays nothing else. Default: none is contacted.
    #[cfg(feature = "pkarr")]
    pub fn with_pkarr(mut self, relay: RelayUrl) -> Self {
        self.pkarr.push(relay);
        self
    }

    /// Looks up peers of which only the id is known in DNS, as TXT records of `_iroh.<id in z-base-32>.<origin>`, which a DNS
    /// server in front of a pkarr relay serves. Repeatable. Default: no name server is asked.
    #[cfg(feature = "pkarr")]
    pub fn with_dns(mut self, origin: impl Into<String>) -> Self {
        self.dns.push(origin.into());
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
    /// When the socket cannot be bound, the data directory cannot be used or another node uses it, a bootstrap peer is named wrongly, or there are
    /// more tags than an entry holds.
    pub async fn build(self) -> Result<Network, BuildError> {
        // Some 16 KiB, which whoever awaits shall not carry.
        Box::pin(self.start()).await
    }

    #[allow(clippy::too_many_lines, reason = "one thing after the other")]
    async fn start(mut self) -> Result<Network, BuildError> {
        let invitation = self.join.take().transpose()?;
        let closed = self.key.is_some() || self.ticket.is_some() || !self.authorities.is_empty();
        if closed && invitation.is_some() {
            return Err(TrustError::TwoKinds.into());
        }
        let kept = self.data_dir.as_deref().filter(|_| !closed && self.transport.is_none());
        let kept = kept.map(Membership::in_dir).transpose()?.flatten();
        let joining =
            invitation.as_ref().map(Invitation::network).or(kept.as_ref().map(|kept| kept.ticket().network()));
        self.network_id = joining.unwrap_or(self.network_id);
        #[cfg(feature = "mdns")]
        let (found, mut finds) = mpsc::channel(FOUND);
        let lookups = Lookups {
            #[cfg(feature = "mdns")]
            mdns: self.mdns.then(|| (service_name(self.network_id), found)),
            #[cfg(feature = "pkarr")]
            pkarr: self.pkarr,
            #[cfg(feature = "pkarr")]
            dns: self.dns,
        };
        let credentials = credentials(self.network_id, self.key, self.authorities, self.ticket)?;
        let mut bootstrap = self.bootstrap.into_iter().collect::<Result<Vec<_>, _>>()?;
        #[cfg(feature = "attest")]
        if self.evidence.asks_in_vain() {
            return Err(BuildError::NoVerifier);
        }
        let (transport, secret, lock) = match self.transport {
            // A simulated node has a simulated disk.
            Some((transport, secret)) => (transport, secret, None),
            None => {
                let lock = self.data_dir.as_deref().map(DataDirLock::take).transpose()?;
                let secret = secret_key(self.secret_key, self.data_dir.as_deref())?;
                let config = IrohConfig {
                    relays: self.relays,
                    lookups,
                    external: self.external,
                    idle_timeout: self.idle_timeout,
                    lane: self.local_lane.then(|| lane_config(self.data_dir.as_deref(), self.memory_lane)).flatten(),
                    ..IrohConfig::new(secret.clone(), self.listen, alpns())
                };
                (bind(config).await?, secret, lock)
            }
        };
        if self.metrics {
            figures::want();
        }
        let dir = lock.is_some().then_some(self.data_dir.as_deref()).flatten();
        let member = member(invitation, kept, transport.id(), dir).inspect_err(|_| transport.abandon())?;
        let credentials = match member {
            None => credentials,
            Some(member) => {
                let parsed = member.bootstrap.iter().map(|peer| peer.parse::<Bootstrap>());
                let parsed = parsed.filter(|peer| peer.as_ref().map_or(true, |peer| peer.id() != transport.id()));
                bootstrap.extend(parsed.collect::<Result<Vec<_>, _>>().inspect_err(|_| transport.abandon())?);
                of_membership(member)
            }
        };
        is_for(&credentials, transport.id()).inspect_err(|_| transport.abandon())?;
        let trust = trust(self.network_id, credentials, &transport);
        #[cfg(feature = "attest")]
        trust.set_attestation(transport.id(), self.evidence);
        let node = Node::new(self.network_id, trust, transport, self.limits);
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
        groups.serve_operators(&mut acceptors);
        groups.serve_clients(&mut acceptors);
        lane::serve(&node, &mut acceptors);
        let diagnostics = Diagnostics::new(&node, &discovery, &streams, &groups, &stores, &mut acceptors);
        node.set_acceptors(acceptors);
        #[cfg(feature = "mdns")]
        if self.mdns {
            let discovery = discovery.clone();
            node.tasks().spawn("found", async move {
                while let Some(peer) = finds.recv().await {
                    if discovery.catalog().get(crate::primitives::PeerId::from(peer.id)).is_none() {
                        discovery.dial(peer);
                    }
                }
            });
        }
        if self.metrics {
            let (node, discovery, streams) = (node.clone(), discovery.clone(), streams.clone());
            let sampler = Sampler { node, discovery, streams, groups: groups.clone(), stores: stores.clone() };
            sampler.node.tasks().clone().spawn("metrics", sampler.run());
        }
        node.tasks().spawn_essential("accept", router::accept_loop(node.clone()));
        node.tasks().spawn("failure", node.clone().end_on_failure());
        let data_dir = Mutex::new(lock);
        Ok(Network::from_inner(Inner { node, discovery, streams, stores, groups, diagnostics, data_dir }))
    }
}

/// Peers found by multicast DNS that wait to be dialled.
#[cfg(feature = "mdns")]
const FOUND: usize = 64;

/// The service of a network in multicast DNS: at most 15 characters (RFC 6335, section 5.1), so a digest. Nodes of other
/// networks are then not even seen; two networks with the same digest refuse each other as always.
#[cfg(feature = "mdns")]
fn service_name(network: NetworkId) -> String {
    format!("mosaik-{}", &network.to_string()[..8])
}

/// A node of that network that announces nothing and serves nobody: for somebody who only wants to ask. Ends with
/// [`Node::abandon`].
pub(crate) async fn bare(
    network: NetworkId,
    secret: Option<SecretKey>,
    credentials: Credentials,
) -> Result<Node, BuildError> {
    let secret = secret.unwrap_or_else(|| SecretKey::from_bytes(&fresh_bytes()));
    is_for(&credentials, secret.public().into())?;
    let transport = bind(IrohConfig::new(secret, None, alpns())).await?;
    let trust = trust(network, credentials, &transport);
    Ok(Node::new(network, trust, transport, Limits::default()))
}

/// Where the lane of this host has its socket. Tests force what streams go over: `MOSAIK_TEST_LANE` is `quic` or `local`.
#[cfg_attr(not(feature = "testing"), allow(clippy::unnecessary_wraps, reason = "tests may want none"))]
fn lane_config(data_dir: Option<&Path>, memory: bool) -> Option<LaneConfig> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let dirs: Vec<_> =
        runtime.map(|dir| dir.join("mosaik")).into_iter().chain(data_dir.map(|dir| dir.join("lane"))).collect();
    #[cfg(feature = "testing")]
    match std::env::var("MOSAIK_TEST_LANE").as_deref() {
        Ok("quic") => return None,
        Ok("local") => {
            let dirs = std::iter::once(std::env::temp_dir().join("mosaik-test-lane")).chain(dirs).collect();
            return Some(LaneConfig { dirs, memory: false });
        }
        _ => {}
    }
    Some(LaneConfig { dirs, memory })
}

fn secret_key(given: Option<SecretKey>, data_dir: Option<&Path>) -> Result<SecretKey, SecretError> {
    match (given, data_dir) {
        (Some(key), _) => Ok(key),
        (None, Some(dir)) => identity::in_data_dir(dir),
        (None, None) => Ok(SecretKey::from_bytes(&fresh_bytes())),
    }
}

fn alpns() -> Vec<Vec<u8>> {
    Family::ALL.iter().map(|family| family.alpn().as_bytes().to_vec()).collect()
}

async fn bind(config: IrohConfig) -> Result<Transport, BuildError> {
    let listen = config.listen.map_or_else(|| "all interfaces".to_owned(), |addr| addr.to_string());
    let transport = IrohTransport::bind(config).await.map_err(|error| BuildError::Bind { listen, error })?;
    Ok(Transport::Iroh(transport))
}
