//! Stores that a group owns: whatever fails, every replica and every member shows the fold of one history, and what was acknowledged is
//! in it, once.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use mosaik::{
    prelude::*,
    stores::{Position, Primary, StoreError, StoreReplica, Versioned},
    testing::{Cluster, FaultKind, Plan, Sim, SimDisk, eventually, run},
};
use tokio::time::timeout;

const SOON: Duration = Duration::from_mins(1);

#[derive(Default, Clone, Serialize, Deserialize)]
#[mosaik::group(name = "owned.desk", key = env("OWNED_STORE_TEST_KEY"), size = 3)]
pub struct Desk(u64);

#[mosaik::state_machine]
impl Desk {
    #[command]
    fn note(&mut self, number: u64) -> u64 {
        self.0 = self.0.max(number);
        self.0
    }
}

/// Everything that was ever applied, in order: (who, the how manieth of it).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Book {
    lines: Vec<(u64, u64)>,
}

#[mosaik::store(name = "owned.book", owner = Desk)]
impl Book {
    fn fold(&mut self, delta: (u64, u64)) {
        assert_ne!(delta, POISON, "as it was asked to");
        self.lines.push(delta);
    }
}

/// What no member can fold.
const POISON: (u64, u64) = (u64::MAX, 0);

thread_local! {
    /// What was acknowledged, by the run on this thread.
    static ACKNOWLEDGED: RefCell<BTreeMap<(u64, u64), Position>> = const { RefCell::new(BTreeMap::new()) };
}

#[mosaik::node]
pub struct Clerk {
    /// Snapshots every few seconds.
    #[mosaik(log_limit = "16KiB")]
    desk: Replica<Desk>,
    #[mosaik(default)]
    life: Life,
    book: Primary<Book>,
}

/// One life of a clerk.
pub struct Life {
    id: u64,
    applied: u64,
}

impl Default for Life {
    fn default() -> Self {
        static LIVES: AtomicU64 = AtomicU64::new(0);
        Self { id: LIVES.fetch_add(1, Ordering::Relaxed), applied: 0 }
    }
}

#[mosaik::handlers]
impl Clerk {
    /// Some together, so that an entry has several.
    #[every("20ms", once = Desk)]
    async fn write(&mut self) {
        let lines = [0, 1, 2].map(|more| (self.life.id, self.life.applied + more));
        self.life.applied += 3;
        let applied = lines.map(|line| self.book.apply(line));
        for (line, applied) in lines.into_iter().zip(futures::future::join_all(applied).await) {
            if let Ok(position) = applied {
                ACKNOWLEDGED.with_borrow_mut(|known| known.insert(line, position));
            }
        }
        let _ = &self.desk;
    }
}

#[mosaik::app(name = "owned-store-test", roles = [Clerk])]
pub struct Bookkeeping;

/// The lines at each position that was seen: all who show the same position show the same.
#[derive(Default)]
struct Seen(BTreeMap<Position, usize>, Vec<(u64, u64)>);

impl Seen {
    fn take(&mut self, shown: &Versioned<Book>) {
        let position = shown.position();
        if position.epoch == 0 {
            assert!(shown.lines.is_empty(), "nothing before there is a cluster");
            return;
        }
        assert_eq!(shown.lines.len() as u64, position.seq, "every delta before the position, and no other");
        let common = self.1.len().min(shown.lines.len());
        assert_eq!(shown.lines[..common], self.1[..common], "one history");
        if shown.lines.len() > common {
            self.1.clone_from(&shown.lines);
        }
        *self.0.entry(position).or_default() += 1;
    }

    fn check(&self) {
        let epochs: Vec<_> = self.0.keys().map(|position| position.epoch).collect();
        assert!(epochs.windows(2).all(|two| two[0] == two[1]), "one cluster");
        let mut last = BTreeMap::new();
        for (by, number) in &self.1 {
            assert!(
                last.insert(by, number).is_none_or(|before| number > before),
                "each once, in the order of its author"
            );
        }
    }
}

async fn watch(replica: &StoreReplica<Book>, seen: &mut Seen) {
    loop {
        let shown = replica.read();
        seen.take(&shown);
        replica.when().changed_since(shown.position()).await.expect("the network runs");
    }
}

/// A replica that is there from the start, one that comes late, and one of each member.
async fn one_history(cluster: Cluster<Bookkeeping>) {
    ACKNOWLEDGED.with_borrow_mut(BTreeMap::clear);
    let mut seen = Seen::default();
    let early = Book::replica(cluster.observer()).build();
    tokio::select! {
        biased;
        () = watch(&early, &mut seen) => {}
        () = cluster.calm() => {}
    }
    cluster.converged().await.expect("as declared after the faults");
    let late = Book::replica(cluster.observer()).build();
    timeout(SOON, late.when().synced()).await.expect("a snapshot, and what came since").expect("the network runs");
    let more = late.read().position().seq + 60;
    for replica in [&early, &late] {
        let wanted = || replica.read().position().seq >= more;
        assert!(eventually(SOON, wanted).await, "goes on: {:?}", replica.trouble());
        seen.take(&replica.read());
    }
    let peers = cluster.observer().discovery().catalog();
    let members: Vec<_> =
        peers.peers().map(|peer| peer.id()).filter(|id| *id != cluster.observer().local().id()).collect();
    for member in members {
        let of_one = Book::replica(cluster.observer()).subscribe_if(move |peer| peer.id() == member).build();
        timeout(SOON, of_one.when().synced()).await.expect("every member serves").expect("the network runs");
        assert!(eventually(SOON, || of_one.read().position().seq >= more).await, "{member:?}: {:?}", of_one.trouble());
        seen.take(&of_one.read());
    }
    let acknowledged = ACKNOWLEDGED.with_borrow_mut(std::mem::take);
    let last = acknowledged.values().map(|position| position.seq).max().expect("something was acknowledged");
    assert!(eventually(SOON, || early.read().position().seq >= last).await);
    seen.take(&early.read());
    seen.check();
    for (line, position) in acknowledged {
        let at = usize::try_from(position.seq - 1).unwrap();
        assert_eq!(seen.1.get(at), Some(&line), "acknowledged at {position}");
    }
}

const fn plan(seeds: u64) -> Plan {
    let faults = &[FaultKind::Pause, FaultKind::Partition];
    Plan { name: "basic::stores::owned::frozen_and_cut_off", seeds, faults, roles: &[("clerk", 3)], durable: false }
}

const fn killing(seeds: u64) -> Plan {
    let faults = &[FaultKind::Kill, FaultKind::Partition, FaultKind::Pause];
    Plan { name: "basic::stores::owned::killed", faults, durable: true, ..plan(seeds) }
}

fn seeds(default: u64) -> u64 {
    std::env::var("OWNED_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// `OWNED_SEEDS` (default 20) seeds.
#[test]
fn frozen_and_cut_off() {
    run(&plan(seeds(20)), one_history);
}

/// `OWNED_SEEDS` (default 20) seeds, with members on disk.
#[test]
fn killed() {
    run(&killing(seeds(20)), one_history);
}

/// The members of a group by hand, each with a data directory of its own on the simulated disks.
struct Office {
    networks: Vec<Network>,
    desks: Vec<Group<Desk>>,
    books: Vec<Primary<Book>>,
}

impl Office {
    async fn open(sim: &Sim, places: &[Place]) -> Self {
        let (mut networks, mut desks, mut books) = (Vec::new(), Vec::new(), Vec::new());
        for (n, Place { directory, disk }) in places.iter().enumerate() {
            let node = sim.node(&format!("n{n}")).restart(NetworkId::from("office")).with_data_dir(directory.path());
            let network = node.build().await.unwrap();
            let key = GroupKey::from_secret("a key that is long enough");
            let desk = network.groups().with_key(key).with_state_machine(Desk::default()).with_size(3);
            let desk = desk.with_storage(disk.clone()).join().await.unwrap();
            books.push(network.stores().primary::<Book>("book").owned_by(&desk).durable().build().unwrap());
            networks.push(network);
            desks.push(desk);
        }
        let office = Self { networks, desks, books };
        assert!(eventually(SOON, || office.leader().is_some()).await);
        office
    }

    fn leader(&self) -> Option<usize> {
        self.desks.iter().position(Group::is_leader)
    }

    /// At whichever member leads by then.
    async fn apply(&self, line: (u64, u64)) -> Result<Position, StoreError> {
        loop {
            let leader = self.leader().unwrap_or_default();
            match self.books[leader].apply(line).await {
                Err(StoreError::NotLeader) => tokio::time::sleep(Duration::from_millis(20)).await,
                applied => return applied,
            }
        }
    }

    /// 70,000 lines; a group keeps 65,536. The position of the last one.
    async fn apply_more_than_is_kept(&self) -> Position {
        let mut last = Position::default();
        for number in 0..70 {
            let lines = (0..1000).map(|more| self.apply((7, number * 1000 + more)));
            let applied = futures::future::join_all(lines).await;
            last = applied.into_iter().map(Result::unwrap).max().unwrap();
        }
        last
    }

    async fn all_have(&self, position: Position) {
        let has = |book: &Primary<Book>| book.read().position() == position;
        assert!(eventually(SOON, || self.books.iter().all(has)).await, "{:?}", self.troubles());
        assert!(self.books.iter().all(|book| *book.read() == *self.books[0].read()));
    }

    fn troubles(&self) -> Vec<(Position, Option<String>)> {
        self.books.iter().map(|book| (book.read().position(), book.trouble())).collect()
    }

    async fn close(self) {
        drop(self.books);
        for network in self.networks {
            network.shutdown().await;
        }
    }
}

/// Where a member keeps its store, and its group's log.
struct Place {
    directory: tempfile::TempDir,
    disk: SimDisk,
}

fn places() -> Vec<Place> {
    (0..3).map(|_| Place { directory: tempfile::tempdir().unwrap(), disk: SimDisk::new() }).collect()
}

/// Who does not lead says so, and what no member can fold is left out by all of them.
#[test]
fn only_the_leader_applies_and_a_panic_leaves_no_trace() {
    Sim::run(1, async |sim| {
        let places = places();
        let office = Office::open(&sim, &places).await;
        let first = office.apply((1, 1)).await.unwrap();
        assert_eq!(first.seq, 1);
        let leader = office.leader().unwrap();
        assert_eq!(office.books[(leader + 1) % 3].apply((1, 2)).await, Err(StoreError::NotLeader));
        let together = [(1, 2), POISON, (1, 3)].map(|line| office.books[leader].apply(line));
        let applied = futures::future::join_all(together).await;
        assert_eq!(applied[0], Ok(Position { seq: 2, ..first }));
        assert!(matches!(&applied[1], Err(StoreError::Panicked(said)) if said.contains("as it was asked to")));
        assert_eq!(applied[2], Ok(Position { seq: 4, ..first }));
        office.all_have(Position { seq: 4, ..first }).await;
        assert_eq!(office.books[0].read().lines, [(1, 1), (1, 2), (1, 3)]);
        let state = office.networks[0].stores().primary::<Book>("other").owned_by(&office.desks[0]);
        assert_eq!(state.with_state(Book::default()).build().unwrap_err(), StoreError::Owned("with_state"));
        office.close().await;
    });
}

/// All members are stopped at once, with more applied than the log keeps: the state is on their disks.
#[test]
fn a_restart_of_all_members_loses_nothing() {
    Sim::run(2, async |sim| {
        let places = places();
        let office = Office::open(&sim, &places).await;
        let last = office.apply_more_than_is_kept().await;
        assert_eq!(last.seq, 70_000);
        office.all_have(last).await;
        office.close().await;
        let office = Office::open(&sim, &places).await;
        office.all_have(last).await;
        let next = office.apply((8, 0)).await.unwrap();
        assert_eq!(next, Position { seq: 70_001, ..last });
        office.all_have(next).await;
        office.close().await;
    });
}

/// A member that was away for longer than the log reaches takes the state from another one.
#[test]
fn a_member_that_lacks_more_than_is_kept_catches_up() {
    Sim::run(3, async |sim| {
        let places = places();
        let office = Office::open(&sim, &places).await;
        office.apply((1, 1)).await.unwrap();
        let leader = office.leader().unwrap();
        let away = (leader + 1) % 3;
        let away_node = sim.node(&format!("n{away}"));
        let others: Vec<_> = (0..3).filter(|n| *n != away).map(|n| sim.node(&format!("n{n}"))).collect();
        sim.partition(&[away_node], &others);
        let last = office.apply_more_than_is_kept().await;
        sim.heal();
        office.all_have(last).await;
        assert!(eventually(SOON, || office.books.iter().all(|book| book.trouble().is_none())).await);
        office.close().await;
    });
}
