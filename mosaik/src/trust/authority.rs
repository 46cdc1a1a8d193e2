//! [`Authority`], the key that decides who is in a network, and [`AuthorityId`], by which members know it.

use std::{fmt, path::Path, str::FromStr};

use iroh::{SecretKey, Signature};
use serde::{Deserialize, Serialize};

use super::{
    claims::Claims,
    key::{self, KeyFileError},
    ticket::{Ticket, TicketError},
};
use crate::primitives::{NetworkId, PeerId, fresh_bytes};

/// An authority: its ed25519 public key. `Display` prints 64 hex digits and `FromStr` reads them; `Debug` prints the first 8.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AuthorityId(pub(super) PeerId);

impl AuthorityId {
    /// The 32 bytes of the public key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Whether the authority has signed this.
    pub(super) fn verify(&self, message: &[u8], signature: &Signature) -> Result<(), iroh::SignatureError> {
        self.0.endpoint_id().verify(message, signature)
    }
}

impl FromStr for AuthorityId {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        let malformed = |_| TicketError::Undecodable { why: "an authority is a public key of 64 hex digits" };
        text.trim().parse().map(Self).map_err(malformed)
    }
}

impl fmt::Display for AuthorityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for AuthorityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An authority's signing key: whoever has it decides who is in the network. `Debug` shows the public part only.
#[derive(Clone)]
pub struct Authority(SecretKey);

impl Authority {
    /// A fresh one from the operating system's randomness.
    #[must_use]
    pub fn random() -> Self {
        Self(SecretKey::from_bytes(&fresh_bytes()))
    }

    /// One from its 32 secret bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(SecretKey::from_bytes(bytes))
    }

    /// The one in a file of 64 hex digits, such as `mosaik authority new` makes.
    ///
    /// # Errors
    /// When the file is missing, cannot be read or does not hold 64 hex digits.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, KeyFileError> {
        key::read(path.as_ref()).map(|bytes| Self::from_bytes(&bytes))
    }

    /// Writes it into a new file for the owner alone (0600).
    ///
    /// # Errors
    /// When the file exists already or cannot be written.
    pub fn to_new_file(&self, path: impl AsRef<Path>) -> Result<(), KeyFileError> {
        key::write_new(path.as_ref(), &self.0.to_bytes())
    }

    pub(super) fn sign(&self, message: &[u8]) -> Signature {
        self.0.sign(message)
    }

    /// Its public key, by which members know it.
    #[must_use]
    pub fn id(&self) -> AuthorityId {
        AuthorityId(self.0.public().into())
    }

    /// A ticket for a peer.
    ///
    /// # Errors
    /// When a name is empty or too long, there are too many, or the time ends before it begins.
    pub fn issue(&self, network: impl Into<NetworkId>, subject: PeerId, claims: Claims) -> Result<Ticket, TicketError> {
        Ticket::signed(Vec::new(), network.into(), &self.0, subject, claims)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({:?}, hidden)", self.id())
    }
}
