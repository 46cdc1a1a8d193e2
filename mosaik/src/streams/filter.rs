//! [`Filter`]: which items of a stream a consumer asks for, by their keys.

use std::ops::{Bound, RangeBounds};

use serde::Serialize;

use super::core::{
    filter::{self, MAX_BYTES, MAX_KEYS},
    key::{Key, MAX_PREFIX},
};
use crate::primitives::ordered;

/// Which items of a stream a consumer wants: those whose *key* ([`with_key`](super::ProducerBuilder::with_key), or `key` of the
/// declaration) it admits. The producer judges it, so that what is filtered out costs nothing on the way, and is no gap.
///
/// The keys that it names must be of the sort that the producer's keys are: whole numbers of any type are equal if their values are, and
/// so are `&str` and `String`. A filter lists at most 1,024 keys, and has at most 16 KiB.
///
/// ```
/// use mosaik::streams::Filter;
///
/// let some = Filter::key_in(["AAPL", "MSFT"]);
/// let european = Filter::key_prefix("eu.");
/// let upper = Filter::key_range(500..);
/// assert!(some.check().is_ok() && european.check().is_ok() && upper.check().is_ok());
/// assert!(Filter::key_in(0..2_000).check().is_err()); // too many
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter(Result<filter::Filter, FilterError>);

/// What is wrong with a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// It lists too many keys.
    #[error("a filter of {keys} keys is over the limit of {MAX_KEYS} keys")]
    TooMany {
        /// How many.
        keys: usize,
    },
    /// Its keys have too many bytes.
    #[error("a filter whose keys have {bytes} bytes is over the limit of {limit} bytes")]
    TooLarge {
        /// How many, encoded.
        bytes: usize,
        /// How many there may be: 16 KiB, of a prefix 239 bytes.
        limit: usize,
    },
    /// A key cannot be encoded; the text is what its `Serialize` says.
    #[error("a key of the filter cannot be encoded: {0}")]
    Key(String),
}

impl Filter {
    /// The items whose key is one of these. With none at all it admits nothing.
    #[must_use]
    pub fn key_in<K: Serialize>(keys: impl IntoIterator<Item = K>) -> Self {
        Self(listed(keys))
    }

    /// The items whose key begins so: with this text; or, where keys are tuples or structs, with these first fields, each of them
    /// as a whole.
    #[must_use]
    pub fn key_prefix<K: Serialize>(prefix: K) -> Self {
        let prefix = ordered::prefix(&prefix).map_err(|error| FilterError::Key(error.to_string()));
        Self(prefix.and_then(|prefix| match prefix.len() {
            bytes if bytes > MAX_PREFIX => Err(FilterError::TooLarge { bytes, limit: MAX_PREFIX }),
            _ => Ok(filter::Filter::Prefix(prefix)),
        }))
    }

    /// The items whose key lies in this range, in the order of the key's type: numbers by value, text by its characters' bytes, tuples
    /// field by field.
    #[must_use]
    pub fn key_range<K: Serialize>(range: impl RangeBounds<K>) -> Self {
        let end = |bound: Bound<&K>| match bound {
            Bound::Unbounded => Ok(Bound::Unbounded),
            Bound::Included(end) => key(end).map(Bound::Included),
            Bound::Excluded(end) => key(end).map(Bound::Excluded),
        };
        let both = end(range.start_bound()).and_then(|from| Ok((from, end(range.end_bound())?)));
        Self(both.map(|(from, to)| filter::Filter::Range(from, to)))
    }

    /// Whether it can be sent.
    ///
    /// # Errors
    /// When it is too large, or one of its keys cannot be encoded.
    pub fn check(&self) -> Result<(), FilterError> {
        self.0.as_ref().map(|_| ()).map_err(Clone::clone)
    }

    pub(super) fn into_inner(self) -> Result<filter::Filter, FilterError> {
        self.0
    }
}

/// The key of a value, as producers have it.
pub(super) fn key<K: Serialize + ?Sized>(value: &K) -> Result<Key, FilterError> {
    let mut bytes = Vec::with_capacity(32);
    ordered::write(value, &mut bytes).map_err(|error| FilterError::Key(error.to_string()))?;
    Ok(Key::new(&bytes))
}

fn listed<K: Serialize>(keys: impl IntoIterator<Item = K>) -> Result<filter::Filter, FilterError> {
    let (mut all, mut bytes, mut count) = (std::collections::BTreeSet::new(), 0, 0);
    for value in keys {
        count += 1;
        if all.len() < MAX_KEYS {
            let key = key(&value)?;
            let length = key.bytes().len();
            if all.insert(key) {
                bytes += length;
            } else {
                count -= 1;
            }
        }
    }
    match (count, bytes) {
        (keys, _) if keys > MAX_KEYS => Err(FilterError::TooMany { keys }),
        (_, bytes) if bytes > MAX_BYTES => Err(FilterError::TooLarge { bytes, limit: MAX_BYTES }),
        _ => Ok(filter::Filter::In(all)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_told() {
        assert_eq!(Filter::key_in(0..2000).check(), Err(FilterError::TooMany { keys: 2000 }));
        let long: Vec<String> = (0..200).map(|n| format!("{n:0>200}")).collect();
        let Err(FilterError::TooLarge { bytes, limit: MAX_BYTES }) = Filter::key_in(&long).check() else { panic!() };
        assert!(bytes > 40_000, "{bytes}");
        let prefix = Filter::key_prefix("x".repeat(1000)).check();
        assert_eq!(prefix, Err(FilterError::TooLarge { bytes: 1001, limit: MAX_PREFIX }));
        assert_eq!(Filter::key_in(vec![1; 5000]).check(), Ok(()), "one key");
        assert_eq!(Filter::key_in([0_u8; 0]).check(), Ok(()));
    }

    #[test]
    fn ranges_are_those_of_the_values() {
        let admits = |filter: &Filter, value: i64| {
            let Filter(Ok(filter)) = filter else { panic!("{filter:?}") };
            filter.admits(&key(&value).expect("a number"))
        };
        let all = [-300, -1, 0, 1, 255, 256, 70_000];
        let of = |filter: &Filter| all.into_iter().filter(|value| admits(filter, *value)).collect::<Vec<_>>();
        assert_eq!(of(&Filter::key_range(-1..256)), [-1, 0, 1, 255]);
        assert_eq!(of(&Filter::key_range(256_u16..)), [256, 70_000]);
        assert_eq!(of(&Filter::key_range(..=-1)), [-300, -1]);
        assert_eq!(of(&Filter::key_in([256_u64, 1])), [1, 256]);
    }
}
