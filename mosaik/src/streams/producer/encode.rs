//! Items as bytes: a length and a postcard payload, written into a buffer that each thread keeps.
//!
//! Encoding runs user code (`Serialize`), so it happens before the stream's lock is taken.

use std::cell::Cell;

use postcard::ser_flavors::{Flavor, Size};
use serde::Serialize;

use crate::streams::{core::frames::ITEM_HEADER, error::SendErrorKind, limits::MAX_ITEM};

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
    pub(super) fn take() -> Self {
        Self(SPARE.take())
    }

    /// Encodes an item, framed.
    pub(super) fn encode<T: Serialize>(&mut self, item: &T) -> Result<(), SendErrorKind> {
        self.0.clear();
        if self.0.capacity() == 0 {
            self.0.reserve(LAST_LARGE.get().max(256));
        }
        self.0.extend_from_slice(&[0; ITEM_HEADER]);
        if let Err(error) = postcard::serialize_with_flavor(item, Bounded(&mut self.0)) {
            return Err(match error {
                postcard::Error::SerializeBufferFull => SendErrorKind::TooLarge {
                    size: postcard::serialize_with_flavor(item, Size::default()).unwrap_or(0),
                },
                error => SendErrorKind::Encode(error.to_string()),
            });
        }
        let length = self.0.len() - ITEM_HEADER;
        // Fits: `Bounded` ends at `MAX_ITEM`.
        self.0[..ITEM_HEADER].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
        if length > KEEP / 4 {
            LAST_LARGE.set(length + ITEM_HEADER);
        }
        Ok(())
    }

    /// The encoded payload of a framed item.
    pub(super) fn payload(framed: &[u8]) -> &[u8] {
        framed.get(ITEM_HEADER..).unwrap_or_default()
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
    fn drop(&mut self) {
        if (1..=KEEP).contains(&self.0.capacity()) {
            SPARE.set(std::mem::take(&mut self.0));
        }
    }
}

/// Appends to a vector up to the item limit.
struct Bounded<'a>(&'a mut Vec<u8>);

impl Flavor for Bounded<'_> {
    type Output = ();

    #[inline]
    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        if self.0.len() + data.len() > MAX_ITEM + ITEM_HEADER {
            return Err(postcard::Error::SerializeBufferFull);
        }
        self.0.extend_from_slice(data);
        Ok(())
    }

    #[inline]
    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        if self.0.len() == self.0.capacity() && self.0.len() >= MAX_ITEM + ITEM_HEADER {
            return Err(postcard::Error::SerializeBufferFull);
        }
        self.0.push(data);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        if self.0.len() > MAX_ITEM + ITEM_HEADER { Err(postcard::Error::SerializeBufferFull) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_framed_and_bounded() {
        let mut scratch = Scratch::take();
        assert_eq!(scratch.encode(&(1u8, "ab")), Ok(()));
        assert_eq!(scratch.framed()[..], [4, 0, 0, 0, 1, 2, b'a', b'b']);
        let longest = "x".repeat(MAX_ITEM - 4);
        assert_eq!(scratch.encode(&longest), Ok(()));
        let longer = "x".repeat(MAX_ITEM - 3);
        assert_eq!(scratch.encode(&longer), Err(SendErrorKind::TooLarge { size: MAX_ITEM + 1 }));
        let bytewise = vec![0u8; MAX_ITEM];
        assert_eq!(scratch.encode(&bytewise), Err(SendErrorKind::TooLarge { size: MAX_ITEM + 4 }));
    }

    #[test]
    fn a_serializer_that_fails_is_reported() {
        struct Broken;
        impl Serialize for Broken {
            fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("broken"))
            }
        }
        assert!(matches!(Scratch::take().encode(&Broken), Err(SendErrorKind::Encode(_))));
    }
}
