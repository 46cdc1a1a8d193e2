//! What can go wrong with storage. Clonable, because a storage that has failed gives its error to everybody who asks.

use std::{io, path::PathBuf, sync::Arc};

/// Why a storage failed. None of these goes away by trying again within the same life.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The operating system refused. After a failed write or `fsync` the storage stays failed.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// Another storage, of this process or another one, has the directory open.
    #[error("{path} is in use by another storage: two members must not share a directory")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// What is stored is not what was written. Restore the file from a copy, or give the member up: move the directory
    /// away, and it joins again as a new incarnation.
    #[error("{path} is damaged at offset {offset}: expected {expected}, found {found}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in the file, in bytes.
        offset: u64,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// Written by a version of this storage that this program does not know.
    #[error("{path} has format version {found}, this program knows {known}")]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version that is known.
        known: u32,
    },
    /// The caller broke the contract of [`Storage`](super::Storage), or submitted writes that contradict each other.
    #[error("storage was used wrongly: {0}")]
    Misuse(String),
    /// Any other failure, for storages from elsewhere.
    #[error("{0}")]
    Other(Arc<dyn std::error::Error + Send + Sync>),
}

impl StorageError {
    /// An error of the operating system.
    pub fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { action, path: path.into(), source: Arc::new(source) }
    }
}
