//! Numbers of variable length on the wire: LEB128, as postcard writes them, <https://postcard.jamesmunns.com/wire-format>.

/// The next bytes of an input, if there are so many.
pub(crate) fn take<'a>(input: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = input.split_at_checked(count)?;
    *input = rest;
    Some(taken)
}

/// Appends a number, 7 bits to a byte, the lowest first.
pub(crate) fn varint(mut value: u64, buffer: &mut Vec<u8>) {
    while value >= 0x80 {
        buffer.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    buffer.push(value.to_le_bytes()[0]);
}

/// The next number of an input.
#[inline]
pub(crate) fn take_varint(input: &mut &[u8]) -> Option<u64> {
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
