//! A group goes on when a member does not: disks that hang, members that come and go, snapshots under way.

use std::{collections::BTreeSet, fs::File, sync::mpsc, time::Duration};

use futures::future::{join, join_all};
use mosaik::{
    groups::storage::Disk,
    prelude::*,
    testing::{Faults, Sim, SimDisk},
};
use tokio::time::{Instant, sleep};

use crate::lab::{Counter, Increment, Lab, until, within};

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn disk(lab: &Lab<Counter>, n: usize) -> SimDisk {
    lab.disks.as_ref().unwrap()[&n].clone()
}

/// Why a member is not online, in words.
fn why(lab: &Lab<Counter>, n: usize) -> String {
    lab.group(n).status().why_offline().map(ToString::to_string).unwrap_or_default()
}

/// Commands through a member, many at a time, for so long. How many were acknowledged, and how many may have been applied.
async fn load(lab: &Lab<Counter>, n: usize, time: Duration) -> (i64, i64) {
    let end = Instant::now() + time;
    let calls = (0..4).map(async |_| {
        let (mut done, mut unknown) = (0, 0);
        while Instant::now() < end {
            let group = lab.group(n).with_timeout(secs(5));
            match group.execute(Increment(1), Consistency::Weak).await {
                Ok(_) => done += 1,
                Err(error) if error.outcome() == mosaik::groups::Outcome::None => {
                    sleep(Duration::from_millis(50)).await;
                }
                Err(_) => unknown += 1,
            }
            sleep(Duration::from_millis(40)).await;
        }
        (done, unknown)
    });
    join_all(calls).await.into_iter().fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1))
}

#[test]
fn a_leader_whose_disk_hangs_gives_up_and_another_leads() {
    Sim::run(61, async |sim| {
        let mut lab = Lab::durable(&sim, 3).started(3).await;
        let leader = lab.elected().await;
        let rest: Vec<usize> = (0..3).filter(|n| *n != leader).collect();
        let disk = disk(&lab, leader);
        disk.set_hung(true);
        let began = Instant::now();
        let story = async {
            let next = || rest.iter().any(|n| lab.group(*n).is_leader()) && !lab.group(leader).is_leader();
            within(secs(60), "another leads", until("another leads", next)).await;
            let took = began.elapsed();
            until("it says why", || why(&lab, leader).contains("disk has not answered for")).await;
            took
        };
        let through = join(load(&lab, leader, secs(60)), load(&lab, rest[0], secs(60)));
        let (took, ((a, a_unknown), (b, b_unknown))) = join(story, through).await;
        assert!(took <= secs(5), "another leads only after {took:?}");
        let (batches, bytes) = (disk.waiting(), disk.waiting_bytes());
        assert!(batches <= 16_500 && bytes <= 70 << 20, "{batches} batches, {bytes} bytes wait for the disk");
        assert!(b > 1_000, "{b} commands in a minute");
        let sum = lab.sum(rest[0]).await;
        assert!((a + b..=a + b + a_unknown + b_unknown).contains(&sum), "{sum}: {a} {a_unknown} {b} {b_unknown}");

        let began = Instant::now();
        lab.shut_down(leader).await;
        assert!(began.elapsed() <= secs(2), "shut down after {:?}", began.elapsed());
        disk.crash(1);
        disk.set_hung(false);
        lab.start(leader).await;
        lab.elected().await;
        lab.all_have(sum).await;
        lab.end().await;
    });
}

#[test]
fn a_sole_member_whose_disk_hangs_says_so_and_goes_on_afterwards() {
    Sim::run(62, async |sim| {
        let lab = Lab::durable(&sim, 1).started(1).await;
        lab.elected().await;
        assert_eq!(lab.add(0, 1).await, 1);
        let disk = disk(&lab, 0);
        disk.set_hung(true);
        let error = lab.group(0).with_timeout(secs(6)).execute(Increment(1), Consistency::Weak).await.unwrap_err();
        assert!(error.to_string().contains("disk has not answered for"), "{error}");
        assert!(!lab.group(0).is_leader());
        disk.set_hung(false);
        within(secs(5), "it leads again", lab.elected()).await;
        assert!((2..=3).contains(&lab.add(0, 1).await));
        assert_eq!(why(&lab, 0), "");
        lab.end().await;
    });
}

#[test]
fn a_follower_whose_disk_hangs_harms_nobody() {
    Sim::run(63, async |sim| {
        let lab = Lab::durable(&sim, 3).started(3).await;
        let leader = lab.elected().await;
        let follower = (leader + 1) % 3;
        let term = lab.group(leader).status().term();
        let disk = disk(&lab, follower);
        disk.set_hung(true);
        let (done, unknown) = load(&lab, leader, secs(60)).await;
        assert!(done > 1_000 && unknown == 0, "{done} commands in a minute, {unknown} of unknown outcome");
        assert!(why(&lab, follower).contains("disk has not answered for"), "{:?}", why(&lab, follower));
        // Cut off from the leader, it would campaign.
        sim.partition(&lab.nodes([leader]), &lab.nodes([follower]));
        sleep(secs(10)).await;
        sim.heal();
        sleep(secs(5)).await;
        let status = lab.group(leader).status();
        assert!(lab.group(leader).is_leader() && status.term() == term, "{status}");
        disk.set_hung(false);
        lab.elected().await;
        lab.all_have(done).await;
        until("nothing waits", || disk.waiting() == 0).await;
        lab.end().await;
    });
}

/// In real time, on a real directory: the thread that writes is left behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_does_not_wait_for_a_disk_that_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let network = Network::new(NetworkId::random()).await.unwrap();
    let group = network.groups().with_key(GroupKey::random()).with_state_machine(Counter::default()).with_size(1);
    let disk = Disk::open_with(dir.path(), faults.clone()).unwrap();
    let group = group.with_storage(disk).join().await.unwrap();
    group.when().is_leader().await;
    group.execute(Increment(1), Consistency::Weak).await.unwrap();
    faults.hang(true);
    let stuck = group.with_timeout(secs(4)).execute(Increment(1), Consistency::Weak).await.unwrap_err();
    assert!(stuck.to_string().contains("disk has not answered for"), "{stuck}");
    // A thread of its own notices a shutdown that blocks the runtime.
    let (sender, ended) = mpsc::channel();
    let shutdown = tokio::spawn(async move {
        network.shutdown().await;
        sender.send(()).unwrap();
    });
    let in_time = tokio::task::spawn_blocking(move || ended.recv_timeout(secs(10)).is_ok()).await.unwrap();
    // Nobody else may have the directory as long as its thread lives.
    let locked = File::open(dir.path().join("lock")).unwrap().try_lock().is_err();
    faults.hang(false);
    shutdown.await.unwrap();
    assert!(in_time, "the shutdown waits for the disk");
    assert!(locked, "the directory was given up with a write under way");
    until("the thread has ended", || Disk::open(dir.path()).is_ok()).await;
}

#[test]
fn members_do_not_all_compact_at_one_index() {
    Sim::run(64, async |sim| {
        let mut lab = Lab::durable(&sim, 3);
        for n in 0..3 {
            lab.start_as(n, |builder| builder.with_log_limit(4 << 10)).await;
        }
        let leader = lab.elected().await;
        let disks: Vec<SimDisk> = (0..3).map(|n| disk(&lab, n)).collect();
        let mut seen = vec![BTreeSet::new(); 3];
        for _ in 0..1500 {
            lab.add(leader, 1).await;
            for (disk, seen) in disks.iter().zip(&mut seen) {
                seen.extend(disk.durable().snapshot.map(|it| it.manifest.position.index));
            }
        }
        let all: Vec<_> = seen[0].iter().filter(|index| seen[1].contains(index) && seen[2].contains(index)).collect();
        let least = seen.iter().map(BTreeSet::len).min().unwrap();
        assert!(least >= 10, "{seen:?}");
        assert!(all.len() * 4 < least, "{} of {least} snapshots are of one index at all members", all.len());
        lab.end().await;
    });
}

#[test]
fn members_with_fresh_identities_come_and_go() {
    Sim::run(65, async |sim| {
        let mut lab = Lab::new(&sim, 3).started(3).await;
        lab.elected().await;
        for n in 3..12 {
            lab.start(n).await;
            within(secs(20), "taken in", lab.group(n).when().is_online()).await;
            assert_eq!(lab.add(n, 1).await, i64::try_from(n).unwrap() - 2);
            lab.crash(n);
            sleep(secs(1)).await;
        }
        lab.elected().await;
        lab.end().await;
    });
}
