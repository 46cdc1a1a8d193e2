//! Decoding ahead: while the handle is busy with earlier items, the task that reads a subscription decodes what it read, so that
//! two cores share the work. Only what is written with `MessagePack`, which costs microseconds an item; postcard items are
//! decoded in less time than it takes to hand them over.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Mutex,
    vec,
};

use crate::{
    primitives::{
        Datum, Fence, Format,
        codec::{Codec, Untyped},
    },
    streams::{
        core::frames::{ITEM_HEADER, split_item},
        owner::split_place,
        producer::item_format,
    },
};

/// One framed item of a batch.
pub(super) struct Framed<'a> {
    pub(super) format: Format,
    pub(super) fence: Option<Fence>,
    pub(super) payload: &'a [u8],
    /// How long it is with its header.
    pub(super) bytes: usize,
}

impl<'a> Framed<'a> {
    /// The first of whole framed items, which have their place in a log in front of them if they are `owned`.
    #[inline]
    pub(super) fn first_of(data: &'a [u8], owned: bool) -> Option<Self> {
        let format = item_format(data);
        let (payload, _) = split_item(data)?;
        let bytes = ITEM_HEADER + payload.len();
        let (fence, payload) = match owned.then(|| split_place(payload)) {
            None => (None, payload),
            // Nothing is left to be decoded.
            Some(None) => (None, &[][..]),
            Some(Some(((term, index), payload))) => (Some(Fence::new(term, index)), payload),
        };
        Some(Self { format, fence, payload, bytes })
    }
}

/// The items of a batch, decoded, of a type that only the handle knows. The lock is never taken: it lets a handle be shared,
/// whose items need not be.
pub(super) struct Decoded(Mutex<Box<dyn Any + Send>>);

impl Decoded {
    /// The next item.
    pub(super) fn next<T: 'static>(&mut self) -> Option<T> {
        self.0.get_mut().ok()?.downcast_mut::<vec::IntoIter<T>>()?.next()
    }
}

/// Decodes whole batches of one type.
pub(super) struct Ahead {
    codec: Untyped,
    decode: fn(Untyped, &[u8], bool) -> Option<Decoded>,
}

impl Ahead {
    pub(super) fn new<T: Datum>(codec: Codec<T>) -> Self {
        Self { codec: codec.into(), decode: decode::<T> }
    }

    /// Whether it pays for this batch: its first item tells.
    pub(super) fn pays(data: &[u8]) -> bool {
        item_format(data) == Format::MessagePack
    }

    /// All items of a batch; `None` if it is left to the handle.
    pub(super) fn decode(&self, data: &[u8], owned: bool) -> Option<Decoded> {
        (self.decode)(self.codec, data, owned)
    }
}

/// An item that cannot be decoded, or whose code panics, is left to the handle with its whole batch, which tells the user.
fn decode<T: Datum>(codec: Untyped, mut data: &[u8], owned: bool) -> Option<Decoded> {
    let codec = codec.typed::<T>();
    let mut items = Vec::new();
    while let Some(item) = Framed::first_of(data, owned) {
        items.push(catch_unwind(AssertUnwindSafe(|| codec.decode(item.format, item.payload))).ok()?.ok()?);
        data = &data[item.bytes..];
    }
    Some(Decoded(Mutex::new(Box::new(items.into_iter()))))
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;

    /// Refuses 1 and breaks at 2.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(try_from = "u8")]
    struct Picky(u8);

    impl TryFrom<u8> for Picky {
        type Error = &'static str;

        fn try_from(value: u8) -> Result<Self, Self::Error> {
            assert_ne!(value, 2, "as it was asked to");
            if value == 1 { Err("not one") } else { Ok(Self(value)) }
        }
    }

    /// Framed items of a byte each, which is how MessagePack writes a small number.
    fn batch(items: &[u8], message_pack: bool) -> Vec<u8> {
        let header = |item: &u8| [[1, 0, 0, if message_pack { 0x80 } else { 0 }].as_slice(), &[*item]].concat();
        items.iter().flat_map(header).collect()
    }

    #[test]
    fn a_batch_is_decoded_as_a_whole_or_left_to_the_handle() {
        let ahead = Ahead::new(Codec::<Picky>::of());
        let mut decoded = ahead.decode(&batch(&[3, 4], true), false).unwrap();
        let next = std::iter::from_fn(|| decoded.next::<Picky>());
        assert_eq!(next.collect::<Vec<_>>(), [Picky(3), Picky(4)]);
        for left in [&[3, 1][..], &[3, 2], &[3, 0xC1]] {
            assert!(ahead.decode(&batch(left, true), false).is_none(), "{left:?}");
        }
        assert!(Ahead::pays(&batch(&[3, 4], true)));
        assert!(!Ahead::pays(&batch(&[3, 4], false)), "postcard");
        assert!(!Ahead::pays(&[]), "nothing");
    }
}
