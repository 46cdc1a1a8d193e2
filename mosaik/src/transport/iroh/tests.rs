//! Dialling where others listen, and dials without end: real endpoints on loopback, some of which are not of this crate.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex},
};

use futures::future::join_all;
use tokio::time::Instant;

use super::*;
use crate::{testing::eventually, transport::ConnectError};

const ALPN: &[u8] = b"test/1";
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn key(name: &str) -> SecretKey {
    SecretKey::from_bytes(blake3::hash(name.as_bytes()).as_bytes())
}

async fn node_at(name: &str, at: SocketAddr) -> Result<IrohTransport, String> {
    IrohTransport::bind(IrohConfig::new(key(name), Some(at), vec![ALPN.to_vec()])).await
}

async fn node(name: &str) -> IrohTransport {
    node_at(name, LOOPBACK).await.expect("binds")
}

/// An endpoint that is no node: it answers every dial at once, whoever is meant.
async fn stranger_at(at: SocketAddr, alpns: Vec<Vec<u8>>) -> Result<Endpoint, String> {
    let builder = Endpoint::builder(presets::Minimal).clear_ip_transports().alpns(alpns);
    let endpoint = builder.bind_addr(at).map_err(|error| error.to_string())?.bind().await;
    let endpoint = endpoint.map_err(|error| format!("{error:#}"))?;
    let accepting = endpoint.clone();
    #[expect(clippy::disallowed_methods, reason = "it is no node")]
    tokio::spawn(async move {
        while let Some(incoming) = accepting.accept().await {
            if let Ok(accepting) = incoming.accept() {
                tokio::spawn(async move { accepting.await.map(drop) });
            }
        }
    });
    Ok(endpoint)
}

fn socket(endpoint: &Endpoint) -> SocketAddr {
    endpoint.bound_sockets()[0]
}

/// Accepts and keeps what comes.
fn keep_accepting(node: &IrohTransport) {
    let (accepting, tasks) = (node.clone(), node.tasks().clone());
    tasks.spawn("accepting", async move {
        let mut kept = Vec::new();
        while let Some(connection) = accepting.accept().await {
            kept.push(connection);
        }
    });
}

async fn connects(from: &IrohTransport, to: &EndpointAddr) -> IrohConnection {
    let begun = Instant::now();
    match from.connect(to, ALPN).await {
        Ok(connection) => connection,
        Err(error) => panic!("{error} after {:?}", begun.elapsed()),
    }
}

/// Twenty diallers, seven wrong addresses.
#[tokio::test(flavor = "multi_thread")]
async fn other_nodes_at_stale_addresses_keep_nobody_out() {
    let right = node("right").await;
    keep_accepting(&right);
    let mut to = right.addr();
    let mut others = Vec::new();
    for i in 0..7 {
        let other = node(&format!("other {i}")).await;
        keep_accepting(&other);
        to.addrs.extend(other.addr().addrs);
        others.push(other);
    }
    let diallers = join_all((0..20).map(async |i| node(&format!("dialler {i}")).await)).await;
    join_all(diallers.iter().map(|dialler| connects(dialler, &to))).await;
}

/// As above, with endpoints that know nothing of our ways; and later dials, which go to remembered addresses, too.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_at_stale_addresses_keep_nobody_out() {
    let (right, dialler) = (node("right").await, node("dialler").await);
    keep_accepting(&right);
    let mut to = right.addr();
    for alpns in [vec![ALPN.to_vec()], vec![b"other".to_vec()], vec![ALPN.to_vec()]] {
        let stranger = stranger_at(LOOPBACK, alpns).await.expect("binds");
        to = to.with_ip_addr(socket(&stranger));
    }
    for to in [&to, &right.addr(), &to] {
        let connection = connects(&dialler, to).await;
        assert_eq!(connection.peer(), right.id());
        connection.close(0);
        connection.closed().await;
    }
    // What was opened for it is closed again.
    let probe = dialler.tasks().probe();
    assert!(
        eventually(Duration::from_secs(20), || !probe.names().contains(&"dial-alone")).await,
        "{:?}",
        probe.names()
    );
}

/// The peer may dial back where a connection comes from, which may be a spare endpoint.
#[tokio::test(flavor = "multi_thread")]
async fn a_dial_back_is_accepted_wherever_it_arrives() {
    let (right, dialler) = (node("right").await, node("dialler").await);
    let stranger = stranger_at(LOOPBACK, vec![ALPN.to_vec()]).await.expect("binds");
    let to = right.addr().with_ip_addr(socket(&stranger));
    let (there, here) = tokio::join!(connects(&dialler, &to), right.accept());
    let to = dialler.addr();
    let (back, accepted) = tokio::join!(connects(&right, &to), dialler.accept());
    assert_eq!((back.peer(), accepted.expect("is open").peer()), (dialler.id(), right.id()));
    drop((there, here));
    dialler.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_dials_another_node_is_told() {
    let (a, b, c) = (node("a").await, node("b").await, node("c").await);
    let wrong = EndpointAddr::from(c.id()).with_addrs(b.addr().addrs);
    assert_eq!(a.connect(&wrong, ALPN).await.map(drop), Err(ConnectError::AnotherPeer));
}

/// A peer crashes and comes back elsewhere while somebody takes its old port, and before anybody can have noticed that the
/// connection to the old place is dead.
async fn moves(taken_by_node: bool) {
    let dialler = node("dialler").await;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runs");
    let (sender, receiver) = tokio::sync::oneshot::channel();
    #[expect(clippy::disallowed_methods, reason = "a runtime of its own is what can be stopped")]
    runtime.spawn(async move {
        let peer = node("peer").await;
        keep_accepting(&peer);
        sender.send(peer.addr()).expect("the test waits");
        std::future::pending::<()>().await;
    });
    let before = receiver.await.expect("binds");
    let _old = connects(&dialler, &before).await;
    runtime.shutdown_background();
    let port = *before.ip_addrs().next().expect("listens");
    assert!(eventually(Duration::from_secs(10), || UdpSocket::bind(port).is_ok()).await);
    let _taken = if taken_by_node {
        let other = node_at("other", port).await.expect("binds");
        keep_accepting(&other);
        (Some(other), None)
    } else {
        (None, Some(stranger_at(port, vec![ALPN.to_vec()]).await.expect("binds")))
    };
    let peer = node("peer").await;
    keep_accepting(&peer);
    connects(&dialler, &peer.addr()).await;
    // Whoever has not heard of the move yet, but of both places.
    connects(&dialler, &peer.addr().with_ip_addr(port)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_moves_is_reached_with_its_old_port_taken_by_a_node() {
    moves(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_moves_is_reached_with_its_old_port_taken_by_a_stranger() {
    moves(false).await;
}

/// What a packet of QUIC says in the clear (RFC 9000, section 17.2): whether it is a Retry, and the id that an Initial names.
fn is_retry(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first & 0xf0 == 0xf0)
}

fn initial(packet: &[u8]) -> Option<Vec<u8>> {
    let begins = packet.first().is_some_and(|first| first & 0xf0 == 0xc0);
    let length = usize::from(*packet.get(5)?);
    packet.get(6..6 + length).filter(|_| begins).map(<[u8]>::to_vec)
}

/// Passes packets from one dialler on to `to`; back only what `back` lets through.
fn forwarder(
    to: SocketAddr,
    tasks: &Tasks,
    mut forth: impl FnMut(&[u8]) + Send + 'static,
    mut back: impl FnMut(&[u8]) -> bool + Send + 'static,
) -> SocketAddr {
    let socket = UdpSocket::bind(LOOPBACK).expect("binds");
    socket.set_nonblocking(true).expect("is a socket");
    let at = socket.local_addr().expect("is bound");
    let socket = tokio::net::UdpSocket::from_std(socket).expect("is a socket");
    tasks.spawn("forwarder", async move {
        let (mut dialler, mut buffer) = (None, vec![0; 65_536]);
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let packet = &buffer[..length];
            let onward = if from == to {
                dialler.filter(|_| back(packet))
            } else {
                dialler = Some(from);
                forth(packet);
                Some(to)
            };
            if let Some(onward) = onward {
                // A packet more or less lost is nothing new to QUIC.
                let _ = socket.send_to(packet, onward).await;
            }
        }
    });
    at
}

/// Handshakes that never end are held; from the watermark on a dialler proves its address, and gets in.
#[tokio::test(flavor = "multi_thread")]
async fn half_open_handshakes_keep_nobody_out() {
    let (server, attacker, honest) = (node("server").await, node("attacker").await, node("honest").await);
    keep_accepting(&server);
    let at = socket(&server.endpoint);
    let dials: Arc<Mutex<BTreeSet<Vec<u8>>>> = Arc::default();
    let counted = dials.clone();
    let count = move |packet: &[u8]| counted.lock().expect("unpoisoned").extend(initial(packet));
    let one_way = forwarder(at, server.tasks(), count, |_| false);
    for _ in 0..100 {
        let (attacker, to) = (attacker.clone(), EndpointAddr::from(server.endpoint.id()).with_ip_addr(one_way));
        attacker.tasks().clone().spawn("attack", async move { drop(attacker.connect(&to, ALPN).await) });
    }
    assert!(eventually(Duration::from_secs(20), || dials.lock().expect("unpoisoned").len() >= 100).await);
    let retries = Arc::new(Mutex::new(0));
    let seen = retries.clone();
    let watch = move |packet: &[u8]| {
        *seen.lock().expect("unpoisoned") += usize::from(is_retry(packet));
        true
    };
    let both_ways = forwarder(at, server.tasks(), |_| {}, watch);
    connects(&honest, &EndpointAddr::from(server.endpoint.id()).with_ip_addr(both_ways)).await;
    assert_eq!(*retries.lock().expect("unpoisoned"), 1);
}

/// What is configured is announced besides what is found.
#[tokio::test(flavor = "multi_thread")]
async fn external_addresses_are_announced_besides_those_that_are_found() {
    let outside: SocketAddr = "203.0.113.7:4433".parse().expect("an address");
    let config =
        IrohConfig { external: vec![outside], ..IrohConfig::new(key("inside"), Some(LOOPBACK), vec![ALPN.to_vec()]) };
    let inside = IrohTransport::bind(config).await.expect("binds");
    let addrs: BTreeSet<_> = inside.addr().ip_addrs().copied().collect();
    assert_eq!(addrs, BTreeSet::from([outside, socket(&inside.endpoint)]));
}

/// A shorter idle time-out of either side counts.
#[tokio::test(flavor = "multi_thread")]
async fn the_idle_timeout_is_a_setting() {
    let config = |name, idle_timeout| IrohConfig {
        idle_timeout,
        ..IrohConfig::new(key(name), Some(LOOPBACK), vec![ALPN.to_vec()])
    };
    let dialler = IrohTransport::bind(config("dialler", Duration::from_mins(1))).await.expect("binds");
    let server = IrohTransport::bind(config("server", Duration::from_millis(800))).await.expect("binds");
    keep_accepting(&server);
    let link_up = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let (there, back) = (link_up.clone(), link_up.clone());
    let socket = forwarder(
        socket(&server.endpoint),
        dialler.tasks(),
        |_| {},
        move |_| back.load(std::sync::atomic::Ordering::Relaxed),
    );
    let connection = connects(&dialler, &EndpointAddr::from(server.endpoint.id()).with_ip_addr(socket)).await;
    there.store(false, std::sync::atomic::Ordering::Relaxed);
    let lost = timeout(Duration::from_secs(30), connection.closed()).await.expect("long before its own time-out");
    assert_eq!(lost, ConnectionLost::TimedOut);
}
