//! Hints: the constant-size signed words that gossip carries instead of entries.
//!
//! A hint says "I, this peer, am alive; my newest entry has this version and this digest". Renewing a lease is a new
//! hint with a higher beat; it changes neither version nor digest, so nobody fetches anything.

use std::{fmt, time::Duration};

use iroh::{EndpointId, SecretKey, Signature};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{
    entry::{EntryDigest, PeerEntry, Version},
    verify,
};
use crate::primitives::{NetworkId, PeerId};

/// The encoded size of every hint in bytes: id 32, run 8, seq 8, digest 32, beat 8, ttl 4, kind 1, signature 64.
pub(super) const HINT_BYTES: usize = SIGNED_BYTES + Signature::LENGTH;
const SIGNED_BYTES: usize = 32 + 8 + 8 + 32 + 8 + 4 + 1;
const HINT_DOMAIN: &[u8] = b"mosaik discovery hint 1:";

/// Leases shorter or longer than this are taken as if they were this: a peer can make itself neither a burden
/// (everybody probing it all the time) nor immortal.
pub(super) const LEASE_BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(10));

/// Whether the peer goes on or leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Alive,
    /// The last word of a run: only a higher `run_id` follows it.
    Departed,
}

/// A verified hint.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Hint {
    pub(super) peer: PeerId,
    pub(super) version: Version,
    pub(super) digest: EntryDigest,
    /// Counts the hints of one run; never goes back, whatever the version does.
    pub(super) beat: u64,
    pub(super) kind: Kind,
    ttl_ms: u32,
    signature: Signature,
}

impl Hint {
    /// A new hint about one's own entry. About 20 microseconds.
    pub(super) fn sign(
        entry: &PeerEntry,
        beat: u64,
        ttl: Duration,
        kind: Kind,
        network: NetworkId,
        secret: &SecretKey,
    ) -> Self {
        let mut hint = Self {
            peer: entry.id(),
            version: entry.version(),
            digest: entry.digest(),
            beat,
            kind,
            ttl_ms: u32::try_from(ttl.as_millis()).unwrap_or(u32::MAX),
            signature: Signature::from_bytes(&[0; Signature::LENGTH]),
        };
        hint.signature = secret.sign(&signed_bytes(network, &hint.signed_part()));
        hint
    }

    /// How long the hint is believed, counted from when it was issued.
    pub(super) fn ttl(&self) -> Duration {
        Duration::from_millis(u64::from(self.ttl_ms)).clamp(LEASE_BOUNDS.0, LEASE_BOUNDS.1)
    }

    /// What orders the hints of one peer.
    pub(super) fn order(&self) -> (Version, u64) {
        (self.version, self.beat)
    }

    /// Whether this hint is about exactly this entry.
    pub(super) fn is_about(&self, entry: &PeerEntry) -> bool {
        self.peer == entry.id() && self.version == entry.version() && self.digest == entry.digest()
    }

    fn signed_part(&self) -> [u8; SIGNED_BYTES] {
        let mut out = [0; SIGNED_BYTES];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(self.peer.as_bytes());
        put(&self.version.run_id.to_le_bytes());
        put(&self.version.seq.to_le_bytes());
        put(self.digest.as_bytes());
        put(&self.beat.to_le_bytes());
        put(&self.ttl_ms.to_le_bytes());
        put(&[u8::from(self.kind == Kind::Departed)]);
        out
    }

    pub(super) fn to_bytes(self) -> [u8; HINT_BYTES] {
        let mut out = [0; HINT_BYTES];
        out[..SIGNED_BYTES].copy_from_slice(&self.signed_part());
        out[SIGNED_BYTES..].copy_from_slice(&self.signature.to_bytes());
        out
    }

    /// Reads and verifies a hint. The second time the same bytes come to any node of this process it costs one hash.
    ///
    /// # Errors
    /// When the bytes are no hint or were not signed by the peer they are about, for this network.
    pub(super) fn verify(bytes: &[u8], network: NetworkId) -> Result<Self, HintError> {
        let bytes: &[u8; HINT_BYTES] = bytes.try_into().map_err(|_| HintError::Undecodable)?;
        let key = verify::key(network, &[bytes]);
        let known = verify::known_hint(&key);
        let mut rest = &bytes[..];
        let id: [u8; 32] = take(&mut rest);
        let peer = match known {
            Some(peer) => peer,
            None => EndpointId::from_bytes(&id).map_err(|_| HintError::Undecodable)?.into(),
        };
        let version = Version { run_id: u64::from_le_bytes(take(&mut rest)), seq: u64::from_le_bytes(take(&mut rest)) };
        let digest = EntryDigest::from_bytes(take(&mut rest));
        let beat = u64::from_le_bytes(take(&mut rest));
        let ttl_ms = u32::from_le_bytes(take(&mut rest));
        let kind = match take::<1>(&mut rest) {
            [0] => Kind::Alive,
            [1] => Kind::Departed,
            _ => return Err(HintError::Undecodable),
        };
        let signature = Signature::from_bytes(&take(&mut rest));
        if known.is_none() {
            let signed = signed_bytes(network, &bytes[..SIGNED_BYTES]);
            peer.endpoint_id().verify(&signed, &signature).map_err(|_| HintError::BadSignature)?;
            verify::remember_hint(key, peer);
        }
        Ok(Self { peer, version, digest, beat, kind, ttl_ms, signature })
    }
}

impl fmt::Debug for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({:?} {} beat {})", self.kind, self.peer, self.version, self.beat)
    }
}

fn signed_bytes(network: NetworkId, part: &[u8]) -> Vec<u8> {
    [HINT_DOMAIN, network.as_bytes(), part].concat()
}

/// The next `N` bytes; the caller has checked the whole length.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&rest[..N]);
    *rest = &rest[N..];
    out
}

/// Why a hint is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum HintError {
    #[error("the bytes are no hint")]
    Undecodable,
    #[error("the hint was not signed by the peer it is about for this network")]
    BadSignature,
}

/// A hint as it travels inside other messages: not verified, with its age at the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RawHint([u8; HINT_BYTES]);

impl RawHint {
    pub(super) fn verify(&self, network: NetworkId) -> Result<Hint, HintError> {
        Hint::verify(&self.0, network)
    }
}

impl From<Hint> for RawHint {
    fn from(hint: Hint) -> Self {
        Self(hint.to_bytes())
    }
}

impl Serialize for RawHint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for RawHint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = <&[u8]>::deserialize(deserializer)?;
        bytes.try_into().map(Self).map_err(|_| de::Error::invalid_length(bytes.len(), &"a hint"))
    }
}
