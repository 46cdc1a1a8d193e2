//! What members ask of each other beside consensus: to propose a client's commands, to remove a
//! member, to seal the group, and to hand leadership over.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::groups::{
    bonds::MAX_CALL,
    error::MAX_COMMAND,
    raft::{ClusterId, Index, Member, NodeId, SessionId, Unfit},
};

/// Bytes of commands in one batch, beyond which no further one is added.
pub(super) const BATCH_BYTES: usize = 512 << 10;
/// Commands in one batch.
pub(super) const BATCH_COMMANDS: usize = 1024;
/// Bytes of outputs in one response. What does not fit is left out; the asking member has it from its own machine.
pub(super) const RESPONSE_BYTES: usize = 1 << 20;

// A batch ends before the command that would exceed its bytes, unless it is the first; numbers take 40 bytes each.
const _: () = assert!(BATCH_BYTES + MAX_COMMAND + 40 * BATCH_COMMANDS < MAX_CALL && 2 * RESPONSE_BYTES < MAX_CALL);

/// A request to the member that is taken for the leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Propose these.
    Commands(Batch),
    /// Remove the member from the group.
    Remove(Member),
    /// End this version of the machine.
    Seal,
    /// Hand leadership to the voter on this node.
    Transfer(NodeId),
}

/// Commands of one session, in the order of their numbers; or the wish to open one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The cluster that the session belongs to: a leader of another one rejects the batch.
    pub cluster: ClusterId,
    /// The session.
    pub session: SessionId,
    /// Index of the entry that opened it; 0: it is to be opened, and there are no commands.
    pub opened: Index,
    /// All numbers below are settled.
    pub settled: u64,
    /// The number before the first, in the order of the session; 0 if the first is the lowest that is not settled. A leader
    /// that has not appended that one rejects, so commands enter the log in order.
    pub prior: u64,
    /// Answer as soon as all are in the leader's log.
    pub ack_on_append: bool,
    /// The commands.
    pub commands: Vec<Numbered>,
}

/// A body of commands with its number in the session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbered {
    /// The number, from 1.
    pub sequence: u64,
    /// Group time of the first attempt, milliseconds.
    pub attempted: u64,
    /// The encoded commands.
    pub body: Bytes,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// All have been applied by the leader, whose group time that was, milliseconds.
    Done(Vec<Done>, u64),
    /// All are in the leader's log; they may still be lost.
    Queued,
    /// None was appended.
    Rejected(Rejection),
    /// The member is not part of the group any more.
    Removed,
    /// Leadership is being handed over as asked, or why not.
    HandingOver(Option<Unfit>),
}

/// Why a batch was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rejection {
    /// The asked member does not lead.
    NotLeader,
    /// Too much waits already.
    Busy,
    /// The batch does not follow what this leader has appended.
    OutOfOrder,
    /// The request cannot be decoded.
    Unintelligible,
}

/// What became of one command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Its number; 0: the opening of the session.
    pub sequence: u64,
    /// Where it was applied. Of an opening: where the session was first opened.
    pub index: Index,
    /// How it ended.
    pub result: CommandResult,
}

/// The result of a committed command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandResult {
    /// Applied, now or earlier; this is the output.
    Output(Bytes),
    /// Applied, and the output was too large for the response.
    Elsewhere,
    /// The machine cannot decode the command.
    Undecodable,
    /// Older than the group remembers; perhaps applied.
    Expired,
    /// Given up by its session before it came to be applied.
    Settled,
    /// Not applied now: its session has ended. An earlier copy may have been.
    Ended,
    /// Not applied: too many unsettled ones before it.
    TooFar,
    /// The session is open.
    Opened,
    /// The session was not opened: the group has as many as it can hold.
    Full,
    /// Not applied: it is in an entry of a later term than it may be applied in.
    Fenced,
}

pub(in crate::groups) fn encode<T: Serialize>(value: &T) -> Bytes {
    // Encoding plain data into memory does not fail; an empty message would be rejected as unintelligible.
    postcard::to_allocvec(value).map(Bytes::from).unwrap_or_default()
}

pub(in crate::groups) fn decode_request(bytes: &[u8]) -> Option<Request> {
    postcard::from_bytes(bytes).ok()
}

pub(in crate::groups) fn decode_response(bytes: &[u8]) -> Option<Response> {
    postcard::from_bytes(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{groups::bonds::BondProtocol, network::Protocol, primitives::fixtures::Fixture};

    /// They are the bodies of a bond's calls and replies.
    #[test]
    fn messages_are_as_they_were() {
        let name = format!("{}-calls", BondProtocol::NAME);
        Fixture::new(name).postcard::<Request>().postcard::<Response>().check();
    }
}
