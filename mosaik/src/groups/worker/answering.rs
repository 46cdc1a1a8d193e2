//! [`Answering`]: the way back to whoever has asked this member for something: another member, or a client.

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::groups::bonds::Reply;

/// Dropped without an answer, the other side takes what it asked for as lost.
#[derive(Debug)]
#[must_use = "dropping it tells the other side that its request is lost"]
pub(super) enum Answering {
    Member(Reply),
    Client(oneshot::Sender<Bytes>),
}

impl Answering {
    /// Answers. Never blocks.
    pub fn send(self, body: Bytes) {
        match self {
            Self::Member(reply) => reply.send(body),
            // The client may have gone.
            Self::Client(answer) => _ = answer.send(body),
        }
    }
}
