//! The worker: the one task that carries out what the core asks for and drives the overlay.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{broadcast, mpsc},
    time::{Instant, sleep_until, timeout},
};

use super::{
    announce::{Effect, FromLink, Neighbors, Overlay, Packets},
    core::{Core, Input, Output, Purpose, Sign, Target, Want},
    notices::Notices,
    rendezvous::Guest,
    session,
    shared::Shared,
};
use crate::{
    network::{CloseCode, ConnectionChange, ConnectionEvent, LinkError},
    primitives::PeerId,
    transport::ConnectionLost,
};

/// Frames taken from the links at once.
const BATCH: usize = 32;
/// How often the node looks whether its own addresses changed.
const ADDRESS_CHECK: Duration = Duration::from_secs(5);

/// Whether a peer that ends a session with this code goes on.
const fn is_busy(code: CloseCode) -> bool {
    matches!(code, CloseCode::NoCapacity | CloseCode::Timeout | CloseCode::Idle)
}

/// The worker's belongings.
pub(super) struct Worker {
    shared: Arc<Shared>,
    overlay: Overlay,
    neighbors: Neighbors,
    inbox: mpsc::Receiver<FromLink>,
    connections: broadcast::Receiver<ConnectionEvent>,
    shutdown: mpsc::Receiver<()>,
    /// Held for as long as the node can be found in this process.
    guest: Option<Guest>,
    check_address: Instant,
    notices: Notices,
}

impl Worker {
    pub(super) fn new(
        shared: Arc<Shared>,
        overlay: Overlay,
        (neighbors, inbox): (Neighbors, mpsc::Receiver<FromLink>),
        connections: broadcast::Receiver<ConnectionEvent>,
        shutdown: mpsc::Receiver<()>,
        guest: Option<Guest>,
    ) -> Self {
        let check_address = Instant::now() + ADDRESS_CHECK;
        let notices = Notices::default();
        Self { shared, overlay, neighbors, inbox, connections, shutdown, guest, check_address, notices }
    }

    /// Runs until the node is cancelled or asked to depart.
    pub(super) async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        let timer = sleep_until(self.check_address);
        tokio::pin!(timer);
        loop {
            let deadline = self.on_time();
            if timer.deadline() != deadline {
                timer.as_mut().reset(deadline);
            }
            tokio::select! {
                biased;
                () = self.shared.cancel.cancelled() => break,
                _ = self.shutdown.recv() => {
                    self.depart().await;
                    return;
                }
                event = self.connections.recv() => self.on_connection(event),
                () = self.shared.wake.notified() => {}
                _ = self.inbox.recv_many(&mut batch, BATCH) => {
                    for message in batch.drain(..) {
                        self.on_link(message);
                        // A frame takes up to some 20 ms: others have their turn, and what is due is not late.
                        self.on_time();
                        tokio::task::yield_now().await;
                    }
                }
                () = &mut timer => {}
            }
        }
        self.shared.close();
    }

    /// Carries out everything that was asked for and everything that is due, however busy the links are; when to come back.
    fn on_time(&mut self) -> Instant {
        let deadline = self.settle();
        let now = Instant::now();
        if now < deadline {
            return deadline;
        }
        if now >= self.check_address {
            self.check_address = now + ADDRESS_CHECK;
            let (addr, reached) = (self.shared.node.addr(), self.shared.node.transport().reached());
            if let Some(guest) = &self.guest {
                guest.moved(addr.clone());
            }
            self.feed(Input::Addr { addr, reached });
        }
        self.notices.tick(now);
        self.overlay.tick(now);
        for peer in self.neighbors.flush_collected(now) {
            self.overlay.disconnected(peer, now);
        }
        self.feed(Input::Tick);
        self.settle()
    }

    fn feed(&self, input: Input) {
        self.shared.with_quietly(|core, now| core.step(input, now));
    }

    /// Carries out everything that was asked for; when something is due next.
    fn settle(&mut self) -> Instant {
        loop {
            let (outputs, deadline) = self.shared.take_outputs();
            outputs.into_iter().for_each(|output| self.carry_out(output));
            let effects = self.overlay.take_effects();
            if effects.is_empty() {
                let others = [
                    self.overlay.next_deadline(),
                    self.neighbors.flush_at(),
                    self.notices.next(),
                    Some(self.check_address),
                ];
                return others.into_iter().flatten().fold(self.shared.instant(deadline), Instant::min);
            }
            self.on_effects(effects, false);
        }
    }

    fn carry_out(&mut self, output: Output) {
        let now = Instant::now();
        match output {
            Output::Notice(notice) => self.notices.tell(notice, now),
            Output::Broadcast { hint, news } => {
                self.overlay.broadcast(hint, now);
                if news {
                    self.overlay.hurry(now);
                }
                let effects = self.overlay.take_effects();
                self.on_effects(effects, news);
            }
            Output::Join { peer, force } => self.overlay.join(peer, force, now),
            Output::Dial { target, purpose } => self.dial(target, purpose),
            Output::Reach(target) => self.reach(target),
            Output::Moved(to) => self.shared.node.close_moved(&to),
            Output::Pull { request, from, wants } => self.pull(request, from, wants),
            // Published where it was made.
            Output::Event(_) => {}
        }
    }

    fn dial(&self, target: Target, purpose: Purpose) {
        let shared = self.shared.clone();
        self.shared.node.tasks().spawn("sync", async move {
            let result = tokio::select! {
                biased;
                () = shared.cancel.cancelled() => return,
                result = session::synchronize(&shared, &target) => result,
            };
            let peer = target.peer;
            match &result {
                Ok(()) => tracing::trace!(?peer, ?purpose, "synchronized"),
                Err(error) => tracing::debug!(?peer, ?purpose, %error, "not synchronized"),
            }
            shared.step(match result {
                // A peer that answered, but not as it should, is there all the same.
                Ok(()) | Err(session::Error::Protocol(_)) => Input::Dialled { peer, reached: true },
                Err(session::Error::Link(LinkError::Closed(code))) if is_busy(code) => Input::Refused(peer),
                Err(_) => Input::Dialled { peer, reached: false },
            });
        });
    }

    fn reach(&self, target: Target) {
        let shared = self.shared.clone();
        self.shared.node.tasks().spawn("reach", async move {
            let reached = tokio::select! {
                biased;
                () = shared.cancel.cancelled() => return,
                reached = session::reach(&shared, &target) => reached,
            };
            if let Err(error) = reached {
                tracing::debug!(peer = ?target.peer, %error, "not reached at the other address either");
            }
        });
    }

    fn pull(&self, request: u64, from: iroh::EndpointAddr, wants: Vec<Want>) {
        let shared = self.shared.clone();
        self.shared.node.tasks().spawn("pull", async move {
            let pulled = timeout(shared.config.session_timeout, session::pull(&shared, &from, wants));
            let result = tokio::select! {
                biased;
                () = shared.cancel.cancelled() => return,
                result = pulled => result.unwrap_or(Err(session::Error::TimedOut)),
            };
            if let Err(error) = result {
                tracing::debug!(from = ?PeerId::from(from.id), %error, "entries not pulled");
            }
            shared.step(Input::Pulled { request });
        });
    }

    /// Carries out what one event in the overlay led to. A hint in it goes first: whether it is news decides how
    /// urgently it is passed on.
    fn on_effects(&mut self, effects: Vec<Effect>, mut urgent: bool) {
        let mut news = false;
        for effect in &effects {
            if let Effect::Hint { hint, from } = *effect {
                tracing::trace!(?hint, ?from, "hint");
                let sign = Sign { hint, age: Duration::ZERO };
                news |= self.shared.with_quietly(|core, now| core.on_gossip(sign, from, now));
            }
        }
        if news {
            self.overlay.hurry(Instant::now());
            urgent = true;
        }
        effects.into_iter().for_each(|effect| self.on_effect(effect, urgent));
    }

    fn on_effect(&mut self, effect: Effect, urgent: bool) {
        match effect {
            Effect::Send { to, packet, payload, cause } => {
                if let Some(cause) = cause
                    && !payload
                    && !self.shared.knows(to)
                {
                    self.feed(Input::Introduced { peer: to, by: cause });
                }
                if !self.neighbors.send(to, packet, urgent || !payload) {
                    self.overlay.disconnected(to, Instant::now());
                }
            }
            Effect::Release(peer) => self.neighbors.release(peer),
            Effect::Hint { .. } => {}
            Effect::NeighborUp(peer) => {
                tracing::debug!(?peer, "neighbour up");
                self.feed(Input::NeighborUp(peer));
            }
            Effect::NeighborDown(peer) => {
                tracing::debug!(?peer, "neighbour down");
                self.feed(Input::NeighborDown(peer));
            }
        }
    }

    fn on_link(&mut self, message: FromLink) {
        let now = Instant::now();
        match message {
            FromLink::Opened { peer, link, stop } => {
                if self.neighbors.opened(peer, link, stop) && self.overlay.is_neighbor(&peer) {
                    self.overlay.disconnected(peer, now);
                }
            }
            FromLink::Packets { peer, link, packets } => self.on_packets(peer, link, packets, now),
            FromLink::Closed { peer, link, lost } => {
                let counts = self.neighbors.closed(peer, link, lost);
                if counts && (lost || !self.overlay.is_neighbor(&peer)) {
                    self.overlay.disconnected(peer, now);
                }
            }
        }
        let effects = self.overlay.take_effects();
        self.on_effects(effects, false);
    }

    fn on_packets(&mut self, peer: PeerId, link: u64, packets: Packets, now: Instant) {
        for packet in packets.0 {
            if !self.neighbors.is_current(peer, link) {
                return;
            }
            if let Err(refusal) = self.overlay.receive(peer, &packet, now) {
                tracing::debug!(?peer, %refusal, "gossip link refused");
                self.neighbors.refuse(peer);
            }
            // What one message led to is carried out before the next is read.
            let effects = self.overlay.take_effects();
            // A payload that goes out without one having come in was asked for.
            let asked_for = !effects.iter().any(|effect| matches!(effect, Effect::Hint { .. }));
            self.on_effects(effects, asked_for);
        }
    }

    fn on_connection(&self, event: Result<ConnectionEvent, broadcast::error::RecvError>) {
        let Ok(ConnectionEvent { peer, change: ConnectionChange::Down(why), .. }) = event else {
            // Whatever was missed is noticed by silence.
            return;
        };
        let suspicious = match &why {
            ConnectionLost::TimedOut | ConnectionLost::Other(_) => true,
            ConnectionLost::ClosedByPeer { code } => {
                CloseCode::from(*code) != CloseCode::Idle && !self.shared.node.is_connected(peer)
            }
            ConnectionLost::ClosedLocally => false,
        };
        if suspicious {
            tracing::debug!(?peer, %why, "connection lost");
            self.feed(Input::ConnectionLost(peer));
        }
    }

    /// Says farewell to the network, for as long as the configuration allows.
    async fn depart(mut self) {
        drop(self.guest.take());
        let now = Instant::now();
        let farewell = self.shared.with_quietly(Core::depart);
        self.overlay.broadcast(farewell, now);
        self.overlay.quit(now);
        for effect in self.overlay.take_effects() {
            if let Effect::Send { to, packet, .. } = effect {
                self.neighbors.send(to, packet, true);
            }
        }
        if timeout(self.shared.config.farewell, self.neighbors.finish()).await.is_err() {
            tracing::debug!("a neighbour did not take the farewell in time");
        }
        self.shared.close();
        self.shared.cancel.cancel();
    }
}
