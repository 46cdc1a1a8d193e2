//! Several commands in one entry of the log, and their outputs in one answer: what an entry costs is shared by all.
//!
//! A body is the number of commands, one byte; then a single command by itself, or each of several after its head. They
//! are applied one after the other, as one entry, or none of them. A head is the command's size, with the format that it is
//! written in as the lowest bit; that of a single command is the highest bit of the count.
//!
//! A body may be fenced: after a byte 0 comes the term, a varint, in which alone it may be applied, and then the body itself.
//!
//! A body may carry items of a stream that the group owns, in the place of commands: a byte 128, the stream's id, the number of items
//! (a varint) and the items as the stream frames them.
//!
//! Outputs follow each other in the same order, each with a head: 0 for a command that the machine could not decode, 1 and the
//! index for one that panicked, else the size plus one, with the format as the lowest bit. Heads are varints. Whoever knows how
//! many commands it sent knows which outputs come.

use std::convert::Infallible;

use bytes::Bytes;

use crate::{
    groups::{
        encoding::{self, take, take_varint, varint},
        raft::{Index, Term},
    },
    primitives::{
        Datum, StreamId,
        codec::{Codec, EncodeError, Format},
    },
};

/// Most commands in one body: the count is one byte that is also its own varint.
pub const COMMANDS: usize = 127;
/// Bytes of a body beyond which no further command is added. Long commands gain nothing.
pub const BYTES: usize = 16 << 10;
/// In the count of a body of one command: its format is not postcard.
const NAMED: u8 = 0x80;
/// The first byte of a body that is fenced.
const FENCED: u8 = 0;
/// The first byte of a body of items: no command that is not postcard.
const ITEMS: u8 = NAMED;
/// So much room is made at most for what an iterator says of its length.
const SIZE_HINT: usize = 4_096;
/// Room for a short command or output.
const SHORT: usize = 16;

/// A body of one command, which the function writes.
pub fn single<E>(write: impl FnOnce(&mut Vec<u8>) -> Result<Format, E>) -> Result<Vec<u8>, E> {
    let mut body = Vec::with_capacity(SHORT);
    body.push(1);
    if write(&mut body)? == Format::MessagePack {
        body[0] |= NAMED;
    }
    Ok(body)
}

/// The body, to be applied in an entry of this term only.
pub fn fenced(term: Term, body: &[u8]) -> Bytes {
    let mut fenced = Vec::with_capacity(1 + 10 + body.len());
    fenced.push(FENCED);
    varint(term, &mut fenced);
    fenced.extend_from_slice(body);
    fenced.into()
}

/// Items of a stream that the group owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Items {
    /// The stream.
    pub stream: StreamId,
    /// How many there are.
    pub count: u64,
    /// As the stream frames them.
    pub data: Bytes,
}

/// A body of items.
pub fn items(stream: StreamId, count: u64, framed: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(1 + 32 + 10 + framed.len());
    body.push(ITEMS);
    body.extend_from_slice(stream.as_bytes());
    varint(count, &mut body);
    body.extend_from_slice(framed);
    body
}

/// The items of a body, if it has some.
pub fn items_of(body: &Bytes) -> Option<Items> {
    let (&ITEMS, rest) = parts(body).1.split_first()? else { return None };
    let (stream, mut rest) = rest.split_first_chunk::<32>()?;
    let count = take_varint(&mut rest)?;
    Some(Items { stream: StreamId::from_bytes(*stream), count, data: body.slice_ref(rest) })
}

/// The term in which alone the body may be applied, if it is fenced, and the body itself.
fn parts(body: &[u8]) -> (Option<Term>, &[u8]) {
    let Some((&FENCED, mut rest)) = body.split_first() else { return (None, body) };
    take_varint(&mut rest).map_or((None, &[]), |term| (Some(term), rest))
}

/// The term in which alone the body may be applied, if it is fenced.
pub fn fence(body: &[u8]) -> Option<Term> {
    parts(body).0
}

/// How many commands the body is said to have.
pub fn count(body: &[u8]) -> usize {
    plain_count(parts(body).1)
}

/// That of a body that is not fenced.
fn plain_count(body: &[u8]) -> usize {
    body.first().map_or(0, |count| usize::from(*count & !NAMED))
}

/// The format of a single command.
fn format(body: &[u8]) -> Format {
    if body[0] & NAMED == 0 { Format::Postcard } else { Format::MessagePack }
}

fn head(size: usize, format: Format) -> u64 {
    (size as u64) << 1 | u64::from(format.byte())
}

fn of_head(head: u64) -> Option<(usize, Format)> {
    let format = if head & 1 == 0 { Format::Postcard } else { Format::MessagePack };
    Some((usize::try_from(head >> 1).ok()?, format))
}

/// Whether a body of one command may be added to another body. What is fenced stays by itself.
pub fn joins(body: &[u8], more: &[u8]) -> bool {
    plain_count(more) == 1 && (1..COMMANDS).contains(&plain_count(body)) && body.len() + more.len() < BYTES
}

/// Adds a body of one command.
pub fn join(body: &mut Vec<u8>, more: &[u8]) {
    if count(body) == 1 {
        let single = std::mem::take(body);
        body.reserve(2 * (single.len() + more.len()) + 8);
        body.push(1);
        append(body, format(&single), &single[1..]);
    }
    body[0] += 1;
    append(body, format(more), &more[1..]);
}

fn append(body: &mut Vec<u8>, format: Format, command: &[u8]) {
    varint(head(command.len(), format), body);
    body.extend_from_slice(command);
}

/// The body of the commands that `keep` says, by their places; at least one of them, and not all.
pub fn without(body: &[u8], keep: impl Fn(usize) -> bool) -> Option<Bytes> {
    let mut kept = Vec::new();
    for (at, command) in commands(body).enumerate() {
        let (format, command) = command?;
        if !keep(at) {
            continue;
        }
        let Ok(alone) = single(|body| {
            body.extend_from_slice(command);
            Ok::<_, Infallible>(format)
        });
        if kept.is_empty() { kept = alone } else { join(&mut kept, &alone) }
    }
    let rest = || fence(body).map_or_else(|| kept.clone().into(), |term| fenced(term, &kept));
    (!kept.is_empty()).then(rest)
}

/// The commands of a body with their formats; `None` once, at the end, if it is not what it should be.
pub fn commands(body: &[u8]) -> impl Iterator<Item = Option<(Format, &[u8])>> {
    let body = parts(body).1;
    let (count, mut rest) = (plain_count(body), body.get(1..).unwrap_or_default());
    let mut left = count.max(1);
    let sound = count == 1 || (2..=COMMANDS).contains(&count) && body[0] & NAMED == 0;
    std::iter::from_fn(move || {
        left = left.checked_sub(1)?;
        let command = if count == 1 { Some((format(body), rest)) } else { sized(&mut rest).filter(|_| sound) };
        if command.is_none() {
            left = 0;
        }
        Some(command)
    })
}

fn sized<'a>(input: &mut &'a [u8]) -> Option<(Format, &'a [u8])> {
    let (size, format) = of_head(take_varint(input)?)?;
    Some((format, take(input, size)?))
}

/// What became of one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output<'a> {
    /// What the machine gave back.
    Encoded(Format, &'a [u8]),
    /// It panicked, in the entry of this index.
    Panicked(Index),
    /// The machine could not decode it.
    Undecodable,
}

/// Appends the output of the next command, which the function writes.
#[inline]
pub fn append_output(write: impl FnOnce(&mut Vec<u8>) -> Format, outputs: &mut Vec<u8>) {
    let at = outputs.len();
    outputs.push(0);
    let format = write(outputs);
    let head = head(outputs.len() - at, format);
    if head < 0x80 {
        outputs[at] = head.to_le_bytes()[0];
    } else {
        let mut prefix = Vec::with_capacity(10);
        varint(head, &mut prefix);
        outputs.splice(at..=at, prefix);
    }
}

/// Appends that the next command was not decoded.
pub fn append_undecodable(outputs: &mut Vec<u8>) {
    outputs.push(0);
}

/// Appends that the next command panicked in the entry of this index.
pub fn append_panicked(index: Index, outputs: &mut Vec<u8>) {
    outputs.push(1);
    varint(index, outputs);
}

/// The next output of an input, which begins behind it then; `None` if there is none.
#[inline]
pub fn output<'a>(input: &mut &'a [u8]) -> Option<Output<'a>> {
    Some(match take_varint(input)? {
        0 => Output::Undecodable,
        1 => Output::Panicked(take_varint(input)?),
        head => {
            let (size, format) = of_head(head)?;
            Output::Encoded(format, take(input, size.checked_sub(1)?)?)
        }
    })
}

/// The outputs of so many commands, each with its head; `None` once, at the end, if there are not as many as there should be.
pub fn outputs(outputs: &Bytes, count: usize) -> impl Iterator<Item = Option<Bytes>> {
    let mut rest: &[u8] = outputs;
    let mut left = count;
    std::iter::from_fn(move || {
        left = left.checked_sub(1)?;
        let before = rest;
        let found = output(&mut rest).is_some();
        if !found {
            left = 0;
        }
        found.then(|| outputs.slice_ref(&before[..before.len() - rest.len()])).into()
    })
}

/// Bodies with all of the commands, in order, in one piece of memory, and how many commands each has. `Err`: the encoding of
/// one failed, or its size is over the limit.
pub(crate) fn pack<T: Datum>(
    codec: Codec<T>,
    commands: impl IntoIterator<Item = T>,
    limit: usize,
) -> Result<Vec<(Bytes, usize)>, EncodeError> {
    let commands = commands.into_iter();
    let mut ends = Vec::with_capacity(commands.size_hint().0.min(SIZE_HINT));
    let mut encoded = Vec::with_capacity(ends.capacity() * SHORT / 2);
    for command in commands {
        let format = codec.append(&command, &mut encoded, limit)?;
        ends.push((encoded.len(), format));
    }
    let mut packed = Vec::with_capacity(encoded.len() + 2 * ends.len());
    let (mut edges, mut counts) = (Vec::new(), Vec::new());
    let (mut done, mut start) = (0, 0);
    while done < ends.len() {
        let fits = |(end, _): &&(usize, Format)| *end - start < BYTES;
        let count = ends[done..].iter().take(COMMANDS).take_while(fits).count().max(1);
        let named = count == 1 && ends[done].1 == Format::MessagePack;
        packed.push(count.to_le_bytes()[0] | if named { NAMED } else { 0 });
        for (end, format) in &ends[done..done + count] {
            if count > 1 {
                varint(head(end - start, *format), &mut packed);
            }
            packed.extend_from_slice(&encoded[start..*end]);
            start = *end;
        }
        done += count;
        edges.push(packed.len());
        counts.push(count);
    }
    Ok(encoding::split(packed, &edges).into_iter().zip(counts).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn formats() -> impl Strategy<Value = Format> {
        prop_oneof![Just(Format::Postcard), Just(Format::MessagePack)]
    }

    type Encoded = (Format, Vec<u8>);

    fn encoded(size: usize) -> impl Strategy<Value = Encoded> {
        (formats(), prop::collection::vec(any::<u8>(), 0..size))
    }

    fn alone((format, command): &Encoded) -> Vec<u8> {
        let Ok(body) = single(|body| {
            body.extend_from_slice(command);
            Ok::<_, Infallible>(*format)
        });
        body
    }

    fn apart(body: &[u8]) -> Option<Vec<Encoded>> {
        commands(body).map(|it| it.map(|(format, command)| (format, command.to_vec()))).collect()
    }

    proptest! {
        #[test]
        fn what_was_joined_comes_apart(all in prop::collection::vec(encoded(200), 1..COMMANDS)) {
            let mut body = alone(&all[0]);
            for command in &all[1..] {
                prop_assume!(joins(&body, &alone(command)));
                join(&mut body, &alone(command));
            }
            prop_assert_eq!(apart(&body), Some(all.clone()));
            let odd = without(&body, |at| at % 2 == 1);
            let expected: Vec<_> = all.into_iter().skip(1).step_by(2).collect();
            prop_assert_eq!(odd.map_or(Some(vec![]), |odd| apart(&odd)), Some(expected));
        }

        #[test]
        fn what_is_fenced_is_the_same_body(
            term in any::<u64>(), all in prop::collection::vec(encoded(200), 1..20), more in encoded(20)
        ) {
            let mut body = alone(&all[0]);
            for command in &all[1..] {
                join(&mut body, &alone(command));
            }
            let fenced = fenced(term, &body);
            prop_assert_eq!((fence(&body), fence(&fenced)), (None, Some(term)));
            prop_assert_eq!((count(&fenced), apart(&fenced)), (all.len(), Some(all.clone())));
            prop_assert!(!joins(&fenced, &alone(&more)) && !joins(&alone(&more), &fenced));
            if let Some(rest) = without(&fenced, |at| at > 0) {
                prop_assert_eq!((fence(&rest), apart(&rest)), (Some(term), Some(all[1..].to_vec())));
            }
        }

        #[test]
        fn what_was_packed_comes_apart(
            named in any::<bool>(), all in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..300)
        ) {
            let codec = Codec::<Vec<u8>>::chosen(named.then_some(Format::MessagePack));
            let packed = pack(codec, all.iter().cloned(), 10_000).expect("short enough");
            let mut apart = Vec::new();
            for (body, count) in &packed {
                prop_assert_eq!(super::count(body), *count);
                apart.extend(commands(body).map(|it| {
                    let (format, command) = it.unwrap();
                    codec.decode(format, command).unwrap()
                }));
            }
            prop_assert_eq!(apart, all);
        }

        #[test]
        fn outputs_come_back(all in prop::collection::vec(prop_oneof![
            encoded(300).prop_map(Ok), any::<u64>().prop_map(Some).prop_map(Err), Just(Err(None)),
        ], 1..50)) {
            let mut bytes = Vec::new();
            for one in &all {
                match one {
                    Ok((format, encoded)) => append_output(|out| { out.extend_from_slice(encoded); *format }, &mut bytes),
                    Err(Some(index)) => append_panicked(*index, &mut bytes),
                    Err(None) => append_undecodable(&mut bytes),
                }
            }
            let pieces: Option<Vec<_>> = outputs(&bytes.into(), all.len()).collect();
            let pieces = pieces.expect("all are there");
            prop_assert_eq!(pieces.len(), all.len());
            for (mut piece, one) in pieces.iter().map(|piece| &**piece).zip(&all) {
                let expected = match one {
                    Ok((format, encoded)) => Output::Encoded(*format, encoded),
                    Err(Some(index)) => Output::Panicked(*index),
                    Err(None) => Output::Undecodable,
                };
                prop_assert_eq!((output(&mut piece), piece), (Some(expected), &[][..]));
            }
        }

        #[test]
        fn items_are_no_commands(
            term in any::<u64>(), id in any::<[u8; 32]>(), count in any::<u64>(), data in prop::collection::vec(any::<u8>(), 0..50)
        ) {
            let body = Bytes::from(items(StreamId::from_bytes(id), count, &data));
            let expected = Items { stream: StreamId::from_bytes(id), count, data: data.into() };
            prop_assert_eq!(items_of(&body), Some(expected.clone()));
            prop_assert_eq!(items_of(&fenced(term, &body)), Some(expected));
            prop_assert_eq!(apart(&body), None);
            prop_assert!(!joins(&body, &alone(&(Format::Postcard, vec![1]))));
        }

        #[test]
        fn anything_is_a_body_or_not(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let seen = commands(&bytes).count();
            prop_assert!(seen <= COMMANDS);
            let bytes = Bytes::from(bytes);
            let _ = (outputs(&bytes, 9).count(), items_of(&bytes));
        }
    }

    #[test]
    fn a_body_that_is_not_sound_ends_with_nothing() {
        for body in
            [&[][..], &[0], &[0, 7], &[0, 7, 0, 7, 1], &[0x80], &[2, 2, 7], &[2, 2, 7, 4, 7], &[0x82, 2, 7, 2, 7]]
        {
            assert_eq!(commands(body).last(), Some(None), "{body:?}");
        }
    }

    /// A body with as many bytes as the limit is full.
    #[test]
    fn bodies_end_at_their_limit() {
        for (size, fits) in [(16_383, true), (16_384, false)] {
            let body = alone(&(Format::Postcard, vec![7; size - 11]));
            assert_eq!(joins(&body, &alone(&(Format::Postcard, vec![8; 9]))), fits, "{size}");
            // The encoding of a text has its length before it, in a byte or two.
            let texts = ["7".repeat(size - 12), "8".repeat(9)];
            let packed = pack(Codec::of(), texts, 1 << 20).expect("below the limit");
            assert_eq!(packed.len() == 1, fits, "{size}");
        }
    }

    #[test]
    fn no_command_is_too_long_for_a_body_by_itself() {
        let packed =
            pack(Codec::of(), [vec![7_u8; 3 * BYTES], vec![8; 10], vec![9; 10]], 1 << 20).expect("below the limit");
        assert_eq!(packed.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [1, 2]);
        assert!(matches!(pack(Codec::of(), [vec![7_u8; 100]], 50), Err(EncodeError::TooLarge(101 | 102))));
    }
}
