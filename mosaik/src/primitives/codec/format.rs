//! The two formats, and how each is written and read.

use std::fmt;

use rmp_serde::decode::Error::InvalidMarkerRead;
use serde::{
    Deserializer, Serialize,
    de::{DeserializeOwned, Visitor},
};

use super::{DecodeError, MAX_DEPTH, sink::Sink};

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// Without names or types: <https://postcard.jamesmunns.com/wire-format>.
    Postcard,
    /// With names, in the human-readable form: <https://github.com/msgpack/msgpack/blob/master/spec.md>.
    MessagePack,
}

impl Format {
    pub(crate) const fn byte(self) -> u8 {
        match self {
            Self::Postcard => 0,
            Self::MessagePack => 1,
        }
    }

    pub(super) const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Postcard),
            1 => Some(Self::MessagePack),
            _ => None,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postcard => "postcard",
            Self::MessagePack => "MessagePack",
        })
    }
}

/// Writes a value with `MessagePack`.
pub(super) fn write<T: Serialize + ?Sized>(value: &T, sink: &mut Sink<'_>) -> Result<(), rmp_serde::encode::Error> {
    value.serialize(&mut rmp_serde::Serializer::new(sink).with_struct_map().with_human_readable())
}

/// Reads a value that is the whole of the bytes, written with `MessagePack`. On an error, where it was.
pub(super) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, (DecodeError, usize)> {
    // Texts are lent to the type's code, not copied for it.
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes).with_human_readable();
    deserializer.set_max_depth(MAX_DEPTH);
    match T::deserialize(&mut deserializer) {
        // There is no beginning of another value: these were all the bytes.
        Ok(value) if matches!(deserializer.deserialize_any(Nothing), Err(InvalidMarkerRead(_))) => Ok(value),
        _ => read_counting(bytes),
    }
}

/// Takes no value of any kind, and reads none.
struct Nothing;

impl Visitor<'_> for Nothing {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no more bytes")
    }
}

/// The same with a reader that tells how far it came, and copies.
#[cold]
fn read_counting<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, (DecodeError, usize)> {
    let mut rest = bytes;
    let mut deserializer = rmp_serde::Deserializer::new(&mut rest).with_human_readable();
    deserializer.set_max_depth(MAX_DEPTH);
    let value = T::deserialize(&mut deserializer);
    let at = bytes.len() - rest.len();
    match value {
        Err(error) => Err((DecodeError::MessagePack(error), at)),
        Ok(_) if !rest.is_empty() => Err((DecodeError::LeftOver(rest.len()), at)),
        Ok(value) => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_behind_a_value_are_left_over_whatever_they_begin() {
        assert_eq!(read::<Option<u8>>(&[5]).ok(), Some(Some(5)));
        assert_eq!(read::<Option<u8>>(&[0xC0]).ok(), Some(None));
        for byte in 0..=u8::MAX {
            for value in [5, 0xC0] {
                let read = read::<Option<u8>>(&[value, byte]);
                assert!(matches!(read, Err((DecodeError::LeftOver(1), 1))), "{byte:#x} behind {value:#x}: {read:?}");
            }
        }
        let cut = read::<(u8, String)>(&[0x92, 5, 0xA3, b'a', b'b']);
        assert!(matches!(cut, Err((DecodeError::MessagePack(_), 5))), "{cut:?}");
    }
}
