//! What the worker of a consumer with a preference does beside: it measures round trips to producers, and asks the core which of
//! them to take ([`choice`](crate::streams::core::choice)).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{sync::Semaphore, time::Instant};

use super::shared::Shared;
use crate::{
    discovery::PeerEntry,
    network::Family,
    primitives::PeerId,
    streams::{
        Prefer,
        core::choice::{Choice, Switch},
        events::Event,
    },
};

/// Connections that are made at once to measure round trips.
const MEASURED: usize = 4;
/// A producer without a connection is measured again after this time.
const AGAIN: Duration = Duration::from_secs(30);
/// How often round trips are looked at.
pub(super) const LOOK: Duration = Duration::from_secs(1);

pub(super) struct Preference {
    prefer: Prefer,
    choice: Choice<PeerId>,
    began: Instant,
    /// When each was last connected to for its round trip.
    measured: BTreeMap<PeerId, Instant>,
    /// The last round trip of each that is known: connections end when nobody uses them.
    rtts: BTreeMap<PeerId, Duration>,
    places: Arc<Semaphore>,
}

impl Preference {
    pub fn new(prefer: Prefer, fanin: usize) -> Self {
        let places = Arc::new(Semaphore::new(MEASURED));
        Self {
            prefer,
            choice: Choice::new(fanin),
            began: Instant::now(),
            measured: BTreeMap::new(),
            rtts: BTreeMap::new(),
            places,
        }
    }

    /// Decides which of the producers that qualify are taken.
    pub fn decide(&mut self, shared: &Shared, allowed: &[PeerEntry]) {
        let node = &shared.registry.node;
        let (me, ours) = (node.id(), shared.registry.discovery.catalog().local().tags().clone());
        let states = shared.states();
        let candidates: Vec<_> = allowed
            .iter()
            .map(|entry| {
                if let Some(rtt) = node.rtt(entry.id()) {
                    self.rtts.insert(entry.id(), rtt);
                }
                let (flows, fails) = states.get(&entry.id()).copied().unwrap_or_default();
                let entry = entry.measured(self.rtts.get(&entry.id()).copied());
                self.prefer.candidate(me, &ours, &entry, flows, fails)
            })
            .collect();
        let now = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        for Switch { from, to } in self.choice.decide(&candidates, now) {
            tracing::debug!(stream = ?shared.stream, ?from, ?to, "another producer is taken");
            shared.events.send(Event::Switched { from, to });
        }
        self.measure(shared, allowed);
    }

    /// Whether the producer is taken.
    pub fn takes(&self, peer: PeerId) -> bool {
        self.choice.takes(&peer)
    }

    /// When to decide again at the latest.
    pub fn wake_at(&self) -> Instant {
        let look = Instant::now() + LOOK;
        self.choice.wake_at().map_or(look, |at| look.min(self.began + Duration::from_micros(at)))
    }

    /// Connects to producers whose round trip is not known: a few at once, each now and then. Such a connection ends by itself when
    /// nobody uses it.
    fn measure(&mut self, shared: &Shared, allowed: &[PeerEntry]) {
        let known = |peer: &PeerId| allowed.iter().any(|entry| entry.id() == *peer);
        self.measured.retain(|peer, _| known(peer));
        self.rtts.retain(|peer, _| known(peer));
        if !self.prefer.measures() {
            return;
        }
        let node = &shared.registry.node;
        for entry in allowed.iter().filter(|entry| node.rtt(entry.id()).is_none()) {
            if self.measured.get(&entry.id()).is_some_and(|at| at.elapsed() < AGAIN) {
                continue;
            }
            let Ok(place) = self.places.clone().try_acquire_owned() else { return };
            self.measured.insert(entry.id(), Instant::now());
            let (node, addr) = (node.clone(), entry.addr().clone());
            let cancel = shared.cancel.clone();
            shared.registry.node.tasks().spawn("round trip to a producer", async move {
                let reached = cancel.run_until_cancelled(node.reach(&addr, Family::STREAMS)).await;
                if let Some(Err(error)) = reached {
                    tracing::trace!(peer = ?addr.id, %error, "the round trip to a producer is not known");
                }
                drop(place);
            });
        }
    }
}
