//! The end of a version of a machine, and how the next one takes over.

use std::time::Duration;

use mosaik::{
    diagnostics::Client,
    groups::{ApplyContext, CallError, JoinError, MemberKind, OperateError, Outcome, Snapshots, StateMachine},
    prelude::*,
    testing::Sim,
};
use tokio::time::sleep;

use crate::lab::{Lab, until};

/// The first version.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Old {
    sum: u64,
    commands: u64,
}

impl StateMachine for Old {
    type Command = u64;
    type Output = u64;
    type Query = ();
    type QueryResult = (u64, u64);
    const NAME: &'static str = "upgraded";
    const VERSION: u32 = 1;

    fn apply(&mut self, by: u64, _: &ApplyContext) -> u64 {
        self.sum += by;
        self.commands += 1;
        self.sum
    }

    fn query(&self, (): ()) -> (u64, u64) {
        (self.sum, self.commands)
    }

    fn snapshots() -> Snapshots<Self> {
        Snapshots::serde()
    }
}

/// The second one: the fields are swapped, and the sum has a name.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct New {
    commands: u64,
    sum: u64,
    unit: String,
}

impl StateMachine for New {
    type Command = (String, u64);
    type Output = u64;
    type Query = ();
    type QueryResult = (u64, u64, String);
    const NAME: &'static str = "upgraded";
    const VERSION: u32 = 2;

    fn apply(&mut self, (unit, by): (String, u64), _: &ApplyContext) -> u64 {
        (self.unit, self.sum, self.commands) = (unit, self.sum + by, self.commands + 1);
        self.sum
    }

    fn query(&self, (): ()) -> (u64, u64, String) {
        (self.sum, self.commands, self.unit.clone())
    }

    fn snapshots() -> Snapshots<Self> {
        let up = |Old { sum, commands }: Old| Self { commands, sum, unit: String::from("old") };
        Snapshots::serde().migrate_from(1, up)
    }
}

/// The members of the first version as those of the second, none of which runs.
async fn stopped(mut old: Lab<Old>, sim: &Sim) -> Lab<New> {
    for n in old.members.keys().copied().collect::<Vec<_>>() {
        old.shut_down(n).await;
    }
    Lab { disks: old.disks, ..Lab::durable(sim, old.size) }
}

#[test]
fn every_member_seals_at_one_index_and_the_next_version_goes_on_from_there() {
    Sim::run(41, async |sim| {
        let lab = Lab::<Old>::durable(&sim, 3).started(3).await;
        let leader = lab.elected().await;
        for by in 1..=10 {
            lab.group((leader + 1) % 3).execute(by, Consistency::Strong).await.unwrap();
        }
        let index = lab.group((leader + 1) % 3).seal().await.unwrap();
        for n in 0..3 {
            until("sealed", || lab.group(n).status().machine().sealed() == Some(index)).await;
            let snapshot = lab.disks.as_ref().unwrap()[&n].durable().snapshot.unwrap();
            assert_eq!((snapshot.manifest.position.index, snapshot.manifest.sealed), (index, true), "n{n}");
            let refused = lab.group(n).execute(1, Consistency::Weak).await.unwrap_err();
            assert!(matches!(refused, CallError::Sealed), "{refused}");
            assert_eq!(refused.outcome(), Outcome::None);
            assert_eq!(*lab.group(n).query((), Consistency::Strong).await.unwrap(), (55, 10));
            assert_eq!(lab.group(n).seal().await.unwrap(), index, "sealed already");
        }
        // Also after a restart and an election.
        let mut lab = lab;
        for n in 0..3 {
            lab.crash(n);
        }
        for n in 0..3 {
            lab.start(n).await;
        }
        lab.elected().await;
        for n in 0..3 {
            let refused = lab.group(n).execute(1, Consistency::Weak).await.unwrap_err();
            assert!(matches!(refused, CallError::Sealed), "{refused}");
            until("still sealed", || lab.group(n).status().machine().sealed() == Some(index)).await;
        }

        let mut lab = stopped(lab, &sim).await;
        for n in 0..3 {
            lab.start(n).await;
        }
        lab.elected().await;
        for n in 0..3 {
            let sum = lab.group(n).query((), Consistency::Strong).await.unwrap().into_inner();
            assert_eq!(sum, (55, 10, "old".to_owned()), "n{n}");
        }
        let added = lab.group(0).execute(("new".to_owned(), 5), Consistency::Strong).await;
        assert_eq!(added.unwrap(), 60);
        for n in 0..3 {
            lab.crash(n);
        }
        for n in 0..3 {
            lab.start(n).await;
        }
        lab.elected().await;
        let after = lab.group(1).query((), Consistency::Strong).await.unwrap().into_inner();
        assert_eq!(after, (60, 11, "new".to_owned()));
    });
}

#[test]
fn commands_under_way_are_applied_before_the_seal_or_not_at_all() {
    for seed in 50..58 {
        Sim::run(seed, async |sim| {
            let lab = Lab::<Old>::durable(&sim, 3).started(3).await;
            let leader = lab.elected().await;
            let group = lab.group((leader + 1) % 3);
            let commands = (0..200).map(|n| async move {
                sleep(Duration::from_millis(n / 2)).await;
                group.execute(1, Consistency::Weak).await
            });
            let (outcomes, sealed) = tokio::join!(futures::future::join_all(commands), async {
                sleep(Duration::from_millis(30 + seed)).await;
                lab.group(leader).seal().await
            });
            sealed.unwrap();
            let done = outcomes.iter().filter(|it| it.is_ok()).count() as u64;
            for refused in outcomes.iter().filter_map(|it| it.as_ref().err()) {
                assert_eq!(refused.outcome(), Outcome::None, "{refused}");
            }
            assert!(done > 0 && done < 200, "{done} of 200 before the seal");
            for n in 0..3 {
                assert_eq!(*lab.group(n).query((), Consistency::Strong).await.unwrap(), (done, done), "n{n}");
            }
        });
    }
}

#[test]
fn the_next_version_wants_a_seal_and_who_missed_it_takes_its_snapshot() {
    Sim::run(42, async |sim| {
        let lab = Lab::<Old>::durable(&sim, 3).started(3).await;
        lab.elected().await;
        lab.group(0).execute(7, Consistency::Strong).await.unwrap();

        // Not sealed: all three refuse, and the first version goes on.
        let mut early = stopped(lab, &sim).await;
        for n in 0..3 {
            let network = early.node(n).restart(early.network).build().await.unwrap();
            let error = early.builder(n, &network).join().await.err();
            let error = error.expect("not sealed");
            assert!(matches!(error, JoinError::Machine { .. }), "{error}");
            assert!(error.to_string().contains("run version 1 once more with `group seal`"), "{error}");
            network.shutdown().await;
        }
        let mut lab = Lab::<Old> { disks: early.disks, ..Lab::durable(&sim, 3) };
        for n in 0..3 {
            lab.start(n).await;
        }
        lab.elected().await;
        assert_eq!(lab.group(1).execute(1, Consistency::Strong).await.unwrap(), 8);

        // One misses the seal.
        lab.crash(2);
        lab.group(0).seal().await.unwrap();
        until("sealed", || (0..2).all(|n| lab.group(n).status().machine().sealed().is_some())).await;
        let mut lab = stopped(lab, &sim).await;
        lab.start(0).await;
        lab.start(1).await;
        lab.elected().await;
        lab.disks.as_mut().unwrap().remove(&2);
        lab.start(2).await;
        lab.elected().await;
        let there = lab.group(2).query((), Consistency::Strong).await.unwrap().into_inner();
        assert_eq!(there, (8, 2, "old".to_owned()));
    });
}

/// Its storage is given up only when the others, without it, are a majority that runs the next version.
#[test]
fn who_missed_the_seal_takes_the_snapshot_of_the_next_version() {
    Sim::run(43, async |sim| {
        let mut lab = Lab::<Old>::durable(&sim, 3).started(3).await;
        lab.elected().await;
        lab.group(0).execute(7, Consistency::Strong).await.unwrap();
        lab.crash(2);
        lab.group(0).execute(8, Consistency::Strong).await.unwrap();
        lab.group(0).seal().await.unwrap();
        until("sealed", || (0..2).all(|n| lab.group(n).status().machine().sealed().is_some())).await;
        let mut lab = stopped(lab, &sim).await;

        // One that runs the next version is no majority: nothing is given up.
        lab.start(0).await;
        let refused = async |lab: &mut Lab<New>| {
            let network = lab.node(2).restart(lab.network).build().await.unwrap();
            let error = lab.builder(2, &network).join().await.expect_err("not sealed");
            assert!(error.to_string().contains("when a majority without it can be reached"), "{error}");
            network.shutdown().await;
        };
        refused(&mut lab).await;
        let kept = lab.disks.as_ref().unwrap()[&2].durable();
        assert!(kept.hard.cluster.is_some() && kept.machine.is_some_and(|it| it.version == 1));

        lab.start(1).await;
        lab.elected().await;
        lab.start(2).await;
        lab.elected().await;
        let there = lab.group(2).query((), Consistency::Strong).await.unwrap().into_inner();
        assert_eq!(there, (15, 2, "old".to_owned()));
        let voters = |group: &Group<New>| group.members().iter().filter(|it| it.kind() == MemberKind::Voter).count();
        until("three voters again", || voters(lab.group(2)) == 3).await;
        let added = lab.group(2).execute(("new".to_owned(), 5), Consistency::Strong).await;
        assert_eq!(added.unwrap(), 20);
    });
}

/// Two that were not sealed do not take each other for members of the next version.
#[test]
fn members_that_all_missed_the_seal_keep_what_they_have() {
    Sim::run(44, async |sim| {
        let lab = Lab::<Old>::durable(&sim, 3).started(3).await;
        lab.elected().await;
        lab.group(0).execute(7, Consistency::Strong).await.unwrap();
        let mut lab = stopped(lab, &sim).await;
        let mut joining = Vec::new();
        let mut networks = Vec::new();
        for n in 0..3 {
            let network = lab.node(n).restart(lab.network).build().await.unwrap();
            joining.push(lab.builder(n, &network).join());
            networks.push(network);
        }
        for joined in futures::future::join_all(joining).await {
            let error = joined.expect_err("not sealed");
            assert!(error.to_string().contains("run version 1 once more with `group seal`"), "{error}");
        }
        for n in 0..3 {
            let kept = lab.disks.as_ref().unwrap()[&n].durable();
            assert!(kept.machine.is_some_and(|it| it.version == 1), "n{n}");
        }
    });
}

#[tokio::test]
async fn an_operator_who_has_the_key_seals_a_group() {
    let (network_id, key) = (NetworkId::random(), GroupKey::random());
    let network = Network::new(network_id).await.unwrap();
    let builder = network.groups().with_key(key.clone()).with_state_machine(Old::default());
    let group = builder.join().await.unwrap();
    group.execute(5, Consistency::Strong).await.unwrap();
    let client = Client::new(network_id).await.unwrap();
    let at = network.local().addr();
    for (key, machine) in [(&GroupKey::random(), Old::NAME), (&key, "another")] {
        assert_eq!(client.seal(&at, key, machine).await, Err(OperateError::NotMember));
    }
    let index = client.seal(&at, &key, Old::NAME).await.unwrap();
    until("the status says so", || group.status().machine().sealed() == Some(index)).await;
    assert!(matches!(group.execute(1, Consistency::Weak).await, Err(CallError::Sealed)));
    assert_eq!(client.seal(&at, &key, Old::NAME).await, Ok(index), "sealed already");
    client.close().await;
    network.shutdown().await;
}

mod declared {
    use super::*;

    #[derive(Default, Clone, Serialize, Deserialize)]
    #[mosaik::group(name = "declared", key = secret("a key for a test of versions"))]
    pub struct Tally {
        pub count: u32,
    }

    #[mosaik::state_machine(version = 1)]
    impl Tally {
        #[command]
        fn add(&mut self, by: u32) -> u32 {
            self.count += by;
            self.count
        }
    }

    pub mod next {
        use super::*;

        #[derive(Default, Clone, Serialize, Deserialize)]
        #[mosaik::group(name = "declared", key = secret("a key for a test of versions"))]
        pub struct Tally {
            label: String,
            count: u64,
        }

        fn up(super::Tally { count }: super::Tally) -> Tally {
            Tally { label: String::from("taken over"), count: u64::from(count) }
        }

        #[mosaik::state_machine(version = 2, migrate_from(1, up))]
        impl Tally {
            #[command]
            fn add(&mut self, by: u64, label: String) -> u64 {
                self.label = label;
                self.count += by;
                self.count
            }

            #[query]
            fn label(&self) -> String {
                self.label.clone()
            }
        }
    }
}

#[tokio::test]
async fn a_declared_machine_takes_its_earlier_version_over() {
    let dir = std::env::temp_dir().join(format!("mosaik-versions-{}", std::process::id()));
    let start = async || Network::builder(NetworkId::random()).with_data_dir(&dir).build().await.unwrap();
    let network = start().await;
    let tally = Replica::<declared::Tally>::join(&network).await.unwrap();
    assert_eq!(tally.add(3).await.unwrap(), 3);
    tally.group().seal().await.unwrap();
    network.shutdown().await;
    drop(tally);
    let network = start().await;
    let tally = Replica::<declared::next::Tally>::join(&network).await.unwrap();
    assert_eq!(tally.label().strong().await.unwrap(), "taken over");
    assert_eq!(tally.add(4, "new".to_owned()).await.unwrap(), 7);
    network.shutdown().await;
    drop(tally);
    let network = start().await;
    let error = Replica::<declared::Tally>::join(&network).await.err().map(|error| error.to_string());
    assert!(error.as_ref().is_some_and(|it| it.contains("version 2") && it.contains("version 1")), "{error:?}");
    network.shutdown().await;
    std::fs::remove_dir_all(&dir).unwrap();
}

/// The same machine by name and version, with commands of another type.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Takes<C>(u64, std::marker::PhantomData<C>);

impl<C: mosaik::primitives::Datum + Clone + Sync> StateMachine for Takes<C> {
    type Command = C;
    type Output = u64;
    type Query = ();
    type QueryResult = u64;
    const NAME: &'static str = "takes";

    fn apply(&mut self, _: C, _: &ApplyContext) -> u64 {
        self.0 += 1;
        self.0
    }

    fn query(&self, (): ()) -> u64 {
        self.0
    }
}

#[tokio::test]
async fn commands_of_another_shape_are_refused_by_their_path() {
    let (dir, network_id, key) = (tempfile::tempdir().unwrap(), NetworkId::random(), GroupKey::random());
    let start = || Network::builder(network_id).with_data_dir(dir.path()).build();
    let network = start().await.unwrap();
    let group = network.groups().with_key(key.clone()).with_state_machine(Takes::<(u64, String)>::default()).join();
    drop(group.await.unwrap());
    network.shutdown().await;
    let network = start().await.unwrap();
    let group = network.groups().with_key(key).with_state_machine(Takes::<(u64, u32)>::default()).join();
    let error = group.await.expect_err("another type").to_string();
    assert!(error.contains("(command value.1: u32 here, command value.1: String in the storage)"), "{error}");
    network.shutdown().await;
}
