//! Who should be bonded, who is, and what to do about the difference: the decisions of a group's bonds, without any IO.
//!
//! **One bond per pair.** The member with the lower id dials at once, the other one a moment later. When two links of one
//! pair meet nevertheless, both ends choose the same one by looking only at what both know: a peer's new session replaces
//! its old one; a link whose dialler says that it has lost the present bond replaces it; of two dials of one side the later
//! counts; of two that crossed, that of the lower id. A dialler that holds a bond by then gives its dial up.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use iroh::EndpointAddr;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::time::Instant;

use super::{
    super::raft::{ClusterId, Member, NodeId},
    bond::Bond,
    handshake::{Hello, Refusal},
};
use crate::{
    discovery::{Catalog, PeerEntry},
    primitives::{GroupId, PeerId},
};

/// Members that are looked for or bonded.
const MAX_PEERS: usize = 256;
/// Refusals that are remembered.
const MAX_REFUSALS: usize = 64;
/// The higher id waits so long for the lower one to dial, and a little more at random.
const YIELD: Duration = Duration::from_millis(100);
/// Pauses between attempts.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// The pause after a refusal: somebody must change something first, and then the catalog mostly tells.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);
/// A bond that lived for so long was a good one: the next attempt is made without a pause.
const PROVEN_GOOD: Duration = Duration::from_secs(5);

/// A refusal as an operator sees it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Refused {
    /// The other node.
    pub peer: PeerId,
    /// Why.
    pub reason: Refusal,
    /// Whether the other node said so; otherwise this one did.
    pub by_peer: bool,
    /// When it last happened.
    pub at: Instant,
    /// How often it has happened.
    pub count: u64,
}

/// What came of a dial.
#[derive(Debug)]
pub(super) enum Outcome {
    Bonded,
    /// The pair has a bond already, or is about to.
    Duplicate,
    Refused,
    Failed,
}

/// Why a proven link does not become the bond.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotAdmitted {
    Duplicate,
    OldIncarnation,
    /// The local identity has changed or the group is over.
    Over,
}

/// A dial to make.
pub(super) struct Dial {
    pub(super) addr: EndpointAddr,
    pub(super) hello: Hello,
    pub(super) me: Member,
}

#[derive(Debug, Default)]
struct Peer {
    entry: Option<PeerEntry>,
    /// It has proved the key once: it is looked for even when discovery has forgotten it.
    proven: bool,
    /// The highest incarnation that was proved.
    incarnation: u64,
    bond: Option<Arc<Bond>>,
    dialling: bool,
    retry_at: Option<Instant>,
    failures: u32,
    gave_up: u64,
}

/// The state of a group's bonds.
#[derive(Debug)]
pub(super) struct Mesh {
    local: PeerId,
    group: GroupId,
    me: Member,
    cluster: Option<ClusterId>,
    session: u64,
    dials: u64,
    peers: BTreeMap<PeerId, Peer>,
    refusals: VecDeque<Refused>,
    rng: SmallRng,
    /// How long the higher id of a pair waits for the lower one.
    patience: Duration,
    closed: bool,
}

impl Mesh {
    pub(super) fn new(local: PeerId, group: GroupId, me: Member, seed: [u8; 32]) -> Self {
        let mut rng = SmallRng::from_seed(seed);
        let session = rng.random();
        Self {
            local,
            group,
            me,
            cluster: None,
            session,
            dials: 0,
            peers: BTreeMap::new(),
            refusals: VecDeque::new(),
            rng,
            patience: YIELD,
            closed: false,
        }
    }

    #[cfg(test)]
    pub(super) fn me_for_tests(&self) -> Member {
        self.me
    }

    /// Ignores who of a pair should dial first.
    #[cfg(test)]
    pub(super) fn dial_at_once_for_tests(&mut self) {
        self.patience = Duration::ZERO;
    }

    pub(super) fn set_cluster(&mut self, cluster: Option<ClusterId>) {
        self.cluster = cluster;
    }

    /// A new identity: every bond is made anew. Returns the old ones, to be closed.
    pub(super) fn set_me(&mut self, me: Member, now: Instant) -> Vec<Arc<Bond>> {
        self.me = me;
        self.session = self.rng.random();
        for peer in self.peers.values_mut() {
            (peer.failures, peer.retry_at) = (0, Some(now));
        }
        self.bonds().cloned().collect()
    }

    /// Nobody is dialled or admitted any more. Returns the bonds, to be closed.
    pub(super) fn close(&mut self) -> Vec<Arc<Bond>> {
        self.closed = true;
        self.bonds().cloned().collect()
    }

    pub(super) fn bonds(&self) -> impl Iterator<Item = &Arc<Bond>> {
        self.peers.values().filter_map(|peer| peer.bond.as_ref())
    }

    pub(super) fn bond(&self, peer: PeerId) -> Option<&Arc<Bond>> {
        self.peers.get(&peer)?.bond.as_ref()
    }

    pub(super) fn bond_to(&self, node: NodeId) -> Option<&Arc<Bond>> {
        self.bonds().find(|bond| bond.member.node == node)
    }

    pub(super) fn refusals(&self) -> impl Iterator<Item = &Refused> {
        self.refusals.iter()
    }

    /// The hello of this node towards a peer; `dial` is zero for an acceptor.
    pub(super) fn hello(&mut self, peer: PeerId, dial: u64) -> (Hello, Member) {
        let hello = Hello {
            group: self.group,
            incarnation: self.me.incarnation,
            cluster: self.cluster,
            nonce: self.rng.random(),
            session: self.session,
            dial,
            gave_up: self.peers.get(&peer).map_or(0, |peer| peer.gave_up),
        };
        (hello, self.me)
    }

    /// Takes in who is in the group according to discovery.
    pub(super) fn sync(&mut self, catalog: &Catalog, now: Instant) {
        let (group, local) = (self.group, self.local);
        let listed = catalog.peers().filter(|entry| entry.id() != local && entry.groups().contains(&group));
        for entry in listed {
            if !self.peers.contains_key(&entry.id()) && self.peers.len() >= MAX_PEERS {
                continue;
            }
            let first = self.first_dial(entry.id());
            let peer = self.peers.entry(entry.id()).or_default();
            let news = peer
                .entry
                .as_ref()
                .is_none_or(|known| known.version().run_id != entry.version().run_id || known.addr() != entry.addr());
            if news {
                (peer.failures, peer.retry_at) = (0, Some(now + first));
            }
            if peer.entry.as_ref() != Some(entry) {
                peer.entry = Some(entry.clone());
            }
        }
        self.peers.retain(|id, peer| {
            let left = match catalog.get(id) {
                Some(entry) => !entry.groups().contains(&group),
                None => !peer.proven,
            };
            // Its entry says that it is in the group no more: news of a return would be news again.
            if left {
                peer.entry = None;
                peer.retry_at = None;
            }
            !left || peer.bond.is_some() || peer.dialling || peer.incarnation > 0
        });
    }

    /// The next dial that is due, if any; it is under way from now on.
    pub(super) fn due(&mut self, now: Instant) -> Option<(PeerId, Dial)> {
        let due = |peer: &Peer| peer.wants_dial().is_some_and(|at| at <= now);
        let id = self.peers.iter().find(|(_, peer)| due(peer)).map(|(id, _)| *id).filter(|_| !self.closed)?;
        self.dials += 1;
        let (hello, me) = self.hello(id, self.dials);
        let peer = self.peers.get_mut(&id)?;
        peer.dialling = true;
        let addr = peer.entry.as_ref()?.addr().clone();
        Some((id, Dial { addr, hello, me }))
    }

    /// When the next dial is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.peers.values().filter_map(Peer::wants_dial).min().filter(|_| !self.closed)
    }

    pub(super) fn dialled(&mut self, id: PeerId, outcome: &Outcome, now: Instant) {
        let jitter = self.rng.random_range(0.5..1.0);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.dialling = false;
        let pause = match outcome {
            Outcome::Bonded => return,
            // The other side has a bond that this one will see in a moment, or that it has yet to lose.
            Outcome::Duplicate => FIRST_PAUSE,
            Outcome::Refused => REFUSED_PAUSE,
            Outcome::Failed => {
                peer.failures = peer.failures.saturating_add(1);
                FIRST_PAUSE.saturating_mul(1 << peer.failures.min(10)).min(LAST_PAUSE)
            }
        };
        // News of the peer may have set an earlier time meanwhile, unless that is over.
        let next = now + pause.mul_f64(jitter);
        peer.retry_at = Some(peer.retry_at.filter(|at| *at > now).map_or(next, |at| at.min(next)));
    }

    /// Makes a proven link the bond of its pair. Returns the one that it replaces, to be closed.
    pub(super) fn admit(&mut self, new: &Arc<Bond>, gave_up: u64) -> Result<Option<Arc<Bond>>, NotAdmitted> {
        if self.closed || new.me != self.me {
            return Err(NotAdmitted::Over);
        }
        self.admits_incarnation(new.peer, new.member.incarnation)?;
        if !self.peers.contains_key(&new.peer) && self.peers.len() >= MAX_PEERS {
            self.forget_one();
        }
        let local = self.local;
        let peer = self.peers.entry(new.peer).or_default();
        if let Some(present) = &peer.bond
            && !replaces(local, present, new, gave_up)
        {
            return Err(NotAdmitted::Duplicate);
        }
        (peer.proven, peer.incarnation) = (true, new.member.incarnation);
        peer.retry_at = None;
        Ok(peer.bond.replace(new.clone()))
    }

    /// Whether no later life of the peer's storage was ever proved.
    pub(super) fn admits_incarnation(&self, peer: PeerId, incarnation: u64) -> Result<(), NotAdmitted> {
        let known = self.peers.get(&peer).map_or(0, |peer| peer.incarnation);
        if incarnation < known { Err(NotAdmitted::OldIncarnation) } else { Ok(()) }
    }

    /// A bond has ended. `goodbye`: the other side has left of its own accord.
    pub(super) fn lost(&mut self, bond: &Arc<Bond>, goodbye: bool, now: Instant) {
        let first = self.first_dial(bond.peer);
        let Some(peer) = self.peers.get_mut(&bond.peer) else { return };
        if peer.bond.as_ref().is_none_or(|present| present.id != bond.id) {
            return;
        }
        (peer.bond, peer.gave_up) = (None, bond.id);
        if goodbye {
            // Until its entry says that it is back.
            (peer.proven, peer.retry_at) = (false, None);
            return;
        }
        let good = bond.since.elapsed() >= PROVEN_GOOD;
        peer.failures = if good { 0 } else { peer.failures.saturating_add(1) };
        let pause = if good { Duration::ZERO } else { FIRST_PAUSE.saturating_mul(1 << peer.failures.min(4)) };
        peer.retry_at = Some(now + first + pause.min(LAST_PAUSE));
    }

    /// Remembers a refusal; true when it is the first of its kind.
    pub(super) fn refused(&mut self, peer: PeerId, reason: &Refusal, by_peer: bool, now: Instant) -> bool {
        let same = |known: &&mut Refused| (known.peer, &known.reason, known.by_peer) == (peer, reason, by_peer);
        if let Some(known) = self.refusals.iter_mut().find(same) {
            known.at = now;
            known.count += 1;
            return false;
        }
        if self.refusals.len() >= MAX_REFUSALS {
            self.refusals.pop_front();
        }
        self.refusals.push_back(Refused { peer, reason: reason.clone(), by_peer, at: now, count: 1 });
        true
    }

    /// How long the first attempt waits.
    fn first_dial(&mut self, peer: PeerId) -> Duration {
        let spread = Duration::from_micros(self.rng.random_range(0..10_000));
        if self.local < peer { spread } else { self.patience + spread }
    }

    /// Makes room for a member that has proved the key.
    fn forget_one(&mut self) {
        let idle = |peer: &Peer| peer.bond.is_none() && !peer.dialling;
        let rank = |peer: &Peer| (peer.proven, peer.incarnation);
        let least = self.peers.iter().filter(|(_, peer)| idle(peer)).min_by_key(|(_, peer)| rank(peer));
        if let Some(id) = least.map(|(id, _)| *id) {
            self.peers.remove(&id);
        }
    }
}

impl Peer {
    fn wants_dial(&self) -> Option<Instant> {
        self.retry_at.filter(|_| self.bond.is_none() && !self.dialling && self.entry.is_some())
    }
}

/// Whether a link takes the place of the present bond; see the top of this file.
fn replaces(local: PeerId, present: &Bond, new: &Bond, gave_up: u64) -> bool {
    if present.session != new.session {
        return true;
    }
    if new.dialled {
        // The dialler has got a bond while it dialled.
        return false;
    }
    if gave_up == present.id {
        return true;
    }
    if present.dialled { new.peer < local } else { new.dial > present.dial }
}

#[cfg(test)]
mod tests;
