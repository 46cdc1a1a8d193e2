//! The node's secret key: given, kept in the data directory, or fresh.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use iroh::SecretKey;

use crate::primitives::{fresh_bytes, parse_hex};

/// The file in the data directory that holds the secret key as 64 hex digits.
const FILE: &str = "secret.key";

/// Why a secret key file could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// The file cannot be read or written.
    #[error("the secret key file {}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        error: io::Error,
    },
    /// The file does not hold 64 hex digits.
    #[error("the secret key file {} does not hold 64 hex digits", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

/// The key kept in a data directory; made on first use.
pub(crate) fn in_data_dir(dir: &Path) -> Result<SecretKey, SecretError> {
    fs::create_dir_all(dir).map_err(|error| SecretError::Io { path: dir.into(), error })?;
    load_or_create(&dir.join(FILE))
}

/// The key in a file of 64 hex digits. A missing file is created with a fresh key, readable by its owner only.
pub(crate) fn load_or_create(path: &Path) -> Result<SecretKey, SecretError> {
    let io = |error| SecretError::Io { path: path.into(), error };
    match fs::read_to_string(path) {
        Ok(text) => {
            let bytes = parse_hex(text.trim()).ok_or_else(|| SecretError::Malformed { path: path.into() })?;
            warn_if_shared(path);
            Ok(SecretKey::from_bytes(&bytes))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = SecretKey::from_bytes(&fresh_bytes());
            write_private(path, &key).map_err(io)?;
            Ok(key)
        }
        Err(error) => Err(io(error)),
    }
}

/// Fails when the file has come into being meanwhile, rather than overwrite a key.
fn write_private(path: &Path, key: &SecretKey) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    for byte in key.to_bytes() {
        write!(file, "{byte:02x}")?;
    }
    writeln!(file)?;
    file.sync_all()
}

#[cfg(unix)]
fn warn_if_shared(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0) {
        tracing::warn!(path = %path.display(), "others can read the secret key file; run chmod 600 on it");
    }
}

#[cfg(not(unix))]
fn warn_if_shared(_: &Path) {}
