//! The search for peers that are known and not live: those that departed, and those remembered from former runs. Each is
//! dialled again and again with back-off that never ends, so that sides that were parted for any time meet again with nobody's help.
//!
//! Bounded: the table holds [`Config::max_lost`](super::super::Config::max_lost) peers; those that never answered make room first, then
//! those that have been away for longest. Fair: among the peers that ever answered the one that waits for longest is next, the
//! others come when none of these is due. All searches together keep to a few dials a second, however many peers are sought.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use iroh::{EndpointAddr, TransportAddr};

use super::{Core, Key, Now, Purpose, backoff, contact, lease::Peer};
use crate::primitives::PeerId;

const FIRST_RETRY: Duration = Duration::from_secs(1);
/// A peer that said farewell is tried this rarely: it returns by itself, unless it has forgotten everybody or this node moved.
const LEFT_RETRY: Duration = Duration::from_mins(5);
/// Peers that departed within this time are tried more often than older ones when there are many.
const RECENT: Duration = Duration::from_hours(1);
/// Pause between the beginnings of two dials, while this node knows somebody.
const DIAL_GAP: Duration = Duration::from_millis(250);
/// The longest pause grows by this for each peer sought, so that the dials of each of the two classes stay below one in two seconds.
const SHARE: Duration = Duration::from_secs(3);
/// The same while this node knows nobody: then it is all that the node has to do.
const LONE_SHARE: Duration = Duration::from_millis(300);
/// Addresses kept of one peer.
const MAX_PLACES: usize = 16;
/// The longest relay URL that is kept, in bytes.
const MAX_URL: usize = 256;

/// All peers that are sought.
#[derive(Debug, Default)]
pub(super) struct Search {
    table: BTreeMap<Key, Sought>,
    /// By how much is lost when it is forgotten: whether it ever answered, then since when it is away.
    by_worth: BTreeSet<(bool, Now, Key)>,
    /// When each is to be dialled: those that never answered, and those that did.
    due: [BTreeSet<(Now, Key)>; 2],
    next_dial: Now,
}

/// A peer that is not live.
#[derive(Debug)]
struct Sought {
    addr: EndpointAddr,
    /// Whether this node ever talked to it.
    met: bool,
    /// Whether it said farewell.
    left: bool,
    since: Now,
    attempts: u32,
    /// Absent while it is being dialled.
    due: Option<Now>,
}

impl Search {
    fn insert(&mut self, key: Key, sought: Sought, max: usize) {
        self.remove(&key);
        self.by_worth.insert((sought.met, sought.since, key));
        if let Some(at) = sought.due {
            self.due[usize::from(sought.met)].insert((at, key));
        }
        self.table.insert(key, sought);
        while self.table.len() > max {
            let Some((.., worst)) = self.by_worth.first().copied() else { return };
            self.remove(&worst);
        }
    }

    /// Ends the search for a peer: it is live.
    pub(super) fn remove(&mut self, key: &Key) {
        if let Some(sought) = self.table.remove(key) {
            self.by_worth.remove(&(sought.met, sought.since, *key));
            if let Some(at) = sought.due {
                self.due[usize::from(sought.met)].remove(&(at, *key));
            }
        }
    }

    /// Whether the peer is sought and ever answered.
    pub(super) fn met(&self, key: &Key) -> bool {
        self.table.get(key).is_some_and(|sought| sought.met)
    }

    /// The peer to dial now: of those that ever answered, if one is due.
    fn next(&mut self, now: Now) -> Option<Key> {
        for due in self.due.iter_mut().rev() {
            if let Some((at, key)) = due.first().copied().filter(|(at, _)| *at <= now) {
                due.remove(&(at, key));
                if let Some(sought) = self.table.get_mut(&key) {
                    sought.due = None;
                }
                return Some(key);
            }
        }
        None
    }

    fn first_due(&self) -> Option<Now> {
        self.due.iter().filter_map(|due| due.first()).map(|(at, _)| *at).min()
    }

    /// How many peers share the dials of this one's class.
    fn competitors(&self, met: bool, recent: bool, now: Now) -> u32 {
        let class = self.table.values().filter(|sought| sought.met == met && sought.is_recent(now) == recent).count();
        u32::try_from(class).unwrap_or(u32::MAX)
    }

    #[cfg(test)]
    pub(super) fn contains(&self, key: &Key) -> bool {
        self.table.contains_key(key)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.table.len(), self.by_worth.len());
        assert!(self.due.iter().map(BTreeSet::len).sum::<usize>() <= self.table.len());
        self.table.len()
    }
}

impl Sought {
    fn is_recent(&self, now: Now) -> bool {
        !self.left && now < self.since + RECENT
    }
}

/// What is kept of an address: a bounded part of it.
fn bounded(addr: &EndpointAddr) -> EndpointAddr {
    let fits = |place: &&TransportAddr| match place {
        TransportAddr::Ip(_) => true,
        TransportAddr::Relay(url) => url.as_str().len() <= MAX_URL,
        _ => false,
    };
    EndpointAddr::from_parts(addr.id, addr.addrs.iter().filter(fits).take(MAX_PLACES).cloned())
}

impl Core {
    /// Looks for a peer that was live and is not any more.
    pub(super) fn seek(&mut self, peer: &Peer, left: bool, now: Now) {
        let first = if left { LEFT_RETRY } else { FIRST_RETRY };
        let due = Some(now + backoff(&mut self.rng, 0, first, first));
        let addr = bounded(peer.entry.addr());
        let sought = Sought { addr, met: peer.met, left, since: now, attempts: 0, due };
        self.search.insert(*peer.entry.id().as_bytes(), sought, self.config.max_lost);
    }

    /// Looks for the peers that a former run of this node knew, each with whether that ever talked to it; the most valuable first.
    pub(super) fn on_remembered(&mut self, peers: Vec<(EndpointAddr, bool)>, now: Now) {
        for (at, (addr, met)) in (0..self.config.max_lost).zip(peers) {
            let id = PeerId::from(addr.id);
            if id == self.local.id() || self.peers.contains_key(id.as_bytes()) {
                continue;
            }
            // The order is kept as if they had departed one after the other, long ago.
            let since = now.saturating_sub(RECENT + Duration::from_millis(at as u64));
            let sought = Sought { addr: bounded(&addr), met, left: false, since, attempts: 0, due: Some(now) };
            self.search.insert(*id.as_bytes(), sought, self.config.max_lost);
        }
    }

    /// The peers to be remembered for the next run, at most `max`, each with whether this one ever talked to it; the most
    /// valuable first. Three quarters are live peers if there are as many: those with the ids closest to this node's, so that each node
    /// of a large network remembers others, and every peer is remembered by some.
    pub(in super::super) fn to_remember(&self, max: usize) -> Vec<(EndpointAddr, bool)> {
        let me = *self.local.id().as_bytes();
        let distance = |key: &Key| {
            let mut distance = *key;
            distance.iter_mut().zip(&me).for_each(|(byte, mine)| *byte ^= mine);
            distance
        };
        let live = |(key, peer): (&Key, &Peer)| ((!peer.met, distance(key)), (bounded(peer.entry.addr()), peer.met));
        let live: BTreeMap<_, _> = self.peers.iter().map(live).collect();
        let by_worth = self.search.by_worth.iter().rev();
        let mut sought: Vec<_> =
            by_worth.filter_map(|(met, _, key)| Some((self.search.table.get(key)?.addr.clone(), *met))).collect();
        let room = (max - max / 4).max(max.saturating_sub(sought.len()));
        let mut peers: Vec<_> = live.into_values().take(room).collect();
        sought.truncate(max.saturating_sub(peers.len()));
        peers.extend(sought);
        peers
    }

    /// Dials peers that are sought, a few at a time.
    pub(super) fn tick_search(&mut self, now: Now) {
        while self.may_search() && (now >= self.search.next_dial || self.is_lone()) {
            let Some(key) = self.search.next(now) else { return };
            let Some(sought) = self.search.table.get(&key) else { continue };
            let target = contact::target_of(&self.contacts, &sought.addr);
            if self.dial(target, Purpose::Lost) {
                self.search.next_dial = now + DIAL_GAP;
            } else {
                self.search_again(&key, now);
            }
        }
    }

    fn is_lone(&self) -> bool {
        self.peers.is_empty()
    }

    fn may_search(&self) -> bool {
        let max = if self.is_lone() { self.config.max_dials } else { self.config.max_probes };
        self.dials(&[Purpose::Lost]) < max
    }

    pub(super) fn next_search(&self) -> Option<Now> {
        let at = self.search.first_due().filter(|_| self.may_search())?;
        Some(if self.is_lone() { at } else { at.max(self.search.next_dial) })
    }

    /// A dial has ended. If the peer is sought and still not live it is dialled again, later.
    pub(super) fn search_again(&mut self, key: &Key, now: Now) {
        let Some(sought) = self.search.table.get_mut(key).filter(|sought| sought.due.is_none()) else { return };
        sought.attempts = sought.attempts.saturating_add(1);
        let (attempts, met, left, recent) = (sought.attempts, sought.met, sought.left, sought.is_recent(now));
        let share = if self.peers.is_empty() { LONE_SHARE } else { SHARE };
        let shared = share.saturating_mul(self.search.competitors(met, recent, now));
        let cap = self.config.lost_retry_cap.max(shared);
        let (first, cap) = if left { (LEFT_RETRY, cap.max(LEFT_RETRY)) } else { (FIRST_RETRY, cap) };
        let at = now + backoff(&mut self.rng, attempts, first, cap);
        if let Some(sought) = self.search.table.get_mut(key) {
            sought.due = Some(at);
            self.search.due[usize::from(met)].insert((at, *key));
        }
    }
}
