//! What the members of the tests in `owned` send, 32 bytes an item, and how their consumers read it.

use std::time::Duration;

/// The network of the members and their consumers.
pub const NETWORK: &str = "owned in one building";
/// The stream.
pub const STREAM: &str = "feed";
/// What makes them a group.
pub const KEY: &str = "a key for a stream of a group";

/// Who sent an item, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// The sender's life: it has another one after each restart.
    pub life: u64,
    /// The how manieth item of this life it is, counted from 0.
    pub number: u64,
    /// When it was given to `send`, by the machine's wall clock.
    pub sent: Duration,
}

impl Item {
    /// As it is sent.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 32] {
        let sent = u64::try_from(self.sent.as_micros()).unwrap_or(u64::MAX);
        let mut bytes = [0; 32];
        for (field, at) in [self.life, self.number, sent].into_iter().zip(bytes.chunks_mut(8)) {
            at.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }

    /// Of what was received.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        let (fields, _) = bytes.as_chunks::<8>();
        let [life, number, sent] = [0, 1, 2].map(|at| u64::from_le_bytes(fields[at]));
        Self { life, number, sent: Duration::from_micros(sent) }
    }
}
