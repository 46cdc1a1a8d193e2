//! The identity of a node.

use std::{fmt, str::FromStr};

use iroh::{EndpointAddr, EndpointId, KeyParsingError};
use serde::{Deserialize, Serialize};

use super::id::write_hex;

/// A node's identity: its ed25519 public key.
///
/// `Display` prints all 64 hex digits and `FromStr` reads them back; `Debug` prints the first 8. Converts from
/// and into iroh's [`EndpointId`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
