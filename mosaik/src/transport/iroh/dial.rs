//! The dialling side of the QUIC backend: to one peer at several addresses, some of which may be another node's by now.
//!
//! The endpoint sends the first packet of a dial to every address that it remembers of the peer, and the first answer
//! decides. An answer by somebody else ends that dial, and the endpoint remembers the address for a minute or more. While
//! a connection to the peer seems alive, it sends to the address of that connection alone. Against both:
//!
//! * A dial names whom it is for, in a way that only those understand who know that peer. A node answers dials for others
//!   late, after the one that is meant.
//! * Where somebody else answered all the same, or nobody did at the address of a connection that may be dead, each address
//!   that was given is dialled alone, from a spare endpoint that remembers nothing. It lives as long as what came of it.

use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use futures::{
    StreamExt,
    future::{BoxFuture, Either, select},
    stream::FuturesUnordered,
};
use iroh::{
    Endpoint, EndpointAddr, EndpointId, TransportAddr,
    endpoint::{
        ConnectError as IrohConnectError, ConnectOptions, ConnectWithOptsError, ConnectingError, ConnectionError,
        Incoming, TransportAddrUsage,
    },
};
use tokio::{
    sync::{Semaphore, mpsc},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{IrohConnection, IrohTransport, Own, Reached, accept::accept_loop, close_in_background, narrow};
use crate::{
    primitives::fresh_bytes,
    transport::{CONNECT_TIMEOUT, ConnectError, lane::Lanes},
};

/// How long a dial waits for an answer until addresses are dialled alone, if there is reason to.
const HEAD_START: Duration = Duration::from_millis(250);
/// Addresses of one dial that are dialled alone.
const MAX_ALONE: usize = 32;
/// Spare endpoints of a node, each with a socket; further ones wait for their turn.
const MAX_SPARES: usize = 64;
/// Connections that a spare endpoint has accepted and not handed on yet.
const SPARE_QUEUE: usize = 4;
/// The TLS alert of a peer that shares no protocol with us: `no_application_protocol` (RFC 7301, section 3.2).
const NO_APPLICATION_PROTOCOL: u64 = 0x100 + 120;
/// The TLS alert for a key that is not the one asked for: `unknown_ca` (RFC 8446, section 6.2).
const UNKNOWN_CA: u64 = 0x100 + 48;

/// Begins the entry in a dial's list of protocols that names whom it is for. No node serves it.
const ADDRESSEE: &[u8] = b"mosaik/to/";
/// Bytes of the salt in that entry, and of the digest of salt and id.
const SALT: usize = 8;

/// For whom a dial is, such that it tells nothing to those who do not know that peer.
fn addressee(id: EndpointId, salt: &[u8]) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new_derive_key("mosaik dial addressee 1");
    hasher.update(salt).update(id.as_bytes());
    [ADDRESSEE, salt, &hasher.finalize().as_bytes()[..SALT]].concat()
}

/// Whether a dial names a node other than this one. One that names nobody is for whoever is here.
pub(super) fn is_for_another(incoming: &Incoming, own: EndpointId) -> bool {
    let Some(alpns) = incoming.decrypt().and_then(|initial| initial.alpns()) else { return false };
    let mut named = alpns.map_while(Result::ok).filter(|alpn| alpn.starts_with(ADDRESSEE)).peekable();
    let salt = |alpn: &[u8]| alpn.get(ADDRESSEE.len()..ADDRESSEE.len() + SALT).map(<[u8]>::to_vec);
    named.peek().is_some() && !named.any(|alpn| salt(&alpn).is_some_and(|salt| addressee(own, &salt) == *alpn))
}

/// Why an attempt failed.
struct Failed {
    error: ConnectError,
    /// Whether somebody who is not known to be the peer said so; the peer itself may be at another address.
    unproved: bool,
}

impl IrohTransport {
    pub(crate) async fn connect(&self, to: &EndpointAddr, alpn: &[u8]) -> Result<IrohConnection, ConnectError> {
        timeout(CONNECT_TIMEOUT, self.dial(to, alpn)).await.unwrap_or(Err(ConnectError::TimedOut))
    }

    async fn dial(&self, to: &EndpointAddr, alpn: &[u8]) -> Result<IrohConnection, ConnectError> {
        let mut whole = pin!(attempt(&self.endpoint, to.clone(), alpn, self.lanes.as_ref()));
        let failed = tokio::select! {
            biased;
            result = &mut whole => match result {
                Ok(connection) => return Ok(connection),
                Err(failed) => failed,
            },
            unheard = self.elsewhere(to) => {
                tracing::debug!(peer = %to.id.fmt_short(), ?unheard, "no answer where a connection was; dialling each address");
                return match select(whole, pin!(self.each_alone(to.id, unheard, alpn))).await {
                    Either::Left((Ok(connection), _)) | Either::Right((Some(connection), _)) => Ok(connection),
                    Either::Left((Err(failed), alone)) => alone.await.ok_or(failed.error),
                    Either::Right((None, whole)) => whole.await.map_err(|failed| failed.error),
                };
            }
        };
        if !failed.unproved || self.knows_one_address(to).await {
            return Err(failed.error);
        }
        tracing::debug!(peer = %to.id.fmt_short(), error = %failed.error, "somebody else answered; dialling each address");
        self.each_alone(to.id, to.ip_addrs().copied().collect(), alpn).await.ok_or(failed.error)
    }

    /// Resolves after a while when the endpoint may send to an old address only, and others are known: those. It does so while a
    /// connection to the old one seems alive, and for a moment longer.
    async fn elsewhere(&self, to: &EndpointAddr) -> Vec<SocketAddr> {
        let before = self.active(to).await;
        sleep(HEAD_START).await;
        let active = [before, self.active(to).await].concat();
        let others: Vec<_> = to.ip_addrs().copied().filter(|socket| !active.contains(socket)).collect();
        if !active.is_empty() && !others.is_empty() {
            return others;
        }
        std::future::pending().await
    }

    /// Where the endpoint has connections to the peer, or believes so.
    async fn active(&self, to: &EndpointAddr) -> Vec<SocketAddr> {
        let info = self.endpoint.remote_info(to.id).await;
        let active =
            info.iter().flat_map(|info| info.addrs()).filter_map(|known| match (known.addr(), known.usage()) {
                (TransportAddr::Ip(socket), TransportAddrUsage::Active) => Some(*socket),
                _ => None,
            });
        active.collect()
    }

    /// Whether the dial went to one address only: then nobody else can be asked.
    async fn knows_one_address(&self, to: &EndpointAddr) -> bool {
        let Some(info) = self.endpoint.remote_info(to.id).await else { return to.addrs.len() == 1 };
        to.addrs.len() == 1 && info.addrs().all(|known| to.addrs.contains(known.addr()))
    }

    /// Dials each address alone, all at once; the first connection wins. Cancellation-safe: what was begun is ended.
    async fn each_alone(&self, peer: EndpointId, at: Vec<SocketAddr>, alpn: &[u8]) -> Option<IrohConnection> {
        let own = self.endpoint.bound_sockets();
        let (found, mut first) = mpsc::channel(1);
        for socket in at.into_iter().filter(|socket| !own.contains(socket)).take(MAX_ALONE) {
            let to = EndpointAddr::from(peer).with_ip_addr(socket);
            self.tasks.spawn("dial-alone", alone(self.spares.clone(), to, alpn.to_vec(), found.clone()));
        }
        drop(found);
        first.recv().await
    }
}

/// What spare endpoints are made from, and how many there may be.
#[derive(Debug)]
pub(super) struct Spares {
    own: Own,
    /// Where connections go that a spare endpoint accepts: a peer that has one to it may dial it there.
    accepted: mpsc::WeakSender<IrohConnection>,
    room: Semaphore,
    closing: CancellationToken,
    /// Of the node.
    lanes: Option<Arc<Lanes>>,
}

impl Spares {
    pub(super) fn new(own: Own, accepted: mpsc::WeakSender<IrohConnection>, lanes: Option<Arc<Lanes>>) -> Self {
        Self { own, accepted, room: Semaphore::new(MAX_SPARES), closing: CancellationToken::new(), lanes }
    }

    /// Ends all of them and makes no more.
    pub(super) fn close(&self) {
        self.closing.cancel();
        self.room.close();
    }

    async fn bind(&self) -> Result<Spare, String> {
        let listen = self.own.listen.map(|listen| SocketAddr::new(listen.ip(), 0));
        self.own.builder(listen)?.bind().await.map(Spare).map_err(|error| format!("{error:#}"))
    }
}

/// An endpoint for one dial. Closed however its task ends.
struct Spare(Endpoint);

impl Drop for Spare {
    fn drop(&mut self) {
        close_in_background(&self.0);
    }
}

/// Dials one address from a spare endpoint, which then serves the connection to its end.
async fn alone(spares: Arc<Spares>, to: EndpointAddr, alpn: Vec<u8>, found: mpsc::Sender<IrohConnection>) {
    let connected = async {
        let room = spares.room.acquire().await.ok()?;
        let spare = match spares.bind().await {
            Ok(spare) => spare,
            Err(error) => {
                tracing::warn!(error, "no socket for a dial of its own");
                return None;
            }
        };
        match timeout(CONNECT_TIMEOUT, attempt(&spare.0, to.clone(), &alpn, spares.lanes.as_ref())).await {
            Ok(Ok(connection)) => Some((room, spare, connection)),
            Ok(Err(failed)) => {
                tracing::debug!(?to, error = %failed.error, "not reached at this address");
                None
            }
            Err(_) => None,
        }
    };
    let connected = tokio::select! {
        biased;
        () = found.closed() => return,
        () = spares.closing.cancelled() => return,
        connected = connected => connected,
    };
    let Some((_room, spare, connection)) = connected else { return };
    let closed = connection.ended();
    // Another address was sooner: then the connection ends here.
    if found.try_send(connection).is_ok() {
        drop(found);
        tokio::select! {
            biased;
            () = spares.closing.cancelled() => {}
            () = serve(&spare.0, closed, &spares) => {}
        }
    }
}

/// Hands on what a spare endpoint accepts, until none of its connections is left.
async fn serve(endpoint: &Endpoint, first: BoxFuture<'static, ()>, spares: &Spares) {
    let (sender, mut incoming) = mpsc::channel(SPARE_QUEUE);
    let mut accepting = pin!(accept_loop(endpoint.clone(), sender, Reached::default(), spares.lanes.clone()));
    let mut live = FuturesUnordered::from_iter([first]);
    while !live.is_empty() {
        tokio::select! {
            biased;
            () = &mut accepting => return,
            Some(connection) = incoming.recv() => {
                live.push(connection.ended());
                let Some(accepted) = spares.accepted.upgrade() else { return };
                if accepted.send(connection).await.is_err() {
                    return;
                }
            }
            _ = live.next() => {}
        }
    }
}

/// One dial of one endpoint.
async fn attempt(
    endpoint: &Endpoint,
    to: EndpointAddr,
    alpn: &[u8],
    lanes: Option<&Arc<Lanes>>,
) -> Result<IrohConnection, Failed> {
    let salt = &fresh_bytes()[..SALT];
    let options = ConnectOptions::new().with_additional_alpns(vec![addressee(to.id, salt)]);
    let connecting = endpoint.connect_with_opts(to, alpn, options).await.map_err(IrohConnectError::from);
    let connected = match connecting {
        Ok(connecting) => connecting.await.map_err(IrohConnectError::from),
        Err(error) => Err(error),
    };
    connected.map(|connection| IrohConnection::new(connection, lanes)).map_err(failed)
}

fn failed(error: IrohConnectError) -> Failed {
    let proved = |error| Failed { error, unproved: false };
    let unproved = |error| Failed { error, unproved: true };
    let connection = match error {
        IrohConnectError::Connect { source, .. } => {
            return proved(match source {
                ConnectWithOptsError::SelfConnect { .. } => ConnectError::ToSelf,
                ConnectWithOptsError::NoAddress { .. } => ConnectError::NoAddress,
                ConnectWithOptsError::EndpointClosed { .. } => ConnectError::Closed,
                source => ConnectError::Other(source.to_string()),
            });
        }
        IrohConnectError::Connecting { source: ConnectingError::ConnectionError { source, .. }, .. }
        | IrohConnectError::Connection { source, .. } => source,
        error => return proved(ConnectError::Other(error.to_string())),
    };
    match connection {
        // After the handshake: by the peer itself.
        ConnectionError::ApplicationClosed(close) => proved(ConnectError::Refused { code: narrow(close.error_code) }),
        ConnectionError::TimedOut => proved(ConnectError::TimedOut),
        ConnectionError::LocallyClosed => proved(ConnectError::Closed),
        ConnectionError::ConnectionClosed(close) if u64::from(close.error_code) == NO_APPLICATION_PROTOCOL => {
            unproved(ConnectError::UnsupportedProtocol)
        }
        // Found by this side in what the other showed of itself: its key is another one.
        ConnectionError::TransportError(error) if u64::from(error.code) == UNKNOWN_CA => {
            unproved(ConnectError::AnotherPeer)
        }
        error => unproved(ConnectError::Other(error.to_string())),
    }
}
