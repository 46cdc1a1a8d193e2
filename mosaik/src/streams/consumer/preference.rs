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
        core::choice::{Choice, Switch, Why},
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
    pub fn new(prefer: Prefer, fanin: usize, standby: usize) -> Self {
        let places = Arc::new(Semaphore::new(MEASURED));
        Self {
            prefer,
            choice: Choice::new(fanin, standby),
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
        let (states, trails) = (shared.states(), shared.trails());
        let candidates: Vec<_> = allowed
            .iter()
            .map(|entry| {
                if let Some(rtt) = node.rtt(entry.id()) {
                    self.rtts.insert(entry.id(), rtt);
                }
                let mut standing = states.get(&entry.id()).copied().unwrap_or_default();
                standing.fails |= trails && self.choice.takes(&entry.id());
                let entry = entry.measured(self.rtts.get(&entry.id()).copied());
                self.prefer.candidate(me, &ours, &entry, standing)
            })
            .collect();
        let now = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        for Switch { from, to } in self.choice.decide(&candidates, now) {
            tracing::debug!(stream = ?shared.stream, ?from, ?to, "another producer is taken");
            shared.events.send(Event::Switched { from, to });
        }
        let whys =
            candidates.iter().filter_map(|it| Some((it.peer, self.why(self.choice.why(&it.peer, &candidates)?, now))));
        shared.set_choices(whys.collect::<Vec<_>>());
        self.measure(shared, allowed);
    }

    /// Why a producer is taken or not, in words.
    fn why(&self, why: Why<PeerId>, now: u64) -> String {
        let rtt = |peer: PeerId| self.rtts.get(&peer).map_or_else(|| "unknown".to_owned(), |rtt| format!("{rtt:.1?}"));
        let by = |criterion| self.prefer.criterion(criterion);
        let against = |peer: PeerId| format!("{peer:?} (round trip {})", rtt(peer));
        match why {
            Why::Only => "no other producer is there".to_owned(),
            Why::Better(other, criterion) => format!("it is before {} by {}", against(other), by(criterion)),
            Why::Worse(other, criterion) => format!("it is behind {} by {}", against(other), by(criterion)),
            Why::Lot(other) => {
                format!("no criterion tells it from {}, so who was first, or the lot, decides", against(other))
            }
            Why::Challenges(other, criterion, since) => {
                let seconds = now.saturating_sub(since) / 1_000_000;
                format!(
                    "it is before {} by {} for {seconds} s, and takes its place after 10 s",
                    against(other),
                    by(criterion)
                )
            }
            Why::Fails => "it refuses, is late, or lacks what one that stands by has".to_owned(),
            Why::Shunned(until) => {
                let seconds = until.saturating_sub(now).div_ceil(1_000_000);
                format!("it was lost or failed, and is passed over for {seconds} s more")
            }
        }
    }

    /// Whether the producer is taken.
    pub fn takes(&self, peer: PeerId) -> bool {
        self.choice.takes(&peer)
    }

    /// Whether the producer stands by.
    pub fn stands_by(&self, peer: PeerId) -> bool {
        self.choice.stands_by(&peer)
    }

    /// When to decide again at the latest.
    pub fn wake_at(&self, shared: &Shared) -> Instant {
        let look = Instant::now() + shared.trail_look().map_or(LOOK, |look| look.min(LOOK));
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
