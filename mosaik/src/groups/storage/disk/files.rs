//! Segments as files: names, creation, growth, removal. Everything that touches the file system is here.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Seek, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use super::{
    super::StorageError,
    faults::Faults,
    format::{FileHeader, SECTOR},
};
use crate::primitives::private;

/// A segment grows by this much, bytes. Writing into space that exists already is what makes `fdatasync` cheap: it has
/// no length and no blocks to record.
const STEP: u64 = 1 << 20;
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// The directory of one storage, locked against any other.
#[derive(Debug)]
pub(super) struct Dir {
    pub path: PathBuf,
    pub faults: Faults,
    lock: File,
}

impl Drop for Dir {
    /// Closing the file would not do: a child process that is just being started holds it too, until it runs its program.
    fn drop(&mut self) {
        if let Err(error) = self.lock.unlock() {
            tracing::debug!(path = %self.path.display(), %error, "cannot unlock a storage");
        }
    }
}

/// The segment that is written to.
#[derive(Debug)]
pub(super) struct Segment {
    file: File,
    pub path: PathBuf,
    pub number: u64,
    /// Where the next group goes.
    pub at: u64,
    /// The file's length: durable, and zeros from `at` on.
    allocated: u64,
    faults: Faults,
}

impl Dir {
    /// Creates the directory if there is none, and locks it.
    pub fn open(path: &Path, faults: Faults) -> Result<Self, StorageError> {
        if !path.is_dir() {
            private::create_dir(path).map_err(|error| StorageError::io("create", path, error))?;
            if let Some(parent) = path.canonicalize().ok().as_deref().and_then(Path::parent) {
                sync_dir(parent, &faults)?;
            }
        }
        let name = path.join("lock");
        let lock = private::file().create(true).truncate(false).write(true).open(&name);
        let lock = lock.map_err(|error| StorageError::io("open", &name, error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), faults, lock }),
            Err(TryLockError::WouldBlock) => Err(StorageError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(error)) => Err(StorageError::io("lock", &name, error)),
        }
    }

    pub fn segment(&self, number: u64) -> PathBuf {
        self.path.join(format!("{number:016x}.log"))
    }

    /// The numbers of all segments, ascending. Removes what a creation that did not get to its end left behind.
    pub fn segments(&self) -> Result<Vec<u64>, StorageError> {
        let failed = |error| StorageError::io("list", &self.path, error);
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("log") => numbers.extend(u64::from_str_radix(stem, 16)),
                Some("new") => self.remove_file(&path)?,
                _ => {}
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Creates a segment that holds `group`, durably and atomically.
    pub fn create(&self, header: FileHeader, group: &[u8]) -> Result<Segment, StorageError> {
        let path = self.segment(header.number);
        let new = path.with_extension("new");
        let file = private::file().create(true).truncate(true).write(true).open(&new);
        let file = file.map_err(|error| StorageError::io("create", &new, error))?;
        self.faults.create(&new);
        let faults = self.faults.clone();
        let mut segment = Segment { file, path: new.clone(), number: header.number, at: 0, allocated: 0, faults };
        segment.reserve(SECTOR + group.len())?;
        segment.write(&header.encode())?;
        segment.write(group)?;
        segment.sync()?;
        fs::rename(&new, &path).map_err(|error| StorageError::io("rename", &new, error))?;
        self.faults.rename(&new, &path);
        segment.path = path;
        self.sync()?;
        Ok(segment)
    }

    /// Opens a segment to write on at `at`; everything from there to `dirty` becomes zeros again.
    pub fn append(&self, number: u64, at: usize, dirty: Option<usize>) -> Result<Segment, StorageError> {
        let path = self.segment(number);
        let file = OpenOptions::new().write(true).open(&path);
        let file = file.map_err(|error| StorageError::io("open", &path, error))?;
        let allocated = file.metadata().map_err(|error| StorageError::io("stat", &path, error))?.len();
        let allocated = allocated - allocated % SECTOR as u64;
        let mut segment = Segment { file, path, number, at: at as u64, allocated, faults: self.faults.clone() };
        if let Some(dirty) = dirty {
            segment.zero(segment.at, dirty as u64)?;
        }
        Ok(segment)
    }

    pub fn remove(&self, number: u64) -> Result<(), StorageError> {
        self.remove_file(&self.segment(number))
    }

    fn remove_file(&self, path: &Path) -> Result<(), StorageError> {
        fs::remove_file(path).map_err(|error| StorageError::io("remove", path, error))?;
        self.faults.remove(path);
        Ok(())
    }

    /// Makes creations, renames and removals durable.
    pub fn sync(&self) -> Result<(), StorageError> {
        sync_dir(&self.path, &self.faults)
    }
}

fn sync_dir(path: &Path, faults: &Faults) -> Result<(), StorageError> {
    let synced = faults.sync_dir().and_then(|()| if faults.is_synced() { private::sync_dir(path) } else { Ok(()) });
    synced.map_err(|error| StorageError::io("sync", path, error))
}

impl Segment {
    /// Sees to room for a group of `len` bytes, a marker and a free sector, in a file whose length is durable.
    pub fn reserve(&mut self, len: usize) -> Result<(), StorageError> {
        let needed = self.at + len as u64 + 2 * SECTOR as u64;
        if needed <= self.allocated {
            return Ok(());
        }
        let to = needed.next_multiple_of(STEP);
        if to - self.allocated > STEP {
            // A group that large is written once; zeros before it would double that.
            let grown = self.faults.grow(&self.path, self.allocated, to);
            grown.and_then(|()| self.file.set_len(to)).map_err(self.failed("grow"))?;
        } else {
            self.zero(self.allocated, to)?;
        }
        self.sync()?;
        self.allocated = to;
        Ok(())
    }

    /// Writes at the end. The caller has reserved the room.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.write_at(self.at, bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    pub fn write_at(&mut self, at: u64, bytes: &[u8]) -> Result<(), StorageError> {
        let written = self.faults.write(&self.path, at, bytes);
        let written = written.and_then(|()| self.file.seek(SeekFrom::Start(at)));
        written.and_then(|_| self.file.write_all(bytes)).map_err(self.failed("write"))
    }

    fn zero(&mut self, from: u64, to: u64) -> Result<(), StorageError> {
        let mut at = from;
        while at < to {
            let len = (to - at).min(ZEROS.len() as u64);
            self.write_at(at, &ZEROS[..usize::try_from(len).unwrap_or(0)])?;
            at += len;
        }
        Ok(())
    }

    /// Makes what was written durable.
    pub fn sync(&mut self) -> Result<(), StorageError> {
        let sync = || if self.faults.is_synced() { self.file.sync_data() } else { Ok(()) };
        self.faults.sync(&self.path).and_then(|()| sync()).map_err(self.failed("sync"))
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(io::Error) -> StorageError {
        let path = self.path.clone();
        move |error| StorageError::io(action, path, error)
    }
}
