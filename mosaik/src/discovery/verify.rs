//! Signatures that were verified in this process, so that each is verified once however many nodes live here.
//!
//! A thousand simulated nodes see a thousand entries and hundreds of hints per second each; verifying costs about
//! 50 microseconds, a look-up here one hash. Keys are BLAKE3 over everything that a signature covers, the signature
//! included, so a hit proves as much as a verification. The tables are direct-mapped: a collision overwrites, which
//! bounds memory (about 1.5 MiB) and costs at worst one more verification. Entries are held weakly: they live as long
//! as some catalog holds them, and all catalogs of a process share one copy.

use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use super::entry::Inner;
use crate::primitives::{NetworkId, PeerId};

const ENTRY_SLOTS: usize = 1 << 13;
const HINT_SLOTS: usize = 1 << 14;

/// What was verified: a digest of network, signed bytes and signature.
pub(super) type Key = [u8; 32];

static ENTRIES: LazyLock<Table<Weak<Inner>>> = LazyLock::new(|| Table::new(ENTRY_SLOTS));
static HINTS: LazyLock<Table<PeerId>> = LazyLock::new(|| Table::new(HINT_SLOTS));

type Slot<T> = Option<(Key, T)>;

struct Table<T>(Mutex<Box<[Slot<T>]>>);

impl<T: Clone> Table<T> {
    fn new(slots: usize) -> Self {
        Self(Mutex::new((0..slots).map(|_| None).collect()))
    }

    fn get(&self, key: &Key) -> Option<T> {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table[slot(key, table.len())].as_ref().filter(|(held, _)| held == key).map(|(_, value)| value.clone())
    }

    fn put(&self, key: Key, value: T) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = slot(&key, table.len());
        table[at] = Some((key, value));
    }
}

fn slot(key: &Key, slots: usize) -> usize {
    usize::from(u16::from_le_bytes([key[0], key[1]])) % slots
}

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
