//! Which news replaces which.
//!
//! Of entries only a higher version replaces a lower one; of hints only a higher (version, beat). News older than
//! its lease is no news: an expired peer is not resurrected by somebody who merely has it too, and an entry without a
//! hint renews nothing unless its owner gives it.

use super::{
    super::{
        catalog::Catalog,
        entry::{EntryError, PeerEntry},
        events::{DepartReason, Event},
        hint::{Hint, Kind},
    },
    Core, FULL_GAP, Notice, Now, Output, Record, Sign,
    lease::Peer,
    twins::{Echo, is_restart},
};
use crate::primitives::PeerId;

impl Core {
    /// A hint came; `from` is whoever can be asked for the entry.
    pub(super) fn on_hint(&mut self, sign: Sign, from: Option<PeerId>, now: Now) {
        let Sign { hint, age } = sign;
        if hint.peer == self.local.id() {
            let Hint { version, digest, beat, .. } = hint;
            self.on_own_echo(Echo { version, digest, beat, addr: None, from }, now);
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
            peer.met |= from == Some(hint.peer);
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
            self.refuse_full(now);
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
            self.pulls.settle(&entry);
            let (version, digest, addr) = (entry.version(), entry.digest(), Some(entry.addr()));
            self.on_own_echo(Echo { version, digest, beat: sign.hint.beat, addr, from: None }, now);
            return;
        }
        if sign.hint.kind == Kind::Departed || !sign.hint.is_about(&entry) || sign.age >= sign.hint.ttl() {
            return;
        }
        let heard = now.saturating_sub(sign.age);
        // The hint that made this node ask may be newer than the one the answer came with.
        let (told, by_owner) = self.pulls.settle(&entry);
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
                self.add(entry, Some(hint), heard, by_owner, now);
            }
            _ => {}
        }
    }

    /// An entry that came without a hint over a live connection of the peer `from`. From its owner it is as good as a sign of life.
    /// From another one it renews nothing: a peer that was not known is believed for a third of a lease, in which it is asked itself.
    ///
    /// # Errors
    /// When it is stale, one's own, of a run that said farewell, or the catalog is full.
    pub(in super::super) fn offer(
        &mut self,
        entry: PeerEntry,
        from: PeerId,
        now: Now,
    ) -> Result<PeerEntry, EntryError> {
        let (id, offered, own) = (entry.id(), entry.version(), entry.id() == from);
        if id == self.local.id() {
            let (digest, addr) = (entry.digest(), Some(entry.addr()));
            self.on_own_echo(Echo { version: offered, digest, beat: 0, addr, from: None }, now);
            return Err(EntryError::Own);
        }
        if let Some(peer) = self.peers.get_mut(id.as_bytes()) {
            let known = peer.entry.version();
            if own {
                peer.met = true;
                peer.heard = peer.heard.max(now);
            }
            if offered < known {
                return Err(EntryError::Stale { offered, known });
            }
            if offered > known {
                peer.hint = None;
                self.replace(entry.clone(), now);
            }
        } else {
            // The peer itself says that it lives, now; of somebody else only another version is news.
            let newer = own || self.gone.version(id.as_bytes()).is_none_or(|known| offered > known);
            if !newer || !self.gone.admits(id.as_bytes(), offered, None) {
                return Err(EntryError::Departed);
            }
            let heard = if own { now } else { now.saturating_sub(self.config.lease * 2 / 3) };
            if !self.add(entry.clone(), None, heard, own, now) {
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
            let old = std::mem::replace(&mut peer.entry, entry.clone());
            peer.known_since = now;
            self.catalog.put(entry.clone());
            if let Some(dialling) = self.dialling.get(&entry.id()) {
                // It may have moved while it is looked for where it was.
                self.dial(entry.addr().clone().into(), dialling.purpose);
            }
            self.watch_outbids(&old, &entry, now);
            if is_restart(old.version(), entry.version()) && old.addr() != entry.addr() {
                self.outputs.push(Output::Moved(entry.addr().clone()));
            }
            self.outputs.push(Output::Event(Event::PeerUpdated(entry)));
        }
    }

    /// Adds a peer that was not live; false when the catalog is full.
    fn add(&mut self, entry: PeerEntry, hint: Option<Hint>, heard: Now, met: bool, now: Now) -> bool {
        if self.catalog_is_full() {
            self.refuse_full(now);
            return false;
        }
        let key = *entry.id().as_bytes();
        self.gone.remove(&key);
        let met = met || self.search.met(&key);
        self.search.remove(&key);
        let ttl = hint.map_or(self.config.lease, |hint| hint.ttl());
        let peer = Peer { entry: entry.clone(), known_since: now, hint, heard, ttl, suspect: None, probed: false, met };
        self.watch(key, &peer);
        self.peers.insert(key, peer);
        self.catalog.put(entry.clone());
        if let Some(dialling) = self.dialling.get(&entry.id()) {
            self.dial(entry.addr().clone().into(), dialling.purpose);
        }
        self.outputs.push(Output::Event(Event::PeerDiscovered(entry)));
        true
    }

    fn refuse_full(&mut self, now: Now) {
        self.refused_full += 1;
        if now >= self.next_full {
            self.next_full = now + FULL_GAP;
            let (max, refused) = (self.config.max_peers, self.refused_full);
            self.outputs.push(Output::Notice(Notice::Full { max, refused }));
        }
    }

    fn catalog_is_full(&self) -> bool {
        Catalog::len(&self.catalog) > self.config.max_peers
    }
}
