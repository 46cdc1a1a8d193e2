//! What a node says about itself: [`PeerEntry`], its [`Version`], and [`SignedEntry`], the form in which it travels.
//!
//! An entry is written and signed by its owner alone; everybody else passes it on unchanged. Nothing here knows how
//! entries spread or how long they are believed: that is the core's business.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use iroh::{EndpointAddr, SecretKey, Signature};
use serde::{Deserialize, Serialize};

use super::verify;
use crate::{
    primitives::{GroupId, NetworkId, PeerId, StoreId, StreamId, Tag, Tags},
    trust::{Grants, NetworkKind, TicketDigest, Trust},
};

/// The largest encoded entry, in bytes.
pub const MAX_ENTRY_BYTES: usize = 64 * 1024;
/// The most transport addresses in one entry.
pub const MAX_ADDRS: usize = 32;
/// The most tags in one entry.
pub const MAX_TAGS: usize = 256;
/// The most streams that one entry may list as produced, and again as consumed.
pub const MAX_STREAMS: usize = 512;
/// The most groups in one entry, and again the most stores.
pub const MAX_GROUPS: usize = 128;
/// The most protocol names in one entry.
pub const MAX_PROTOCOLS: usize = 64;
/// The longest protocol name, in bytes.
pub const MAX_PROTOCOL_NAME: usize = 64;

const ENTRY_DOMAIN: &[u8] = b"mosaik discovery entry 2:";
const DIGEST_DOMAIN: &str = "mosaik 2026 discovery entry digest 1";

/// BLAKE3 of the declared shape of a datum; absent for types that declare none.
pub type Fingerprint = [u8; 32];

/// Which of two entries of one peer is newer. A restart takes a higher `run_id`, a change within a run a higher `seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version {
    /// Wall-clock microseconds since the Unix epoch when the node started.
    pub run_id: u64,
    /// Counts the changes within one run.
    pub seq: u64,
}

impl Version {
    /// The version that replaces this one within the same run.
    #[must_use]
    pub const fn next(self) -> Self {
        match self.seq.checked_add(1) {
            Some(seq) => Self { run_id: self.run_id, seq },
            None => Self { run_id: self.run_id.saturating_add(1), seq: 0 },
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.run_id, self.seq)
    }
}

/// BLAKE3 of an entry's encoded body.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EntryDigest([u8; 32]);

impl EntryDigest {
    fn of(body: &[u8]) -> Self {
        Self(*blake3::Hasher::new_derive_key(DIGEST_DOMAIN).update(body).finalize().as_bytes())
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(super) const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for EntryDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The streams that a peer produces or consumes, each with the fingerprint of its schema if its type declares one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamSet(BTreeMap<StreamId, Option<Fingerprint>>);

impl StreamSet {
    /// Whether the stream is listed. Takes a [`StreamId`], a `&str` or a `String`.
    pub fn contains(&self, stream: impl Into<StreamId>) -> bool {
        self.0.contains_key(&stream.into())
    }

    /// The schema fingerprint that is listed with a stream; `None` when there is none or the stream is not listed.
    pub fn fingerprint(&self, stream: impl Into<StreamId>) -> Option<Fingerprint> {
        self.0.get(&stream.into()).copied().flatten()
    }

    /// Lists a stream; a second call replaces the fingerprint.
    pub fn insert(&mut self, stream: impl Into<StreamId>, fingerprint: Option<Fingerprint>) {
        self.0.insert(stream.into(), fingerprint);
    }

    /// Takes a stream off the list; false when it was not there.
    pub fn remove(&mut self, stream: impl Into<StreamId>) -> bool {
        self.0.remove(&stream.into()).is_some()
    }

    /// The streams in ascending order of their ids.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (StreamId, Option<Fingerprint>)> {
        self.0.iter().map(|(id, fingerprint)| (*id, *fingerprint))
    }

    /// How many streams there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What a node says about itself, without its version: the part that its subsystems change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalEntry {
    /// Where the node can be dialled.
    pub addr: EndpointAddr,
    /// Roles and properties.
    pub tags: Tags,
    /// The ticket by which the node is in the network, where there are tickets.
    pub ticket: Option<TicketDigest>,
    /// Streams with a producer here.
    pub produces: StreamSet,
    /// Streams with a consumer here.
    pub consumes: StreamSet,
    /// Groups that the node is a member of.
    pub groups: BTreeSet<GroupId>,
    /// Stores that the node holds.
    pub stores: BTreeSet<StoreId>,
    /// Names of the wire protocols that the node serves, each with its version.
    pub protocols: BTreeSet<String>,
}

impl LocalEntry {
    /// An entry that says nothing but where the node is.
    pub(crate) fn new(addr: EndpointAddr) -> Self {
        Self {
            addr,
            tags: Tags::default(),
            ticket: None,
            produces: StreamSet::default(),
            consumes: StreamSet::default(),
            groups: BTreeSet::new(),
            stores: BTreeSet::new(),
            protocols: BTreeSet::new(),
        }
    }

    /// Holds every list against its limit.
    fn check(&self) -> Result<(), EntryError> {
        let limits = [
            ("addresses", self.addr.addrs.len(), MAX_ADDRS),
            ("tags", self.tags.len(), MAX_TAGS),
            ("produced streams", self.produces.len(), MAX_STREAMS),
            ("consumed streams", self.consumes.len(), MAX_STREAMS),
            ("groups", self.groups.len(), MAX_GROUPS),
            ("stores", self.stores.len(), MAX_GROUPS),
            ("protocols", self.protocols.len(), MAX_PROTOCOLS),
        ];
        for (what, len, max) in limits {
            if len > max {
                return Err(EntryError::TooMany { what, len, max });
            }
        }
        if let Some(name) = self.protocols.iter().find(|name| name.len() > MAX_PROTOCOL_NAME) {
            return Err(EntryError::TooMany {
                what: "bytes of a protocol name",
                len: name.len(),
                max: MAX_PROTOCOL_NAME,
            });
        }
        Ok(())
    }

    /// Writes this down as one version, signed for one network. About 30 microseconds.
    ///
    /// # Errors
    /// When a list or the whole is over its limit.
    pub(crate) fn sign(
        &self,
        version: Version,
        network: NetworkId,
        secret: &SecretKey,
    ) -> Result<PeerEntry, EntryError> {
        self.check()?;
        let body = Body { version, said: self.clone() };
        let bytes = postcard::to_allocvec(&body).map_err(|_| EntryError::Undecodable)?;
        if bytes.len() > MAX_ENTRY_BYTES {
            return Err(EntryError::TooLarge { len: bytes.len() });
        }
        let signature = secret.sign(&signed_bytes(network, &bytes));
        let signed = SignedEntry { body: bytes.into(), signature };
        Ok(PeerEntry(Arc::new(Inner { digest: EntryDigest::of(&signed.body), body, signed, network }), None, None))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Body {
    version: Version,
    said: LocalEntry,
}

/// An entry as it travels: the encoded body and its owner's signature. Not trusted until verified.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SignedEntry {
    body: Bytes,
    signature: Signature,
}

impl SignedEntry {
    /// The size on the wire in bytes, length prefixes excluded.
    pub(crate) fn len(&self) -> usize {
        self.body.len() + Signature::LENGTH
    }

    /// Checks sizes, form and signature. A second verification of the same bytes anywhere in this process costs one
    /// hash and gives the same shared entry.
    ///
    /// # Errors
    /// When the entry is over a limit, is not canonical, or was not signed by its owner for this network.
    pub(super) fn verify(&self, network: NetworkId) -> Result<PeerEntry, EntryError> {
        if self.body.len() > MAX_ENTRY_BYTES {
            return Err(EntryError::TooLarge { len: self.body.len() });
        }
        let key = verify::key(network, &[&self.body, &self.signature.to_bytes()]);
        if let Some(entry) = verify::known_entry(&key) {
            return Ok(PeerEntry(entry, None, None));
        }
        let (body, rest) = postcard::take_from_bytes::<Body>(&self.body).map_err(|_| EntryError::Undecodable)?;
        if !rest.is_empty() {
            return Err(EntryError::Undecodable);
        }
        body.said.check()?;
        body.said
            .addr
            .id
            .verify(&signed_bytes(network, &self.body), &self.signature)
            .map_err(|_| EntryError::BadSignature)?;
        let entry = Arc::new(Inner { digest: EntryDigest::of(&self.body), body, signed: self.clone(), network });
        verify::remember_entry(key, &entry);
        Ok(PeerEntry(entry, None, None))
    }
}

impl fmt::Debug for SignedEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignedEntry({} bytes)", self.len())
    }
}

fn signed_bytes(network: NetworkId, body: &[u8]) -> Vec<u8> {
    [ENTRY_DOMAIN, network.as_bytes(), body].concat()
}

/// Why an entry is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// The encoded entry is over [`MAX_ENTRY_BYTES`].
    #[error("an entry of {len} bytes is over the limit of {MAX_ENTRY_BYTES}")]
    TooLarge {
        /// Its size in bytes.
        len: usize,
    },
    /// A list in the entry is over its limit.
    #[error("{len} {what} are over the limit of {max}")]
    TooMany {
        /// Which list.
        what: &'static str,
        /// How many it holds.
        len: usize,
        /// How many it may hold.
        max: usize,
    },
    /// The bytes are no entry.
    #[error("the bytes are no entry")]
    Undecodable,
    /// The signature is not its owner's, or is for another network.
    #[error("the entry was not signed by its owner for this network")]
    BadSignature,
    /// A newer version is known.
    #[error("version {offered} is older than {known}, which is known")]
    Stale {
        /// The version that was refused.
        offered: Version,
        /// The version in the catalog.
        known: Version,
    },
    /// The entry is the local node's own.
    #[error("the entry is the local node's own")]
    Own,
    /// The peer has said farewell in this run.
    #[error("the peer has departed")]
    Departed,
    /// The catalog is full.
    #[error("the catalog is full")]
    Full,
    /// The peer at the other end gave the entry of another one where its own is asked for.
    #[error("the entry is of {owner:?} and came from another peer")]
    Foreign {
        /// Whose entry it is.
        owner: PeerId,
    },
}

pub(super) struct Inner {
    body: Body,
    digest: EntryDigest,
    signed: SignedEntry,
    network: NetworkId,
}

/// What a peer says about itself, verified. Cheap to clone; equal when id, version and digest are.
///
/// In a network of an authority it also knows what the authority says of the peer: [`grants`](Self::grants).
#[derive(Clone)]
pub struct PeerEntry(Arc<Inner>, Option<Trust>, Option<Duration>); // the last: the round-trip time

impl PeerEntry {
    /// The peer's identity.
    #[must_use]
    pub fn id(&self) -> PeerId {
        self.0.body.said.addr.id.into()
    }

    /// Where the peer can be dialled.
    #[must_use]
    pub fn addr(&self) -> &EndpointAddr {
        &self.0.body.said.addr
    }

    /// Its roles and properties.
    #[must_use]
    pub fn tags(&self) -> &Tags {
        &self.0.body.said.tags
    }

    /// What the network's authority says of it: the roles and tags that its ticket grants, as far as this node knows the ticket
    /// and while it holds. What the peer says of itself is in [`tags`](Self::tags). In a network without an authority
    /// only what its evidence proves here.
    #[must_use]
    pub fn grants(&self) -> Grants {
        self.1.as_ref().map(|trust| trust.grants(self.id(), self.ticket())).unwrap_or_default()
    }

    /// The digest of its ticket, in a network of an authority.
    #[must_use]
    pub fn ticket(&self) -> Option<TicketDigest> {
        self.0.body.said.ticket
    }

    /// The same entry, with grants as this node knows them.
    pub(super) fn trusting(mut self, trust: &Trust) -> Self {
        self.1 = (trust.kind() == NetworkKind::Authority || trust.verifies_evidence()).then(|| trust.clone());
        self
    }

    /// The streams it produces.
    #[must_use]
    pub fn produces(&self) -> &StreamSet {
        &self.0.body.said.produces
    }

    /// The streams it consumes.
    #[must_use]
    pub fn consumes(&self) -> &StreamSet {
        &self.0.body.said.consumes
    }

    /// The groups it is a member of.
    #[must_use]
    pub fn groups(&self) -> &BTreeSet<GroupId> {
        &self.0.body.said.groups
    }

    /// The stores it holds.
    #[must_use]
    pub fn stores(&self) -> &BTreeSet<StoreId> {
        &self.0.body.said.stores
    }

    /// The wire protocols it serves, each with its version.
    #[must_use]
    pub fn protocols(&self) -> &BTreeSet<String> {
        &self.0.body.said.protocols
    }

    /// How new the entry is.
    #[must_use]
    pub fn version(&self) -> Version {
        self.0.body.version
    }

    /// The digest of the entry's content.
    #[must_use]
    pub fn digest(&self) -> EntryDigest {
        self.0.digest
    }

    /// The entry as it would be with more tags, to ask a predicate what it misses. It is not signed for them: it goes nowhere.
    pub(crate) fn supposing(&self, tags: impl IntoIterator<Item = Tag>) -> Self {
        let Inner { body, digest, signed, network } = &*self.0;
        let mut body = body.clone();
        tags.into_iter().for_each(|tag| _ = body.said.tags.insert(tag));
        Self(
            Arc::new(Inner { body, digest: *digest, signed: signed.clone(), network: *network }),
            self.1.clone(),
            self.2,
        )
    }

    /// The smoothed round-trip time from this node to the peer, as it was when a predicate, a preference or a channel was given
    /// this entry. Nothing if there was no connection to measure it on, and for entries straight from the catalog.
    #[must_use]
    pub const fn rtt(&self) -> Option<Duration> {
        self.2
    }

    /// The entry with a round-trip time from this node.
    pub(crate) fn measured(&self, rtt: Option<Duration>) -> Self {
        Self(self.0.clone(), self.1.clone(), rtt)
    }

    pub(crate) fn signed(&self) -> &SignedEntry {
        &self.0.signed
    }
}

impl PartialEq for PeerEntry {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || (self.id(), self.version(), self.digest(), self.0.network)
                == (other.id(), other.version(), other.digest(), other.0.network)
    }
}

impl Eq for PeerEntry {}

impl fmt::Debug for PeerEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerEntry")
            .field("id", &self.id())
            .field("version", &self.version())
            .field("tags", self.tags())
            .field("produces", &self.produces().len())
            .field("consumes", &self.consumes().len())
            .finish_non_exhaustive()
    }
}
