//! A disk that is full until it is not: what the tests of durable stores write to.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io,
    ops::Bound,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
};

use redb::{BackendError, DatabaseError, StorageBackend, backends::FileBackend};

/// What may fail in one file.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) full: AtomicBool,
    /// Bytes written.
    pub(super) written: AtomicU64,
}

static FAULTY: Mutex<BTreeMap<PathBuf, Arc<Faults>>> = Mutex::new(BTreeMap::new());

/// From now on that file may fail.
pub(super) fn plant(file: &Path) -> Arc<Faults> {
    let faults = Arc::<Faults>::default();
    FAULTY.lock().unwrap_or_else(PoisonError::into_inner).insert(file.to_owned(), faults.clone());
    faults
}

pub(super) fn of(file: &Path) -> Option<Arc<Faults>> {
    FAULTY.lock().unwrap_or_else(PoisonError::into_inner).get(file).cloned()
}

#[derive(Debug)]
pub(super) struct Backend {
    file: FileBackend,
    faults: Arc<Faults>,
}

impl Backend {
    pub(super) fn open(file: &Path, faults: Arc<Faults>) -> Result<Self, DatabaseError> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(file);
        let file = file.map_err(|error| DatabaseError::Storage(error.into()))?;
        Ok(Self { file: FileBackend::new(file)?, faults })
    }

    fn room(&self) -> io::Result<()> {
        if self.faults.full.load(SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.room()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.room()?;
        self.faults.written.fetch_add(data.len() as u64, SeqCst);
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}
