//! The lock on a data directory: two nodes that write into one would destroy each other's state.
//!
//! It is a lock of the operating system on an open file, so that it ends with the process, however that ends. The file
//! stays; that it is there says nothing.

use std::{
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use crate::primitives::private;

/// The file in the data directory that is locked.
const FILE: &str = "lock";

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataDirError {
    /// A node, of this process or another one, has it open.
    #[error("another node uses the data directory {}; each node needs one of its own", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// It cannot be made or written to.
    #[error("the data directory {}: {error}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the operating system said.
        error: io::Error,
    },
}

/// Keeps a data directory to one node; released when dropped.
#[derive(Debug)]
pub(crate) struct DataDirLock(#[expect(dead_code, reason = "it is open for as long as it is held")] File);

impl DataDirLock {
    /// Locks a directory, which is made when missing. Never waits.
    pub(crate) fn take(dir: &Path) -> Result<Self, DataDirError> {
        let io = |error| DataDirError::Io { path: dir.into(), error };
        private::create_dir(dir).map_err(io)?;
        let file = private::file().write(true).create(true).truncate(false).open(dir.join(FILE)).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DataDirError::InUse { path: dir.into() }),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                tracing::warn!(
                    dir = %dir.display(), %error,
                    "the file system of the data directory has no locks; nothing keeps a second node out"
                );
            }
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        Ok(Self(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_for_one_at_a_time() {
        let temp = std::env::temp_dir().join(format!("mosaik-lock-{}", std::process::id()));
        let dir = temp.join("new/data");
        let first = DataDirLock::take(&dir).expect("is free");
        assert!(matches!(DataDirLock::take(&dir), Err(DataDirError::InUse { path }) if path == dir));
        drop(first);
        DataDirLock::take(&dir).expect("is free again");
        let file = temp.join("file");
        std::fs::write(&file, "").expect("writes");
        assert!(matches!(DataDirLock::take(&file), Err(DataDirError::Io { path, .. }) if path == file));
        std::fs::remove_dir_all(temp).expect("removes");
    }
}
