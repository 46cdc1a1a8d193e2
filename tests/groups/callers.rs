//! Nodes that call a group and are no members: what they get, and that their coming and going is no matter of the group.

use std::time::Duration;

use futures::future::join_all;
use mosaik::{
    groups::{ApplyContext, MemberKind, Outcome, Snapshots, StateMachine},
    prelude::*,
    testing::{LinkQuality, Sim},
};
use tokio::time::{Instant, sleep};

use crate::lab::{Counter, Increment, LIMIT, Lab, until, within};

/// A node that calls the group of the lab.
async fn front(lab: &Lab, n: usize) -> (Network, GroupClient<Counter>) {
    let mut node = lab.sim.node(&format!("f{n}")).restart(lab.network);
    for member in 0..lab.known {
        node = node.with_bootstrap(lab.node(member).addr());
    }
    let network = node.build().await.unwrap();
    let client = network.groups().client::<Counter>(&lab.key);
    (network, client)
}

fn voters(lab: &Lab, n: usize) -> usize {
    lab.group(n).members().iter().filter(|member| member.kind() == MemberKind::Voter).count()
}

/// FAULTS G11: front ends were voters, and the group lost its quorum when they were all scaled down. As clients they are
/// nothing to it.
#[test]
fn g11_front_ends_that_are_scaled_down_together_leave_the_group_unharmed() {
    Sim::run(60, async |sim| {
        let lab = Lab::new(&sim, 3).started(3).await;
        let leader = lab.elected().await;
        let mut fronts = Vec::new();
        for n in 0..7 {
            fronts.push(front(&lab, n).await);
        }
        let calls = fronts.iter().map(|(_, client)| client.execute(Increment(1)));
        let mut outputs: Vec<i64> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
        outputs.sort_unstable();
        assert_eq!(outputs, (1..=7).collect::<Vec<_>>());
        assert_eq!(lab.group(leader).members().len(), 3, "none of them is a member");
        assert_eq!(voters(&lab, leader), 3);

        let term = lab.group(leader).status().term();
        for n in 0..7 {
            sim.node(&format!("f{n}")).crash();
        }
        fronts.clear();
        assert_eq!(lab.add((leader + 1) % 3, 1).await, 8, "at once");
        // Longer than a member may be silent before it loses its vote.
        sleep(Duration::from_secs(45)).await;
        let status = lab.group(leader).status();
        assert!(status.is_online() && lab.group(leader).is_leader(), "{status}");
        assert_eq!((status.term(), voters(&lab, leader)), (term, 3), "nobody noticed");
        let (network, client) = front(&lab, 7).await;
        assert_eq!(client.execute(Increment(1)).await.unwrap(), 9);
        network.shutdown().await;
        lab.all_have(9).await;
        lab.end().await;
    });
}

/// What a client was told is done is done once, whoever leads and however often that changes.
#[test]
fn commands_of_a_client_are_applied_exactly_once_over_changes_of_leader() {
    Sim::run(61, async |sim| {
        let mut lab = Lab::durable(&sim, 3).started(3).await;
        lab.elected().await;
        let (network, client) = front(&lab, 0).await;
        let client = client.with_timeout(Duration::from_secs(30));
        let (mut done, mut unknown) = (0, 0);
        for round in 0..4 {
            let calls: Vec<_> = (0..50).map(|_| client.execute(Increment(1))).collect();
            let leader = lab.elected().await;
            let (results, ()) = tokio::join!(join_all(calls), async {
                if round % 2 == 0 {
                    lab.crash(leader);
                    sleep(Duration::from_secs(4)).await;
                    lab.start(leader).await;
                } else {
                    let to = lab.members[&((leader + 1) % 3)].0.local().id();
                    lab.group(leader).transfer(to).await.unwrap();
                }
            });
            for result in results {
                match result {
                    Ok(_) => done += 1,
                    Err(error) if error.outcome() == Outcome::Unknown => unknown += 1,
                    Err(_) => {}
                }
            }
        }
        assert_eq!(done + unknown, 200, "with so much time none fails: {done} done, {unknown} unknown");
        assert_eq!(unknown, 0, "a client that lives learns the outcome");
        lab.elected().await;
        lab.all_have(done).await;
        network.shutdown().await;
    });
}

#[test]
fn commands_of_one_client_keep_their_order_and_its_reads_see_them() {
    Sim::run(62, async |sim| {
        let lab = Lab::new(&sim, 3).started(3).await;
        lab.elected().await;
        let (network, client) = front(&lab, 0).await;
        let calls = (0..500).map(|_| client.execute(Increment(1)));
        let outputs: Vec<i64> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(outputs, (1..=500).collect::<Vec<_>>());
        let strong = client.query((), Consistency::Strong).await.unwrap();
        assert_eq!(*strong, 500);
        let again = client.query_at_least((), strong.at()).await.unwrap();
        assert!(*again == 500 && again.at() >= strong.at());
        let weak = client.query((), Consistency::Weak).await.unwrap();
        assert!(*weak <= 500 && *weak >= 0);
        network.shutdown().await;
        lab.end().await;
    });
}

/// The nearest member answers a weak query; when it is frozen, another one does.
#[test]
fn weak_queries_go_to_the_nearest_member_and_past_a_frozen_one() {
    Sim::run(63, async |sim| {
        let lab = Lab::new(&sim, 3).started(3).await;
        let leader = lab.elected().await;
        let near = (leader + 1) % 3;
        let here = sim.node("f0");
        for n in 0..3 {
            let one_way = Duration::from_millis(if n == near { 1 } else { 40 });
            sim.link(&here, &lab.node(n), LinkQuality::lan().with_latency(one_way));
        }
        let (network, client) = front(&lab, 0).await;
        client.execute(Increment(3)).await.unwrap();
        until("it has links to all", || client.members().len() == 3).await;
        lab.all_have(3).await;
        // Round-trip times are known after a few exchanges.
        for _ in 0..20 {
            client.query((), Consistency::Weak).await.unwrap();
        }
        let began = Instant::now();
        assert_eq!(*client.query((), Consistency::Weak).await.unwrap(), 3);
        let took = began.elapsed();
        assert!(took < Duration::from_millis(20), "asked far away: {took:?}");
        lab.node(near).pause();
        let began = Instant::now();
        assert_eq!(*client.query((), Consistency::Weak).await.unwrap(), 3);
        assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
        lab.node(near).resume();
        network.shutdown().await;
    });
}

/// Another key, another version of the machine, and nobody there: each is said to the caller.
#[test]
fn who_is_not_let_in_is_told_why() {
    Sim::run(64, async |sim| {
        let lab = Lab::new(&sim, 3).started(3).await;
        lab.elected().await;
        let (network, _) = front(&lab, 0).await;
        let short = Duration::from_secs(3);

        let stranger = network.groups().client::<Counter>(&GroupKey::from_secret("another")).with_timeout(short);
        let error = stranger.execute(Increment(1)).await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::None, "{error}");
        assert!(error.to_string().contains("no member of the group is known"), "{error}");

        let newer = network.groups().client::<Newer>(&lab.key).with_timeout(short);
        let error = newer.execute(Increment(1)).await.unwrap_err();
        assert!(error.to_string().contains("version 0 of the machine, this client version 1"), "{error}");
        let error = newer.query((), Consistency::Weak).await.unwrap_err();
        assert!(error.to_string().contains("this client version 1"), "{error}");
        assert!(newer.members().is_empty());

        let client = network.groups().client::<Counter>(&lab.key);
        assert_eq!(client.execute(Increment(1)).await.unwrap(), 1, "nothing else was applied");
        network.shutdown().await;
        let error = client.execute(Increment(1)).await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::None, "{error}");
        lab.end().await;
    });
}

/// Cut off from all members a client waits, and goes on when they are there again.
#[test]
fn a_client_that_was_cut_off_goes_on() {
    Sim::run(65, async |sim| {
        let lab = Lab { known: 3, ..Lab::new(&sim, 3) }.started(3).await;
        lab.elected().await;
        let (network, client) = front(&lab, 0).await;
        assert_eq!(client.execute(Increment(1)).await.unwrap(), 1);
        sim.partition(&[sim.node("f0")], &lab.nodes(0..3));
        let waiting = client.with_timeout(LIMIT);
        let (done, ()) = tokio::join!(waiting.execute(Increment(1)), async {
            sleep(Duration::from_secs(8)).await;
            assert!(client.members().is_empty(), "the links are known to be gone");
            sim.heal();
        });
        assert_eq!(done.unwrap(), 2);
        within(LIMIT, "connected", client.connected()).await;
        network.shutdown().await;
        lab.end().await;
    });
}

/// The counter as its next version would be.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Newer(Counter);

impl StateMachine for Newer {
    type Command = Increment;
    type Output = i64;
    type Query = ();
    type QueryResult = i64;
    const NAME: &'static str = "counter";
    const VERSION: u32 = 1;

    fn apply(&mut self, command: Increment, context: &ApplyContext) -> i64 {
        self.0.apply(command, context)
    }

    fn query(&self, (): ()) -> i64 {
        self.0.query(())
    }

    fn snapshots() -> Snapshots<Self> {
        Snapshots::cloned()
    }
}
