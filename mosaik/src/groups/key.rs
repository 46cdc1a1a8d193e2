//! [`GroupKey`]: the secret that the members of a group share, and what is derived from it.
//!
//! The key itself never leaves the process; bonds prove that they know it. The group's id is public.

use std::fmt;

use crate::primitives::{GroupId, fresh_bytes};

/// The secret of a group: whoever has it may be a member.
///
/// `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct GroupKey([u8; 32]);

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
    fn debug_hides_the_key() {
        assert_eq!(format!("{:?}", GroupKey::from_bytes([7; 32])), "GroupKey(hidden)");
    }
}
