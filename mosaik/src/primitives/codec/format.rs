//! The two formats, and how each is written and read.

use std::fmt;

use serde::{Serialize, de::DeserializeOwned};

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
