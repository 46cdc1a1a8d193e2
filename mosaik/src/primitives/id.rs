//! Identifiers: separate types over 32-byte BLAKE3 digests, derived from names.
//!
//! Each kind hashes its own domain before the name, so that a tag and a stream of one name differ.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{const_hash, names};

macro_rules! digest_id {
    ($(#[$doc:meta])* $name:ident, $domain:literal) => {
        $(#[$doc])*
        ///
        /// `Display` prints all 64 hex digits and `FromStr` reads them back (any other text is taken as a
        /// name); `Debug` prints the first 8. Text formats of serde carry the 64 digits, binary ones the 32 bytes.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            const DOMAIN: &'static [u8] = concat!("mosaik ", $domain, ":").as_bytes();

            /// The identifier of a name; usable in constants.
            ///
            /// # Panics
            /// When the name is longer than 1,000 bytes; in a constant that is a compile error. `From<&str>`
            /// has no such limit and gives the same identifier.
            #[must_use]
            pub const fn from_name(name: &str) -> Self {
                Self(const_hash::hash(Self::DOMAIN, name.as_bytes()))
            }

            /// An identifier from its 32 bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                let id = *blake3::Hasher::new().update(Self::DOMAIN).update(name.as_bytes()).finalize().as_bytes();
                names::note(id, name);
                Self(id)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = String::deserialize(deserializer)?;
                    parse_hex(&text).map(Self).ok_or_else(|| D::Error::custom("expected 64 hex digits"))
                } else {
                    Deserialize::deserialize(deserializer).map(Self)
                }
            }
        }

        impl From<String> for $name {
            fn from(name: String) -> Self {
                Self::from(name.as_str())
            }
        }

        impl From<&String> for $name {
            fn from(name: &String) -> Self {
                Self::from(name.as_str())
            }
        }

        impl From<&$name> for $name {
            fn from(id: &$name) -> Self {
                *id
            }
        }

        impl FromStr for $name {
            type Err = IdParseError;

            fn from_str(text: &str) -> Result<Self, IdParseError> {
                if text.is_empty() {
                    return Err(IdParseError { what: $domain });
                }
                Ok(parse_hex(text).map_or_else(|| Self::from(text), Self))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(f, &self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(f, &self.0[..4])
            }
        }
    };
}

digest_id!(
    /// Which network a node belongs to; nodes of different networks refuse each other.
    NetworkId, "network"
);
digest_id!(
    /// A typed stream of a network. The default is derived from the datum's serde name.
    StreamId, "stream"
);
digest_id!(
    /// An availability group.
    GroupId, "group"
);
digest_id!(
    /// A synchronized store.
    StoreId, "store"
);
digest_id!(
    /// A role or property that a node announces.
    Tag, "tag"
);

impl NetworkId {
    /// A fresh identifier from the operating system's randomness.
    #[must_use]
    pub fn random() -> Self {
        Self(super::fresh_bytes())
    }
}

/// Text that cannot be an identifier: it is empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a {what} is a name or 64 hex digits, not an empty string")]
pub struct IdParseError {
    what: &'static str,
}

/// The tags of a peer, ordered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tags(BTreeSet<Tag>);

impl Tags {
    /// Whether the tag is present. Takes a [`Tag`], a `&str` or a `String`.
    pub fn contains(&self, tag: impl Into<Tag>) -> bool {
        let tag = tag.into();
        let found = self.0.contains(&tag);
        if !found {
            names::missed(tag);
        }
        found
    }

    /// Adds a tag; false when it was there already.
    pub fn insert(&mut self, tag: impl Into<Tag>) -> bool {
        self.0.insert(tag.into())
    }

    /// Removes a tag; false when it was not there.
    pub fn remove(&mut self, tag: impl Into<Tag>) -> bool {
        self.0.remove(&tag.into())
    }

    /// The tags in ascending order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Tag> {
        self.0.iter()
    }

    /// How many tags there are.
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

impl<T: Into<Tag>> FromIterator<T> for Tags {
    fn from_iter<I: IntoIterator<Item = T>>(tags: I) -> Self {
        Self(tags.into_iter().map(Into::into).collect())
    }
}

/// 64 hex digits as 32 bytes.
pub(crate) fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let text = text.as_bytes();
    let mut out = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |c: u8| (c as char).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
    }
    Some(out)
}

pub(crate) fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRICES: StreamId = StreamId::from_name("prices");

    #[test]
    fn const_and_runtime_names_agree() {
        assert_eq!(PRICES, StreamId::from("prices"));
        assert_eq!(PRICES, StreamId::from(String::from("prices")));
    }

    #[test]
    fn display_round_trips_and_debug_is_short() {
        assert_eq!(PRICES.to_string().parse(), Ok(PRICES));
        assert_eq!("prices".parse(), Ok(PRICES));
        assert_eq!(format!("{PRICES:?}"), PRICES.to_string()[..8]);
        assert!("".parse::<StreamId>().is_err());
    }

    #[test]
    fn kinds_of_one_name_differ() {
        assert_ne!(Tag::from("a").as_bytes(), StreamId::from("a").as_bytes());
    }

    #[test]
    fn tags_take_names_and_tags() {
        let mut tags: Tags = ["a", "b"].into_iter().collect();
        assert!(tags.contains("a") && tags.contains(String::from("b")) && tags.contains(Tag::from("a")));
        assert!(!tags.insert("a") && tags.remove("a") && !tags.contains("a"));
    }
}
