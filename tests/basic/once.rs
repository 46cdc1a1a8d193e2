//! Handlers that run at the leader of a group alone: what they do counts once, whoever is killed, cut off or frozen meanwhile.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use mosaik::{
    groups::raft::{Mutant, Switch},
    prelude::*,
    testing::{Cluster, FaultKind, Plan, Sim, eventually, run},
};
use tokio::time::{sleep, timeout};

const SOON: Duration = Duration::from_secs(30);

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Numbers that are to be minted one after the other, each by whoever leads.
#[derive(Default, Clone, Serialize, Deserialize)]
#[mosaik::group(name = "once.mint", key = env("ONCE_TEST_KEY"), size = 3)]
pub struct Mint {
    /// Each with the term of the handler that minted it.
    minted: Vec<(u64, u64)>,
}

#[mosaik::state_machine]
impl Mint {
    /// The machine takes whatever comes: that a number is there once is the handlers' business.
    #[command]
    fn mint(&mut self, number: u64, term: u64) {
        self.minted.push((number, term));
    }

    #[query]
    fn next(&self) -> u64 {
        self.minted.last().map_or(0, |(number, _)| number + 1)
    }

    #[query]
    fn all(&self) -> Vec<(u64, u64)> {
        self.minted.clone()
    }
}

#[mosaik::stream(name = "once.orders")]
pub struct Order(u64);

#[mosaik::node]
pub struct Minter {
    mint: Replica<Mint>,
    orders: Consumer<Order>,
    #[mosaik(default)]
    orders_seen: u64,
}

#[mosaik::handlers]
impl Minter {
    /// Reads, thinks and writes: frozen in between, it writes what was right then.
    #[every("50ms", once = Mint)]
    async fn mint(&self, fence: Fence) -> Result<(), CallError> {
        let next = self.mint.next().weak().await?;
        sleep(millis(20)).await;
        self.mint.mint(next, fence.term()).await
    }

    #[on(orders, once = Mint)]
    fn order(&mut self, _order: Order, _from: PeerId, fence: Fence) {
        assert!(fence.term() > 0 && fence.index() > 0, "it leads: {fence}");
        self.orders_seen += 1;
    }
}

#[mosaik::node]
pub struct Buyer {
    #[mosaik(online_when = "3")]
    orders: Producer<Order>,
    #[mosaik(default)]
    number: u64,
}

#[mosaik::handlers]
impl Buyer {
    #[every("100ms", emit = orders)]
    fn order(&mut self) -> Order {
        self.number += 1;
        Order(self.number)
    }
}

#[mosaik::app(name = "once-test", roles = [Minter, Buyer])]
pub struct Minting;

/// Every number is minted once, in order, by leaders in the order of their terms.
async fn minted_once(cluster: Cluster<Minting>) {
    let mint = cluster.client::<Mint>().await.expect("joins");
    cluster.calm().await;
    cluster.converged().await.expect("as declared after the faults");
    let before = mint.all().strong().await.expect("answered").len();
    let more = async {
        loop {
            sleep(millis(50)).await;
            let all = mint.all().strong().await.expect("answered");
            if all.len() > before + 5 {
                return all;
            }
        }
    };
    let all = timeout(SOON, more).await.expect("it goes on");
    for (at, pair) in all.windows(2).enumerate() {
        let [(number, term), (next, later)] = [pair[0], pair[1]];
        assert!(next == number + 1 && term <= later, "{at}: {number} in term {term}, then {next} in term {later}");
    }
}

/// So many of the seeds from 0 on.
const fn plan(seeds: u64) -> Plan {
    let faults = &[FaultKind::Pause, FaultKind::Partition];
    Plan {
        name: "basic::once::frozen_and_cut_off",
        seeds,
        faults,
        roles: &[("minter", 3), ("buyer", 1)],
        durable: false,
    }
}

/// `ONCE_SEEDS` (default 200) seeds.
#[test]
fn frozen_and_cut_off() {
    let seeds = std::env::var("ONCE_SEEDS").ok().and_then(|text| text.parse().ok());
    run(&plan(seeds.unwrap_or(200)), minted_once);
}

#[mosaik::test(seeds = 6, faults = [kill, partition, pause], with = [Minter = 3], durable)]
async fn killed(cluster: Cluster<Minting>) {
    minted_once(cluster).await;
}

/// With the fence ignored, some seed shows a number twice.
#[test]
fn an_ignored_fence_is_found() {
    let before = Switch::plant(Mutant::FenceIgnored).set_for_this_thread();
    let found = catch_unwind(AssertUnwindSafe(|| run(&plan(200), minted_once))).is_err();
    before.set_for_this_thread();
    assert!(found, "not in 200 seeds");
}

/// Without faults an item is handled at one place only, although every member receives it.
#[test]
fn an_item_is_handled_by_the_leader_alone() {
    Sim::run(3, |sim| async move {
        let cluster = Cluster::<Minting>::in_sim(&sim).with::<Minter>(3).start().await.expect("starts");
        cluster.converged().await.expect("as declared");
        let handled = || [0, 1, 2].map(|at| cluster.role::<Minter>(at).status().handled);
        let leader = (0..3).find(|at| handled()[*at] > 0);
        assert!(eventually(SOON, || handled().iter().sum::<u64>() > 50).await);
        let busy = handled().iter().filter(|handled| **handled > 0).count();
        assert_eq!(busy, 1, "only one of them runs handlers: {:?}, {leader:?}", handled());
    });
}
