//! What only the simulator can show: faults, virtual time and reproducibility. What it shares with QUIC is checked in
//! `transport/tests.rs`.

#![expect(clippy::unchecked_time_subtraction, reason = "an underflow fails the test")]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, timeout};

use super::*;
use crate::transport::{
    CONNECT_TIMEOUT, ConnectError, ConnectionLost, IDLE_TIMEOUT, KEEP_ALIVE, WriteError,
    sim::{link::micros, world::NodeState},
};

const ALPN: &[u8] = b"test/1";

struct Two {
    net: Arc<Net>,
    a: SimTransport,
    b: SimTransport,
    ab: SimConnection,
    ba: SimConnection,
}

fn start(net: &Arc<Net>, name: &str) -> SimTransport {
    SimTransport::start(net, net.node(name), None, vec![ALPN.to_vec()])
}

async fn two() -> Two {
    let net = Net::new(3);
    net.set_default_link(LinkQuality::lan());
    let (a, b) = (start(&net, "a"), start(&net, "b"));
    let to = b.addr();
    let (dialled, accepted) = tokio::join!(a.connect(&to, ALPN), b.accept());
    Two { net, a, b, ab: dialled.expect("connects"), ba: accepted.expect("accepts") }
}

async fn write(stream: &mut SimSendStream, bytes: &[u8]) -> Result<(), WriteError> {
    stream.write_all_chunks(&mut [Bytes::copy_from_slice(bytes)]).await
}

async fn lost_after(connection: &SimConnection, since: Instant) -> Duration {
    assert_eq!(connection.closed().await, ConnectionLost::TimedOut);
    since.elapsed()
}

fn is_idle_timeout(after: Duration) -> bool {
    after >= IDLE_TIMEOUT - KEEP_ALIVE && after <= IDLE_TIMEOUT + Duration::from_millis(2)
}

#[tokio::test(start_paused = true)]
async fn a_cut_is_noticed_by_both_sides_and_a_short_one_by_none() {
    let two = two().await;
    let cuts = [(0, 1), (1, 0)];
    two.net.set_cuts(cuts, true);
    tokio::time::sleep(IDLE_TIMEOUT - KEEP_ALIVE - Duration::from_millis(10)).await;
    two.net.set_cuts(cuts, false);
    tokio::time::sleep(2 * IDLE_TIMEOUT).await;
    assert_eq!((two.ab.close_reason(), two.ba.close_reason()), (None, None));
    let cut = Instant::now();
    two.net.set_cuts(cuts, true);
    let (a, b) = tokio::join!(lost_after(&two.ab, cut), lost_after(&two.ba, cut));
    assert!(is_idle_timeout(a) && is_idle_timeout(b), "{a:?} {b:?}");
}

#[tokio::test(start_paused = true)]
async fn after_a_one_way_cut_the_deaf_side_goes_first() {
    let two = two().await;
    let cut = Instant::now();
    two.net.set_cuts([(0, 1)], true);
    let (a, b) = tokio::join!(lost_after(&two.ab, cut), lost_after(&two.ba, cut));
    assert!(is_idle_timeout(b) && is_idle_timeout(a - b), "{a:?} {b:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_during_a_short_cut_arrives_in_order_after_it() {
    let two = two().await;
    let (mut send, _recv) = two.ab.open_bi().await.expect("opens");
    write(&mut send, b"before ").await.expect("writes");
    let (_back, mut recv) = two.ba.accept_bi().await.expect("accepts");
    two.net.set_cuts([(0, 1)], true);
    for i in 0..20 {
        write(&mut send, format!("{i} ").as_bytes()).await.expect("writes");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    two.net.heal();
    write(&mut send, b"after").await.expect("writes");
    send.finish();
    let mut text = Vec::new();
    while let Some(chunk) = recv.read_chunk(usize::MAX).await.expect("reads") {
        text.extend_from_slice(&chunk);
    }
    let during: Vec<_> = (0..20).map(|i| i.to_string()).collect();
    assert_eq!(String::from_utf8(text).expect("text"), format!("before {} after", during.join(" ")));
}

#[tokio::test(start_paused = true)]
async fn a_dial_across_a_cut_times_out_and_across_a_short_one_succeeds() {
    let two = two().await;
    two.net.set_cuts([(1, 0)], true);
    let begun = Instant::now();
    assert_eq!(two.a.connect(&two.b.addr(), ALPN).await.err(), Some(ConnectError::TimedOut));
    assert!(begun.elapsed() >= CONNECT_TIMEOUT);
    let heal = async {
        tokio::time::sleep(CONNECT_TIMEOUT / 2).await;
        two.net.heal();
    };
    let to = two.b.addr();
    let (dialled, ()) = tokio::join!(two.a.connect(&to, ALPN), heal);
    dialled.expect("connects");
}

#[tokio::test(start_paused = true)]
async fn a_paused_node_is_lost_to_its_peers_and_learns_it_when_it_resumes() {
    let two = two().await;
    let paused = Instant::now();
    two.net.pause(1);
    assert!(is_idle_timeout(lost_after(&two.ab, paused).await));
    tokio::time::sleep(IDLE_TIMEOUT).await;
    assert_eq!(two.ba.close_reason(), None);
    two.net.resume(1);
    assert_eq!(two.ba.close_reason(), Some(ConnectionLost::TimedOut));
    let to = two.b.addr();
    let (dialled, accepted) = tokio::join!(two.a.connect(&to, ALPN), two.b.accept());
    assert!(dialled.is_ok() && accepted.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_crash_is_silent_and_a_restarted_node_takes_new_connections() {
    let two = two().await;
    let crashed = Instant::now();
    two.net.crash(1);
    assert!(two.b.accept().await.is_none());
    assert_eq!(two.b.connect(&two.a.addr(), ALPN).await.err(), Some(ConnectError::Closed));
    let again = start(&two.net, "b");
    assert_eq!((again.id(), again.addr()), (two.b.id(), two.b.addr()));
    let to = again.addr();
    let (dialled, accepted) = tokio::join!(two.a.connect(&to, ALPN), again.accept());
    assert!(dialled.is_ok() && accepted.is_some_and(|connection| connection.close_reason().is_none()));
    // The earlier life's connection is not revived.
    assert!(is_idle_timeout(lost_after(&two.ab, crashed).await));
    drop(two.b);
    assert!(two.net.is_running(1), "a handle of the earlier life must not stop the present one");
}

#[tokio::test(start_paused = true)]
async fn time_and_clocks() {
    let two = two().await;
    assert_eq!(two.ab.rtt(), Some(Duration::from_millis(2)));
    assert_eq!(two.a.wall_clock(), two.b.wall_clock());
    two.net.set_skew(1, -5_000_000);
    assert_eq!(two.a.wall_clock() - two.b.wall_clock(), 5_000_000);
    let before = two.a.wall_clock();
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!((60_000_000..60_010_000).contains(&(two.a.wall_clock() - before)));
}

#[tokio::test(start_paused = true)]
async fn bandwidth_and_loss_show_as_delay() {
    for (quality, at_least, at_most) in [
        (LinkQuality::lan(), 1, 20),
        (LinkQuality::lan().with_bandwidth(1 << 20), 900, 1200),
        (LinkQuality::lan().with_loss(0.2), 25, 10_000),
    ] {
        let two = two().await;
        two.net.set_link(0, 1, quality);
        let (mut send, _recv) = two.ab.open_bi().await.expect("opens");
        let begun = Instant::now();
        write(&mut send, &vec![1; 1_000_000]).await.expect("writes");
        send.finish();
        let (_back, mut recv) = two.ba.accept_bi().await.expect("accepts");
        while recv.read_chunk(usize::MAX).await.expect("reads").is_some() {}
        let took = begun.elapsed().as_millis();
        assert!((at_least..=at_most).contains(&took), "{took} ms over {quality:?}");
        let traffic = (two.net.traffic(0), two.net.traffic(1));
        assert_eq!((traffic.0.sent, traffic.1.received), (1_000_000, 1_000_000));
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_behind() {
    let two = two().await;
    for _ in 0..10 {
        let (mut send, mut recv) = two.ab.open_bi().await.expect("opens");
        write(&mut send, b"x").await.expect("writes");
        send.finish();
        let (mut back, mut request) = two.ba.accept_bi().await.expect("accepts");
        assert!(request.read_chunk(10).await.expect("reads").is_some());
        assert!(request.read_chunk(10).await.expect("reads").is_none());
        back.finish();
        assert!(recv.read_chunk(10).await.expect("reads").is_none());
    }
    two.net.with(|world| assert!(world.conns.values().all(|connection| connection.streams.is_empty())));
    two.ab.close(1);
    two.ba.closed().await;
    drop((two.ab, two.ba));
    two.net.with(|world| assert!(world.conns.is_empty()));
    // A dial that is given up leaves nothing, either.
    let dialling = timeout(Duration::ZERO, two.a.connect(&two.b.addr(), ALPN)).await;
    assert!(dialling.is_err());
    tokio::time::sleep(IDLE_TIMEOUT * 2).await;
    two.net.with(|world| assert!(world.conns.is_empty()));
    drop((two.a, two.b));
    two.net.with(|world| assert!(world.nodes.iter().all(|node| node.state == NodeState::Closed)));
}

/// A busy and faulty scenario: every node dials the next ones and echoes, with a cut and a crash on the way.
async fn busy(net: &Arc<Net>, nodes: usize, links: usize, rounds: usize) {
    let transports: Vec<_> = (0..nodes).map(|i| start(net, &format!("n{i}"))).collect();
    for (i, transport) in transports.iter().enumerate() {
        let accepting = transport.clone();
        transport.tasks().spawn("accept", async move {
            while let Some(connection) = accepting.accept().await {
                accepting.tasks().spawn("echo", async move {
                    while let Ok((mut send, mut recv)) = connection.accept_bi().await {
                        while let Ok(Some(chunk)) = recv.read_chunk(usize::MAX).await {
                            if write(&mut send, &chunk).await.is_err() {
                                break;
                            }
                        }
                        send.finish();
                    }
                });
            }
        });
        for link in 1..=links {
            let to = transports[(i + link * link) % nodes].addr();
            let from = transport.clone();
            transport.tasks().spawn("dial", async move {
                let Ok(connection) = from.connect(&to, ALPN).await else { return };
                for _ in 0..rounds {
                    let Ok((mut send, mut recv)) = connection.open_bi().await else { return };
                    let message = from.random_seed();
                    if write(&mut send, &message).await.is_err() {
                        return;
                    }
                    send.finish();
                    while let Ok(Some(_)) = recv.read_chunk(usize::MAX).await {}
                    tokio::time::sleep(Duration::from_millis(u64::from(message[0]) * 8)).await;
                }
            });
        }
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    net.set_cuts((0..nodes / 2).map(|i| (i, nodes - 1 - i)), true);
    net.crash(nodes / 3);
    tokio::time::sleep(Duration::from_secs(5)).await;
    net.heal();
    tokio::time::sleep(Duration::from_secs(50)).await;
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let run = |seed| {
        crate::testing::Sim::run(seed, |sim| async move {
            busy(sim.net(), 20, 4, 20).await;
            sim.trace()
        })
    };
    let (first, second, other) = (run(1), run(1), run(2));
    assert!(first.events > 5_000, "{first:?}");
    assert_eq!(first, second);
    assert_ne!(first.digest, other.digest);
}

/// One minute of 1,000 nodes with 4,000 connections. `cargo test -p mosaik --lib a_thousand -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn a_thousand_nodes() {
    #[expect(clippy::disallowed_methods, reason = "it measures the simulator in real time")]
    let begun = std::time::Instant::now();
    let (trace, elapsed) = crate::testing::Sim::run(1, |sim| async move {
        busy(sim.net(), 1000, 4, 60).await;
        (sim.trace(), sim.elapsed())
    });
    println!("{elapsed:?} of virtual time in {:?}: {trace:?}", begun.elapsed());
    assert!(micros(elapsed) >= 60_000_000);
}
