//! [`Challenge`]: what evidence must be about, so that it is worth nothing for another peer, network or time.

use std::fmt;

use crate::primitives::{NetworkId, PeerId};

const DOMAIN: &str = "mosaik 2026 attestation report data 1";

/// The report data of evidence: 64 bytes that follow from the network, the peer's id and the time at which it was made. That whoever
/// shows it has the key of that id, each connection proves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Challenge([u8; 64]);

impl Challenge {
    /// For a peer of a network. `made`: seconds since the Unix epoch.
    #[must_use]
    pub fn new(network: NetworkId, peer: PeerId, made: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(DOMAIN);
        hasher.update(network.as_bytes()).update(peer.as_bytes()).update(&made.to_le_bytes());
        let mut data = [0; 64];
        hasher.finalize_xof().fill(&mut data);
        Self(data)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Challenge(")?;
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}
