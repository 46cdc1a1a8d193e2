//! The catalog: an immutable snapshot of every entry that a node believes in, its own included.
//!
//! The core makes a new snapshot for every change and publishes it; everybody else only reads. Two nodes compare
//! their catalogs by one root digest, then by 256 bucket digests.
//!
//! **Digests.** Every entry has an item hash, BLAKE3 over (id, version, digest) cut to 16 bytes. A bucket's digest is
//! the sum of its items' hashes modulo 2^128, the root is the sum of all. Adding or taking away one entry is then
//! O(1) and independent of order. Sums can be forged by somebody who chooses entries for that purpose, but only with
//! keys and about 2^64 work, and the gain is a delayed sync: members are honest, and for them two different
//! catalogs collide with probability 2^-128.

use std::{borrow::Borrow, fmt, sync::Arc};

use super::entry::{EntryDigest, PeerEntry, Version};
use crate::primitives::{OrdMap, PeerId};

/// How many buckets the peers are spread over: by the first byte of their ids.
pub(super) const BUCKETS: usize = 256;

/// The digest of a catalog: equal digests mean equal (id, version, digest) of every entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RootDigest(pub(super) u128);

impl fmt::Debug for RootDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A snapshot of the known entries. Cloning is O(1).
#[derive(Clone)]
pub struct Catalog {
    local: PeerEntry,
    entries: OrdMap<PeerId, PeerEntry>,
    root: u128,
    buckets: Arc<[u128; BUCKETS]>,
}

impl Catalog {
    /// The catalog of a node that knows only itself.
    pub(super) fn new(local: PeerEntry) -> Self {
        let mut catalog =
            Self { local: local.clone(), entries: OrdMap::new(), root: 0, buckets: Arc::new([0; BUCKETS]) };
        catalog.put(local);
        catalog
    }

    /// The entry of the local node.
    #[must_use]
    pub fn local(&self) -> &PeerEntry {
        &self.local
    }

    /// The entry of a peer, or of the local node.
    pub fn get(&self, id: impl Borrow<PeerId>) -> Option<&PeerEntry> {
        self.entries.get(id.borrow())
    }

    /// Whether the peer is known.
    pub fn contains(&self, id: impl Borrow<PeerId>) -> bool {
        self.entries.contains_key(id.borrow())
    }

    /// All peers but the local node, in ascending order of their ids.
    pub fn peers(&self) -> impl Iterator<Item = &PeerEntry> {
        let me = self.local.id();
        self.entries.values().filter(move |entry| entry.id() != me)
    }

    /// All entries, that of the local node included, in ascending order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &PeerEntry> {
        self.entries.values()
    }

    /// How many entries there are, that of the local node included; never 0.
    #[expect(clippy::len_without_is_empty, reason = "a catalog always holds the local node")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The digest over all entries.
    #[must_use]
    pub fn root(&self) -> RootDigest {
        RootDigest(self.root)
    }

    pub(super) fn bucket(&self, bucket: u8) -> u128 {
        self.buckets[usize::from(bucket)]
    }

    /// Inserts or replaces the entry of a peer or of the local node.
    pub(super) fn put(&mut self, entry: PeerEntry) {
        let id = entry.id();
        if id == self.local.id() {
            self.local = entry.clone();
        }
        let new = item_hash(&entry);
        let old = self.entries.insert(id, entry).map_or(0, |old| item_hash(&old));
        self.shift(id, new.wrapping_sub(old));
    }

    /// Takes out the entry of a peer.
    pub(super) fn remove(&mut self, id: &PeerId) -> Option<PeerEntry> {
        debug_assert_ne!(*id, self.local.id(), "the local entry stays");
        let old = self.entries.remove(id)?;
        self.shift(*id, 0u128.wrapping_sub(item_hash(&old)));
        Some(old)
    }

    fn shift(&mut self, id: PeerId, by: u128) {
        self.root = self.root.wrapping_add(by);
        let bucket = &mut Arc::make_mut(&mut self.buckets)[usize::from(bucket_of(&id))];
        *bucket = bucket.wrapping_add(by);
    }
}

/// The bucket that a peer belongs to.
pub(super) fn bucket_of(id: &PeerId) -> u8 {
    id.as_bytes()[0]
}

fn item_hash(entry: &PeerEntry) -> u128 {
    hash_of(&entry.id(), entry.version(), entry.digest())
}

fn hash_of(id: &PeerId, version: Version, digest: EntryDigest) -> u128 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(id.as_bytes());
    hasher.update(&version.run_id.to_le_bytes()).update(&version.seq.to_le_bytes());
    hasher.update(digest.as_bytes());
    let mut out = [0; 16];
    out.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    u128::from_le_bytes(out)
}

impl PartialEq for Catalog {
    /// Equal when both hold the same peers at the same versions and digests; whose catalogs they are does not matter.
    fn eq(&self, other: &Self) -> bool {
        self.root == other.root && self.entries.values().eq(other.entries.values())
    }
}

impl Eq for Catalog {}

impl fmt::Debug for Catalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalog")
            .field("local", &self.local.id())
            .field("entries", &self.entries.len())
            .field("root", &self.root())
            .finish_non_exhaustive()
    }
}
