//! The proof that begins every connection of a closed network, and the seal on what the dialler says before the other side
//! has proved itself. Pure: the caller moves the bytes.
//!
//! Both ends derive one key per connection from the network's secret, the connection's TLS exporter and both ids. A proof is
//! a code over what its author says, under that key and its author's part; so it holds on this connection and nowhere else.
//! What is said before the other side's proof, ticket included, is hidden from whoever lacks the secret by a key stream of
//! the same key. TLS already protects it against everybody but the node at the other end.

use serde::{Deserialize, Serialize};

use super::{authority::AuthorityId, revoke::Revoked};
use crate::primitives::{NetworkId, PeerId};

/// The label of the keying material that binds proofs to a connection.
pub(crate) const EXPORTER_LABEL: &[u8] = b"EXPORTER-mosaik-network-1";
/// The longest proof, in bytes.
pub(crate) const MAX_PROOF: usize = 2048;
/// Bytes in front of what is sealed: the number of its key stream.
pub(crate) const SEAL: usize = 8;

const SECRET_DOMAIN: &str = "mosaik 2026 network secret of a key 1";
const AUTHORITY_DOMAIN: &str = "mosaik 2026 network secret of an authority 1";
const CHANNEL_DOMAIN: &[u8] = b"mosaik 1 channel:";
const STREAM_DOMAIN: &[u8] = b"mosaik 1 seal:";
const PROOF_DOMAIN: &[u8] = b"mosaik 1 proof:";

/// What the members of a network have in common and strangers do not.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Secret([u8; 32]);

impl Secret {
    pub(super) fn of_key(key: &super::NetworkKey, network: NetworkId) -> Self {
        Self(
            *blake3::Hasher::new_derive_key(SECRET_DOMAIN)
                .update(key.as_bytes())
                .update(network.as_bytes())
                .finalize()
                .as_bytes(),
        )
    }

    /// Hides first flights from those who know the network's id and not its authority. Membership is shown by tickets.
    pub(super) fn of_authority(authority: AuthorityId, network: NetworkId) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(AUTHORITY_DOMAIN);
        Self(*hasher.update(authority.as_bytes()).update(network.as_bytes()).finalize().as_bytes())
    }
}

/// A connection as both of its ends see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    pub(crate) exporter: [u8; 32],
    pub(crate) dialler: PeerId,
    pub(crate) acceptor: PeerId,
}

/// Which end says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Author {
    Dialler = 0,
    Acceptor = 1,
}

/// The key of one connection.
#[derive(Clone)]
pub(crate) struct Channel([u8; 32]);

/// A proof as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proof {
    code: [u8; 32],
    sealed: Vec<u8>,
}

/// What is in a proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Said {
    /// The author is a member. With the time of its clock, seconds since the Unix epoch, and its ticket where there are tickets.
    Member { now: u64, ticket: Vec<u8> },
    /// The author is a member and refuses the other end, whose ticket is one of the authority's.
    Refused { now: u64, why: TicketFault },
}

/// What is wrong with a ticket that the authority did sign; told to its holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum TicketFault {
    /// With the moment, seconds since the Unix epoch.
    Expired(u64),
    /// With the moment, seconds since the Unix epoch.
    NotYetValid(u64),
    /// With what was taken back.
    Revoked(Revoked),
    /// With the authority, and what it cannot give.
    OutOfScope(AuthorityId, String),
}

impl Channel {
    pub(crate) fn new(secret: &Secret, ends: &Ends) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(&secret.0);
        hasher.update(CHANNEL_DOMAIN).update(&ends.exporter);
        hasher.update(ends.dialler.as_bytes()).update(ends.acceptor.as_bytes());
        Self(*hasher.finalize().as_bytes())
    }

    /// What stands for the network's id in the preamble of a proof; says nothing to a stranger.
    pub(crate) fn mask(&self) -> NetworkId {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        NetworkId::from_bytes(*hasher.update(b"mosaik 1 mask").finalize().as_bytes())
    }

    /// Hides or shows bytes, in place. Each number is for one use in the life of a connection.
    pub(crate) fn seal(&self, number: u64, bytes: &mut [u8]) {
        self.stream(STREAM_DOMAIN, number, bytes);
    }

    fn stream(&self, domain: &[u8], number: u64, bytes: &mut [u8]) {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        let mut output = hasher.update(domain).update(&number.to_le_bytes()).finalize_xof();
        let mut block = [0; 64];
        for chunk in bytes.chunks_mut(block.len()) {
            output.fill(&mut block);
            chunk.iter_mut().zip(block).for_each(|(byte, key)| *byte ^= key);
        }
    }

    fn code(&self, author: Author, sealed: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(PROOF_DOMAIN).update(&[author as u8]).update(sealed).finalize()
    }

    /// Proves the secret and says something; `None` when it is too long to be read.
    pub(crate) fn prove(&self, author: Author, said: &Said) -> Option<Proof> {
        let mut sealed = postcard::to_allocvec(said).ok()?;
        self.stream(PROOF_DOMAIN, author as u64, &mut sealed);
        let code = *self.code(author, &sealed).as_bytes();
        (sealed.len() + code.len() + 8 <= MAX_PROOF).then_some(Proof { code, sealed })
    }

    /// What the author said, if it knows the secret.
    pub(crate) fn verify(&self, author: Author, proof: &Proof) -> Option<Said> {
        // Hashes compare in constant time.
        if self.code(author, &proof.sealed) != blake3::Hash::from_bytes(proof.code) {
            return None;
        }
        let mut bytes = proof.sealed.clone();
        self.stream(PROOF_DOMAIN, author as u64, &mut bytes);
        match postcard::take_from_bytes(&bytes) {
            Ok((said, [])) => Some(said),
            _ => None,
        }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Channel(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use iroh::SecretKey;
    use proptest::prelude::*;

    use super::{super::NetworkKey, *};

    fn peer(n: u8) -> PeerId {
        SecretKey::from_bytes(&[n; 32]).public().into()
    }

    fn ends() -> Ends {
        Ends { exporter: [1; 32], dialler: peer(1), acceptor: peer(2) }
    }

    fn channel(key: u8, network: &str, ends: &Ends) -> Channel {
        Channel::new(&Secret::of_key(&NetworkKey::from_bytes([key; 32]), NetworkId::from(network)), ends)
    }

    #[test]
    fn a_proof_holds_for_its_key_network_connection_ends_and_author_alone() {
        let said = Said::Member { now: 7, ticket: vec![1, 2, 3] };
        let right = channel(1, "n", &ends());
        let proof = right.prove(Author::Dialler, &said).expect("is short");
        assert_eq!(channel(1, "n", &ends()).verify(Author::Dialler, &proof), Some(said));
        assert_eq!(right.verify(Author::Acceptor, &proof), None, "the other author: a proof is not reflected");
        let other = [
            channel(2, "n", &ends()),
            channel(1, "m", &ends()),
            channel(1, "n", &Ends { exporter: [2; 32], ..ends() }),
            channel(1, "n", &Ends { dialler: peer(3), ..ends() }),
            channel(1, "n", &Ends { acceptor: peer(3), ..ends() }),
        ];
        assert!(other.iter().all(|other| other.verify(Author::Dialler, &proof).is_none()));
        assert!(other.iter().all(|other| other.mask() != right.mask()));
    }

    #[test]
    fn what_is_sealed_is_hidden_and_comes_back() {
        let (channel, text) = (channel(1, "n", &ends()), b"a request that a stranger must not read".repeat(9));
        let mut bytes = text.clone();
        channel.seal(3, &mut bytes);
        assert!(bytes.windows(8).all(|window| !text.windows(8).any(|plain| plain == window)));
        let mut other = text.clone();
        channel.seal(4, &mut other);
        assert_ne!(bytes, other);
        channel.seal(3, &mut bytes);
        assert_eq!(bytes, text);
    }

    proptest! {
        /// Whatever a stranger sends as a proof is no proof, and costs no panic.
        #[test]
        fn made_up_proofs_are_refused(code: [u8; 32], sealed in proptest::collection::vec(any::<u8>(), 0..MAX_PROOF)) {
            let channel = channel(1, "n", &ends());
            prop_assert_eq!(channel.verify(Author::Dialler, &Proof { code, sealed }), None);
        }

        #[test]
        fn one_changed_bit_is_noticed(at in 0..64usize, bit in 0..8u32) {
            let channel = channel(1, "n", &ends());
            let mut proof = channel.prove(Author::Dialler, &Said::Member { now: 7, ticket: vec![9; 30] }).expect("is short");
            if at < 32 { proof.code[at] ^= 1 << bit } else {
                let at = (at - 32) % proof.sealed.len();
                proof.sealed[at] ^= 1 << bit;
            }
            prop_assert_eq!(channel.verify(Author::Dialler, &proof), None);
        }
    }
}
