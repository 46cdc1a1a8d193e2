//! A declared app under test: `Cluster` in simulations and on loopback, and `#[mosaik::test]`.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use mosaik::{
    prelude::*,
    testing::{Cluster, FaultKind, Plan, Sim, eventually, run},
};

const SOON: Duration = Duration::from_secs(30);

#[mosaik::stream(name = "cluster.readings")]
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    pub sensor: u32,
    pub number: u64,
}

#[mosaik::node(tags = ["sensor"])]
pub struct Sensor {
    #[mosaik(arg, default = 0)]
    id: u32,
    #[mosaik(default)]
    number: u64,
    readings: Producer<Reading>,
}

#[mosaik::handlers]
impl Sensor {
    #[every("100ms", emit = readings)]
    fn sample(&mut self) -> Reading {
        self.number += 1;
        Reading { sensor: self.id, number: self.number }
    }
}

#[derive(Default, Clone, Serialize, Deserialize)]
#[mosaik::group(name = "cluster.totals", key = env("CLUSTER_TEST_KEY"), size = 3)]
pub struct Totals(u64);

#[mosaik::state_machine]
impl Totals {
    #[command]
    fn add(&mut self, by: u64) -> u64 {
        self.0 += by;
        self.0
    }

    #[query]
    fn total(&self) -> u64 {
        self.0
    }
}

#[mosaik::node]
pub struct Counter {
    #[mosaik(subscribe_if = |peer| peer.tags().contains("sensor"))]
    readings: Consumer<Reading>,
    totals: Replica<Totals>,
    #[mosaik(default)]
    counted: u64,
}

#[mosaik::handlers]
impl Counter {
    #[on(readings)]
    fn count(&mut self, _: Reading) {
        self.counted += 1;
    }

    #[ready]
    fn knows_a_leader(&self) -> bool {
        self.totals.group().leader().is_some()
    }
}

#[mosaik::app(name = "cluster-test", roles = [Sensor, Counter])]
pub struct Counting;

/// One text for a simulation and for real sockets.
async fn partition_and_kill(cluster: Cluster<Counting>) {
    cluster.converged().await.expect("as declared");
    let totals = cluster.client::<Totals>().await.expect("joins");
    assert_eq!(totals.add(5).await.expect("applied"), 5);
    let mut readings = cluster.tap::<Reading>();
    let seen = readings.recv().await.expect("goes on");
    assert!(seen.sensor < 2, "{seen:?}");

    cluster.isolate::<Counter>(0);
    let lost = || cluster.converged_within(Duration::ZERO);
    let mut missing = String::new();
    while missing.is_empty() {
        missing = lost().await.err().map_or_else(String::new, |error| error.to_string());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(missing.contains("counter-0"), "{missing}");
    cluster.heal();
    cluster.converged().await.expect("healed");

    cluster.kill::<Sensor>(1);
    let down = cluster.converged_within(Duration::ZERO).await.expect_err("a sensor is down").to_string();
    assert!(down.contains("the role of sensor-1: it is down"), "{down}");
    cluster.restart::<Sensor>(1).await.expect("starts again");
    cluster.converged().await.expect("as declared again");

    cluster.pause::<Counter>(1);
    cluster.resume::<Counter>(1);
    cluster.converged().await.expect("it goes on");
    assert_eq!(totals.total().strong().await.expect("answered"), 5);
    cluster.stop().await.expect("stops");
}

fn with_ids(builder: mosaik::testing::ClusterBuilder<Counting>) -> mosaik::testing::ClusterBuilder<Counting> {
    builder.with::<Sensor>(2).with_args::<Sensor>(|index| vec!["--id".into(), index.to_string()])
}

#[test]
fn an_app_is_partitioned_killed_and_healed_in_virtual_time() {
    Sim::run(5, |sim| async move {
        partition_and_kill(with_ids(Cluster::in_sim(&sim)).start().await.expect("starts")).await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_is_partitioned_killed_and_healed_on_loopback() {
    let cluster = with_ids(Cluster::loopback()).start().await.expect("starts");
    tokio::time::timeout(Duration::from_mins(5), partition_and_kill(cluster)).await.expect("in time");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let trace = |seed| {
        Sim::run(seed, |sim| async move {
            let cluster = with_ids(Cluster::in_sim(&sim)).start().await.expect("starts");
            cluster.converged().await.expect("as declared");
            cluster.kill::<Counter>(2);
            tokio::time::sleep(Duration::from_secs(5)).await;
            sim.trace()
        })
    };
    assert_eq!(trace(1), trace(1));
    assert_ne!(trace(1), trace(2));
}

#[test]
fn what_is_not_as_declared_is_explained() {
    Sim::run(6, |sim| async move {
        let cluster = Cluster::<Counting>::in_sim(&sim).with::<Counter>(1).start().await.expect("starts");
        let error = cluster.converged_within(Duration::from_secs(20)).await.expect_err("two founders are missing");
        assert!(error.missing.iter().all(|edge| edge.from.to_string() == "counter-0"), "{error}");
        assert!(
            error.to_string().contains("group \"cluster.totals\"") && error.to_string().contains("founders"),
            "{error}"
        );
    });
    Sim::run(6, |sim| async move {
        let wrong = Cluster::<Counting>::in_sim(&sim).with_args::<Sensor>(|_| vec!["--no-such-flag".into()]);
        let error = wrong.start().await.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("sensor-0") && error.contains("no-such-flag"), "{error}");
    });
}

#[test]
fn data_directories_outlive_their_nodes_and_not_the_cluster() {
    let dir = Sim::run(7, |sim| async move {
        let cluster = Cluster::<Counting>::in_sim(&sim).durable().with::<Sensor>(0).start().await.expect("starts");
        cluster.converged().await.expect("as declared");
        let totals = cluster.client::<Totals>().await.expect("joins");
        assert_eq!(totals.add(9).await.expect("applied"), 9);
        (0..3).for_each(|index| cluster.kill::<Counter>(index));
        for index in 0..3 {
            cluster.restart::<Counter>(index).await.expect("starts again");
        }
        assert_eq!(totals.total().strong().await.expect("answered"), 9, "all members had ended");
        cluster.data_dir().expect("there is one").to_owned()
    });
    assert!(!dir.exists(), "{}", dir.display());
}

/// Faults of all kinds, drawn from each seed; a write that was acknowledged stays.
#[mosaik::test(seeds = 6, faults = [kill, partition, pause], with = [Sensor = 2], durable)]
async fn acknowledged_writes_survive(cluster: Cluster<Counting>) {
    let totals = cluster.client::<Totals>().await.expect("joins");
    let (mut acknowledged, tried) = (0, 10);
    for _ in 0..tried {
        // Without a majority for long enough there is no answer, and nothing is promised.
        acknowledged += u64::from(totals.add(1).await.is_ok());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    cluster.calm().await;
    cluster.converged().await.expect("as declared after the faults");
    let total = totals.total().strong().await.expect("answered");
    assert!(acknowledged > 0 && (acknowledged..=tried).contains(&total), "{total}, {acknowledged} acknowledged");
}

#[mosaik::test]
async fn a_test_may_return_a_result(cluster: Cluster<Counting>) -> Result<(), mosaik::testing::NotConverged> {
    cluster.converged().await
}

#[mosaik::test]
#[should_panic(expected = "the reason")]
async fn an_error_fails_the_test(_cluster: Cluster<Counting>) -> Result<(), String> {
    Err("the reason".into())
}

/// A test that fails whenever a counter is killed: every seed whose faults have such a kill fails, no other does.
#[test]
fn drawn_faults_happen() {
    let plan = Plan {
        name: "cluster::planted",
        seeds: 20,
        faults: &[FaultKind::Kill],
        roles: &[("counter", 0), ("sensor", 1)],
        durable: false,
    };
    let planted = catch_unwind(AssertUnwindSafe(|| {
        run(&plan, |cluster: Cluster<Counting>| async move {
            let first = cluster.role::<Sensor>(0);
            cluster.calm().await;
            // The first life of the sensor is over, whose handle says so.
            assert!(first.has_ended().is_none() && first.is_ready(), "a kill happened");
        });
    }));
    let panic = planted.expect_err("some fault is drawn");
    let text =
        panic.downcast_ref::<&str>().map(ToString::to_string).or_else(|| panic.downcast_ref::<String>().cloned());
    assert!(text.unwrap_or_default().contains("a kill happened"));
    let calm = Plan { faults: &[], ..plan };
    run(&calm, |cluster: Cluster<Counting>| async move {
        let sensor = cluster.role::<Sensor>(0);
        cluster.calm().await;
        assert!(eventually(SOON, || sensor.is_ready()).await);
    });
}
