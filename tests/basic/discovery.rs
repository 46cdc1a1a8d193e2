//! Discovery on the whole stack: in simulation (virtual time, faults) and on loopback QUIC.

use std::time::Duration;

use futures::{FutureExt, StreamExt, future::try_join_all};
use mosaik::{
    Network, NetworkId, PeerId, SecretKey,
    discovery::{self, DepartReason, Event, Events, Stats},
    network::NetworkBuilder,
    testing::{Sim, SimNode, Trace, eventually, trace},
};
use tokio::time::{Instant, sleep};

pub(super) const NET: NetworkId = NetworkId::from_name("discovery tests");

pub(super) fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Starts `n` nodes on a simulated network without rendezvous; they know the first `bootstraps` of them.
async fn start(sim: &Sim, n: usize, bootstraps: usize) -> (Vec<SimNode>, Vec<Network>) {
    sim.rendezvous(false);
    let nodes: Vec<SimNode> = (0..n).map(|i| sim.node(&format!("n{i}"))).collect();
    let mut networks = Vec::new();
    for node in &nodes {
        let mut builder = node.builder(NET);
        for first in nodes[..bootstraps].iter().filter(|first| first.id() != node.id()) {
            builder = builder.with_bootstrap(first.addr());
        }
        networks.push(builder.build().await.expect("starts"));
    }
    (nodes, networks)
}

/// Whether all catalogs hold the same `n` entries.
pub(super) fn converged(networks: &[Network], n: usize) -> bool {
    let first = networks[0].discovery().catalog();
    first.len() == n && networks.iter().all(|network| network.discovery().catalog().root() == first.root())
}

pub(super) fn knows(network: &Network, id: PeerId) -> bool {
    network.discovery().catalog().contains(id)
}

/// What has been told about a peer so far.
fn told(events: &mut Events, id: PeerId) -> Vec<Event> {
    std::iter::from_fn(|| events.next().now_or_never().flatten()).filter(|event| event.peer() == Some(id)).collect()
}

#[test]
fn fifty_nodes_with_one_bootstrap_converge_to_identical_catalogs() {
    Sim::run(1, |sim| async move {
        let (_nodes, networks) = start(&sim, 50, 1).await;
        assert!(eventually(secs(10), || converged(&networks, 50)).await);
        let first = networks[0].discovery().catalog();
        assert!(networks.iter().all(|network| network.discovery().catalog() == first));
        eprintln!("50 nodes converged after {:?}", sim.elapsed());
    });
}

/// Nodes of one process all meet the ones that came last, so their overlay may be in two at first (at seed 772: of 14 and 6
/// nodes), and hints do not cross. The first rounds of anti-entropy come soon, and tie the parts together.
#[test]
fn twenty_nodes_of_a_process_that_start_at_once_know_each_other_within_two_seconds() {
    let mut times: Vec<Duration> = (1..=50).chain([772]).map(|seed| Sim::run(seed, twenty_at_once)).collect();
    times.sort();
    eprintln!("20 nodes at once: median {:?}, longest {:?}", times[times.len() / 2], times[times.len() - 1]);
}

async fn twenty_at_once(sim: Sim) -> Duration {
    let nodes: Vec<SimNode> = (0..20).map(|i| sim.node(&format!("n{i}"))).collect();
    let first = nodes[0].builder(NET).build().await.expect("starts");
    let rest = nodes[1..].iter().map(|node| node.builder(NET).with_bootstrap(nodes[0].addr()).build());
    let networks: Vec<Network> = try_join_all(rest).await.expect("start").into_iter().chain([first]).collect();
    let _producer = networks[19].streams().producer::<u32>().with_stream_id("x").build().expect("builds");
    let consume = |network: &Network| network.streams().consumer::<u32>().with_stream_id("x").build();
    let _consumers: Vec<_> = networks[..19].iter().map(consume).collect();
    assert!(eventually(secs(2), || converged(&networks, 20)).await, "seed {}", sim.seed());
    sim.elapsed()
}

#[test]
fn a_partition_of_a_minute_heals_to_identical_catalogs_unaided() {
    Sim::run(2, |sim| async move {
        let (nodes, networks) = start(&sim, 50, 1).await;
        assert!(eventually(secs(10), || converged(&networks, 50)).await);
        sim.partition(&nodes[..25], &nodes[25..]);
        let split = Instant::now();
        let halves = || converged(&networks[..25], 25) && converged(&networks[25..], 25);
        assert!(eventually(secs(30), halves).await, "each half forgets the other");
        eprintln!("25/25: halves apart after {:?}", split.elapsed());
        sleep(secs(60) - split.elapsed()).await;
        assert!(halves(), "and stays that way");
        sim.heal();
        let healed = Instant::now();
        assert!(eventually(secs(60), || converged(&networks, 50)).await);
        eprintln!("25/25: together again after {:?}", healed.elapsed());
        sleep(secs(30)).await;
        assert!(converged(&networks, 50), "and stays that way");
    });
}

#[test]
fn a_crashed_peer_departs_within_six_seconds_and_is_back_within_three() {
    Sim::run(3, |sim| async move {
        sim.rendezvous(false);
        let (display, sensor) = (sim.node("display"), sim.node("sensor"));
        let shown = display.builder(NET).build().await.expect("starts");
        let mut events = shown.discovery().events();
        let start = |node: &SimNode| node.builder(NET).with_bootstrap(display.addr()).build();
        let sensed = start(&sensor).await.expect("starts");
        assert!(eventually(secs(1), || knows(&shown, sensor.id())).await);
        assert!(matches!(told(&mut events, sensor.id())[..], [Event::PeerDiscovered(_)]));

        sleep(secs(20)).await;
        sensor.crash();
        drop(sensed);
        let died = Instant::now();
        assert!(eventually(secs(7), || !knows(&shown, sensor.id())).await);
        eprintln!("a crashed peer departed after {:?}", died.elapsed());
        assert!(
            matches!(&told(&mut events, sensor.id())[..], [Event::PeerDeparted(d)] if d.reason() == DepartReason::Unreachable)
        );

        sleep(secs(20)).await;
        let _sensed = start(&sensor).await.expect("starts");
        assert!(eventually(secs(3), || knows(&shown, sensor.id())).await);
        assert!(matches!(told(&mut events, sensor.id())[..], [Event::PeerDiscovered(_)]));
    });
}

#[test]
fn a_bootstrap_peer_that_restarts_knowing_nobody_is_found_again() {
    for (seed, down) in [(4, 1), (5, 10), (6, 120)] {
        Sim::run(seed, |sim| async move {
            let (nodes, mut networks) = start(&sim, 3, 1).await;
            assert!(eventually(secs(2), || converged(&networks, 3)).await);
            sleep(secs(10)).await;
            nodes[0].crash();
            sleep(secs(down)).await;
            networks[0] = nodes[0].restart(NET).build().await.expect("starts");
            let back = Instant::now();
            assert!(eventually(secs(if down < 60 { 3 } else { 9 }), || converged(&networks, 3)).await);
            eprintln!("a bootstrap peer that was down for {down} s was found after {:?}", back.elapsed());
        });
    }
}

#[test]
fn a_graceful_departure_is_known_at_once_and_a_clock_that_went_back_does_not_hide_a_return() {
    Sim::run(7, |sim| async move {
        let (nodes, networks) = start(&sim, 10, 1).await;
        assert!(eventually(secs(5), || converged(&networks, 10)).await);
        let mut events = networks[1].discovery().events();
        networks[9].shutdown().await;
        assert_eq!(networks[9].task_probe().count(), 0);
        assert!(eventually(secs(1), || converged(&networks[..9], 9)).await);
        assert!(
            matches!(&told(&mut events, nodes[9].id())[..], [Event::PeerDeparted(d)] if d.reason() == DepartReason::Left)
        );
        sleep(secs(30)).await;
        assert!(converged(&networks[..9], 9), "nobody brings it back");

        nodes[9].skew(-3600.0);
        let _again = nodes[9].restart(NET).with_bootstrap(nodes[0].addr()).build().await.expect("starts");
        assert!(eventually(secs(5), || networks[..9].iter().all(|network| knows(network, nodes[9].id()))).await);
    });
}

#[test]
fn tags_change_at_run_time_and_arrive_everywhere_soon() {
    Sim::run(8, |sim| async move {
        let (nodes, networks) = start(&sim, 20, 1).await;
        assert!(eventually(secs(5), || converged(&networks, 20)).await);
        let discovery = networks[7].discovery();
        discovery.add_tags(["leader"]);
        assert!(discovery.catalog().local().tags().contains("leader"), "on return");
        let everywhere = |has: bool| {
            networks.iter().all(|network| {
                let catalog = network.discovery().catalog();
                catalog.get(nodes[7].id()).is_some_and(|entry| entry.tags().contains("leader") == has)
            })
        };
        let changed = Instant::now();
        assert!(eventually(secs(2), || everywhere(true)).await);
        eprintln!("20 nodes knew a new tag after {:?}", changed.elapsed());
        discovery.remove_tags(["leader"]);
        assert!(eventually(secs(2), || everywhere(false)).await);
    });
}

/// Joins, a crash, a partition and a return, for the trace.
fn scenario(seed: u64) -> Trace {
    Sim::run(seed, |sim| async move {
        let (nodes, networks) = start(&sim, 12, 2).await;
        sleep(secs(5)).await;
        nodes[11].crash();
        sim.partition(&nodes[..4], &nodes[4..]);
        sleep(secs(20)).await;
        sim.heal();
        let _again = nodes[11].restart(NET).with_bootstrap(nodes[0].addr()).build().await.expect("starts");
        networks[3].discovery().add_tags(["x"]);
        sleep(secs(20)).await;
        networks[5].shutdown().await;
        sleep(secs(5)).await;
        sim.trace()
    })
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let first = scenario(9);
    assert_eq!(first, scenario(9));
    assert_ne!(first, scenario(10), "and another one a different run");
}

/// A node on loopback QUIC, in a network of its own per test.
fn loopback(name: &str) -> NetworkBuilder {
    trace();
    Network::builder(NetworkId::from(name)).with_listen(([127, 0, 0, 1], 0).into())
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_one_process_find_each_other_without_any_bootstrap() {
    let mut networks = Vec::new();
    let begun = Instant::now();
    for n in 1..=10 {
        networks.push(loopback("same process").build().await.expect("starts"));
        if n == 2 {
            let begun = Instant::now();
            assert!(eventually(secs(10), || converged(&networks, 2)).await);
            eprintln!("two nodes knew each other {:?} after the second was built", begun.elapsed());
        }
    }
    assert!(eventually(secs(60), || converged(&networks, 10)).await);
    eprintln!("10 nodes were built and knew each other after {:?}", begun.elapsed());
    for network in &networks {
        network.shutdown().await;
        assert_eq!(network.task_probe().names(), Vec::<&str>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bootstrap_peer_may_be_named_by_host_and_unknown_ones_do_not_hinder() {
    let apart = || discovery::Config::builder().with_rendezvous(false);
    let first = loopback("named by host").with_discovery(apart()).build().await.expect("starts");
    let addr = first.local().addr();
    let port = addr.ip_addrs().next().expect("listens").port();
    let second = loopback("named by host")
        .with_discovery(apart())
        .with_bootstrap(format!("{}@no-such-host.invalid:1", PeerId::from(SecretKey::from_bytes(&[9; 32]).public())))
        .with_bootstrap(format!("{}@localhost:{port}", first.local().id()))
        .build()
        .await
        .expect("starts");
    assert!(eventually(secs(10), || knows(&first, second.local().id()) && knows(&second, first.local().id())).await);

    let third = loopback("named by host").with_discovery(apart()).build().await.expect("starts");
    third.discovery().sync_with(addr.clone()).await.expect("reaches it");
    assert!(knows(&third, second.local().id()) && knows(&first, third.local().id()), "on return");
    second.shutdown().await;
    first.shutdown().await;
    assert!(third.discovery().sync_with(addr).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_remembered_in_the_data_directory_are_dialled_at_start() {
    let (home, away) = (tempfile::tempdir().expect("creates"), discovery::Config::builder().with_rendezvous(false));
    let start = || loopback("remembered").with_discovery(away.clone());
    let other = start().build().await.expect("starts");
    let first = start().with_data_dir(home.path()).with_bootstrap(other.local().addr()).build().await.expect("starts");
    let id = first.local().id();
    assert!(eventually(secs(10), || knows(&first, other.local().id()) && knows(&other, id)).await);
    assert!(eventually(secs(10), || home.path().join("known-peers").exists()).await);
    drop(first);

    let again = start().with_data_dir(home.path()).build().await.expect("starts");
    assert_eq!(again.local().id(), id);
    assert!(eventually(secs(10), || knows(&again, other.local().id())).await, "without a bootstrap");

    std::fs::write(home.path().join("known-peers"), b"garbage").expect("writes");
    drop(again);
    start().with_data_dir(home.path()).build().await.expect("starts all the same").shutdown().await;
}

/// `n` nodes join through three bootstrap peers and converge; then a minute of steady state is measured.
fn at_scale(n: usize, seed: u64) {
    Sim::run(seed, |sim| async move {
        let real = std::time::Instant::now();
        let (_nodes, networks) = start(&sim, n, 3).await;
        assert!(eventually(secs(60), || converged(&networks, n)).await);
        eprintln!("{n} nodes: converged after {:?} ({:?} real)", sim.elapsed(), real.elapsed());
        sleep(secs(60)).await;
        assert!(converged(&networks, n), "and stay so");

        let before: Vec<Stats> = networks.iter().map(|network| network.discovery().stats()).collect();
        sleep(secs(60)).await;
        let after: Vec<Stats> = networks.iter().map(|network| network.discovery().stats()).collect();
        assert!(converged(&networks, n));
        let mean = |of: fn(&Stats) -> u64| {
            before.iter().zip(&after).map(|(before, after)| of(after) - of(before)).sum::<u64>() / n as u64
        };
        let gossip = mean(|stats| stats.gossip.bytes_sent);
        let (sync, rounds) = (mean(|stats| stats.sync.bytes_sent), 12 * 2);
        let entry = mean(|stats| stats.entry.bytes_sent);
        eprintln!(
            "{n} nodes, steady state, bytes sent per node and minute: hints {gossip} = {} per peer, sync {sync} = {} per \
             message, entries {entry}; messages: hints {}, sync {}; {:?} real in all",
            gossip / n as u64,
            sync / rounds,
            mean(|stats| stats.gossip.messages_sent),
            mean(|stats| stats.sync.messages_sent),
            real.elapsed()
        );
        assert!(gossip / (n as u64) < 6000, "hints stay linear in peers");
        assert!(sync < 12 * 2 * 400, "a round on an unchanged catalog stays constant");
    });
}

#[test]
fn two_hundred_nodes_join_through_three_bootstraps_and_stay_cheap() {
    at_scale(200, 11);
}

#[test]
#[ignore = "takes minutes"]
fn a_thousand_nodes_join_through_three_bootstraps_and_stay_cheap() {
    at_scale(1000, 12);
}
