//! [`Ticket`]: who may be in a network of an authority, and as what; verified offline with the authority's public key.
//!
//! A ticket is a chain of signed links. The authority signs the first; the key to which a link is given may sign the next, with
//! the same rights or fewer, at most twice. Behind each of them may stand one by which it was renewed: another window, signed by who
//! holds a license of the authority. The encoding has a version and is at most [`MAX_TICKET`] bytes long. Pure: time comes in as an
//! argument, and what is trusted is decided by the caller.

use std::{
    fmt,
    str::FromStr,
    sync::{Arc, LazyLock, Weak},
    time::Duration,
};

use data_encoding::BASE64URL_NOPAD;
use iroh::{SecretKey, Signature};
use serde::{Deserialize, Serialize};

use super::{
    authority::AuthorityId,
    claims::{Claims, Grants},
    license::{Issuer, License},
};
use crate::primitives::{NetworkId, PeerId, fresh_bytes, verified::Table};

/// The longest encoded ticket, in bytes.
pub const MAX_TICKET: usize = 1024;
/// How often a ticket may be narrowed after the authority has signed it.
pub const MAX_NARROWED: usize = 2;
/// By how much two clocks may differ before a ticket's window is held against its holder.
pub const LEEWAY: Duration = Duration::from_mins(1);
pub(super) const VERSION: u8 = 1;
/// The first byte of a link that renews the one before it.
const RENEWED: u8 = 2;
const DOMAIN: &[u8] = b"mosaik ticket 1:";
const RENEWED_DOMAIN: &[u8] = b"mosaik renewed ticket 1:";
const DIGEST_DOMAIN: &str = "mosaik 2026 ticket digest 1";
/// In front of a ticket as text.
pub(super) const PREFIX: &str = "mosaikt1";

/// Tickets whose signatures were verified in this process, by their digest: each comes again with every connection of its holder, and
/// a ticket that was renewed has four signatures. So many are remembered for as long as somebody has them.
const KNOWN: usize = 1 << 12;

static VERIFIED: LazyLock<Table<Weak<Inner>>> = LazyLock::new(|| Table::new(KNOWN));

/// Why something is no ticket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TicketError {
    /// It is longer than [`MAX_TICKET`].
    #[error("a ticket of {len} bytes is over the limit of {MAX_TICKET}")]
    TooLarge {
        /// Its length in bytes.
        len: usize,
    },
    /// It is not in the form of a ticket.
    #[error("this is no ticket: {why}")]
    Undecodable {
        /// What is wrong.
        why: &'static str,
    },
    /// It is of another version of the encoding.
    #[error("a ticket of version {theirs}; this program reads version {VERSION}")]
    Version {
        /// Its version.
        theirs: u8,
    },
    /// A signature is wrong.
    #[error("link {link} of the ticket was not signed by its issuer")]
    Signature {
        /// Which link; the authority's is 0.
        link: usize,
    },
    /// It was narrowed too often.
    #[error("the ticket was narrowed {times} times, {MAX_NARROWED} are allowed")]
    TooDeep {
        /// How often.
        times: usize,
    },
    /// A link grants what the one before does not.
    #[error("a link of the ticket grants more {what} than the one that it comes from")]
    Wider {
        /// What is wider.
        what: &'static str,
    },
}

/// One link as it is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Link {
    version: u8,
    network: NetworkId,
    issuer: PeerId,
    subject: PeerId,
    serial: [u8; 16],
    claims: Claims,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Signed {
    link: Vec<u8>,
    signature: Signature,
}

/// The link by which the one before it holds at another time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Renewed {
    version: u8,
    license: License,
    not_before: u64,
    not_after: u64,
}

/// BLAKE3 of an encoded ticket.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TicketDigest([u8; 32]);

impl fmt::Debug for TicketDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A ticket whose form and signatures are right. Whether its authority is trusted, and whether it is of this time, is asked
/// where it is shown. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket(Arc<Inner>);

#[derive(PartialEq, Eq)]
struct Inner {
    bytes: Vec<u8>,
    chain: Vec<Signed>,
    serials: Vec<[u8; 16]>,
    authority: AuthorityId,
    last: Link,
    /// Whether the last link is one by which it was renewed.
    renewed: bool,
    grants: Grants,
    digest: TicketDigest,
}

/// The links of a chain that were read so far.
#[derive(Default)]
struct Read {
    /// The authority's.
    first: Option<AuthorityId>,
    /// The last that grants something, with the window that it was given.
    last: Option<Link>,
    renewed: bool,
    narrowed: usize,
    serials: Vec<[u8; 16]>,
}

impl Read {
    fn link(&mut self, at: usize, Signed { link: bytes, signature }: &Signed) -> Result<(), TicketError> {
        let link: Link = decode(bytes)?;
        link.claims.check()?;
        if let Some(before) = &self.last {
            if (before.subject, before.network) != (link.issuer, link.network) {
                return Err(TicketError::Undecodable { why: "its links do not fit together" });
            }
            link.claims.within(&before.claims)?;
            self.narrowed += 1;
        }
        if self.narrowed > MAX_NARROWED {
            return Err(TicketError::TooDeep { times: self.narrowed });
        }
        let key = link.issuer.endpoint_id();
        key.verify(&[DOMAIN, bytes].concat(), signature).map_err(|_| TicketError::Signature { link: at })?;
        self.first.get_or_insert(AuthorityId(link.issuer));
        self.serials.push(link.serial);
        self.renewed = false;
        self.last = Some(link);
        Ok(())
    }

    fn renewed(&mut self, at: usize, chain: &[Signed]) -> Result<(), TicketError> {
        let (Some(authority), Some(last), false) = (self.first, &mut self.last, self.renewed) else {
            return Err(TicketError::Undecodable { why: "what renews it stands in the wrong place" });
        };
        let Signed { link: bytes, signature } = &chain[at];
        let Renewed { license, not_before, not_after, .. } = decode(bytes)?;
        let licensed = license.verify(last.network, authority)?;
        licensed.allows(&last.claims, not_before, not_after)?;
        last.claims = last.claims.clone().at(not_before, not_after);
        last.claims.check()?;
        let (key, message) = (licensed.key.endpoint_id(), renewal(&chain[..at], bytes)?);
        key.verify(&message, signature).map_err(|_| TicketError::Signature { link: at })?;
        if !self.serials.contains(&licensed.serial) {
            self.serials.push(licensed.serial);
        }
        self.renewed = true;
        Ok(())
    }
}

/// What is signed to renew a chain.
fn renewal(chain: &[Signed], link: &[u8]) -> Result<Vec<u8>, TicketError> {
    Ok([RENEWED_DOMAIN, blake3::hash(&encode(&chain)?).as_bytes(), link].concat())
}

impl Ticket {
    pub(super) fn signed(
        mut chain: Vec<Signed>,
        network: NetworkId,
        issuer: &SecretKey,
        subject: PeerId,
        claims: Claims,
    ) -> Result<Self, TicketError> {
        let mut serial = [0; 16];
        serial.copy_from_slice(&fresh_bytes()[..16]);
        let link = Link { version: VERSION, network, issuer: issuer.public().into(), subject, serial, claims };
        let link = encode(&link)?;
        let signature = issuer.sign(&[DOMAIN, &link].concat());
        chain.push(Signed { link, signature });
        Self::from_bytes(&encode(&chain)?)
    }

    /// A ticket for another key, signed by the holder of this one: the same rights or fewer.
    ///
    /// # Errors
    /// When the key is not the one that this ticket is for, when more is claimed than this one grants, or when this one was
    /// narrowed [`MAX_NARROWED`] times.
    pub fn narrow(&self, holder: &SecretKey, subject: PeerId, claims: Claims) -> Result<Self, TicketError> {
        Self::signed(self.0.chain.clone(), self.network(), holder, subject, claims)
    }

    /// The same ticket with another window, in place of the one by which it was renewed before.
    pub(super) fn renew(&self, issuer: &Issuer, not_before: u64, not_after: u64) -> Result<Self, TicketError> {
        let kept = self.0.chain.len() - usize::from(self.0.renewed);
        let mut chain = self.0.chain[..kept].to_vec();
        let license = issuer.license.clone();
        let link = encode(&Renewed { version: RENEWED, license, not_before, not_after })?;
        let signature = issuer.key.sign(&renewal(&chain, &link)?);
        chain.push(Signed { link, signature });
        Self::from_bytes(&encode(&chain)?)
    }

    /// Reads a ticket and checks its form and every signature, at most nine of them. While somebody in this process has the same one,
    /// that costs one hash.
    ///
    /// # Errors
    /// When it is too long, no ticket, of another version, narrowed too often, wider than allowed, or wrongly signed.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TicketError> {
        if bytes.len() > MAX_TICKET {
            return Err(TicketError::TooLarge { len: bytes.len() });
        }
        let digest = *blake3::Hasher::new_derive_key(DIGEST_DOMAIN).update(bytes).finalize().as_bytes();
        if let Some(known) = VERIFIED.get(&digest).and_then(|known| known.upgrade()) {
            return Ok(Self(known));
        }
        let chain: Vec<Signed> = decode(bytes)?;
        let mut read = Read::default();
        for (at, signed) in chain.iter().enumerate() {
            match signed.link.first() {
                Some(&VERSION) => read.link(at, signed)?,
                Some(&RENEWED) => read.renewed(at, &chain)?,
                Some(&theirs) => return Err(TicketError::Version { theirs }),
                None => return Err(TicketError::Undecodable { why: "a link is empty" }),
            }
        }
        let Read { first: Some(authority), last: Some(last), renewed, serials, .. } = read else {
            return Err(TicketError::Undecodable { why: "it has no link" });
        };
        let grants = Grants::of(&last.claims);
        let (bytes, key, digest) = (bytes.to_vec(), digest, TicketDigest(digest));
        let ticket = Arc::new(Inner { bytes, chain, serials, authority, last, renewed, grants, digest });
        VERIFIED.put(key, Arc::downgrade(&ticket));
        Ok(Self(ticket))
    }

    /// The encoded ticket.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    /// Whose word it is in the end.
    #[must_use]
    pub fn authority(&self) -> AuthorityId {
        self.0.authority
    }

    /// The network that it is for.
    #[must_use]
    pub fn network(&self) -> NetworkId {
        self.0.last.network
    }

    /// The peer that it is for.
    #[must_use]
    pub fn subject(&self) -> PeerId {
        self.0.last.subject
    }

    /// What it grants: roles and tags.
    #[must_use]
    pub fn grants(&self) -> &Grants {
        &self.0.grants
    }

    /// What it grants and when, to sign a narrower one.
    #[must_use]
    pub fn claims(&self) -> &Claims {
        &self.0.last.claims
    }

    /// The roles among its grants.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        self.0.last.claims.roles.iter().map(String::as_str)
    }

    /// From when it holds: seconds since the Unix epoch.
    #[must_use]
    pub fn not_before(&self) -> u64 {
        self.0.last.claims.not_before
    }

    /// Until when it holds: seconds since the Unix epoch.
    #[must_use]
    pub fn not_after(&self) -> u64 {
        self.0.last.claims.not_after
    }

    /// Whether it was renewed: its window is one that a member has given it.
    #[must_use]
    pub fn is_renewed(&self) -> bool {
        self.0.renewed
    }

    /// The number by which it can be revoked; renewed tickets keep theirs.
    #[must_use]
    pub fn serial(&self) -> [u8; 16] {
        self.0.last.serial
    }

    /// The numbers of all its links, the authority's first, and of the licenses by which it was renewed: revoking one of them
    /// revokes it.
    #[must_use]
    pub fn serials(&self) -> &[[u8; 16]] {
        &self.0.serials
    }

    /// What stands for it in the entry of its holder.
    #[must_use]
    pub fn digest(&self) -> TicketDigest {
        self.0.digest
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", BASE64URL_NOPAD.encode(self.as_bytes()))
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({:?} for {:?})", self.digest(), self.subject())
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        let encoded = text.trim().strip_prefix(PREFIX);
        let encoded = encoded.ok_or(TicketError::Undecodable { why: "it does not begin with mosaikt1" })?;
        if encoded.len() > 2 * MAX_TICKET {
            return Err(TicketError::TooLarge { len: encoded.len() / 4 * 3 });
        }
        let bytes = BASE64URL_NOPAD.decode(encoded.as_bytes());
        Self::from_bytes(&bytes.map_err(|_| TicketError::Undecodable { why: "characters are missing or wrong" })?)
    }
}

pub(super) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, TicketError> {
    postcard::to_allocvec(value).map_err(|_| TicketError::Undecodable { why: "it cannot be encoded" })
}

/// The value of these bytes, if they are the one encoding of it.
pub(super) fn decode<T: serde::de::DeserializeOwned + Serialize>(bytes: &[u8]) -> Result<T, TicketError> {
    match postcard::take_from_bytes::<T>(bytes) {
        Ok((value, [])) if encode(&value)? == bytes => Ok(value),
        _ => Err(TicketError::Undecodable { why: "its bytes are those of nothing else either" }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::{Authority, MAX_GRANT_NAME, MAX_GRANTS},
        *,
    };
    use crate::primitives::Tag;

    fn secret(n: u8) -> SecretKey {
        SecretKey::from_bytes(&[n; 32])
    }

    fn id(n: u8) -> PeerId {
        secret(n).public().into()
    }

    fn authority() -> Authority {
        Authority::from_bytes(&[99; 32])
    }

    fn claims() -> Claims {
        Claims::new(1_000, 2_000).with_role("builder").with_grant("eu").with_grant("us")
    }

    fn ticket() -> Ticket {
        authority().issue("n", id(1), claims()).expect("is in order")
    }

    #[test]
    fn a_ticket_says_who_and_what_and_comes_back_from_bytes_and_text() {
        let ticket = ticket();
        assert_eq!((ticket.subject(), ticket.network(), ticket.authority()), (id(1), "n".into(), authority().id()));
        assert!(ticket.grants().contains("builder") && ticket.grants().contains(Tag::from("eu")));
        assert!(!ticket.grants().contains("relay"));
        assert_eq!(ticket.roles().collect::<Vec<_>>(), ["builder"]);
        assert_eq!(Ticket::from_bytes(ticket.as_bytes()).as_ref(), Ok(&ticket));
        assert_eq!(format!(" {ticket}\n").parse::<Ticket>().as_ref(), Ok(&ticket));
        assert_eq!(ticket.digest(), Ticket::from_bytes(ticket.as_bytes()).expect("is one").digest());
    }

    #[test]
    fn a_holder_signs_narrower_tickets_twice_and_never_wider_ones() {
        let fewer = || Claims::new(1_000, 1_500).with_role("builder").with_grant("eu");
        let once = ticket().narrow(&secret(1), id(2), fewer()).expect("is narrower");
        assert_eq!((once.subject(), once.not_after(), once.serials().len()), (id(2), 1_500, 2));
        assert!(once.grants().contains("eu") && !once.grants().contains("us"));
        let twice = once.narrow(&secret(2), id(3), Claims::new(1_200, 1_300)).expect("is narrower");
        let thrice = twice.narrow(&secret(3), id(4), Claims::new(1_200, 1_300));
        assert_eq!(thrice, Err(TicketError::TooDeep { times: 3 }));
        let wider = |claims| once.narrow(&secret(2), id(3), claims);
        assert_eq!(wider(fewer().with_role("relay")), Err(TicketError::Wider { what: "roles" }));
        assert_eq!(wider(fewer().with_grant("us")), Err(TicketError::Wider { what: "grants" }));
        assert_eq!(wider(Claims::new(999, 1_400)), Err(TicketError::Wider { what: "time" }));
        assert_eq!(wider(Claims::new(1_400, 1_501)), Err(TicketError::Wider { what: "time" }));
        assert!(
            matches!(once.narrow(&secret(9), id(3), fewer()), Err(TicketError::Undecodable { .. })),
            "not the holder"
        );
    }

    #[test]
    fn what_a_ticket_may_hold_is_limited() {
        let issue = |claims| authority().issue("n", id(1), claims);
        assert!(issue(Claims::new(2, 1)).is_err() && issue(claims().with_role("")).is_err());
        assert!(issue(claims().with_role("x".repeat(MAX_GRANT_NAME + 1))).is_err());
        let many = (0..=MAX_GRANTS).fold(claims(), |claims, n| claims.with_grant(n.to_string()));
        assert!(issue(many).is_err());
        let long = (0..20).fold(claims(), |claims, n| claims.with_grant(format!("{n:060}")));
        assert!(matches!(issue(long), Err(TicketError::TooLarge { .. })));
        let mut other = ticket().0.chain.clone();
        other[0].link[0] = 3;
        let other = Ticket::from_bytes(&encode(&other).expect("encodes"));
        assert_eq!(other, Err(TicketError::Version { theirs: 3 }));
    }

    proptest! {
        #[test]
        fn made_up_bytes_are_no_ticket(bytes in proptest::collection::vec(any::<u8>(), 0..1200)) {
            prop_assert!(Ticket::from_bytes(&bytes).is_err());
        }

        #[test]
        fn made_up_text_is_no_ticket(text in "(mosaikt1)?[ -~]{0,200}") {
            prop_assert!(text.parse::<Ticket>().is_err());
        }

        /// Whichever bit is changed: no ticket, or at least never another one.
        #[test]
        fn a_changed_bit_is_noticed(at: prop::sample::Index, bit in 0..8u32) {
            let mut bytes = ticket().as_bytes().to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(Ticket::from_bytes(&bytes).is_err());
        }
    }
}
