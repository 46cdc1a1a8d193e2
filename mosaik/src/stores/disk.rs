//! What a store keeps in the data directory: one file for each primary and each replica, a database of redb.
//!
//! It holds a state, where in its history that is, and the deltas behind it. Deltas are appended, each batch in one transaction,
//! and from time to time the state is put in their place. A state of another history does not take the place of what is there:
//! that is kept beside it as the previous generation. A database that has failed is opened anew for the next write, since redb
//! answers with the first error until then. All calls block.

use std::{
    fmt,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    StoreError,
    lineage::{Lineage, Witness},
    protocol::{Shape, codec, fingerprint},
    tried,
    view::{Position, View},
};
use crate::primitives::{Difference, Evolve, Format, PeerId, Schema, StoreId, codec::Codec, private, schema::Readable};

/// The head under 0, the serialised state under 1, what is known of primaries under 2, the shape of deltas and state under 3.
const STATE: TableDefinition<u8, &[u8]> = TableDefinition::new("state");
/// Deltas by their number in the run.
const DELTAS: TableDefinition<u64, &[u8]> = TableDefinition::new("deltas");
/// The same of the previous generation.
const PREVIOUS_STATE: TableDefinition<u8, &[u8]> = TableDefinition::new("previous state");
const PREVIOUS_DELTAS: TableDefinition<u64, &[u8]> = TableDefinition::new("previous deltas");
/// While the two generations change places.
const SPARE_STATE: TableDefinition<u8, &[u8]> = TableDefinition::new("spare state");
const SPARE_DELTAS: TableDefinition<u64, &[u8]> = TableDefinition::new("spare deltas");
/// The version of what is in the tables. The first one had no origin, and no deltas at a replica.
/// Before the third one states and deltas were written with postcard.
pub(super) const FORMAT: u32 = 3;

type Fault = Box<dyn std::error::Error>;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Head {
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

/// Where a history comes from: the starts of the primary whose file it is, or what its replica knows of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Origin {
    pub(super) lineage: Lineage,
    pub(super) witness: Witness,
}

/// What an earlier life of the store has kept.
pub(super) struct Kept<V: View> {
    pub(super) primary: Option<PeerId>,
    /// With all of `tail` folded that can be folded.
    pub(super) state: V,
    /// Before `tail`.
    pub(super) position: Position,
    pub(super) tail: Vec<V::Delta>,
    /// The numbers of the deltas on which the view panics; at a replica only of the first, before which `tail` ends.
    pub(super) unfoldable: Vec<u64>,
    pub(super) origin: Origin,
    /// Bytes of the state, without `tail`, and of `tail`.
    pub(super) bytes: (usize, usize),
}

/// Whose file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// It is the only one that has what is in it. It goes on behind deltas that cannot be folded.
    Primary,
    /// It can have everything again. What is there ends before the first delta that cannot be folded, and counts for nothing if
    /// it was written by a program with another shape.
    Replica,
}

/// Why a write failed.
#[derive(Debug)]
pub(super) struct Failure {
    /// There is no room; to be tried again.
    pub(super) is_full: bool,
    pub(super) error: StoreError,
}

/// The file of a store.
pub(super) struct Disk {
    /// Nothing after a failure.
    database: Mutex<Option<Database>>,
    file: PathBuf,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("file", &self.file).finish_non_exhaustive()
    }
}

/// Where a store is kept.
pub(super) fn file(data_dir: &Path, store: StoreId, part: Part) -> PathBuf {
    let part = match part {
        Part::Primary => "primary",
        Part::Replica => "replica",
    };
    data_dir.join("stores").join(format!("{store}.{part}.redb"))
}

/// A file beside that of a store by which an operator says something.
pub(super) fn word(file: &Path, word: &str) -> PathBuf {
    file.with_extension(word)
}

/// The word that puts the previous generation in the place of the present one.
const RESTORE: &str = "restore";

impl Disk {
    /// Opens the file of a store, which is made if there is none, and reads what is there.
    pub(super) fn open<V: View>(file: PathBuf, part: Part) -> Result<(Self, Option<Kept<V>>), StoreError> {
        let database = open(&file).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => {
                failed(&file, &"another process, or another handle here, has it open")
            }
            error => failed(&file, &error),
        })?;
        let restore = word(&file, RESTORE);
        if restore.exists() {
            exchange(&database).map_err(|error| failed(&file, &error))?;
            std::fs::remove_file(&restore).map_err(|error| failed(&restore, &error))?;
            tracing::warn!(file = %file.display(), "the previous generation of a store is put back");
        }
        let kept = read::<V>(&database, part).map_err(|error| failed(&file, &error))?;
        Ok((Self { database: Mutex::new(Some(database)), file }, kept))
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// A primary goes on with what is there, in which it has so many deltas, and writes by its own types from now on; durable when
    /// it returns.
    pub(super) fn begin<V: View>(&self, next: u64, origin: &Origin) -> Result<(), Failure> {
        let shape = self.shape::<V>()?;
        self.put(next, &[], &[(2, self.encoded(origin)?), (3, shape)])
    }

    /// Puts encoded deltas in the place of those from that number on, and another origin if there is one; durable when it
    /// returns.
    pub(super) fn append(&self, first: u64, deltas: &[Vec<u8>], origin: Option<&Origin>) -> Result<(), Failure> {
        let origin = origin.map(|origin| self.encoded(origin)).transpose()?;
        self.put(first, deltas, origin.map(|origin| (2, origin)).as_slice())
    }

    fn put(&self, first: u64, deltas: &[Vec<u8>], records: &[(u8, Vec<u8>)]) -> Result<(), Failure> {
        self.write(|database| {
            let writing = database.begin_write()?;
            {
                let mut table = writing.open_table(DELTAS)?;
                // What a failed attempt has left behind.
                while table.last()?.is_some_and(|(number, _)| number.value() >= first) {
                    table.pop_last()?;
                }
                for (seq, delta) in (first..).zip(deltas) {
                    table.insert(seq, delta.as_slice())?;
                }
                for (key, record) in records {
                    writing.open_table(STATE)?.insert(key, record.as_slice())?;
                }
            }
            Ok(writing.commit()?)
        })
    }

    /// Puts a state in the place of everything; durable when it returns. What is of another history becomes the previous
    /// generation, in the place of that. Gives the state's length in bytes.
    pub(super) fn replace<V: View>(
        &self,
        primary: Option<PeerId>,
        position: Position,
        state: &V,
        origin: &Origin,
    ) -> Result<usize, Failure> {
        let (view, version) = (V::NAME.to_owned(), V::VERSION);
        let head = Head { format: FORMAT, view, version, fingerprint: fingerprint::<V>(), primary, position };
        let state = codec::<V, V>().whole(state).map_err(|error| self.failure(&error))?;
        let (head, origin, shape) = (self.encoded(&head)?, self.encoded(origin)?, self.shape::<V>()?);
        self.write(|database| {
            let writing = database.begin_write()?;
            let before = {
                let table = writing.open_table(STATE)?;
                let head = table.get(0)?;
                head.and_then(|head| postcard::from_bytes::<Head>(head.value()).ok())
            };
            if before.is_some_and(|head| (head.primary, head.position.epoch) != (primary, position.epoch)) {
                writing.delete_table(PREVIOUS_STATE)?;
                writing.delete_table(PREVIOUS_DELTAS)?;
                writing.open_table(DELTAS)?;
                writing.rename_table(STATE, PREVIOUS_STATE)?;
                writing.rename_table(DELTAS, PREVIOUS_DELTAS)?;
            }
            writing.delete_table(DELTAS)?;
            writing.open_table(DELTAS)?;
            {
                let mut table = writing.open_table(STATE)?;
                for (key, record) in [(0, &head), (1, &state), (2, &origin), (3, &shape)] {
                    table.insert(key, record.as_slice())?;
                }
            }
            Ok(writing.commit()?)
        })?;
        Ok(state.len())
    }

    /// Writes to the database, which is opened anew if it has failed before.
    fn write(&self, write: impl FnOnce(&Database) -> Result<(), redb::Error>) -> Result<(), Failure> {
        let mut database = self.database();
        let written = match database.take() {
            Some(open) => Ok(open),
            None => open(&self.file),
        };
        let result = written.map_err(redb::Error::from).and_then(|open| write(&open).map(|()| open));
        match result {
            Ok(open) => {
                *database = Some(open);
                Ok(())
            }
            Err(error) => Err(Failure { is_full: is_full(&error), error: failed(&self.file, &error) }),
        }
    }

    fn shape<V: View>(&self) -> Result<Vec<u8>, Failure> {
        self.encoded(Codec::<Shape<V>>::of().schema())
    }

    fn encoded(&self, value: &impl Serialize) -> Result<Vec<u8>, Failure> {
        postcard::to_allocvec(value).map_err(|error| self.failure(&error))
    }

    fn failure(&self, error: &impl ToString) -> Failure {
        Failure { is_full: false, error: failed(&self.file, error) }
    }

    fn database(&self) -> MutexGuard<'_, Option<Database>> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(file: &Path) -> Result<Database, DatabaseError> {
    let io = |error: std::io::Error| DatabaseError::Storage(error.into());
    if let Some(dir) = file.parent() {
        private::create_dir(dir).map_err(io)?;
    }
    private::file().write(true).create(true).truncate(false).open(file).map_err(io)?;
    #[cfg(test)]
    if let Some(faults) = super::faults::of(file) {
        return Database::builder().create_with_backend(super::faults::Backend::open(file, faults)?);
    }
    Database::create(file)
}

/// Whether it may succeed once there is room on the disk.
fn is_full(error: &redb::Error) -> bool {
    let full = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::FileTooLarge];
    matches!(error, redb::Error::Io(error) if full.contains(&error.kind()))
}

/// The two generations change places.
fn exchange(database: &Database) -> Result<(), Fault> {
    let writing = database.begin_write()?;
    for table in [STATE, PREVIOUS_STATE] {
        writing.open_table(table)?;
    }
    for table in [DELTAS, PREVIOUS_DELTAS] {
        writing.open_table(table)?;
    }
    if writing.open_table(PREVIOUS_STATE)?.is_empty()? {
        return Err("it has no previous generation to put back".into());
    }
    writing.rename_table(STATE, SPARE_STATE)?;
    writing.rename_table(DELTAS, SPARE_DELTAS)?;
    writing.rename_table(PREVIOUS_STATE, STATE)?;
    writing.rename_table(PREVIOUS_DELTAS, DELTAS)?;
    writing.rename_table(SPARE_STATE, PREVIOUS_STATE)?;
    writing.rename_table(SPARE_DELTAS, PREVIOUS_DELTAS)?;
    Ok(writing.commit()?)
}

fn read<V: View>(database: &Database, part: Part) -> Result<Option<Kept<V>>, Fault> {
    let reading = database.begin_read()?;
    let table = match reading.open_table(STATE) {
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        table => table?,
    };
    let head = table.get(0)?.ok_or("its head is missing")?;
    // The first field says how to read the others.
    let (format, _) = postcard::take_from_bytes::<u32>(head.value())?;
    if !(1..=FORMAT).contains(&format) {
        return Err(format!("its format is {format}, this build reads up to {FORMAT}").into());
    }
    let Head { view, version, fingerprint: declared, primary, position, .. } = postcard::from_bytes(head.value())?;
    if (view.as_str(), version) != (V::NAME, V::VERSION) {
        let (name, ours) = (V::NAME, V::VERSION);
        return Err(format!("it holds a {view} (version {version}), not a {name} (version {ours})").into());
    }
    let written = table.get(3)?.and_then(|shape| postcard::from_bytes::<Schema>(shape.value()).ok());
    let written = written.filter(Schema::is_sound);
    // Before the third format it was made otherwise.
    if format >= 3 && declared != fingerprint::<V>() {
        let differs = written.and_then(|written| Codec::<Shape<V>>::of().schema().difference(&written));
        let differs = differs.map_or_else(String::new, |differs| format!(": {}", in_the_file(&differs)));
        return Err(format!("its {view} (version {version}) has another shape{differs}").into());
    }
    if let (Evolve::Append, Some(written)) = (V::EVOLVE, &written) {
        let readable = Readable::of::<Shape<V>>();
        match part {
            // What it passed over by then the primary has.
            Part::Replica if readable.schema != *written => {
                tracing::info!(view, "the types of a replica have changed; it begins with a new snapshot");
                return Ok(None);
            }
            Part::Replica => {}
            Part::Primary => {
                if let Some(differs) = readable.loses(written) {
                    let differs = in_the_file(&differs);
                    return Err(format!("this program cannot keep its {view} as it was written: {differs}").into());
                }
            }
        }
    }
    let origin = match table.get(2)? {
        Some(origin) => postcard::from_bytes(origin.value())?,
        None => Origin::default(),
    };
    let record = table.get(1)?.ok_or("its state is missing")?;
    let (mut tail, mut bytes) = (Vec::new(), (record.value().len(), 0));
    for (seq, row) in (position.seq..).zip(reading.open_table(DELTAS)?.iter()?) {
        let (number, delta) = row?;
        if number.value() != seq {
            return Err(format!("delta {seq} is missing before {}", number.value()).into());
        }
        bytes.1 += delta.value().len();
        tail.push(decoded::<V::Delta>(format, delta.value())?);
    }
    let (state, unfoldable) = folded(format, record.value(), &mut tail, part)?;
    let unfoldable = unfoldable.into_iter().map(|at| position.seq + at as u64).collect();
    Ok(Some(Kept { primary, state, position, tail, unfoldable, origin, bytes }))
}

fn in_the_file(Difference { path, ours, theirs }: &Difference) -> String {
    format!("{path}: {ours} here, {theirs} in the file")
}

/// The state with the deltas folded, and the places of those on which the view panics. What these have done to it by then is
/// not kept.
fn folded<V: View>(format: u32, record: &[u8], tail: &mut Vec<V::Delta>, part: Part) -> Result<(V, Vec<usize>), Fault> {
    let mut unfoldable = Vec::new();
    'again: loop {
        let mut state: V = decoded(format, record)?;
        for (at, delta) in tail.iter().enumerate() {
            if !unfoldable.contains(&at) && tried(&mut state, delta.clone()).is_err() {
                unfoldable.push(at);
                if part == Part::Replica {
                    tail.truncate(at);
                }
                continue 'again;
            }
        }
        return Ok((state, unfoldable));
    }
}

/// A state or delta of a file of that format.
fn decoded<T: DeserializeOwned + 'static>(format: u32, bytes: &[u8]) -> Result<T, Fault> {
    let codec = Codec::<T>::of();
    Ok(if format < 3 { codec.decode(Format::Postcard, bytes)? } else { codec.decode_marked(bytes)? })
}

fn failed(file: &Path, error: &impl ToString) -> StoreError {
    StoreError::Disk { file: file.display().to_string(), reason: error.to_string() }
}
