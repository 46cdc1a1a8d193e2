//! Stores whose types differ from one program to the next: on the wire and on disk, with types that may grow and without.

#![expect(clippy::needless_pass_by_value, clippy::unused_self, reason = "`fold` has this form")]

use mosaik::{
    NetworkId,
    prelude::*,
    stores::{StoreError, View},
    testing::{Sim, eventually},
};
use tokio::time::{Duration, sleep};

use super::chain::{crash, start, start_in};
use crate::streams::soon;

/// The first version of a program's types.
mod old {
    use super::*;

    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    pub struct Book {
        pub changes: u64,
        pub cents: u64,
    }

    #[derive(Clone, Debug, Serialize, Deserialize)]
    pub enum Change {
        Add { cents: u64 },
        Clear,
    }

    #[mosaik::store(name = "book", evolve = "append")]
    impl Book {
        fn fold(&mut self, change: Change) {
            self.changes += 1;
            match change {
                Change::Add { cents } => self.cents += cents,
                Change::Clear => self.cents = 0,
            }
        }
    }
}

/// The second one: more fields, and a variant that the first one does not know.
mod new {
    use super::*;

    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    pub struct Book {
        #[serde(default)]
        pub hidden: u64,
        pub changes: u64,
        pub cents: u64,
    }

    #[derive(Clone, Debug, Serialize, Deserialize)]
    pub enum Change {
        Pegged(u64),
        Add {
            #[serde(default)]
            hidden: bool,
            cents: u64,
        },
        Clear,
    }

    #[mosaik::store(name = "book", evolve = "append")]
    impl Book {
        fn fold(&mut self, change: Change) {
            self.changes += 1;
            match change {
                Change::Add { hidden, cents } => {
                    self.cents += cents;
                    self.hidden += u64::from(hidden);
                }
                Change::Pegged(cents) => self.cents += cents,
                Change::Clear => self.cents = 0,
            }
        }
    }
}

/// The same store by types that no version can be read as.
mod wrong {
    use super::*;

    #[derive(Clone, Debug, Default, Serialize, Deserialize)]
    pub struct Book {
        pub changes: u64,
        pub cents: i64,
    }

    #[mosaik::store(name = "book", evolve = "append")]
    impl Book {
        fn fold(&mut self, _: super::old::Change) {}
    }
}

/// Types that may not grow.
mod strict {
    use super::*;

    #[derive(Clone, Debug, Default, Serialize, Deserialize)]
    pub struct Sum<T> {
        pub all: T,
    }

    impl View for Sum<u64> {
        type Delta = (u64, u8);
        const NAME: &'static str = "sum";

        fn fold(&mut self, (by, _): (u64, u8)) {
            self.all += by;
        }
    }

    impl View for Sum<i64> {
        type Delta = (u64, u8);
        const NAME: &'static str = "sum";

        fn fold(&mut self, _: (u64, u8)) {}
    }
}

#[test]
fn either_version_of_a_store_follows_the_other() {
    Sim::run(1, |sim| async move {
        let id = NetworkId::from("grown");
        let (na, nb) = (start(&sim.node("a"), id).await, start(&sim.node("b"), id).await);
        let primary = new::Book::primary(&na).build().unwrap();
        let replica = old::Book::replica(&nb).build();
        soon("synced", replica.when().synced()).await.unwrap();
        let add = |hidden| new::Change::Add { hidden, cents: 5 };
        let position = soon("apply", primary.apply(add(true))).await.unwrap();
        soon("followed", replica.when().reaches(position)).await.unwrap();
        assert_eq!((&*replica.read(), replica.stats().snapshots), (&old::Book { changes: 1, cents: 5 }, 1));
        // What the old one does not know it cannot fold: it takes the state behind it instead.
        soon("apply", primary.apply(new::Change::Pegged(7))).await.unwrap();
        let position = soon("apply", primary.apply(add(false))).await.unwrap();
        soon("followed", replica.when().reaches(position)).await.unwrap();
        assert_eq!((&*replica.read(), replica.stats().snapshots), (&old::Book { changes: 3, cents: 17 }, 2));
        assert_eq!(*primary.read(), new::Book { hidden: 1, changes: 3, cents: 17 });
    });
    Sim::run(2, |sim| async move {
        let id = NetworkId::from("grown");
        let (na, nb) = (start(&sim.node("a"), id).await, start(&sim.node("b"), id).await);
        let primary = old::Book::primary(&na).build().unwrap();
        soon("apply", primary.apply(old::Change::Add { cents: 5 })).await.unwrap();
        let replica = new::Book::replica(&nb).build();
        soon("synced", replica.when().synced()).await.unwrap();
        let position = soon("apply", primary.apply(old::Change::Clear)).await.unwrap();
        soon("followed", replica.when().reaches(position)).await.unwrap();
        assert_eq!(*replica.read(), new::Book { hidden: 0, changes: 2, cents: 0 });
    });
}

#[test]
fn a_newer_program_goes_on_with_an_older_file_and_not_the_other_way() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    Sim::run(3, |sim| async move {
        let id = NetworkId::from("grown");
        let (a, b) = (sim.node("a"), sim.node("b"));
        let [at_a, at_b] = dirs.each_ref().map(|dir| dir.path());
        let (na, nb) = (start_in(&a, id, at_a).await, start_in(&b, id, at_b).await);
        let primary = old::Book::primary(&na).durable().build().unwrap();
        let replica = old::Book::replica(&nb).durable().build();
        let mut position = Default::default();
        for _ in 0..3 {
            position = soon("apply", primary.apply(old::Change::Add { cents: 5 })).await.unwrap();
        }
        soon("followed", replica.when().reaches(position)).await.unwrap();
        sleep(Duration::from_secs(3)).await; // until it is written
        for node in [&a, &b] {
            crash(node).await;
        }
        drop((primary, replica, na, nb));

        let (na, nb) = (start_in(&a, id, at_a).await, start_in(&b, id, at_b).await);
        let primary = new::Book::primary(&na).durable().build().unwrap();
        assert_eq!(*primary.read(), new::Book { hidden: 0, changes: 3, cents: 15 });
        assert_eq!(primary.read().position(), position, "the run goes on");
        let replica = new::Book::replica(&nb).durable().build();
        assert_eq!(replica.read().position(), Default::default(), "fields may be missing that the primary has");
        let position = soon("apply", primary.apply(new::Change::Add { hidden: true, cents: 5 })).await.unwrap();
        soon("followed", replica.when().reaches(position)).await.unwrap();
        assert_eq!((&*replica.read(), replica.stats().snapshots), (&*primary.read(), 1));
        crash(&a).await;
        drop((primary, na));

        // The old program would lose what it does not know.
        let na = start_in(&a, id, at_a).await;
        let error = old::Book::primary(&na).durable().build().unwrap_err();
        let StoreError::Disk { reason, .. } = &error else { panic!("{error}") };
        assert!(reason.contains("store.delta::Add.hidden: nothing here, a field in the file"), "{reason}");
        let primary = new::Book::primary(&na).durable().build().unwrap();
        assert_eq!(*primary.read(), new::Book { hidden: 1, changes: 4, cents: 20 });
    });
}

#[test]
fn what_does_not_fit_is_refused_by_its_path_by_replicas_and_on_disk() {
    async fn told<V: View>(id: NetworkId, sim: &Sim) -> String {
        let network = start(&sim.node("b"), id).await;
        let replica = network.stores().replica::<V>("the store").build();
        let told = || replica.trouble().is_some_and(|trouble| trouble.contains("the schema differs"));
        assert!(eventually(Duration::from_mins(1), told).await, "{:?}", replica.trouble());
        replica.trouble().unwrap()
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    Sim::run(4, |sim| async move {
        let id = NetworkId::from("another shape");
        let a = sim.node("a");
        let na = start_in(&a, id, &path).await;
        let primary = na.stores().primary::<strict::Sum<u64>>("the store").durable().build().unwrap();
        let trouble = told::<strict::Sum<i64>>(id, &sim).await;
        assert!(trouble.contains("store.state.all: i64 here, store.state.all: u64 there"), "{trouble}");
        crash(&a).await;
        drop((primary, na));
        let na = start_in(&a, id, &path).await;
        let error = na.stores().primary::<strict::Sum<i64>>("the store").durable().build().unwrap_err();
        let StoreError::Disk { reason, .. } = &error else { panic!("{error}") };
        assert!(reason.ends_with("has another shape: store.state.all: i64 here, u64 in the file"), "{reason}");
    });
    let path = dir.path().join("grown");
    Sim::run(5, |sim| async move {
        let id = NetworkId::from("another shape");
        let a = sim.node("a");
        let na = start_in(&a, id, &path).await;
        let primary = na.stores().primary::<new::Book>("the store").durable().build().unwrap();
        let trouble = told::<wrong::Book>(id, &sim).await;
        assert!(trouble.contains("store.state.cents: i64 here, store.state.cents: u64 there"), "{trouble}");
        crash(&a).await;
        drop((primary, na));
        let na = start_in(&a, id, &path).await;
        let error = na.stores().primary::<wrong::Book>("the store").durable().build().unwrap_err();
        let StoreError::Disk { reason, .. } = &error else { panic!("{error}") };
        assert!(reason.contains("cents: i64 here, u64 in the file") || reason.contains("hidden"), "{reason}");
    });
}
