//! What the outside sees of a member: the [`Board`], written by the worker alone and read by every handle.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use super::{Worker, busy::Busy};
use crate::{
    groups::{
        bonds::Refusal,
        error::{StopReason, Why},
        health::{MachineStatus, SnapshotFailure},
        raft::{Index, Member, Preference},
        status::{self, Contradicted, Facts, GroupStatus, Role, Skew, WhyOffline, peer_of},
    },
    primitives::{GroupId, PeerId, watch},
};

/// How long a refusal explains why a member is not online; refused members try again every 5 s.
const FRESH: Duration = Duration::from_secs(12);

/// Where a member's state is shown.
pub(in crate::groups) struct Board {
    group: GroupId,
    facts: watch::Sender<Facts>,
    status: watch::Sender<GroupStatus>,
}

impl Board {
    pub fn new(group: GroupId, me: PeerId, compacts: bool) -> Self {
        Self {
            group,
            facts: watch::Sender::new(Facts::default()),
            status: watch::Sender::new(GroupStatus::new(me, compacts)),
        }
    }

    pub const fn group(&self) -> GroupId {
        self.group
    }

    pub fn facts(&self) -> Facts {
        *self.facts.borrow()
    }

    pub fn watch_facts(&self) -> watch::Receiver<Facts> {
        self.facts.subscribe()
    }

    pub fn status(&self) -> GroupStatus {
        let facts = self.facts();
        let mut status = self.status.borrow().clone();
        (status.committed, status.log_position) = (facts.applied, facts.last);
        status
    }

    pub fn watch_status(&self) -> watch::Receiver<GroupStatus> {
        self.status.subscribe()
    }

    /// Why nothing is decided at the moment.
    pub fn why(&self) -> Why {
        Why(self.status.borrow().why.clone())
    }

    /// The worker has ended.
    pub(super) fn stopped(&self, why: StopReason) {
        self.facts.send_modify(|facts| {
            (facts.leader, facts.is_leader, facts.leads, facts.is_follower) = (None, false, false, false);
            (facts.online, facts.has_quorum, facts.bonds) = (false, false, 0);
        });
        self.status.send_modify(|status| {
            (status.leader, status.has_quorum, status.bonds) = (None, false, 0);
            if status.role == Role::Leader {
                status.role = Role::Follower;
            }
            status.why = Some(WhyOffline::Stopped(why));
        });
    }
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Board").field("group", &self.group).field("facts", &self.facts()).finish_non_exhaustive()
    }
}

/// What the worker remembers of what it has shown.
#[derive(Debug)]
pub(super) struct Publish {
    compacts: bool,
    machine: MachineStatus,
    busy: Arc<Busy>,
    applied: Index,
    /// When the status is due again, in the core's time.
    status_at: u64,
    shown: Facts,
}

impl Publish {
    pub fn new(compacts: bool, busy: Arc<Busy>) -> Self {
        let machine = MachineStatus::default();
        Self { compacts, machine, busy, applied: 0, status_at: 0, shown: Facts::default() }
    }

    /// A snapshot was taken.
    pub fn captured(&mut self, index: Index, varies: bool) {
        self.machine.varies |= varies;
        self.restored(index);
    }

    /// A snapshot took the place of the machine.
    pub fn restored(&mut self, index: Index) {
        (self.machine.snapshot, self.machine.failure) = (Some(index), None);
    }

    /// A snapshot was not taken.
    pub fn not_captured(&mut self, index: Index, why: String) {
        self.machine.failures += 1;
        self.machine.failure = Some(SnapshotFailure { index, why });
    }

    /// A durable snapshot of the seal is here.
    pub const fn sealed(&mut self, index: Index) {
        self.machine.sealed = Some(index);
    }

    /// Why there is no snapshot.
    pub fn snapshot_failure(&self) -> Option<&str> {
        self.machine.failure.as_ref().map(SnapshotFailure::why)
    }

    /// So many commands of an entry panicked.
    pub const fn panicked(&mut self, index: Index, commands: u64) {
        self.machine.panics += commands;
        self.machine.panicked = Some(index);
    }

    /// Shown at once, before anybody is told that a command is done.
    pub fn applied(&mut self, index: Index, board: &Board) {
        if index > self.applied {
            self.applied = index;
            self.shown.applied = index;
            board.facts.send_modify(|facts| facts.applied = index);
        }
    }
}

impl Worker {
    /// Follows the core: leadership, cluster, and what is shown.
    pub(super) fn note(&mut self) {
        let led = self.raft.is_leader().then(|| self.raft.term());
        if self.led != led {
            self.led = led;
            self.router.clear();
            self.removals_lost();
        }
        let cluster = self.raft.cluster();
        if self.cluster != cluster {
            self.cluster = cluster;
            self.bonds.set_cluster(cluster);
        }
        self.show();
    }

    fn show(&mut self) {
        let (leader, is_leader) = (self.raft.leader(), self.raft.is_leader());
        let (term, applied) = (self.raft.term(), self.publish.applied);
        let old = self.publish.shown;
        let mut new = Facts {
            applied,
            last: self.raft.log().last().index,
            term,
            leader,
            is_leader,
            leads: is_leader && self.raft.log().at(applied).is_some_and(|last| last.term == term),
            is_follower: leader.is_some() && !is_leader,
            bonds: self.bonds.watch().borrow().len(),
            cluster: self.raft.cluster(),
            sealed: self.publish.machine.sealed.is_some(),
            ..old
        };
        let now = self.now().mono;
        let same = (old.term, old.leader, old.bonds) == (new.term, new.leader, new.bonds) && old.online;
        if !same || now >= self.publish.status_at {
            self.publish.status_at = now + self.settings.heartbeat;
            let status = self.status(new);
            (new.online, new.has_quorum) = (status.is_online(), status.has_quorum);
            self.board.status.send_if_modified(|shown| {
                let differs = status.differs(shown);
                if differs {
                    log(shown, &status, self.board.group);
                }
                *shown = status;
                differs
            });
        }
        if new != old {
            self.publish.shown = new;
            self.board.facts.send_replace(new);
        }
    }

    fn status(&self, facts: Facts) -> GroupStatus {
        let mut core = self.raft.status();
        if let Some(waited) = self.marking.waits_for_start() {
            // The core does not know of that write. Until it is done nobody is met.
            core.storage.silence = core.storage.silence.max(u64::try_from(waited.as_micros()).unwrap_or(u64::MAX));
            core.storage.hangs |= core.storage.silence >= self.settings.hung;
        }
        let peers = self.bonds.peers();
        let reborn = core.membership.as_ref().map_or(0, |membership| {
            let gone = |voter: &&_| {
                let voter: &Member = voter;
                let same = |member: &Member| member.node == voter.node;
                let peer = peers.iter().map(|peer| peer.member).find(same);
                let newer = peer.or_else(|| Some(core.me).filter(same));
                newer.is_some_and(|newer| newer.incarnation > voter.incarnation)
            };
            membership.voters.iter().filter(gone).count()
        });
        let mut refusals = self.bonds.refusals();
        refusals.retain(|refused| refused.at.elapsed() < FRESH);
        let copied = refusals.iter().any(|it| it.peer == self.node.id() && it.reason == Refusal::SecondStart);
        let mut why = status::why(&core, self.settings.caught_up, self.settings.volatile, reborn);
        if why.is_some() && core.leader.is_none() && core.halted.is_none() && !refusals.is_empty() {
            why = Some(WhyOffline::Refused(refusals));
        }
        let micros = Duration::from_micros;
        let (voters, floor) = core.membership.as_ref().map_or((0, 0), |it| (it.voters.len(), it.floor()));
        let joint = core.membership.as_ref().is_some_and(|it| it.outgoing.is_some());
        GroupStatus {
            me: self.node.id(),
            role: status::role(&core, self.settings.preference == Preference::Observer),
            leader: core.leader.and_then(|leader| peer_of(leader.node)),
            term: core.term,
            committed: facts.applied,
            log_position: facts.last,
            cluster: core.cluster,
            members: status::members(&core).into(),
            voters,
            floor,
            settled: core.membership_committed && !joint,
            has_quorum: core.has_quorum,
            bonds: facts.bonds,
            dropped: self.bonds.dropped(),
            compacts: self.publish.compacts,
            machine: MachineStatus { long: self.publish.busy.long(), ..self.publish.machine.clone() },
            storage_silence: (core.storage.silence > 0).then(|| micros(core.storage.silence)),
            storage_hangs: core.storage.hangs,
            unwritten: (core.storage.batches, core.storage.bytes),
            full: core.is_leader && core.full.is_some(),
            contradictions: core.contradicted.iter().filter_map(|(by, what)| Contradicted::new(*by, *what)).collect(),
            copied,
            preference: self.standing.preference(),
            ready: self.standing.is_ready(),
            why,
        }
    }
}

fn log(old: &GroupStatus, new: &GroupStatus, group: GroupId) {
    if old.leader != new.leader || old.role != new.role {
        tracing::debug!(?group, role = %new.role, leader = ?new.leader, term = new.term, "leadership");
    }
    let skewed =
        |status: &GroupStatus| status.members().iter().filter_map(|it| Some((it.id(), it.clock_skew()?))).collect();
    let before: BTreeMap<PeerId, i64> = skewed(old);
    for (member, skew) in skewed(new) {
        if !before.contains_key(&member) {
            tracing::warn!(?group, ?member, "{}: the group does not depend on it", Skew(skew));
        }
    }
    if old.why_kind() != new.why_kind() {
        let why = new.why_offline().map(ToString::to_string);
        tracing::debug!(?group, why = why.as_deref().unwrap_or("online"), "state of the local member");
    }
    if old.storage_hangs != new.storage_hangs {
        if new.storage_hangs {
            let (batches, bytes) = new.unwritten;
            tracing::warn!(
                ?group,
                batches,
                bytes,
                "its disk does not answer: the local member does not lead until it does"
            );
        } else {
            tracing::info!(?group, "its disk answers again");
        }
    }
    if new.full && !old.full {
        tracing::warn!(?group, members = new.members.len(), "the group is full: no further member is taken in");
    }
}
