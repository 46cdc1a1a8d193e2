//! What members say to each other. Pure data; the worker encodes it.
//!
//! Every message names both ends by incarnation, so that nothing said to or by a dead life of a storage counts.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    founding::Ballot,
    handover::Fitness,
    machine::MachineId,
    membership::Membership,
    types::{ClusterId, Digest, Entry, Index, Member, Position, Term},
};

/// A message with its ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Who speaks.
    pub from: Member,
    /// Who is meant. Another incarnation of the same node must not act on it.
    pub to: Member,
    /// The speaker's cluster; none while it is blank.
    pub cluster: Option<ClusterId>,
    /// The speaker's current term.
    pub term: Term,
    /// What is said.
    pub body: Message,
}

/// What a follower suggests after a mismatch: its last position at or below the asked one that may match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// The suggested index.
    pub index: Index,
    /// The term of the follower's entry there.
    pub term: Term,
}

/// The contents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Would you vote for me in `term`? Changes nothing at either side.
    PreVote { term: Term, last: Position },
    /// The answer, for the asked term.
    PreVoteReply { term: Term, granted: bool },
    /// Vote for me. `transfer`: the leader asked for it, so its lease on your patience does not count.
    Vote { last: Position, transfer: bool },
    /// The answer.
    VoteReply { granted: bool },
    /// Entries after `previous`, or just a heartbeat. `clock`: the voters' median wall clock, milliseconds; 0 if unknown.
    Append { previous: Position, entries: Vec<Entry>, commit: Index, round: u64, clock: u64 },
    /// Durable and verified up to `matched`. `asked` is the index of the `previous` that this answers, and
    /// `conflict` says that it did not match. `wall`: the follower's wall clock, milliseconds. `fitness`: to lead.
    AppendReply {
        matched: Index,
        asked: Option<Index>,
        conflict: Option<Conflict>,
        round: u64,
        wall: u64,
        fitness: Fitness,
    },
    /// You are far behind: fetch up to `target` from these members.
    CatchUp { target: Position, sources: Vec<Member>, commit: Index, round: u64 },
    /// Send me committed entries of this range.
    Pull { from: Index, to: Index },
    /// Committed entries, from `from` on; fewer than asked if the responder has not committed all of them.
    Pulled { from: Index, entries: Vec<Entry>, commit: Index },
    /// The entries you need are compacted: this snapshot stands for them.
    Offer { manifest: Box<Manifest>, round: u64 },
    /// Send me one chunk.
    PullChunk { snapshot: Digest, chunk: u32 },
    /// One chunk.
    Chunk { snapshot: Digest, chunk: u32, data: Bytes },
    /// Start an election now; your log is complete.
    TimeoutNow,
    /// What index must a strong read wait for?
    ReadIndex { id: u64 },
    /// That index, or none if the asked member cannot say.
    ReadIndexReply { id: u64, index: Option<Index> },
    /// Take me in. Also says "I am alive and blank" to other blank nodes.
    Join { observer: bool },
    /// Answer to a `Join`: there is a cluster here.
    Present,
    /// A founding proposal.
    Propose { ballot: Ballot },
    /// Durably accepted.
    Accepted { ballot: Digest },
    /// Durably refused: the speaker will never accept this ballot.
    Refused { ballot: Ballot },
    /// Durably given up by its proposer.
    Abandoned { ballot: Ballot },
    /// All accepted: the cluster exists.
    Founded { ballot: Ballot },
    /// How does this ballot stand?
    Inquire { ballot: Ballot },
    /// A leader tells foreign clusters about its own.
    Census { peak: u32, user: bool, adopted: Vec<ClusterId>, ancestors: Vec<ClusterId> },
    /// Answer of a leader to a `Join`: the group has so many members, none of them is long silent, and no more fit.
    Full { members: u32 },
}

impl Message {
    /// Whether its receiver may have to write something to act on it.
    pub(super) fn asks_for_writes(&self) -> bool {
        match self {
            Self::Append { entries, .. } => !entries.is_empty(),
            Self::Vote { .. }
            | Self::CatchUp { .. }
            | Self::Pulled { .. }
            | Self::Offer { .. }
            | Self::Chunk { .. }
            | Self::TimeoutNow
            | Self::Propose { .. }
            | Self::Accepted { .. }
            | Self::Refused { .. }
            | Self::Abandoned { .. }
            | Self::Founded { .. }
            | Self::Inquire { .. } => true,
            Self::PreVote { .. }
            | Self::PreVoteReply { .. }
            | Self::VoteReply { .. }
            | Self::AppendReply { .. }
            | Self::Pull { .. }
            | Self::PullChunk { .. }
            | Self::ReadIndex { .. }
            | Self::ReadIndexReply { .. }
            | Self::Join { .. }
            | Self::Present
            | Self::Census { .. }
            | Self::Full { .. } => false,
        }
    }
}

/// Describes a snapshot so that its pieces can be verified one by one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The last entry that it stands for.
    pub position: Position,
    /// Group time there, milliseconds.
    pub time: u64,
    /// Civil time there, milliseconds since the Unix epoch.
    pub civil: u64,
    /// Whether user entries lie at or below it.
    pub user: bool,
    /// The configuration there.
    pub membership: Membership,
    /// Clusters adopted up to there.
    pub adopted: Vec<ClusterId>,
    /// The digest of each chunk.
    pub chunks: Vec<Digest>,
    /// Whose state it is.
    pub machine: Option<MachineId>,
    /// No command stands after it in the log of this version of the machine, and none will: the next version may begin here.
    pub sealed: bool,
}

impl Manifest {
    /// Its name: position and chunks decide the rest.
    #[must_use]
    pub fn id(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.position.hash.0).update(&self.position.index.to_le_bytes());
        for chunk in &self.chunks {
            hasher.update(&chunk.0);
        }
        Digest(*hasher.finalize().as_bytes())
    }
}
