//! Discovery on the whole stack: in simulation (virtual time, faults) and on loopback QUIC.

use std::time::Duration;

use mosaik::{
    Network, NetworkId,
    testing::{Sim, SimNode, eventually},
};

const NET: NetworkId = NetworkId::from_name("discovery tests");

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Starts `n` nodes, all but the first `bootstraps` of which know only those.
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
fn converged(networks: &[Network], n: usize) -> bool {
    let first = networks[0].discovery().catalog();
    first.len() == n && networks.iter().all(|network| network.discovery().catalog().root() == first.root())
}

#[test]
fn fifty_nodes_with_one_bootstrap_converge() {
    Sim::run(1, |sim| async move {
        let (_nodes, networks) = start(&sim, 50, 1).await;
        assert!(eventually(secs(10), || converged(&networks, 50)).await);
        eprintln!("converged after {:?}", sim.elapsed());
    });
}
