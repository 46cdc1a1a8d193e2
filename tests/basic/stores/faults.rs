//! Stores when operators slip: slow snapshots under a fast flow, lost and rolled-back directories, strangers, folds that panic.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use mosaik::{
    NetworkId,
    stores::{Position, Primary, StoreError, View},
    testing::Sim,
};
use serde::{Deserialize, Serialize, Serializer};
use tokio::time::{Instant, sleep};

use super::chain::{
    self, Chain, Link, POISON, apply_all as apply, copy, crash, durable as lead, durable_replica as follow, slow,
    start_in,
};
use crate::streams::soon;

/// As a snapshot it takes 13 s on the slow links of these tests, and twice that beside the deltas.
const HEAVY: u32 = 6 << 20;

/// Deltas at a pace that no replica can hold back for as long as a snapshot takes.
async fn flow(primary: &Primary<Chain>, lasts: Duration) -> Position {
    let until = Instant::now() + lasts;
    let mut position = primary.read().position();
    while Instant::now() < until {
        for value in 0..200 {
            position = soon("apply", primary.apply(Link { value, ballast: HEAVY })).await.unwrap();
        }
        sleep(Duration::from_millis(8)).await;
    }
    position
}

/// While the snapshot is fetched there are more deltas than a replica holds back.
#[test]
fn a_late_replica_is_in_step_soon_after_a_fast_flow() {
    Sim::run(61, |sim| async move {
        let id = NetworkId::from("late under flow");
        let (a, b) = (sim.node("a"), sim.node("b"));
        slow(&sim, &a, std::slice::from_ref(&b));
        let (na, nb) = (a.builder(id).build().await.unwrap(), b.builder(id).build().await.unwrap());
        let primary = chain::primary(&na, 65_536);
        let replica = chain::replica(&nb);
        let mut position = Position::default();
        let mut told = Vec::new();
        for _ in 0..30 {
            position = flow(&primary, Duration::from_secs(1)).await;
            assert!(replica.read().position() < position, "the test is worth nothing");
            told.push(replica.trouble().expect("why it is not in step"));
        }
        for what in ["bytes", "no room"] {
            assert!(told.iter().any(|why| why.contains(what)), "{told:?}");
        }
        soon("in step", replica.when().reaches(position)).await.unwrap();
        soon("synced", replica.when().synced()).await.unwrap();
        assert_eq!(*replica.read(), *primary.read());
    });
}

/// The same with six of them, of which four are served at a time, and a primary that starts anew meanwhile.
#[test]
fn six_late_replicas_and_a_restarted_primary_are_in_step_within_a_minute() {
    Sim::run(62, |sim| async move {
        let id = NetworkId::from("six late");
        let a = sim.node("a");
        let late: Vec<_> = (0..6).map(|which| sim.node(&format!("late {which}"))).collect();
        slow(&sim, &a, &late);
        let na = a.builder(id).build().await.unwrap();
        let primary = chain::primary(&na, 65_536);
        let mut networks = Vec::new();
        for node in &late {
            networks.push(node.builder(id).with_bootstrap(a.addr()).build().await.unwrap());
        }
        let replicas: Vec<_> = networks.iter().map(chain::replica).collect();
        flow(&primary, Duration::from_secs(10)).await;
        a.crash();
        drop((primary, na));
        let na = a.restart(id).build().await.unwrap();
        let primary = chain::primary(&na, 65_536);
        let position = flow(&primary, Duration::from_secs(20)).await;
        let ended = Instant::now();
        while replicas.iter().any(|replica| replica.read().position() < position) {
            for replica in replicas.iter().filter(|replica| replica.read().position() < position) {
                assert!(replica.trouble().is_some(), "{replica:?} is not in step and does not say why");
            }
            assert!(ended.elapsed() < Duration::from_mins(1), "{replicas:?}");
            sleep(Duration::from_millis(100)).await;
        }
        for replica in &replicas {
            soon("in step", replica.when().reaches(position)).await.unwrap();
            soon("synced", replica.when().synced()).await.unwrap();
            assert_eq!(*replica.read(), *primary.read());
        }
        assert!(ended.elapsed() < Duration::from_mins(1), "{:?}", ended.elapsed());
    });
}

/// While its primary is away a replica keeps what it has, whoever else says to be the primary.
#[test]
fn an_empty_stranger_does_not_empty_a_durable_replica() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    Sim::run(63, |sim| async move {
        let id = NetworkId::from("stranger");
        let [a, b, c] = ["a", "b", "c"].map(|name| sim.node(name));
        let [at_a, at_b, at_c] = dirs.each_ref().map(tempfile::TempDir::path);
        let (na, nb) = (start_in(&a, id, at_a).await, start_in(&b, id, at_b).await);
        let (primary, replica) = (lead(&na).unwrap(), follow(&nb));
        let position = apply(&primary, 100..150).await;
        soon("followed", replica.when().reaches(position)).await.unwrap();
        let held = replica.read();
        sleep(Duration::from_secs(3)).await;
        crash(&a).await;
        drop((primary, na));
        let nc = start_in(&c, id, at_c).await;
        let stranger = lead(&nc).unwrap();
        sleep(Duration::from_secs(30)).await;
        assert_eq!(
            (replica.read().position(), &*replica.read()),
            (position, &*held),
            "overwritten by an empty stranger"
        );
        // Nor on disk, and nor by one that is not empty any more.
        apply(&stranger, 1..3).await;
        crash(&b).await;
        drop((replica, nb));
        let nb = start_in(&b, id, at_b).await;
        let replica = follow(&nb);
        sleep(Duration::from_secs(30)).await;
        assert_eq!((replica.read().position(), &*replica.read()), (position, &*held));
        // Its own primary is followed as soon as it is back.
        let na = start_in(&a, id, at_a).await;
        let primary = lead(&na).unwrap();
        let position = apply(&primary, 200..210).await;
        soon("back", replica.when().reaches(position)).await.unwrap();
        assert_eq!(*replica.read(), *primary.read());
        assert_eq!(replica.stats().snapshots, 0);
    });
}

/// The same for a primary that has lost its directory.
#[test]
fn a_primary_without_its_directory_does_not_empty_a_durable_replica() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    Sim::run(64, |sim| async move {
        let id = NetworkId::from("lost directory");
        let [a, b] = ["a", "b"].map(|name| sim.node(name));
        let [at_a, at_b, empty] = dirs.each_ref().map(tempfile::TempDir::path);
        let (na, nb) = (start_in(&a, id, at_a).await, start_in(&b, id, at_b).await);
        let (primary, replica) = (lead(&na).unwrap(), follow(&nb));
        let position = apply(&primary, 100..150).await;
        soon("followed", replica.when().reaches(position)).await.unwrap();
        let held = replica.read();
        crash(&a).await;
        drop((primary, na));
        let na = start_in(&a, id, empty).await;
        let primary = lead(&na).unwrap();
        apply(&primary, 1..3).await;
        sleep(Duration::from_secs(30)).await;
        assert_eq!((replica.read().position(), &*replica.read()), (position, &*held), "overwritten with nothing");
    });
}

/// A primary is put back to an older copy of its directory. Replicas that are ahead of it prove that.
#[test]
fn a_rolled_back_primary_begins_a_new_run() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    // How many deltas are applied after the rollback before the replica is there: fewer and more than were lost.
    for (seed, ahead) in [(65, 0), (66, 5), (67, 50)] {
        let [at_a, at_b, copied] = dirs.each_ref().map(|dir| dir.path().join(seed.to_string()));
        Sim::run(seed, |sim| async move {
            let id = NetworkId::from("rolled back");
            let [a, b] = ["a", "b"].map(|name| sim.node(name));
            let (na, nb) = (start_in(&a, id, &at_a).await, start_in(&b, id, &at_b).await);
            let (primary, replica) = (lead(&na).unwrap(), follow(&nb));
            let first = apply(&primary, 100..150).await;
            soon("followed", replica.when().reaches(first)).await.unwrap();
            crash(&a).await;
            drop((primary, na));
            copy(&at_a, &copied);
            let na = start_in(&a, id, &at_a).await;
            let primary = lead(&na).unwrap();
            let position = apply(&primary, 150..160).await;
            soon("followed", replica.when().reaches(position)).await.unwrap();
            crash(&a).await;
            drop((primary, na));
            copy(&copied, &at_a);
            sim.partition(std::slice::from_ref(&a), std::slice::from_ref(&b));
            let na = start_in(&a, id, &at_a).await;
            let primary = lead(&na).unwrap();
            assert_eq!(primary.read().position(), first);
            apply(&primary, 1000..1000 + ahead).await;
            sim.heal();
            soon("a new run", async {
                while primary.read().position().epoch == first.epoch {
                    sleep(Duration::from_millis(100)).await;
                }
            })
            .await;
            let position = apply(&primary, 2000..2010).await;
            soon("in step", replica.when().reaches(position)).await.unwrap();
            assert_eq!(*replica.read(), *primary.read(), "{ahead} deltas after the rollback");
            assert_eq!(replica.read().length, 50 + ahead + 10, "nothing but what was lost is lost");
            // The new run is on disk.
            crash(&a).await;
            drop((primary, na));
            let na = start_in(&a, id, &at_a).await;
            let primary = lead(&na).unwrap();
            assert_eq!(primary.read().position(), position);
            let position = apply(&primary, 3000..3001).await;
            soon("followed", replica.when().reaches(position)).await.unwrap();
            assert_eq!((&*replica.read(), replica.stats().snapshots), (&*primary.read(), 2));
        });
    }
}

/// What cannot be folded is answered, leaves no trace in state, file and replicas, and the store goes on.
#[test]
fn a_delta_that_cannot_be_folded_is_refused() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    Sim::run(68, |sim| async move {
        let id = NetworkId::from("poison");
        let [a, b] = ["a", "b"].map(|name| sim.node(name));
        let [at_a, at_b] = dirs.each_ref().map(tempfile::TempDir::path);
        let (na, nb) = (start_in(&a, id, at_a).await, start_in(&b, id, at_b).await);
        let (primary, replica) = (lead(&na).unwrap(), follow(&nb));
        apply(&primary, 0..3).await;
        // Of several that are applied at once only that one fails.
        let links = [20, POISON, 21, POISON, 22].map(|value| Link { value, ballast: 10 });
        let results = soon("answered", futures::future::join_all(links.map(|link| primary.apply(link)))).await;
        let failed: Vec<bool> = results.iter().map(Result::is_err).collect();
        assert_eq!(failed, [false, true, false, true, false], "{results:?}");
        assert!(!matches!(results[1], Err(StoreError::Closed)), "the store lives on: {:?}", results[1]);
        let position = apply(&primary, 30..33).await;
        let mut expected = Chain::default();
        [0, 1, 2, 20, 21, 22, 30, 31, 32].into_iter().for_each(|value| expected.fold(Link { value, ballast: 10 }));
        assert_eq!((&*primary.read(), position.seq), (&expected, 9));
        soon("followed", replica.when().reaches(position)).await.unwrap();
        assert_eq!((&*replica.read(), replica.stats().snapshots), (&expected, 1));
        crash(&a).await;
        drop((primary, na));
        let na = start_in(&a, id, at_a).await;
        assert_eq!(*lead(&na).unwrap().read(), expected);
    });
}

/// The same for one that is kept in memory only.
#[test]
fn a_delta_that_cannot_be_folded_does_not_end_a_store_in_memory() {
    Sim::run(69, |sim| async move {
        let id = NetworkId::from("poison in memory");
        let (na, nb) =
            (sim.node("a").builder(id).build().await.unwrap(), sim.node("b").builder(id).build().await.unwrap());
        let (primary, replica) = (chain::primary(&na, 100), chain::replica(&nb));
        apply(&primary, 0..3).await;
        soon("answered", primary.apply(Link { value: POISON, ballast: 10 })).await.unwrap_err();
        let position = apply(&primary, 3..5).await;
        assert_eq!((primary.read().length, position.seq), (5, 5));
        soon("followed", replica.when().reaches(position)).await.unwrap();
        assert_eq!(*replica.read(), *primary.read());
    });
}

/// How often a [`Counted`] was written down.
static WRITTEN: AtomicU64 = AtomicU64::new(0);

#[derive(Debug, Clone, Default, Deserialize)]
struct Counted {
    count: u64,
}

impl Serialize for Counted {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        WRITTEN.fetch_add(1, Ordering::Relaxed);
        (self.count,).serialize(serializer)
    }
}

impl View for Counted {
    type Delta = u64;
    const NAME: &'static str = "counted";

    fn fold(&mut self, delta: u64) {
        self.count += delta;
    }
}

/// A delta a second costs a durable replica one small write a second, however large its state is.
#[test]
fn a_durable_replica_appends_deltas() {
    let dir = tempfile::tempdir().unwrap();
    Sim::run(70, |sim| async move {
        let id = NetworkId::from("appends");
        let (a, b) = (sim.node("a"), sim.node("b"));
        let na = a.builder(id).build().await.unwrap();
        let nb = start_in(&b, id, dir.path()).await;
        let primary = na.stores().primary::<Counted>("counted").build().unwrap();
        let replica = nb.stores().replica::<Counted>("counted").durable().build();
        soon("synced", replica.when().synced()).await.unwrap();
        let mut position = Position::default();
        for _ in 0..30 {
            position = soon("apply", primary.apply(1)).await.unwrap();
            sleep(Duration::from_secs(1)).await;
        }
        soon("followed", replica.when().reaches(position)).await.unwrap();
        sleep(Duration::from_secs(3)).await;
        // One for the snapshot, one or two for the file to begin with.
        assert!(WRITTEN.load(Ordering::Relaxed) <= 4, "{} times the whole state", WRITTEN.load(Ordering::Relaxed));
        sim.partition(std::slice::from_ref(&a), std::slice::from_ref(&b));
        crash(&b).await;
        drop((replica, nb));
        let nb = start_in(&b, id, dir.path()).await;
        let replica = nb.stores().replica::<Counted>("counted").durable().build();
        assert_eq!((replica.read().position(), replica.read().count), (position, 30));
        sim.heal();
        let position = soon("apply", primary.apply(1)).await.unwrap();
        soon("followed", replica.when().reaches(position)).await.unwrap();
        assert_eq!((replica.read().count, replica.stats().snapshots), (31, 0));
    });
}
