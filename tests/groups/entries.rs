//! How commands share the entries of the log, and how the log is cut.

use std::{collections::BTreeSet, time::Duration};

use futures::future::join_all;
use mosaik::{
    groups::{ApplyContext, Snapshots, StateMachine},
    prelude::*,
    testing::Sim,
};

use crate::lab::{LIMIT, Lab, until, within};

/// Counts its commands, whatever they are.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Count(u64);

impl StateMachine for Count {
    type Command = Vec<u8>;
    type Output = (u64, u64, u32, [u8; 32]);
    type Query = ();
    type QueryResult = u64;
    const NAME: &'static str = "count";

    /// The count, and the place and the seed of the command.
    fn apply(&mut self, _: Vec<u8>, ctx: &ApplyContext) -> (u64, u64, u32, [u8; 32]) {
        self.0 += 1;
        (self.0, ctx.index(), ctx.part(), ctx.seed())
    }

    fn query(&self, (): ()) -> u64 {
        self.0
    }

    fn snapshots() -> Snapshots<Self> {
        Snapshots::cloned()
    }
}

impl Lab<Count> {
    async fn all_counted(&self, count: u64) {
        for (_, group) in self.members.values() {
            let counted = async {
                while *group.query((), Consistency::Weak).await.unwrap() != count {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            within(LIMIT, "all count the same", counted).await;
        }
    }
}

#[test]
fn commands_that_share_an_entry_have_places_and_seeds_of_their_own() {
    Sim::run(15, async |sim| {
        let lab: Lab<Count> = Lab::new(&sim, 3).started(3).await;
        let leader = lab.elected().await;
        let mut count = 0;
        for n in [leader, (leader + 1) % 3] {
            let calls = (0..300).map(|_| lab.group(n).execute(vec![7], Consistency::Strong));
            let mut outputs: Vec<_> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
            let many = (0..500).map(|n| vec![8; n]);
            outputs.extend(lab.group(n).execute_many(many, Consistency::Weak).await.unwrap());
            let counts: Vec<_> = outputs.iter().map(|output| output.0).collect();
            assert_eq!(counts, (count + 1..=count + 800).collect::<Vec<_>>());
            count += 800;
            assert!(outputs.is_sorted_by_key(|(_, index, part, _)| (*index, *part)));
            let places: BTreeSet<_> = outputs.iter().map(|(_, index, part, _)| (index, part)).collect();
            let seeds: BTreeSet<_> = outputs.iter().map(|output| output.3).collect();
            let entries: BTreeSet<_> = outputs.iter().map(|output| output.1).collect();
            assert_eq!((places.len(), seeds.len()), (800, 800));
            assert!(entries.len() < 100, "{} entries", entries.len());
        }
        lab.all_counted(count).await;
        lab.end().await;
    });
}

#[test]
fn a_late_joiner_gets_a_snapshot_and_logs_stay_short() {
    Sim::run(12, async |sim| {
        let mut lab: Lab<Count> = Lab::durable(&sim, 3);
        for n in 0..3 {
            lab.start_as(n, |builder| builder.with_log_limit(1 << 20)).await;
        }
        lab.elected().await;
        let mut count = 0;
        // So long that each has an entry of its own, and far more than is kept for those who lag a little (8 MiB).
        for _ in 0..20 {
            count += 80;
            let outputs =
                lab.group(1).execute_many((0..80).map(|_| vec![1; 9 << 10]), Consistency::Weak).await.unwrap();
            assert_eq!(outputs.last().map(|output| output.0), Some(count));
        }
        lab.all_counted(count).await;
        let disk = lab.disks.as_ref().unwrap()[&0].clone();
        until("the log is cut", || {
            let durable = disk.durable();
            durable.snapshot.is_some() && durable.entries.len() < 1300
        })
        .await;
        lab.start_as(3, |builder| builder.with_log_limit(1 << 20)).await;
        lab.all_counted(count).await;
        assert_eq!(lab.group(3).execute(vec![2], Consistency::Strong).await.unwrap().0, count + 1);
        for n in 0..4 {
            lab.crash(n);
        }
        for n in 0..4 {
            lab.start(n).await;
        }
        lab.elected().await;
        lab.all_counted(count + 1).await;
    });
}
