//! Which news replaces which.
//!
//! Of entries only a higher version replaces a lower one; of hints only a higher (version, beat). News older than
//! its lease is no news: an expired peer is not resurrected by somebody who merely has it too.

use super::{
    super::{
        catalog::Catalog,
        entry::{EntryError, PeerEntry},
        events::{DepartReason, Event},
        hint::{Hint, Kind},
    },
    Core, Now, Output, Record, Sign,
    lease::Peer,
};
use crate::primitives::PeerId;

impl Core {
    /// A hint came; `from` is whoever can be asked for the entry.
    pub(super) fn on_hint(&mut self, sign: Sign, from: Option<PeerId>, now: Now) {
        let Sign { hint, age } = sign;
        if hint.peer == self.local.id() {
            self.on_own_echo(hint.version, hint.beat, now);
            return;
        }
        if hint.kind == Kind::Departed {
            self.on_farewell(hint, now);
            return;
        }
        if age >= hint.ttl() {
            return;
        }
        let heard = now.saturating_sub(age);
        let key = *hint.peer.as_bytes();
        if let Some(peer) = self.peers.get_mut(&key) {
            if hint.version < peer.entry.version() {
                return;
            }
            if hint.is_about(&peer.entry) {
                if peer.hint.is_none_or(|known| hint.order() > known.order()) {
                    peer.renew(hint, heard);
                }
                return;
            }
            if hint.version == peer.entry.version() {
                return;
            }
            // Alive at a newer version, which is fetched below.
            peer.heard = peer.heard.max(heard);
        } else if self.catalog_is_full() {
            self.refused_full += 1;
            return;
        } else if !self.gone.admits(&key, hint.version, Some(hint.beat)) {
            return;
        }
        self.want(hint, heard, from);
    }

    fn on_farewell(&mut self, hint: Hint, now: Now) {
        let known = self.peers.get(hint.peer.as_bytes());
        self.pulls.forget(hint.peer.as_bytes());
        match known {
            None => self.bury_unknown(hint, now),
            Some(peer) => {
                let newest = peer.hint.map_or((peer.entry.version(), 0), |known| known.order());
                if hint.order() >= newest {
                    self.depart_peer(hint.peer, DepartReason::Left, Some(hint), now);
                }
            }
        }
    }

    /// A record came from a sync or a pull.
    pub(super) fn on_record(&mut self, record: Record, now: Now) {
        let Record { entry, sign } = record;
        let id = entry.id();
        if id == self.local.id() {
            self.on_own_echo(entry.version(), sign.hint.beat, now);
            return;
        }
        if sign.hint.kind == Kind::Departed || !sign.hint.is_about(&entry) || sign.age >= sign.hint.ttl() {
            return;
        }
        let heard = now.saturating_sub(sign.age);
        // The hint that made this node ask may be newer than the one the answer came with.
        let told = self.pulls.settle(&entry);
        let (hint, heard) = match told {
            Some((hint, at)) if hint.is_about(&entry) && hint.order() > sign.hint.order() => (hint, at.max(heard)),
            _ => (sign.hint, heard),
        };
        match self.peers.get_mut(id.as_bytes()) {
            Some(peer) if entry.version() > peer.entry.version() => {
                peer.renew(hint, heard);
                self.replace(entry, now);
            }
            Some(peer) if hint.is_about(&peer.entry) && peer.hint.is_none_or(|known| hint.order() > known.order()) => {
                peer.renew(hint, heard);
            }
            None if self.gone.admits(id.as_bytes(), hint.version, Some(hint.beat)) => {
                self.untold += u64::from(told.is_none());
                self.add(entry, Some(hint), heard, now);
            }
            _ => {}
        }
    }

    /// What a peer gave about itself over a live connection: as good as a sign of life.
    ///
    /// # Errors
    /// When it is stale, one's own, of a run that said farewell, or the catalog is full.
    pub(in super::super) fn offer(&mut self, entry: PeerEntry, now: Now) -> Result<PeerEntry, EntryError> {
        let (id, offered) = (entry.id(), entry.version());
        if id == self.local.id() {
            self.on_own_echo(offered, 0, now);
            return Err(EntryError::Own);
        }
        if let Some(peer) = self.peers.get_mut(id.as_bytes()) {
            let known = peer.entry.version();
            peer.heard = peer.heard.max(now);
            if offered < known {
                return Err(EntryError::Stale { offered, known });
            }
            if offered > known {
                peer.hint = None;
                self.replace(entry.clone(), now);
            }
        } else {
            if !self.gone.admits(id.as_bytes(), offered, None) {
                return Err(EntryError::Departed);
            }
            if !self.add(entry.clone(), None, now, now) {
                return Err(EntryError::Full);
            }
        }
        if self.peers.get(id.as_bytes()).is_some_and(|peer| peer.hint.is_none()) {
            // Others want a hint with the entry; its owner has one.
            self.want_from_owner(&entry);
        }
        Ok(entry)
    }

    fn replace(&mut self, entry: PeerEntry, now: Now) {
        if let Some(peer) = self.peers.get_mut(entry.id().as_bytes()) {
            peer.entry = entry.clone();
            peer.known_since = now;
            self.catalog.put(entry.clone());
            if let Some(dialling) = self.dialling.get(&entry.id()) {
                // It may have moved while it is looked for where it was.
                self.dial(entry.addr().clone().into(), dialling.purpose);
            }
            self.outputs.push(Output::Event(Event::PeerUpdated(entry)));
        }
    }

    /// Adds a peer that was not live; false when the catalog is full.
    fn add(&mut self, entry: PeerEntry, hint: Option<Hint>, heard: Now, now: Now) -> bool {
        if self.catalog_is_full() {
            self.refused_full += 1;
            return false;
        }
        let key = *entry.id().as_bytes();
        self.gone.remove(&key);
        let ttl = hint.map_or(self.config.lease, |hint| hint.ttl());
        let peer = Peer { entry: entry.clone(), known_since: now, hint, heard, ttl, suspect: None, probed: false };
        self.watch(key, &peer);
        self.peers.insert(key, peer);
        self.catalog.put(entry.clone());
        if let Some(dialling) = self.dialling.get(&entry.id()) {
            self.dial(entry.addr().clone().into(), dialling.purpose);
        }
        self.outputs.push(Output::Event(Event::PeerDiscovered(entry)));
        true
    }

    fn catalog_is_full(&self) -> bool {
        Catalog::len(&self.catalog) > self.config.max_peers
    }
}
