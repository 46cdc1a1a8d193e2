//! Peers that departed: tombstones that keep stale news from resurrecting them, and the slow search for those who left
//! without a word, so that a healed partition comes together again with nobody's help.
//!
//! Bounded: the oldest tombstones make room, and each is forgotten after a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    super::{
        entry::{PeerEntry, Version},
        hint::{Hint, Kind},
    },
    Core, Key, Now, Purpose, backoff,
    lease::Peer,
};
use crate::primitives::PeerId;

const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Pause between the beginnings of two dials to lost peers.
const DIAL_GAP: Duration = Duration::from_millis(250);

/// All that is known of departed peers.
#[derive(Debug, Default)]
pub(super) struct Gone {
    tombs: BTreeMap<Key, Tomb>,
    /// Oldest departure first.
    by_age: BTreeSet<(Now, Key)>,
    /// Lost peers by when they are to be dialled.
    retries: BTreeSet<(Now, Key)>,
    next_dial: Now,
}

#[derive(Debug)]
struct Tomb {
    /// What the peer last said about itself; absent when only its farewell was ever heard.
    entry: Option<PeerEntry>,
    /// The newest version known; that of `last` if there is one.
    version: Version,
    /// The newest hint known; a farewell if the peer said one.
    last: Option<Hint>,
    since: Now,
    attempts: u32,
    retry_at: Option<Now>,
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
        if let Some(at) = tomb.retry_at {
            self.retries.insert((at, key));
        }
        self.tombs.insert(key, tomb);
        while self.tombs.len() > max {
            let Some((_, oldest)) = self.by_age.first().copied() else { return };
            self.remove(&oldest);
        }
    }

    pub(super) fn remove(&mut self, key: &Key) {
        if let Some(tomb) = self.tombs.remove(key) {
            self.by_age.remove(&(tomb.since, *key));
            if let Some(at) = tomb.retry_at {
                self.retries.remove(&(at, *key));
            }
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
        assert!(self.retries.len() <= self.tombs.len());
        self.tombs.len()
    }
}

impl Core {
    /// Puts up the tombstone of a peer that was live.
    pub(super) fn bury(&mut self, peer: &Peer, farewell: Option<Hint>, now: Now) {
        let retry_at = farewell.is_none().then(|| now + backoff(&mut self.rng, 0, FIRST_RETRY, FIRST_RETRY));
        let newest = farewell.or(peer.hint);
        let tomb = Tomb {
            version: newest.map_or(peer.entry.version(), |hint| hint.version.max(peer.entry.version())),
            entry: Some(peer.entry.clone()),
            last: newest,
            since: now,
            attempts: 0,
            retry_at,
        };
        self.gone.insert(*peer.entry.id().as_bytes(), tomb, self.config.max_lost);
    }

    /// The farewell of a peer that is not live here: remembered, so that its entry is not believed when it comes late.
    pub(super) fn bury_unknown(&mut self, farewell: Hint, now: Now) {
        debug_assert_eq!(farewell.kind, Kind::Departed);
        let key = *farewell.peer.as_bytes();
        if self.gone.admits(&key, farewell.version, Some(farewell.beat)) {
            let entry = self.gone.tombs.get(&key).and_then(|tomb| tomb.entry.clone());
            let tomb = Tomb {
                entry,
                version: farewell.version,
                last: Some(farewell),
                since: now,
                attempts: 0,
                retry_at: None,
            };
            self.gone.insert(key, tomb, self.config.max_lost);
        }
    }

    /// Forgets what is too old and dials lost peers, a few at a time.
    pub(super) fn tick_gone(&mut self, now: Now) {
        while let Some((since, key)) = self.gone.by_age.first().copied() {
            if now < since + self.config.forget_after {
                break;
            }
            self.gone.remove(&key);
        }
        while self.may_dial_lost() && now >= self.gone.next_dial {
            let Some((at, key)) = self.gone.retries.first().copied().filter(|(at, _)| *at <= now) else { return };
            self.gone.retries.remove(&(at, key));
            let Some(tomb) = self.gone.tombs.get_mut(&key) else { continue };
            tomb.retry_at = None;
            let Some(entry) = tomb.entry.clone() else { continue };
            if self.dial(entry.addr().clone().into(), Purpose::Lost) {
                self.gone.next_dial = now + DIAL_GAP;
            } else {
                self.schedule_retry(&key, now);
            }
        }
    }

    fn may_dial_lost(&self) -> bool {
        self.dials(&[Purpose::Lost]) < self.config.max_probes
    }

    pub(super) fn next_lost_dial(&self) -> Option<Now> {
        let forget = self.gone.by_age.first().map(|(since, _)| *since + self.config.forget_after);
        let retry = self.gone.retries.first().filter(|_| self.may_dial_lost());
        let retry = retry.map(|(at, _)| (*at).max(self.gone.next_dial));
        [forget, retry].into_iter().flatten().min()
    }

    /// A dial to a lost peer failed.
    pub(super) fn lost_again(&mut self, id: PeerId, now: Now) {
        self.schedule_retry(id.as_bytes(), now);
    }

    fn schedule_retry(&mut self, key: &Key, now: Now) {
        let cap = self.config.lost_retry_cap;
        let Some(tomb) = self.gone.tombs.get_mut(key) else { return };
        if tomb.farewell().is_some() || tomb.retry_at.is_some() {
            return;
        }
        tomb.attempts += 1;
        let at = now + backoff(&mut self.rng, tomb.attempts, FIRST_RETRY, cap);
        tomb.retry_at = Some(at);
        self.gone.retries.insert((at, *key));
    }
}
