//! The frames of a bond after its handshake.
//!
//! ```text
//! +----------------+----------+------------------------+
//! | length: u32 LE | kind: u8 | body: `length`-1 bytes |
//! +----------------+----------+------------------------+
//! ```
//!
//! Many frames are written into one buffer and leave in one write. A consensus message travels without its ends, which are
//! those of the handshake: a member cannot speak for another one.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    super::{
        encoding,
        raft::{ClusterId, Entry, Envelope, Mark, Message, NodeId, Term},
    },
    claims::Claim,
    entries,
};
use crate::discovery::SignedEntry;

/// The longest frame, in bytes. The core sends 512 KiB of entries at once, unless a single one is longer.
pub(crate) const MAX_FRAME: usize = 4 << 20;
/// The longest request or reply of a call, and what an entry may hold so that its frame is within the limit, in bytes.
pub(crate) const MAX_BODY: usize = 3 << 20;
/// The most entries of other members in one frame.
pub(super) const MAX_GOSSIP: usize = 64;
/// The most marks in one frame.
const MAX_MARKS: usize = 1024;

const HEADER: usize = 4;
const ID: usize = 8;

/// What is on its way to the other member.
#[derive(Debug)]
pub(super) enum Frame {
    Raft(Envelope),
    Call {
        id: u64,
        body: Bytes,
    },
    Reply {
        id: u64,
        body: Bytes,
    },
    /// The call will not be answered.
    Dropped {
        id: u64,
    },
    /// Whether the receiver would let that start of a storage in. Answered as a call, by the number of a close code.
    Ask {
        id: u64,
        claim: Claim,
    },
    /// Microseconds since the bond was made, by the clock of its author, who gets them back.
    Ping {
        at: u64,
    },
    Pong {
        at: u64,
    },
    /// Signed entries of members that the sender is bonded to, and its own.
    Gossip(Vec<SignedEntry>),
    /// What the sender has seen of the storages of members, its own included; only what it has not told yet.
    Marks(Vec<(NodeId, Mark)>),
    /// Another process knocked with a copy of the receiver's storage, and was refused.
    Copied,
    /// The sender leaves of its own accord: it is not to be dialled until it returns.
    Goodbye,
}

/// A frame as it was received.
#[derive(Debug)]
pub(super) enum Received {
    Raft { cluster: Option<ClusterId>, term: Term, body: Message },
    Call { id: u64, body: Bytes },
    Reply { id: u64, body: Bytes },
    Dropped { id: u64 },
    Ask { id: u64, claim: Claim },
    Ping { at: u64 },
    Pong { at: u64 },
    Gossip(Vec<SignedEntry>),
    Marks(Vec<(NodeId, Mark)>),
    Copied,
    Goodbye,
}

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireError {
    #[error("a frame of {len} bytes is over the limit of {MAX_FRAME} bytes")]
    TooLarge { len: usize },
    #[error("a frame that cannot be decoded")]
    Undecodable,
}

mod kind {
    pub(super) const RAFT: u8 = 0;
    pub(super) const CALL: u8 = 1;
    pub(super) const REPLY: u8 = 2;
    pub(super) const DROPPED: u8 = 3;
    pub(super) const PING: u8 = 4;
    pub(super) const PONG: u8 = 5;
    pub(super) const GOSSIP: u8 = 6;
    pub(super) const GOODBYE: u8 = 7;
    /// A message with entries: as `RAFT`, with none in it, and then they.
    pub(super) const ENTRIES: u8 = 8;
    pub(super) const MARKS: u8 = 9;
    pub(super) const COPIED: u8 = 10;
    pub(super) const ASK: u8 = 11;
}

#[derive(Serialize)]
struct Carried<'a> {
    cluster: &'a Option<ClusterId>,
    term: Term,
    body: &'a Message,
}

#[derive(Deserialize)]
struct Arrived {
    cluster: Option<ClusterId>,
    term: Term,
    body: Message,
}

/// Appends a frame to the buffer; on an error the buffer is as before.
pub(super) fn encode(frame: &Frame, buffer: &mut Vec<u8>) -> Result<(), WireError> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; HEADER]);
    match frame {
        Frame::Raft(Envelope { cluster, term, body, .. }) => match without_entries(body) {
            Some((body, run)) => {
                postcard_into(kind::ENTRIES, &Carried { cluster, term: *term, body: &body }, buffer);
                if buffer.len() > start + HEADER && entries::encode(run, buffer).is_none() {
                    buffer.truncate(start + HEADER);
                }
            }
            None => postcard_into(kind::RAFT, &Carried { cluster, term: *term, body }, buffer),
        },
        Frame::Call { id, body } => {
            numbered(kind::CALL, *id, buffer);
            buffer.extend_from_slice(body);
        }
        Frame::Reply { id, body } => {
            numbered(kind::REPLY, *id, buffer);
            buffer.extend_from_slice(body);
        }
        Frame::Dropped { id } => numbered(kind::DROPPED, *id, buffer),
        Frame::Ask { id, claim } => postcard_into(kind::ASK, &(id, claim), buffer),
        Frame::Ping { at } => numbered(kind::PING, *at, buffer),
        Frame::Pong { at } => numbered(kind::PONG, *at, buffer),
        Frame::Gossip(entries) => postcard_into(kind::GOSSIP, entries, buffer),
        Frame::Marks(marks) => postcard_into(kind::MARKS, marks, buffer),
        Frame::Copied => buffer.push(kind::COPIED),
        Frame::Goodbye => buffer.push(kind::GOODBYE),
    }
    let len = buffer.len().saturating_sub(start + HEADER);
    match u32::try_from(len).ok().filter(|_| (1..=MAX_FRAME).contains(&len)) {
        Some(header) => {
            buffer[start..start + HEADER].copy_from_slice(&header.to_le_bytes());
            Ok(())
        }
        None => {
            buffer.truncate(start);
            Err(if len == 0 { WireError::Undecodable } else { WireError::TooLarge { len } })
        }
    }
}

fn numbered(kind: u8, number: u64, buffer: &mut Vec<u8>) {
    buffer.push(kind);
    buffer.extend_from_slice(&number.to_le_bytes());
}

/// Writes nothing, not even the kind, when the value cannot be encoded.
fn postcard_into<T: Serialize>(kind: u8, value: &T, buffer: &mut Vec<u8>) {
    let start = buffer.len();
    buffer.push(kind);
    if encoding::append(value, buffer).is_err() {
        buffer.truncate(start);
    }
}

/// A message that carries entries, without them, and them.
fn without_entries(message: &Message) -> Option<(Message, &[Entry])> {
    let entries = Vec::new();
    match message {
        Message::Append { previous, entries: run, commit, round, clock } if !run.is_empty() => {
            let (previous, commit, round, clock) = (*previous, *commit, *round, *clock);
            Some((Message::Append { previous, entries, commit, round, clock }, run))
        }
        Message::Pulled { from, entries: run, commit } if !run.is_empty() => {
            Some((Message::Pulled { from: *from, entries, commit: *commit }, run))
        }
        _ => None,
    }
}

/// The other way round.
fn with_entries(message: Message, run: Vec<Entry>) -> Option<Message> {
    match message {
        Message::Append { previous, entries, commit, round, clock } if entries.is_empty() => {
            Some(Message::Append { previous, entries: run, commit, round, clock })
        }
        Message::Pulled { from, entries, commit } if entries.is_empty() => {
            Some(Message::Pulled { from, entries: run, commit })
        }
        _ => None,
    }
}

/// The length of the whole first frame, header included, once its header is there. `None`: more bytes are needed.
pub(super) fn frame_len(bytes: &[u8]) -> Result<Option<usize>, WireError> {
    let Some(header) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
    let len = u32::from_le_bytes(*header) as usize;
    if len > MAX_FRAME {
        return Err(WireError::TooLarge { len });
    }
    Ok(Some(HEADER + len))
}

/// A whole frame, header included.
pub(super) fn decode(frame: &[u8]) -> Result<Received, WireError> {
    let (kind, body) = frame.get(HEADER..).and_then(<[u8]>::split_first).ok_or(WireError::Undecodable)?;
    let number = || Ok::<_, WireError>(u64::from_le_bytes(body.try_into().map_err(|_| WireError::Undecodable)?));
    let with_body = || {
        let (id, body) = body.split_first_chunk::<ID>().ok_or(WireError::Undecodable)?;
        Ok::<_, WireError>((u64::from_le_bytes(*id), Bytes::copy_from_slice(body)))
    };
    Ok(match *kind {
        kind::RAFT => {
            let Arrived { cluster, term, body } = whole(body)?;
            Received::Raft { cluster, term, body }
        }
        kind::ENTRIES => {
            let (Arrived { cluster, term, body }, rest) =
                postcard::take_from_bytes(body).map_err(|_| WireError::Undecodable)?;
            let run = entries::decode(rest).ok_or(WireError::Undecodable)?;
            Received::Raft { cluster, term, body: with_entries(body, run).ok_or(WireError::Undecodable)? }
        }
        kind::CALL => with_body().map(|(id, body)| Received::Call { id, body })?,
        kind::REPLY => with_body().map(|(id, body)| Received::Reply { id, body })?,
        kind::DROPPED => Received::Dropped { id: number()? },
        kind::ASK => {
            let (id, claim) = whole(body)?;
            Received::Ask { id, claim }
        }
        kind::PING => Received::Ping { at: number()? },
        kind::PONG => Received::Pong { at: number()? },
        kind::GOSSIP => {
            let entries: Vec<SignedEntry> = whole(body)?;
            if entries.len() > MAX_GOSSIP {
                return Err(WireError::Undecodable);
            }
            Received::Gossip(entries)
        }
        kind::MARKS => {
            let marks: Vec<(NodeId, Mark)> = whole(body)?;
            if marks.len() > MAX_MARKS {
                return Err(WireError::Undecodable);
            }
            Received::Marks(marks)
        }
        kind::COPIED if body.is_empty() => Received::Copied,
        kind::GOODBYE if body.is_empty() => Received::Goodbye,
        _ => return Err(WireError::Undecodable),
    })
}

fn whole<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, WireError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        _ => Err(WireError::Undecodable),
    }
}
