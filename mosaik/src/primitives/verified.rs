//! What was verified in this process, so that each signature and each key is checked once, however often it comes and however many
//! nodes live here.
//!
//! Keys of a table are what was verified or a digest of all of it, so a hit proves as much as a verification. Tables are
//! direct-mapped: a collision overwrites, which bounds their memory and costs at worst one more verification, also where somebody
//! makes up keys that collide.

use std::sync::{Mutex, PoisonError};

/// What was verified: 32 bytes that stand for all of it.
pub(crate) type Key = [u8; 32];

type Slot<T> = Option<(Key, T)>;

/// Of what was verified, as much as fits, each with a value.
pub(crate) struct Table<T>(Mutex<Box<[Slot<T>]>>);

impl<T: Clone> Table<T> {
    /// With room for so many.
    pub(crate) fn new(slots: usize) -> Self {
        Self(Mutex::new((0..slots).map(|_| None).collect()))
    }

    pub(crate) fn get(&self, key: &Key) -> Option<T> {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table[slot(key, table.len())].as_ref().filter(|(held, _)| held == key).map(|(_, value)| value.clone())
    }

    pub(crate) fn put(&self, key: Key, value: T) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = slot(&key, table.len());
        table[at] = Some((key, value));
    }
}

fn slot(key: &Key, slots: usize) -> usize {
    usize::from(u16::from_le_bytes([key[0], key[1]])) % slots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_collides_is_verified_again_and_never_taken_for_the_other() {
        let table = Table::new(4);
        let (one, other) = ([1; 32], [5; 32]);
        assert_eq!(slot(&one, 4), slot(&other, 4));
        table.put(one, "one");
        assert_eq!((table.get(&one), table.get(&other)), (Some("one"), None));
        table.put(other, "other");
        assert_eq!((table.get(&one), table.get(&other)), (None, Some("other")));
    }
}
