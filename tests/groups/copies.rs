//! Disks that are put back, copied or recovered while others live: what was acknowledged stays, and who is wrong is named.

use std::time::Duration;

use mosaik::{
    PeerId,
    groups::{MemberKind, RecoverError, Refusal, StopReason, WhyOffline},
    testing::{Sim, SimDisk},
};
use tokio::time::{sleep, timeout};

use crate::lab::{Counter, LIMIT, Lab, until};

impl Lab<Counter> {
    fn disk(&self, n: usize) -> SimDisk {
        self.disks.as_ref().unwrap()[&n].clone()
    }

    /// The incarnation of a voter, as another member knows it.
    fn incarnation(&self, at: usize, of: PeerId) -> Option<u64> {
        let voter = |it: &&mosaik::groups::MemberInfo| it.id() == of && it.kind() == MemberKind::Voter;
        self.group(at).members().iter().find(voter).map(mosaik::groups::MemberInfo::incarnation)
    }

    fn has_refused(&self, at: usize, peer: PeerId, reason: &Refusal, by_peer: bool) -> bool {
        let refusals = self.group(at).refusals();
        refusals.iter().any(|it| (it.peer, &it.reason, it.by_peer) == (peer, reason, by_peer))
    }

    /// Two members that do not lead.
    fn followers(leader: usize) -> (usize, usize) {
        ((leader + 1) % 3, (leader + 2) % 3)
    }

    async fn settled(&self, count: usize) {
        until("settled", || {
            let voters = |n| {
                let members = self.group(n).members();
                members.iter().filter(|it| it.kind() == MemberKind::Voter).count()
            };
            self.members.keys().all(|n| voters(*n) == count && self.group(*n).status().is_settled())
        })
        .await;
    }
}

async fn three(sim: &Sim) -> (Lab, usize) {
    let mut lab: Lab = Lab::durable(sim, 3);
    lab.known = 3;
    let lab = lab.started(3).await;
    let leader = lab.elected().await;
    lab.settled(3).await;
    (lab, leader)
}

/// A follower's disk is an older copy. The leader, which had its acknowledgements, refuses it; it begins anew and nothing is
/// lost when the leader is.
#[test]
fn a_follower_whose_disk_was_put_back_begins_anew_and_nothing_is_lost() {
    for seed in 1..=10 {
        Sim::run(seed, async |sim| {
            let (mut lab, leader) = three(&sim).await;
            let (victim, other) = Lab::followers(leader);
            lab.add(leader, 1).await;
            lab.all_have(1).await;
            let copy = lab.disk(victim).copied();
            // The other follower is away: what follows is acknowledged by the leader and the victim alone.
            lab.crash(other);
            for _ in 0..10 {
                lab.add(leader, 1).await;
            }
            let id = lab.node(victim).id();
            let before = lab.incarnation(leader, id).unwrap();
            lab.crash(victim);
            lab.disk(victim).put_back(&copy);
            lab.start(victim).await;
            let leader_id = lab.node(leader).id();
            until("refused by name at both ends", || {
                lab.has_refused(leader, id, &Refusal::OlderCopy, false)
                    && lab.has_refused(victim, leader_id, &Refusal::OlderCopy, true)
            })
            .await;
            lab.start(other).await;
            until("a new incarnation", || lab.incarnation(other, id).is_some_and(|now| now > before)).await;
            lab.settled(3).await;
            lab.crash(leader);
            lab.elected().await;
            assert_eq!(lab.sum(other).await, 11, "seed {seed}: acknowledged commands are gone");
            lab.start(leader).await;
            lab.elected().await;
            lab.all_have(11).await;
            lab.end().await;
        });
    }
}

/// A group without a declared size begins with whoever is alone. Who was refused knows that there is one, however long it is cut off.
#[test]
fn who_has_discarded_its_storage_founds_nothing() {
    for seed in 1..=5 {
        Sim::run(seed, async |sim| {
            let mut lab: Lab = Lab::durable(&sim, 0);
            for n in 0..3 {
                lab.start(n).await;
                lab.elected().await;
            }
            lab.settled(3).await;
            let leader = lab.elected().await;
            let (victim, other) = Lab::followers(leader);
            lab.add(leader, 1).await;
            lab.all_have(1).await;
            let copy = lab.disk(victim).copied();
            lab.crash(other);
            lab.add(leader, 10).await;
            let id = lab.node(victim).id();
            let before = lab.incarnation(leader, id).unwrap();
            lab.crash(victim);
            lab.disk(victim).put_back(&copy);
            lab.start(victim).await;
            let leader_id = lab.node(leader).id();
            // Cut off before it can come back.
            let refused = async {
                while !lab.has_refused(victim, leader_id, &Refusal::OlderCopy, true) {
                    sleep(Duration::from_micros(50)).await;
                }
            };
            timeout(LIMIT, refused).await.unwrap();
            sim.partition(&lab.nodes([victim]), &lab.nodes([leader, other]));
            sleep(Duration::from_secs(30)).await;
            assert_eq!(lab.incarnation(victim, id), None, "seed {seed}: it has founded a cluster of its own");
            sim.heal();
            lab.start(other).await;
            until("a new incarnation", || lab.incarnation(other, id).is_some_and(|now| now > before)).await;
            lab.settled(3).await;
            lab.all_have(11).await;
            lab.end().await;
        });
    }
}

/// Everybody was down meanwhile: what the others have witnessed is on their disks.
#[test]
fn what_was_witnessed_survives_a_restart_of_all() {
    for seed in 1..=5 {
        Sim::run(seed, async |sim| {
            let (mut lab, leader) = three(&sim).await;
            let (victim, other) = Lab::followers(leader);
            lab.add(leader, 1).await;
            lab.all_have(1).await;
            let copy = lab.disk(victim).copied();
            for _ in 0..10 {
                lab.add(victim, 1).await;
            }
            // Witnesses store what they see once a second.
            sleep(Duration::from_secs(3)).await;
            let id = lab.node(victim).id();
            let before = lab.incarnation(leader, id).unwrap();
            for n in 0..3 {
                lab.crash(n);
            }
            lab.disk(victim).put_back(&copy);
            // The copy and the member that may have the least go first.
            for n in [victim, other, leader] {
                lab.start(n).await;
            }
            lab.elected().await;
            until("a new incarnation", || lab.incarnation(other, id).is_some_and(|now| now > before)).await;
            lab.all_have(11).await;
            lab.end().await;
        });
    }
}

/// The log of the copy is as long as it was; only the start was forgotten.
#[test]
fn an_idle_group_notices_a_copy_by_its_start() {
    Sim::run(3, async |sim| {
        let (mut lab, leader) = three(&sim).await;
        let (victim, _) = Lab::followers(leader);
        lab.add(leader, 1).await;
        lab.all_have(1).await;
        let copy = lab.disk(victim).copied();
        // Two later starts.
        for _ in 0..2 {
            lab.crash(victim);
            lab.start(victim).await;
            lab.elected().await;
        }
        lab.crash(victim);
        lab.disk(victim).put_back(&copy);
        lab.start(victim).await;
        let id = lab.node(victim).id();
        until("refused", || lab.has_refused(leader, id, &Refusal::OlderCopy, false)).await;
        lab.elected().await;
        lab.end().await;
    });
}

/// What is not a copy is never taken for one.
#[test]
fn crashes_and_restarts_are_no_copies() {
    for seed in 1..=10 {
        Sim::run(seed, async |sim| {
            let (mut lab, _) = three(&sim).await;
            let lives: Vec<_> = (0..3).map(|n| lab.incarnation(0, lab.node(n).id())).collect();
            let mut sum = 0;
            for round in 0..9 {
                let n = round % 3;
                sum = lab.add(n, 1).await;
                lab.crash(n);
                sum = sum.max(lab.add((n + 1) % 3, 1).await);
                lab.start(n).await;
                lab.elected().await;
            }
            lab.all_have(sum).await;
            lab.settled(3).await;
            for (n, life) in lives.into_iter().enumerate() {
                assert_eq!(lab.incarnation(n, lab.node(n).id()), life, "seed {seed}: n{n} lost its storage");
                let copies = |it: &&mosaik::groups::Refused| {
                    matches!(it.reason, Refusal::OlderCopy | Refusal::SecondStart | Refusal::OldIncarnation)
                };
                let refused: Vec<_> = lab.group(n).refusals().into_iter().filter(|it| copies(&it)).collect();
                assert!(refused.is_empty(), "seed {seed}: {refused:?}");
            }
            lab.end().await;
        });
    }
}

/// A copied data directory beside the original.
#[test]
fn a_copy_that_runs_beside_its_original_is_refused_and_both_say_so() {
    Sim::run(4, async |sim| {
        let (lab, leader) = three(&sim).await;
        let (original, _) = Lab::followers(leader);
        lab.add(leader, 1).await;
        lab.all_have(1).await;
        let copy = lab.disk(original).copied();
        let twin = sim.twin(&lab.node(original), "twin");
        let network = twin.restart(lab.network).with_bootstrap(lab.node(leader).addr()).build().await.unwrap();
        let builder = network.groups().with_key(lab.key.clone()).with_state_machine(Counter::default());
        let group = builder.with_storage(copy).with_size(3).join().await.unwrap();
        let id = lab.node(original).id();
        let said = || group.status().why_offline().map_or_else(String::new, ToString::to_string);
        until("the copy says that it is refused", || said().contains("another start of this member's storage")).await;
        until("the original says so", || lab.group(original).status().is_copied()).await;
        assert!(lab.group(original).status().to_string().contains("a copy of its storage"));
        assert!(lab.has_refused(leader, id, &Refusal::SecondStart, false));
        assert_eq!(lab.add(original, 1).await, 2, "the group goes on, and the original in it");
        assert!(!group.status().is_online());
        network.shutdown().await;
        until("over", || !lab.group(original).status().is_copied()).await;
        lab.elected().await;
        lab.end().await;
    });
}

/// One member cannot reach the original, so it has no sign of life of it. It asks those that have one before it lets the copy in.
#[test]
fn a_copy_is_not_let_in_by_who_has_lost_the_original() {
    for (seed, lost) in [(4, false), (5, true)] {
        Sim::run(seed, async |sim| {
            let (lab, leader) = three(&sim).await;
            let (original, other) = Lab::followers(leader);
            lab.add(leader, 1).await;
            lab.all_have(1).await;
            let copy = lab.disk(original).copied();
            sim.partition(&lab.nodes([original]), &lab.nodes([other]));
            if lost {
                until("the link is given up", || lab.group(other).status().bonds() == 1).await;
            }
            let twin = sim.twin(&lab.node(original), "twin");
            let mut network = twin.restart(lab.network);
            for at in [leader, other] {
                network = network.with_bootstrap(lab.node(at).addr());
            }
            let network = network.build().await.unwrap();
            let builder = network.groups().with_key(lab.key.clone()).with_state_machine(Counter::default());
            let group = builder.with_storage(copy).with_size(3).join().await.unwrap();
            let id = lab.node(original).id();
            until("refused by who has lost the original, too", || {
                [leader, other].iter().all(|at| lab.has_refused(*at, id, &Refusal::SecondStart, false))
            })
            .await;
            until("the original says so", || lab.group(original).status().is_copied()).await;
            assert!(!group.status().is_online());
            assert_eq!(lab.add(original, 1).await, 2, "seed {seed}: the original goes on");
            network.shutdown().await;
            sim.heal();
            lab.elected().await;
            lab.all_have(2).await;
            lab.end().await;
        });
    }
}

/// What an operator does too early.
#[test]
fn a_recovery_asks_who_lives() {
    Sim::run(5, async |sim| {
        let (mut lab, leader) = three(&sim).await;
        let (victim, other) = Lab::followers(leader);
        lab.add(leader, 4).await;
        lab.all_have(4).await;
        lab.shut_down(victim).await;
        let network = lab.node(victim).restart(lab.network).with_bootstrap(lab.node(leader).addr());
        let network = network.build().await.unwrap();
        let refused = lab.builder(victim, &network).recover().await.unwrap_err();
        let RecoverError::Alive { members, .. } = &refused else { panic!("{refused}") };
        let alive = [leader, other].map(|n| lab.node(n).id());
        assert!(!members.is_empty() && members.iter().all(|it| alive.contains(it)), "{refused}");
        assert!(refused.to_string().contains(&format!("{:?}", members[0])), "names who lives: {refused}");
        // Nothing has changed: it joins as if nobody had asked.
        let group = lab.builder(victim, &network).join().await.unwrap();
        lab.members.insert(victim, (network, group));
        lab.elected().await;
        assert_eq!(lab.add(victim, 1).await, 5);
        lab.shut_down(victim).await;

        // By force it is done all the same.
        let network = lab.node(victim).restart(lab.network).with_bootstrap(lab.node(leader).addr());
        let network = network.build().await.unwrap();
        lab.builder(victim, &network).recover_forced().await.unwrap();
        let group = lab.builder(victim, &network).join().await.unwrap();
        lab.members.insert(victim, (network, group));
        until("superseded", || {
            matches!(lab.group(other).status().why_offline(), Some(WhyOffline::Stopped(StopReason::Superseded(_))))
        })
        .await;
    });
}

/// Of the survivors the one with the longer log is to be recovered.
#[test]
fn a_recovery_names_a_survivor_that_has_more() {
    Sim::run(6, async |sim| {
        let mut lab: Lab = Lab::durable(&sim, 5);
        lab.known = 5;
        let mut lab = lab.started(5).await;
        lab.elected().await;
        lab.add(0, 1).await;
        lab.all_have(1).await;
        lab.shut_down(4).await;
        lab.elected().await;
        lab.add(0, 1).await;
        lab.all_have(2).await;
        for n in 0..3 {
            lab.crash(n);
        }
        let network = |lab: &Lab, n: usize| {
            let other = 7 - n;
            lab.node(n).restart(lab.network).with_bootstrap(lab.node(other).addr())
        };
        let behind = network(&lab, 4).build().await.unwrap();
        let refused = lab.builder(4, &behind).recover().await.unwrap_err();
        assert!(matches!(&refused, RecoverError::Alive { members, .. } if *members == [lab.node(3).id()]), "{refused}");
        behind.shutdown().await;
        lab.crash(3);
        let ahead = network(&lab, 3).build().await.unwrap();
        lab.builder(3, &ahead).recover().await.unwrap();
        let group = lab.builder(3, &ahead).join().await.unwrap();
        lab.members.insert(3, (ahead, group));
        lab.elected().await;
        assert_eq!(lab.sum(3).await, 2);
    });
}

/// The leader is gone for good when the copy comes back. A follower is left that has seen more of it; with those who were away
/// it would be a majority without what was acknowledged.
#[test]
fn a_follower_has_witnessed_what_another_one_has() {
    for seed in 1..=10 {
        Sim::run(seed, async |sim| {
            let mut lab: Lab = Lab::durable(&sim, 5);
            lab.known = 5;
            let mut lab = lab.started(5).await;
            let leader = lab.elected().await;
            lab.settled(5).await;
            let [victim, witness, away, also] = [1, 2, 3, 4].map(|by| (leader + by) % 5);
            lab.add(leader, 1).await;
            lab.all_have(1).await;
            let copy = lab.disk(victim).copied();
            lab.crash(away);
            lab.crash(also);
            for _ in 0..10 {
                lab.add(leader, 1).await;
            }
            // Followers tell each other twice a second how far they are durable.
            sleep(Duration::from_secs(1)).await;
            lab.crash(leader);
            lab.crash(victim);
            lab.disk(victim).put_back(&copy);
            for n in [victim, away, also] {
                lab.start(n).await;
            }
            lab.elected().await;
            assert_eq!(lab.sum(witness).await, 11, "seed {seed}: acknowledged commands are gone");
            lab.start(leader).await;
            lab.elected().await;
            lab.all_have(11).await;
            lab.end().await;
        });
    }
}
