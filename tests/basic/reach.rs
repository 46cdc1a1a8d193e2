//! Reach beyond known addresses: through a relay, by multicast DNS, and through a pkarr relay. All servers run here.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use iroh_relay::server::{RelayConfig, Server, ServerConfig};
use mosaik::{
    EndpointAddr, Network, NetworkId, RelayUrl, discovery, network::NetworkBuilder, streams::Producer,
    testing::eventually,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
};

use crate::{processes::Process, streams::soon};

/// For what depends on the relay's and the endpoint's own timers.
const LONG: Duration = Duration::from_mins(1);

/// A relay on loopback, without TLS; at any port if that is 0.
async fn relay(port: u16) -> (Server, RelayUrl) {
    let mut config = ServerConfig::default();
    config.relay = Some(RelayConfig::new((Ipv4Addr::LOCALHOST, port)));
    let server = Server::spawn(config).await.unwrap();
    let url = format!("http://{}", server.http_addr().unwrap()).parse().unwrap();
    (server, url)
}

fn here() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn nowhere() -> RelayUrl {
    // The port of the discard protocol, which nobody serves.
    "http://127.0.0.1:9".parse().unwrap()
}

/// A node that finds no other only because it runs in the same process.
fn apart(id: NetworkId) -> NetworkBuilder {
    mosaik::testing::trace();
    let discovery = discovery::Config::builder().with_rendezvous(false);
    Network::builder(id).with_listen(here()).with_discovery(discovery)
}

/// An item goes from one to the other.
async fn flows(from: &Network, to: &Network) {
    let producer: Producer<u64> = from.streams().produce();
    let mut consumer = to.streams().consume::<u64>();
    soon("subscribed", producer.when().subscribed()).await;
    producer.send(7).await.unwrap();
    assert_eq!(soon("item", consumer.recv()).await, Some(7));
}

/// Nothing but a relay is known of the bootstrap peer.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_meet_through_a_relay() {
    let (server, url) = relay(0).await;
    let id = NetworkId::random();
    let builder = || apart(id).with_relays([url.clone()]);
    let first = builder().build().await.unwrap();
    let at = EndpointAddr::new(first.local().id().into()).with_relay_url(url.clone());
    let second = builder().with_bootstrap(at).build().await.unwrap();
    soon("known", async {
        while second.discovery().catalog().get(first.local().id()).is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    flows(&first, &second).await;
    first.shutdown().await;
    second.shutdown().await;
    server.shutdown().await.unwrap();
}

/// A relay that is not there holds nothing up: neither the start nor peers that are reached directly.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_gone_holds_nothing_up() {
    let id = NetworkId::random();
    let builder = || apart(id).with_relays([nowhere()]);
    let first = soon("start", Box::pin(builder().build())).await.unwrap();
    let second = soon("start", Box::pin(builder().with_bootstrap(first.local().addr()).build())).await.unwrap();
    flows(&first, &second).await;
}

/// Whether every connection between the two goes directly. They begin at the relay, and go over one by one.
fn is_direct(from: &Network, to: &Network) -> bool {
    let peers = from.diagnostics().peers();
    let report = peers.iter().find(|peer| peer.id == to.local().id());
    report.is_some_and(|peer| {
        !peer.connections.is_empty() && peer.connections.iter().all(|connection| connection.relayed == Some(false))
    })
}

/// Peers that have met go on without their relay, and can be reached through it again when it is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_may_go_and_come_back() {
    let (server, url) = relay(0).await;
    let port = server.http_addr().unwrap().port();
    let id = NetworkId::random();
    let builder = || apart(id).with_relays([url.clone()]);
    let first = builder().build().await.unwrap();
    let at = EndpointAddr::new(first.local().id().into()).with_relay_url(url.clone());
    let second = builder().with_bootstrap(at.clone()).build().await.unwrap();
    let producer: Producer<u64> = first.streams().produce();
    let mut consumer = second.streams().consume::<u64>();
    soon("subscribed", producer.when().subscribed()).await;
    // What is on its way at the relay when that goes is lost with the connection, as in any other crash.
    assert!(eventually(LONG, || is_direct(&first, &second) && is_direct(&second, &first)).await);
    server.shutdown().await.unwrap();
    for item in 0..100 {
        producer.send(item).await.unwrap();
        assert_eq!(soon("item", consumer.recv()).await, Some(item));
    }

    let third = builder().with_bootstrap(at).build().await.unwrap();
    let (server, _) = relay(port).await;
    let mut late = third.streams().consume::<u64>();
    soon("subscribed", producer.when().subscribed().minimum_of(2)).await;
    producer.send(7).await.unwrap();
    assert_eq!(soon("item", late.recv()).await, Some(7));
    server.shutdown().await.unwrap();
}

/// A relay that goes before its peers have found a direct way: what was on its way is lost with the connection, and the next one
/// is direct.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_may_go_before_there_is_a_direct_way() {
    let (server, url) = relay(0).await;
    let id = NetworkId::random();
    let builder = || apart(id).with_relays([url.clone()]);
    let first = builder().build().await.unwrap();
    let at = EndpointAddr::new(first.local().id().into()).with_relay_url(url.clone());
    let second = builder().with_bootstrap(at).build().await.unwrap();
    let producer: Producer<u64> = first.streams().produce();
    let mut consumer = second.streams().consume::<u64>();
    soon("subscribed", producer.when().subscribed()).await;
    server.shutdown().await.unwrap();
    let sending = async {
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        for item in 0.. {
            tick.tick().await;
            producer.send(item).await.unwrap();
        }
    };
    let receiving = async {
        // The last of these was sent long after the relay had gone.
        while consumer.recv().await.unwrap() < 100 {}
    };
    soon("items", async {
        tokio::select! { () = sending => unreachable!(), () = receiving => {} }
    })
    .await;
}

/// With multicast or without: a node starts, and an ordinary bootstrap peer is reached.
#[tokio::test(flavor = "multi_thread")]
async fn multicast_dns_is_harmless() {
    let id = NetworkId::random();
    let builder = || apart(id).with_mdns();
    let first = builder().build().await.unwrap();
    let second = builder().with_bootstrap(first.local().addr()).build().await.unwrap();
    flows(&first, &second).await;
    first.shutdown().await;
    second.shutdown().await;
}

/// Two processes with nothing but multicast between them.
#[test]
#[ignore = "needs a machine with multicast: cargo test --test basic nodes_of_the_local_network -- --ignored"]
fn nodes_of_the_local_network_find_each_other() {
    let weather = |args: &[&str]| {
        let args = [&["run"], args, &["--mdns", "--network", "multicast"]].concat();
        Process::start(env!("CARGO_BIN_EXE_weather"), &args, &[])
    };
    let mut display = weather(&["display"]);
    let _sensor = weather(&["sensor", "--id", "3"]);
    display.stdout.wait(std::time::Instant::now() + Duration::from_mins(1), "reading", |line| line.ends_with(" C"));
}

/// A pkarr relay as its protocol has it: what was put under a key is got from there. A stand-in, which checks nothing.
async fn pkarr() -> RelayUrl {
    let listener = TcpListener::bind(here()).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let kept: Arc<Mutex<BTreeMap<String, Vec<u8>>>> = Arc::default();
    tokio::spawn(async move {
        loop {
            let (connection, _) = listener.accept().await.unwrap();
            let kept = kept.clone();
            tokio::spawn(async move {
                let mut connection = BufReader::new(connection);
                loop {
                    let (mut line, mut length) = (String::new(), 0);
                    if connection.read_line(&mut line).await.unwrap_or(0) == 0 {
                        return;
                    }
                    let mut words = line.split(' ').map(str::to_owned);
                    let (method, path) = (words.next().unwrap(), words.next().unwrap());
                    loop {
                        let mut header = String::new();
                        connection.read_line(&mut header).await.unwrap();
                        let header = header.trim().to_lowercase();
                        if header.is_empty() {
                            break;
                        }
                        if let Some(value) = header.strip_prefix("content-length:") {
                            length = value.trim().parse().unwrap();
                        }
                    }
                    let mut body = vec![0; length];
                    connection.read_exact(&mut body).await.unwrap();
                    let (status, body) = if method == "PUT" {
                        kept.lock().unwrap().insert(path, body);
                        ("204 No Content", Vec::new())
                    } else {
                        let found = kept.lock().unwrap().get(&path).cloned();
                        found.map_or(("404 Not Found", Vec::new()), |body| ("200 OK", body))
                    };
                    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
                    if connection.write_all(&[head.into_bytes(), body].concat()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    url
}

/// Nothing but the id of the bootstrap peer is known; its addresses are where it has published them.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_is_found_by_its_id_at_a_pkarr_relay() {
    let url = pkarr().await;
    let (id, other) = (NetworkId::random(), NetworkId::random());
    let builder = |id| apart(id).with_pkarr(url.clone());
    let first = builder(id).build().await.unwrap();
    let second = builder(id).with_bootstrap(first.local().id()).build().await.unwrap();
    flows(&first, &second).await;
    // Found, but of another network.
    let stranger = builder(other).build().await.unwrap();
    let at = EndpointAddr::new(first.local().id().into());
    let refused = soon("refused", stranger.discovery().sync_with(at)).await.unwrap_err();
    assert!(refused.to_string().contains("network"), "{refused}");
}

/// A relay or name server that is not there holds nothing up.
#[tokio::test(flavor = "multi_thread")]
async fn a_pkarr_relay_that_is_gone_holds_nothing_up() {
    let id = NetworkId::random();
    let builder = || apart(id).with_pkarr(nowhere()).with_dns("nowhere.invalid");
    let first = soon("start", Box::pin(builder().build())).await.unwrap();
    let second = soon("start", Box::pin(builder().with_bootstrap(first.local().addr()).build())).await.unwrap();
    flows(&first, &second).await;
}
