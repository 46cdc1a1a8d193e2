//! Peers that nobody has heard of for long: parted networks, restarts without any bootstrap peer, and long uptimes.

use std::path::Path;

use mosaik::{
    Network, discovery,
    testing::{Sim, SimNode, eventually},
};
use tokio::time::sleep;

use super::discovery::{NET, converged, knows, secs};

/// A node that remembers peers in a directory of its own below `home`, if there is one.
async fn start(node: &SimNode, home: Option<&Path>, bootstrap: Option<&SimNode>) -> Network {
    let mut builder = node.restart(NET);
    if let Some(home) = home {
        builder = builder.with_data_dir(home.join(node.name()));
    }
    if let Some(bootstrap) = bootstrap {
        builder = builder.with_bootstrap(bootstrap.addr());
    }
    builder.build().await.expect("starts")
}

/// Two sides of two nodes each that met through a go-between, which is gone for good. The sides are parted.
async fn parted(sim: &Sim, home: Option<&Path>) -> (Vec<SimNode>, Vec<Network>) {
    sim.rendezvous(false);
    let between = sim.node("between");
    let nodes: Vec<SimNode> = ["west", "west too", "east", "east too"].map(|name| sim.node(name)).into();
    let mut networks = vec![start(&between, None, None).await];
    for node in &nodes {
        networks.push(start(node, home, Some(&between)).await);
    }
    assert!(eventually(secs(10), || converged(&networks, 5)).await);
    // Time to write down whom they know.
    sleep(secs(10)).await;
    between.crash();
    networks.remove(0);
    sim.partition(&nodes[..2], &nodes[2..]);
    let apart = || converged(&networks[..2], 2) && converged(&networks[2..], 2);
    assert!(eventually(secs(60), apart).await, "each side forgets the other");
    (nodes, networks)
}

#[test]
fn two_sides_parted_for_an_hour_and_more_meet_although_their_go_between_is_gone() {
    for (seed, minutes) in [(21, 62), (22, 300)] {
        Sim::run(seed, |sim| async move {
            let (_nodes, networks) = parted(&sim, None).await;
            sleep(secs(minutes * 60)).await;
            sim.heal();
            assert!(eventually(secs(60), || converged(&networks, 4)).await, "strangers after {minutes} minutes");
        });
    }
}

#[test]
fn a_node_that_restarts_while_parted_still_knows_the_other_side() {
    let home = tempfile::tempdir().expect("creates");
    Sim::run(23, |sim| async move {
        let (nodes, mut networks) = parted(&sim, Some(home.path())).await;
        for _ in 0..3 {
            sleep(secs(40 * 60)).await;
            for (node, network) in nodes.iter().zip(&mut networks) {
                *network = start(node, Some(home.path()), None).await;
            }
        }
        assert!(eventually(secs(60), || converged(&networks[..2], 2)).await);
        sleep(secs(60)).await;
        sim.heal();
        assert!(eventually(secs(60), || converged(&networks, 4)).await, "the other side was forgotten");
    });
}

/// All are stopped one after the other, so that the last ones know few at the end, and are started again one after the other: in the
/// same order, so that nobody is there whom a node that starts has written down at its end, or in another one.
#[test]
fn twenty_nodes_restart_without_a_bootstrap_peer() {
    for seed in 24..28 {
        let home = tempfile::tempdir().expect("creates");
        Sim::run(seed, |sim| async move {
            sim.rendezvous(false);
            let nodes: Vec<SimNode> = (0..20).map(|i| sim.node(&format!("n{i}"))).collect();
            let mut networks = Vec::new();
            for node in &nodes {
                networks.push(start(node, Some(home.path()), Some(&nodes[0])).await);
            }
            assert!(eventually(secs(20), || converged(&networks, 20)).await);
            sleep(secs(20)).await;
            for network in networks.drain(..) {
                network.shutdown().await;
                sleep(secs(7)).await;
            }
            let step = [1, 7, 11, 13][usize::try_from(seed % 4).unwrap()];
            for at in (0..20).map(|i| (i * step) % 20) {
                networks.push(start(&nodes[at], Some(home.path()), None).await);
                sleep(secs(20)).await;
            }
            let met = eventually(secs(60), || converged(&networks, 20)).await;
            let known: Vec<usize> = networks.iter().map(|network| network.discovery().catalog().len()).collect();
            assert!(met, "seed {seed}: they know {known:?} of 20");
        });
    }
}

/// The moved one is not found where it was; whoever is found there is another node.
#[test]
fn a_remembered_peer_is_tried_for_as_long_as_it_takes() {
    let home = tempfile::tempdir().expect("creates");
    Sim::run(29, |sim| async move {
        sim.rendezvous(false);
        let (one, two) = (sim.node("one"), sim.node("two"));
        let first = start(&one, Some(home.path()), None).await;
        let second = start(&two, Some(home.path()), Some(&one)).await;
        assert!(eventually(secs(10), || knows(&first, two.id()) && knows(&second, one.id())).await);
        sleep(secs(20)).await;
        second.shutdown().await;
        first.shutdown().await;
        // The first comes back alone and waits for two hours. The second has forgotten everything.
        let first = start(&one, Some(home.path()), None).await;
        sleep(secs(2 * 3600)).await;
        let second = start(&two, None, None).await;
        assert!(eventually(secs(60), || knows(&first, two.id()) && knows(&second, one.id())).await);
    });
}

/// Slow intervals, so that the days pass quickly.
#[test]
fn a_node_lives_for_days() {
    Sim::run(30, |sim| async move {
        sim.rendezvous(false);
        let config = || {
            let minutes = |n: u64| secs(n * 60);
            discovery::Config::builder()
                .with_lease(minutes(10))
                .with_renew_every(minutes(3))
                .with_sync_every(minutes(3))
        };
        let (one, two) = (sim.node("one"), sim.node("two"));
        let first = one.builder(NET).with_discovery(config()).build().await.expect("starts");
        let second =
            two.builder(NET).with_discovery(config()).with_bootstrap(one.addr()).build().await.expect("starts");
        assert!(eventually(secs(10), || converged(&[first.clone(), second.clone()], 2)).await);
        sleep(secs(50 * 3600)).await;
        assert!(knows(&first, two.id()) && knows(&second, one.id()));
    });
}
