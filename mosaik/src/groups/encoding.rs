//! Encoding into memory that is there already, many encodings in one piece of it, and numbers of variable length.

use bytes::Bytes;
use postcard::ser_flavors::Flavor;
use serde::Serialize;

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

/// The next bytes of an input, if there are so many.
pub(super) fn take<'a>(input: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = input.split_at_checked(count)?;
    *input = rest;
    Some(taken)
}

/// Appends a number, 7 bits to a byte, the lowest first.
pub(super) fn varint(mut value: u64, buffer: &mut Vec<u8>) {
    while value >= 0x80 {
        buffer.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    buffer.push(value.to_le_bytes()[0]);
}

/// The next number of an input.
pub(super) fn take_varint(input: &mut &[u8]) -> Option<u64> {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = take(input, 1)?[0];
        let bits = u64::from(byte & 0x7F);
        // The tenth byte holds the highest bit alone.
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
        shift += 7;
        if shift > 63 {
            return None;
        }
    }
}
