//! The bytes of a subscription after its handshake: batches, each a header and its items.
//!
//! ```text
//! batch  = length: u32 LE, count: u32 LE, first: u64 LE, item*    length = bytes of all items, count of them > 0; the highest
//!                                                                 bit of count: what lies before `first` was filtered out
//! item   = length: u32 LE, payload                                the highest bit: MessagePack, else postcard
//! end    = code: u32 LE, 0u32, next: u64 LE                       nothing follows; next = seq behind the last item
//! mark   = 0xFFFFFF00 | why: u32 LE, 0u32, next: u64 LE           nothing more comes before next
//! ```
//!
//! A mark stands in front of a batch that does not follow the one before it, and says why; and an idle producer writes one
//! every second as a heartbeat, so that a consumer notices when it lacks the last items. In a subscription with a filter a batch says
//! by a bit, and a heartbeat by its reason, that everything since the one before was filtered out, so that what lies between is no gap.
//!
//! The epoch is in the handshake: a subscription never outlives it. The sequence number is in every batch, so that a consumer
//! can check order without trusting the stream to be whole. The reader hands on whole items as soon as they are there, also
//! from the middle of a batch: on a slow link a batch takes long.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::progress::GapReason;
use crate::streams::limits::MAX_ITEM;

/// Bytes of a batch header.
pub(crate) const HEADER: usize = 16;
/// Bytes in front of each item.
pub(crate) const ITEM_HEADER: usize = 4;
/// The most bytes a batch has, unless it is one larger item.
pub(crate) const MAX_BATCH: usize = 256 << 10;
/// The least memory set aside for what arrives. The most is [`MAX_BATCH`] at a time: a header alone costs little.
const READ_AHEAD: usize = 32 << 10;

/// Set in the length of an item that is written with `MessagePack`.
const MESSAGE_PACK: u32 = 1 << 31;

/// Set in the count of a batch before which everything was filtered out.
const FILTERED: u32 = 1 << 31;

/// What lies between one batch of a subscription and the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Between {
    #[default]
    Nothing,
    /// Items that the subscription is not for.
    Filtered,
    /// Some that it is for were left out, for this reason.
    LeftOut(GapReason),
}

/// What stands in front of an item of so many bytes, at most `MAX_ITEM`.
#[inline]
pub(crate) fn item_header(length: usize, message_pack: bool) -> [u8; ITEM_HEADER] {
    let length = u32::try_from(length).unwrap_or(!MESSAGE_PACK);
    let mark = if message_pack { MESSAGE_PACK } else { 0 };
    (length | mark).to_le_bytes()
}

/// Whether the item that begins here is written with `MessagePack`.
#[inline]
pub(crate) fn is_message_pack(item: &[u8]) -> bool {
    item.first_chunk().is_some_and(|header| u32::from_le_bytes(*header) & MESSAGE_PACK != 0)
}

/// The header of a batch, behind a mark if items before it are left out.
pub(crate) fn batch_header(first: u64, items: u64, bytes: usize, before: Between) -> Bytes {
    let mut header = BytesMut::with_capacity(2 * HEADER);
    if let Between::LeftOut(_) = before {
        header.extend_from_slice(&mark(before, first));
    }
    let filtered = if before == Between::Filtered { FILTERED } else { 0 };
    // Both fit: a batch is bounded in bytes, and each of its items has at least `ITEM_HEADER`.
    header.put_u32_le(u32::try_from(bytes).unwrap_or(u32::MAX));
    header.put_u32_le(u32::try_from(items).unwrap_or(!FILTERED) | filtered);
    header.put_u64_le(first);
    header.freeze()
}

/// The orderly end of a subscription.
pub(crate) fn end(code: u32, next: u64) -> Bytes {
    let mut end = BytesMut::with_capacity(HEADER);
    end.put_u32_le(code);
    end.put_u32_le(0);
    end.put_u64_le(next);
    end.freeze()
}

/// Codes from here on are no end but a mark; the last byte says why.
const MARK: u32 = 0xFFFF_FF00;

/// Why of a mark, where everything before was filtered out.
const ALL_FILTERED: u32 = 4;

/// Nothing more comes before `next`.
pub(crate) fn mark(before: Between, next: u64) -> Bytes {
    let why = match before {
        Between::Nothing => GapReason::Skipped.code(),
        Between::Filtered => ALL_FILTERED,
        Between::LeftOut(reason) => reason.code(),
    };
    end(MARK | why, next)
}

/// Something that a producer wrote.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// Whole framed items, without a gap between them.
    Items { first: u64, count: u32, data: Bytes },
    /// Nothing more comes before `next`.
    Mark { reason: GapReason, next: u64 },
    /// Nothing more comes before `next` that the subscription is for.
    Filtered { next: u64 },
    /// Nothing follows.
    End { code: u32, next: u64 },
}

/// Bytes that no producer of ours writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a batch or item is longer than allowed")]
    TooLarge,
    #[error("the lengths of a batch and of its items disagree")]
    Malformed,
}

/// Cuts a stream of bytes into frames.
#[derive(Debug, Default)]
pub(crate) struct FrameReader {
    buffer: BytesMut,
    /// Of the batch under way: bytes and items that have not been handed on, and the number of the next one.
    bytes_left: usize,
    items_left: u32,
    next: u64,
    ended: bool,
    /// How far the buffer is known to be whole items, and how many.
    scanned: usize,
    whole: u32,
}

impl FrameReader {
    /// Takes what arrived.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.buffer.capacity() - self.buffer.len() < bytes.len() {
            self.buffer.reserve(bytes.len().max(self.expected()));
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// How much memory the next bytes want: what is left of the batch, within reason.
    fn expected(&self) -> usize {
        let batch = match self.buffer.first_chunk() {
            _ if self.bytes_left > 0 => self.bytes_left,
            Some(length) => HEADER + u32::from_le_bytes(*length) as usize,
            None => 0,
        };
        batch.saturating_sub(self.buffer.len()).clamp(READ_AHEAD, MAX_BATCH)
    }

    /// The next frame, if it is there; after an error nothing more.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.ended {
            return Ok(None);
        }
        if self.bytes_left == 0 {
            if let Some(control) = self.read_header()? {
                return Ok(Some(control));
            }
            if self.bytes_left == 0 {
                return Ok(None);
            }
        }
        self.scan()?;
        if self.whole == 0 {
            return Ok(None);
        }
        let data = self.buffer.split_to(self.scanned).freeze();
        let frame = Frame::Items { first: self.next, count: self.whole, data };
        self.next = self.next.wrapping_add(u64::from(self.whole));
        self.bytes_left -= self.scanned;
        self.items_left -= self.whole;
        (self.scanned, self.whole) = (0, 0);
        if (self.bytes_left == 0) != (self.items_left == 0) {
            return self.fail(FrameError::Malformed);
        }
        Ok(Some(frame))
    }

    fn fail<T>(&mut self, error: FrameError) -> Result<T, FrameError> {
        self.ended = true;
        Err(error)
    }

    fn read_header(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.buffer.len() < HEADER {
            return Ok(None);
        }
        let (length, count, first) = (self.buffer.get_u32_le(), self.buffer.get_u32_le(), self.buffer.get_u64_le());
        if count == 0 && length == MARK | ALL_FILTERED {
            return Ok(Some(Frame::Filtered { next: first }));
        }
        if count == 0 && length >= MARK {
            return Ok(Some(Frame::Mark { reason: GapReason::from_code(length - MARK), next: first }));
        }
        if count == 0 {
            self.ended = true;
            return Ok(Some(Frame::End { code: length, next: first }));
        }
        let (filtered, count) = (count & FILTERED != 0, count & !FILTERED);
        let length = length as usize;
        let limit = if count == 1 { MAX_ITEM + ITEM_HEADER } else { MAX_BATCH };
        if length > limit {
            return self.fail(FrameError::TooLarge);
        }
        if count == 0 || length < ITEM_HEADER * count as usize {
            return self.fail(FrameError::Malformed);
        }
        (self.bytes_left, self.items_left, self.next) = (length, count, first);
        Ok(filtered.then_some(Frame::Filtered { next: first }))
    }

    /// Walks over the items that are complete.
    fn scan(&mut self) -> Result<(), FrameError> {
        let there = self.buffer.len().min(self.bytes_left);
        while self.whole < self.items_left && there - self.scanned >= ITEM_HEADER {
            let Some(length) = self.buffer[self.scanned..].first_chunk().map(|bytes| u32::from_le_bytes(*bytes)) else {
                break;
            };
            let length = (length & !MESSAGE_PACK) as usize;
            if length > MAX_ITEM {
                return self.fail(FrameError::TooLarge);
            }
            let end = self.scanned + ITEM_HEADER + length;
            if end > self.bytes_left {
                return self.fail(FrameError::Malformed);
            }
            if end > there {
                break;
            }
            self.scanned = end;
            self.whole += 1;
        }
        Ok(())
    }
}

/// The payload of the first item of whole framed items, and what follows it.
pub(crate) fn split_item(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = data.split_first_chunk::<ITEM_HEADER>()?;
    rest.split_at_checked((u32::from_le_bytes(*length) & !MESSAGE_PACK) as usize)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn framed(payload: &[u8]) -> Vec<u8> {
        [&u32::try_from(payload.len()).expect("small").to_le_bytes()[..], payload].concat()
    }

    fn wire(batches: &[Vec<Vec<u8>>]) -> Vec<u8> {
        let mut next = 100;
        let mut wire = Vec::new();
        for batch in batches {
            let items: Vec<u8> = batch.iter().flat_map(|item| framed(item)).collect();
            wire.extend_from_slice(&batch_header(
                next,
                batch.len() as u64,
                items.len(),
                Between::LeftOut(GapReason::Conflated),
            ));
            wire.extend_from_slice(&items);
            next += batch.len() as u64;
        }
        wire.extend_from_slice(&end(7, next));
        wire
    }

    proptest! {
        /// However the bytes are cut, the same items come out in order, each as early as it is whole.
        #[test]
        fn items_survive_any_cut(
            batches in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..20), 0..10),
            cuts in prop::collection::vec(1usize..700, 1..50),
        ) {
            let wire = wire(&batches);
            let mut reader = FrameReader::default();
            let (mut items, mut ended, mut at) = (Vec::new(), None, 0);
            for cut in cuts.iter().cycle() {
                let to = (at + cut).min(wire.len());
                reader.push(&wire[at..to]);
                at = to;
                while let Some(frame) = reader.next_frame().expect("valid") {
                    match frame {
                        Frame::Items { first, count, data } => {
                            prop_assert_eq!(first, 100 + items.len() as u64);
                            let mut rest = &data[..];
                            for _ in 0..count {
                                let (item, tail) = split_item(rest).expect("whole");
                                items.push(item.to_vec());
                                rest = tail;
                            }
                            prop_assert!(rest.is_empty());
                        }
                        Frame::Mark { reason, next } => {
                            prop_assert_eq!((reason, next), (GapReason::Conflated, 100 + items.len() as u64));
                        }
                        Frame::Filtered { .. } => prop_assert!(false, "no filter"),
                        Frame::End { code, next } => ended = Some((code, next)),
                    }
                }
                if at == wire.len() {
                    break;
                }
            }
            let sent = batches.concat();
            prop_assert_eq!(ended, Some((7, 100 + sent.len() as u64)));
            prop_assert_eq!(items, sent);
        }

        /// Garbage is an error or waits for more; it neither panics nor makes the reader ask for much memory.
        #[test]
        fn garbage_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut reader = FrameReader::default();
            for part in bytes.chunks(37) {
                reader.push(part);
                while let Ok(Some(_)) = reader.next_frame() {}
            }
            prop_assert!(reader.buffer.capacity() <= 2 * MAX_BATCH);
        }
    }

    #[test]
    fn lengths_that_disagree_are_malformed() {
        let mut reader = FrameReader::default();
        reader.push(&batch_header(0, 2, 13, Between::Nothing));
        reader.push(&framed(b"12345"));
        reader.push(&framed(b""));
        assert!(matches!(reader.next_frame(), Ok(Some(_))));
        let mut reader = FrameReader::default();
        reader.push(&batch_header(0, 1, 20, Between::Nothing));
        reader.push(&framed(b"12345"));
        assert_eq!(reader.next_frame(), Err(FrameError::Malformed));
        assert_eq!(reader.next_frame(), Ok(None));
        let mut reader = FrameReader::default();
        reader.push(&batch_header(0, 1, 17 << 20, Between::Nothing));
        assert_eq!(reader.next_frame(), Err(FrameError::TooLarge));
    }

    #[test]
    fn what_is_filtered_out_is_told_before_the_items_behind_it() {
        let mut reader = FrameReader::default();
        reader.push(&batch_header(7, 1, 9, Between::Filtered));
        reader.push(&framed(b"12345"));
        reader.push(&mark(Between::Filtered, 20));
        assert_eq!(reader.next_frame(), Ok(Some(Frame::Filtered { next: 7 })));
        assert!(matches!(reader.next_frame(), Ok(Some(Frame::Items { first: 7, count: 1, .. }))));
        assert_eq!(reader.next_frame(), Ok(Some(Frame::Filtered { next: 20 })));
    }
}
