//! Random seeds: a primary and three replicas that are cut off, crash, restart, come late and are slow, while deltas are applied.
//!
//! Every replica is at any time the fold of the first deltas of one run, and in the end that of all of them. One that is kept on
//! disk never goes over to an unrelated history without a word, whoever is primary meanwhile.
//!
//! `STORES_SEEDS` (default 500) from `STORES_FROM` (default 1) on.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use mosaik::{
    Network, NetworkId,
    stores::{Position, Primary, ReplicaState, StoreError, StoreReplica},
    streams::Buffer,
    testing::{Sim, SimNode},
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::{
    chain::{Chain, Link, POISON, copy, crash, slow},
    histories::Histories,
};
use crate::streams::soon;

/// After so long a replica is on disk.
const WRITTEN: Duration = Duration::from_secs(3);
/// More deltas than a replica holds back while it waits for a snapshot.
const FLOW: u64 = 70_000;

#[derive(Default)]
struct Tally {
    snapshots: AtomicU64,
    resumed: AtomicU64,
    refused: AtomicU64,
    panicked: AtomicU64,
    contradicted: AtomicU64,
}

/// A node that has a replica now and then.
struct Follower {
    node: SimNode,
    network: Option<Network>,
    replica: Option<StoreReplica<Chain>>,
    /// Where its replica was when it was last looked at.
    at: Position,
    /// The first run of the history that it keeps on disk, and since when.
    keeps: Option<(u64, Instant)>,
    /// Another one may take its place.
    word: bool,
}

struct World<'a> {
    sim: Sim,
    id: NetworkId,
    rng: SmallRng,
    tally: &'a Tally,
    /// Where everybody keeps what they have; every tenth seed has it.
    disk: Option<TempDir>,
    replay: usize,
    node: SimNode,
    network: Network,
    primary: Primary<Chain>,
    epoch: u64,
    copied: bool,
    /// Whether deltas are still to flow fast for a while.
    flows: bool,
    /// Somebody else who is primary for a while.
    stranger: Option<(SimNode, Network, Primary<Chain>, u64)>,
    followers: Vec<Follower>,
    histories: Histories,
}

async fn up(node: &SimNode, id: NetworkId, disk: Option<&TempDir>, known: Option<&SimNode>) -> Network {
    let mut builder = node.restart(id);
    if let Some(dir) = disk {
        builder = builder.with_data_dir(dir.path().join(node.name()));
    }
    // A node that starts while it is cut off must know whom to look for later.
    if let Some(known) = known {
        builder = builder.with_bootstrap(known.addr());
    }
    builder.build().await.unwrap()
}

async fn lead(network: &Network, replay: usize, durable: bool) -> Primary<Chain> {
    sleep(Duration::from_millis(1)).await; // so that no two runs have one epoch
    let primary = network.stores().primary::<Chain>("chain").with_replay(Buffer::items(replay));
    if durable { primary.durable().build().unwrap() } else { primary.build().unwrap() }
}

impl<'a> World<'a> {
    async fn new(sim: Sim, seed: u64, tally: &'a Tally) -> Self {
        let id = NetworkId::from("exactness");
        let mut rng = SmallRng::seed_from_u64(seed);
        let disk = seed.is_multiple_of(10).then(|| tempfile::tempdir().unwrap());
        let node = sim.node("primary");
        let network = up(&node, id, disk.as_ref(), None).await;
        let replay = [1, 5, 1000][rng.random_range(0..3)];
        let primary = lead(&network, replay, disk.is_some()).await;
        let epoch = primary.read().position().epoch;
        let follower = |name| {
            let (network, replica, at) = (None, None, Position::default());
            Follower { node: sim.node(name), network, replica, at, keeps: None, word: false }
        };
        let followers: Vec<_> = ["a", "b", "c"].map(follower).into();
        if seed.is_multiple_of(3) {
            slow(&sim, &node, &[followers[0].node.clone()]);
        }
        let mut histories = Histories::default();
        histories.begin(&primary);
        let (copied, stranger) = (false, None);
        let flows = seed.is_multiple_of(33) && disk.is_none();
        Self {
            sim,
            id,
            rng,
            tally,
            disk,
            replay,
            node,
            network,
            primary,
            epoch,
            copied,
            flows,
            stranger,
            followers,
            histories,
        }
    }

    fn durable(&self) -> bool {
        self.disk.is_some()
    }

    fn files(&self, node: &SimNode) -> Option<PathBuf> {
        self.disk.as_ref().map(|dir| dir.path().join(node.name()).join("stores"))
    }

    async fn apply(&mut self, ballast: u32) {
        let delta = Link { value: self.rng.random(), ballast };
        let delta = if self.rng.random_range(0..20) == 0 { Link { value: POISON, ..delta } } else { delta };
        // Now and then the stranger's.
        let primary = match &self.stranger {
            Some((.., primary, _)) if self.rng.random_range(0..4) == 0 => primary,
            _ => &self.primary,
        };
        let before = primary.read();
        match soon("apply", primary.apply(delta.clone())).await {
            Ok(position) => {
                assert!(delta.value != POISON);
                self.histories.applied(position, &before, delta);
            }
            Err(error) => {
                assert!(delta.value == POISON && matches!(error, StoreError::Panicked(_)), "{error}");
                assert_eq!((primary.read().position(), &*primary.read()), (before.position(), &*before));
                self.tally.panicked.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// More than a replica that waits for a snapshot can hold back.
    async fn flow(&mut self) {
        self.flows = false; // once
        let ballast = 2 << 20;
        for value in 0..FLOW {
            let (before, delta) = (self.primary.read(), Link { value, ballast });
            let position = soon("apply", self.primary.apply(delta.clone())).await.unwrap();
            self.histories.applied(position, &before, delta);
            if value.is_multiple_of(200) {
                sleep(Duration::from_millis(8)).await;
            }
        }
    }

    async fn follow(&mut self, which: usize) {
        let durable = self.durable();
        let follower = &mut self.followers[which];
        let network = match follower.network.take() {
            Some(network) => network,
            None => up(&follower.node, self.id, self.disk.as_ref(), Some(&self.node)).await,
        };
        follower.replica.get_or_insert_with(|| {
            let replica = network.stores().replica::<Chain>("chain");
            let replica = if durable { replica.durable().build() } else { replica.build() };
            follower.at = replica.read().position();
            replica
        });
        follower.network = Some(network);
    }

    /// A replica ends; half of the time its node crashes, which may cost it its files or itself.
    async fn end(&mut self, which: usize) {
        let (crashes, then) = (self.rng.random::<bool>(), self.rng.random_range(0..8));
        let dir = self.files(&self.followers[which].node);
        let follower = &mut self.followers[which];
        if let Some(replica) = follower.replica.take() {
            self.tally.snapshots.fetch_add(replica.stats().snapshots, Ordering::Relaxed);
            self.tally.resumed.fetch_add(replica.stats().resumed, Ordering::Relaxed);
            follower.keeps.take_if(|(_, since)| since.elapsed() < WRITTEN);
            follower.word = false;
        }
        if !crashes || follower.network.take().is_none() {
            return;
        }
        crash(&follower.node).await;
        match (dir, then) {
            (Some(dir), 0) => {
                for file in std::fs::read_dir(dir).into_iter().flatten() {
                    std::fs::write(file.unwrap().path(), vec![7; 10_000]).unwrap();
                }
                follower.keeps = None;
            }
            (Some(_), 1) => {
                follower.node = self.sim.node(&format!("{}'", follower.node.name()));
                follower.keeps = None;
            }
            _ => {}
        }
    }

    /// The primary starts anew; one that is kept on disk may find its directory empty, or put back to a copy.
    async fn restart(&mut self) {
        crash(&self.node).await;
        let mut back = false;
        if let (Some(dir), Some(copied)) =
            (self.files(&self.node), self.disk.as_ref().map(|dir| dir.path().join("copy")))
        {
            match self.rng.random_range(0..6) {
                0 | 1 => {
                    copy(&dir, &copied);
                    self.copied = true;
                }
                2 | 3 if self.copied => {
                    copy(&copied, &dir);
                    back = true;
                }
                4 => std::fs::remove_dir_all(&dir).unwrap(),
                _ => {}
            }
        }
        self.network = up(&self.node, self.id, self.disk.as_ref(), None).await;
        self.primary = lead(&self.network, self.replay, self.durable()).await;
        if back {
            self.histories.rolled_back(&self.primary);
        } else {
            self.histories.begin(&self.primary);
        }
        self.epoch = self.primary.read().position().epoch;
    }

    /// A stranger comes and is primary too, or goes.
    async fn stranger(&mut self) {
        match self.stranger.take() {
            Some((node, ..)) => crash(&node).await,
            None => {
                let node = self.sim.node("stranger");
                let network = up(&node, self.id, self.disk.as_ref(), Some(&self.node)).await;
                let primary = lead(&network, self.replay, self.durable()).await;
                self.histories.begin(&primary);
                let epoch = primary.read().position().epoch;
                self.stranger = Some((node, network, primary, epoch));
            }
        }
    }

    async fn step(&mut self) {
        let which = self.rng.random_range(0..3);
        match self.rng.random_range(0..14) {
            0..6 => {
                for _ in 0..self.rng.random_range(1..20) {
                    let ballast = self.rng.random_range(0..2000);
                    self.apply(ballast).await;
                }
            }
            6 | 7 => self.follow(which).await,
            8 => self.end(which).await,
            9 => {
                let (one, other) = (&self.node, &self.followers[which].node);
                self.sim.partition(std::slice::from_ref(one), std::slice::from_ref(other));
            }
            10 => self.sim.heal(),
            11 if self.rng.random_range(0..4) == 0 => self.restart().await,
            12 if self.rng.random_range(0..4) == 0 => self.stranger().await,
            13 if self.flows => self.flow().await,
            13 => self.give_word(which),
            _ => {}
        }
        sleep(Duration::from_millis([0, 5, 50, 1000, 4000][self.rng.random_range(0..5)])).await;
        self.look();
    }

    /// A replica that waits for a word gets it.
    fn give_word(&mut self, which: usize) {
        let follower = &mut self.followers[which];
        let Some(replica) = &follower.replica else { return };
        if let ReplicaState::OtherHistory { primary } = replica.state() {
            replica.follow(primary);
            follower.word = true;
        }
    }

    fn look(&mut self) {
        let Self { histories, primary, epoch, stranger, tally, .. } = self;
        let before = *epoch;
        histories.look(primary, epoch);
        tally.contradicted.fetch_add(u64::from(before != *epoch), Ordering::Relaxed);
        if let Some((.., primary, epoch)) = stranger {
            histories.look(primary, epoch);
        }
        let durable = self.durable();
        for follower in &mut self.followers {
            let Some(replica) = &follower.replica else { continue };
            self.histories.check(replica);
            let (value, was) = (replica.read(), follower.at);
            let at = value.position();
            assert!(at.epoch != was.epoch || at.seq >= was.seq, "{at} after {was}");
            follower.at = at;
            let other = matches!(replica.state(), ReplicaState::OtherHistory { .. });
            self.tally.refused.fetch_add(u64::from(other), Ordering::Relaxed);
            let root = self.histories.root(at.epoch).filter(|_| durable);
            match (follower.keeps, root) {
                (None, Some(root)) if *value != Chain::default() => follower.keeps = Some((root, Instant::now())),
                (Some((kept, _)), root) if root != Some(kept) => {
                    assert!(follower.word, "a history was given up without a word: {value:?} at {at}, was {was}");
                    follower.word = false;
                    follower.keeps = root.map(|root| (root, Instant::now()));
                }
                _ => {}
            }
        }
    }

    /// Nobody fails any more: all have everything.
    async fn converge(&mut self) {
        if self.stranger.is_some() {
            self.stranger().await;
        }
        self.sim.heal();
        // What waits for a word gets it; and who proves that the primary was put back has done so.
        for follower in &mut self.followers {
            follower.word = true;
            follower.replica.iter().for_each(|replica| replica.follow(self.node.id()));
        }
        for replica in self.followers.iter().filter_map(|follower| follower.replica.as_ref()) {
            soon("synced", replica.when().synced()).await.unwrap();
        }
        sleep(Duration::from_secs(5)).await;
        self.histories.look(&self.primary, &mut self.epoch);
        let position = self.primary.read().position();
        for replica in self.followers.iter().filter_map(|follower| follower.replica.as_ref()) {
            soon("all deltas", replica.when().reaches(position)).await.unwrap();
            soon("synced", replica.when().synced()).await.unwrap();
            self.histories.check(replica);
            assert_eq!((replica.read().position(), replica.trouble()), (position, None));
            assert_eq!(*replica.read(), *self.primary.read());
            self.tally.snapshots.fetch_add(replica.stats().snapshots, Ordering::Relaxed);
            self.tally.resumed.fetch_add(replica.stats().resumed, Ordering::Relaxed);
        }
    }
}

async fn one(sim: Sim, seed: u64, tally: &Tally) {
    let mut world = World::new(sim, seed, tally).await;
    for _ in 0..world.rng.random_range(20..60) {
        world.step().await;
    }
    world.converge().await;
}

#[test]
fn every_replica_is_the_fold_of_the_whole_history() {
    let number = |name, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (from, seeds): (u64, u64) = (number("STORES_FROM", 1), number("STORES_SEEDS", 500));
    let (next, tally) = (AtomicU64::new(from), Tally::default());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= from + seeds {
                break;
            }
            let run = AssertUnwindSafe(|| Sim::run(seed, |sim| one(sim, seed, &tally)));
            if let Err(panic) = catch_unwind(run) {
                eprintln!("^ STORES_FROM={seed} STORES_SEEDS=1");
                resume_unwind(panic);
            }
        }
    };
    std::thread::scope(|scope| {
        (1..std::thread::available_parallelism().map_or(1, usize::from)).for_each(|_| _ = scope.spawn(work));
        work();
    });
    let Tally { snapshots, resumed, refused, panicked, contradicted } = tally;
    let [snapshots, resumed, refused, panicked, contradicted] =
        [snapshots, resumed, refused, panicked, contradicted].map(AtomicU64::into_inner);
    eprintln!(
        "{seeds} seeds: {snapshots} snapshots taken, {resumed} times gone on without, {refused} times another history refused, \
         {panicked} folds panicked, {contradicted} primaries found to be put back"
    );
    let worth = snapshots > seeds && resumed > seeds / 10 && panicked > seeds && refused > 0;
    assert!(seeds < 100 || worth, "the seeds must be worth something");
}
