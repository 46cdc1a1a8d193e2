//! The QUIC backend: the only file that names iroh's endpoint.
//!
//! Preset `Minimal`: no relay, no DNS, no port mapping unless asked for, so a node starts and works with no internet.
//! The accept loop is ours: handshakes run side by side, bounded, and none of them can stall or end the others.

mod accept;
mod dial;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use iroh::{
    Endpoint, EndpointAddr, RelayMode, RelayUrl, SecretKey, TransportAddr,
    endpoint::{
        self, Builder, ConnectionError, IdleTimeout, MtuDiscoveryConfig, NetReportConfig, QuicTransportConfig, VarInt,
        presets,
    },
};
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, mpsc},
    time::timeout,
};

use self::dial::Spares;
use super::{
    Code, ConnectionLost, IDLE_TIMEOUT, MAX_STREAMS, ReadError, RecvStream, SendStream, Tasks, WriteError,
    lane::{LaneConfig, LaneOffer, Lanes, Session},
    lookup::Lookups,
};
use crate::primitives::{PeerId, fresh_bytes};

/// How long a shutdown waits for peers to acknowledge the end of their connections.
const CLOSE_LIMIT: Duration = Duration::from_millis(500);
/// Connections whose handshake is done and that the router has not taken yet.
const ACCEPT_QUEUE: usize = 64;
/// Keep-alives that may go by unanswered until a connection is idle for too long.
const KEEP_ALIVES: u32 = 5;
/// How much one stream may have in flight before its reader must catch up, in bytes. Not more: noq-proto 1.4 keeps what
/// was not read in the pieces in which it came, and above 1,024 pieces it ends the whole connection ("too many gaps in
/// stream buffer", quinn issue 2809); 1 MiB is 912 full datagrams.
const STREAM_WINDOW: u32 = 1 << 20;
/// The same for all streams of a connection together, in bytes.
const CONNECTION_WINDOW: u32 = 16 << 20;
/// What an endpoint is built from.
#[derive(Debug)]
pub(crate) struct IrohConfig {
    pub(crate) secret_key: SecretKey,
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) relays: Vec<RelayUrl>,
    pub(crate) alpns: Vec<Vec<u8>>,
    pub(crate) lookups: Lookups,
    /// Told to others besides the addresses that are found.
    pub(crate) external: Vec<SocketAddr>,
    /// A connection on which nothing arrives for so long is lost; the keep-alive period is a fifth of it.
    pub(crate) idle_timeout: Duration,
    /// The lane for peers of this host; `None` for none.
    pub(crate) lane: Option<LaneConfig>,
}

impl IrohConfig {
    /// A node on `listen` with every default: no relay, no lookup, no lane, nothing announced besides what is found.
    pub(crate) fn new(secret_key: SecretKey, listen: Option<SocketAddr>, alpns: Vec<Vec<u8>>) -> Self {
        Self {
            secret_key,
            listen,
            relays: Vec::new(),
            alpns,
            lookups: Lookups::default(),
            external: Vec::new(),
            idle_timeout: IDLE_TIMEOUT,
            lane: None,
        }
    }
}

/// A bound endpoint. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct IrohTransport {
    endpoint: Endpoint,
    tasks: Tasks,
    accepted: Arc<Mutex<mpsc::Receiver<IrohConnection>>>,
    spares: Arc<Spares>,
    /// What was configured to be announced, as against what was found.
    external: Arc<[SocketAddr]>,
    reached: Reached,
    lanes: Option<Arc<Lanes>>,
}

/// The local addresses of incoming connections.
type Reached = Arc<std::sync::Mutex<BTreeSet<IpAddr>>>;

#[derive(Clone, Debug)]
pub(crate) struct IrohConnection {
    quic: endpoint::Connection,
    lane: Option<Arc<Session>>,
}

#[derive(Debug)]
pub(crate) struct IrohSendStream {
    stream: endpoint::SendStream,
    finished: bool,
    /// Among the streams that may be open, where those of a lane count, too.
    _place: Place,
}

#[derive(Debug)]
pub(crate) struct IrohRecvStream {
    stream: endpoint::RecvStream,
    _place: Place,
}

/// Kept by both halves of a stream.
type Place = Option<Arc<OwnedSemaphorePermit>>;

impl IrohTransport {
    /// Binds the socket and starts accepting. Never waits for a relay or for anything else on the network.
    pub(crate) async fn bind(config: IrohConfig) -> Result<Self, String> {
        let own = Own {
            secret_key: config.secret_key,
            listen: config.listen,
            alpns: config.alpns,
            idle_timeout: config.idle_timeout,
        };
        // The nearest relay is found by probing them; without one a node is not reachable through any.
        let mut net_report = NetReportConfig::minimal();
        net_report.https_probes = !config.relays.is_empty();
        let relay_mode = if config.relays.is_empty() { RelayMode::Disabled } else { RelayMode::custom(config.relays) };
        let builder = own.builder(own.listen)?.relay_mode(relay_mode).net_report_config(net_report);
        let external: Arc<[SocketAddr]> = config.external.into();
        let builder = external.iter().copied().fold(builder, Builder::external_addr);
        let builder = config.lookups.of_builder(builder);
        let endpoint = builder.bind().await.map_err(|error| format!("{error:#}"))?;
        let tasks = Tasks::with_threads();
        let (sender, receiver) = mpsc::channel(ACCEPT_QUEUE);
        config.lookups.begin(&endpoint, &tasks).await;
        let lanes = match config.lane {
            Some(lane) => Some(Lanes::start(lane, &tasks).await),
            None => None,
        };
        let spares = Arc::new(Spares::new(own, sender.downgrade(), lanes.clone()));
        let reached = Reached::default();
        let accepting = accept::accept_loop(endpoint.clone(), sender, reached.clone(), lanes.clone());
        tasks.spawn_essential("transport-accept", accepting);
        Ok(Self { endpoint, tasks, accepted: Arc::new(Mutex::new(receiver)), spares, external, reached, lanes })
    }

    pub(crate) fn id(&self) -> PeerId {
        self.endpoint.id().into()
    }

    /// What the endpoint knows of its own addresses. Bound to an unspecified address it lists those of the LAN; nodes
    /// of one machine can then still meet on loopback, which is added when nothing else is there.
    pub(crate) fn addr(&self) -> EndpointAddr {
        let mut addr = self.endpoint.addr();
        if addr.ip_addrs().all(|socket| self.external.contains(socket)) {
            let sockets = self.endpoint.bound_sockets();
            // On an unspecified address of IPv6 nobody waits where there is IPv4, too.
            let v4 = sockets.iter().any(SocketAddr::is_ipv4);
            let sockets = sockets.into_iter().filter(|socket| !v4 || socket.is_ipv4());
            addr.addrs.extend(sockets.map(|mut socket| {
                if socket.ip().is_unspecified() {
                    let loopback = if v4 { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
                    socket.set_ip(loopback);
                }
                TransportAddr::Ip(socket)
            }));
        }
        addr
    }

    pub(crate) fn reached(&self) -> BTreeSet<IpAddr> {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) async fn accept(&self) -> Option<IrohConnection> {
        self.accepted.lock().await.recv().await
    }

    /// Closes the endpoint. Peers that are there have acknowledged that long before the limit; waiting for those that
    /// are gone, which takes seconds, goes on in the background.
    pub(crate) async fn close(&self) {
        self.close_lanes();
        self.spares.close();
        if let Some(closed) = close_in_background(&self.endpoint)
            && timeout(CLOSE_LIMIT, closed).await.is_err()
        {
            tracing::debug!("some peers do not acknowledge the end of their connections");
        }
    }

    /// Closes in the background when there is still a runtime; otherwise the last clone of the endpoint does it.
    pub(crate) fn abandon(&self) {
        self.close_lanes();
        self.spares.close();
        close_in_background(&self.endpoint);
    }

    fn close_lanes(&self) {
        self.lanes.iter().for_each(|lanes| lanes.close());
    }

    pub(crate) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    #[expect(clippy::unused_self, reason = "in simulation each node has its own clock")]
    #[expect(clippy::disallowed_methods, reason = "the transport is where wall time comes from")]
    pub(crate) fn wall_clock(&self) -> u64 {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let true_time = u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX);
        #[cfg(feature = "testing")]
        let true_time = skewed::wall_clock(true_time);
        true_time
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

/// Processes under test may have a wall clock that is wrong: by as many seconds as the file says that `MOSAIK_TEST_CLOCK` names.
#[cfg(feature = "testing")]
mod skewed {
    use std::{path::PathBuf, sync::LazyLock};

    static FILE: LazyLock<Option<PathBuf>> = LazyLock::new(|| std::env::var_os("MOSAIK_TEST_CLOCK").map(PathBuf::from));

    pub(super) fn wall_clock(true_time: u64) -> u64 {
        let Some(file) = &*FILE else { return true_time };
        // A file that is about to be written may be empty: then the clock is right for that moment.
        let seconds = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse::<i64>().ok());
        true_time.saturating_add_signed(seconds.unwrap_or(0).saturating_mul(1_000_000))
    }
}

/// What every endpoint of a node has in common.
#[derive(Debug)]
struct Own {
    secret_key: SecretKey,
    listen: Option<SocketAddr>,
    alpns: Vec<Vec<u8>>,
    idle_timeout: Duration,
}

impl Own {
    /// An endpoint with this identity: no relay, no lookup, nothing that asks the network.
    fn builder(&self, listen: Option<SocketAddr>) -> Result<Builder, String> {
        let builder = Endpoint::builder(presets::Minimal)
            .secret_key(self.secret_key.clone())
            .alpns(self.alpns.clone())
            .relay_mode(RelayMode::Disabled)
            .net_report_config(NetReportConfig::minimal())
            .transport_config(self.transport_config()?);
        match listen {
            Some(listen) => builder.clear_ip_transports().bind_addr(listen).map_err(|error| error.to_string()),
            None => Ok(builder),
        }
    }

    fn transport_config(&self) -> Result<QuicTransportConfig, String> {
        let idle = IdleTimeout::try_from(self.idle_timeout).map_err(|error| error.to_string())?;
        let keep_alive = self.idle_timeout / KEEP_ALIVES;
        let mut mtu = MtuDiscoveryConfig::default();
        mtu.upper_bound(1452);
        Ok(QuicTransportConfig::builder()
            .max_idle_timeout(Some(idle))
            .keep_alive_interval(keep_alive)
            .default_path_keep_alive_interval(keep_alive)
            .default_path_max_idle_timeout(self.idle_timeout)
            .max_concurrent_bidi_streams(VarInt::from_u32(MAX_STREAMS))
            // Ours go both ways.
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
            .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
            .send_window(u64::from(CONNECTION_WINDOW))
            .mtu_discovery_config(Some(mtu))
            .build())
    }
}

/// A close that is cut short would leave the endpoint running for ever, hence a task of its own. `None` when there is no
/// runtime any more.
fn close_in_background(endpoint: &Endpoint) -> Option<tokio::task::JoinHandle<()>> {
    let runtime = tokio::runtime::Handle::try_current().ok()?;
    let endpoint = endpoint.clone();
    #[expect(clippy::disallowed_methods, reason = "the node's own spawner is closed already")]
    Some(runtime.spawn(async move { endpoint.close().await }))
}

impl IrohConnection {
    pub(crate) fn peer(&self) -> PeerId {
        self.quic.remote_id().into()
    }

    pub(crate) fn alpn(&self) -> &[u8] {
        self.quic.alpn()
    }

    pub(crate) fn stable_id(&self) -> usize {
        self.quic.stable_id()
    }

    fn new(quic: endpoint::Connection, lanes: Option<&Arc<Lanes>>) -> Self {
        let dialled = quic.side() == endpoint::Side::Client;
        let lane = lanes.map(|lanes| Session::new(lanes.clone(), dialled));
        Self { quic, lane }
    }

    pub(crate) fn lane(&self) -> Option<&Arc<Session>> {
        self.lane.as_ref()
    }

    pub(crate) fn offer_lane(&self) -> Option<LaneOffer> {
        self.lane.as_ref()?.offer(self)
    }

    /// Resolves when the connection has ended, which it does not prevent.
    pub(super) fn ended(&self) -> BoxFuture<'static, ()> {
        self.quic.weak_handle().closed().map(drop).boxed()
    }

    pub(crate) async fn open_bi(&self) -> Result<(SendStream, RecvStream), ConnectionLost> {
        let place = match &self.lane {
            None => None,
            Some(lane) => match lane.open(self).await? {
                Ok(opened) => return Ok(opened),
                Err(place) => place,
            },
        };
        Ok(of_quic(self.quic.open_bi().await.map_err(lost)?, place))
    }

    pub(crate) async fn accept_bi(&self) -> Result<(SendStream, RecvStream), ConnectionLost> {
        let Some(lane) = &self.lane else {
            return Ok(of_quic(self.quic.accept_bi().await.map_err(lost)?, None));
        };
        tokio::select! {
            biased;
            accepted = self.quic.accept_bi() => Ok(of_quic(accepted.map_err(lost)?, None)),
            accepted = lane.accept(self) => Ok(accepted),
        }
    }

    #[cfg(test)]
    pub(crate) async fn closed(&self) -> ConnectionLost {
        lost(self.quic.closed().await)
    }

    pub(crate) fn close_reason(&self) -> Option<ConnectionLost> {
        self.quic.close_reason().map(lost)
    }

    /// Closes it, unless it has ended: iroh would take that for the reason from then on, and who still reads would not hear why
    /// the peer closed.
    pub(crate) fn close(&self, code: Code) {
        if self.quic.close_reason().is_none() {
            self.quic.close(VarInt::from_u32(code), b"");
        }
        self.lane.iter().for_each(|lane| lane.end());
    }

    pub(crate) fn exporter(&self, label: &[u8], context: &[u8]) -> Option<[u8; 32]> {
        let mut material = [0; 32];
        self.quic.export_keying_material(&mut material, label, context).ok().map(|()| material)
    }

    pub(crate) fn socket(&self) -> Option<SocketAddr> {
        let paths = self.quic.paths();
        match paths.iter().find(|path| path.is_selected())?.remote_addr() {
            TransportAddr::Ip(socket) => Some(*socket),
            _ => None,
        }
    }

    pub(crate) fn is_relayed(&self) -> Option<bool> {
        let paths = self.quic.paths();
        paths.iter().find(|path| path.is_selected()).map(|path| path.is_relay())
    }

    pub(crate) fn rtt(&self) -> Option<Duration> {
        let paths = self.quic.paths();
        paths.iter().find(|path| path.is_selected()).or_else(|| paths.iter().next()).map(|path| path.rtt())
    }
}

/// A stream of QUIC, with its place among all of its connection.
fn of_quic(
    (send, recv): (endpoint::SendStream, endpoint::RecvStream),
    place: Option<OwnedSemaphorePermit>,
) -> (SendStream, RecvStream) {
    let place = place.map(Arc::new);
    let send = IrohSendStream { stream: send, finished: false, _place: place.clone() };
    (SendStream::Iroh(send), RecvStream::Iroh(IrohRecvStream { stream: recv, _place: place }))
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
        self.stream.read_chunk(max).await.map_err(|error| match error {
            endpoint::ReadError::Reset(code) => ReadError::Reset { code: narrow(code) },
            endpoint::ReadError::ConnectionLost(error) => ReadError::Lost(lost(error)),
            error => ReadError::Lost(ConnectionLost::Other(error.to_string())),
        })
    }

    pub(crate) fn stop(&mut self, code: Code) {
        let _ = self.stream.stop(VarInt::from_u32(code));
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
