//! The storage on disk against a model that tells the cache from the platter: the power goes at any operation, and any of
//! what no sync has made safe may be missing.

use std::io::ErrorKind;

use mosaik::{
    groups::storage::{Disk, Storage},
    testing::{Faults, StorageScript},
};
use tempfile::TempDir;

use super::{load, wait};

/// What a power loss leaves, once in many ways: each must read back as one of the images, or as nothing when that may be.
fn check(faults: &Faults, possible: &[StorageScript], what: &str) {
    let mut random = StorageScript::new(7);
    for way in 0..8 {
        let dir = TempDir::new().unwrap();
        // Twice the most that may be missing and the most that may be there, and at random between.
        let pick = |of: usize| match way {
            0 | 1 => 0,
            2 | 3 => of - 1,
            _ => usize::try_from(random.random(of as u64)).unwrap(),
        };
        faults.remains(dir.path(), pick).unwrap();
        let stored = load(dir.path()).unwrap_or_else(|error| panic!("{what}, way {way}: {error}"));
        let found = possible.iter().any(|script| *script.image() == stored);
        assert!(found, "{what}, way {way}: what was reported durable is gone");
        assert_eq!(load(dir.path()).unwrap(), stored, "{what}: reading changes nothing");
    }
}

/// The power goes at each operation of some eventful lives, wipes and restarts among them.
#[test]
fn power_may_go_at_any_operation() {
    for (seed, after) in (0..10).flat_map(|seed| (0..12).map(move |step| (seed, step * 17 + seed % 17))) {
        let dir = TempDir::new().unwrap();
        let faults = Faults::default();
        faults.watch_platter();
        let mut disk = Disk::open_with(dir.path(), faults.clone()).unwrap();
        disk.load().unwrap();
        faults.lose_power(after);
        let mut script = StorageScript::new(seed);
        let mut possible = vec![script.clone()];
        let mut token = 0;
        for step in 0..400 {
            match step % 40 {
                17 => {
                    // Read back and written on.
                    drop(disk);
                    disk = Disk::open_with(dir.path(), faults.clone()).unwrap();
                    assert_eq!(disk.load().unwrap(), *script.image());
                    token = 0;
                }
                37 if seed % 2 == 0 => {
                    disk.wipe().unwrap();
                    disk.load().unwrap();
                    (script, token) = (StorageScript::new(seed + step), 0);
                    possible.push(script.clone());
                }
                _ => {
                    token += 1;
                    disk.submit(token, script.batch());
                    possible.push(script.clone());
                    wait(&mut disk, token).unwrap();
                }
            }
            if faults.is_dark() {
                break;
            }
            // It has come to its end while there was power: from here on this is the least.
            possible.drain(..possible.len() - 1);
        }
        check(&faults, &possible, &format!("seed {seed}, power lost at operation {after}"));
    }
}

/// What a start mends of a power loss is not undone by the next one, whenever that comes.
#[test]
fn power_may_go_twice() {
    for (seed, after) in (0..6).flat_map(|seed| (0..40).map(move |step| (seed, step * 3 + seed % 3))) {
        let what = format!("seed {seed}, power lost at operation {after}");
        let [first, second] = [TempDir::new().unwrap(), TempDir::new().unwrap()];
        let faults = Faults::default();
        faults.watch_platter();
        let mut disk = Disk::open_with(first.path(), faults.clone()).unwrap();
        disk.load().unwrap();
        faults.lose_power(after);
        let mut script = StorageScript::new(seed);
        for token in 1.. {
            disk.submit(token, script.batch());
            wait(&mut disk, token).unwrap();
            if faults.is_dark() {
                break;
            }
        }
        let mut random = StorageScript::new(after);
        faults.remains(second.path(), |of| usize::try_from(random.random(of as u64)).unwrap()).unwrap();
        let faults = Faults::default();
        faults.watch_platter_of(second.path()).unwrap();
        let mut disk = Disk::open_with(second.path(), faults.clone()).unwrap();
        let mut script = StorageScript::resume(seed, disk.load().unwrap());
        check(&faults, &[script.clone()], &format!("{what}, and when it was back"));
        for token in 1..4 {
            disk.submit(token, script.batch());
            wait(&mut disk, token).unwrap();
            check(&faults, &[script.clone()], &format!("{what}, and {token} later"));
        }
    }
}

/// After a sync that failed the cache shows what no later sync brings to the platter. What a start reads, and stands for
/// from then on, is there after a power loss.
#[test]
fn what_was_read_after_a_failed_sync_is_made_safe() {
    for seed in 0..20 {
        let dir = TempDir::new().unwrap();
        let faults = Faults::default();
        faults.watch_platter();
        let mut disk = Disk::open_with(dir.path(), faults.clone()).unwrap();
        disk.load().unwrap();
        faults.fail_sync(seed, ErrorKind::Other);
        let mut script = StorageScript::new(seed);
        for token in 1..1000 {
            disk.submit(token, script.batch());
            if wait(&mut disk, token).is_err() {
                break;
            }
            assert!(token < 500, "the fault never came");
        }
        drop(disk);
        let mut disk = Disk::open_with(dir.path(), faults.clone()).unwrap();
        let mut script = StorageScript::resume(seed, disk.load().unwrap());
        check(&faults, &[script.clone()], &format!("seed {seed}, read back"));
        for token in 1..4 {
            disk.submit(token, script.batch());
            wait(&mut disk, token).unwrap();
            check(&faults, &[script.clone()], &format!("seed {seed}, {token} written on"));
        }
    }
}

/// Segments that nothing needs go in their order, so that what is left has no hole; and they do go.
#[test]
fn long_lives_drop_segments_in_order() {
    for after in (100..2500).step_by(311) {
        let dir = TempDir::new().unwrap();
        let faults = Faults::default();
        faults.watch_platter();
        let mut disk = Disk::open_with(dir.path(), faults.clone()).unwrap();
        disk.load().unwrap();
        faults.lose_power(after);
        let mut script = StorageScript::new(after).with_commands_up_to(2000);
        let mut before = script.clone();
        for token in 1..2000 {
            disk.submit(token, script.batch());
            wait(&mut disk, token).unwrap();
            if faults.is_dark() {
                break;
            }
            before = script.clone();
        }
        assert!(faults.is_dark(), "the power never went");
        check(&faults, &[before, script], &format!("power lost at operation {after}"));
    }
}

/// Groups that are large for their segment, so that it grows all the time: what is written beyond the length that is safe is
/// there with that length or not at all.
#[test]
fn power_may_go_while_a_segment_grows() {
    for after in 0..60 {
        let dir = TempDir::new().unwrap();
        let faults = Faults::default();
        faults.watch_platter();
        let mut disk = Disk::open_with(dir.path(), faults.clone()).unwrap();
        disk.load().unwrap();
        faults.lose_power(after);
        let mut script = StorageScript::new(after).with_commands_up_to(300_000);
        let mut before = script.clone();
        for token in 1.. {
            disk.submit(token, script.batch());
            wait(&mut disk, token).unwrap();
            if faults.is_dark() {
                break;
            }
            before = script.clone();
        }
        check(&faults, &[before, script], &format!("power lost at operation {after}"));
    }
}

/// A directory that is made has to be found again, too. One that is there needs nothing.
#[test]
fn a_directory_that_is_made_is_made_safe() {
    let above = TempDir::new().unwrap();
    let dir = above.path().join("new");
    let faults = Faults::default();
    drop(Disk::open_with(&dir, faults.clone()).unwrap());
    assert_eq!(faults.syncs(), 1, "that of the directory above");
    drop(Disk::open_with(&dir, faults.clone()).unwrap());
    assert_eq!(faults.syncs(), 1);
    faults.fail_sync(0, ErrorKind::Other);
    let failed = Disk::open_with(above.path().join("another"), faults);
    assert!(failed.is_err(), "whether it is there after a power loss is not known");
}
