//! The consensus engine of groups: Raft as a pure state machine, `step(input, now) -> outputs`.
//!
//! It owns no clock, no socket, no disk and no global randomness; the worker (or the simulator) feeds it [`Input`]s and
//! carries out its [`Output`]s in order. One rule governs all of it: who may vote, and whose acknowledgement counts, is a
//! function of the log alone. The protocol and every difference to textbook Raft are explained in
//! `docs/src/groups/consensus.md`. Rooms:
//!
//! `election` terms and votes; `leader` what only a leader does; `handover` how leadership moves; `replication` what a follower does with entries;
//! `read` strong reads; `change` membership and autopilot; `catchup` fetching from many; `snapshot` compaction;
//! `founding` how a cluster comes to be; `merge` what happens when two meet; `session` exactly-once; `machine` whose log it
//! is; `status` for displays.

mod catchup;
mod change;
mod clock;
mod election;
#[cfg(any(test, feature = "testing"))]
mod fingerprint;
mod founding;
mod handover;
mod io;
mod leader;
mod log;
mod machine;
mod marks;
mod membership;
mod merge;
mod message;
mod mutants;
mod outbox;
mod progress;
mod read;
mod recover;
mod replication;
mod session;
mod settings;
mod snapshot;
mod status;
mod types;

use std::collections::{BTreeMap, BTreeSet};

pub use clock::SKEW_LIMIT;
pub use founding::{Ballot, Founding};
pub use handover::{Fitness, Unfit};
pub use io::{Change, Contradiction, Halt, HardState, Input, Output, Proposal, Refusal, Snapshot, Stored, Write};
pub use log::Log;
pub use machine::MachineId;
pub use marks::{Extent, Mark, Marks, Stale, Start};
pub use membership::Membership;
pub use message::{Conflict, Envelope, Manifest, Message};
pub use mutants::{Mutant, Quirk, Switch};
pub use recover::recover;
pub use session::{Sessions, Verdict};
pub use settings::{Preference, Settings};
pub use status::{Fetching, FollowerStatus, FoundingStatus, Mode, Owed, Standing, Status};
pub use types::{
    ClusterId, Command, Digest, Entry, Index, Member, NodeId, Now, Payload, Position, SessionId, Term, Token,
};

use catchup::CatchUp;
use founding::Founder;
use leader::Leader;
use outbox::Outbox;
use read::Reads;
pub use snapshot::chunks;
use snapshot::{Install, Older};

/// Members whose contradictions are remembered.
const CONTRADICTED: usize = 16;
/// How long a contradiction is shown after it was last heard, microseconds.
const CONTRADICTED_FOR: u64 = 600_000_000;

/// What a member is at the moment.
#[derive(Clone, Debug)]
enum Role {
    Follower,
    /// Asking whether an election could succeed; the votes so far.
    PreCandidate(BTreeSet<Member>),
    /// Standing for election; the votes so far.
    Candidate(BTreeSet<Member>),
    Leader(Box<Leader>),
}

/// A peer of the same group key, whatever its cluster.
#[derive(Clone, Copy, Debug)]
struct Peer {
    member: Member,
    up: bool,
    /// When it last said anything, microseconds.
    heard: u64,
    /// When it last said that it was blank and would vote, microseconds.
    blank: Option<u64>,
    /// The cluster that it last spoke for.
    cluster: Option<ClusterId>,
}

/// One member's consensus engine.
#[derive(Clone, Debug)]
pub struct Raft {
    settings: Settings,
    random: u64,
    now: Now,
    me: Member,
    hard: HardState,
    log: Log,
    outbox: Outbox,
    role: Role,
    /// How fit this member says that it is to lead.
    fitness: Fitness,
    /// The leader of this term, if known.
    leader: Option<Member>,
    /// When the leader was last heard, microseconds.
    leader_heard: u64,
    /// When to campaign, microseconds.
    election_at: u64,
    /// Known to be equal to the log of this term's leader up to here.
    verified: Index,
    /// The last round of the leader that was answered with `acked`.
    round: u64,
    /// The last `matched` said to the leader.
    acked: Index,
    commit: Index,
    /// The highest commit index that a leader of this term named.
    leader_commit: Index,
    /// Given to the state machine.
    handed: Index,
    applied: Index,
    /// Clusters that this one has adopted, committed.
    adopted: Vec<ClusterId>,
    snapshot: Option<Snapshot>,
    reads: Reads,
    catching: Option<CatchUp>,
    installing: Option<Install>,
    /// When a chunk of the snapshot was last asked for, microseconds.
    fetched: Option<u64>,
    /// A snapshot before the present one, while it is being fetched.
    older: Option<Older>,
    peers: BTreeMap<NodeId, Peer>,
    founder: Founder,
    join_at: u64,
    /// The cluster dissolves into this one; a leader stays until then, so that the others learn of it.
    dissolving: Option<(ClusterId, u64)>,
    /// How far the own wall clock was ahead of the voters' median when the leader last told it, milliseconds.
    skew: Option<i64>,
    halted: Option<Halt>,
    /// What members said that cannot be, and when they last did, microseconds.
    contradicted: BTreeMap<NodeId, (Member, Contradiction, u64)>,
    /// When a leader last said that the group is full, microseconds, and how many members it has.
    full: Option<(u64, u32)>,
}

impl Raft {
    /// Starts a member from its storage. `me.incarnation` must be the one that the storage was created with; blank
    /// storage needs a new, higher one. `seed` must differ between members, or elections may tie for long.
    ///
    /// # Panics
    /// When `stored` contradicts itself: a storage layer must not hand that out.
    #[must_use]
    pub fn new(settings: Settings, me: Member, stored: Stored, seed: u64, now: Now) -> Self {
        let Stored { mut hard, founding, machine, snapshot, entries, .. } = stored;
        let blank = hard.incarnation == 0;
        assert!(blank || hard.incarnation == me.incarnation, "storage of another incarnation");
        hard.incarnation = me.incarnation;
        let (mut log, adopted, base) = match &snapshot {
            Some(Snapshot { manifest, .. }) => {
                (Log::resting(manifest), manifest.adopted.clone(), manifest.position.index)
            }
            None => (Log::empty(), Vec::new(), 0),
        };
        let root = log.last();
        assert!(log.verify(root, &entries), "storage gave back a broken chain");
        log.replace(&entries, base);
        log.loaded();
        let mut outbox = Outbox::new(me, &hard);
        outbox.now = now.mono;
        if blank {
            outbox.write_hard(Write::Hard(hard.clone()));
        }
        if let Some(ours) = &settings.machine
            && machine.as_ref() != Some(ours)
        {
            outbox.write(Write::Machine(ours.clone()));
            // The snapshot was made from an earlier version's. Both are written as one.
            if let Some(snapshot) = snapshot.as_ref().filter(|it| it.manifest.machine.as_ref() == Some(ours))
                && machine.is_some()
            {
                outbox.write(Write::Snapshot { snapshot: snapshot.clone(), keep: true });
            }
        }
        if let Some(snapshot) = &snapshot {
            outbox.put(Output::Restore(snapshot.clone()));
        }
        let mut raft = Self {
            founder: Founder::new(founding, now),
            random: seed ^ 0x9E37_79B9_7F4A_7C15,
            commit: base,
            leader_commit: base,
            handed: base,
            applied: if snapshot.is_some() { 0 } else { base },
            verified: base,
            acked: 0,
            round: 0,
            me,
            log,
            outbox,
            role: Role::Follower,
            fitness: settings.preference.into(),
            leader: None,
            leader_heard: 0,
            election_at: 0,
            adopted,
            snapshot,
            reads: Reads::default(),
            catching: None,
            installing: None,
            fetched: None,
            older: None,
            peers: BTreeMap::new(),
            join_at: 0,
            dissolving: None,
            skew: None,
            halted: None,
            contradicted: BTreeMap::new(),
            full: None,
            settings,
            now,
            hard,
        };
        raft.reset_election();
        let known = raft.hard.commit.min(raft.log.last().index);
        raft.commit_to(known);
        raft.verified = raft.commit;
        raft
    }

    /// Handles one event. `now.mono` that goes back counts as no time passed.
    pub fn step(&mut self, input: Input, now: Now) -> Vec<Output> {
        self.now = Now { mono: now.mono.max(self.now.mono), wall: now.wall };
        if let Role::Leader(leader) = &mut self.role {
            leader.clock.advance(self.now.mono, self.settings.election_max);
        }
        self.outbox.now = self.now.mono;
        match input {
            Input::Persisted { token } => self.on_persisted(token),
            Input::Applied { index } => self.on_applied(index),
            _ if self.halted.is_some() => self.when_halted(input),
            Input::Tick => self.on_tick(),
            Input::Message(envelope) => self.on_message(envelope),
            Input::Propose(proposals) => self.on_propose(proposals),
            Input::Read { id } => self.on_read(id),
            Input::PeerUp(member) => self.on_peer_up(member),
            Input::PeerDown(member) => self.on_peer_down(member),
            Input::Transfer { to } => self.on_transfer(to),
            Input::Fitness(fitness) => self.on_fitness(fitness),
            Input::Change(change) => self.on_change(change),
            Input::Seal => self.on_seal(),
            Input::Compact { index, data } => self.on_compact(index, data),
            Input::ReleaseBallot => self.release_ballot(),
        }
        self.hand_over();
        self.outbox.finish()
    }

    /// When the next `Tick` is due, in the microseconds of `Now::mono`.
    #[must_use]
    pub fn deadline(&self) -> u64 {
        match &self.role {
            Role::Leader(leader) => leader.heartbeat_at,
            _ => self.election_at.min(self.now.mono + self.settings.heartbeat),
        }
    }

    fn on_tick(&mut self) {
        if self.hard.cluster.is_none() {
            self.founding_tick();
        } else if matches!(self.role, Role::Leader(_)) {
            self.leader_tick();
        } else if self.now.mono >= self.election_at || self.odd(Quirk::EarlyElection) {
            self.on_silence();
        }
        self.dissolve();
        if self.halted.is_none() {
            self.catch_up_tick();
            self.install_tick();
            self.forget_older();
            self.join_tick();
            self.reads_tick();
        }
    }

    fn when_halted(&mut self, input: Input) {
        match input {
            Input::Propose(proposals) => {
                for Proposal { id, .. } in proposals {
                    self.outbox.put(Output::Refused { id, why: Refusal::NotLeader(None) });
                }
            }
            Input::Read { id } => self.outbox.put(Output::ReadFailed { id }),
            _ => {}
        }
    }

    fn on_persisted(&mut self, token: Token) {
        self.outbox.persisted(token);
        let grew = self.log.written(token);
        if self.halted.is_some() {
            return;
        }
        self.count_own_vote();
        self.founding_persisted();
        if grew {
            if matches!(self.role, Role::Leader(_)) {
                self.try_commit();
            } else {
                self.ack_durable();
            }
        }
    }

    fn on_applied(&mut self, index: Index) {
        debug_assert!(index <= self.handed, "the machine applied what it was never given");
        self.applied = self.applied.max(index);
        self.answer_reads();
    }

    /// Raises the commit index and does what committed entries ask of the core itself.
    fn commit_to(&mut self, index: Index) {
        debug_assert!(index <= self.log.last().index);
        if index <= self.commit {
            return;
        }
        let from = self.commit + 1;
        self.commit = index;
        self.hard.commit = index;
        let (mut bytes, mut yields) = (0, false);
        for at in from..=index {
            let Some(entry) = self.log.get(at) else { continue };
            bytes += entry.payload.size();
            match &entry.payload {
                Payload::Adopt(cluster) if !self.adopted.contains(cluster) => self.adopted.push(*cluster),
                Payload::Yield(into) => {
                    self.dissolving = Some((*into, self.now.mono + self.settings.silent));
                    yields = true;
                }
                _ => {}
            }
        }
        if let Role::Leader(leader) = &mut self.role {
            leader.waiting_bytes = leader.waiting_bytes.saturating_sub(bytes);
        }
        if yields {
            self.dissolve();
        }
    }

    /// The leader has told the voters' median wall clock, milliseconds; 0: it does not know.
    fn note_clock(&mut self, clock: u64) {
        if clock > 0 {
            let ahead = i128::from(self.now.wall) - i128::from(clock);
            self.skew = i64::try_from(ahead).ok();
        }
    }

    /// Gives committed entries to the state machine, as far as it keeps up.
    fn hand_over(&mut self) {
        if self.handed < self.commit && self.odd(Quirk::LazyMachine) {
            return;
        }
        while self.handed < self.commit && self.handed - self.applied < self.settings.applying {
            let entries =
                self.log.slice(self.handed + 1, self.commit, self.settings.append_entries, self.settings.append_bytes);
            let Some(last) = entries.last() else { break };
            self.handed = last.index;
            self.outbox.put(Output::Apply(entries));
        }
    }

    fn halt(&mut self, why: Halt) {
        if self.halted.is_none() {
            self.role = Role::Follower;
            self.halted = Some(why);
            self.outbox.put(Output::Halted(why));
        }
    }

    /// Whether storage owes an answer for too long. Nothing decides by it but this member's own wish to lead.
    fn hangs(&self) -> bool {
        self.outbox.silence() >= self.settings.hung
    }

    /// Whether so much waits for storage that nothing more may be added.
    fn is_full(&self) -> bool {
        let (batches, bytes) = self.outbox.owed();
        let full = batches >= self.settings.unwritten || bytes >= self.settings.unwritten_bytes;
        full && batches > 0 && !self.settings.switch.is(Mutant::UnwrittenUnbounded)
    }

    /// A member said what cannot be, unless somebody is a copy or was put back to an older state. It is named, and not believed.
    fn contradict(&mut self, by: Member, what: Contradiction) {
        let now = self.now.mono;
        let before = self.contradicted.insert(by.node, (by, what, now));
        if self.contradicted.len() > CONTRADICTED {
            let oldest = self.contradicted.iter().min_by_key(|(_, (_, _, at))| *at).map(|(node, _)| *node);
            oldest.and_then(|node| self.contradicted.remove(&node));
        }
        let again =
            |(_, was, at): (Member, Contradiction, u64)| was.kind() == what.kind() && now < at + CONTRADICTED_FOR;
        if !before.is_some_and(again) {
            self.outbox.put(Output::Contradicted { by, what });
        }
    }

    fn write_hard(&mut self) {
        self.outbox.cluster = self.hard.cluster;
        self.outbox.term = self.hard.term;
        self.outbox.write_hard(Write::Hard(self.hard.clone()));
    }

    /// Whether something odd, but allowed, happens here: only under simulation.
    fn odd(&mut self, quirk: Quirk) -> bool {
        let switch = self.settings.switch;
        switch.happens(quirk, || self.random())
    }

    /// SplitMix64: enough for jitter, and reproducible.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Changes what is planted, in the middle of a run.
    #[cfg(any(test, feature = "testing"))]
    pub const fn set_switch(&mut self, switch: Switch) {
        self.settings.switch = switch;
    }

    /// Who the member is.
    #[must_use]
    pub const fn me(&self) -> Member {
        self.me
    }

    /// The log.
    #[must_use]
    pub const fn log(&self) -> &Log {
        &self.log
    }

    /// The commit index.
    #[must_use]
    pub const fn commit(&self) -> Index {
        self.commit
    }

    /// The newest snapshot, as it will be when all writes are done.
    #[must_use]
    pub const fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref()
    }

    /// Whether the log takes no commands any more: it holds a seal, committed or not.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.log.has_seal() || self.snapshot.as_ref().is_some_and(|snapshot| snapshot.manifest.sealed)
    }

    /// Whether it has no commands after `index`, which a seal at or before it says.
    #[must_use]
    pub fn is_sealed_at(&self, index: Index) -> bool {
        self.log.has_seal_up_to(index) || self.snapshot.as_ref().is_some_and(|snapshot| snapshot.manifest.sealed)
    }

    /// The hard state, as it will be when all writes are done.
    #[must_use]
    pub const fn hard(&self) -> &HardState {
        &self.hard
    }

    /// The founding record.
    #[must_use]
    pub const fn founding(&self) -> &Founding {
        &self.founder.record
    }
}
