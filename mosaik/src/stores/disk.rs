//! What a store keeps in the data directory: one file for each primary and each replica, a database of redb.
//!
//! It holds a state, where in its history that is, and the deltas behind it. A primary appends deltas before anybody learns of
//! them, each batch in one transaction, and from time to time puts the state in their place; a replica only puts states. All
//! calls block.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

use super::{
    StoreError,
    protocol::fingerprint,
    view::{Position, View},
};
use crate::primitives::{PeerId, StoreId, private};

/// The head under 0, the serialised state under 1.
const STATE: TableDefinition<u8, &[u8]> = TableDefinition::new("state");
/// Deltas by their number in the run.
const DELTAS: TableDefinition<u64, &[u8]> = TableDefinition::new("deltas");
/// The version of what is in the tables.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Head {
    format: u32,
    view: String,
    version: u32,
    /// Of name, version and the schema of the deltas.
    fingerprint: [u8; 32],
    /// Whose history it is, at a replica.
    primary: Option<PeerId>,
    /// Where the state is in its history.
    position: Position,
}

/// What an earlier life of the store has kept.
pub(super) struct Kept<V: View> {
    pub(super) primary: Option<PeerId>,
    /// With all of `tail` folded.
    pub(super) state: V,
    /// Before `tail`.
    pub(super) position: Position,
    pub(super) tail: Vec<V::Delta>,
    /// Bytes of the state, without `tail`, and of `tail`.
    pub(super) bytes: (usize, usize),
}

/// The file of a store.
pub(super) struct Disk {
    database: Database,
    file: PathBuf,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("file", &self.file).finish_non_exhaustive()
    }
}

/// Where a store is kept; `part` is what this node is in it.
pub(super) fn file(data_dir: &Path, store: StoreId, part: &str) -> PathBuf {
    data_dir.join("stores").join(format!("{store}.{part}.redb"))
}

impl Disk {
    /// Opens the file of a store, which is made if there is none, and reads what is there.
    pub(super) fn open<V: View>(file: PathBuf) -> Result<(Self, Option<Kept<V>>), StoreError> {
        let disk = || -> Result<Database, Box<dyn std::error::Error>> {
            if let Some(dir) = file.parent() {
                private::create_dir(dir)?;
            }
            private::file().write(true).create(true).truncate(false).open(&file)?;
            Database::create(&file).map_err(|error| match error {
                DatabaseError::DatabaseAlreadyOpen => "another process, or another handle here, has it open".into(),
                error => error.into(),
            })
        };
        let database = disk().map_err(|error| failed(&file, &error))?;
        let disk = Self { database, file };
        let kept = disk.read::<V>().map_err(|error| failed(&disk.file, &error))?;
        Ok((disk, kept))
    }

    fn read<V: View>(&self) -> Result<Option<Kept<V>>, Box<dyn std::error::Error>> {
        let reading = self.database.begin_read()?;
        let table = match reading.open_table(STATE) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            table => table?,
        };
        let head = table.get(0)?.ok_or("its head is missing")?;
        // The first field says how to read the others.
        let (format, _) = postcard::take_from_bytes::<u32>(head.value())?;
        if format != FORMAT {
            return Err(format!("its format is {format}, this build reads {FORMAT}").into());
        }
        let Head { view, version, fingerprint: declared, primary, position, .. } = postcard::from_bytes(head.value())?;
        if (view.as_str(), version) != (V::NAME, V::VERSION) {
            let (name, ours) = (V::NAME, V::VERSION);
            return Err(format!("it holds a {view} (version {version}), not a {name} (version {ours})").into());
        }
        if declared != fingerprint::<V>() {
            return Err(format!("the deltas of its {view} (version {version}) are declared differently").into());
        }
        let record = table.get(1)?.ok_or("its state is missing")?;
        let mut state: V = postcard::from_bytes(record.value())?;
        let (mut tail, mut bytes) = (Vec::new(), (record.value().len(), 0));
        for (seq, row) in (position.seq..).zip(reading.open_table(DELTAS)?.iter()?) {
            let (number, delta) = row?;
            if number.value() != seq {
                return Err(format!("delta {seq} is missing before {}", number.value()).into());
            }
            bytes.1 += delta.value().len();
            let delta: V::Delta = postcard::from_bytes(delta.value())?;
            catch_unwind(AssertUnwindSafe(|| state.fold(delta.clone())))
                .map_err(|_| format!("the view has panicked at delta {seq}"))?;
            tail.push(delta);
        }
        Ok(Some(Kept { primary, state, position, tail, bytes }))
    }

    /// Appends encoded deltas from that number on; durable when it returns.
    pub(super) fn append(&self, first: u64, deltas: &[Vec<u8>]) -> Result<(), StoreError> {
        let append = || -> Result<(), redb::Error> {
            let writing = self.database.begin_write()?;
            {
                let mut table = writing.open_table(DELTAS)?;
                for (seq, delta) in (first..).zip(deltas) {
                    table.insert(seq, delta.as_slice())?;
                }
            }
            Ok(writing.commit()?)
        };
        append().map_err(|error| failed(&self.file, &error))
    }

    /// Puts a state in the place of everything; durable when it returns. Gives its length in bytes.
    pub(super) fn replace<V: View>(
        &self,
        primary: Option<PeerId>,
        position: Position,
        state: &V,
    ) -> Result<usize, StoreError> {
        let replace = || -> Result<usize, Box<dyn std::error::Error>> {
            let (view, version) = (V::NAME.to_owned(), V::VERSION);
            let head = Head { format: FORMAT, view, version, fingerprint: fingerprint::<V>(), primary, position };
            let head = postcard::to_allocvec(&head)?;
            let state = postcard::to_allocvec(state)?;
            let writing = self.database.begin_write()?;
            writing.delete_table(DELTAS)?;
            writing.open_table(DELTAS)?;
            {
                let mut table = writing.open_table(STATE)?;
                table.insert(0, head.as_slice())?;
                table.insert(1, state.as_slice())?;
            }
            writing.commit()?;
            Ok(state.len())
        };
        replace().map_err(|error| failed(&self.file, &error))
    }
}

fn failed(file: &Path, error: &impl ToString) -> StoreError {
    StoreError::Disk { file: file.display().to_string(), reason: error.to_string() }
}
