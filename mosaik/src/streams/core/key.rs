//! The key of an item, as bytes that are ordered as the keys are: what items are conflated and kept by, and what a filter looks at.
//!
//! Most are a few bytes and lie in place. A long one is cut, and ends with a hash of the whole, so that it still differs from others.

use smallvec::SmallVec;

/// The most bytes of a key.
pub(crate) const MAX_KEY: usize = 255;
/// Of a longer one so many of its first bytes are kept.
const KEPT: usize = MAX_KEY - HASH;
const HASH: usize = 16;

/// See the module's text. The default is that of a stream without keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(SmallVec<[u8; 16]>);

impl Key {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        if bytes.len() <= MAX_KEY {
            return Self(SmallVec::from_slice(bytes));
        }
        let mut key = SmallVec::from_slice(&bytes[..KEPT]);
        key.extend_from_slice(&blake3::hash(bytes).as_bytes()[..HASH]);
        Self(key)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The longest prefix that a filter may ask for: what lies behind is not kept of every key.
pub(crate) const MAX_PREFIX: usize = KEPT;
