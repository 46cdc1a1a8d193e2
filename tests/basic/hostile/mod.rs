//! Strangers: what a raw QUIC endpoint can do to a node on real loopback. Whatever it sends is answered or dropped
//! within a bound, honest peers notice nothing, and the node's memory stays bounded.
//!
//! The attacker is written against the wire format as the book describes it, not against the runtime's types.

mod bonds;
mod closed;
mod diagnostics;
mod floods;
mod forgery;
mod links;
mod made_up;

use std::{net::SocketAddr, time::Duration};

use iroh::{
    Endpoint, EndpointAddr, SecretKey,
    endpoint::{Connection, ConnectionError, ReadError, RecvStream, SendStream, WriteError, presets},
};
use mosaik::{
    Network, NetworkId,
    network::{CloseCode, Family},
    testing::{eventually, trace},
};
use tokio::time::timeout;

/// Every protocol that a node serves, with the ALPN of its family.
const PROTOCOLS: [(&str, &str); 13] = [
    (Family::DISCOVERY.alpn(), "sync/2"),
    (Family::DISCOVERY.alpn(), "entry/2"),
    (Family::DISCOVERY.alpn(), "ticket/1"),
    (Family::DISCOVERY.alpn(), "revoke/2"),
    (Family::DISCOVERY.alpn(), "renew/1"),
    (Family::DISCOVERY.alpn(), "gossip/1"),
    (Family::STREAMS.alpn(), "subscribe/8"),
    (Family::STREAMS.alpn(), "replay/1"),
    (Family::STREAMS.alpn(), "snapshot/3"),
    (Family::GROUPS.alpn(), "bond/9"),
    (Family::GROUPS.alpn(), "operate/2"),
    (Family::GROUPS.alpn(), "call/1"),
    (Family::DIAGNOSTICS.alpn(), "report/8"),
];
const ALPNS: [&str; 4] =
    [Family::DISCOVERY.alpn(), Family::STREAMS.alpn(), Family::GROUPS.alpn(), Family::DIAGNOSTICS.alpn()];
/// The longest that a node lets a stranger wait: a frame that stalls is given 10 s.
const BOUND: Duration = Duration::from_secs(13);

/// A node under attack and an honest peer of it.
struct Scene {
    network: NetworkId,
    victim: Network,
    honest: Network,
}

impl Scene {
    async fn new(name: &str) -> Self {
        trace();
        let network = NetworkId::from(name);
        let (victim, honest) = (node(network).await, node(network).await);
        assert!(eventually(Duration::from_secs(5), || knows(&victim, &honest) && knows(&honest, &victim)).await);
        Self { network, victim, honest }
    }

    fn addr(&self) -> EndpointAddr {
        self.victim.local().addr()
    }

    /// The honest peer is still there, news of it still arrive, and a newcomer is let in.
    async fn assert_unharmed(&self) {
        assert!(knows(&self.victim, &self.honest) && knows(&self.honest, &self.victim));
        self.honest.discovery().add_tags(["after"]);
        let told = || {
            let catalog = self.victim.discovery().catalog();
            catalog.get(self.honest.local().id()).is_some_and(|peer| peer.tags().contains("after"))
        };
        assert!(eventually(Duration::from_secs(5), told).await, "news of the honest peer do not arrive");
        let newcomer = node(self.network).await;
        let met = || knows(&self.victim, &newcomer) && knows(&newcomer, &self.victim);
        assert!(eventually(BOUND, met).await, "a newcomer is not let in");
        newcomer.shutdown().await;
    }
}

async fn node(network: NetworkId) -> Network {
    Network::builder(network).with_listen(loopback()).build().await.expect("starts")
}

fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn knows(one: &Network, other: &Network) -> bool {
    one.discovery().catalog().get(other.local().id()).is_some()
}

/// A QUIC endpoint that is no node.
struct Attacker(Endpoint);

impl Attacker {
    async fn new(key: u8) -> Self {
        let secret = SecretKey::from_bytes(blake3::hash(&[key]).as_bytes());
        let builder = Endpoint::builder(presets::Minimal).secret_key(secret).clear_ip_transports();
        Self(builder.bind_addr(loopback()).expect("an address").bind().await.expect("binds"))
    }

    fn key(&self) -> SecretKey {
        self.0.secret_key().clone()
    }

    async fn connect(&self, scene: &Scene, alpn: &str) -> Connection {
        self.connect_to(scene.addr(), alpn).await
    }

    async fn connect_to(&self, addr: EndpointAddr, alpn: &str) -> Connection {
        soon(self.0.connect(addr, alpn.as_bytes())).await.expect("connects")
    }

    /// A connection and a stream on it whose first bytes are those.
    async fn say(&self, scene: &Scene, alpn: &str, bytes: &[u8]) -> (Connection, SendStream, RecvStream) {
        let connection = self.connect(scene, alpn).await;
        let (mut send, recv) = soon(connection.open_bi()).await.expect("opens");
        soon(send.write_all(bytes)).await.expect("writes");
        (connection, send, recv)
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(BOUND, future).await.expect("in time")
}

/// Bytes with their length in front.
fn frame(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("small");
    [&length.to_le_bytes()[..], bytes].concat()
}

/// The first frame of a stream.
fn preamble(network: NetworkId, protocol: &str) -> Vec<u8> {
    frame(&postcard::to_allocvec(&(network, protocol)).expect("encodes"))
}

/// How a node ends what it does not like: the code with which it reset the stream or closed the connection.
async fn refusal(recv: &mut RecvStream) -> CloseCode {
    soon(async {
        loop {
            match recv.read_chunk(1 << 16).await {
                Ok(Some(_)) => {}
                // An answer, and a clean end.
                Ok(None) => return CloseCode::Normal,
                Err(ReadError::Reset(code)) => return code_of(code.into_inner()),
                Err(ReadError::ConnectionLost(lost)) => return closed(&lost),
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await
}

/// The code with which the node stopped reading.
async fn stop(send: &mut SendStream) -> CloseCode {
    soon(async {
        loop {
            match send.write_all(&[0; 1024]).await {
                Ok(()) => {}
                Err(WriteError::Stopped(code)) => return code_of(code.into_inner()),
                Err(WriteError::ConnectionLost(lost)) => return closed(&lost),
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await
}

fn closed(lost: &ConnectionError) -> CloseCode {
    match lost {
        ConnectionError::ApplicationClosed(close) => code_of(close.error_code.into_inner()),
        other => panic!("the connection was lost: {other}"),
    }
}

fn code_of(code: u64) -> CloseCode {
    CloseCode::from(u32::try_from(code).expect("ours"))
}
