//! How a run of log entries travels: what an entry has in common with the one before it is not said again.
//!
//! ```text
//! count: varint, then for each entry
//!   flags: u8              bit 0: a command; 1: index is one more; same as before: 2: term, 3: times, 4: session,
//!                          5: settled, 6: attempted; 7: sequence is one more
//!   [index] [term] [times] varints, each unless its flag is set; times are two differences: group time and civil time
//!   a command: [session: 16 bytes LE, opened: varint] [sequence] [settled] [attempted] as above, size: varint, body
//!   otherwise: the payload in postcard encoding
//!   hash: 32 bytes
//! ```
//!
//! Before the first entry all numbers are 0. The hash is sent for each, because the receiver verifies the chain.

use bytes::Bytes;

use super::super::{
    encoding::{self, take, take_varint, varint},
    raft::{Command, Digest, Entry, Payload, SessionId},
};

const COMMAND: u8 = 1;
const INDEX: u8 = 1 << 1;
const TERM: u8 = 1 << 2;
const TIMES: u8 = 1 << 3;
const SESSION: u8 = 1 << 4;
const SETTLED: u8 = 1 << 5;
const ATTEMPTED: u8 = 1 << 6;
const SEQUENCE: u8 = 1 << 7;

/// The shortest entry: flags, a payload of one byte and the hash.
const SHORTEST: usize = 34;

/// What the next entry is compared with.
#[derive(Clone, Copy)]
struct Before {
    index: u64,
    term: u64,
    time: u64,
    civil: u64,
    session: SessionId,
    opened: u64,
    sequence: u64,
    settled: u64,
    attempted: u64,
}

const NOTHING: Before = Before {
    index: 0,
    term: 0,
    time: 0,
    civil: 0,
    session: SessionId(0),
    opened: 0,
    sequence: 0,
    settled: 0,
    attempted: 0,
};

/// Appends the run; `None`, and part of it may have been appended, when a payload cannot be encoded.
pub(super) fn encode(entries: &[Entry], buffer: &mut Vec<u8>) -> Option<()> {
    buffer.reserve(16 + entries.iter().map(|entry| 48 + entry.payload.size() - 64).sum::<usize>());
    varint(entries.len() as u64, buffer);
    let mut before = NOTHING;
    for Entry { index, term, time, civil, payload, hash } in entries {
        let at = buffer.len();
        buffer.push(0);
        let mut flags = 0;
        let mut number = |flag, same: bool, value: u64, buffer: &mut Vec<u8>| {
            if same { flags |= flag } else { varint(value, buffer) }
        };
        number(INDEX, *index == before.index.wrapping_add(1), *index, buffer);
        number(TERM, *term == before.term, *term, buffer);
        let same = (*time, *civil) == (before.time, before.civil);
        number(TIMES, same, time.wrapping_sub(before.time), buffer);
        number(TIMES, same, civil.wrapping_sub(before.civil), buffer);
        if let Payload::Command(Command { session, opened, sequence, settled, attempted, body }) = payload {
            let same = (*session, *opened) == (before.session, before.opened);
            if !same {
                buffer.extend_from_slice(&session.0.to_le_bytes());
            }
            number(SESSION, same, *opened, buffer);
            number(SEQUENCE, *sequence == before.sequence.wrapping_add(1), *sequence, buffer);
            number(SETTLED, *settled == before.settled, *settled, buffer);
            number(ATTEMPTED, *attempted == before.attempted, *attempted, buffer);
            flags |= COMMAND;
            varint(body.len() as u64, buffer);
            buffer.extend_from_slice(body);
            (before.session, before.opened, before.sequence) = (*session, *opened, *sequence);
            (before.settled, before.attempted) = (*settled, *attempted);
        } else {
            encoding::append(payload, buffer).ok()?;
        }
        buffer[at] = flags;
        (before.index, before.term, before.time, before.civil) = (*index, *term, *time, *civil);
        buffer.extend_from_slice(&hash.0);
    }
    Some(())
}

/// The run that the bytes are, and nothing else. The bodies of its commands share one piece of memory.
pub(super) fn decode(mut bytes: &[u8]) -> Option<Vec<Entry>> {
    let input = &mut bytes;
    let count = usize::try_from(take_varint(input)?).ok()?;
    if count > input.len() / SHORTEST {
        return None;
    }
    let (mut entries, mut bodies, mut ends) = (Vec::with_capacity(count), Vec::new(), Vec::with_capacity(count));
    let mut before = NOTHING;
    for _ in 0..count {
        let flags = take(input, 1)?[0];
        let mut number = |flag, same: u64| if flags & flag != 0 { Some(same) } else { take_varint(input) };
        let index = number(INDEX, before.index.wrapping_add(1))?;
        let term = number(TERM, before.term)?;
        let [time, civil] = [before.time, before.civil].map(|before| Some(before.wrapping_add(number(TIMES, 0)?)));
        let (time, civil) = (time?, civil?);
        let payload = if flags & COMMAND == 0 {
            if flags & (SESSION | SETTLED | ATTEMPTED | SEQUENCE) != 0 {
                return None;
            }
            let (payload, rest) = postcard::take_from_bytes(input).ok()?;
            *input = rest;
            payload
        } else {
            let (session, opened) = if flags & SESSION != 0 {
                (before.session, before.opened)
            } else {
                (SessionId(u128::from_le_bytes(take(input, 16)?.try_into().ok()?)), take_varint(input)?)
            };
            let mut number = |flag, same: u64| if flags & flag != 0 { Some(same) } else { take_varint(input) };
            let sequence = number(SEQUENCE, before.sequence.wrapping_add(1))?;
            let settled = number(SETTLED, before.settled)?;
            let attempted = number(ATTEMPTED, before.attempted)?;
            let size = usize::try_from(take_varint(input)?).ok()?;
            bodies.extend_from_slice(take(input, size)?);
            before = Before { session, opened, sequence, settled, attempted, ..before };
            Payload::Command(Command { session, opened, sequence, settled, attempted, body: Bytes::new() })
        };
        ends.push(bodies.len());
        let hash = Digest(take(input, 32)?.try_into().ok()?);
        (before.index, before.term, before.time, before.civil) = (index, term, time, civil);
        entries.push(Entry { index, term, time, civil, payload, hash });
    }
    for (entry, piece) in entries.iter_mut().zip(encoding::split(bodies, &ends)) {
        if let Payload::Command(command) = &mut entry.payload {
            command.body = piece;
        }
    }
    input.is_empty().then_some(entries)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Mostly small numbers, so that many follow each other or are the same.
    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![8 => 0..4_u64, 1 => any::<u64>()]
    }

    fn payload() -> impl Strategy<Value = Payload> {
        let body = prop::collection::vec(any::<u8>(), 0..20);
        let command = (0..3_u128, number(), number(), number(), number(), body).prop_map(
            |(session, opened, sequence, settled, attempted, body)| {
                Payload::Command(Command {
                    session: SessionId(session),
                    opened,
                    sequence,
                    settled,
                    attempted,
                    body: body.into(),
                })
            },
        );
        prop_oneof![
            8 => command,
            1 => Just(Payload::Noop),
            1 => any::<u128>().prop_map(|session| Payload::Open(SessionId(session))),
        ]
    }

    fn entry() -> impl Strategy<Value = Entry> {
        (number(), number(), number(), number(), payload(), any::<[u8; 32]>()).prop_map(
            |(index, term, time, civil, payload, hash)| Entry { index, term, time, civil, payload, hash: Digest(hash) },
        )
    }

    proptest! {
        #[test]
        fn a_run_comes_back(entries in prop::collection::vec(entry(), 0..30), cut in any::<prop::sample::Index>()) {
            let mut bytes = Vec::new();
            encode(&entries, &mut bytes).expect("can be encoded");
            prop_assert_eq!(decode(&bytes), Some(entries));
            prop_assert_eq!(decode(&bytes[..cut.index(bytes.len())]), None, "a part of it is no run");
            bytes.push(0);
            prop_assert_eq!(decode(&bytes), None, "nothing may follow");
        }

        #[test]
        fn anything_is_a_run_or_not(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn commands_that_follow_each_other_are_short() {
        let command = |sequence| {
            let body = Bytes::from_static(b"12345");
            Payload::Command(Command {
                session: SessionId(1),
                opened: 9,
                sequence,
                settled: 1,
                attempted: 1 << 40,
                body,
            })
        };
        let (time, civil, hash) = (1 << 30, 1 << 40, Digest([7; 32]));
        let entry = |at| Entry { index: 1 << 30 | at, term: 9, time, civil, payload: command(at), hash };
        let entries: Vec<_> = (0..1000).map(entry).collect();
        let mut bytes = Vec::new();
        encode(&entries, &mut bytes).expect("can be encoded");
        assert!(bytes.len() < 1000 * (32 + 5 + 2) + 100, "{} bytes", bytes.len());
    }
}
