//! What goes into a step and what comes out: the whole contract between the core and the worker (or the simulator).
//!
//! Duties of the worker: complete storage batches in order, each atomically; deliver outputs in order; hand no input
//! of a dead life to the core of a new one; give every life of a storage its own, higher incarnation.

use serde::{Deserialize, Serialize};

use super::{
    founding::Founding,
    handover::Fitness,
    machine::MachineId,
    marks::Marks,
    message::{Envelope, Manifest},
    types::{ClusterId, Entry, Index, Member, Payload, Term, Token},
};
use bytes::Bytes;

/// An event for the core.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time has passed. At least at [`super::Raft::deadline`]; more often does no harm.
    Tick,
    /// A message arrived.
    Message(Envelope),
    /// Append these to the log. Answered per proposal by `Queued` or `Refused`.
    Propose(Vec<Proposal>),
    /// A strong read. Answered by `ReadReady` or `ReadFailed`.
    Read { id: u64 },
    /// All storage batches up to the token are durable.
    Persisted { token: Token },
    /// The state machine has applied everything up to the index.
    Applied { index: Index },
    /// An authenticated link to the member is up; proves older incarnations of its node dead.
    PeerUp(Member),
    /// The link is gone.
    PeerDown(Member),
    /// Hand leadership over, to the member or to the best one.
    Transfer { to: Option<Member> },
    /// The member says how fit it is to lead from now on; after a start it is what [`super::Settings::preference`] says.
    Fitness(Fitness),
    /// An operator's change of the voters; refused silently unless leader, legal and nothing else is under way.
    Change(Change),
    /// An operator ends the log of this version of the machine: no command is taken after the seal. Ignored unless leader.
    Seal,
    /// The state machine's snapshot at an applied index: the log up to there may go.
    Compact { index: Index, data: Bytes },
    /// An operator says that the proposer of the accepted founding ballot is gone for good, and that no member belongs to the
    /// cluster that it may have founded.
    ReleaseBallot,
}

/// A change of the configuration, relative to the one in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Make the learner or observer a voter. Ignored while it is silent or has not caught up.
    Promote(Member),
    /// Make the voter an observer: it is still replicated to, and the autopilot never makes it a voter again.
    Demote(Member),
    /// Remove the member.
    Remove(Member),
    /// Put a learner in the place of a voter, which leaves. Ignored while the learner is silent or has not caught up.
    Swap { out: Member, into: Member },
}

/// One entry to append.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// The caller's handle, echoed.
    pub id: u64,
    /// What to append: `Open` or `Command`.
    pub payload: Payload,
}

/// Why a proposal was not queued. Nothing was appended, so the outcome is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not the leader; perhaps this one is.
    NotLeader(Option<Member>),
    /// Too much is waiting for commit.
    Busy,
    /// Leadership is being handed over, or the cluster dissolves.
    Leaving,
    /// The log is sealed: it takes no commands any more.
    Sealed,
}

/// Why a member stopped for good. Its storage stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Halt {
    /// Storage contradicts what is committed elsewhere: corruption or a bug.
    Diverged { index: Index },
    /// Two clusters of one key both hold user data, and this is the smaller one.
    SplitGenesis { other: ClusterId },
    /// A forced recovery replaced this cluster.
    Superseded { by: ClusterId },
}

/// What no member says whose storage is its own and was never put back to an older state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contradiction {
    /// It leads in a term in which another member leads: some voter has voted twice.
    SecondLeader {
        /// The term.
        term: Term,
        /// Who leads, as far as this member knows.
        first: Member,
    },
    /// It acknowledges entries that its leader never had.
    BeyondTheEnd {
        /// What it acknowledges.
        matched: Index,
        /// The end of the leader's log.
        last: Index,
    },
}

impl Contradiction {
    pub(super) const fn kind(self) -> u8 {
        match self {
            Self::SecondLeader { .. } => 0,
            Self::BeyondTheEnd { .. } => 1,
        }
    }
}

/// Something to do, in order.
#[derive(Clone, Debug)]
pub enum Output {
    /// Make these durable, atomically and after all earlier tokens; then say `Persisted`.
    Persist { token: Token, writes: Vec<Write> },
    /// Send; what it reveals is already durable. May be lost.
    Send(Envelope),
    /// Apply these committed entries; then say `Applied`.
    Apply(Vec<Entry>),
    /// Replace the state machine by this snapshot; then say `Applied`.
    Restore(Snapshot),
    /// The local machine now reflects everything a strong read must see; answer it from `index` or later.
    ReadReady { id: u64, index: Index },
    /// Ask again: no leader, or leadership was lost.
    ReadFailed { id: u64 },
    /// The proposal has a place. It may still be lost: only its application says otherwise.
    Queued { id: u64, index: Index, term: Term },
    /// The proposal was not appended.
    Refused { id: u64, why: Refusal },
    /// Dissolved into another cluster: discard all storage and begin blank, as a new incarnation. What follows this
    /// output does not matter any more.
    Wipe { into: ClusterId },
    /// The member has stopped for good.
    Halted(Halt),
    /// A member said what cannot be, and was not believed; said again after a while if it goes on. For the operator.
    Contradicted { by: Member, what: Contradiction },
}

/// One storage write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Replace the hard state.
    Hard(HardState),
    /// Replace the founding record.
    Founding(Founding),
    /// Say which machine all of this is of.
    Machine(MachineId),
    /// Drop everything from the first entry's index on and append these, atomically.
    Replace(Vec<Entry>),
    /// Replace the snapshot; drop the entries that it stands for, and all others too unless `keep`.
    Snapshot { snapshot: Snapshot, keep: bool },
    /// Replace the marks; the core neither writes nor reads them.
    Marks(Marks),
}

/// What a member must never forget.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardState {
    /// The cluster that it belongs to.
    pub cluster: Option<ClusterId>,
    /// The life of this storage.
    pub incarnation: u64,
    /// The highest term seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub voted: Option<Member>,
    /// A commit index that was true at some time; only a head start.
    pub commit: Index,
}

/// A state machine at one point of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// What it stands for.
    pub manifest: Manifest,
    /// The state machine's bytes, session table included.
    pub data: Bytes,
}

/// All that storage gives back at start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// The hard state.
    pub hard: HardState,
    /// The founding record.
    pub founding: Founding,
    /// Which machine all of this is of; none in a blank storage.
    pub machine: Option<MachineId>,
    /// The start of the storage and the marks of other members; for the worker.
    pub marks: Marks,
    /// The newest snapshot.
    pub snapshot: Option<Snapshot>,
    /// The entries after it, contiguous.
    pub entries: Vec<Entry>,
}
