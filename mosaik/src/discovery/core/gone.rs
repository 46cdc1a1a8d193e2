//! Peers that departed: tombstones that keep stale entries and hints from resurrecting them.
//!
//! Bounded: the oldest tombstones make room, and each is forgotten after a time. The peers themselves are not forgotten:
//! that is the business of `search`.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::{
        entry::Version,
        hint::{Hint, Kind},
    },
    Core, Key, Now,
    lease::Peer,
};

/// All that is known of departed peers.
#[derive(Debug, Default)]
pub(super) struct Gone {
    tombs: BTreeMap<Key, Tomb>,
    /// Oldest departure first.
    by_age: BTreeSet<(Now, Key)>,
}

#[derive(Debug)]
struct Tomb {
    /// The newest version known; that of `last` if there is one.
    version: Version,
    /// The newest hint known; a farewell if the peer said one.
    last: Option<Hint>,
    since: Now,
}

impl Tomb {
    fn farewell(&self) -> Option<Hint> {
        self.last.filter(|hint| hint.kind == Kind::Departed)
    }
}

impl Gone {
    fn insert(&mut self, key: Key, tomb: Tomb, max: usize) {
        self.remove(&key);
        self.by_age.insert((tomb.since, key));
        self.tombs.insert(key, tomb);
        while self.tombs.len() > max {
            let Some((_, oldest)) = self.by_age.first().copied() else { return };
            self.remove(&oldest);
        }
    }

    pub(super) fn remove(&mut self, key: &Key) {
        if let Some(tomb) = self.tombs.remove(key) {
            self.by_age.remove(&(tomb.since, *key));
        }
    }

    /// Whether a hint of this order may bring the peer back.
    pub(super) fn admits(&self, key: &Key, version: Version, beat: Option<u64>) -> bool {
        let Some(tomb) = self.tombs.get(key) else { return true };
        if tomb.farewell().is_some() && version.run_id == tomb.version.run_id {
            return false;
        }
        match beat {
            Some(beat) => (version, Some(beat)) > (tomb.version, tomb.last.map(|hint| hint.beat)),
            // The peer itself says so, now.
            None => version >= tomb.version,
        }
    }

    /// The newest version that is known of a peer that departed.
    pub(super) fn version(&self, key: &Key) -> Option<Version> {
        self.tombs.get(key).map(|tomb| tomb.version)
    }

    /// The farewell of a peer, for somebody who still believes in this version of it.
    pub(super) fn farewell(&self, key: &Key, version: Version) -> Option<Hint> {
        self.tombs.get(key)?.farewell().filter(|hint| hint.version >= version)
    }

    /// The last hint of a peer that departed, for the peer itself when it comes back with an older version.
    pub(super) fn last_hint(&self, key: &Key) -> Option<Hint> {
        self.tombs.get(key)?.last
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.tombs.len(), self.by_age.len());
        self.tombs.len()
    }
}

impl Core {
    /// Puts up the tombstone of a peer that was live.
    pub(super) fn bury(&mut self, peer: &Peer, farewell: Option<Hint>, now: Now) {
        let newest = farewell.or(peer.hint);
        let version = newest.map_or(peer.entry.version(), |hint| hint.version.max(peer.entry.version()));
        let tomb = Tomb { version, last: newest, since: now };
        self.gone.insert(*peer.entry.id().as_bytes(), tomb, self.config.max_lost);
    }

    /// The farewell of a peer that is not live here: remembered, so that its entry is not believed when it comes late.
    pub(super) fn bury_unknown(&mut self, farewell: Hint, now: Now) {
        debug_assert_eq!(farewell.kind, Kind::Departed);
        let key = *farewell.peer.as_bytes();
        if self.gone.admits(&key, farewell.version, Some(farewell.beat)) {
            let tomb = Tomb { version: farewell.version, last: Some(farewell), since: now };
            self.gone.insert(key, tomb, self.config.max_lost);
        }
    }

    /// Forgets what is too old.
    pub(super) fn tick_gone(&mut self, now: Now) {
        while let Some((since, key)) = self.gone.by_age.first().copied() {
            if now < since + self.config.forget_after {
                break;
            }
            self.gone.remove(&key);
        }
    }

    pub(super) fn next_forgotten(&self) -> Option<Now> {
        self.gone.by_age.first().map(|(since, _)| *since + self.config.forget_after)
    }
}
