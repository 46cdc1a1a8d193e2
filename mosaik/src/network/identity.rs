//! The node's secret key: given, kept in the data directory, or fresh.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use iroh::SecretKey;

use crate::primitives::{fresh_bytes, parse_hex, private};

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
    private::create_dir(dir).map_err(|error| SecretError::Io { path: dir.into(), error })?;
    load_or_create(&dir.join(FILE))
}

/// The key in a file of 64 hex digits. A missing file is created with a fresh key, readable by its owner only; of several who
/// do that at once all get the same key.
pub(crate) fn load_or_create(path: &Path) -> Result<SecretKey, SecretError> {
    let io = |error| SecretError::Io { path: path.into(), error };
    if let Some(key) = load(path)? {
        return Ok(key);
    }
    let key = SecretKey::from_bytes(&fresh_bytes());
    match create(path, &key) {
        Ok(()) => Ok(key),
        // Somebody was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => load(path)?.ok_or_else(|| io(error)),
        Err(error) => Err(io(error)),
    }
}

fn load(path: &Path) -> Result<Option<SecretKey>, SecretError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(SecretError::Malformed { path: path.into() });
        }
        Err(error) => return Err(SecretError::Io { path: path.into(), error }),
    };
    let bytes = parse_hex(text.trim()).ok_or_else(|| SecretError::Malformed { path: path.into() })?;
    warn_if_shared(path);
    Ok(Some(SecretKey::from_bytes(&bytes)))
}

/// Makes the file whole and durable, or not at all. Fails when it has come into being meanwhile, rather than replace a key.
fn create(path: &Path, key: &SecretKey) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    let [a, b, c, d, ..] = fresh_bytes();
    name.push(format!(".{a:02x}{b:02x}{c:02x}{d:02x}.new"));
    let temporary = path.with_file_name(name);
    let created = write(&temporary, key).and_then(|()| put_in_place(&temporary, path));
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound && created.is_ok() => {
            tracing::warn!(path = %temporary.display(), %error, "cannot remove a copy of the secret key; remove it");
        }
        _ => {}
    }
    created
}

fn write(path: &Path, key: &SecretKey) -> io::Result<()> {
    let mut file = private::file().write(true).create_new(true).open(path)?;
    for byte in key.to_bytes() {
        write!(file, "{byte:02x}")?;
    }
    writeln!(file)?;
    file.sync_all()
}

fn put_in_place(temporary: &Path, path: &Path) -> io::Result<()> {
    // A link never replaces a file, as a rename would.
    match fs::hard_link(temporary, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
        // Some file systems have no links.
        Err(_) if path.try_exists()? => return Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => fs::rename(temporary, path)?,
        Ok(()) => {}
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    private::sync_dir(directory.unwrap_or(Path::new(".")))
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
