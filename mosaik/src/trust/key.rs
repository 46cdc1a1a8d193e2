//! [`NetworkKey`]: the secret that all members of a *secret* network share. Nothing else: what is derived from it is in `proof`.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use crate::primitives::{fresh_bytes, parse_hex, private};

/// The secret of a network: whoever has it is a member.
///
/// It never travels; connections begin with a proof of it. `Debug` does not show it. Make one with `mosaik keygen --network FILE`.
///
/// ```
/// use mosaik::{Network, NetworkKey};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), mosaik::network::BuildError> {
/// let key = NetworkKey::random();
/// let network = Network::builder("prod").with_network_key(key).build().await?;
/// # network.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct NetworkKey([u8; 32]);

/// Why a file of a key could not be used. Never shows what is in the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The file cannot be read or written.
    #[error("the key file {}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        error: io::Error,
    },
    /// The file does not hold 64 hex digits.
    #[error("the key file {} does not hold 64 hex digits", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

impl NetworkKey {
    /// A fresh key from the operating system's randomness.
    #[must_use]
    pub fn random() -> Self {
        Self(fresh_bytes())
    }

    /// A key from its 32 bytes, which should be random: nothing slows down guessing of a weak one.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key in a file of 64 hex digits; white space around them counts for nothing. On Unix a file that others can read
    /// is taken, with a warning.
    ///
    /// # Errors
    /// When the file is missing, cannot be read or does not hold 64 hex digits. The error names the file.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, KeyFileError> {
        read(path.as_ref()).map(Self)
    }

    /// Writes the key into a new file, as [`from_file`](Self::from_file) reads it, for the owner alone (0600).
    ///
    /// # Errors
    /// When the file exists already or cannot be written.
    pub fn to_new_file(&self, path: impl AsRef<Path>) -> Result<(), KeyFileError> {
        write_new(path.as_ref(), &self.0)
    }

    /// The 32 bytes: the secret itself, for keeping or handing on.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for NetworkKey {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for NetworkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetworkKey(hidden)")
    }
}

/// The 32 bytes in a file of 64 hex digits.
pub(super) fn read(path: &Path) -> Result<[u8; 32], KeyFileError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(KeyFileError::Malformed { path: path.into() });
        }
        Err(error) => return Err(KeyFileError::Io { path: path.into(), error }),
    };
    let bytes = parse_hex(text.trim()).ok_or_else(|| KeyFileError::Malformed { path: path.into() })?;
    if private::is_shared(path) {
        tracing::warn!(path = %path.display(), "others can read the key file; run chmod 600 on it");
    }
    Ok(bytes)
}

/// Writes 32 bytes as 64 hex digits into a file that does not exist yet.
pub(super) fn write_new(path: &Path, bytes: &[u8; 32]) -> Result<(), KeyFileError> {
    let text = blake3::Hash::from_bytes(*bytes).to_hex();
    private::write_new(path, format!("{text}\n").as_bytes())
        .map_err(|error| KeyFileError::Io { path: path.into(), error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_from_its_file_and_nothing_shows_it() {
        let dir = tempfile::tempdir().expect("is made");
        let (path, key) = (dir.path().join("net.key"), NetworkKey::random());
        key.to_new_file(&path).expect("is written");
        assert!(NetworkKey::from_file(&path).is_ok_and(|read| read == key));
        assert!(key.to_new_file(&path).is_err(), "a key is never replaced");
        assert_eq!(format!("{key:?}"), "NetworkKey(hidden)");
        for wrong in ["", "12", &"g".repeat(64), &"0".repeat(63)] {
            fs::write(&path, wrong).expect("is written");
            let error = NetworkKey::from_file(&path).expect_err(wrong).to_string();
            assert!(error.contains("net.key") && error.contains("64 hex digits"), "{error}");
        }
        let missing = NetworkKey::from_file(dir.path().join("none")).expect_err("there is none").to_string();
        assert!(missing.contains("none"), "{missing}");
    }
}
