#!/usr/bin/env bash
# redb 4.6.0: after one failed write a database answers with the earlier error until it is opened anew.
#
# Expected: once there is room on the disk again, the next transaction works, or fails with what is wrong now.
# Happens: one write of the backend fails with "no space left"; after that every `begin_write` gives `PreviousIo`, however long
# the backend has been well again, as the error's text says it must be closed and opened. The same storage opened anew takes
# writes at once, and nothing that was committed is lost.
# For a service: a full disk needs a handle that is opened anew, freeing space is not enough.
#
# Exit status 0 while it is so, another when it changes.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"

[dependencies]
redb = "=4.6.0"
TOML
cat >src/main.rs <<'RUST'
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};

const TABLE: TableDefinition<u64, u64> = TableDefinition::new("t");

/// A disk in memory that can be full.
#[derive(Clone, Debug, Default)]
struct Disk {
    bytes: Arc<Mutex<Vec<u8>>>,
    full: Arc<AtomicBool>,
}

impl Disk {
    fn room(&self) -> io::Result<()> {
        if self.full.load(SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = offset as usize;
        out.copy_from_slice(&self.bytes.lock().unwrap()[at..at + out.len()]);
        Ok(())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.room()?;
        self.bytes.lock().unwrap().resize(len as usize, 0);
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.room()?;
        let at = offset as usize;
        self.bytes.lock().unwrap()[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }
}

fn put(database: &Database, key: u64) -> Result<(), redb::Error> {
    let writing = database.begin_write()?;
    writing.open_table(TABLE)?.insert(key, key)?;
    Ok(writing.commit()?)
}

fn keys(database: &Database) -> Result<Vec<u64>, redb::Error> {
    let table = database.begin_read()?.open_table(TABLE)?;
    let keys = table.iter()?.map(|row| Ok(row?.0.value())).collect();
    keys
}

fn main() {
    let disk = Disk::default();
    let database = Database::builder().create_with_backend(disk.clone()).unwrap();
    put(&database, 1).unwrap();
    disk.full.store(true, SeqCst);
    println!("the disk is full:        {:?}", put(&database, 2));
    disk.full.store(false, SeqCst);
    let again: Vec<_> = (0..3).map(|_| put(&database, 2)).collect();
    println!("there is room again:     {again:?}");
    drop(database);
    let database = Database::builder().create_with_backend(disk).unwrap();
    let anew = put(&database, 3);
    let keys = keys(&database);
    println!("opened anew:             {anew:?}, holds {keys:?}");
    let stuck = again.iter().all(|result| matches!(result, Err(redb::Error::PreviousIo)));
    let well = anew.is_ok() && keys.is_ok_and(|keys| keys == [1, 3]);
    println!("{}", if stuck && well { "as stated" } else { "CHANGED" });
    std::process::exit(if stuck && well { 0 } else { 1 });
}
RUST
CARGO_TARGET_DIR=$dir/target cargo run --quiet
