//! What proves that a socket belongs to a connection: a token of the opener for this one stream and direction, and one in return.
//!
//! Both derive from the keying material of the connection (RFC 9266), which its two ends have and nobody else. Equal users are
//! not enough: the user of a container may have the number of one outside.

/// Keying material of a connection for its lane.
const LABEL: &[u8] = b"EXPORTER-mosaik-lane-1";
/// Bytes of the name of a connection.
const NAME: usize = 16;
/// Bytes of a token.
pub(super) const TOKEN: usize = 32;
/// Bytes of a [`Hello`].
pub(super) const HELLO: usize = NAME + 2 + 8 + TOKEN;

/// A connection, as its two ends name it and nobody else can.
pub(super) type Name = [u8; NAME];

/// Which end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    Dialler,
    Acceptor,
}

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Dialler => Self::Acceptor,
            Self::Acceptor => Self::Dialler,
        }
    }
}

/// Who sends on a socket: each direction of a stream has one of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Direction {
    /// Who opened the stream.
    Forth,
    /// Who accepted it.
    Back,
}

/// The first bytes on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) name: Name,
    /// The end that opens the stream.
    pub(super) opener: Side,
    pub(super) direction: Direction,
    /// Of the stream, among those that this end opens.
    pub(super) number: u64,
    token: [u8; TOKEN],
}

/// The secret of a connection's lane.
#[derive(Clone)]
pub(super) struct Key([u8; 32]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// From what derives keying material of a connection; `None` when it has ended.
    pub(super) fn derive(exporter: impl FnOnce(&[u8], &[u8]) -> Option<[u8; 32]>) -> Option<Self> {
        exporter(LABEL, b"").map(Self)
    }

    pub(super) fn name(&self) -> Name {
        let mut name = [0; NAME];
        name.copy_from_slice(&blake3::keyed_hash(&self.0, b"name").as_bytes()[..NAME]);
        name
    }

    fn token(&self, what: &[u8], opener: Side, direction: Direction, number: u64) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(what).update(&[opener as u8, direction as u8]).update(&number.to_le_bytes());
        hasher.finalize()
    }

    pub(super) fn hello(&self, opener: Side, direction: Direction, number: u64) -> Hello {
        let token = *self.token(b"open", opener, direction, number).as_bytes();
        Hello { name: self.name(), opener, direction, number, token }
    }

    /// The answer to a hello, if it is of this connection.
    pub(super) fn answer(&self, hello: &Hello) -> Option<[u8; TOKEN]> {
        let Hello { opener, direction, number, token, .. } = *hello;
        // In constant time, as `blake3::Hash` compares.
        let is_ours = self.token(b"open", opener, direction, number) == token;
        is_ours.then(|| *self.token(b"answer", opener, direction, number).as_bytes())
    }

    /// Whether this answers the hello.
    pub(super) fn is_answer(&self, hello: &Hello, answer: [u8; TOKEN]) -> bool {
        self.token(b"answer", hello.opener, hello.direction, hello.number) == answer
    }
}

impl Hello {
    pub(super) fn encode(&self) -> [u8; HELLO] {
        let mut bytes = [0; HELLO];
        let (name, rest) = bytes.split_at_mut(NAME);
        name.copy_from_slice(&self.name);
        rest[0] = self.opener as u8;
        rest[1] = self.direction as u8;
        rest[2..10].copy_from_slice(&self.number.to_le_bytes());
        rest[10..].copy_from_slice(&self.token);
        bytes
    }

    /// `None` for what is none.
    pub(super) fn decode(bytes: &[u8; HELLO]) -> Option<Self> {
        let (name, rest) = bytes.split_first_chunk::<NAME>()?;
        let (ends, rest) = rest.split_first_chunk::<2>()?;
        let (number, token) = rest.split_first_chunk::<8>()?;
        let (opener, direction) = match ends {
            [0, 0] => (Side::Dialler, Direction::Forth),
            [0, 1] => (Side::Dialler, Direction::Back),
            [1, 0] => (Side::Acceptor, Direction::Forth),
            [1, 1] => (Side::Acceptor, Direction::Back),
            _ => return None,
        };
        Some(Self {
            name: *name,
            opener,
            direction,
            number: u64::from_le_bytes(*number),
            token: token.try_into().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::fixtures::Fixture;

    fn key(seed: u8) -> Key {
        Key::derive(|_, _| Some([seed; 32])).expect("is open")
    }

    #[test]
    fn a_hello_is_for_one_stream_of_one_connection() {
        let (ours, others) = (key(1), key(2));
        let hello = ours.hello(Side::Dialler, Direction::Forth, 7);
        assert_eq!(Hello::decode(&hello.encode()), Some(hello));
        let answer = ours.answer(&hello).expect("is ours");
        assert!(ours.is_answer(&hello, answer) && !others.is_answer(&hello, answer));
        assert_eq!(others.answer(&hello), None);
        for other in [
            Hello { number: 8, ..hello },
            Hello { opener: Side::Acceptor, ..hello },
            Hello { direction: Direction::Back, ..hello },
        ] {
            assert_eq!(ours.answer(&other), None);
            assert!(!ours.is_answer(&other, answer));
        }
        // The token of the opener is no answer.
        assert!(!ours.is_answer(&hello, hello.token));
    }

    #[test]
    fn what_is_no_hello_is_refused() {
        let mut bytes = key(1).hello(Side::Dialler, Direction::Forth, 7).encode();
        bytes[NAME] = 2;
        assert_eq!(Hello::decode(&bytes), None);
    }

    #[test]
    fn hellos_are_as_they_were() {
        let hello = key(1).hello(Side::Acceptor, Direction::Back, 0x0102_0304);
        let answer = key(1).answer(&hello).expect("is ours");
        Fixture::new("lane-hello/1").bytes("hello", hello.encode()).bytes("answer", answer).check();
    }
}
