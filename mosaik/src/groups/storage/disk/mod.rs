//! Durable storage in a directory: one log of checksummed groups in segment files, written by one thread.
//!
//! `docs/src/groups/storage.md` explains the format and, fault by fault, what happens. Rooms: `format` the bytes, `files`
//! the file system, `log` appending and dropping, `replay` reading back, `writer` the thread. Here is what the worker sees.

mod faults;
mod files;
#[cfg(test)]
mod fixtures;
mod format;
mod log;
#[cfg(feature = "testing")]
mod platter;
mod replay;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    path::Path,
    sync::Arc,
    task::{Context, Poll},
};

#[cfg(feature = "testing")]
pub use self::faults::Faults;
#[cfg(not(feature = "testing"))]
use self::faults::Faults;
use self::{files::Dir, log::Log, writer::Writer};
use super::{Storage, StorageError};
use crate::groups::raft::{Stored, Token, Write};

/// Durable storage: a directory of its own for each member.
///
/// Batches that are waiting are written together and made durable by one `fdatasync` (group commit). Everything carries
/// a checksum. A crash at any moment leaves at most one group that is cut short, which is dropped at the next start since
/// it was never reported durable; any other damage is an error that names the file and the offset. A failed write or
/// `fdatasync` fails the storage for good.
///
/// How much waits is bounded by the caller; memory is what waits plus one encoded group. Dropping it writes what waits, which
/// blocks as long as something becomes durable every two seconds, and then lets the directory go. A device that hangs is not
/// waited for: its thread is left behind and has the directory until it ends. Whether the file system keeps what it says it
/// has synced is not checked; a directory on `tmpfs` survives the process, not the machine.
#[derive(Debug)]
pub struct Disk {
    dir: Arc<Dir>,
    writer: Option<Writer>,
    state: Arc<writer::Shared>,
    /// A batch is durable when it has been submitted.
    at_once: bool,
}

impl Disk {
    /// Opens the directory, which is created if there is none, and locks it. Nothing is read yet. Blocking.
    ///
    /// # Errors
    /// [`StorageError::InUse`] if another storage has it open; [`StorageError::Io`] if it cannot be created or locked.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, StorageError> {
        Self::with(dir.as_ref(), Faults::default())
    }

    /// As [`open`](Self::open), with a seam at which a test can let the operating system fail.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    #[cfg(feature = "testing")]
    pub fn open_with(dir: impl AsRef<Path>, faults: Faults) -> Result<Self, StorageError> {
        Self::with(dir.as_ref(), faults)
    }

    fn with(dir: &Path, faults: Faults) -> Result<Self, StorageError> {
        let dir = Arc::new(Dir::open(dir, faults)?);
        Ok(Self { dir, writer: None, state: Arc::default(), at_once: false })
    }

    /// For a simulation, whose time would go on while the thread writes: a batch is durable when it has been submitted. Nothing is
    /// synced, as no machine fails.
    #[cfg(feature = "testing")]
    pub(in crate::groups) fn at_once(mut self) -> Self {
        self.dir.faults.leave_unsynced();
        self.at_once = true;
        self
    }
}

impl Storage for Disk {
    fn load(&mut self) -> Result<Stored, StorageError> {
        if self.writer.is_some() {
            return Err(StorageError::Misuse("loaded twice in one life".to_owned()));
        }
        let (log, stored) = replay::load(&self.dir)?;
        self.writer = Some(Writer::start(log, Arc::clone(&self.state))?);
        Ok(stored)
    }

    fn submit(&mut self, token: Token, writes: Vec<Write>) {
        if self.writer.is_some() {
            self.state.submit(token, writes);
            if self.at_once {
                self.state.until_durable(token);
            }
        } else {
            self.state.fail(StorageError::Misuse("written to before it was loaded".to_owned()));
        }
    }

    fn poll_durable(&mut self, cx: &mut Context<'_>) -> Poll<Result<Token, StorageError>> {
        self.state.poll_durable(cx)
    }

    fn wipe(&mut self) -> Result<(), StorageError> {
        if let Some(mut writer) = self.writer.take() {
            self.state.discard();
            if !writer.end() {
                let error = std::io::ErrorKind::TimedOut.into();
                let error = StorageError::io("wait for the last write to", self.dir.path.clone(), error);
                self.state.fail(error.clone());
                return Err(error);
            }
        }
        let wiped = self.dir.segments().and_then(|old| {
            Log::begin(Arc::clone(&self.dir), old.last().map_or(1, |last| last + 1))?;
            old.into_iter().try_for_each(|number| self.dir.remove(number))?;
            self.dir.sync()
        });
        match wiped {
            Ok(()) => self.state.reset(),
            Err(ref error) => self.state.fail(error.clone()),
        }
        wiped
    }

    fn abandon(&mut self) {
        if let Some(writer) = &mut self.writer {
            writer.leave_behind();
        }
    }

    fn is_durable(&self) -> bool {
        true
    }
}
