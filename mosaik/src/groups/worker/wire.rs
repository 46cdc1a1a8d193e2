//! What members ask of each other beside consensus: to propose a client's commands, and to remove a member.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::groups::{
    bonds::MAX_CALL,
    error::MAX_COMMAND,
    raft::{Index, Member, SessionId},
};

/// Bytes of commands in one batch, beyond which no further one is added.
pub(super) const BATCH_BYTES: usize = 512 << 10;
/// Commands in one batch.
pub(super) const BATCH_COMMANDS: usize = 1024;
/// Bytes of outputs in one reply. What does not fit is left out; the asking member has it from its own machine.
pub(super) const REPLY_BYTES: usize = 1 << 20;

// A batch ends before the command that would exceed its bytes, unless it is the first; numbers take 40 bytes each.
const _: () = assert!(BATCH_BYTES + MAX_COMMAND + 40 * BATCH_COMMANDS < MAX_CALL && 2 * REPLY_BYTES < MAX_CALL);

/// A request to the member that is taken for the leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Request {
    Commands(Batch),
    /// Remove the member from the group.
    Remove(Member),
}

/// Commands of one session, in the order of their numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Batch {
    pub session: SessionId,
    /// The session may not be open yet.
    pub open: bool,
    /// All numbers below are settled.
    pub settled: u64,
    /// The number before the first, in the order of the session; 0 if the first is the lowest that is not settled. A leader
    /// that has not appended that one refuses, so commands enter the log in order.
    pub prior: u64,
    /// Answer as soon as all are in the leader's log.
    pub hasty: bool,
    pub commands: Vec<Numbered>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Numbered {
    pub sequence: u64,
    /// Wall time of the first attempt, milliseconds.
    pub attempted: u64,
    pub body: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Reply {
    /// All have been applied by the leader.
    Done(Vec<Done>),
    /// All are in the leader's log; they may still be lost.
    Queued,
    /// None was appended.
    Refused(No),
    /// The member is not part of the group any more.
    Removed,
}

/// Why a batch was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum No {
    NotLeader,
    Busy,
    /// The batch does not follow what this leader has appended.
    OutOfOrder,
    /// The request cannot be decoded.
    Unintelligible,
}

/// What became of one command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Done {
    pub sequence: u64,
    pub index: Index,
    pub result: Ran,
}

/// The result of a committed command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Ran {
    /// Applied, now or earlier; this is the output.
    Output(Bytes),
    /// Applied, and the output was too large for the reply.
    Elsewhere,
    /// The machine cannot decode the command.
    Undecodable,
    /// Older than the group remembers; perhaps applied.
    Expired,
    /// Given up by its session before it came to be applied.
    Settled,
    /// Not applied: no such session.
    NoSession,
    /// Not applied: too many unsettled ones before it.
    TooFar,
}

pub(super) fn encode<T: Serialize>(value: &T) -> Bytes {
    // Encoding plain data into memory does not fail; an empty message would be refused as unintelligible.
    postcard::to_allocvec(value).map(Bytes::from).unwrap_or_default()
}
