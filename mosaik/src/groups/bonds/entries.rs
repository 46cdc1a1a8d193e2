//! How a run of log entries travels: what an entry has in common with the one before it is not said again.
//!
//! ```text
//! count: varint, then for each entry
//!   flags: u8              bit 0: a command; 1: index is one more; same as before: 2: term, 3: time, 4: session,
//!                          5: settled, 6: attempted; 7: sequence is one more
//!   [index] [term] [time]  varints, each unless its flag is set
//!   a command: [session: 16 bytes LE] [sequence] [settled] [attempted] as above, size: varint, body
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
const TIME: u8 = 1 << 3;
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
    session: SessionId,
    sequence: u64,
    settled: u64,
    attempted: u64,
}

const NOTHING: Before =
    Before { index: 0, term: 0, time: 0, session: SessionId(0), sequence: 0, settled: 0, attempted: 0 };

/// Appends the run; `None`, and part of it may have been appended, when a payload cannot be encoded.
pub(super) fn encode(entries: &[Entry], buffer: &mut Vec<u8>) -> Option<()> {
    buffer.reserve(16 + entries.iter().map(|entry| 48 + entry.payload.size() - 64).sum::<usize>());
    varint(entries.len() as u64, buffer);
    let mut before = NOTHING;
    for Entry { index, term, time, payload, hash } in entries {
        let at = buffer.len();
        buffer.push(0);
        let mut flags = 0;
        let mut number = |flag, same: bool, value: u64, buffer: &mut Vec<u8>| {
            if same { flags |= flag } else { varint(value, buffer) }
        };
        number(INDEX, *index == before.index.wrapping_add(1), *index, buffer);
        number(TERM, *term == before.term, *term, buffer);
        number(TIME, *time == before.time, *time, buffer);
        if let Payload::Command(Command { session, sequence, settled, attempted, body }) = payload {
            if *session == before.session {
                number(SESSION, true, 0, buffer);
            } else {
                buffer.extend_from_slice(&session.0.to_le_bytes());
            }
            number(SEQUENCE, *sequence == before.sequence.wrapping_add(1), *sequence, buffer);
            number(SETTLED, *settled == before.settled, *settled, buffer);
            number(ATTEMPTED, *attempted == before.attempted, *attempted, buffer);
            flags |= COMMAND;
            varint(body.len() as u64, buffer);
            buffer.extend_from_slice(body);
            (before.session, before.sequence) = (*session, *sequence);
            (before.settled, before.attempted) = (*settled, *attempted);
        } else {
            encoding::append(payload, buffer).ok()?;
        }
        buffer[at] = flags;
        (before.index, before.term, before.time) = (*index, *term, *time);
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
        let time = number(TIME, before.time)?;
        let payload = if flags & COMMAND == 0 {
            if flags & (SESSION | SETTLED | ATTEMPTED | SEQUENCE) != 0 {
                return None;
            }
            let (payload, rest) = postcard::take_from_bytes(input).ok()?;
            *input = rest;
            payload
        } else {
            let session = if flags & SESSION != 0 {
                before.session
            } else {
                SessionId(u128::from_le_bytes(take(input, 16)?.try_into().ok()?))
            };
            let mut number = |flag, same: u64| if flags & flag != 0 { Some(same) } else { take_varint(input) };
            let sequence = number(SEQUENCE, before.sequence.wrapping_add(1))?;
            let settled = number(SETTLED, before.settled)?;
            let attempted = number(ATTEMPTED, before.attempted)?;
            let size = usize::try_from(take_varint(input)?).ok()?;
            bodies.extend_from_slice(take(input, size)?);
            before = Before { session, sequence, settled, attempted, ..before };
            Payload::Command(Command { session, sequence, settled, attempted, body: Bytes::new() })
        };
        ends.push(bodies.len());
        let hash = Digest(take(input, 32)?.try_into().ok()?);
        (before.index, before.term, before.time) = (index, term, time);
        entries.push(Entry { index, term, time, payload, hash });
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
        let command = (0..3_u128, number(), number(), number(), body).prop_map(
            |(session, sequence, settled, attempted, body)| {
                Payload::Command(Command {
                    session: SessionId(session),
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
        (number(), number(), number(), payload(), any::<[u8; 32]>())
            .prop_map(|(index, term, time, payload, hash)| Entry { index, term, time, payload, hash: Digest(hash) })
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
            Payload::Command(Command { session: SessionId(1), sequence, settled: 1, attempted: 1 << 40, body })
        };
        let entry =
            |at| Entry { index: 1 << 30 | at, term: 9, time: 1 << 40, payload: command(at), hash: Digest([7; 32]) };
        let entries: Vec<_> = (0..1000).map(entry).collect();
        let mut bytes = Vec::new();
        encode(&entries, &mut bytes).expect("can be encoded");
        assert!(bytes.len() < 1000 * (32 + 5 + 2) + 100, "{} bytes", bytes.len());
    }
}
