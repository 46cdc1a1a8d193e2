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
    super::raft::{ClusterId, Extent, Mark, Member, NodeId, Stale, Start},
    bond::Bond,
    claims::Claim,
    handshake::{Hello, Refusal},
    limits::HANDSHAKE,
    marks::Table,
};
use crate::{
    discovery::{Catalog, PeerEntry},
    primitives::{GroupId, PeerId},
};

/// Members that have proved the key.
const MAX_PEERS: usize = 256;
/// Nodes that only say that they are in the group. More of them are not looked at before others have gone.
const MAX_CANDIDATES: usize = 4096;
/// Dials of such nodes that are under way at once.
const MAX_UNPROVEN_DIALS: usize = 64;
/// How long a first dial may take to connect: as many made-up entries as there are may stand before an honest one. Doubled
/// with each failure.
const UNPROVEN_DIAL: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(16));
/// How long the dial of a member may take that has proved the key before.
const PROVEN_DIAL: Duration = Duration::from_secs(30);
/// The last pause of nodes that never proved the key, while there are more than can be dialled at once.
const LAST_UNPROVEN_PAUSE: Duration = Duration::from_secs(30);
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
    Refused(Refusal),
    /// The local identity has changed or the group is over.
    Over,
}

/// A dial to make.
pub(super) struct Dial {
    pub(super) addr: EndpointAddr,
    pub(super) hello: Hello,
    pub(super) me: Member,
    /// How long it may take to connect.
    pub(super) within: Duration,
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
    start: Start,
    extent: Extent,
    marks: Table,
    session: u64,
    dials: u64,
    peers: BTreeMap<PeerId, Peer>,
    /// Those that are being looked into.
    claims: Vec<Claim>,
    refusals: VecDeque<Refused>,
    rng: SmallRng,
    /// How long the higher id of a pair waits for the lower one.
    patience: Duration,
    /// Whether others may hear of this start.
    opened: bool,
    /// When this life of the local storage followed another one of the same process.
    born: Option<Instant>,
    closed: bool,
}

impl Mesh {
    pub(super) fn new(local: PeerId, group: GroupId, me: Member, marks: Table, seed: [u8; 32]) -> Self {
        let mut rng = SmallRng::from_seed(seed);
        let session = rng.random();
        Self {
            local,
            group,
            me,
            cluster: None,
            start: Start::default(),
            extent: Extent::default(),
            marks,
            session,
            dials: 0,
            peers: BTreeMap::new(),
            claims: Vec::new(),
            refusals: VecDeque::new(),
            rng,
            patience: YIELD,
            opened: false,
            born: None,
            closed: false,
        }
    }

    #[cfg(test)]
    pub(super) fn dialling(&self) -> usize {
        self.peers.values().filter(|peer| peer.dialling).count()
    }

    pub(super) const fn me(&self) -> Member {
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

    /// Which start of the local storage this is, and how far it is durable.
    pub(super) fn set_storage(&mut self, start: Start, extent: Extent) {
        (self.start, self.extent) = (start, extent);
        self.marks.join(self.me.node, &Mark::of(self.me.incarnation, start, extent));
    }

    /// How far the local storage is durable by now.
    pub(super) fn set_extent(&mut self, extent: Extent) {
        self.set_storage(self.start, extent);
    }

    /// A member has acknowledged so much to this one.
    pub(super) fn acknowledged(&mut self, member: Member, extent: Extent) {
        // Of which start it was does not matter: what is durable stays so.
        if let Some(known) = self.marks.get(member.node).filter(|known| known.incarnation == member.incarnation) {
            let mark = Mark::of(member.incarnation, known.start, extent);
            self.marks.join(member.node, &mark);
        }
    }

    pub(super) fn marks(&self) -> &Table {
        &self.marks
    }

    /// What another member has seen. Returns the bonds of those of which less is left than was seen before they began.
    pub(super) fn learn(&mut self, marks: &[(NodeId, Mark)]) -> Vec<Arc<Bond>> {
        let mut stale = Vec::new();
        for (node, mark) in marks.iter().filter(|(node, _)| *node != self.me.node) {
            // A mark of a later start says nothing about an earlier one, which may be the original of the two.
            let earlier = |bond: &&Arc<Bond>| {
                bond.member.incarnation == mark.incarnation && mark.start.number <= bond.start.number
            };
            let bond = self.bond_to(*node).filter(earlier);
            stale.extend(bond.filter(|bond| mark.admits(mark.incarnation, bond.start).is_err()).cloned());
            self.marks.join(*node, mark);
        }
        stale
    }

    /// The bond of another process that has the identity of the speaker, and was there before it.
    pub(super) fn rival(&self, claim: &Claim) -> Option<&Arc<Bond>> {
        self.bond(claim.peer).filter(|bond| claim.incarnation <= bond.member.incarnation && claim.start != bond.start)
    }

    /// Begins to look into a claim, unless another one of the same member is being looked into.
    pub(super) fn begin_claim(&mut self, claim: Claim) -> Result<(), NotAdmitted> {
        if self.is_contested(&claim) {
            return Err(NotAdmitted::Duplicate);
        }
        self.claims.push(claim);
        Ok(())
    }

    /// Ends what [`begin_claim`](Self::begin_claim) has begun.
    pub(super) fn end_claim(&mut self, claim: &Claim) {
        if let Some(at) = self.claims.iter().position(|other| other == claim) {
            self.claims.swap_remove(at);
        }
    }

    /// Whether another process of the same member is just being let in.
    pub(super) fn is_contested(&self, claim: &Claim) -> bool {
        self.claims.iter().any(|other| other.contradicts(claim))
    }

    /// A new identity: every bond is made anew. Returns the old ones, to be closed.
    pub(super) fn set_me(&mut self, me: Member, start: Start, now: Instant) -> Vec<Arc<Bond>> {
        (self.me, self.born) = (me, Some(now));
        self.set_storage(start, Extent::default());
        self.session = self.rng.random();
        for peer in self.peers.values_mut() {
            (peer.failures, peer.retry_at) = (0, Some(now));
        }
        self.bonds().cloned().collect()
    }

    /// Whether handshakes of an earlier life may still be under way.
    pub(super) fn is_newborn(&self, now: Instant) -> bool {
        self.born.is_some_and(|born| now.duration_since(born) < 2 * HANDSHAKE)
    }

    /// From here on others are dialled and answered.
    pub(super) const fn open(&mut self) {
        self.opened = true;
    }

    pub(super) const fn is_open(&self) -> bool {
        self.opened && !self.closed
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
            start: self.start,
            extent: self.extent,
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
            if !self.peers.contains_key(&entry.id()) && self.peers.len() >= MAX_PEERS + MAX_CANDIDATES {
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

    /// Whether it has proved the key, to this member or in an earlier life of it.
    fn is_proven(&self, id: PeerId, peer: &Peer) -> bool {
        peer.proven || peer.incarnation > 0 || self.marks.get(NodeId::from_bytes(*id.as_bytes())).is_some()
    }

    /// Whether so many nodes that never proved the key are being dialled that no other one may be.
    fn is_full(&self) -> bool {
        let dialling = self.peers.iter().filter(|(id, peer)| peer.dialling && !self.is_proven(**id, peer));
        dialling.count() >= MAX_UNPROVEN_DIALS
    }

    /// The next dial that is due, if any; it is under way from now on. Members that have proved the key come first, then nodes
    /// that there is a connection to (they exist), then those that were tried least.
    pub(super) fn due(&mut self, now: Instant, connected: impl Fn(PeerId) -> bool) -> Option<(PeerId, Dial)> {
        let full = self.is_full();
        let rank = |(id, peer): (&PeerId, &Peer)| {
            let at = peer.wants_dial().filter(|at| *at <= now && self.is_open())?;
            let proven = self.is_proven(*id, peer);
            (proven || !full).then(|| ((!proven, !proven && !connected(*id), peer.failures, at), *id))
        };
        let (order, id) = self.peers.iter().filter_map(rank).min()?;
        let proven = !order.0;
        self.dials += 1;
        let (hello, me) = self.hello(id, self.dials);
        let peer = self.peers.get_mut(&id)?;
        peer.dialling = true;
        let addr = peer.entry.as_ref()?.addr().clone();
        let first = UNPROVEN_DIAL.0.saturating_mul(1 << peer.failures.min(4)).min(UNPROVEN_DIAL.1);
        let within = if proven { PROVEN_DIAL } else { first };
        Some((id, Dial { addr, hello, me, within }))
    }

    /// When the next dial is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let full = self.is_full();
        let may = |(id, peer): &(&PeerId, &Peer)| !full || self.is_proven(**id, peer);
        let wanted = self.peers.iter().filter(may).filter_map(|(_, peer)| peer.wants_dial());
        wanted.min().filter(|_| self.is_open())
    }

    pub(super) fn dialled(&mut self, id: PeerId, outcome: &Outcome, now: Instant) {
        let jitter = self.rng.random_range(0.5..1.0);
        let known = self.peers.get(&id).is_some_and(|peer| self.is_proven(id, peer));
        let many = self.peers.len() > MAX_UNPROVEN_DIALS;
        let last = if known || !many { LAST_PAUSE } else { LAST_UNPROVEN_PAUSE };
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.dialling = false;
        let pause = match outcome {
            Outcome::Bonded => return,
            // The other side has a bond that this one will see in a moment, or that it has yet to lose.
            Outcome::Duplicate => FIRST_PAUSE,
            Outcome::Refused => REFUSED_PAUSE,
            Outcome::Failed => {
                peer.failures = peer.failures.saturating_add(1);
                FIRST_PAUSE.saturating_mul(1 << peer.failures.min(10)).min(last)
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
        let claim = Claim { peer: new.peer, incarnation: new.member.incarnation, start: new.start };
        self.check(&claim).map_err(NotAdmitted::Refused)?;
        if !self.peers.contains_key(&new.peer) && self.proven() >= MAX_PEERS {
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
        let former = peer.bond.replace(new.clone());
        self.marks.join(new.member.node, &Mark::of(new.member.incarnation, new.start, new.extent));
        Ok(former)
    }

    /// Whether the claimant's storage can be the one that was seen last.
    pub(super) fn check(&self, claim: &Claim) -> Result<(), Refusal> {
        let Claim { peer, incarnation, start } = *claim;
        if incarnation < self.peers.get(&peer).map_or(0, |peer| peer.incarnation) {
            return Err(Refusal::OldIncarnation);
        }
        let Some(mark) = self.marks.get(NodeId::from_bytes(*peer.as_bytes())) else { return Ok(()) };
        mark.admits(incarnation, start).map_err(|stale| match stale {
            Stale::Incarnation => Refusal::OldIncarnation,
            Stale::Start | Stale::End => {
                tracing::debug!(?peer, ?stale, ?mark, ?start, "an older copy of a member's storage");
                Refusal::OlderCopy
            }
        })
    }

    /// Members that have proved the key.
    fn proven(&self) -> usize {
        self.peers.values().filter(|peer| peer.proven || peer.incarnation > 0).count()
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
        let idle = |peer: &Peer| peer.bond.is_none() && !peer.dialling && (peer.proven || peer.incarnation > 0);
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
