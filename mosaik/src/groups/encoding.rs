//! Encoding into memory that is there already, and many encodings in one piece of it.

use bytes::Bytes;
use postcard::ser_flavors::Flavor;
use serde::Serialize;

pub(super) use crate::primitives::varint::{take, take_varint, varint};

/// Appends the encoding of a value. On an error the buffer is as before.
pub(super) fn append<T: Serialize + ?Sized>(value: &T, buffer: &mut Vec<u8>) -> postcard::Result<()> {
    let start = buffer.len();
    let done = postcard::serialize_with_flavor(value, Into(buffer));
    if done.is_err() {
        buffer.truncate(start);
    }
    done
}

struct Into<'a>(&'a mut Vec<u8>);

impl Flavor for Into<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Cuts a buffer at the ends of its pieces, which share it.
pub(super) fn split(buffer: Vec<u8>, ends: &[usize]) -> Vec<Bytes> {
    let buffer = Bytes::from(buffer);
    let starts = std::iter::once(0).chain(ends.iter().copied());
    starts.zip(ends).map(|(start, end)| buffer.slice(start..*end)).collect()
}
