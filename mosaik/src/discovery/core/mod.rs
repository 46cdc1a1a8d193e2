//! The discovery core: a pure state machine that decides what to believe about peers and whom to talk to.
//!
//! `step(input, now)`, then `take_outputs()`: no tokio, no socket, no clock, no global randomness; the worker feeds it and carries
//! out what it asks for. Each file holds one idea: `local` (one's own entry and lease), `addrs` (which addresses it lists), `merge`
//! (which news replaces which), `lease` (silence, suspicion, departure), `gone` (tombstones), `search` (looking for those who
//! departed), `contact` (first contact and bootstrap), `pull` (fetching entries that hints tell of), `sync` (anti-entropy messages
//! and answers), `twins` (two nodes with one key).
//!
//! Life of a peer: a hint or a sync tells of it; its entry is pulled and it is **live**; after two thirds of its lease
//! without a sign of life it is **silent** and is asked directly; at the end of the lease, or when it cannot be
//! reached after its connection was lost, or when it says farewell, it **departs** and leaves a **tombstone**; a higher
//! version, or a newer beat of a run that did not say farewell, brings it back.

mod addrs;
mod contact;
mod gone;
mod lease;
mod local;
mod merge;
mod pull;
mod search;
pub(super) mod sync;
#[cfg(test)]
mod tests;
mod twins;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use iroh::{EndpointAddr, SecretKey, TransportAddr};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

pub(crate) use self::lease::Life;
use self::{
    contact::Contact,
    gone::Gone,
    lease::Peer,
    local::Local,
    pull::Pulls,
    search::Search,
    twins::{Outbids, Watched},
};
use super::{
    catalog::Catalog,
    config::Config,
    entry::{LocalEntry, PeerEntry, Version},
    events::Event,
    hint::{Hint, Kind},
};
use crate::primitives::{NetworkId, PeerId};

/// While an overlay takes shape it may lose hints, and be in two for seconds. So the first rounds of anti-entropy come sooner:
/// the first one after a sixteenth of the configured pause, each of the next ones after twice the pause before it.
const EARLY_ROUNDS: u32 = 4;

/// The pause between two notices of one kind about peers that find no room.
const FULL_GAP: Duration = Duration::from_mins(1);
/// Addresses at which a peer is looked for while one dial lasts, or as a contact; further ones are not.
const MAX_PLACES: usize = 64;

/// For so long a hint about a new entry is passed on as news, whichever way the entry itself came.
const NEWS_LASTS: Duration = Duration::from_secs(1);

/// A moment: monotonic time since an origin that lies before the node's start by more than any lease, so that the
/// moment at which an old hint was issued can always be expressed.
pub(super) type Now = Duration;
/// A peer's key bytes: what tables are ordered by.
type Key = [u8; 32];

/// A sign of life with its age: how long ago it was issued, as far as the holder can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sign {
    pub(super) hint: Hint,
    pub(super) age: Duration,
}

/// A verified entry with the newest sign of life that its sender holds.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) entry: PeerEntry,
    pub(super) sign: Sign,
}

/// An entry that is wanted: this version or a newer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Want {
    pub(super) peer: Key,
    pub(super) version: Version,
}

/// Why a peer is dialled; decides what success and failure mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    /// A regular round of anti-entropy.
    Round,
    /// First contact, or a bootstrap peer that was lost.
    Contact,
    /// Its connection was lost: is it still there?
    Suspect,
    /// It has given no sign of life for two thirds of its lease.
    Silent,
    /// It departed, or is remembered from a former run, and may be back.
    Lost,
}

/// Whom to dial and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) peer: PeerId,
    pub(super) addrs: BTreeSet<TransportAddr>,
    /// `host:port`, to be resolved when dialled.
    pub(super) hosts: BTreeSet<String>,
}

impl From<EndpointAddr> for Target {
    fn from(addr: EndpointAddr) -> Self {
        Self { peer: addr.id.into(), addrs: addr.addrs, hosts: BTreeSet::new() }
    }
}

impl Target {
    /// Adds another's places as far as there is room; true if there was a new one.
    fn widen(&mut self, other: &Self) -> bool {
        let before = self.addrs.len() + self.hosts.len();
        let room = MAX_PLACES.saturating_sub(before);
        let addrs = other.addrs.difference(&self.addrs).take(room).cloned().collect::<Vec<_>>();
        let hosts = other.hosts.difference(&self.hosts).take(room - addrs.len()).cloned().collect::<Vec<_>>();
        self.addrs.extend(addrs);
        self.hosts.extend(hosts);
        self.addrs.len() + self.hosts.len() > before
    }
}

/// What happened.
#[derive(Debug)]
pub(super) enum Input {
    /// Time passed; due at [`Core::next_deadline`].
    Tick,
    /// The local node's addresses may have changed; others have reached it at some of them.
    Addr { addr: EndpointAddr, reached: BTreeSet<IpAddr> },
    /// Peers that a former run knew, each with whether that ever talked to it; the most valuable first.
    Remembered(Vec<(EndpointAddr, bool)>),
    /// Keep contact with a peer: for ever, or until it was reached once or `attempts` failed.
    Contact { target: Target, attempts: Option<u32> },
    /// A hint came by gossip or in a message of a peer.
    Hint { sign: Sign, from: PeerId },
    /// Records came: from a sync or a pull.
    Records(Vec<Record>),
    /// A sync session that [`Output::Dial`] asked for has ended, with everything merged that it brought.
    Dialled { peer: PeerId, reached: bool },
    /// The same, but the peer refused the session: it is there, and nothing was merged.
    Refused(PeerId),
    /// A pull that [`Output::Pull`] asked for has ended, with everything merged that it brought.
    Pulled { request: u64 },
    /// A peer was contacted outside of what this core asked for, and everything merged that it brought.
    Met(PeerId),
    /// A neighbour named a peer that the overlay wants to talk to and that is not in the catalog.
    Introduced { peer: PeerId, by: PeerId },
    /// A connection ended in a way that makes one wonder whether the peer is alive.
    ConnectionLost(PeerId),
    /// The gossip overlay gained a neighbour.
    NeighborUp(PeerId),
    /// The gossip overlay lost a neighbour.
    NeighborDown(PeerId),
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Output {
    /// Give the hint to gossip; `news` unless it only renews the lease.
    Broadcast { hint: Hint, news: bool },
    /// Run a sync session and report [`Input::Dialled`].
    Dial { target: Target, purpose: Purpose },
    /// The peer is being dialled elsewhere, perhaps in vain: connect to it here, too. Whoever waits for a connection to
    /// the peer gets whichever is made first, so there is nothing to report.
    Reach(Target),
    /// Ask for entries and report [`Input::Pulled`].
    Pull { request: u64, from: EndpointAddr, wants: Vec<Want> },
    /// Join the gossip overlay through the peer; when not `force`d, only if there are few neighbours.
    Join { peer: PeerId, force: bool },
    /// The peer was started anew and is there now: connections to elsewhere lead to nobody.
    Moved(EndpointAddr),
    /// Tell the subscribers.
    Event(Event),
    /// Tell the operator.
    Notice(Notice),
}

/// What an operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Notice {
    /// Another node has the local node's key; where it is may not be known.
    Rival { here: EndpointAddr, there: Option<EndpointAddr> },
    /// Two nodes have the key of that peer.
    Twins { peer: PeerId, one: EndpointAddr, other: EndpointAddr },
    /// The local node has more addresses than its entry lists.
    LeftOut { listed: usize, left_out: Vec<TransportAddr> },
    /// The catalog is full; so many peers were refused since the node's start.
    Full { max: usize, refused: u64 },
    /// There are too many peers to contact; this one is not.
    Contacts { peer: PeerId, max: usize },
}

/// A dial that is under way.
#[derive(Debug)]
struct Dialling {
    purpose: Purpose,
    /// Where the peer was looked for.
    tried: Target,
    /// How many peers gossip had failed to tell of when it began.
    untold: u64,
}

/// The state machine.
#[derive(Debug)]
pub(super) struct Core {
    config: Config,
    network: NetworkId,
    rng: SmallRng,
    local: Local,
    catalog: Catalog,
    peers: BTreeMap<Key, Peer>,
    /// When each live peer is to be looked at: at most one moment per peer, moved lazily.
    checks: BTreeSet<(Now, Key)>,
    /// Silent peers that wait for a probe, those that never answered last.
    silent: BTreeSet<(bool, Key)>,
    /// Peers that fell silent, some of which may have spoken again: tidied when read.
    quiet: BTreeSet<Key>,
    gone: Gone,
    search: Search,
    /// Who outbids the local node's entry.
    rivals: Outbids,
    outbids: Watched,
    contacts: BTreeMap<PeerId, Contact>,
    dialling: BTreeMap<PeerId, Dialling>,
    pulls: Pulls,
    neighbors: BTreeSet<PeerId>,
    next_sync: Now,
    /// How many more rounds come sooner than the configuration says.
    early_rounds: u32,
    /// When to try again to get into the overlay; only looked at without neighbours.
    next_join: Now,
    join_attempts: u32,
    next_forced_join: Now,
    /// Whether the last round of anti-entropy did not reach its peer.
    round_failed: bool,
    refused_full: u64,
    /// When the operator may next be told that the catalog is full, and that there are too many contacts.
    next_full: Now,
    next_contacts_full: Now,
    left_out_told: bool,
    /// Peers that a record told of and no hint had.
    untold: u64,
    outputs: Vec<Output>,
}

impl Core {
    /// A node that knows nobody. Its first announcement is due at once.
    pub(super) fn new(
        said: LocalEntry,
        run_id: u64,
        network: NetworkId,
        secret: SecretKey,
        config: Config,
        seed: [u8; 32],
        now: Now,
    ) -> Result<Self, super::EntryError> {
        let (said, left_out) = local::within_limits(said);
        let local = Local::new(said, run_id, network, secret, &config, now)?;
        let mut rng = SmallRng::from_seed(seed);
        // First contact is a sync already.
        let next_sync = now + jitter(&mut rng, config.sync_every / (1 << EARLY_ROUNDS), 0.2);
        let mut core = Self {
            network,
            rng,
            catalog: Catalog::new(local.entry().clone()),
            local,
            peers: BTreeMap::new(),
            checks: BTreeSet::new(),
            silent: BTreeSet::new(),
            quiet: BTreeSet::new(),
            gone: Gone::default(),
            search: Search::default(),
            rivals: Outbids::new(now),
            outbids: Watched::new(),
            contacts: BTreeMap::new(),
            dialling: BTreeMap::new(),
            pulls: Pulls::default(),
            neighbors: BTreeSet::new(),
            next_sync,
            early_rounds: EARLY_ROUNDS,
            next_join: now,
            join_attempts: 0,
            next_forced_join: now,
            round_failed: false,
            refused_full: 0,
            next_full: now,
            next_contacts_full: now,
            left_out_told: false,
            untold: 0,
            outputs: Vec::new(),
            config,
        };
        core.tell_left_out(left_out);
        Ok(core)
    }

    /// Takes in what happened; what to do about it is in [`Self::take_outputs`].
    pub(super) fn step(&mut self, input: Input, now: Now) {
        match input {
            Input::Tick => {}
            Input::Addr { addr, reached } => self.on_addr(addr, &reached, now),
            Input::Remembered(peers) => self.on_remembered(peers, now),
            Input::Contact { target, attempts } => self.on_contact(target, attempts, now),
            Input::Hint { sign, from } => self.on_hint(sign, Some(from), now),
            Input::Records(records) => records.into_iter().for_each(|record| self.on_record(record, now)),
            Input::Dialled { peer, reached } => self.on_dialled(peer, reached, now),
            Input::Refused(peer) => self.on_refused(peer, now),
            Input::Pulled { request } => self.on_pulled(request),
            Input::Met(peer) => self.join(peer, false, now),
            Input::Introduced { peer, by } => self.want_introduced(peer, by),
            Input::ConnectionLost(peer) => self.on_connection_lost(peer, now),
            Input::NeighborUp(peer) => self.on_neighbor_up(peer, now),
            Input::NeighborDown(peer) => self.on_neighbor_down(peer, now),
        }
        self.tick(now);
    }

    /// A hint came by gossip. True when it is news, to this node or probably to its neighbours: a farewell, or about a peer or
    /// a version that was not known a moment ago.
    pub(super) fn on_gossip(&mut self, sign: Sign, from: PeerId, now: Now) -> bool {
        let known = self.peers.get(sign.hint.peer.as_bytes());
        let old = |peer: &Peer| peer.entry.version() >= sign.hint.version && now >= peer.known_since + NEWS_LASTS;
        let news = sign.hint.kind == Kind::Departed || !known.is_some_and(old);
        self.step(Input::Hint { sign, from }, now);
        news
    }

    /// What is to be done, in order, since the last call.
    pub(super) fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// Everything that is due.
    fn tick(&mut self, now: Now) {
        self.tick_leases(now);
        self.tick_gone(now);
        self.tick_search(now);
        self.tick_contacts(now);
        self.tick_probes(now);
        self.tick_sync(now);
        self.tick_join(now);
        self.tick_pulls();
        self.tick_local(now);
    }

    /// When [`Input::Tick`] is due if nothing else happens.
    pub(super) fn next_deadline(&self) -> Now {
        let leases = self.checks.first().map(|(at, _)| *at);
        let contacts = self.contacts.values().filter_map(Contact::due).min();
        let join = (self.neighbors.is_empty() && !self.peers.is_empty()).then_some(self.next_join);
        let sync = (!self.peers.is_empty()).then_some(self.next_sync);
        let candidates = [leases, contacts, join, sync, self.next_forgotten(), self.next_search()];
        candidates.into_iter().flatten().fold(self.local.due(), Now::min)
    }

    /// The present catalog.
    pub(super) const fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Peers that were refused because the catalog was full.
    pub(super) const fn refused_full(&self) -> u64 {
        self.refused_full
    }

    /// Starts a dial. A peer that is being dialled already is also looked for where that dial does not go.
    fn dial(&mut self, target: Target, purpose: Purpose) -> bool {
        if target.peer == self.local.id() {
            return false;
        }
        if let Some(dialling) = self.dialling.get_mut(&target.peer) {
            if dialling.tried.widen(&target) {
                self.outputs.push(Output::Reach(target));
            }
            return false;
        }
        let tried = target.clone();
        self.dialling.insert(target.peer, Dialling { purpose, tried, untold: self.untold });
        self.outputs.push(Output::Dial { target, purpose });
        true
    }

    fn dials(&self, purposes: &[Purpose]) -> usize {
        self.dialling.values().filter(|dialling| purposes.contains(&dialling.purpose)).count()
    }

    fn on_dialled(&mut self, peer: PeerId, reached: bool, now: Now) {
        let Some(Dialling { purpose, untold, .. }) = self.dialling.remove(&peer) else { return };
        let came_back = self.settle_contact(peer, reached, now);
        if purpose == Purpose::Round {
            self.round_failed = !reached;
        }
        if reached {
            self.clear_suspicion(peer);
            if let Some(peer) = self.peers.get_mut(peer.as_bytes()) {
                peer.met = true;
            }
            // The overlay did not bring its signs of life, or it was not there at all: tie it in.
            match purpose {
                Purpose::Lost | Purpose::Silent => self.join(peer, true, now),
                Purpose::Contact | Purpose::Suspect if came_back => self.join(peer, false, now),
                Purpose::Round if self.untold > untold => self.join(peer, true, now),
                _ => {}
            }
        } else {
            self.on_unreachable(peer, now);
        }
        // Also when it was reached: it may have found no room here.
        self.search_again(peer.as_bytes(), now);
    }

    /// A peer did not want a session now. It is there all the same.
    fn on_refused(&mut self, peer: PeerId, now: Now) {
        if self.dialling.remove(&peer).is_some() {
            self.settle_contact(peer, false, now);
            self.clear_suspicion(peer);
            self.search_again(peer.as_bytes(), now);
        }
    }

    /// One round of anti-entropy with a random peer.
    fn tick_sync(&mut self, now: Now) {
        if now < self.next_sync || self.peers.is_empty() {
            return;
        }
        self.early_rounds = self.early_rounds.saturating_sub(1);
        self.next_sync = now + jitter(&mut self.rng, self.config.sync_every / (1 << self.early_rounds), 0.2);
        // Contacts and those that are sought have limits of their own, and may all be waited for in vain.
        if self.dials(&[Purpose::Round, Purpose::Suspect, Purpose::Silent]) >= self.config.max_dials {
            return;
        }
        if let Some(peer) = self.pick(self.round_failed) {
            let target = peer.entry.addr().clone().into();
            self.dial(target, Purpose::Round);
        }
    }

    /// A random live peer; one that answered before if there is one and that is asked for, because somebody may have made up the others.
    fn pick(&mut self, met: bool) -> Option<&Peer> {
        if self.peers.is_empty() {
            return None;
        }
        let pick = self.rng.random_range(0..self.peers.len());
        let known = || self.peers.values().skip(pick).chain(self.peers.values().take(pick)).find(|peer| peer.met);
        let known = if met { known() } else { None };
        known.or_else(|| self.peers.values().nth(pick))
    }

    fn on_neighbor_up(&mut self, peer: PeerId, now: Now) {
        self.neighbors.insert(peer);
        self.join_attempts = 0;
        // It may never have heard of this node.
        self.local.announce_soon(now);
    }

    fn on_neighbor_down(&mut self, peer: PeerId, now: Now) {
        self.neighbors.remove(&peer);
        if self.neighbors.is_empty() {
            self.next_join = now;
        }
    }

    /// A node without neighbours joins the overlay through a random peer, again and again.
    fn tick_join(&mut self, now: Now) {
        if !self.neighbors.is_empty() || self.peers.is_empty() || now < self.next_join {
            return;
        }
        let peer = self.pick(self.join_attempts % 2 == 1).map(|peer| peer.entry.id());
        let pause = backoff(&mut self.rng, self.join_attempts, Duration::from_secs(1), Duration::from_secs(5));
        self.join_attempts += 1;
        self.next_join = now + pause;
        if let Some(peer) = peer {
            self.outputs.push(Output::Join { peer, force: true });
        }
    }

    /// Joins through a certain peer. Forced joins cost an overlay link somewhere, so they are rationed.
    fn join(&mut self, peer: PeerId, force: bool, now: Now) {
        if force {
            if now < self.next_forced_join {
                return;
            }
            self.next_forced_join = now + Duration::from_secs(2);
        }
        // Give this join the time to work before trying another peer.
        self.next_join = self.next_join.max(now + Duration::from_secs(1));
        self.outputs.push(Output::Join { peer, force });
    }
}

/// `mean` give or take a share of it, so that nodes do not act in step.
fn jitter(rng: &mut SmallRng, mean: Duration, share: f64) -> Duration {
    mean.mul_f64(rng.random_range(1.0 - share..1.0 + share))
}

/// Exponential back-off: a random pause between half of the present step and the whole of it, never over `cap`.
fn backoff(rng: &mut SmallRng, attempts: u32, first: Duration, cap: Duration) -> Duration {
    first.saturating_mul(1 << attempts.min(16)).min(cap).mul_f64(rng.random_range(0.5..1.0))
}
