//! The nouns of consensus: who (node, incarnation, member), where (term, index, position) and what (entry, payload).
//!
//! Everything else in this folder speaks these types. They own no behaviour beyond hashing and printing.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::membership::Membership;

/// An election period. Zero before a node belongs to a cluster.
pub type Term = u64;
/// A place in the log. The first entry (the genesis) is 1; 0 stands before it.
pub type Index = u64;
/// Names one batch of storage writes; batches complete in order, so a token also stands for all before it.
pub type Token = u64;

/// A point of local time, handed to every step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic clock, microseconds since any fixed point.
    pub mono: u64,
    /// Wall clock, milliseconds since the epoch. One of those that civil time follows; it decides nothing.
    pub wall: u64,
}

fn short(f: &mut fmt::Formatter<'_>, bytes: &[u8; 32]) -> fmt::Result {
    for byte in &bytes[..4] {
        write!(f, "{byte:02x}")?;
    }
    Ok(())
}

/// A node: the 32 bytes of its public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId([u8; 32]);

impl NodeId {
    /// From the bytes of a public key.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        short(f, &self.0)
    }
}

/// A BLAKE3 digest.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        short(f, &self.0)
    }
}

/// Which founding a log descends from: the hash of its genesis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub Digest);

/// What votes and acknowledges: a node together with one life of its storage.
///
/// Blank or damaged storage is a new, higher incarnation, so that nobody counts a promise that was forgotten.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// The life of its storage; strictly growing per node.
    pub incarnation: u64,
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}.{}", self.node, self.incarnation)
    }
}

/// A point of a log: equal positions mean equal logs up to there, because the hash is a chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The entry's index.
    pub index: Index,
    /// The entry's term.
    pub term: Term,
    /// The chain hash up to and including the entry.
    pub hash: Digest,
}

/// A client session, chosen at random by the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u128);

/// One command of a session, as it lies in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The session that it belongs to.
    pub session: SessionId,
    /// Index of the entry that opened the session: if another one did, or none is there, the session has ended.
    pub opened: Index,
    /// Its number in the session, from 1; a retry carries the same number.
    pub sequence: u64,
    /// The client has the results of all numbers below this one and will not ask for them again.
    pub settled: u64,
    /// Group time of the first attempt, milliseconds.
    pub attempted: u64,
    /// The encoded command.
    pub body: Bytes,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// Opens a term.
    Noop,
    /// Opens a client session.
    Open(SessionId),
    /// A command for the state machine.
    Command(Command),
    /// A configuration; in force from the moment it is in the log.
    Config(Box<Membership>),
    /// This cluster takes in another one; from then on it never yields.
    Adopt(ClusterId),
    /// This cluster dissolves into another one; members wipe themselves on applying it.
    Yield(ClusterId),
    /// The last entry for this version of the machine: no command follows.
    Seal,
}

impl Payload {
    /// Whether a user wrote it: such a log is never given up silently.
    #[must_use]
    pub const fn is_user(&self) -> bool {
        matches!(self, Self::Open(_) | Self::Command(_) | Self::Seal)
    }

    /// Bytes that it counts for in windows and batches.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Command(command) => 64 + command.body.len(),
            Self::Config(membership) => 64 + membership.size(),
            Self::Noop | Self::Open(_) | Self::Adopt(_) | Self::Yield(_) | Self::Seal => 64,
        }
    }

    /// Writes what the chain hash covers but for the body of a command. Differences to the entry's index and time are short.
    fn encode(&self, index: Index, time: u64, out: &mut Head) {
        match self {
            Self::Noop => out.put(&[0]),
            Self::Open(session) => {
                out.put(&[1]);
                out.put(&session.0.to_le_bytes());
            }
            Self::Command(command) => {
                out.put(&[2]);
                out.put(&command.session.0.to_le_bytes());
                out.put_varint(index.wrapping_sub(command.opened));
                out.put_varint(command.sequence);
                out.put_varint(command.sequence.wrapping_sub(command.settled));
                out.put_varint(time.wrapping_sub(command.attempted));
            }
            Self::Config(_) => out.put(&[3]),
            Self::Adopt(cluster) => {
                out.put(&[4]);
                out.put(&cluster.0.0);
            }
            Self::Yield(cluster) => {
                out.put(&[5]);
                out.put(&cluster.0.0);
            }
            Self::Seal => out.put(&[6]),
        }
    }
}

/// What is hashed, as long as it is short: built where no memory is asked for.
struct Head {
    bytes: [u8; Self::ROOM],
    len: usize,
}

impl Head {
    /// Eight varints of ten bytes, a tag and a session take 97.
    const ROOM: usize = 128;

    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// LEB128: seven bits a byte, the lowest first. No code is the beginning of another one.
    fn put_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.put(&[(value & 0x7F) as u8 | 0x80]);
            value >>= 7;
        }
        self.put(&[(value & 0x7F) as u8]);
    }
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it stands.
    pub index: Index,
    /// The term of the leader that created it.
    pub term: Term,
    /// Group time, milliseconds; never decreases along a log, and counts only while somebody leads.
    pub time: u64,
    /// Civil time, milliseconds since the Unix epoch; never decreases along a log, 0 before it has begun.
    pub civil: u64,
    /// What it says.
    pub payload: Payload,
    /// Chain hash: over the hash before it and everything above.
    pub hash: Digest,
}

impl Entry {
    /// Its position.
    #[must_use]
    pub const fn position(&self) -> Position {
        Position { index: self.index, term: self.term, hash: self.hash }
    }

    /// Makes the entry that follows `previous`.
    #[must_use]
    pub fn after(previous: &Digest, index: Index, term: Term, (time, civil): (u64, u64), payload: Payload) -> Self {
        let mut entry = Self { index, term, time, civil, payload, hash: *previous };
        entry.hash = chain(previous, &entry, &mut Vec::with_capacity(192));
        entry
    }

    /// Whether its hash is what its content and `previous` give. `scratch` is reused memory.
    #[must_use]
    pub fn follows(&self, previous: &Digest, scratch: &mut Vec<u8>) -> bool {
        self.hash == chain(previous, self, scratch)
    }
}

/// The chain hash of an entry: BLAKE3 of its content, keyed with the hash before it. What a usual command says, up to about
/// 20 bytes of the user's among it, fits into one block of 64 bytes, and hashing is the larger part of what an entry costs.
/// The entry's own hash does not enter.
pub(super) fn chain(previous: &Digest, entry: &Entry, scratch: &mut Vec<u8>) -> Digest {
    let Entry { index, term, time, civil, payload, hash: _ } = entry;
    let mut head = Head { bytes: [0; Head::ROOM], len: 0 };
    head.put_varint(*index);
    head.put_varint(*term);
    head.put_varint(*time);
    head.put_varint(*civil);
    payload.encode(*index, *time, &mut head);
    let body = match payload {
        Payload::Command(command) => &command.body[..],
        _ => &[],
    };
    let is_short = !matches!(payload, Payload::Config(_)) && body.len() <= Head::ROOM - head.len;
    let content = if is_short {
        head.put(body);
        &head.bytes[..head.len]
    } else {
        scratch.clear();
        scratch.extend_from_slice(&head.bytes[..head.len]);
        scratch.extend_from_slice(body);
        if let Payload::Config(membership) = payload {
            membership.encode(scratch);
        }
        scratch
    };
    Digest(*blake3::keyed_hash(&previous.0, content).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every field of an entry, the longest and the shortest body, and the hash before it change the hash.
    #[test]
    fn the_chain_covers_all_of_an_entry() {
        let command = |change: fn(&mut Command)| {
            let mut command = Command {
                session: SessionId(7),
                opened: 1,
                sequence: 300,
                settled: 299,
                attempted: 9,
                body: Bytes::new(),
            };
            change(&mut command);
            Payload::Command(command)
        };
        let cluster = ClusterId(Digest([3; 32]));
        let payloads = [
            command(|_| {}),
            command(|it| it.session = SessionId(8)),
            command(|it| it.opened = 2),
            command(|it| it.sequence = 301),
            command(|it| it.settled = 301),
            command(|it| it.attempted = u64::MAX),
            command(|it| it.body = Bytes::from_static(&[0])),
            command(|it| it.body = Bytes::from_static(&[0; 2])),
            command(|it| it.body = Bytes::from_static(&[0; Head::ROOM])),
            command(|it| it.body = Bytes::from_static(&[0; 4 * Head::ROOM])),
            Payload::Noop,
            Payload::Open(SessionId(7)),
            Payload::Adopt(cluster),
            Payload::Yield(cluster),
            Payload::Seal,
            Payload::Config(Box::new(Membership::founding(cluster, [].into(), 1))),
            Payload::Config(Box::new(Membership::founding(cluster, [].into(), 2))),
        ];
        let mut seen = std::collections::BTreeSet::new();
        for payload in &payloads {
            for (previous, index, term, times) in [
                (1, 2, 3, (4, 9)),
                (2, 2, 3, (4, 9)),
                (1, 3, 3, (4, 9)),
                (1, 2, 4, (4, 9)),
                (1, 2, 3, (5, 9)),
                (1, 2, 3, (4, 10)),
            ] {
                let entry = Entry::after(&Digest([previous; 32]), index, term, times, payload.clone());
                assert!(entry.follows(&Digest([previous; 32]), &mut Vec::new()));
                assert!(seen.insert(entry.hash), "two entries of one hash: {entry:?}");
            }
        }
        assert_eq!(seen.len(), 6 * payloads.len());
    }
}
