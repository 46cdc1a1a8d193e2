//! The identity of a node.

use std::{fmt, str::FromStr, sync::LazyLock};

use iroh::{EndpointAddr, EndpointId, KeyParsingError};
use serde::{Deserialize, Deserializer, Serialize, de};

use super::{id::write_hex, verified::Table};

/// Keys that were read are remembered, so many: whether 32 bytes are one is a square root to take, and messages name the same peers
/// again and again.
const KNOWN: usize = 1 << 12;

static KEYS: LazyLock<Table<EndpointId>> = LazyLock::new(|| Table::new(KNOWN));

/// A node's identity: its ed25519 public key.
///
/// `Display` prints all 64 hex digits and `FromStr` reads them back; `Debug` prints the first 8. Converts from
/// and into iroh's [`EndpointId`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct PeerId(EndpointId);

impl PeerId {
    /// The 32 bytes of the public key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The same key as iroh's type.
    #[must_use]
    pub const fn endpoint_id(self) -> EndpointId {
        self.0
    }
}

/// As iroh's key, of which 32 bytes are checked once.
impl<'de> Deserialize<'de> for PeerId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return EndpointId::deserialize(deserializer).map(Self);
        }
        let bytes = <[u8; 32]>::deserialize(deserializer)?;
        if let Some(id) = KEYS.get(&bytes) {
            return Ok(Self(id));
        }
        let id = EndpointId::from_bytes(&bytes).map_err(de::Error::custom)?;
        KEYS.put(bytes, id);
        Ok(Self(id))
    }
}

impl From<EndpointId> for PeerId {
    fn from(id: EndpointId) -> Self {
        Self(id)
    }
}

impl From<PeerId> for EndpointId {
    fn from(id: PeerId) -> Self {
        id.0
    }
}

impl From<PeerId> for EndpointAddr {
    fn from(id: PeerId) -> Self {
        Self::new(id.0)
    }
}

impl From<&PeerId> for PeerId {
    fn from(id: &PeerId) -> Self {
        *id
    }
}

impl FromStr for PeerId {
    type Err = KeyParsingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, self.as_bytes())
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.as_bytes()[..4])
    }
}

#[cfg(test)]
mod tests {
    use iroh::SecretKey;
    use serde::de::{
        IntoDeserializer,
        value::{Error as ValueError, StrDeserializer},
    };

    use super::*;

    #[test]
    fn a_key_is_read_as_iroh_reads_it_and_what_is_none_is_none_again() {
        let id = SecretKey::from_bytes(&[7; 32]).public();
        let (bytes, text) = (postcard::to_stdvec(&id).unwrap(), id.to_string());
        for _ in 0..2 {
            assert_eq!(postcard::from_bytes::<PeerId>(&bytes).unwrap(), PeerId(id));
            let text: StrDeserializer<'_, ValueError> = text.as_str().into_deserializer();
            assert_eq!(PeerId::deserialize(text).unwrap(), PeerId(id));
        }
        let none = (0..=u8::MAX).map(|n| [n; 32]).find(|bytes| EndpointId::from_bytes(bytes).is_err()).unwrap();
        for _ in 0..2 {
            assert!(postcard::from_bytes::<PeerId>(&none).is_err());
            assert!(postcard::from_bytes::<PeerId>(&bytes[..31]).is_err());
        }
    }
}
