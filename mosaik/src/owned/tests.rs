//! What becomes of items that are sent under a leadership which is over by then, also when the same member leads again.

use std::time::Duration;

use tokio::time::timeout;

use crate::{
    Network,
    groups::{
        Fence, Group, GroupKey, NoOp, fence,
        raft::{Mutant, Switch},
    },
    streams::Producer,
    testing::{Sim, eventually},
};

const SOON: Duration = Duration::from_mins(1);

struct Member {
    network: Network,
    group: Group<NoOp>,
    numbers: Producer<u64>,
}

async fn members(sim: &Sim) -> Vec<Member> {
    let mut members = Vec::new();
    for n in 0..3 {
        let network = sim.node(&format!("n{n}")).builder("owned").build().await.expect("starts");
        let key = GroupKey::from_secret("a key for an owned stream");
        let group = network.groups().with_key(key).with_state_machine(NoOp).with_size(3).join().await.expect("joins");
        let numbers = network.streams().producer::<u64>().owned_by(&group).build().expect("is new");
        members.push(Member { network, group, numbers });
    }
    members
}

/// The leadership of a member, once it has it.
async fn leads(member: &Member) -> Fence {
    assert!(eventually(SOON, || member.group.fence().is_some()).await, "it comes to lead");
    member.group.fence().expect("it leads")
}

/// Leads, does not, and leads again; what it then sends under its first leadership, as a handler does that was frozen for so long, and
/// under the second. What a consumer gets first.
fn first_of_two() -> (u64, u64) {
    Sim::run(3, |sim| async move {
        let members = members(&sim).await;
        assert!(eventually(SOON, || members.iter().any(|it| it.group.fence().is_some())).await);
        let at = members.iter().position(|it| it.group.fence().is_some()).expect("one leads");
        let (leader, other) = (&members[at], &members[(at + 1) % 3]);
        let consumer = members[(at + 2) % 3].network.streams().consumer::<u64>().owned();
        let mut consumer = consumer.build();
        let old = leads(leader).await;
        for (from, to) in [(leader, other), (other, leader)] {
            from.group.transfer(to.network.local().id()).await.expect("is transferred");
            leads(to).await;
        }
        let sent = fence::scope((leader.group.id(), old), async { leader.numbers.send(1).await }).await;
        sent.expect("it leads");
        leader.numbers.send(2).await.expect("it leads");
        let committed = leader.numbers.committed().await;
        assert_eq!(committed.all(), 2);
        let (item, origin) = timeout(SOON, consumer.recv_from()).await.expect("comes").expect("runs");
        assert_eq!(origin.seq, 0);
        (item, committed.refused)
    })
}

#[test]
fn what_is_sent_under_an_older_leadership_is_refused() {
    assert_eq!(first_of_two(), (2, 1));
}

#[test]
fn a_fence_that_is_taken_late_and_one_that_is_ignored_are_found() {
    for mutant in [Mutant::FenceTakenLate, Mutant::FenceIgnored] {
        let before = Switch::plant(mutant).set_for_this_thread();
        let found = first_of_two();
        before.set_for_this_thread();
        assert_eq!(found, (1, 0), "{mutant:?}: so the test above would fail");
    }
}
