//! Fetching the entries that hints tell of: who lacks a version asks whoever sent the hint.
//!
//! A few requests per source are under way at a time; what is wanted of the source meanwhile goes into the next, so
//! a storm of hints becomes a few batches. What no source has is asked of its owner. When the table is full, hints
//! are dropped: sync repairs that.

use std::collections::{BTreeMap, BTreeSet};

use iroh::EndpointAddr;

use super::{
    super::{
        entry::{PeerEntry, Version},
        hint::Hint,
    },
    Core, Key, Now, Output, Want,
};
use crate::primitives::PeerId;

/// Entries in one request.
pub(in super::super) const MAX_BATCH: usize = 64;
/// Entries wanted at one time.
const MAX_WANTED: usize = 8192;
/// Sources remembered for one entry.
const MAX_SOURCES: usize = 3;
/// Requests to one source at one time. More than one, because a request may be held for a while by a source that
/// itself waits for the entry, and the next must not wait behind it.
const MAX_REQUESTS: usize = 3;

#[derive(Debug, Default)]
pub(super) struct Pulls {
    wanted: BTreeMap<Key, Wanted>,
    /// What to ask of whom.
    queues: BTreeMap<PeerId, BTreeSet<Key>>,
    /// The requests under way: whom, for what.
    asked: BTreeMap<u64, (PeerId, BTreeSet<Key>)>,
    next_request: u64,
}

#[derive(Debug)]
struct Wanted {
    version: Version,
    /// The hint that told of it, and when that was issued; absent when the owner gave the entry without one.
    told: Option<(Hint, Now)>,
    sources: Vec<PeerId>,
    /// Who is being asked.
    asking: Option<PeerId>,
    owner_tried: bool,
}

impl Pulls {
    /// The entry has come, or a newer one: what was known of its sign of life, and whether its owner was among those who told of it.
    pub(super) fn settle(&mut self, entry: &PeerEntry) -> (Option<(Hint, Now)>, bool) {
        let (key, owner) = (*entry.id().as_bytes(), entry.id());
        match self.wanted.get(&key).filter(|wanted| wanted.version <= entry.version()) {
            Some(wanted) => {
                let by_owner = wanted.sources.contains(&owner);
                (self.forget(&key), by_owner)
            }
            None => (None, false),
        }
    }

    /// Asks somebody for an entry.
    pub(super) fn ask(&mut self, key: Key, version: Version, source: PeerId) {
        self.add(key, version, None, source);
    }

    /// Nobody wants the entry any more.
    pub(super) fn forget(&mut self, key: &Key) -> Option<(Hint, Now)> {
        let wanted = self.wanted.remove(key)?;
        for source in wanted.sources {
            if let Some(queue) = self.queues.get_mut(&source) {
                queue.remove(key);
                if queue.is_empty() {
                    self.queues.remove(&source);
                }
            }
        }
        wanted.told
    }

    /// Whether this version or a newer one is on its way, from somebody else than the one who asks for it: two that
    /// waited for each other would wait in vain.
    pub(super) fn expects(&self, want: &Want, asker: PeerId) -> bool {
        let wanted = self.wanted.get(&want.peer).filter(|wanted| wanted.version >= want.version);
        wanted.is_some_and(|wanted| wanted.asking.is_some_and(|asking| asking != asker))
    }

    fn add(&mut self, key: Key, version: Version, told: Option<(Hint, Now)>, source: PeerId) {
        if self.wanted.len() >= MAX_WANTED && !self.wanted.contains_key(&key) {
            return;
        }
        let wanted = self.wanted.entry(key).or_insert(Wanted {
            version,
            told,
            sources: Vec::new(),
            asking: None,
            owner_tried: false,
        });
        if version > wanted.version {
            wanted.version = version;
        }
        if told.is_some_and(|(hint, _)| wanted.told.is_none_or(|(known, _)| hint.order() > known.order())) {
            wanted.told = told;
        }
        if !wanted.sources.contains(&source) && wanted.sources.len() < MAX_SOURCES {
            wanted.sources.push(source);
        }
        if wanted.asking.is_none()
            && let Some(first) = wanted.sources.first()
        {
            self.queues.entry(*first).or_default().insert(key);
        }
    }

    /// A request has ended: what it did not bring is asked of the next source, at last of the owner if that can be
    /// reached, or given up.
    fn ended(&mut self, request: u64, is_known: impl Fn(&Key) -> Option<PeerId>) {
        let Some((from, keys)) = self.asked.remove(&request) else { return };
        for key in keys {
            let Some(wanted) = self.wanted.get_mut(&key).filter(|wanted| wanted.asking == Some(from)) else { continue };
            wanted.asking = None;
            wanted.owner_tried |= *from.as_bytes() == key;
            wanted.sources.retain(|source| *source != from);
            if wanted.sources.is_empty()
                && !wanted.owner_tried
                && let Some(owner) = is_known(&key)
            {
                wanted.sources.push(owner);
            }
            match wanted.sources.first() {
                Some(next) => {
                    self.queues.entry(*next).or_default().insert(key);
                }
                None => {
                    self.wanted.remove(&key);
                }
            }
        }
    }

    /// The next requests.
    fn next(&mut self) -> Vec<(u64, PeerId, Vec<Want>)> {
        if self.queues.is_empty() {
            return Vec::new();
        }
        let under_way = |source: &PeerId| self.asked.values().filter(|(from, _)| from == source).count();
        let ready: Vec<PeerId> =
            self.queues.keys().filter(|source| under_way(source) < MAX_REQUESTS).copied().collect();
        let mut requests = Vec::new();
        for source in ready {
            let Some(mut queue) = self.queues.remove(&source) else { continue };
            let (mut batch, mut wants) = (BTreeSet::new(), Vec::new());
            while batch.len() < MAX_BATCH
                && let Some(key) = queue.pop_first()
            {
                if let Some(wanted) = self.wanted.get_mut(&key) {
                    wanted.asking = Some(source);
                    wants.push(Want { peer: key, version: wanted.version });
                    batch.insert(key);
                }
            }
            if !queue.is_empty() {
                self.queues.insert(source, queue);
            }
            if !batch.is_empty() {
                let request = self.next_request;
                self.next_request += 1;
                self.asked.insert(request, (source, batch));
                requests.push((request, source, wants));
            }
        }
        requests
    }
}

impl Core {
    pub(super) fn want(&mut self, hint: Hint, heard: Now, from: Option<PeerId>) {
        if let Some(from) = from {
            self.pulls.add(*hint.peer.as_bytes(), hint.version, Some((hint, heard)), from);
        }
    }

    pub(super) fn want_from_owner(&mut self, entry: &PeerEntry) {
        self.pulls.add(*entry.id().as_bytes(), entry.version(), None, entry.id());
    }

    /// Any version will do: the overlay only wants the address.
    pub(super) fn want_introduced(&mut self, peer: PeerId, by: PeerId) {
        if peer != self.local.id() && !self.peers.contains_key(peer.as_bytes()) {
            self.pulls.add(*peer.as_bytes(), Version { run_id: 0, seq: 0 }, None, by);
        }
    }

    pub(super) fn on_pulled(&mut self, request: u64) {
        self.pulls.ended(request, |key| self.peers.get(key).map(|peer| peer.entry.id()));
    }

    pub(super) fn tick_pulls(&mut self) {
        for (request, from, wants) in self.pulls.next() {
            // A source without an entry here is connected, or it could not have told.
            let addr = self
                .peers
                .get(from.as_bytes())
                .map_or_else(|| EndpointAddr::from(from), |peer| peer.entry.addr().clone());
            self.outputs.push(Output::Pull { request, from: addr, wants });
        }
    }
}
