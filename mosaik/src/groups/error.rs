//! What can go wrong when a group is joined, called or left, in types that say what it means for the caller.

use std::{fmt, time::Duration};

use super::{
    raft::{ClusterId, Halt},
    snapshots::SnapshotError,
    status::WhyOffline,
    storage::StorageError,
};
use crate::primitives::PeerId;

/// Commands are at most this long when encoded, bytes.
pub const MAX_COMMAND: usize = 1 << 20;

/// What is known about a command that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was certainly not applied and never will be.
    None,
    /// It may have been applied, or may still be.
    Unknown,
}

/// Why a call of a group failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// Nothing was decided in time. The command was certainly not applied and never will be; a query has no effect anyway.
    #[error("not done within {waited:?}: {why}; it was not applied")]
    Timeout {
        /// The deadline of the call.
        waited: Duration,
        /// Why the group does not answer, as far as this member knows.
        why: Why,
    },
    /// The command reached a leader, and what became of it cannot be known: it may have been applied, or may still be.
    #[error("not known to be done within {waited:?}: {why}; it may have been applied")]
    Unknown {
        /// The deadline of the call.
        waited: Duration,
        /// Why the group does not answer, as far as this member knows.
        why: Why,
    },
    /// The encoded command is over [`MAX_COMMAND`].
    #[error("a command of {size} bytes is over the limit of {MAX_COMMAND} bytes")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
    },
    /// The command's or query's `Serialize` implementation failed.
    #[error("the command cannot be encoded: {0}")]
    Encode(String),
    /// The members could not decode the command: its `Serialize` and `Deserialize` do not fit each other. Not applied.
    #[error("the command cannot be decoded by the machine; it was not applied")]
    Undecodable,
    /// The command panicked when it was applied, which all members have contained: the machine is as if it had never come.
    #[error("the command panicked at index {index}; it was not applied")]
    Panicked {
        /// Its place in the log.
        index: u64,
    },
    /// The command was applied, but its output cannot be decoded here.
    #[error("the command was applied, but its output cannot be decoded: {0}")]
    UndecodableOutput(String),
    /// A query of a client could not be read by the member, panicked there, or its result is too long. It has no effect.
    #[error("the query failed at the member: {0}")]
    Query(String),
    /// The group has as many sessions as it can hold; each ends an hour after its last command. Not applied.
    #[error("the group has no room for another session; it was not applied")]
    SessionsFull,
    /// The command is older than the group remembers: it may have been applied.
    #[error("the command is older than the group remembers; it may have been applied")]
    Expired,
    /// The group is [sealed](super::Group::seal): this version of the machine takes no commands any more. Not applied.
    #[error("the group is sealed for the next version of its machine; the command was not applied")]
    Sealed,
    /// The command was sent under a [`Fence`](super::Fence), and that leadership was over before the command could be applied. Not
    /// applied.
    #[error("the leadership under which the command was sent is over; it was not applied")]
    Fenced,
    /// The local member has stopped before it took the command.
    #[error("the local member has stopped: {0}; it was not applied")]
    Stopped(StopReason),
    /// The local member stopped while the command was under way: it may have been applied.
    #[error("the local member has stopped: {0}; it may have been applied")]
    Interrupted(StopReason),
}

impl CallError {
    /// What is known about the command.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::Timeout { .. }
            | Self::TooLarge { .. }
            | Self::Encode(_)
            | Self::Undecodable
            | Self::Panicked { .. }
            | Self::SessionsFull
            | Self::Query(_)
            | Self::Sealed
            | Self::Fenced
            | Self::Stopped(_) => Outcome::None,
            Self::Unknown { .. } | Self::Expired | Self::Interrupted(_) | Self::UndecodableOutput(_) => {
                Outcome::Unknown
            }
        }
    }
}

/// The reason for a timeout in plain words.
#[derive(Clone, Debug)]
pub struct Why(pub(crate) Option<WhyOffline>);

impl Why {
    /// Why the local member was not online, if it was not.
    #[must_use]
    pub const fn offline(&self) -> Option<&WhyOffline> {
        self.0.as_ref()
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(why) => why.fmt(f),
            None => f.write_str("the group is slow"),
        }
    }
}

/// Why a local member does not run any more.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StopReason {
    /// The network was shut down, or its last handle dropped.
    #[error("the network is shut down")]
    Shutdown,
    /// It has left the group.
    #[error("it has left the group")]
    Left,
    /// Its storage failed. Nothing is lost that was acknowledged; restart it when the storage is in order.
    #[error("its storage failed: {0}")]
    Storage(#[from] StorageError),
    /// Two clusters of one key both hold user data; this is the smaller one, or as large. Decide which one goes on, and
    /// wipe the members of the other.
    #[error("another cluster of the same key ({0:?}) holds user data, too (split genesis)")]
    SplitGenesis(ClusterId),
    /// A forced recovery replaced this cluster. Wipe this member's storage; it then joins the new one.
    #[error("a forced recovery replaced this cluster by {0:?} (superseded)")]
    Superseded(ClusterId),
    /// The storage contradicts what the group has committed.
    #[error("its log contradicts what the group has committed, at index {index}: its storage is damaged")]
    Diverged {
        /// Where.
        index: u64,
    },
    /// The state machine panicked, or a snapshot could not be read back.
    #[error("its state machine failed: {0}")]
    Machine(String),
    /// A bug in mosaik.
    #[error("its worker ended unexpectedly; this is a bug in mosaik")]
    Bug,
}

impl From<Halt> for StopReason {
    fn from(halt: Halt) -> Self {
        match halt {
            Halt::Diverged { index } => Self::Diverged { index },
            Halt::SplitGenesis { other } => Self::SplitGenesis(other),
            Halt::Superseded { by } => Self::Superseded(by),
        }
    }
}

/// Why a group could not be joined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// This node is a member of that group already.
    #[error("this node is already a member of the group {name:?} with this key")]
    AlreadyJoined {
        /// The machine's name.
        name: &'static str,
    },
    /// The storage could not be opened or read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// What is stored was written by another machine, or by another version of this one.
    #[error("the storage holds {stored}, and this program runs {ours}: {remedy}")]
    Machine {
        /// What wrote it.
        stored: String,
        /// What this program runs.
        ours: String,
        /// What to do.
        remedy: String,
    },
    /// The state of an earlier version could not be taken over. Nothing was changed.
    #[error("{stored} cannot be taken over by {ours}: {error}")]
    Migration {
        /// What wrote it.
        stored: String,
        /// What this program runs.
        ours: String,
        /// What went wrong.
        error: SnapshotError,
    },
    /// The machine's first state cannot be encoded, or not be read back as it was: no snapshot of it would be any good.
    #[error("the first state of {machine} does not survive a snapshot: {error}")]
    Snapshot {
        /// The machine's Rust type.
        machine: &'static str,
        /// What went wrong.
        error: SnapshotError,
    },
    /// The network is shut down.
    #[error("the network is shut down")]
    Shutdown,
}

/// Why a group could not be sealed, or this member not take the snapshot that goes with it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The machine has no snapshots, so nothing could begin after the seal.
    #[error("the machine has no snapshots: the next version would have nothing to begin with")]
    NoSnapshots,
    /// The group is sealed, and this member cannot take the snapshot yet. It goes on trying.
    #[error("the group is sealed, but its snapshot cannot be taken here yet: {0}")]
    Snapshot(String),
    /// The seal was not committed and applied here in time. It may still be.
    #[error("not sealed within {waited:?}: {why}")]
    Timeout {
        /// The deadline.
        waited: Duration,
        /// Why the group does not answer.
        why: Why,
    },
    /// The local member does not run.
    #[error("the local member has stopped: {0}")]
    Stopped(StopReason),
}

/// Why a member could not leave its group.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaveError {
    /// Fewer voters than the group's floor would be left.
    #[error("the group has {voters} voters and must keep {floor}: add a member first, or force it")]
    BelowFloor {
        /// The voters now.
        voters: usize,
        /// The smallest number allowed.
        floor: usize,
    },
    /// The removal was not committed in time. The member is still part of the group.
    #[error("not removed within {waited:?}: {why}")]
    Timeout {
        /// The deadline.
        waited: Duration,
        /// Why the group does not answer.
        why: Why,
    },
    /// The local member does not run.
    #[error("the local member has stopped: {0}")]
    Stopped(StopReason),
}

/// Why leadership was not handed to a member. Nothing else has changed: who led goes on, or whoever is elected after it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// The leader knows no such member.
    #[error("{peer} is no member of the group")]
    NotMember {
        /// The target.
        peer: PeerId,
    },
    /// The target is a learner or an observer.
    #[error("{peer} is a member without a vote, so it cannot lead")]
    NoVote {
        /// The target.
        peer: PeerId,
    },
    /// The leader does not hear the target.
    #[error("the leader has not heard {peer} for {silence:?}")]
    Silent {
        /// The target.
        peer: PeerId,
        /// For how long.
        silence: Duration,
    },
    /// The target lacks part of the log. It goes on fetching it.
    #[error("{peer} still lacks {entries} entries of the log after {waited:?}")]
    Behind {
        /// The target.
        peer: PeerId,
        /// How many.
        entries: u64,
        /// How long it was waited for.
        waited: Duration,
    },
    /// Another member is fitter to lead, as [`LeaderPreference`](super::LeaderPreference) and readiness say, and would take
    /// leadership back at once.
    #[error("{by} is fitter to lead than {peer} and would take leadership back: change the preference of one of them")]
    Outranked {
        /// The target.
        peer: PeerId,
        /// Who is fitter.
        by: PeerId,
    },
    /// The target has all of the log and was asked to stand for election, and did not come to lead: it is cut off from the others,
    /// or its disk does not answer.
    #[error("{peer} was asked {attempts} times to stand for election and does not lead")]
    NotElected {
        /// The target.
        peer: PeerId,
        /// How often.
        attempts: u32,
    },
    /// No leader took the request in time.
    #[error("not handed over within {waited:?}: {why}")]
    Timeout {
        /// The deadline.
        waited: Duration,
        /// Why the group does not answer.
        why: Why,
    },
    /// The local member does not run.
    #[error("the local member has stopped: {0}")]
    Stopped(StopReason),
}
