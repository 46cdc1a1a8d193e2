//! Which items a subscription is for: a rule on their keys, as data that the consumer sends and the producer judges.
//!
//! A rule has a kind and parts. A kind that this version does not know is refused, never ignored; so is what is too large or makes no
//! sense. Judging is a look at the key's bytes: no code of the consumer runs at the producer.

use std::{collections::BTreeSet, ops::Bound};

use serde::{Deserialize, Serialize};

use super::key::{Key, MAX_KEY, MAX_PREFIX};

/// The most keys that a filter lists.
pub const MAX_KEYS: usize = 1024;
/// The most bytes of all keys of a filter, as they are encoded.
pub const MAX_BYTES: usize = 16 << 10;

const IN: u8 = 1;
const PREFIX: u8 = 2;
const RANGE: u8 = 3;

const UNBOUNDED: u8 = 0;
const INCLUDED: u8 = 1;
const EXCLUDED: u8 = 2;

/// A rule as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asked {
    pub(crate) kind: u8,
    pub(crate) parts: Vec<Vec<u8>>,
}

/// Why a producer does not serve a subscription with a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum FilterRefusal {
    /// The producer's items have no key: its stream declares none (`key`, `with_key`).
    #[error("its stream has no key")]
    NoKey,
    /// The producer's version does not know this kind of filter.
    #[error("it does not know filters of kind {kind}")]
    UnknownKind {
        /// The kind's number on the wire.
        kind: u8,
    },
    /// The filter lists too many keys, is too large or is not one that a consumer of ours sends.
    #[error("the filter is too large or malformed")]
    Malformed,
    /// The filter's keys are of another sort than those of the items, such as numbers where the items have texts: it would admit nothing.
    #[error("its items have keys of another sort")]
    OtherKeys,
}

/// See the module's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Filter {
    In(BTreeSet<Key>),
    Prefix(Vec<u8>),
    Range(Bound<Key>, Bound<Key>),
}

impl Filter {
    /// Whether an item with this key is asked for.
    pub(crate) fn admits(&self, key: &Key) -> bool {
        match self {
            Self::In(keys) => keys.contains(key),
            Self::Prefix(prefix) => key.bytes().starts_with(prefix),
            Self::Range(from, to) => {
                let behind = match from {
                    Bound::Unbounded => true,
                    Bound::Included(from) => key >= from,
                    Bound::Excluded(from) => key > from,
                };
                behind
                    && match to {
                        Bound::Unbounded => true,
                        Bound::Included(to) => key <= to,
                        Bound::Excluded(to) => key < to,
                    }
            }
        }
    }

    /// A key that it names, if it names one.
    pub(crate) fn example(&self) -> Option<&[u8]> {
        match self {
            Self::In(keys) => keys.first().map(Key::bytes),
            Self::Prefix(prefix) => Some(prefix),
            Self::Range(Bound::Included(key) | Bound::Excluded(key), _)
            | Self::Range(Bound::Unbounded, Bound::Included(key) | Bound::Excluded(key)) => Some(key.bytes()),
            Self::Range(Bound::Unbounded, Bound::Unbounded) => None,
        }
    }
}

impl From<&Filter> for Asked {
    fn from(filter: &Filter) -> Self {
        let end = |bound: &Bound<Key>| match bound {
            Bound::Unbounded => vec![UNBOUNDED],
            Bound::Included(key) => [&[INCLUDED], key.bytes()].concat(),
            Bound::Excluded(key) => [&[EXCLUDED], key.bytes()].concat(),
        };
        match filter {
            Filter::In(keys) => Self { kind: IN, parts: keys.iter().map(|key| key.bytes().to_vec()).collect() },
            Filter::Prefix(prefix) => Self { kind: PREFIX, parts: vec![prefix.clone()] },
            Filter::Range(from, to) => Self { kind: RANGE, parts: vec![end(from), end(to)] },
        }
    }
}

impl TryFrom<&Asked> for Filter {
    type Error = FilterRefusal;

    fn try_from(Asked { kind, parts }: &Asked) -> Result<Self, FilterRefusal> {
        let bytes: usize = parts.iter().map(Vec::len).sum();
        // An end of a range has a byte of its own.
        let fits = parts.len() <= MAX_KEYS && bytes <= MAX_BYTES && parts.iter().all(|part| part.len() <= MAX_KEY + 1);
        let end = |part: &[u8]| match part {
            [UNBOUNDED] => Ok(Bound::Unbounded),
            [INCLUDED, key @ ..] => Ok(Bound::Included(Key::new(key))),
            [EXCLUDED, key @ ..] => Ok(Bound::Excluded(Key::new(key))),
            _ => Err(FilterRefusal::Malformed),
        };
        match (*kind, &parts[..]) {
            (IN, keys) if fits => Ok(Self::In(keys.iter().map(|key| Key::new(key)).collect())),
            (PREFIX, [prefix]) if prefix.len() <= MAX_PREFIX => Ok(Self::Prefix(prefix.clone())),
            (RANGE, [from, to]) if fits => Ok(Self::Range(end(from)?, end(to)?)),
            (IN | PREFIX | RANGE, _) => Err(FilterRefusal::Malformed),
            (kind, _) => Err(FilterRefusal::UnknownKind { kind }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(bytes: &[u8]) -> Key {
        Key::new(bytes)
    }

    fn admitted(filter: &Filter) -> Vec<u8> {
        (0..10).filter(|n| filter.admits(&key(&[*n, 7]))).collect()
    }

    #[test]
    fn each_kind_admits_what_it_says_and_survives_the_wire() {
        let all = [
            (Filter::In([key(&[2, 7]), key(&[5, 7]), key(&[6])].into()), vec![2, 5]),
            (Filter::Prefix(vec![3]), vec![3]),
            (Filter::Prefix(Vec::new()), (0..10).collect()),
            (Filter::Range(Bound::Included(key(&[4, 7])), Bound::Excluded(key(&[6, 7]))), vec![4, 5]),
            (Filter::Range(Bound::Excluded(key(&[7, 7])), Bound::Unbounded), vec![8, 9]),
            (Filter::Range(Bound::Unbounded, Bound::Included(key(&[1, 7]))), vec![0, 1]),
        ];
        for (filter, admits) in all {
            assert_eq!(admitted(&filter), admits, "{filter:?}");
            assert_eq!(Filter::try_from(&Asked::from(&filter)), Ok(filter));
        }
    }

    #[test]
    fn what_is_unknown_or_too_large_is_refused() {
        let refused = |kind, parts: Vec<Vec<u8>>| Filter::try_from(&Asked { kind, parts }).expect_err("refused");
        assert_eq!(refused(9, vec![]), FilterRefusal::UnknownKind { kind: 9 });
        assert_eq!(refused(IN, vec![vec![1]; MAX_KEYS + 1]), FilterRefusal::Malformed);
        assert_eq!(refused(IN, vec![vec![1; 200]; 100]), FilterRefusal::Malformed);
        assert_eq!(refused(PREFIX, vec![]), FilterRefusal::Malformed);
        assert_eq!(refused(PREFIX, vec![vec![1; MAX_PREFIX + 1]]), FilterRefusal::Malformed);
        assert_eq!(refused(RANGE, vec![vec![1, 5]]), FilterRefusal::Malformed);
        assert_eq!(refused(RANGE, vec![vec![], vec![0]]), FilterRefusal::Malformed);
    }

    #[test]
    fn long_keys_differ_and_keep_their_beginning() {
        let long = |last| [vec![7; 400], vec![last]].concat();
        let (one, two) = (key(&long(1)), key(&long(2)));
        assert_ne!(one, two);
        assert_eq!(one.bytes().len(), MAX_KEY);
        assert!(Filter::Prefix(vec![7; MAX_PREFIX]).admits(&one));
        assert!(Filter::In([one.clone()].into()).admits(&one) && !Filter::In([one].into()).admits(&two));
    }
}
