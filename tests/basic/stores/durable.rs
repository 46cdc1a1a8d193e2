//! Stores that are kept on disk: what a crash leaves, how large a file becomes, what a file that is of no use says.

use mosaik::{
    NetworkId,
    stores::{Position, ReplicaState, StoreError, View},
    testing::Sim,
};
use serde::{Deserialize, Serialize};
use tokio::time::{Duration, sleep};

use super::chain::{apply, crash, durable, durable_replica, start, start_in};
use crate::streams::soon;

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
        let replica = durable_replica(&nb);
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
        sleep(Duration::from_secs(3)).await; // until it is written
        crash(&b).await;
        drop((replica, nb));
        let last = apply(&primary, 22).await;
        let expected = primary.read();
        crash(&a).await;
        drop((primary, na));
        let nb = start_in(&b, id, at_b).await;
        let replica = durable_replica(&nb);
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
                sleep(Duration::from_millis(10)).await;
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
