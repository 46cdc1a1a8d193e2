//! The operating system's randomness: for fresh identities, and as the seed of a real node.
//!
//! Nothing else asks for it: whatever happens in a running node draws from `Transport::random_seed`, which a
//! simulation makes reproducible.

/// 32 fresh random bytes.
#[expect(clippy::disallowed_methods, reason = "the one place that asks the operating system for randomness")]
pub(crate) fn fresh_bytes() -> [u8; 32] {
    rand::random()
}
