//! The simulator under the whole stack: reproducible runs, and nothing left of a node that ended.

use std::time::Duration;

use mosaik::{
    Network, NetworkId,
    testing::{LinkQuality, Sim, SimNode, Trace, eventually},
};

const NET: NetworkId = NetworkId::from_name("simulation tests");

/// Starts nodes that know the first one.
async fn start(sim: &Sim, count: usize) -> Vec<(SimNode, Network)> {
    sim.rendezvous(false);
    let bootstrap = sim.node("n0").addr();
    let mut nodes = Vec::new();
    for i in 0..count {
        let node = sim.node(&format!("n{i}"));
        let mut builder = node.builder(NET);
        if i > 0 {
            builder = builder.with_bootstrap(bootstrap.clone());
        }
        nodes.push((node, builder.build().await.expect("starts")));
    }
    nodes
}

/// Discovery with every kind of fault, for 90 seconds.
fn faulty(seed: u64) -> Trace {
    Sim::run(seed, |sim| async move {
        sim.default_link(LinkQuality::wan().with_loss(0.01));
        let nodes = start(&sim, 12).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        nodes[3].0.crash();
        nodes[4].0.pause();
        nodes[5].1.shutdown().await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let machines: Vec<_> = nodes.iter().map(|(node, _)| node.clone()).collect();
        sim.partition(&machines[..6], &machines[6..]);
        sim.cut(&machines[0], &machines[1]);
        nodes[4].0.resume();
        tokio::time::sleep(Duration::from_secs(30)).await;
        sim.heal();
        let _again = machines[3].restart(NET).with_bootstrap(machines[0].addr()).build().await.expect("starts");
        tokio::time::sleep(Duration::from_secs(40)).await;
        sim.trace()
    })
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let first = faulty(11);
    assert!(first.events > 10_000, "{first:?}");
    assert_eq!(first, faulty(11));
    assert_ne!(first.digest, faulty(12).digest);
}

#[test]
fn no_task_is_left_after_shutdown_and_after_drop() {
    Sim::run(1, |sim| async move {
        let mut nodes = start(&sim, 6).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let (_, dropped) = nodes.pop().expect("six");
        let (machine, shut) = nodes.pop().expect("five");
        let (dropped_probe, shut_probe) = (dropped.task_probe(), shut.task_probe());
        assert!(dropped_probe.count() > 0 && shut_probe.count() > 0);
        shut.shutdown().await;
        assert_eq!(shut_probe.names(), Vec::<&str>::new());
        drop(dropped);
        assert!(eventually(Duration::from_secs(1), || dropped_probe.count() == 0).await, "{:?}", dropped_probe.names());
        assert!(!machine.is_running());
        // A crash leaves none, either.
        let (machine, network) = nodes.pop().expect("four");
        let probe = network.task_probe();
        machine.crash();
        assert!(eventually(Duration::from_secs(1), || probe.count() == 0).await, "{:?}", probe.names());
        network.shutdown().await;
    });
}
