//! Entries and hints whose signatures were verified in this process, so that each is verified once however many nodes live here.
//!
//! A thousand simulated nodes see a thousand entries and hundreds of hints per second each; verifying costs about
//! 50 microseconds, a look-up here one hash. Keys are BLAKE3 over everything that a signature covers, the signature
//! included. The two tables take at most about 1.5 MiB. Entries are held weakly: they live as long as some catalog holds them, and
//! all catalogs of a process share one copy.

use std::sync::{Arc, LazyLock, Weak};

use super::entry::Inner;
use crate::primitives::{
    NetworkId, PeerId,
    verified::{Key, Table},
};

const ENTRY_SLOTS: usize = 1 << 13;
const HINT_SLOTS: usize = 1 << 14;

static ENTRIES: LazyLock<Table<Weak<Inner>>> = LazyLock::new(|| Table::new(ENTRY_SLOTS));
static HINTS: LazyLock<Table<PeerId>> = LazyLock::new(|| Table::new(HINT_SLOTS));

/// The key for bytes signed within one network.
pub(super) fn key(network: NetworkId, parts: &[&[u8]]) -> Key {
    let mut hasher = blake3::Hasher::new();
    hasher.update(network.as_bytes());
    for part in parts {
        // Lengths keep the parts apart.
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    *hasher.finalize().as_bytes()
}

pub(super) fn known_entry(key: &Key) -> Option<Arc<Inner>> {
    ENTRIES.get(key)?.upgrade()
}

pub(super) fn remember_entry(key: Key, entry: &Arc<Inner>) {
    ENTRIES.put(key, Arc::downgrade(entry));
}

/// The signer of a hint that was verified before.
pub(super) fn known_hint(key: &Key) -> Option<PeerId> {
    HINTS.get(key)
}

pub(super) fn remember_hint(key: Key, signer: PeerId) {
    HINTS.put(key, signer);
}
