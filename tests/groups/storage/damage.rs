//! Damage to the files of a store: cut, flipped, torn. Whatever was reported durable is there, or there is an error that
//! says where.

use std::{fs, path::PathBuf};

use mosaik::{
    groups::{
        raft::Stored,
        storage::{Disk, Storage, StorageError},
    },
    testing::StorageScript,
};
use tempfile::TempDir;

use super::{load, wait};

const SECTOR: usize = 512;

/// One segment, as its used bytes and its length.
struct Store {
    name: &'static str,
    used: Vec<u8>,
    len: u64,
    image: Stored,
    scratch: TempDir,
}

impl Store {
    /// Runs a store through some batches and takes a copy while it is open.
    fn new(batches: u64) -> Self {
        let dir = TempDir::new().unwrap();
        let mut disk = Disk::open(dir.path()).unwrap();
        disk.load().unwrap();
        let mut script = StorageScript::new(0);
        for token in 1..=batches {
            let size = [20, 700, 0, 1300][token as usize % 4];
            disk.submit(token, script.commands(1 + token % 2, size));
            wait(&mut disk, token).unwrap();
        }
        let name = "0000000000000001.log";
        let mut used = fs::read(dir.path().join(name)).unwrap();
        let len = used.len() as u64;
        let end = used.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        used.truncate(end.next_multiple_of(SECTOR));
        Self { name, used, len, image: script.image().clone(), scratch: TempDir::new().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.scratch.path().join(self.name)
    }

    /// What is read from these bytes in a file of that length.
    fn read(&self, used: &[u8], len: u64) -> Result<Stored, StorageError> {
        fs::write(self.path(), used).unwrap();
        fs::File::options().write(true).open(self.path()).unwrap().set_len(len).unwrap();
        load(self.scratch.path())
    }

    /// Everything is there, or the error names the file.
    fn check(&self, used: &[u8], len: u64, what: &str) -> bool {
        match self.read(used, len) {
            Ok(stored) => {
                assert!(stored == self.image, "{what}: something is silently missing");
                true
            }
            Err(StorageError::Damaged { path, offset, .. }) => {
                assert_eq!(path, self.path(), "{what}");
                assert!(offset <= len.max(40), "{what}: offset {offset}");
                false
            }
            Err(StorageError::Version { .. }) => false,
            Err(error) => panic!("{what}: {error}"),
        }
    }
}

#[test]
fn cut_files_are_noticed() {
    let store = Store::new(12);
    assert!(store.check(&store.used, store.len, "intact"));
    let end = store.used.len();
    let mut noticed = 0;
    // Every byte of the last records, some of the others.
    for len in (0..end).filter(|len| *len + 3 * SECTOR > end || len % 61 == 0) {
        noticed += usize::from(!store.check(&store.used[..len], len as u64, &format!("cut at {len}")));
    }
    // The marker's sector alone may go: the group before it is whole.
    assert!(noticed > SECTOR, "{noticed}");
    assert!(store.check(&store.used, end as u64 + 700, "cut behind the last record"));
}

#[test]
fn flipped_bits_are_noticed() {
    let store = Store::new(12);
    let mut used = store.used.clone();
    let end = used.len();
    for at in (0..end).filter(|at| at + 3 * SECTOR > end || at % 29 == 0) {
        let bit = 1 << (at % 8);
        used[at] ^= bit;
        assert!(!store.check(&used, store.len, &format!("bit {bit} of byte {at}")), "byte {at} goes unnoticed");
        used[at] ^= bit;
    }
    used.push(1);
    assert!(!store.check(&used, store.len, "a bit in the empty space"));
}

#[test]
fn sectors_that_vanish_are_noticed() {
    let store = Store::new(12);
    for sector in 0..store.used.len() / SECTOR - 1 {
        let mut used = store.used.clone();
        used[sector * SECTOR..][..SECTOR].fill(0);
        assert!(!store.check(&used, store.len, &format!("sector {sector}")), "sector {sector} goes unnoticed");
    }
}

/// A crash in the middle of a write leaves any of its sectors: not durable, so it is dropped and the rest is there.
#[test]
fn torn_writes_are_dropped() {
    let (before, after) = (Store::new(14), Store::new(15));
    let (from, to) = (before.used.len(), after.used.len() - SECTOR);
    let sectors = (to - from) / SECTOR;
    assert!((2..=8).contains(&sectors) && after.used[..from] == before.used[..]);
    for written in 0..1_u32 << sectors {
        let mut used = after.used[..to].to_vec();
        for sector in (0..sectors).filter(|sector| written & (1 << sector) == 0) {
            used[from + sector * SECTOR..][..SECTOR].fill(0);
        }
        let stored = before.read(&used, before.len).unwrap_or_else(|error| panic!("sectors {written:b}: {error}"));
        let whole = written + 1 == 1 << sectors;
        assert!(stored == if whole { &after.image } else { &before.image }.clone(), "sectors {written:b}");

        // The store goes on from there.
        let mut disk = Disk::open(before.scratch.path()).unwrap();
        let mut script = StorageScript::resume(1, disk.load().unwrap());
        disk.submit(1, script.commands(3, 100));
        wait(&mut disk, 1).unwrap();
        drop(disk);
        assert!(load(before.scratch.path()).unwrap() == *script.image(), "sectors {written:b}");
    }
}
