//! Too much of everything: connections that say nothing, streams that say nothing, datagrams that are not QUIC.

use std::{net::UdpSocket, time::Duration};

use futures::StreamExt;
use iroh::{EndpointAddr, endpoint::Connection};
use mosaik::{network::Family, testing::eventually};

use super::{ALPNS, Attacker, Scene, frame, node, preamble, soon};

/// The most connections that a node keeps which have said nothing yet.
const MAX_SILENT: usize = 128;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_connections_that_say_nothing() {
    let scene = Scene::new("hostile: silence").await;
    let memory = resident_mib();
    // 25 keys, 40 connections each, four keys at a time.
    let flood = futures::stream::iter(0..25).map(|key| flood(key, scene.addr(), 40)).buffer_unordered(4);
    // Honest peers get through meanwhile.
    let (all, ()) = tokio::join!(flood.collect::<Vec<_>>(), scene.assert_unharmed());
    let open = || {
        let connections = all.iter().flat_map(|(_, connections)| connections);
        connections.filter(|connection| connection.close_reason().is_none()).count()
    };
    assert!(eventually(Duration::from_secs(3), || open() <= MAX_SILENT).await, "{} are open", open());
    assert!(eventually(Duration::from_secs(8), || open() == 0).await, "{} are still open", open());
    let grown = resident_mib().saturating_sub(memory);
    assert!(grown < 256, "{grown} MiB more, the attackers' own included");
    scene.assert_unharmed().await;
}

/// So many connections of one key that say nothing, made one after the other.
async fn flood(key: u8, to: EndpointAddr, count: usize) -> (Attacker, Vec<Connection>) {
    let attacker = Attacker::new(key).await;
    let mut connections = Vec::new();
    while connections.len() < count {
        // One may be refused: then the next one is tried.
        connections
            .extend(attacker.0.connect(to.clone(), ALPNS[connections.len() % ALPNS.len()].as_bytes()).await.ok());
    }
    (attacker, connections)
}

#[tokio::test(flavor = "multi_thread")]
async fn all_streams_of_a_connection_half_begun() {
    let scene = Scene::new("hostile: streams").await;
    let attacker = Attacker::new(1).await;
    for alpn in ALPNS {
        let connection = attacker.connect(&scene, alpn).await;
        let mut streams = Vec::new();
        while let Ok(stream) = tokio::time::timeout(Duration::from_millis(200), connection.open_bi()).await {
            let mut stream = stream.expect("opens");
            stream.0.write_all(&frame(&[0; 200])[..3]).await.expect("writes");
            streams.push(stream);
            assert!(streams.len() < 5000, "nothing limits the streams");
        }
        scene.assert_unharmed().await;
        // The node closes them or the connection, which has said nothing valid.
        let connection = connection.clone();
        let over = tokio::time::timeout(super::BOUND, connection.closed()).await;
        assert!(over.is_ok(), "the connection is still open");
    }
}

/// Sessions of discovery that begin and say nothing, on one connection and then by many peers: a newcomer is served at once.
#[tokio::test(flavor = "multi_thread")]
async fn silent_sessions_keep_no_newcomer_out() {
    for (name, peers, each) in [("one", 1, 200), ("many", 40, 8)] {
        let scene = Scene::new(&format!("hostile: silent sessions of {name}")).await;
        for protocol in ["sync/2", "entry/2"] {
            let (mut held, mut kept) = (Vec::new(), Vec::new());
            for key in 0..peers {
                let attacker = Attacker::new(key).await;
                let connection = attacker.connect(&scene, Family::DISCOVERY.alpn()).await;
                for _ in 0..each {
                    let (mut send, recv) = soon(connection.open_bi()).await.expect("opens");
                    soon(send.write_all(&preamble(scene.network, protocol))).await.expect("writes");
                    held.push((send, recv));
                }
                kept.push((attacker, connection));
            }
            let newcomer = node(scene.network).await;
            for _ in 0..3 {
                newcomer.discovery().sync_with(scene.addr()).await.expect("is served beside silent ones");
            }
            scene.honest.discovery().add_tags([protocol]);
            let told = || {
                let catalog = newcomer.discovery().catalog();
                catalog.get(scene.honest.local().id()).is_some_and(|peer| peer.tags().contains(protocol))
            };
            assert!(eventually(Duration::from_secs(5), told).await, "entries are not served beside silent ones");
            newcomer.shutdown().await;
            drop((held, kept));
        }
        scene.assert_unharmed().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_that_are_not_quic() {
    let scene = Scene::new("hostile: datagrams").await;
    let socket = UdpSocket::bind(super::loopback()).expect("binds");
    let targets: Vec<_> = scene.addr().ip_addrs().copied().collect();
    for i in 0..5000u32 {
        let mut bytes = vec![0; 1 + (i as usize * 7) % 1400];
        blake3::Hasher::new().update(&i.to_le_bytes()).finalize_xof().fill(&mut bytes);
        for target in &targets {
            // A full socket buffer drops it, which is as good.
            let _ = socket.send_to(&bytes, target);
        }
    }
    scene.assert_unharmed().await;
}

/// Memory of this process, other tests that run at the same time included.
fn resident_mib() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split(' ').nth(1)?.parse::<usize>().ok());
    pages.unwrap_or(0) * 4 / 1024
}
