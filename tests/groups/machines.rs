//! What a machine may do to its group: another version on the same disk, snapshots that cannot be made or read, commands
//! that panic or take long.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use futures::future::join_all;
use mosaik::{
    groups::{
        ApplyContext, CallError, GroupBuilder, GroupKey, Outcome, Refused, SnapshotError, Snapshots, StateMachine,
    },
    prelude::*,
    testing::Sim,
};
use tokio::time::{Instant, sleep, timeout};

use crate::lab::{LIMIT, Lab, until};

/// What [`Shelf`] is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Order {
    /// Appends a number.
    Push(u64),
    /// Appends a number to the list and then takes one from a place, which may not be there.
    PushAndTake(u64, usize),
    /// From now on no snapshot can be made, or again.
    Jam(bool),
    /// Does nothing, in so many bytes.
    Pad(Vec<u8>),
}

/// A list with a command that panics when it is asked for what is not there, and with snapshots that may fail.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shelf {
    items: Vec<u64>,
    jammed: bool,
}

impl StateMachine for Shelf {
    type Command = Order;
    type Output = usize;
    type Query = ();
    type QueryResult = Vec<u64>;
    const NAME: &'static str = "shelf";

    fn apply(&mut self, order: Order, _: &ApplyContext) -> usize {
        match order {
            Order::Push(item) => self.items.push(item),
            Order::PushAndTake(item, at) => {
                self.items.push(item);
                self.items.remove(at);
            }
            Order::Jam(jammed) => self.jammed = jammed,
            Order::Pad(_) => {}
        }
        self.items.len()
    }

    fn query(&self, (): ()) -> Vec<u64> {
        self.items.clone()
    }

    fn snapshots() -> Snapshots<Self> {
        Snapshots::with(
            |shelf| {
                let shelf = shelf.clone();
                Box::new(move || match postcard::to_allocvec(&shelf) {
                    Ok(bytes) if !shelf.jammed => Ok(bytes.into()),
                    _ => Err(SnapshotError::new("jammed")),
                })
            },
            |bytes| postcard::from_bytes(bytes).map_err(SnapshotError::from),
        )
    }
}

impl Lab<Shelf> {
    async fn push(&self, n: usize, item: u64) -> usize {
        self.group(n).execute(Order::Push(item), Consistency::Strong).await.unwrap()
    }

    async fn items(&self, n: usize) -> Vec<u64> {
        self.group(n).query((), Consistency::Strong).await.unwrap().into_inner()
    }

    /// More log than the limit of 4 KiB.
    async fn pad(&self, n: usize) {
        for _ in 0..20 {
            self.group(n).execute(Order::Pad(vec![7; 1000]), Consistency::Strong).await.unwrap();
        }
    }

    async fn start_small(&mut self, n: usize) {
        self.start_as(n, |builder| builder.with_log_limit(4096)).await;
    }
}

/// A machine of the given version; what the versions do differs.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Versioned<const V: u32> {
    sum: u64,
}

impl<const V: u32> StateMachine for Versioned<V> {
    type Command = u64;
    type Output = u64;
    type Query = ();
    type QueryResult = u64;
    const NAME: &'static str = "versioned";
    const VERSION: u32 = V;

    fn apply(&mut self, by: u64, _: &ApplyContext) -> u64 {
        self.sum += by * u64::from(V);
        self.sum
    }

    fn query(&self, (): ()) -> u64 {
        self.sum
    }

    fn snapshots() -> Snapshots<Self> {
        Snapshots::serde()
    }
}

#[test]
fn another_version_of_a_machine_is_refused_on_the_disk_of_the_first() {
    Sim::run(31, async |sim| {
        let mut first = Lab::<Versioned<1>>::durable(&sim, 0).started(1).await;
        first.elected().await;
        assert_eq!(first.group(0).execute(5, Consistency::Strong).await.unwrap(), 5);
        first.shut_down(0).await;

        let mut second = Lab::<Versioned<2>> { disks: first.disks.take(), ..Lab::durable(&sim, 0) };
        let network = second.node(0).restart(second.network).build().await.unwrap();
        let refused = second.builder(0, &network).join().await.err().map(|error| error.to_string());
        let refused = refused.expect("version 2 does not join with what version 1 wrote");
        for part in ["\"versioned\" version 1", "version 2", "group seal", "migrate_from"] {
            assert!(refused.contains(part), "{refused:?} does not say {part:?}");
        }
        network.shutdown().await;
        first.disks = second.disks;
        first.start(0).await;
        first.elected().await;
        assert_eq!(first.group(0).execute(1, Consistency::Strong).await.unwrap(), 6, "version 1 goes on");
    });
}

#[test]
fn a_snapshot_that_cannot_be_made_keeps_the_log_and_the_member() {
    Sim::run(32, async |sim| {
        let mut lab = Lab::<Shelf>::durable(&sim, 3);
        for n in 0..3 {
            lab.start_small(n).await;
        }
        let leader = lab.elected().await;
        lab.group(leader).execute(Order::Jam(true), Consistency::Strong).await.unwrap();
        lab.pad(leader).await;
        assert_eq!(lab.push(leader, 1).await, 1);
        let snapshot = |lab: &Lab<Shelf>, n: usize| lab.disks.as_ref().unwrap()[&n].durable().snapshot;
        sleep(Duration::from_secs(5)).await;
        for n in 0..3 {
            assert!(lab.group(n).status().is_online(), "n{n}: {}", lab.group(n).status());
            assert!(snapshot(&lab, n).is_none());
            let status = lab.group(n).status();
            let failure = status.machine().snapshot_failure().expect("the status says so");
            assert!(failure.why().contains("jammed") && failure.index() > 0, "{failure}");
            assert!(status.machine().snapshot_failures() > 0 && status.to_string().contains("jammed"), "{status}");
        }
        lab.group(leader).execute(Order::Jam(false), Consistency::Strong).await.unwrap();
        for n in 0..3 {
            until("a snapshot after all", || snapshot(&lab, n).is_some()).await;
            until("and the status says so", || lab.group(n).status().machine().snapshot_failure().is_none()).await;
        }
        assert_eq!(lab.push(leader, 2).await, 2);
    });
}

/// Reads back as something else: what G5 is about, whatever the cause.
#[derive(Debug, Default, Clone)]
struct Forgetful {
    sum: u64,
}

impl StateMachine for Forgetful {
    type Command = Vec<u8>;
    type Output = u64;
    type Query = ();
    type QueryResult = u64;
    const NAME: &'static str = "forgetful";

    fn apply(&mut self, bytes: Vec<u8>, _: &ApplyContext) -> u64 {
        self.sum += bytes.len() as u64;
        self.sum
    }

    fn query(&self, (): ()) -> u64 {
        self.sum
    }

    fn snapshots() -> Snapshots<Self> {
        Snapshots::with(
            |machine| {
                let bytes = Bytes::copy_from_slice(&machine.sum.to_le_bytes());
                Box::new(move || Ok(bytes))
            },
            |_| Ok(Self::default()),
        )
    }
}

#[test]
fn no_log_is_cut_behind_a_snapshot_that_reads_back_as_something_else() {
    Sim::run(33, async |sim| {
        let mut lab = Lab::<Forgetful>::durable(&sim, 3);
        for n in 0..3 {
            lab.start_as(n, |builder| builder.with_log_limit(4096)).await;
        }
        lab.elected().await;
        for _ in 0..20 {
            lab.group(0).execute(vec![7; 1000], Consistency::Strong).await.unwrap();
        }
        sleep(Duration::from_secs(5)).await;
        for n in 0..3 {
            let why = lab.group(n).status().machine().snapshot_failure().map(|failure| failure.why().to_owned());
            assert!(why.is_some_and(|why| why.contains("it differs")), "{}", lab.group(n).status());
            lab.crash(n);
        }
        for n in 0..3 {
            lab.start(n).await;
        }
        lab.elected().await;
        for n in 0..3 {
            let sum = *lab.group(n).query((), Consistency::Strong).await.unwrap();
            assert_eq!(sum, 20_000, "all that was acknowledged is there");
        }
    });
}

#[test]
fn a_panic_in_a_command_is_an_error_for_its_caller_and_nothing_else() {
    for snapshots_first in [false, true] {
        Sim::run(34, async |sim| {
            let mut lab = Lab::<Shelf>::durable(&sim, 3);
            for n in 0..3 {
                lab.start_small(n).await;
            }
            let leader = lab.elected().await;
            for item in 1..=3 {
                lab.push(leader, item).await;
            }
            if snapshots_first {
                lab.pad(leader).await;
                sleep(Duration::from_secs(1)).await;
            }
            let group = lab.group((leader + 1) % 3);
            // They go together; the third and the fifth panic after they have changed something.
            let orders = [
                Order::Push(4),
                Order::Push(5),
                Order::PushAndTake(66, 99),
                Order::Push(6),
                Order::PushAndTake(77, 98),
                Order::Push(7),
            ];
            let all = orders.map(|order| group.execute(order, Consistency::Strong));
            let all = timeout(LIMIT, join_all(all)).await.expect("answered in time");
            let lens: Vec<_> = all.iter().map(|it| it.as_ref().ok().copied()).collect();
            assert_eq!(lens, [Some(4), Some(5), None, Some(6), None, Some(7)], "{all:?}");
            for failed in [2, 4] {
                let error = all[failed].as_ref().unwrap_err();
                assert_eq!(error.outcome(), Outcome::None, "{error}");
                assert!(matches!(error, CallError::Panicked { index } if *index > 0), "{error}");
                assert!(error.to_string().contains("panicked at index"), "{error}");
            }
            until("the status says so", || lab.group(leader).status().machine().panics() == 2).await;
            let expected: Vec<u64> = (1..=7).collect();
            for n in 0..3 {
                assert_eq!(lab.items(n).await, expected, "n{n}");
            }
            // The members go on, also after restarts, and who comes later sees the same.
            for n in 0..3 {
                lab.crash(n);
            }
            for n in 0..3 {
                lab.start_small(n).await;
            }
            let leader = lab.elected().await;
            assert_eq!(lab.push(leader, 8).await, 8);
            lab.pad(leader).await;
            sleep(Duration::from_secs(1)).await;
            lab.crash(0);
            lab.disks.as_mut().unwrap().remove(&0);
            lab.start_small(0).await;
            lab.elected().await;
            for n in 0..3 {
                assert_eq!(lab.items(n).await, (1..=8).collect::<Vec<_>>(), "n{n}");
            }
        });
    }
}

/// A panic between two changes, in a machine without snapshots.
#[derive(Debug, Default)]
struct Plain {
    begun: u64,
    done: u64,
}

impl StateMachine for Plain {
    type Command = bool;
    type Output = u64;
    type Query = ();
    type QueryResult = (u64, u64);
    const NAME: &'static str = "plain";

    fn apply(&mut self, panics: bool, _: &ApplyContext) -> u64 {
        self.begun += 1;
        assert!(!panics, "expected by the test");
        self.done += 1;
        self.done
    }

    fn query(&self, (): ()) -> (u64, u64) {
        (self.begun, self.done)
    }
}

#[test]
fn without_snapshots_a_panic_is_undone_if_the_machine_can_be_made_again() {
    for again in [false, true] {
        Sim::run(35, async |sim| {
            let mut lab = Lab::<Plain>::durable(&sim, 3);
            let configure =
                |builder: GroupBuilder<Plain>| if again { builder.with_initial(Plain::default) } else { builder };
            for n in 0..3 {
                lab.start_as(n, configure).await;
            }
            lab.elected().await;
            for round in 0..2 {
                let group = lab.group(0);
                let commands =
                    [false, true, true, false, true].map(|panics| group.execute(panics, Consistency::Strong));
                let ok: Vec<_> = join_all(commands).await.into_iter().map(Result::ok).collect();
                let done = 2 * round;
                assert_eq!(ok, [Some(done + 1), None, None, Some(done + 2), None]);
            }
            let expected = (if again { 4 } else { 10 }, 4);
            for n in 0..3 {
                assert_eq!(*lab.group(n).query((), Consistency::Strong).await.unwrap(), expected, "n{n}");
            }
            for n in 0..3 {
                lab.crash(n);
            }
            for n in 0..3 {
                lab.start_as(n, configure).await;
            }
            lab.elected().await;
            for n in 0..3 {
                assert_eq!(*lab.group(n).query((), Consistency::Strong).await.unwrap(), expected, "n{n}");
            }
        });
    }
}

/// Commands that take as long as they say, in real time.
#[derive(Debug, Default)]
struct Slow(u64);

impl StateMachine for Slow {
    type Command = u64;
    type Output = u64;
    type Query = ();
    type QueryResult = u64;
    const NAME: &'static str = "slow";

    fn apply(&mut self, millis: u64, _: &ApplyContext) -> u64 {
        std::thread::sleep(Duration::from_millis(millis));
        self.0 += 1;
        self.0
    }

    fn query(&self, (): ()) -> u64 {
        self.0
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_during_a_long_command_hold_up_nobody_else() {
    let network = Network::new(NetworkId::random()).await.unwrap();
    let builder = network.groups().with_key(GroupKey::random()).with_state_machine(Slow::default());
    let group = builder.join().await.unwrap().with_timeout(LIMIT);
    group.when().leader_elected().await;
    let commands = tokio::spawn({
        let group = group.clone();
        async move { join_all((0..40).map(|_| group.execute(100, Consistency::Weak))).await }
    });
    until("the first is done", || group.committed() > 0).await;
    let queries: Vec<_> = (0..4)
        .map(|_| {
            let group = group.clone();
            tokio::spawn(async move {
                let mut last = 0;
                while last < 40 {
                    last = *group.query((), Consistency::Weak).await.unwrap();
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    // Another task of the process: how long does it not run?
    let ticks = tokio::spawn(async {
        let mut worst = Duration::ZERO;
        let mut last = Instant::now();
        for _ in 0..150 {
            sleep(Duration::from_millis(20)).await;
            worst = worst.max(last.elapsed());
            last = Instant::now();
        }
        worst
    });
    let worst = ticks.await.unwrap();
    assert!(worst < Duration::from_millis(1500), "no task ran for {worst:?}");
    assert!(group.is_leader(), "the leader was deposed meanwhile");
    let long = group.status().machine().long_command().copied().expect("a long command is named");
    assert!(long.index() > 0 && long.took() > Duration::from_millis(50), "{long}");
    join_all(queries).await.into_iter().for_each(|query| query.unwrap());
    let outputs: Vec<u64> = commands.await.unwrap().into_iter().map(Result::unwrap).collect();
    assert_eq!(outputs, (1..=40).collect::<Vec<_>>());
    network.shutdown().await;
}

/// A state whose encoding differs from time to time.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Mixed(RandomOrder);

#[expect(clippy::disallowed_types, reason = "a map in random order is what it is about")]
type RandomOrder = std::collections::HashMap<u64, u64>;

impl StateMachine for Mixed {
    type Command = u64;
    type Output = usize;
    type Query = ();
    type QueryResult = BTreeMap<u64, u64>;
    const NAME: &'static str = "mixed";

    fn apply(&mut self, key: u64, _: &ApplyContext) -> usize {
        self.0.insert(key, key + 1);
        self.0.len()
    }

    fn query(&self, (): ()) -> BTreeMap<u64, u64> {
        self.0.iter().map(|(key, value)| (*key, *value)).collect()
    }

    fn snapshots() -> Snapshots<Self> {
        Snapshots::serde()
    }
}

#[test]
fn a_state_in_random_order_has_snapshots_and_is_named() {
    Sim::run(36, async |sim| {
        let mut lab = Lab::<Mixed>::durable(&sim, 0);
        lab.start_as(0, |builder| builder.with_log_limit(4096)).await;
        lab.elected().await;
        let group = lab.group(0).clone();
        for key in 0..200 {
            group.execute(key, Consistency::Strong).await.unwrap();
        }
        until("a snapshot", || lab.disks.as_ref().unwrap()[&0].durable().snapshot.is_some()).await;
        until("it is named", || group.status().machine().is_nondeterministic()).await;
        assert!(group.status().to_string().contains("not deterministic"), "{}", group.status());
        lab.crash(0);
        lab.start(0).await;
        lab.elected().await;
        let all = lab.group(0).query((), Consistency::Strong).await.unwrap().into_inner();
        assert_eq!(all, (0..200).map(|key| (key, key + 1)).collect());
    });
}

/// A number that is written as one byte and read as two.
mod odd {
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub fn serialize<S: Serializer>(value: &u8, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u8(*value)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u8, D::Error> {
        Ok(<(u8, u8)>::deserialize(from)?.0)
    }
}

#[derive(Default, Clone, Serialize, Deserialize)]
#[mosaik::group(name = "odd", key = secret("a key for a test of the first state"))]
struct Odd {
    #[serde(with = "odd")]
    value: u8,
}

#[mosaik::state_machine(version = 1)]
impl Odd {
    #[command]
    fn set(&mut self, value: u8) {
        self.value = value;
    }
}

#[test]
fn a_declared_state_that_cannot_be_read_back_is_an_error_of_join() {
    Sim::run(37, async |sim| {
        let network = sim.node("n0").restart(NetworkId::from("odd")).build().await.unwrap();
        let error = Replica::<Odd>::join(&network).await.err().map(|error| error.to_string());
        let error = error.expect("its first state does not survive a snapshot");
        assert!(error.contains("Odd") && error.contains("read back"), "{error}");
        network.shutdown().await;
    });
}

/// Two builds of one machine whose command has a field of another type.
mod builds {
    use super::*;

    macro_rules! build {
        ($name:ident, $number:ty) => {
            pub mod $name {
                use super::*;

                #[derive(Clone, Default, Serialize, Deserialize)]
                pub struct Tally(i64);

                #[derive(Serialize, Deserialize)]
                pub struct Add {
                    pub to: String,
                    pub by: Amount,
                }

                #[derive(Serialize, Deserialize)]
                pub struct Amount {
                    pub cents: $number,
                }

                impl StateMachine for Tally {
                    type Command = Add;
                    type Output = i64;
                    type Query = ();
                    type QueryResult = i64;
                    const NAME: &'static str = "tally";

                    fn apply(&mut self, add: Add, _: &ApplyContext) -> i64 {
                        self.0 += i64::from(add.by.cents);
                        self.0
                    }

                    fn query(&self, (): ()) -> i64 {
                        self.0
                    }
                }
            }
        };
    }
    build!(one, u32);
    build!(other, i32);
}

#[test]
fn members_whose_commands_differ_inside_are_told_where_at_both_ends() {
    Sim::run(71, async |sim| {
        let key = GroupKey::from_bytes([7; 32]);
        let (here, there) = (sim.node("here"), sim.node("there"));
        let one = here.builder("builds").build().await.unwrap();
        let other = there.builder("builds").with_bootstrap(here.addr()).build().await.unwrap();
        let one = one.groups().with_key(key.clone()).with_state_machine(builds::one::Tally::default());
        let other = other.groups().with_key(key).with_state_machine(builds::other::Tally::default());
        let (one, other) = (one.with_size(2).join().await.unwrap(), other.with_size(2).join().await.unwrap());
        let told = |refusals: Vec<Refused>| refusals.first().map(|refused| refused.reason.to_string());
        let deadline = Duration::from_secs(30);
        let both = || told(one.refusals()).zip(told(other.refusals()));
        assert!(mosaik::testing::eventually(deadline, || both().is_some()).await);
        let (here, there) = both().unwrap();
        assert_eq!(here, "incompatible schema: command Add.by.cents: u32 here, command Add.by.cents: i32 there");
        assert_eq!(there, "incompatible schema: command Add.by.cents: i32 here, command Add.by.cents: u32 there");
    });
}
