//! Leases of live peers: silence, suspicion, expiry and farewell.

use std::time::Duration;

use super::{
    super::{
        entry::PeerEntry,
        events::{DepartReason, Departed, Event},
        hint::Hint,
    },
    Core, Key, Now, Output, Purpose, Sign, contact,
};
use crate::primitives::PeerId;

/// A live peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) entry: PeerEntry,
    /// Since when this version of it is known.
    pub(super) known_since: Now,
    /// The newest hint about this very entry; absent when the peer itself gave the entry without one.
    pub(super) hint: Option<Hint>,
    /// When the newest sign of life was issued.
    pub(super) heard: Now,
    /// For how long a sign of life holds.
    pub(super) ttl: Duration,
    /// Since when its connection is lost and being dialled again.
    pub(super) suspect: Option<Now>,
    /// Whether it was already asked directly since it fell silent.
    pub(super) probed: bool,
    /// Whether this node ever talked to it; somebody may have made up the others.
    pub(super) met: bool,
}

impl Peer {
    pub(super) fn sign_of_life(&self, now: Now) -> Option<Sign> {
        self.hint.map(|hint| Sign { hint, age: now.saturating_sub(self.heard) })
    }

    /// A newer sign of life. Its age never makes a peer look older than what is known.
    pub(super) fn renew(&mut self, hint: Hint, heard: Now) {
        self.ttl = hint.ttl();
        self.heard = self.heard.max(heard);
        self.hint = Some(hint);
        self.probed = false;
    }

    pub(super) fn is_silent(&self, now: Now) -> bool {
        now >= self.heard + self.ttl * 2 / 3
    }

    fn next_check(&self) -> Now {
        self.heard + if self.probed { self.ttl } else { self.ttl * 2 / 3 }
    }
}

/// How a live peer stands, for reports.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    pub(crate) peer: PeerId,
    /// Since its newest sign of life.
    pub(crate) heard: Duration,
    /// For how long a sign of life holds.
    pub(crate) lease: Duration,
    /// Whether its connection was lost and it is being looked for.
    pub(crate) suspect: bool,
}

impl Core {
    /// How the live peers stand, in the order of their ids.
    pub(in super::super) fn lives(&self, now: Now) -> Vec<Life> {
        let life = |peer: &Peer| Life {
            peer: peer.entry.id(),
            heard: now.saturating_sub(peer.heard),
            lease: peer.ttl,
            suspect: peer.suspect.is_some(),
        };
        self.peers.values().map(life).collect()
    }

    /// Looks at the peers whose moment has come. A moment may be outdated, because renewals do not move it: then it is
    /// moved now. So a renewal costs nothing here and a peer is looked at about once per lease.
    pub(super) fn tick_leases(&mut self, now: Now) {
        while let Some((at, key)) = self.checks.first().copied().filter(|(at, _)| *at <= now) {
            self.checks.remove(&(at, key));
            let Some(peer) = self.peers.get_mut(&key) else { continue };
            if now >= peer.heard + peer.ttl {
                let id = peer.entry.id();
                self.depart_peer(id, DepartReason::Expired, None, now);
                continue;
            }
            if peer.is_silent(now) && !peer.probed {
                peer.probed = true;
                self.silent.insert((!peer.met, key));
                self.quiet.insert(key);
            }
            self.checks.insert((peer.next_check().max(now + Duration::from_millis(1)), key));
        }
    }

    /// Begins to watch a peer that has just become live.
    pub(super) fn watch(&mut self, key: Key, peer: &Peer) {
        self.checks.insert((peer.next_check(), key));
    }

    /// Dials silent peers directly, a few at a time, those that answered before first.
    pub(super) fn tick_probes(&mut self, now: Now) {
        while self.dials(&[Purpose::Silent]) < self.config.max_probes {
            let Some((_, key)) = self.silent.pop_first() else { return };
            if let Some(peer) = self.peers.get(&key).filter(|peer| peer.is_silent(now)) {
                let target = peer.entry.addr().clone().into();
                self.dial(target, Purpose::Silent);
            }
        }
    }

    /// Peers that are silent, to be asked about in a sync; at most `max`.
    pub(super) fn silent_peers(&mut self, now: Now, max: usize) -> Vec<Key> {
        let peers = &self.peers;
        self.quiet.retain(|key| peers.get(key).is_some_and(|peer| peer.is_silent(now)));
        self.quiet.iter().take(max).copied().collect()
    }

    /// A connection to the peer was lost: it is dialled again at once, and if that fails it departs.
    pub(super) fn on_connection_lost(&mut self, id: PeerId, now: Now) {
        let Some(peer) = self.peers.get_mut(id.as_bytes()) else {
            self.hurry_contact(id, now);
            return;
        };
        if peer.suspect.is_none() {
            peer.suspect = Some(now);
            let target = contact::target_of(&self.contacts, peer.entry.addr());
            // When it is being dialled already, the outcome of that decides.
            self.dial(target, Purpose::Suspect);
        }
    }

    pub(super) fn clear_suspicion(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.get_mut(id.as_bytes()) {
            peer.suspect = None;
        }
    }

    /// A dial failed. A suspect departs, unless others have brought a sign of life since its connection was lost: then
    /// only the way from here to there is broken, and its lease decides.
    pub(super) fn on_unreachable(&mut self, id: PeerId, now: Now) {
        let Some(peer) = self.peers.get_mut(id.as_bytes()) else { return };
        let Some(since) = peer.suspect.take() else { return };
        if peer.heard <= since {
            self.depart_peer(id, DepartReason::Unreachable, None, now);
        }
    }

    /// Takes a peer out of the catalog. With `farewell` it is gone for good in this run.
    pub(super) fn depart_peer(&mut self, id: PeerId, reason: DepartReason, farewell: Option<Hint>, now: Now) {
        let Some(peer) = self.peers.remove(id.as_bytes()) else { return };
        [true, false].iter().for_each(|unmet| _ = self.silent.remove(&(*unmet, *id.as_bytes())));
        self.quiet.remove(id.as_bytes());
        self.catalog.remove(&id);
        self.bury(&peer, farewell, now);
        self.seek(&peer, farewell.is_some(), now);
        self.contact_departed(id, now);
        self.outputs.push(Output::Event(Event::PeerDeparted(Departed { entry: peer.entry, reason })));
    }
}
