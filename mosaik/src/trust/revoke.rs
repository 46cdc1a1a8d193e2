//! [`Revocation`]: an authority takes back what it has signed. The set of all of them only grows, so that members merge what they
//! have heard by union, in any order. Pure.

use std::{collections::BTreeMap, fmt, str::FromStr};

use data_encoding::BASE64URL_NOPAD;
use iroh::Signature;
use serde::{Deserialize, Serialize};

use super::{
    authority::{Authority, AuthorityId},
    ticket::{Ticket, TicketError, decode, encode},
};
use crate::primitives::{NetworkId, PeerId};

/// The most revocations that a network keeps; further ones are refused.
pub const MAX_REVOCATIONS: usize = 4096;
/// The longest revocation, in bytes.
const MAX_BYTES: usize = 256;

const VERSION: u8 = 1;
const DOMAIN: &[u8] = b"mosaik revocation 1:";
const SET_DOMAIN: &str = "mosaik 2026 revocations 1";
pub(super) const PREFIX: &str = "mosaikr1";

/// What is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Revoked {
    /// The ticket, or invitation, of this serial and everything that came of it.
    Serial([u8; 16]),
    /// Every ticket of this peer.
    Peer(PeerId),
}

impl Revoked {
    /// Whether a ticket is of no use any more.
    #[must_use]
    pub fn covers(&self, ticket: &Ticket) -> bool {
        match self {
            Self::Serial(serial) => ticket.serials().contains(serial),
            Self::Peer(peer) => ticket.subject() == *peer,
        }
    }
}

impl fmt::Display for Revoked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serial(serial) => {
                f.write_str("serial ")?;
                serial.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::Peer(peer) => write!(f, "peer {peer}"),
        }
    }
}

/// An authority's word that something is taken back, for good. Cheap to verify; `Display` and `FromStr` write it as one line.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    body: Vec<u8>,
    signature: Signature,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Body {
    version: u8,
    network: NetworkId,
    authority: AuthorityId,
    what: Revoked,
}

impl Authority {
    /// Takes back a ticket, an invitation, or all tickets of a peer. It takes effect at every member that hears of it.
    ///
    /// # Errors
    /// When it cannot be encoded, which does not happen.
    pub fn revoke(&self, network: impl Into<NetworkId>, what: Revoked) -> Result<Revocation, TicketError> {
        let body = encode(&Body { version: VERSION, network: network.into(), authority: self.id(), what })?;
        let signature = self.sign(&[DOMAIN, &body].concat());
        Ok(Revocation { body, signature })
    }
}

impl Revocation {
    /// What it takes back and who says so, if that is one of these authorities and it says so of this network.
    pub(super) fn verify(
        &self,
        network: NetworkId,
        trusted: &[AuthorityId],
    ) -> Result<(Revoked, AuthorityId), RevocationError> {
        if self.body.len() > MAX_BYTES {
            return Err(RevocationError::Malformed);
        }
        let body: Body = decode(&self.body).map_err(|_| RevocationError::Malformed)?;
        if body.version != VERSION {
            return Err(RevocationError::Malformed);
        }
        if !trusted.contains(&body.authority) {
            return Err(RevocationError::UnknownAuthority { theirs: body.authority });
        }
        if body.network != network {
            return Err(RevocationError::OtherNetwork { theirs: body.network });
        }
        let signed = [DOMAIN, &self.body].concat();
        body.authority.verify(&signed, &self.signature).map_err(|_| RevocationError::Signature)?;
        Ok((body.what, body.authority))
    }
}

impl fmt::Debug for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Revocation({} bytes)", self.body.len())
    }
}

impl fmt::Display for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", BASE64URL_NOPAD.encode(&encode(self).map_err(|_| fmt::Error)?))
    }
}

impl FromStr for Revocation {
    type Err = RevocationError;

    fn from_str(text: &str) -> Result<Self, RevocationError> {
        let encoded = text.trim().strip_prefix(PREFIX).filter(|encoded| encoded.len() <= 4 * MAX_BYTES);
        let bytes = BASE64URL_NOPAD.decode(encoded.ok_or(RevocationError::Malformed)?.as_bytes());
        decode(&bytes.map_err(|_| RevocationError::Malformed)?).map_err(|_| RevocationError::Malformed)
    }
}

/// Why something is no revocation here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RevocationError {
    /// It is not in the form of one.
    #[error("this is no revocation")]
    Malformed,
    /// Its signature is wrong.
    #[error("the revocation was not signed by its authority")]
    Signature,
    /// Its authority is none of this network's.
    #[error("the revocation is of authority {theirs:?}, which is not one of the network's")]
    UnknownAuthority {
        /// The authority.
        theirs: AuthorityId,
    },
    /// It is for another network.
    #[error("the revocation is for network {theirs:?}")]
    OtherNetwork {
        /// The network.
        theirs: NetworkId,
    },
    /// The network keeps as many as it may.
    #[error("{MAX_REVOCATIONS} revocations are known, which is the limit")]
    Full,
}

/// Everything that was taken back.
#[derive(Debug, Default)]
pub(super) struct Revocations(BTreeMap<Revoked, (AuthorityId, Revocation)>);

impl Revocations {
    /// Adds one that was verified; false when it was known.
    pub(super) fn add(&mut self, what: Revoked, said: (AuthorityId, Revocation)) -> Result<bool, RevocationError> {
        if self.0.contains_key(&what) {
            return Ok(false);
        }
        if self.0.len() >= MAX_REVOCATIONS {
            return Err(RevocationError::Full);
        }
        self.0.insert(what, said);
        Ok(true)
    }

    /// Forgets what others than these said.
    pub(super) fn retain(&mut self, trusted: &[AuthorityId]) {
        self.0.retain(|_, (said_by, _)| trusted.contains(said_by));
    }

    /// What takes a ticket back, if something does.
    pub(super) fn of(&self, ticket: &Ticket) -> Option<Revoked> {
        let serials = ticket.serials().iter().map(|serial| Revoked::Serial(*serial));
        let mut may = serials.chain([Revoked::Peer(ticket.subject())]);
        may.find(|what| self.0.contains_key(what))
    }

    /// Equal where the same is taken back.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(SET_DOMAIN);
        for what in self.0.keys() {
            // A key is what was decoded: it can be encoded.
            hasher.update(&encode(what).unwrap_or_default());
        }
        *hasher.finalize().as_bytes()
    }

    pub(super) fn all(&self) -> Vec<Revocation> {
        self.0.values().map(|(_, said)| said.clone()).collect()
    }

    pub(super) fn list(&self) -> Vec<Revoked> {
        self.0.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use iroh::SecretKey;
    use proptest::prelude::*;

    use super::{super::Claims, *};

    fn peer(n: u8) -> PeerId {
        SecretKey::from_bytes(&[n; 32]).public().into()
    }

    fn authority() -> Authority {
        Authority::from_bytes(&[1; 32])
    }

    #[test]
    fn what_is_taken_back_is_so_with_all_that_came_of_it_and_by_its_authority_alone() {
        let invitation = authority().invite("n", Claims::new(1, 2), []).expect("is in order");
        let (one, other) = (invitation.accept(peer(2)).expect("joins"), invitation.accept(peer(3)).expect("joins"));
        let verify = |revocation: &Revocation, authority: AuthorityId| revocation.verify("n".into(), &[authority]);
        let of = |what| authority().revoke("n", what).expect("is encoded");
        for (what, covers) in [
            (Revoked::Serial(invitation.ticket().serial()), [true, true]),
            (Revoked::Serial(one.ticket().serial()), [true, false]),
            (Revoked::Peer(peer(3)), [false, true]),
        ] {
            let said: Revocation = of(what).to_string().parse().expect("is one");
            assert_eq!(verify(&said, authority().id()), Ok((what, authority().id())));
            assert_eq!([one.ticket(), other.ticket()].map(|ticket| what.covers(ticket)), covers, "{what}");
            let stranger = Authority::from_bytes(&[2; 32]).id();
            let unknown = RevocationError::UnknownAuthority { theirs: authority().id() };
            assert_eq!(verify(&said, stranger), Err(unknown));
            let elsewhere = said.verify("m".into(), &[authority().id()]);
            assert_eq!(elsewhere, Err(RevocationError::OtherNetwork { theirs: "n".into() }));
            let mut forged = said.clone();
            let last = forged.body.len() - 1;
            forged.body[last] ^= 1;
            assert!(verify(&forged, authority().id()).is_err());
        }
    }

    #[test]
    fn the_set_grows_to_its_limit_and_equal_sets_have_equal_digests() {
        let (mut one, mut other) = (Revocations::default(), Revocations::default());
        let said = (authority().id(), authority().revoke("n", Revoked::Serial([0; 16])).expect("is encoded"));
        let what = |n: usize| Revoked::Serial((n as u128).to_le_bytes());
        for n in 0..MAX_REVOCATIONS {
            assert_eq!(one.add(what(n), said.clone()), Ok(true));
            assert_eq!(other.add(what(MAX_REVOCATIONS - 1 - n), said.clone()), Ok(true));
            if n == 0 {
                assert_ne!(one.digest(), other.digest());
            }
        }
        assert_eq!(one.digest(), other.digest());
        assert_eq!(one.add(what(0), said.clone()), Ok(false));
        assert_eq!(one.add(what(MAX_REVOCATIONS), said), Err(RevocationError::Full));
        one.retain(&[authority().id()]);
        assert_eq!(one.list().len(), MAX_REVOCATIONS);
        one.retain(&[]);
        assert!(one.list().is_empty() && other.digest() != one.digest());
    }

    proptest! {
        #[test]
        fn made_up_revocations_are_refused(body in proptest::collection::vec(any::<u8>(), 0..300), signature: [u8; 32]) {
            let signature = Signature::from_bytes(&[signature, signature].concat().try_into().expect("64"));
            let made_up = Revocation { body, signature };
            prop_assert!(made_up.verify("n".into(), &[authority().id()]).is_err());
        }
    }
}
