//! Fetching the entries that hints tell of: who lacks a version asks whoever sent the hint.
//!
//! One request per source is under way at a time; what is wanted of the source meanwhile goes into the next, so a
//! storm of hints becomes a few batches. When the table is full, hints are dropped: sync repairs that.

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

#[derive(Debug, Default)]
pub(super) struct Pulls {
    wanted: BTreeMap<Key, Wanted>,
    /// What to ask of whom.
    queues: BTreeMap<PeerId, BTreeSet<Key>>,
    /// Who is being asked, and for what.
    asked: BTreeMap<PeerId, BTreeSet<Key>>,
}

#[derive(Debug)]
struct Wanted {
    version: Version,
    /// The hint that told of it, and when that was issued; absent when the owner gave the entry without one.
    told: Option<(Hint, Now)>,
    sources: Vec<PeerId>,
    asking: bool,
}

impl Pulls {
    /// The entry has come, or a newer one: what was known of its sign of life.
    pub(super) fn settle(&mut self, entry: &PeerEntry) -> Option<(Hint, Now)> {
        let key = *entry.id().as_bytes();
        if self.wanted.get(&key)?.version > entry.version() {
            return None;
        }
        self.forget(&key)
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

    /// Whether this version or a newer one is on its way.
    pub(super) fn expects(&self, want: &Want) -> bool {
        self.wanted.get(&want.peer).is_some_and(|wanted| wanted.version >= want.version)
    }

    fn add(&mut self, key: Key, version: Version, told: Option<(Hint, Now)>, source: PeerId) {
        if self.wanted.len() >= MAX_WANTED && !self.wanted.contains_key(&key) {
            return;
        }
        let wanted = self.wanted.entry(key).or_insert(Wanted { version, told, sources: Vec::new(), asking: false });
        if version > wanted.version {
            wanted.version = version;
        }
        if told.is_some_and(|(hint, _)| wanted.told.is_none_or(|(known, _)| hint.order() > known.order())) {
            wanted.told = told;
        }
        if !wanted.sources.contains(&source) && wanted.sources.len() < MAX_SOURCES {
            wanted.sources.push(source);
        }
        if !wanted.asking
            && let Some(first) = wanted.sources.first()
        {
            self.queues.entry(*first).or_default().insert(key);
        }
    }

    /// A request has ended: what it did not bring is asked of the next source, or given up.
    fn ended(&mut self, from: PeerId) {
        for key in self.asked.remove(&from).unwrap_or_default() {
            let Some(wanted) = self.wanted.get_mut(&key) else { continue };
            wanted.asking = false;
            wanted.sources.retain(|source| *source != from);
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

    /// The next requests: one for each source that is not being asked.
    fn next(&mut self) -> Vec<(PeerId, Vec<Want>)> {
        let ready: Vec<PeerId> =
            self.queues.keys().filter(|source| !self.asked.contains_key(source)).copied().collect();
        let mut requests = Vec::new();
        for source in ready {
            let Some(mut queue) = self.queues.remove(&source) else { continue };
            let mut batch = BTreeSet::new();
            while batch.len() < MAX_BATCH
                && let Some(key) = queue.pop_first()
            {
                batch.insert(key);
            }
            if !queue.is_empty() {
                self.queues.insert(source, queue);
            }
            let mut wants = Vec::new();
            for key in &batch {
                if let Some(wanted) = self.wanted.get_mut(key) {
                    wanted.asking = true;
                    wants.push(Want { peer: *key, version: wanted.version });
                }
            }
            self.asked.insert(source, batch);
            requests.push((source, wants));
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

    pub(super) fn on_pulled(&mut self, from: PeerId) {
        self.pulls.ended(from);
    }

    pub(super) fn tick_pulls(&mut self) {
        for (from, wants) in self.pulls.next() {
            // A source without an entry here is connected, or it could not have told.
            let addr = self
                .peers
                .get(from.as_bytes())
                .map_or_else(|| EndpointAddr::from(from), |peer| peer.entry.addr().clone());
            self.outputs.push(Output::Pull { from: addr, wants });
        }
    }
}
