//! Several commands in one entry of the log, and their outputs in one answer: what an entry costs is shared by all.
//!
//! A body is the number of commands, one byte; then a single command by itself, or each of several after its size. They
//! are applied one after the other, as one entry, or none of them. The output of a single command is by itself, too; of
//! several, each comes after its size plus one, or is a zero if the machine could not decode the command. Sizes are
//! varints. Whoever knows how many commands it sent knows which outputs come.

use bytes::Bytes;

use crate::{
    groups::encoding::{self, take, take_varint, varint},
    primitives::{
        Datum,
        codec::{Codec, EncodeError},
    },
};

/// Most commands in one body: the count is one byte that is also its own varint.
pub const COMMANDS: usize = 127;
/// Bytes of a body beyond which no further command is added. Long commands gain nothing.
pub const BYTES: usize = 16 << 10;

/// Begins a body of one command, whose encoding is to be appended.
pub fn begin() -> Vec<u8> {
    vec![1]
}

/// How many commands the body is said to have.
pub fn count(body: &[u8]) -> usize {
    body.first().map_or(0, |count| usize::from(*count))
}

/// Whether a body of one command may be added to another body.
pub fn joins(body: &[u8], more: &[u8]) -> bool {
    count(more) == 1 && (1..COMMANDS).contains(&count(body)) && body.len() + more.len() < BYTES
}

/// Adds a body of one command.
pub fn join(body: &mut Vec<u8>, more: &[u8]) {
    if count(body) == 1 {
        let single = std::mem::take(body);
        body.reserve(2 * (single.len() + more.len()) + 8);
        body.push(1);
        append(body, &single[1..]);
    }
    body[0] += 1;
    append(body, &more[1..]);
}

fn append(body: &mut Vec<u8>, command: &[u8]) {
    varint(command.len() as u64, body);
    body.extend_from_slice(command);
}

/// The body of the commands that `keep` says, by their places; at least one of them, and not all.
pub fn without(body: &[u8], keep: impl Fn(usize) -> bool) -> Option<Bytes> {
    let mut kept = Vec::new();
    for (at, command) in commands(body).enumerate() {
        let command = command?;
        if !keep(at) {
            continue;
        }
        let mut single = begin();
        single.extend_from_slice(command);
        if kept.is_empty() { kept = single } else { join(&mut kept, &single) }
    }
    (!kept.is_empty()).then(|| kept.into())
}

/// The commands of a body; `None` once, at the end, if it is not what it should be.
pub fn commands(body: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    let (count, mut rest) = (count(body), body.get(1..).unwrap_or_default());
    let mut left = count.max(1);
    let sound = (1..=COMMANDS).contains(&count);
    std::iter::from_fn(move || {
        left = left.checked_sub(1)?;
        let command = if count == 1 { Some(rest) } else { sized(&mut rest).filter(|_| sound) };
        if command.is_none() {
            left = 0;
        }
        Some(command)
    })
}

fn sized<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let size = usize::try_from(take_varint(input)?).ok()?;
    take(input, size)
}

/// Appends the output of one of several commands, which the function writes; `None`: the command could not be decoded.
pub fn append_output(output: Option<impl FnOnce(&mut Vec<u8>)>, outputs: &mut Vec<u8>) {
    let at = outputs.len();
    outputs.push(0);
    let Some(output) = output else { return };
    output(outputs);
    let size = outputs.len() - at - 1;
    if size < 0x7F {
        outputs[at] = size.to_le_bytes()[0] + 1;
    } else {
        let mut prefix = Vec::with_capacity(10);
        varint(size as u64 + 1, &mut prefix);
        outputs.splice(at..=at, prefix);
    }
}

/// The outputs of several commands, in order; `Some(None)` for one that the machine could not decode, `None` once at the
/// end if there are not as many as there should be.
pub fn outputs(outputs: &Bytes, count: usize) -> impl Iterator<Item = Option<Option<Bytes>>> {
    let mut rest: &[u8] = outputs;
    let mut left = count;
    std::iter::from_fn(move || {
        left = left.checked_sub(1)?;
        if count == 1 {
            return Some(Some(Some(outputs.clone())));
        }
        let output = take_varint(&mut rest).and_then(|size| match size.checked_sub(1) {
            None => Some(None),
            Some(size) => take(&mut rest, usize::try_from(size).ok()?).map(|output| Some(outputs.slice_ref(output))),
        });
        if output.is_none() {
            left = 0;
        }
        Some(output)
    })
}

/// Bodies with all of the commands, in order, in one piece of memory, and how many commands each has. `Err`: the encoding of
/// one failed, or its size is over the limit.
pub(crate) fn pack<T: Datum>(
    codec: Codec<T>,
    commands: impl IntoIterator<Item = T>,
    limit: usize,
) -> Result<Vec<(Bytes, usize)>, EncodeError> {
    let (mut encoded, mut ends) = (Vec::new(), Vec::new());
    for command in commands {
        codec.append_marked(&command, &mut encoded, limit)?;
        ends.push(encoded.len());
    }
    let mut packed = Vec::with_capacity(encoded.len() + 2 * ends.len());
    let (mut edges, mut counts) = (Vec::new(), Vec::new());
    let (mut done, mut start) = (0, 0);
    while done < ends.len() {
        let fits = |end: &&usize| **end - start < BYTES;
        let count = ends[done..].iter().take(COMMANDS).take_while(fits).count().max(1);
        packed.push(count.to_le_bytes()[0]);
        for end in &ends[done..done + count] {
            if count > 1 {
                varint((end - start) as u64, &mut packed);
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

    fn single(command: &[u8]) -> Vec<u8> {
        [&[1], command].concat()
    }

    proptest! {
        #[test]
        fn what_was_joined_comes_apart(all in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..COMMANDS)) {
            let mut body = single(&all[0]);
            for command in &all[1..] {
                prop_assume!(joins(&body, &single(command)));
                join(&mut body, &single(command));
            }
            let apart: Option<Vec<_>> = commands(&body).collect();
            prop_assert_eq!(apart, Some(all.iter().map(Vec::as_slice).collect()));
            let odd = without(&body, |at| at % 2 == 1);
            let expected: Vec<_> = all.iter().skip(1).step_by(2).map(Vec::as_slice).collect();
            prop_assert_eq!(odd.map(|odd| commands(&odd).map(|it| it.unwrap().to_vec()).collect::<Vec<_>>()).unwrap_or_default(), expected);
        }

        #[test]
        fn what_was_packed_comes_apart(all in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..300)) {
            let packed = pack(Codec::of(), all.iter().cloned(), 4000).expect("short enough");
            let mut apart = Vec::new();
            for (body, count) in &packed {
                prop_assert_eq!(super::count(body), *count);
                apart.extend(commands(body).map(|it| Codec::<Vec<u8>>::of().decode_marked(it.unwrap()).unwrap()));
            }
            prop_assert_eq!(apart, all);
        }

        #[test]
        fn outputs_come_back(all in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..300)), 2..50)) {
            let mut bytes = Vec::new();
            all.iter().for_each(|output| append_output(output.as_ref().map(|output| |out: &mut Vec<u8>| Codec::of().write_marked(output, out).expect("it is short")), &mut bytes));
            let back: Option<Vec<_>> = outputs(&bytes.into(), all.len()).collect();
            let back = back.map(|it| it.into_iter().map(|it| it.map(|it| Codec::<Vec<u8>>::of().decode_marked(&it).unwrap())));
            prop_assert_eq!(back.map(Iterator::collect), Some(all));
        }

        #[test]
        fn anything_is_a_body_or_not(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let seen = commands(&bytes).count();
            prop_assert!(seen <= COMMANDS);
            let bytes = Bytes::from(bytes);
            let _ = outputs(&bytes, 9).count();
        }
    }

    #[test]
    fn a_body_that_is_not_sound_ends_with_nothing() {
        for body in [&[][..], &[0], &[2, 1, 7], &[2, 1, 7, 2, 7], &[200, 1, 7]] {
            assert_eq!(commands(body).last(), Some(None), "{body:?}");
        }
    }

    #[test]
    fn no_command_is_too_long_for_a_body_by_itself() {
        let packed =
            pack(Codec::of(), [vec![7_u8; 3 * BYTES], vec![8; 10], vec![9; 10]], 1 << 20).expect("below the limit");
        assert_eq!(packed.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [1, 2]);
        assert!(matches!(pack(Codec::of(), [vec![7_u8; 100]], 50), Err(EncodeError::TooLarge(102 | 101))));
    }
}
