//! Stores on the whole stack: every replica is the fold of its primary's history, whatever fails.

mod chain;
mod durable;
mod faults;
mod grown;
mod histories;
mod owned;
mod swarm;

use std::time::Duration;

use mosaik::{
    NetworkId,
    stores::{Position, ReplicaState, StoreError, View},
    streams::Buffer,
    testing::{LinkQuality, Sim},
};
use serde::{Deserialize, Serialize};

use self::{
    chain::{Chain, Link, apply, start},
    histories::Histories,
};
use crate::streams::soon;

/// A replica that is away for a while goes on where it was; one that is away for longer than the ring takes a snapshot again.
#[test]
fn a_replica_knows_whether_it_can_go_on() {
    Sim::run(31, |sim| async move {
        let id = NetworkId::from("resume");
        let (a, b) = (sim.node("a"), sim.node("b"));
        let (na, nb) = (start(&a, id).await, start(&b, id).await);
        let primary =
            na.stores().primary::<Chain>("chain").with_replay(Buffer::items(100).bytes(1000)).build().unwrap();
        for value in 0..50 {
            apply(&primary, value).await;
        }
        let replica = nb.stores().replica::<Chain>("chain").build();
        assert_eq!(replica.state(), ReplicaState::Alone);
        soon("synced", replica.when().synced()).await.unwrap();
        assert_eq!((*replica.read()).clone(), *primary.read());
        for (missing, snapshots, resumed) in [(10, 1, 1), (50_000, 2, 2)] {
            sim.partition(std::slice::from_ref(&a), std::slice::from_ref(&b));
            soon("lost", primary.when().unsubscribed()).await;
            let mut position = apply(&primary, 1).await;
            for value in 1..missing {
                position = apply(&primary, value).await;
            }
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert_eq!(replica.state(), ReplicaState::Alone);
            assert!(replica.read().position() < position, "old, but there");
            sim.heal();
            soon("back", replica.when().reaches(position)).await.unwrap();
            soon("synced", replica.when().synced()).await.unwrap();
            assert_eq!(*replica.read(), *primary.read());
            assert_eq!((replica.stats().snapshots, replica.stats().resumed), (snapshots, resumed));
        }
    });
}

/// A replica that was away for so long that its primary was forgotten does not take itself for synced.
#[test]
fn a_replica_that_forgot_its_primary_lacks_nothing() {
    Sim::run(36, |sim| async move {
        let id = NetworkId::from("forgotten");
        let (a, b) = (sim.node("a"), sim.node("b"));
        let (na, nb) = (start(&a, id).await, start(&b, id).await);
        let primary = chain::primary(&na, 100);
        let replica = nb.stores().replica::<Chain>("chain").build();
        let position = apply(&primary, 1).await;
        soon("first", replica.when().reaches(position)).await.unwrap();
        sim.partition(std::slice::from_ref(&a), std::slice::from_ref(&b));
        soon("lost", primary.when().unsubscribed()).await;
        let position = apply(&primary, 2).await;
        tokio::time::sleep(Duration::from_mins(30)).await;
        sim.heal();
        soon("synced", replica.when().synced()).await.unwrap();
        soon("reached", replica.when().reaches(position)).await.unwrap();
        assert_eq!(*replica.read(), *primary.read());
    });
}

/// A position of a run that is over is never reached, and that is said.
#[test]
fn a_position_that_was_lost_with_its_primary_is_an_error() {
    Sim::run(32, |sim| async move {
        let id = NetworkId::from("superseded");
        let (a, b) = (sim.node("a"), sim.node("b"));
        let (na, nb) = (start(&a, id).await, start(&b, id).await);
        let primary = chain::primary(&na, 100);
        let replica = nb.stores().replica::<Chain>("chain").build();
        let at = apply(&primary, 1).await;
        soon("first", replica.when().reaches(at)).await.unwrap();
        let wanted = Position { seq: at.seq + 1, ..at };
        let waiting = tokio::spawn(replica.when().reaches(wanted));
        a.crash();
        drop((primary, na));
        let na = a.restart(id).build().await.unwrap();
        let primary = chain::primary(&na, 100);
        let new = apply(&primary, 2).await;
        assert!(new.epoch > at.epoch);
        let error = soon("told", waiting).await.unwrap().unwrap_err();
        assert!(matches!(error, StoreError::Superseded { wanted: it, .. } if it == wanted), "{error}");
        soon("the new run", replica.when().reaches(new)).await.unwrap();
        assert_eq!((replica.read().length, replica.stats().snapshots), (1, 2));
        nb.shutdown().await;
        assert_eq!(soon("closed", replica.when().synced()).await, Err(StoreError::Closed));
        assert_eq!(replica.read().length, 1, "it can still be read");
    });
}

/// A field failure: a cache shared between producers that mixes their histories. Two primaries of one store are a mistake; a
/// replica follows one of them, says so, and goes over to the other as a whole.
#[test]
fn two_primaries_are_never_mixed() {
    Sim::run(33, |sim| async move {
        let id = NetworkId::from("two primaries");
        let nodes = [sim.node("a"), sim.node("b")];
        let networks = [start(&nodes[0], id).await, start(&nodes[1], id).await];
        let late = start(&sim.node("late"), id).await;
        let first = chain::primary(&networks[0], 10);
        tokio::time::sleep(Duration::from_millis(5)).await; // so that their epochs differ
        let primaries = [first, chain::primary(&networks[1], 10)];
        let replica = late.stores().replica::<Chain>("chain").build();
        let mut histories = Histories::default();
        primaries.iter().for_each(|primary| histories.begin(primary));
        for value in 0..200 {
            for primary in &primaries {
                let delta = Link { value, ballast: 10 };
                let before = primary.read();
                let position = soon("apply", primary.apply(delta.clone())).await.unwrap();
                histories.applied(position, &before, delta);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            histories.check(&replica);
        }
        soon("synced", replica.when().synced()).await.unwrap();
        assert_eq!((replica.stats().primaries, replica.stats().snapshots), (2, 1));
        let ReplicaState::Synced { primary: followed } = replica.state() else { panic!("{replica:?}") };
        let (dies, stays) = if networks[0].local().id() == followed { (0, 1) } else { (1, 0) };
        nodes[dies].crash();
        let delta = Link { value: 77, ballast: 0 };
        let before = primaries[stays].read();
        let position = soon("apply", primaries[stays].apply(delta.clone())).await.unwrap();
        histories.applied(position, &before, delta);
        let other = networks[stays].local().id();
        while replica.state() != (ReplicaState::Synced { primary: other }) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            histories.check(&replica);
        }
        while replica.read().position() != position {
            tokio::time::sleep(Duration::from_millis(10)).await;
            histories.check(&replica);
        }
        assert_eq!(*replica.read(), *primaries[stays].read());
    });
}

/// A snapshot of some MB over a slow link, while deltas are applied: nobody else waits, and the late joiner lacks nothing.
#[test]
fn a_large_snapshot_holds_nobody_up() {
    Sim::run(34, |sim| async move {
        let id = NetworkId::from("large snapshot");
        sim.default_link(LinkQuality { bandwidth: Some(4_000_000), ..LinkQuality::lan() });
        let (na, nb, nc) =
            (start(&sim.node("a"), id).await, start(&sim.node("b"), id).await, start(&sim.node("c"), id).await);
        let primary = chain::primary(&na, 1000);
        let near = nb.stores().replica::<Chain>("chain").build();
        soon("synced", near.when().synced()).await.unwrap();
        soon("large", primary.apply(Link { value: 0, ballast: 8 << 20 })).await.unwrap();
        let late = nc.stores().replica::<Chain>("chain").build();
        let (mut worst, mut caught) = (Duration::ZERO, 0);
        for value in 0..400 {
            let began = tokio::time::Instant::now();
            let position = soon("apply", primary.apply(Link { value, ballast: 8 << 20 })).await.unwrap();
            soon("folded", near.when().reaches(position)).await.unwrap();
            worst = worst.max(began.elapsed());
            caught += u32::from(matches!(late.state(), ReplicaState::Catching { .. }));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(worst < Duration::from_millis(50), "a delta took {worst:?}");
        assert!(caught > 50, "the snapshot takes two seconds");
        soon("late", late.when().reaches(primary.read().position())).await.unwrap();
        assert!(*late.read() == *primary.read());
        assert_eq!(late.stats().snapshots, 1);
    });
}

/// Both ends declare what they fold, and who may have it is the primary's choice.
#[test]
fn another_view_and_a_peer_that_is_not_admitted_get_nothing() {
    #[derive(Clone, Default, Serialize, Deserialize)]
    struct Other(u64);
    impl View for Other {
        type Delta = Link;
        const NAME: &'static str = "chain";
        const VERSION: u32 = 1;

        fn fold(&mut self, _: Link) {
            self.0 += 1;
        }
    }
    Sim::run(35, |sim| async move {
        let id = NetworkId::from("refused");
        let (na, nb) = (start(&sim.node("a"), id).await, start(&sim.node("b"), id).await);
        let open = chain::primary(&na, 10);
        let closed = na.stores().primary::<Chain>("closed").accept_if(|peer| peer.tags().contains("friend"));
        let closed = closed.build().unwrap();
        assert!(matches!(na.stores().primary::<Chain>("chain").build(), Err(StoreError::Exists { .. })));
        let other = nb.stores().replica::<Other>("chain").build();
        let kept_out = nb.stores().replica::<Chain>("closed").build();
        apply(&open, 1).await;
        let position = apply(&closed, 1).await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!((other.state(), other.read().0), (ReplicaState::Alone, 0));
        assert_eq!((kept_out.state(), kept_out.read().length), (ReplicaState::Alone, 0));
        nb.discovery().add_tags(["friend"]);
        soon("admitted", kept_out.when().reaches(position)).await.unwrap();
        let knows = || na.discovery().catalog().get(na.local().id()).is_some_and(|entry| entry.stores().len() == 2);
        assert!(
            knows() || nb.discovery().catalog().peers().any(|peer| peer.stores().len() == 2),
            "stores are announced"
        );
        drop(closed);
        soon("gone", async {
            while kept_out.state() != ReplicaState::Alone {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
        .await;
    });
}
