//! Leadership moves when somebody asks for it, prefers a member, or a leader is not ready.

use std::time::Duration;

use mosaik::{
    groups::{LeaderPreference, Outcome, TransferError},
    prelude::*,
    testing::Sim,
};
use tokio::time::{Instant, sleep};

use crate::lab::{Increment, Lab, until, within};

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn id(lab: &Lab, n: usize) -> PeerId {
    lab.members[&n].0.local().id()
}

/// Any member may ask, and every command that was acknowledged before, during and after is there once.
#[test]
fn leadership_goes_where_it_is_asked_to_and_no_write_is_lost() {
    Sim::run(40, async |sim| {
        let lab = Lab::durable(&sim, 3).started(3).await;
        let leader = lab.elected().await;
        let writer = lab.group(leader).clone();
        let writing = async {
            let mut acknowledged = 0;
            while acknowledged < 400 {
                match writer.execute(Increment(1), Consistency::Weak).await {
                    Ok(_) => acknowledged += 1,
                    Err(error) => panic!("a hand-over fails no command: {error}"),
                }
                sleep(millis(2)).await;
            }
            acknowledged
        };
        let handing = async {
            for (asked, to) in [(leader, leader + 1), (leader, leader + 2), (leader + 1, leader), (leader, leader)] {
                let (asked, to) = (asked % 3, to % 3);
                let led = lab.group(to).is_leader();
                let began = Instant::now();
                let done = lab.group(asked).transfer(id(&lab, to)).await.unwrap();
                assert_eq!((done.leader(), done.has_moved()), (id(&lab, to), !led), "{asked} asks for {to}");
                assert_eq!(lab.group(asked).leader(), Some(id(&lab, to)));
                assert!(began.elapsed() < millis(400), "no election timeout: {:?}", began.elapsed());
                until("it knows", || lab.group(to).is_leader()).await;
            }
        };
        let (acknowledged, ()) = tokio::join!(writing, handing);
        lab.all_have(acknowledged).await;
        lab.end().await;
    });
}

#[test]
fn who_cannot_lead_is_refused_with_the_reason_and_the_leader_goes_on() {
    Sim::run(41, async |sim| {
        let mut lab = Lab::new(&sim, 3).started(3).await;
        lab.start_as(3, |builder| builder.with_role(MemberRole::Observer)).await;
        let leader = lab.elected().await;
        let other = (leader + 1) % 3;
        until("the observer is in", || lab.group(leader).members().len() == 4).await;
        let observer = lab.group(other).transfer(id(&lab, 3)).await;
        assert!(matches!(observer, Err(TransferError::NoVote { peer }) if peer == id(&lab, 3)), "{observer:?}");
        let stranger = SecretKey::from_bytes(&[9; 32]).public().into();
        let nobody = lab.group(other).transfer(stranger).await;
        assert!(matches!(nobody, Err(TransferError::NotMember { peer }) if peer == stranger), "{nobody:?}");

        lab.group(other).set_preference(LeaderPreference::Reluctant);
        sleep(millis(300)).await;
        let outranked = lab.group(leader).transfer(id(&lab, other)).await;
        let peer = id(&lab, other);
        assert!(matches!(outranked, Err(TransferError::Outranked { by, .. }) if by != peer), "{outranked:?}");

        let dead = (leader + 2) % 3;
        let peer = id(&lab, dead);
        lab.crash(dead);
        sleep(millis(700)).await;
        let began = Instant::now();
        let silent = lab.group(other).transfer(peer).await;
        let error = silent.unwrap_err();
        assert!(matches!(error, TransferError::Silent { peer: who, .. } if who == peer), "{error}");
        assert!(began.elapsed() < millis(500), "said at once: {:?}", began.elapsed());
        assert_eq!(lab.group(other).leader(), Some(id(&lab, leader)), "it goes on");
        assert_eq!(lab.add(other, 1).await, 1);
    });
}

/// The target is cut off as soon as it is asked to: the caller is told, and the old leader acknowledges again.
#[test]
fn a_target_that_is_cut_off_meanwhile_is_told_as_such() {
    Sim::run(42, async |sim| {
        let lab = Lab::new(&sim, 3).started(3).await;
        let leader = lab.elected().await;
        let (other, target) = ((leader + 1) % 3, (leader + 2) % 3);
        let peer = id(&lab, target);
        sim.partition(&lab.nodes([target]), &lab.nodes([leader, other]));
        let handing = lab.group(other).with_timeout(Duration::from_secs(4));
        let error = within(Duration::from_secs(5), "told", handing.transfer(peer)).await.unwrap_err();
        let told = matches!(error, TransferError::Silent { .. } | TransferError::NotElected { .. });
        assert!(told, "{error}");
        assert_eq!(lab.add(other, 5).await, 5);
        sim.heal();
        until("all follow one leader again", || {
            let leaders: Vec<_> = (0..3).map(|n| lab.group(n).leader()).collect();
            leaders[0].is_some() && leaders.iter().all(|leader| *leader == leaders[0])
        })
        .await;
        assert_eq!(lab.add(target, 1).await, 6);
    });
}

/// A minority knows no leader that could hand over.
#[test]
fn without_a_leader_the_caller_is_told_why() {
    Sim::run(43, async |sim| {
        let lab = Lab::new(&sim, 3).started(3).await;
        let leader = lab.elected().await;
        let alone = (leader + 1) % 3;
        let rest: Vec<usize> = (0..3).filter(|n| *n != alone).collect();
        sim.partition(&lab.nodes([alone]), &lab.nodes(rest.clone()));
        until("it knows", || lab.group(alone).leader().is_none()).await;
        let short = lab.group(alone).with_timeout(Duration::from_secs(2));
        let error = short.transfer(id(&lab, alone)).await.unwrap_err();
        assert!(matches!(&error, TransferError::Timeout { .. }), "{error}");
        assert!(error.to_string().contains("no quorum"), "{error}");
    });
}

/// A preferred member leads again within a second of its return, whoever leads meanwhile.
#[test]
fn the_preferred_member_leads_whenever_it_can() {
    Sim::run(44, async |sim| {
        let mut lab = Lab::durable(&sim, 3).started(3).await;
        let leader = lab.elected().await;
        let favourite = (leader + 1) % 3;
        lab.group(favourite).set_preference(LeaderPreference::Preferred);
        within(Duration::from_secs(1), "it leads", until("leads", || lab.group(favourite).is_leader())).await;
        assert_eq!(lab.add(leader, 1).await, 1);

        lab.crash(favourite);
        let rest: Vec<usize> = (0..3).filter(|n| *n != favourite).collect();
        lab.elected_among(rest.clone()).await;
        assert_eq!(lab.add(rest[0], 10).await, 11);
        lab.start(favourite).await;
        lab.group(favourite).set_preference(LeaderPreference::Preferred);
        until("it has caught up", || lab.group(favourite).status().is_online()).await;
        within(Duration::from_secs(1), "it leads again", until("leads", || lab.group(favourite).is_leader())).await;
        assert_eq!(lab.add(rest[1], 100).await, 111);
        lab.all_have(111).await;
    });
}

/// A preferred leader that is shut down is not handed leadership back by its successor.
#[test]
fn a_preferred_leader_that_goes_is_gone() {
    Sim::run(46, async |sim| {
        let mut lab = Lab::durable(&sim, 3).started(3).await;
        let leader = lab.elected().await;
        lab.group(leader).set_preference(LeaderPreference::Preferred);
        until("it is told", || lab.group(leader).status().preference() == LeaderPreference::Preferred).await;
        sleep(millis(300)).await;
        assert!(lab.group(leader).is_leader());
        lab.shut_down(leader).await;
        let began = Instant::now();
        assert_eq!(lab.add((leader + 1) % 3, 1).await, 1);
        assert!(began.elapsed() < millis(300), "another one leads already: {:?}", began.elapsed());
        lab.end().await;
    });
}

/// A leader that is not ready hands over, once; readiness that flaps moves leadership at most once a minute.
#[test]
fn flapping_readiness_is_damped() {
    Sim::run(45, async |sim| {
        let lab = Lab::new(&sim, 3).started(3).await;
        let leader = lab.elected().await;
        lab.group(leader).set_preference(LeaderPreference::Preferred);
        let group = lab.group(leader);
        group.set_ready(false);
        within(Duration::from_secs(1), "handed over", until("gone", || !group.is_leader())).await;
        group.set_ready(true);
        within(millis(1500), "and back", until("leads", || group.is_leader())).await;
        let mut moves = 0;
        let mut was = group.leader();
        for half_second in 0..1200_u32 {
            group.set_ready(half_second / 4 % 2 == 0);
            sleep(millis(500)).await;
            let now = group.leader();
            moves += usize::from(now.is_some() && now != was);
            was = now.or(was);
        }
        assert!((1..=10).contains(&moves), "{moves} moves in ten minutes");
        assert_ne!(was, Some(id(&lab, leader)), "it does not lead");
        let done = lab.group((leader + 1) % 3).execute(Increment(1), Consistency::Strong).await;
        assert!(
            done.as_ref().is_ok_and(|sum| *sum == 1),
            "{:?}",
            done.map_err(|error| error.outcome() == Outcome::None)
        );
    });
}
