//! Stores on the whole stack: every replica is the fold of its primary's history, whatever fails.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use mosaik::{
    Network, NetworkId,
    stores::{Position, Primary, ReplicaState, StoreError, StoreReplica, View},
    streams::Buffer,
    testing::{LinkQuality, Sim, SimNode},
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde::{Deserialize, Serialize};

use crate::streams::soon;

/// A state that tells its whole history: a chain over all deltas, and what a real one would hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Chain {
    length: u64,
    link: u64,
    sums: BTreeMap<u8, u64>,
    ballast: Vec<u8>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Link {
    value: u64,
    /// How large the state is to be.
    ballast: u32,
}

impl View for Chain {
    type Delta = Link;
    const NAME: &'static str = "chain";

    fn fold(&mut self, Link { value, ballast }: Link) {
        self.length += 1;
        self.link = (self.link ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
        *self.sums.entry(value.to_le_bytes()[0] % 16).or_default() += value % 1000;
        self.ballast.resize(ballast as usize, 7);
    }
}

async fn start(node: &SimNode, id: NetworkId) -> Network {
    node.builder(id).build().await.unwrap()
}

fn primary(network: &Network, replay: usize) -> Primary<Chain> {
    network.stores().primary::<Chain>("chain").with_replay(Buffer::items(replay)).build().unwrap()
}

async fn apply(primary: &Primary<Chain>, value: u64) -> Position {
    soon("apply", primary.apply(Link { value, ballast: 10 })).await.unwrap()
}

/// What every primary's run did, and the state after each delta.
#[derive(Default)]
struct Histories(BTreeMap<u64, Vec<Chain>>);

impl Histories {
    /// A run begins, or goes on with all that was applied in it.
    fn begin(&mut self, primary: &Primary<Chain>) {
        let (now, Position { epoch, seq }) = (primary.read(), primary.read().position());
        let states = self.0.entry(epoch).or_insert_with(|| vec![Chain::default()]);
        assert_eq!((states.len() as u64 - 1, states.last()), (seq, Some(&*now)), "something that was applied is lost");
    }

    fn applied(&mut self, epoch: u64, delta: Link) {
        let states = self.0.get_mut(&epoch).expect("a run");
        let mut state = states.last().expect("a first state").clone();
        state.fold(delta);
        states.push(state);
    }

    /// A replica is the fold of the first deltas of one run, as many as its position says.
    fn check(&self, replica: &StoreReplica<Chain>, seed: u64) {
        let value = replica.read();
        let Position { epoch, seq } = value.position();
        if epoch == 0 {
            assert_eq!(*value, Chain::default());
            return;
        }
        let states = self.0.get(&epoch).unwrap_or_else(|| panic!("seed {seed}: no run {epoch}"));
        let state = usize::try_from(seq).ok().and_then(|seq| states.get(seq));
        assert_eq!(Some(&*value), state, "seed {seed}: not the fold of {seq} of {} deltas", states.len() - 1);
    }
}

/// One seed: a primary and three replicas that are cut off, crash, restart and come late, while deltas are applied. Those of
/// every tenth seed are durable.
async fn exactness(sim: Sim, seed: u64) -> (u64, u64) {
    let id = NetworkId::from("exactness");
    let disk = seed.is_multiple_of(10).then(|| tempfile::tempdir().unwrap());
    let restart = |node: &SimNode, which: usize| {
        let builder = node.restart(id);
        disk.iter().fold(builder, |builder, dir| builder.with_data_dir(dir.path().join(which.to_string())))
    };
    let follow = |network: &Network| {
        let replica = network.stores().replica::<Chain>("chain");
        if disk.is_some() { replica.durable().build() } else { replica.build() }
    };
    let lead = |network: &Network, replay: usize| {
        let primary = network.stores().primary::<Chain>("chain").with_replay(Buffer::items(replay));
        if disk.is_some() { primary.durable().build().unwrap() } else { primary.build().unwrap() }
    };
    let mut rng = SmallRng::seed_from_u64(seed);
    let nodes = [sim.node("primary"), sim.node("a"), sim.node("b"), sim.node("c")];
    let mut networks: Vec<Option<Network>> = vec![Some(restart(&nodes[0], 0).build().await.unwrap()), None, None, None];
    let mut replicas: Vec<Option<StoreReplica<Chain>>> = vec![None, None, None];
    // A node that starts while it is cut off must know whom to look for later.
    let bootstrap = networks[0].as_ref().unwrap().local().addr();
    let replay = [1, 5, 1000][rng.random_range(0..3)];
    let mut histories = Histories::default();
    let mut primary = lead(networks[0].as_ref().unwrap(), replay);
    histories.begin(&primary);
    let (mut snapshots, mut resumed) = (0, 0);
    for _ in 0..rng.random_range(20..60) {
        let which = rng.random_range(1..4usize);
        match rng.random_range(0..12) {
            0..6 => {
                for _ in 0..rng.random_range(1..20) {
                    let delta = Link { value: rng.random(), ballast: rng.random_range(0..2000) };
                    let position = soon("apply", primary.apply(delta.clone())).await.unwrap();
                    histories.applied(position.epoch, delta);
                }
            }
            6 | 7 => {
                if networks[which].is_none() {
                    let restarted = restart(&nodes[which], which).with_bootstrap(bootstrap.clone());
                    networks[which] = Some(restarted.build().await.unwrap());
                }
                let network = networks[which].as_ref().unwrap();
                replicas[which - 1].get_or_insert_with(|| follow(network));
            }
            8 => {
                if let Some(replica) = replicas[which - 1].take() {
                    snapshots += replica.stats().snapshots;
                    resumed += replica.stats().resumed;
                }
                if rng.random() && networks[which].is_some() {
                    crash(&nodes[which]).await;
                    networks[which] = None;
                }
            }
            9 => sim.partition(&nodes[..1], &nodes[which..=which]),
            10 => sim.heal(),
            _ if rng.random_range(0..4) == 0 => {
                crash(&nodes[0]).await;
                drop(primary);
                networks[0] = None;
                networks[0] = Some(restart(&nodes[0], 0).build().await.unwrap());
                primary = lead(networks[0].as_ref().unwrap(), replay);
                histories.begin(&primary);
            }
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis([0, 5, 50, 1000, 4000][rng.random_range(0..5)])).await;
        replicas.iter().flatten().for_each(|replica| histories.check(replica, seed));
    }
    sim.heal();
    let position = primary.read().position();
    for replica in replicas.iter().flatten() {
        soon("all deltas", replica.when().reaches(position)).await.unwrap();
        soon("synced", replica.when().synced()).await.unwrap();
        histories.check(replica, seed);
        assert_eq!(replica.read().position(), position);
        assert_eq!(*replica.read(), *primary.read());
        snapshots += replica.stats().snapshots;
        resumed += replica.stats().resumed;
    }
    (snapshots, resumed)
}

/// `STORES_SEEDS` (default 500) from `STORES_FROM` (default 1) on.
#[test]
fn every_replica_is_the_fold_of_the_whole_history() {
    let number = |name, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (from, seeds): (u64, u64) = (number("STORES_FROM", 1), number("STORES_SEEDS", 500));
    let (next, snapshots, resumed) = (AtomicU64::new(from), AtomicU64::new(0), AtomicU64::new(0));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= from + seeds {
                break;
            }
            let counts = Sim::run(seed, |sim| exactness(sim, seed));
            snapshots.fetch_add(counts.0, Ordering::Relaxed);
            resumed.fetch_add(counts.1, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        (1..std::thread::available_parallelism().map_or(1, usize::from)).for_each(|_| _ = scope.spawn(work));
        work();
    });
    let (snapshots, resumed) = (snapshots.into_inner(), resumed.into_inner());
    eprintln!("{seeds} seeds: {snapshots} snapshots taken, {resumed} times gone on without");
    assert!(seeds < 100 || (snapshots > seeds && resumed > seeds / 10), "the seeds must be worth something");
}

/// A replica that is away for a while goes on where it was; one that is away for longer than the ring takes a snapshot again.
#[test]
fn a_replica_knows_whether_it_can_go_on() {
    Sim::run(31, |sim| async move {
        let id = NetworkId::from("resume");
        let (a, b) = (sim.node("a"), sim.node("b"));
        let (na, nb) = (start(&a, id).await, start(&b, id).await);
        let primary =
            na.stores().primary::<Chain>("chain").with_replay(Buffer::items(100).bytes(1000)).build().unwrap();
        for value in 0..50 {
            apply(&primary, value).await;
        }
        let replica = nb.stores().replica::<Chain>("chain").build();
        assert_eq!(replica.state(), ReplicaState::Alone);
        soon("synced", replica.when().synced()).await.unwrap();
        assert_eq!((*replica.read()).clone(), *primary.read());
        for (missing, snapshots, resumed) in [(10, 1, 1), (50_000, 2, 2)] {
            sim.partition(std::slice::from_ref(&a), std::slice::from_ref(&b));
            soon("lost", primary.when().unsubscribed()).await;
            let mut position = apply(&primary, 1).await;
            for value in 1..missing {
                position = apply(&primary, value).await;
            }
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert_eq!(replica.state(), ReplicaState::Alone);
            assert!(replica.read().position() < position, "old, but there");
            sim.heal();
            soon("back", replica.when().reaches(position)).await.unwrap();
            soon("synced", replica.when().synced()).await.unwrap();
            assert_eq!(*replica.read(), *primary.read());
            assert_eq!((replica.stats().snapshots, replica.stats().resumed), (snapshots, resumed));
        }
    });
}

/// A replica that was away for so long that its primary was forgotten does not take itself for synced.
#[test]
fn a_replica_that_forgot_its_primary_lacks_nothing() {
    Sim::run(36, |sim| async move {
        let id = NetworkId::from("forgotten");
        let (a, b) = (sim.node("a"), sim.node("b"));
        let (na, nb) = (start(&a, id).await, start(&b, id).await);
        let primary = self::primary(&na, 100);
        let replica = nb.stores().replica::<Chain>("chain").build();
        let position = apply(&primary, 1).await;
        soon("first", replica.when().reaches(position)).await.unwrap();
        sim.partition(std::slice::from_ref(&a), std::slice::from_ref(&b));
        soon("lost", primary.when().unsubscribed()).await;
        let position = apply(&primary, 2).await;
        tokio::time::sleep(Duration::from_mins(30)).await;
        sim.heal();
        soon("synced", replica.when().synced()).await.unwrap();
        soon("reached", replica.when().reaches(position)).await.unwrap();
        assert_eq!(*replica.read(), *primary.read());
    });
}

/// A position of a run that is over is never reached, and that is said.
#[test]
fn a_position_that_was_lost_with_its_primary_is_an_error() {
    Sim::run(32, |sim| async move {
        let id = NetworkId::from("superseded");
        let (a, b) = (sim.node("a"), sim.node("b"));
        let (na, nb) = (start(&a, id).await, start(&b, id).await);
        let primary = self::primary(&na, 100);
        let replica = nb.stores().replica::<Chain>("chain").build();
        let at = apply(&primary, 1).await;
        soon("first", replica.when().reaches(at)).await.unwrap();
        let wanted = Position { seq: at.seq + 1, ..at };
        let waiting = tokio::spawn(replica.when().reaches(wanted));
        a.crash();
        drop((primary, na));
        let na = a.restart(id).build().await.unwrap();
        let primary = self::primary(&na, 100);
        let new = apply(&primary, 2).await;
        assert!(new.epoch > at.epoch);
        let error = soon("told", waiting).await.unwrap().unwrap_err();
        assert!(matches!(error, StoreError::Superseded { wanted: it, .. } if it == wanted), "{error}");
        soon("the new run", replica.when().reaches(new)).await.unwrap();
        assert_eq!((replica.read().length, replica.stats().snapshots), (1, 2));
        nb.shutdown().await;
        assert_eq!(soon("closed", replica.when().synced()).await, Err(StoreError::Closed));
        assert_eq!(replica.read().length, 1, "it can still be read");
    });
}

/// A field failure: a cache shared between producers that mixes their histories. Two primaries of one store are a mistake; a
/// replica follows one of them, says so, and goes over to the other as a whole.
#[test]
fn two_primaries_are_never_mixed() {
    Sim::run(33, |sim| async move {
        let id = NetworkId::from("two primaries");
        let nodes = [sim.node("a"), sim.node("b")];
        let networks = [start(&nodes[0], id).await, start(&nodes[1], id).await];
        let late = start(&sim.node("late"), id).await;
        let first = primary(&networks[0], 10);
        tokio::time::sleep(Duration::from_millis(5)).await; // so that their epochs differ
        let primaries = [first, primary(&networks[1], 10)];
        let replica = late.stores().replica::<Chain>("chain").build();
        let mut histories = Histories::default();
        primaries.iter().for_each(|primary| histories.begin(primary));
        for value in 0..200 {
            for primary in &primaries {
                let delta = Link { value, ballast: 10 };
                let position = soon("apply", primary.apply(delta.clone())).await.unwrap();
                histories.applied(position.epoch, delta);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            histories.check(&replica, 0);
        }
        soon("synced", replica.when().synced()).await.unwrap();
        assert_eq!((replica.stats().primaries, replica.stats().snapshots), (2, 1));
        let ReplicaState::Synced { primary: followed } = replica.state() else { panic!("{replica:?}") };
        let (dies, stays) = if networks[0].local().id() == followed { (0, 1) } else { (1, 0) };
        nodes[dies].crash();
        let delta = Link { value: 77, ballast: 0 };
        let position = soon("apply", primaries[stays].apply(delta.clone())).await.unwrap();
        histories.applied(position.epoch, delta);
        let other = networks[stays].local().id();
        while replica.state() != (ReplicaState::Synced { primary: other }) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            histories.check(&replica, 0);
        }
        while replica.read().position() != position {
            tokio::time::sleep(Duration::from_millis(10)).await;
            histories.check(&replica, 0);
        }
        assert_eq!(*replica.read(), *primaries[stays].read());
    });
}

/// A snapshot of some MB over a slow link, while deltas are applied: nobody else waits, and the late joiner lacks nothing.
#[test]
fn a_large_snapshot_holds_nobody_up() {
    Sim::run(34, |sim| async move {
        let id = NetworkId::from("large snapshot");
        sim.default_link(LinkQuality { bandwidth: Some(4_000_000), ..LinkQuality::lan() });
        let (na, nb, nc) =
            (start(&sim.node("a"), id).await, start(&sim.node("b"), id).await, start(&sim.node("c"), id).await);
        let primary = self::primary(&na, 1000);
        let near = nb.stores().replica::<Chain>("chain").build();
        soon("synced", near.when().synced()).await.unwrap();
        soon("large", primary.apply(Link { value: 0, ballast: 8 << 20 })).await.unwrap();
        let late = nc.stores().replica::<Chain>("chain").build();
        let (mut worst, mut caught) = (Duration::ZERO, 0);
        for value in 0..400 {
            let began = tokio::time::Instant::now();
            let position = soon("apply", primary.apply(Link { value, ballast: 8 << 20 })).await.unwrap();
            soon("folded", near.when().reaches(position)).await.unwrap();
            worst = worst.max(began.elapsed());
            caught += u32::from(matches!(late.state(), ReplicaState::Catching { .. }));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(worst < Duration::from_millis(50), "a delta took {worst:?}");
        assert!(caught > 50, "the snapshot takes two seconds");
        soon("late", late.when().reaches(primary.read().position())).await.unwrap();
        assert!(*late.read() == *primary.read());
        assert_eq!(late.stats().snapshots, 1);
    });
}

/// Both ends declare what they fold, and who may have it is the primary's choice.
#[test]
fn another_view_and_a_peer_that_is_not_admitted_get_nothing() {
    #[derive(Clone, Default, Serialize, Deserialize)]
    struct Other(u64);
    impl View for Other {
        type Delta = Link;
        const NAME: &'static str = "chain";
        const VERSION: u32 = 1;

        fn fold(&mut self, _: Link) {
            self.0 += 1;
        }
    }
    Sim::run(35, |sim| async move {
        let id = NetworkId::from("refused");
        let (na, nb) = (start(&sim.node("a"), id).await, start(&sim.node("b"), id).await);
        let open = self::primary(&na, 10);
        let closed = na.stores().primary::<Chain>("closed").accept_if(|peer| peer.tags().contains("friend"));
        let closed = closed.build().unwrap();
        assert!(matches!(na.stores().primary::<Chain>("chain").build(), Err(StoreError::Exists { .. })));
        let other = nb.stores().replica::<Other>("chain").build();
        let kept_out = nb.stores().replica::<Chain>("closed").build();
        apply(&open, 1).await;
        let position = apply(&closed, 1).await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!((other.state(), other.read().0), (ReplicaState::Alone, 0));
        assert_eq!((kept_out.state(), kept_out.read().length), (ReplicaState::Alone, 0));
        nb.discovery().add_tags(["friend"]);
        soon("admitted", kept_out.when().reaches(position)).await.unwrap();
        let knows = || na.discovery().catalog().get(na.local().id()).is_some_and(|entry| entry.stores().len() == 2);
        assert!(
            knows() || nb.discovery().catalog().peers().any(|peer| peer.stores().len() == 2),
            "stores are announced"
        );
        drop(closed);
        soon("gone", async {
            while kept_out.state() != ReplicaState::Alone {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
        .await;
    });
}

/// A crash takes effect when the runtime gets to it.
async fn crash(node: &SimNode) {
    node.crash();
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// A node with a data directory.
async fn start_in(node: &SimNode, id: NetworkId, dir: &std::path::Path) -> Network {
    node.restart(id).with_data_dir(dir).build().await.unwrap()
}

fn durable(network: &Network) -> Result<Primary<Chain>, StoreError> {
    network.stores().primary::<Chain>("chain").durable().build()
}

/// What was applied to a durable store is there after a crash; the run goes on, and replicas go on with it, those that lack
/// nothing or little without a snapshot.
#[test]
fn a_durable_store_goes_on_after_a_crash() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    Sim::run(37, |sim| async move {
        let id = NetworkId::from("durable");
        let (a, b) = (sim.node("a"), sim.node("b"));
        let [at_a, at_b] = dirs.each_ref().map(|dir| dir.path());
        let (na, nb) = (start_in(&a, id, at_a).await, start_in(&b, id, at_b).await);
        let primary = durable(&na).unwrap();
        let follow = |network: &Network| network.stores().replica::<Chain>("chain").durable().build();
        let replica = follow(&nb);
        let mut position = Position::default();
        for value in 0..20 {
            position = apply(&primary, value).await;
        }
        soon("followed", replica.when().reaches(position)).await.unwrap();
        assert!(matches!(durable(&na), Err(StoreError::Exists { .. })));

        let before = primary.read();
        crash(&a).await;
        drop((primary, na));
        let na = start_in(&a, id, at_a).await;
        let primary = durable(&na).unwrap();
        assert_eq!((&*primary.read(), primary.read().position()), (&*before, position), "nothing is lost");
        let next = apply(&primary, 21).await;
        assert_eq!(next, Position { seq: position.seq + 1, ..position }, "the run goes on");
        soon("followed", replica.when().reaches(next)).await.unwrap();
        assert_eq!((replica.stats().snapshots, replica.stats().resumed), (1, 1), "nothing was lacking");

        // A replica that was away while the primary was started anew lacks what the primary still has.
        tokio::time::sleep(Duration::from_secs(3)).await; // until it is written
        crash(&b).await;
        drop((replica, nb));
        let last = apply(&primary, 22).await;
        let expected = primary.read();
        crash(&a).await;
        drop((primary, na));
        let nb = start_in(&b, id, at_b).await;
        let replica = follow(&nb);
        assert_eq!(replica.read().position(), next, "it can be read without a primary");
        assert_eq!((replica.read().length, replica.state()), (21, ReplicaState::Alone));
        let na = start_in(&a, id, at_a).await;
        let primary = durable(&na).unwrap();
        soon("followed", replica.when().reaches(last)).await.unwrap();
        assert_eq!((&*replica.read(), replica.stats().snapshots), (&*expected, 0));
        assert_eq!(*primary.read(), *expected);
    });
}

/// The state takes the place of deltas that have become many.
#[test]
fn a_durable_store_does_not_grow_with_its_history() {
    let dir = tempfile::tempdir().unwrap();
    Sim::run(38, |sim| async move {
        let id = NetworkId::from("compacted");
        let a = sim.node("a");
        let na = start_in(&a, id, dir.path()).await;
        let primary = na.stores().primary::<Blob>("blob").durable().build().unwrap();
        for value in 0..40 {
            soon("apply", primary.apply(vec![value; 1 << 20])).await.unwrap();
        }
        let position = primary.read().position();
        let file = std::fs::read_dir(dir.path().join("stores")).unwrap().next().unwrap().unwrap();
        assert!(file.metadata().unwrap().len() < 24 << 20, "{} bytes", file.metadata().unwrap().len());
        crash(&a).await;
        drop((primary, na));
        let na = start_in(&a, id, dir.path()).await;
        let primary = na.stores().primary::<Blob>("blob").durable().build().unwrap();
        assert_eq!((primary.read().position(), primary.read().count), (position, 40));
        // Nor with short lives, in none of which there is much.
        let mut last = (na, primary);
        for value in 0..30 {
            soon("apply", last.1.apply(vec![value; 1 << 20])).await.unwrap();
            crash(&a).await;
            drop(last);
            let na = start_in(&a, id, dir.path()).await;
            let primary = na.stores().primary::<Blob>("blob").durable().build().unwrap();
            last = (na, primary);
        }
        assert_eq!(last.1.read().count, 70);
        let file = std::fs::read_dir(dir.path().join("stores")).unwrap().next().unwrap().unwrap();
        assert!(file.metadata().unwrap().len() < 24 << 20, "{} bytes", file.metadata().unwrap().len());
    });
}

/// Keeps the last of what it is given.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Blob {
    count: u64,
    last: Vec<u8>,
}

impl View for Blob {
    type Delta = Vec<u8>;
    const NAME: &'static str = "blob";

    fn fold(&mut self, delta: Vec<u8>) {
        self.count += 1;
        self.last = delta;
    }
}

#[test]
fn a_file_that_cannot_be_used_is_told() {
    let dir = tempfile::tempdir().unwrap();
    Sim::run(39, |sim| async move {
        let id = NetworkId::from("files");
        let (a, b) = (sim.node("a"), sim.node("b"));
        let bare = start(&b, id).await;
        assert_eq!(durable(&bare).unwrap_err(), StoreError::NoDataDir);
        let na = start_in(&a, id, dir.path()).await;
        apply(&durable(&na).unwrap(), 1).await;
        na.shutdown().await;
        let na = start_in(&a, id, dir.path()).await;
        let store = "chain";
        let error = na.stores().primary::<Blob>(store).durable().build().unwrap_err();
        assert!(error.to_string().contains("it holds a chain (version 0), not a blob"), "{error}");
        let primary = durable(&na).unwrap();
        assert_eq!(primary.read().length, 1);
        na.shutdown().await;
        drop((primary, na));
        let file = std::fs::read_dir(dir.path().join("stores")).unwrap().next().unwrap().unwrap().path();
        std::fs::write(&file, vec![7; 10_000]).unwrap();
        let na = start_in(&a, id, dir.path()).await;
        let error = durable(&na).unwrap_err();
        assert!(
            matches!(&error, StoreError::Disk { file: told, .. } if *told == file.display().to_string()),
            "{error}"
        );
    });
}

/// Counts, and cannot be written down once it has counted to two.
#[derive(Clone, Default, Deserialize)]
struct Stubborn {
    count: u64,
}

impl Serialize for Stubborn {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.count >= 2 {
            return Err(serde::ser::Error::custom("enough"));
        }
        (self.count,).serialize(serializer)
    }
}

impl View for Stubborn {
    type Delta = Vec<u8>;
    const NAME: &'static str = "stubborn";

    fn fold(&mut self, _: Vec<u8>) {
        self.count += 1;
    }
}

/// The handle may live on: what counts is that nobody writes any more.
#[test]
fn a_primary_that_cannot_write_lets_its_replicas_know() {
    let dir = tempfile::tempdir().unwrap();
    Sim::run(40, |sim| async move {
        let id = NetworkId::from("failing");
        let (a, b) = (sim.node("a"), sim.node("b"));
        let (na, nb) = (start_in(&a, id, dir.path()).await, start(&b, id).await);
        let durable = || na.stores().primary::<Stubborn>("stubborn").durable().build();
        let primary = durable().unwrap();
        let replica = nb.stores().replica::<Stubborn>("stubborn").build();
        soon("followed", replica.when().synced()).await.unwrap();
        // The second one makes the state take the place of its deltas.
        let mut applied = primary.read().position();
        for _ in 0..2 {
            applied = soon("applied", primary.apply(vec![1; 3 << 20])).await.unwrap();
        }
        soon("followed", replica.when().reaches(applied)).await.unwrap();
        soon("alone", async {
            while replica.state() != ReplicaState::Alone {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        assert_eq!(soon("refused", primary.apply(Vec::new())).await.unwrap_err(), StoreError::Closed);
        assert_eq!(replica.read().count, 2, "what it has can be read");
        // Nothing that was applied is lost, and there is room for another primary.
        let again = durable().unwrap();
        assert_eq!((again.read().count, again.read().position()), (2, applied));
    });
}
