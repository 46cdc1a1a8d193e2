//! Storages against their contract, and the one on disk against everything that happens to files.
//!
//! `cargo test --release --test groups storage::killed_two_hundred_times -- --ignored` is the long kill loop.

mod damage;
mod kill;
mod platter;

use std::{
    future::poll_fn,
    io::ErrorKind,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process,
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use futures::executor::block_on;
use mosaik::{
    builtin::InMemory,
    groups::{
        raft::{Ballot, Command, Entry, HardState, Member, NodeId, Payload, SessionId, Stored, Token, Write},
        storage::{Disk, Storage, StorageError, recover},
    },
    testing::{Fault, Faults, Faulty, SimDisk, StorageScript, storage_conformance},
};
use tempfile::TempDir;

/// Waits until everything up to the token is durable.
fn wait(storage: &mut impl Storage, token: Token) -> Result<(), StorageError> {
    while block_on(poll_fn(|cx| storage.poll_durable(cx)))? < token {}
    Ok(())
}

fn load(dir: &Path) -> Result<Stored, StorageError> {
    Disk::open(dir)?.load()
}

fn size(dir: &Path) -> u64 {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

#[test]
fn storages_keep_the_contract() {
    storage_conformance(InMemory::default);
    let disk = SimDisk::new();
    storage_conformance(|| disk.clone());
    let dir = TempDir::new().unwrap();
    storage_conformance(|| Disk::open(dir.path()).unwrap());
    storage_conformance(|| Faulty::new(Disk::open(dir.path()).unwrap(), Fault::None));
}

/// The suite sees through every lie.
#[test]
fn the_contract_is_checked() {
    for fault in [Fault::Error(3), Fault::Full(9), Fault::LostTail(1), Fault::LostTail(4), Fault::Torn, Fault::BitFlip]
    {
        let disk = SimDisk::new();
        let run = || storage_conformance(|| Faulty::new(disk.clone(), fault));
        assert!(catch_unwind(AssertUnwindSafe(run)).is_err(), "{fault:?} passes");
    }
}

#[test]
fn a_directory_belongs_to_one_storage() {
    let dir = TempDir::new().unwrap();
    let first = Disk::open(dir.path().join("new/one")).unwrap();
    let refused = Disk::open(dir.path().join("new/one")).unwrap_err();
    assert!(matches!(refused, StorageError::InUse { .. }), "{refused}");
    drop(first);
    Disk::open(dir.path().join("new/one")).unwrap();
}

/// Also while the process starts others, which for a moment have all its files open.
#[test]
fn a_dropped_storage_lets_its_directory_go() {
    let dir = TempDir::new().unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    process::Command::new("true").status().unwrap();
                }
            });
        }
        let refused = (0..2000).filter(|_| Disk::open(dir.path()).is_err()).count();
        stop.store(true, Ordering::Relaxed);
        assert_eq!(refused, 0, "of 2000 openings");
    });
}

#[test]
fn misuse_is_an_error() {
    let dir = TempDir::new().unwrap();
    let mut disk = Disk::open(dir.path()).unwrap();
    disk.submit(1, Vec::new());
    assert!(matches!(wait(&mut disk, 1), Err(StorageError::Misuse(_))));
    disk.wipe().unwrap();
    disk.load().unwrap();
    assert!(matches!(disk.load(), Err(StorageError::Misuse(_))));
    let mut script = StorageScript::new(1);
    script.commands(5, 10);
    disk.submit(1, script.commands(1, 10));
    let error = wait(&mut disk, 1).unwrap_err();
    assert!(error.to_string().contains("hole"), "{error}");
}

/// Each operation on the file fails once, at each point of some eventful lives: what was reported durable stays.
#[test]
fn failing_writes_and_syncs_lose_nothing() {
    for (sync, seed) in (0..60).flat_map(|seed| [(false, seed), (true, seed)]) {
        let dir = TempDir::new().unwrap();
        let faults = Faults::default();
        let mut disk = Disk::open_with(dir.path(), faults.clone()).unwrap();
        assert_eq!(disk.load().unwrap(), Stored::default());
        let mut possible = vec![StorageScript::new(seed)];
        let after = seed / 2;
        if sync {
            faults.fail_sync(after, ErrorKind::Other);
        } else {
            faults.fail_write(after, ErrorKind::Other);
        }
        let (mut reported, mut token) = (0, 0);
        let error = loop {
            let mut script = possible[possible.len() - 1].clone();
            token += 1;
            disk.submit(token, script.batch());
            possible.push(script);
            match wait(&mut disk, token) {
                Ok(()) => reported = token,
                Err(error) => break error,
            }
            assert!(token < 1000, "the fault never came");
        };
        assert!(matches!(error, StorageError::Io { .. }), "{error}");
        disk.submit(token + 1, vec![Write::Hard(HardState::default())]);
        let again = wait(&mut disk, token + 1).unwrap_err();
        assert_eq!(again.to_string(), error.to_string(), "once failed, always failed");
        drop(disk);
        let stored = load(dir.path()).unwrap();
        let found = possible[reported as usize..].iter().any(|script| *script.image() == stored);
        assert!(found, "seed {seed}, sync {sync}: {token} submitted, {reported} reported");
        assert_eq!(load(dir.path()).unwrap(), stored, "reading changes nothing");
    }
}

#[test]
fn a_full_disk_stops_the_member_and_loses_nothing() {
    for room in [0, 100, 5_000, 1_100_000, 2_500_000] {
        let dir = TempDir::new().unwrap();
        let faults = Faults::default();
        let mut disk = Disk::open_with(dir.path(), faults.clone()).unwrap();
        disk.load().unwrap();
        faults.leave_room(room);
        let mut script = StorageScript::new(room);
        let (mut reported, mut token) = (script.image().clone(), 0);
        let error = loop {
            token += 1;
            disk.submit(token, script.commands(20, 2000));
            match wait(&mut disk, token) {
                Ok(()) => reported = script.image().clone(),
                Err(error) => break error,
            }
        };
        assert!(
            matches!(&error, StorageError::Io { source, .. } if source.kind() == ErrorKind::StorageFull),
            "{error}"
        );
        drop(disk);
        let stored = load(dir.path()).unwrap();
        assert!(stored == reported || stored == *script.image(), "room {room}");
    }
}

/// Batches that wait go out together.
#[test]
fn group_commit() {
    let dir = TempDir::new().unwrap();
    let faults = Faults::default();
    let mut disk = Disk::open_with(dir.path(), faults.clone()).unwrap();
    disk.load().unwrap();
    faults.slow_down(Duration::from_millis(50));
    let before = faults.syncs();
    let mut script = StorageScript::new(1);
    for token in 1..=500 {
        disk.submit(token, script.commands(1, 10));
    }
    wait(&mut disk, 500).unwrap();
    assert!(faults.syncs() - before <= 5, "{} syncs", faults.syncs() - before);
}

/// Snapshots give space back, and what they do not stand for stays.
#[test]
fn snapshots_drop_old_segments() {
    let dir = TempDir::new().unwrap();
    let mut disk = Disk::open(dir.path()).unwrap();
    disk.load().unwrap();
    let mut script = StorageScript::new(3).with_commands_up_to(20_000);
    for token in 1..=600 {
        disk.submit(token, script.batch());
        wait(&mut disk, token).unwrap();
    }
    let held = size(dir.path());
    assert!(held < 12 << 20, "{held} bytes");
    drop(disk);
    assert_eq!(load(dir.path()).unwrap(), *script.image());
}

/// A log without snapshots goes on in new segments.
#[test]
fn long_logs_have_several_segments() {
    let dir = TempDir::new().unwrap();
    let mut disk = Disk::open(dir.path()).unwrap();
    disk.load().unwrap();
    let body = Bytes::from(vec![7; 1 << 20]);
    let mut log: Vec<Entry> = Vec::new();
    for index in 1..=140 {
        let command =
            Command { session: SessionId(1), opened: 0, sequence: index, settled: 0, attempted: 0, body: body.clone() };
        let hash = log.last().map(|entry| entry.hash).unwrap_or_default();
        log.push(Entry::after(&hash, index, 1, (0, 0), Payload::Command(command)));
        disk.submit(index, vec![Write::Replace(vec![log[log.len() - 1].clone()])]);
    }
    wait(&mut disk, 140).unwrap();
    drop(disk);
    let segments = || std::fs::read_dir(dir.path()).unwrap().count() - 1;
    assert_eq!(segments(), 3);
    assert!(load(dir.path()).unwrap().entries == log);

    // A segment without which the log is not whole.
    for missing in ["0000000000000001.log", "0000000000000002.log", "0000000000000003.log"] {
        let (path, away) = (dir.path().join(missing), dir.path().join("away"));
        std::fs::rename(&path, &away).unwrap();
        let error = load(dir.path()).unwrap_err();
        assert!(matches!(error, StorageError::Damaged { .. }), "{missing}: {error}");
        std::fs::rename(&away, &path).unwrap();
    }
    assert!(load(dir.path()).unwrap().entries == log);

    // A seal that never reached the disk, although the log went on: the numbers show that nothing else is missing.
    let path = dir.path().join("0000000000000001.log");
    let mut bytes = std::fs::read(&path).unwrap();
    let seal = bytes.chunks(512).rposition(|sector| sector.iter().any(|byte| *byte != 0)).unwrap();
    bytes[seal * 512..][..512].fill(0);
    std::fs::write(&path, &bytes).unwrap();
    assert!(load(dir.path()).unwrap().entries == log);

    // Truncation reaches back into an older segment; a later snapshot frees the space.
    let mut disk = Disk::open(dir.path()).unwrap();
    let mut script = StorageScript::resume(1, disk.load().unwrap());
    let cut = Entry::after(&log[4].hash, 6, 2, (0, 0), Payload::Noop);
    disk.submit(1, vec![Write::Replace(vec![cut.clone()])]);
    wait(&mut disk, 1).unwrap();
    drop(disk);
    let stored = load(dir.path()).unwrap();
    assert_eq!(stored.entries.len(), 6);
    assert_eq!(stored.entries[5], cut);
    script = StorageScript::resume(script.random(9), stored);
    let mut disk = Disk::open(dir.path()).unwrap();
    disk.load().unwrap();
    for token in 1..=200 {
        disk.submit(token, script.batch());
    }
    wait(&mut disk, 200).unwrap();
    assert!(size(dir.path()) < 80 << 20, "{}", size(dir.path()));
    drop(disk);
    assert_eq!(load(dir.path()).unwrap(), *script.image());
}

#[test]
fn forced_recovery_is_durable() {
    let dir = TempDir::new().unwrap();
    let member = |n: u8, incarnation| Member { node: NodeId::from_bytes([n; 32]), incarnation };
    let blank = recover(Disk::open(dir.path()).unwrap(), member(1, 2), 5);
    assert!(block_on(blank).unwrap().is_none());

    let ballot =
        Ballot { proposer: member(1, 1), number: 1, founders: (1..=3).map(|n| member(n, 1)).collect(), declared: 3 };
    let hard = HardState { cluster: Some(ballot.cluster()), incarnation: 1, term: 4, voted: None, commit: 1 };
    let mut disk = Disk::open(dir.path()).unwrap();
    disk.load().unwrap();
    disk.submit(1, vec![Write::Hard(hard), Write::Replace(vec![ballot.genesis()])]);
    wait(&mut disk, 1).unwrap();
    drop(disk);

    let cluster = block_on(recover(Disk::open(dir.path()).unwrap(), member(1, 1), 5)).unwrap();
    let stored = load(dir.path()).unwrap();
    assert_ne!(cluster, Some(ballot.cluster()));
    assert_eq!((stored.hard.cluster, stored.hard.term, stored.entries.len()), (cluster, 5, 2));
}

/// The simulated disk loses what a crash loses, takes its time, and a life that is over has no effect.
#[test]
fn simulated_disks() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let disk = SimDisk::new().with_latency(Duration::from_millis(7));
        let mut life = disk.clone();
        life.load().unwrap();
        let mut script = StorageScript::new(1);
        let start = tokio::time::Instant::now();
        life.submit(1, script.commands(3, 9));
        assert_eq!(poll_fn(|cx| life.poll_durable(cx)).await.unwrap(), 1);
        assert_eq!(start.elapsed(), Duration::from_millis(7));
        let durable = script.image().clone();
        life.submit(2, script.commands(1, 9));
        let survives = script.image().clone();
        life.submit(3, script.commands(1, 9));
        assert_eq!(disk.durable(), durable);
        disk.crash(1);
        let mut next = disk.clone();
        assert_eq!(next.load().unwrap(), survives);
        life.submit(4, script.commands(1, 9));
        assert_eq!(disk.waiting(), 0);
        assert!(life.poll_durable(&mut Context::from_waker(Waker::noop())).is_pending());

        disk.fail_next_sync(ErrorKind::Other);
        next.submit(1, Vec::new());
        poll_fn(|cx| next.poll_durable(cx)).await.unwrap_err();
        poll_fn(|cx| next.poll_durable(cx)).await.unwrap_err();
        disk.damage();
        next.load().unwrap_err();
        next.wipe().unwrap();
        assert_eq!(next.load().unwrap(), Stored::default());

        let mut slow = Faulty::new(InMemory::default(), Fault::Slow(Duration::from_secs(3)));
        let start = tokio::time::Instant::now();
        slow.submit(1, Vec::new());
        assert!(matches!(poll_fn(|cx| slow.poll_durable(cx)).await, Ok(1)));
        assert_eq!(start.elapsed(), Duration::from_secs(3));
        assert!(matches!(slow.poll_durable(&mut Context::from_waker(Waker::noop())), Poll::Pending));
    });
}
