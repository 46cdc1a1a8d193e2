//! Items as bytes: a length with the format, and the payload, written into a buffer that each thread keeps.
//!
//! Encoding runs user code (`Serialize`), so it happens before the stream's lock is taken.

use std::cell::Cell;

use crate::{
    primitives::{
        Datum, Format,
        codec::{Codec, EncodeError},
    },
    streams::{
        core::frames::{ITEM_HEADER, is_message_pack, item_header},
        error::SendErrorKind,
        limits::MAX_ITEM,
    },
};

/// A buffer that grew beyond this is not kept.
const KEEP: usize = 64 << 10;

thread_local! {
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    /// How large the last large item was: the next one is likely as large, and then its buffer never grows.
    static LAST_LARGE: Cell<usize> = const { Cell::new(0) };
}

/// This thread's buffer, returned when dropped. A `Serialize` that sends by itself gets another one.
pub(super) struct Scratch(Vec<u8>);

impl Scratch {
    #[inline]
    pub(super) fn take() -> Self {
        Self(SPARE.take())
    }

    /// Encodes an item, framed.
    #[inline]
    pub(super) fn encode<T: Datum>(&mut self, codec: Codec<T>, item: &T) -> Result<(), SendErrorKind> {
        self.0.clear();
        if self.0.capacity() == 0 {
            self.0.reserve(LAST_LARGE.get().max(256));
        }
        self.0.extend_from_slice(&[0; ITEM_HEADER]);
        let format = codec.append(item, &mut self.0, MAX_ITEM)?;
        let length = self.0.len() - ITEM_HEADER;
        self.0[..ITEM_HEADER].copy_from_slice(&item_header(length, format == Format::MessagePack));
        if length > KEEP / 4 {
            LAST_LARGE.set(length + ITEM_HEADER);
        }
        Ok(())
    }

    /// The framed item; may be taken out.
    pub(super) fn framed(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    /// The framed item for later.
    pub(super) fn keep(mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Scratch {
    #[inline]
    fn drop(&mut self) {
        if (1..=KEEP).contains(&self.0.capacity()) {
            SPARE.set(std::mem::take(&mut self.0));
        }
    }
}

/// The format of a framed item.
#[inline]
pub(in crate::streams) fn item_format(item: &[u8]) -> Format {
    if is_message_pack(item) { Format::MessagePack } else { Format::Postcard }
}

impl From<EncodeError> for SendErrorKind {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::TooLarge(size) => Self::TooLarge { size },
            EncodeError::Refused(why) => Self::Encode(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;

    fn encode<T: Datum>(scratch: &mut Scratch, item: &T) -> Result<(), SendErrorKind> {
        scratch.encode(Codec::of(), item)
    }

    #[test]
    fn items_are_framed_and_bounded() {
        let mut scratch = Scratch::take();
        assert_eq!(encode(&mut scratch, &(1u8, "ab".to_owned())), Ok(()));
        assert_eq!(scratch.framed()[..], [4, 0, 0, 0, 1, 2, b'a', b'b']);
        let longest = "x".repeat(MAX_ITEM - 4);
        assert_eq!(encode(&mut scratch, &longest), Ok(()));
        let longer = "x".repeat(MAX_ITEM - 3);
        assert_eq!(encode(&mut scratch, &longer), Err(SendErrorKind::TooLarge { size: MAX_ITEM + 1 }));
        let bytewise = vec![0u8; MAX_ITEM];
        assert_eq!(encode(&mut scratch, &bytewise), Err(SendErrorKind::TooLarge { size: MAX_ITEM + 4 }));
    }

    #[test]
    fn a_serializer_that_fails_is_reported() {
        #[derive(Deserialize)]
        struct Broken;
        impl Serialize for Broken {
            fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("broken"))
            }
        }
        let error = encode(&mut Scratch::take(), &Broken).unwrap_err();
        assert!(matches!(&error, SendErrorKind::Encode(text) if text.contains("broken")), "{error}");
    }
}
