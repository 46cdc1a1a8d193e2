//! [`GroupKey`]: the secret that the members of a group share, and what is derived from it.
//!
//! The key itself never leaves the process; bonds prove that they know it. The group's id is public.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use crate::primitives::{GroupId, fresh_bytes, private};

/// What the secret text of a group's key has at least where it comes from outside of the program, in bytes.
pub const MIN_GROUP_SECRET: usize = 16;

/// The secret of a group: whoever has it may be a member.
///
/// `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct GroupKey([u8; 32]);

/// Why a file of a group's key could not be used. Never shows what is in the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupKeyError {
    /// The file cannot be read.
    #[error("the key file {}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        error: String,
    },
    /// The file is not UTF-8.
    #[error("the key file {} is not UTF-8", path.display())]
    NotUnicode {
        /// The file.
        path: PathBuf,
    },
    /// The key is so short that it can be guessed.
    #[error(
        "the key file {} holds {bytes} bytes: a key has at least {MIN_GROUP_SECRET} bytes, best random ones, the same at all \
         members; `mosaik keygen --group` makes one",
        path.display()
    )]
    Weak {
        /// The file.
        path: PathBuf,
        /// How many bytes it holds, white space at its ends not counted.
        bytes: usize,
    },
}

impl GroupKey {
    /// A fresh key from the operating system's randomness.
    #[must_use]
    pub fn random() -> Self {
        Self(fresh_bytes())
    }

    /// The key of a secret text. The group's id is announced to the network and a short secret can be guessed from it: take
    /// at least 128 bits of randomness, such as 32 random hex digits.
    #[must_use]
    pub fn from_secret(secret: impl AsRef<[u8]>) -> Self {
        Self(blake3::derive_key("mosaik 1 group key of a secret", secret.as_ref()))
    }

    /// The key of the secret text in a file, as [`from_secret`](Self::from_secret) makes it; white space at its ends counts for
    /// nothing. On Unix a file that others can read is taken, with a warning. `mosaik keygen --group FILE` makes one.
    ///
    /// # Errors
    /// When the file is missing, cannot be read, is not UTF-8 or holds less than [`MIN_GROUP_SECRET`] bytes. The error names
    /// the file and not what is in it.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, GroupKeyError> {
        let path = path.as_ref();
        let text = fs::read_to_string(path).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => GroupKeyError::NotUnicode { path: path.into() },
            _ => GroupKeyError::Io { path: path.into(), error: error.to_string() },
        })?;
        let key = Self::checked(&text).map_err(|bytes| GroupKeyError::Weak { path: path.into(), bytes })?;
        if private::is_shared(path) {
            tracing::warn!(path = %path.display(), "others can read the key file; run chmod 600 on it");
        }
        Ok(key)
    }

    /// The key of a secret text from outside, without the white space at its ends; or how many bytes it has, if they are too few.
    pub(crate) fn checked(text: &str) -> Result<Self, usize> {
        let secret = text.trim();
        if secret.len() < MIN_GROUP_SECRET { Err(secret.len()) } else { Ok(Self::from_secret(secret)) }
    }

    /// A key from its 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes: the secret itself, for keeping or handing on.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The group that this key makes with a state machine of that name.
    #[must_use]
    pub fn group_id(&self, machine: &str) -> GroupId {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(b"mosaik 1 group id:").update(machine.as_bytes());
        GroupId::from_bytes(*hasher.finalize().as_bytes())
    }
}

impl From<[u8; 32]> for GroupKey {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for GroupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GroupKey(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_the_key_and_the_name() {
        let (one, other) = (GroupKey::from_secret("one"), GroupKey::from_secret("other"));
        assert_eq!(one.group_id("counter"), one.clone().group_id("counter"));
        assert_ne!(one.group_id("counter"), one.group_id("ledger"));
        assert_ne!(one.group_id("counter"), other.group_id("counter"));
    }

    #[test]
    fn a_key_in_a_file_is_trimmed_and_long_enough() {
        let dir = tempfile::tempdir().expect("is made");
        let path = dir.path().join("group.key");
        let read = |text: &[u8]| {
            fs::write(&path, text).expect("is written");
            GroupKey::from_file(&path)
        };
        assert_eq!(read(b" sixteen letters.\r\n"), Ok(GroupKey::from_secret("sixteen letters.")));
        let weak = read(b"\tsixteen letters\n").expect_err("is too short");
        assert_eq!(weak, GroupKeyError::Weak { path: path.clone(), bytes: 15 });
        assert!(weak.to_string().contains("group.key") && !weak.to_string().contains("letters"), "{weak}");
        assert_eq!(read(b"\xff\xfe sixteen letters"), Err(GroupKeyError::NotUnicode { path: path.clone() }));
        let missing = GroupKey::from_file(dir.path().join("none")).expect_err("there is none");
        assert!(matches!(&missing, GroupKeyError::Io { .. }) && missing.to_string().contains("none"), "{missing}");
    }

    #[test]
    fn debug_hides_the_key() {
        assert_eq!(format!("{:?}", GroupKey::from_bytes([7; 32])), "GroupKey(hidden)");
    }
}
