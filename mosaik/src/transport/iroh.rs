//! The QUIC backend: the only file that names iroh's endpoint.
//!
//! Preset `Minimal`: no relay, no DNS, no port mapping unless asked for, so a node starts and works with no internet.
//! The accept loop is ours: handshakes run side by side, bounded, and none of them can stall or end the others.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream::FuturesUnordered};
use iroh::{
    Endpoint, EndpointAddr, RelayMode, RelayUrl, SecretKey, TransportAddr,
    endpoint::{
        self, ConnectError as IrohConnectError, ConnectWithOptsError, ConnectingError, ConnectionError, IdleTimeout,
        LocalTransportAddr, MtuDiscoveryConfig, NetReportConfig, QuicTransportConfig, VarInt, presets,
    },
};
use tokio::{
    sync::{Mutex, mpsc},
    time::timeout,
};

use super::{
    CONNECT_TIMEOUT, Code, ConnectError, ConnectionLost, IDLE_TIMEOUT, KEEP_ALIVE, MAX_STREAMS, ReadError, Tasks,
    WriteError, lookup::Lookups,
};
use crate::primitives::{PeerId, fresh_bytes};

/// How long a shutdown waits for peers to acknowledge the end of their connections.
const CLOSE_LIMIT: Duration = Duration::from_millis(500);
/// Handshakes that may be under way at once; further dials wait in the endpoint's own bounded queue.
const MAX_HANDSHAKES: usize = 256;
/// Connections whose handshake is done and that the router has not taken yet.
const ACCEPT_QUEUE: usize = 64;
/// Addresses of this host that are known to be reached.
const MAX_REACHED: usize = 64;
/// An incoming handshake that takes longer is dropped.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How much one stream may have in flight before its reader must catch up, in bytes. Not more: noq-proto 1.4 keeps what
/// was not read in the pieces in which it came, and above 1,024 pieces it ends the whole connection ("too many gaps in
/// stream buffer", quinn issue 2809); 1 MiB is 912 full datagrams.
const STREAM_WINDOW: u32 = 1 << 20;
/// The same for all streams of a connection together, in bytes.
const CONNECTION_WINDOW: u32 = 16 << 20;
/// The TLS alert of a peer that shares no protocol with us: `no_application_protocol` (RFC 7301, section 3.2).
const NO_APPLICATION_PROTOCOL: u64 = 0x100 + 120;

/// What an endpoint is built from.
#[derive(Debug)]
pub(crate) struct IrohConfig {
    pub(crate) secret_key: SecretKey,
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) relays: Vec<RelayUrl>,
    pub(crate) alpns: Vec<Vec<u8>>,
    pub(crate) lookups: Lookups,
}

/// A bound endpoint. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct IrohTransport {
    endpoint: Endpoint,
    tasks: Tasks,
    accepted: Arc<Mutex<mpsc::Receiver<IrohConnection>>>,
    reached: Reached,
}

/// The local addresses of incoming connections.
type Reached = Arc<std::sync::Mutex<BTreeSet<IpAddr>>>;

#[derive(Clone, Debug)]
pub(crate) struct IrohConnection(endpoint::Connection);

#[derive(Debug)]
pub(crate) struct IrohSendStream {
    stream: endpoint::SendStream,
    finished: bool,
}

#[derive(Debug)]
pub(crate) struct IrohRecvStream(endpoint::RecvStream);

impl IrohTransport {
    /// Binds the socket and starts accepting. Never waits for a relay or for anything else on the network.
    pub(crate) async fn bind(config: IrohConfig) -> Result<Self, String> {
        // The nearest relay is found by probing them; without one a node is not reachable through any.
        let mut net_report = NetReportConfig::minimal();
        net_report.https_probes = !config.relays.is_empty();
        let relay_mode = if config.relays.is_empty() { RelayMode::Disabled } else { RelayMode::custom(config.relays) };
        let mut builder = Endpoint::builder(presets::Minimal)
            .secret_key(config.secret_key)
            .alpns(config.alpns)
            .relay_mode(relay_mode)
            .net_report_config(net_report)
            .transport_config(transport_config()?);
        if let Some(listen) = config.listen {
            builder = builder.clear_ip_transports().bind_addr(listen).map_err(|error| error.to_string())?;
        }
        builder = config.lookups.of_builder(builder);
        let endpoint = builder.bind().await.map_err(|error| format!("{error:#}"))?;
        let tasks = Tasks::with_threads();
        let (sender, receiver) = mpsc::channel(ACCEPT_QUEUE);
        config.lookups.begin(&endpoint, &tasks).await;
        let reached = Reached::default();
        tasks.spawn("transport-accept", accept_loop(endpoint.clone(), sender, reached.clone()));
        Ok(Self { endpoint, tasks, accepted: Arc::new(Mutex::new(receiver)), reached })
    }

    pub(crate) fn id(&self) -> PeerId {
        self.endpoint.id().into()
    }

    /// What the endpoint knows of its own addresses. Bound to an unspecified address it lists those of the LAN; nodes
    /// of one machine can then still meet on loopback, which is added when nothing else is there.
    pub(crate) fn addr(&self) -> EndpointAddr {
        let mut addr = self.endpoint.addr();
        if !addr.addrs.iter().any(TransportAddr::is_ip) {
            addr.addrs.extend(self.endpoint.bound_sockets().into_iter().filter(SocketAddr::is_ipv4).map(
                |mut socket| {
                    if socket.ip().is_unspecified() {
                        socket.set_ip(Ipv4Addr::LOCALHOST.into());
                    }
                    TransportAddr::Ip(socket)
                },
            ));
        }
        addr
    }

    pub(crate) fn reached(&self) -> BTreeSet<IpAddr> {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) async fn connect(&self, to: &EndpointAddr, alpn: &[u8]) -> Result<IrohConnection, ConnectError> {
        match timeout(CONNECT_TIMEOUT, self.endpoint.connect(to.clone(), alpn)).await {
            Ok(Ok(connection)) => Ok(IrohConnection(connection)),
            Ok(Err(error)) => Err(connect_error(error)),
            Err(_) => Err(ConnectError::TimedOut),
        }
    }

    pub(crate) async fn accept(&self) -> Option<IrohConnection> {
        self.accepted.lock().await.recv().await
    }

    /// Closes the endpoint. Peers that are there have acknowledged that long before the limit; waiting for those that
    /// are gone, which takes seconds, goes on in the background.
    pub(crate) async fn close(&self) {
        if let Some(closed) = self.close_in_background()
            && timeout(CLOSE_LIMIT, closed).await.is_err()
        {
            tracing::debug!("some peers do not acknowledge the end of their connections");
        }
    }

    /// Closes in the background when there is still a runtime; otherwise the last clone of the endpoint does it.
    pub(crate) fn abandon(&self) {
        self.close_in_background();
    }

    /// A close that is cut short would leave the endpoint running for ever, hence a task of its own.
    fn close_in_background(&self) -> Option<tokio::task::JoinHandle<()>> {
        let runtime = tokio::runtime::Handle::try_current().ok()?;
        let endpoint = self.endpoint.clone();
        #[expect(clippy::disallowed_methods, reason = "the node's own spawner is closed already")]
        Some(runtime.spawn(async move { endpoint.close().await }))
    }

    pub(crate) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    #[expect(clippy::unused_self, reason = "in simulation each node has its own clock")]
    #[expect(clippy::disallowed_methods, reason = "the transport is where wall time comes from")]
    pub(crate) fn wall_clock(&self) -> u64 {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX)
    }

    #[expect(clippy::unused_self, reason = "each simulated network has its own scope")]
    pub(crate) fn scope(&self) -> u64 {
        0
    }

    #[expect(clippy::unused_self, reason = "in simulation each node has its own seed")]
    pub(crate) fn random_seed(&self) -> [u8; 32] {
        fresh_bytes()
    }
}

fn transport_config() -> Result<QuicTransportConfig, String> {
    let idle = IdleTimeout::try_from(IDLE_TIMEOUT).map_err(|error| error.to_string())?;
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(1452);
    Ok(QuicTransportConfig::builder()
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(KEEP_ALIVE)
        .default_path_keep_alive_interval(KEEP_ALIVE)
        .default_path_max_idle_timeout(IDLE_TIMEOUT)
        .max_concurrent_bidi_streams(VarInt::from_u32(MAX_STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(MAX_STREAMS))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(u64::from(CONNECTION_WINDOW))
        .mtu_discovery_config(Some(mtu))
        .build())
}

/// Takes connections until the endpoint closes. Each handshake is a future of its own in a bounded set.
async fn accept_loop(endpoint: Endpoint, sender: mpsc::Sender<IrohConnection>, reached: Reached) {
    let mut handshakes = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(done) = handshakes.next() => {
                let Some((connection, local)) = done else { continue };
                if let LocalTransportAddr::Ip(Some(ip)) = local {
                    let mut reached = reached.lock().unwrap_or_else(PoisonError::into_inner);
                    if reached.len() < MAX_REACHED {
                        reached.insert(ip.to_canonical());
                    }
                }
                if sender.send(IrohConnection(connection)).await.is_err() {
                    return;
                }
            }
            incoming = endpoint.accept(), if handshakes.len() < MAX_HANDSHAKES => {
                let Some(incoming) = incoming else { return };
                let local = incoming.local_addr();
                let Ok(accepting) = incoming.accept() else { continue };
                handshakes.push(async move {
                    match timeout(HANDSHAKE_TIMEOUT, accepting).await {
                        Ok(Ok(connection)) => Some((connection, local)),
                        Ok(Err(error)) => {
                            tracing::debug!(%error, "incoming handshake failed");
                            None
                        }
                        Err(_) => {
                            tracing::debug!("incoming handshake timed out");
                            None
                        }
                    }
                });
            }
        }
    }
}

impl IrohConnection {
    pub(crate) fn peer(&self) -> PeerId {
        self.0.remote_id().into()
    }

    pub(crate) fn alpn(&self) -> &[u8] {
        self.0.alpn()
    }

    pub(crate) fn stable_id(&self) -> usize {
        self.0.stable_id()
    }

    pub(crate) async fn open_bi(&self) -> Result<(IrohSendStream, IrohRecvStream), ConnectionLost> {
        let (send, recv) = self.0.open_bi().await.map_err(lost)?;
        Ok((IrohSendStream { stream: send, finished: false }, IrohRecvStream(recv)))
    }

    pub(crate) async fn accept_bi(&self) -> Result<(IrohSendStream, IrohRecvStream), ConnectionLost> {
        let (send, recv) = self.0.accept_bi().await.map_err(lost)?;
        Ok((IrohSendStream { stream: send, finished: false }, IrohRecvStream(recv)))
    }

    #[cfg(test)]
    pub(crate) async fn closed(&self) -> ConnectionLost {
        lost(self.0.closed().await)
    }

    pub(crate) fn close_reason(&self) -> Option<ConnectionLost> {
        self.0.close_reason().map(lost)
    }

    pub(crate) fn close(&self, code: Code) {
        self.0.close(VarInt::from_u32(code), b"");
    }

    pub(crate) fn exporter(&self, label: &[u8], context: &[u8]) -> Option<[u8; 32]> {
        let mut material = [0; 32];
        self.0.export_keying_material(&mut material, label, context).ok().map(|()| material)
    }

    pub(crate) fn is_relayed(&self) -> Option<bool> {
        let paths = self.0.paths();
        paths.iter().find(|path| path.is_selected()).map(|path| path.is_relay())
    }

    pub(crate) fn rtt(&self) -> Option<Duration> {
        let paths = self.0.paths();
        paths.iter().find(|path| path.is_selected()).or_else(|| paths.iter().next()).map(|path| path.rtt())
    }
}

impl IrohSendStream {
    pub(crate) async fn write_all(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.stream.write_all(bytes).await.map_err(write_error)
    }

    pub(crate) async fn write_all_chunks(&mut self, chunks: &mut [Bytes]) -> Result<(), WriteError> {
        self.stream.write_all_chunks(chunks).await.map_err(write_error)
    }

    pub(crate) fn finish(&mut self) {
        // An error says that the stream has ended already, which is what the caller wants.
        let _ = self.stream.finish();
        self.finished = true;
    }

    pub(crate) fn reset(&mut self, code: Code) {
        let _ = self.stream.reset(VarInt::from_u32(code));
    }

    pub(crate) async fn stopped(&mut self) -> Result<Option<Code>, ConnectionLost> {
        match self.stream.stopped().await {
            Ok(code) => Ok(code.map(narrow)),
            Err(endpoint::StoppedError::ConnectionLost(error)) => Err(lost(error)),
            Err(error) => Err(ConnectionLost::Other(error.to_string())),
        }
    }
}

impl Drop for IrohSendStream {
    /// QUIC's own handle would finish the stream, and the reader would take a part for the whole.
    fn drop(&mut self) {
        if !self.finished {
            self.reset(0);
        }
    }
}

impl IrohRecvStream {
    pub(crate) async fn read_chunk(&mut self, max: usize) -> Result<Option<Bytes>, ReadError> {
        self.0.read_chunk(max).await.map_err(|error| match error {
            endpoint::ReadError::Reset(code) => ReadError::Reset { code: narrow(code) },
            endpoint::ReadError::ConnectionLost(error) => ReadError::Lost(lost(error)),
            error => ReadError::Lost(ConnectionLost::Other(error.to_string())),
        })
    }

    pub(crate) fn stop(&mut self, code: Code) {
        let _ = self.0.stop(VarInt::from_u32(code));
    }
}

/// Codes of ours fit 32 bits; a larger one comes from a stranger and is as unknown as any.
fn narrow(code: VarInt) -> Code {
    Code::try_from(code.into_inner()).unwrap_or(Code::MAX)
}

fn lost(error: ConnectionError) -> ConnectionLost {
    match error {
        ConnectionError::ApplicationClosed(close) => ConnectionLost::ClosedByPeer { code: narrow(close.error_code) },
        ConnectionError::LocallyClosed => ConnectionLost::ClosedLocally,
        ConnectionError::TimedOut | ConnectionError::Reset => ConnectionLost::TimedOut,
        error => ConnectionLost::Other(error.to_string()),
    }
}

fn write_error(error: endpoint::WriteError) -> WriteError {
    match error {
        endpoint::WriteError::Stopped(code) => WriteError::Stopped { code: narrow(code) },
        endpoint::WriteError::ConnectionLost(error) => WriteError::Lost(lost(error)),
        endpoint::WriteError::ClosedStream => WriteError::Finished,
        error @ endpoint::WriteError::ZeroRttRejected => WriteError::Lost(ConnectionLost::Other(error.to_string())),
    }
}

fn connect_error(error: IrohConnectError) -> ConnectError {
    let connection = match error {
        IrohConnectError::Connect { source, .. } => {
            return match source {
                ConnectWithOptsError::SelfConnect { .. } => ConnectError::ToSelf,
                ConnectWithOptsError::NoAddress { .. } => ConnectError::NoAddress,
                ConnectWithOptsError::EndpointClosed { .. } => ConnectError::Closed,
                source => ConnectError::Other(source.to_string()),
            };
        }
        IrohConnectError::Connecting { source: ConnectingError::ConnectionError { source, .. }, .. }
        | IrohConnectError::Connection { source, .. } => source,
        error => return ConnectError::Other(error.to_string()),
    };
    match connection {
        ConnectionError::ApplicationClosed(close) => ConnectError::Refused { code: narrow(close.error_code) },
        ConnectionError::ConnectionClosed(close) if u64::from(close.error_code) == NO_APPLICATION_PROTOCOL => {
            ConnectError::UnsupportedProtocol
        }
        ConnectionError::TimedOut => ConnectError::TimedOut,
        ConnectionError::LocallyClosed => ConnectError::Closed,
        error => ConnectError::Other(error.to_string()),
    }
}
