//! Every constant of the core, with what it trades.

use super::{machine::MachineId, mutants::Switch};

/// What a member is willing to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preference {
    /// May lead.
    #[default]
    Normal,
    /// Votes, but campaigns only when nobody else does.
    Reluctant,
    /// Is replicated to and never votes.
    Observer,
}

/// Settings of one member. Those marked *agreed* must be equal at all members; the bond handshake compares them.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Between heartbeats, microseconds (*agreed*). Shorter: faster detection, more messages.
    pub heartbeat: u64,
    /// Shortest silence before an election, microseconds (*agreed*). At least three heartbeats.
    pub election_min: u64,
    /// Longest silence before an election, microseconds (*agreed*).
    pub election_max: u64,
    /// Entries per message.
    pub append_entries: usize,
    /// Payload bytes per message.
    pub append_bytes: usize,
    /// Messages under way to one follower.
    pub inflight: usize,
    /// Payload bytes under way to one follower.
    pub inflight_bytes: usize,
    /// Entries waiting for commit at the leader, beyond which proposals are refused as busy.
    pub uncommitted: u64,
    /// Payload bytes waiting for commit at the leader, beyond which proposals are refused as busy.
    pub uncommitted_bytes: usize,
    /// Batches that storage has not answered, beyond which a leader refuses proposals as busy and a follower takes no
    /// entries. More hides a slow disk for longer and costs memory.
    pub unwritten: usize,
    /// Their bytes, with the same effect.
    pub unwritten_bytes: usize,
    /// Storage that owes an answer and has given none for so long hangs, microseconds: the member gives leadership up and
    /// stands for no election until an answer comes. Shorter: faster fail-over, but a hiccup of the device costs an election.
    pub hung: u64,
    /// Strong reads waiting at one member.
    pub reads: usize,
    /// Entries handed to the state machine and not yet reported applied.
    pub applying: u64,
    /// A follower this many entries behind fetches from several members. Smaller: less load on the leader.
    pub catch_up: u64,
    /// Entries fetched in one go; bounds the memory of a catch-up.
    pub catch_up_window: u64,
    /// Entries per fetch request.
    pub pull_entries: u64,
    /// Entries kept in memory behind a compaction, so that a follower that lags a little needs no snapshot.
    pub tail: u64,
    /// Payload bytes kept in memory behind a compaction.
    pub tail_bytes: usize,
    /// Payload bytes of log kept in memory behind a compaction for a member that fetches an older snapshot; beyond it that
    /// snapshot is too old, and the member begins again with the newest.
    pub fetch_bytes: usize,
    /// Bytes per snapshot chunk.
    pub chunk: usize,
    /// Founders that must agree (*agreed*); 0: undeclared.
    pub declared: u32,
    /// Wait for reachable candidates before founding, microseconds.
    pub founding_delay: u64,
    /// Voters that the autopilot grows to (*agreed*). Odd.
    pub target_voters: usize,
    /// Silence, or lag beyond `caught_up`, after which a voter may lose its vote to a learner, microseconds. Silence after which
    /// a learner or observer makes room for a new member when the group is full.
    pub silent: u64,
    /// Entries behind the commit index within which a member counts as caught up.
    pub caught_up: u64,
    /// Peers remembered, and members of a group at most.
    pub peers: usize,
    /// Storage does not survive a restart.
    pub volatile: bool,
    /// What this member is willing to be.
    pub preference: Preference,
    /// Which machine the log is of, for storage and snapshots (*agreed*, by name and version).
    pub machine: Option<MachineId>,
    /// A planted bug or oddities; only with feature `testing`.
    pub switch: Switch,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            heartbeat: 100_000,
            election_min: 500_000,
            election_max: 1_000_000,
            append_entries: 1024,
            append_bytes: 512 << 10,
            inflight: 64,
            inflight_bytes: 16 << 20,
            uncommitted: 65_536,
            uncommitted_bytes: 64 << 20,
            unwritten: 16_384,
            unwritten_bytes: 64 << 20,
            hung: 2_000_000,
            reads: 4096,
            applying: 65_536,
            catch_up: 4096,
            catch_up_window: 16_384,
            pull_entries: 1024,
            tail: 4096,
            tail_bytes: 8 << 20,
            fetch_bytes: 64 << 20,
            chunk: 256 << 10,
            declared: 0,
            founding_delay: 1_000_000,
            target_voters: 5,
            silent: 30_000_000,
            caught_up: 1024,
            peers: 256,
            volatile: false,
            preference: Preference::Normal,
            machine: None,
            switch: Switch::default(),
        }
    }
}
