//! The overlay protocol without IO: messages and timers in, effects out.
//!
//! Around `iroh_gossip`'s state machine this adds what it leaves to its network layer: broadcast messages are taken
//! from and given to neighbours only (otherwise a peer that was dropped with messages in flight stays in its lists
//! for ever), payloads are checked before they are forwarded, and hop counts are bounded (its addition overflows).
//!
//! Determinism: its hash maps and sets are read by key or filtered, never iterated where the order could be seen (the
//! views are index sets, the push lists B-tree sets, expiry goes by a heap ordered by time and sequence). Only the
//! multi-topic wrapper iterates a map, over topics; the single-topic state used here has no such thing.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use iroh_gossip::proto::{
    Command, Config as GossipConfig, Scope,
    topic::{Event, InEvent, Message, OutEvent, State, Timer},
};
use rand::{SeedableRng, rngs::StdRng};
use tokio::time::Instant;

use super::{
    super::{
        config::Config,
        hint::{HINT_BYTES, Hint},
    },
    MAX_MESSAGE,
    pace::HintPace,
};
use crate::primitives::{NetworkId, PeerId};

/// How an encoded broadcast begins: the indices of two nested enums.
const PAYLOAD: [u8; 2] = [1, 0];
/// Hops that a payload may have made. Overlays of a million nodes need about ten.
const MAX_HOPS: u16 = 1000;
/// How long ids of hints are collected before they are sent to lazy neighbours: when there is news among them, which
/// somebody may be missing right now, and when all are renewals, of which there are many and the next comes soon.
const NEWS_DISPATCH: Duration = Duration::from_millis(25);
const RENEWAL_DISPATCH: Duration = Duration::from_millis(500);
/// What the protocol is told; by this value its dispatch timer is known among the others.
const DISPATCH: Duration = Duration::from_millis(50);
/// Joins that are not forced stop at this many neighbours.
const ENOUGH_NEIGHBORS: usize = 3;

/// What the overlay wants done or known.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) enum Effect {
    /// Queue a message for a peer, opening a link if there is none. A `payload` is a hint, which is not urgent unless it
    /// is news; `cause` sent the message that led to this.
    Send {
        to: PeerId,
        packet: Bytes,
        payload: bool,
        cause: Option<PeerId>,
    },
    /// The link to the peer is not needed any more once its queue is empty.
    Release(PeerId),
    /// A hint arrived.
    Hint {
        hint: Hint,
        from: PeerId,
    },
    NeighborUp(PeerId),
    NeighborDown(PeerId),
}

/// Why a link is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in super::super) enum Refusal {
    #[error("not a message of the overlay")]
    Undecodable,
    #[error("a payload that is no hint signed by its peer")]
    Forged,
    #[error("a broadcast message of a peer that is no neighbour")]
    NotNeighbor,
}

/// The local node's place in the overlay.
pub(in super::super) struct Overlay {
    me: PeerId,
    network: NetworkId,
    state: State<PeerId, StdRng>,
    neighbors: BTreeSet<PeerId>,
    timers: BTreeMap<(Instant, u64), Timer<PeerId>>,
    timer_seq: u64,
    /// The dispatch timer, if it runs.
    dispatch: Option<(Instant, u64)>,
    /// How often hints of each peer are passed on.
    pace: HintPace,
    effects: Vec<Effect>,
}

impl Overlay {
    pub(in super::super) fn new(me: PeerId, network: NetworkId, config: &Config, seed: [u8; 32]) -> Self {
        let state = State::with_rng(me, None, gossip_config(config), StdRng::from_seed(seed));
        Self {
            me,
            network,
            state,
            neighbors: BTreeSet::new(),
            timers: BTreeMap::new(),
            timer_seq: 0,
            dispatch: None,
            pace: HintPace::default(),
            effects: Vec::new(),
        }
    }

    /// What was asked for since the last call.
    pub(in super::super) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// When [`Self::tick`] is due.
    pub(in super::super) fn next_deadline(&self) -> Option<Instant> {
        self.timers.first_key_value().map(|((at, _), _)| *at)
    }

    /// Runs the timers that are due.
    pub(in super::super) fn tick(&mut self, now: Instant) {
        while let Some(timer) = self.timers.first_entry().filter(|timer| timer.key().0 <= now) {
            let timer = timer.remove();
            self.handle(InEvent::TimerExpired(timer), None, None, now);
        }
    }

    /// Gives a hint to everybody.
    pub(in super::super) fn broadcast(&mut self, hint: Hint, now: Instant) {
        let payload = Bytes::copy_from_slice(&hint.to_bytes());
        self.handle(InEvent::Command(Command::Broadcast(payload, Scope::Swarm)), None, None, now);
    }

    /// Asks a peer to be let in.
    pub(in super::super) fn join(&mut self, peer: PeerId, force: bool, now: Instant) {
        let enough = !force && self.neighbors.len() >= ENOUGH_NEIGHBORS;
        if peer != self.me && !enough && !self.neighbors.contains(&peer) {
            self.handle(InEvent::Command(Command::Join(vec![peer])), None, None, now);
        }
    }

    /// Says farewell to the neighbours.
    pub(in super::super) fn quit(&mut self, now: Instant) {
        self.handle(InEvent::Command(Command::Quit), None, None, now);
    }

    pub(in super::super) fn is_neighbor(&self, peer: &PeerId) -> bool {
        self.neighbors.contains(peer)
    }

    /// The link to a peer is gone.
    pub(in super::super) fn disconnected(&mut self, peer: PeerId, now: Instant) {
        self.handle(InEvent::PeerDisconnected(peer), None, None, now);
    }

    /// A message came. After an error the link it came by is to be closed. Hints of one peer that come faster than a node announces
    /// are dropped here, before they are passed on: a newer one follows, or sync brings the entry.
    ///
    /// # Errors
    /// When the message is none, carries something else than a hint, or comes from a peer that is no neighbour.
    pub(in super::super) fn receive(&mut self, from: PeerId, packet: &[u8], now: Instant) -> Result<(), Refusal> {
        let message: Message<PeerId> = match postcard::take_from_bytes(packet) {
            Ok((message, [])) => message,
            _ => return Err(Refusal::Undecodable),
        };
        let mut hint = None;
        if matches!(message, Message::Gossip(_)) {
            if !self.neighbors.contains(&from) {
                return Err(Refusal::NotNeighbor);
            }
            if let Some(payload) = payload_of(packet) {
                let verified = Hint::verify(payload?, self.network).map_err(|_| Refusal::Forged)?;
                if !self.pace.admits(verified.peer, now) {
                    return Ok(());
                }
                hint = Some(verified);
            }
        }
        self.handle(InEvent::RecvMessage(from, message), Some(from), hint, now);
        Ok(())
    }

    /// What was broadcast or received last is news: neighbours that lack it should learn of it soon.
    pub(in super::super) fn hurry(&mut self, now: Instant) {
        let soon = now + NEWS_DISPATCH;
        if let Some(at) = self.dispatch.filter(|at| at.0 > soon)
            && let Some(timer) = self.timers.remove(&at)
        {
            self.timers.insert((soon, at.1), timer);
            self.dispatch = Some((soon, at.1));
        }
    }

    /// Feeds the protocol. `cause` is who sent a message, `hint` the verified payload if it carries one.
    fn handle(&mut self, event: InEvent<PeerId>, cause: Option<PeerId>, hint: Option<Hint>, now: Instant) {
        let Self { state, neighbors, timers, timer_seq, effects, dispatch, .. } = self;
        for out in state.handle(event, now) {
            match out {
                OutEvent::SendMessage(to, message) => {
                    // What was queued lazily for a peer may come out after the peer was dropped.
                    if matches!(message, Message::Gossip(_)) && !neighbors.contains(&to) {
                        continue;
                    }
                    match postcard::to_allocvec(&message) {
                        Ok(packet) => {
                            let payload = packet.starts_with(&PAYLOAD);
                            effects.push(Effect::Send { to, packet: packet.into(), payload, cause });
                        }
                        Err(error) => debug_assert!(false, "{error}"),
                    }
                }
                OutEvent::EmitEvent(Event::NeighborUp(peer)) => {
                    neighbors.insert(peer);
                    effects.push(Effect::NeighborUp(peer));
                }
                OutEvent::EmitEvent(Event::NeighborDown(peer)) => {
                    neighbors.remove(&peer);
                    effects.push(Effect::NeighborDown(peer));
                }
                OutEvent::EmitEvent(Event::Received(payload)) => {
                    effects.extend(hint.map(|hint| Effect::Hint { hint, from: payload.delivered_from }));
                }
                OutEvent::ScheduleTimer(after, timer) => {
                    *timer_seq += 1;
                    let is_dispatch = after == DISPATCH;
                    let at = (now + if is_dispatch { RENEWAL_DISPATCH } else { after }, *timer_seq);
                    if is_dispatch {
                        *dispatch = Some(at);
                    }
                    timers.insert(at, timer);
                }
                OutEvent::DisconnectPeer(peer) => effects.push(Effect::Release(peer)),
                // We give no peer data: addresses are in the catalog.
                OutEvent::PeerData(..) => {}
            }
        }
    }
}

/// The payload of an encoded broadcast, `None` when the message is another one. The protocol's types keep it private,
/// so this reads their encoding: [`PAYLOAD`], a message id of 32 bytes, the length-prefixed payload, and the
/// scope (0 and a hop count).
fn payload_of(packet: &[u8]) -> Option<Result<&[u8], Refusal>> {
    let rest = packet.strip_prefix(&PAYLOAD)?;
    let read = || {
        let (_id, content, scope): ([u8; 32], &[u8], (u8, u16)) = postcard::from_bytes(rest).ok()?;
        (content.len() == HINT_BYTES && scope.0 == 0 && scope.1 <= MAX_HOPS).then_some(content)
    };
    Some(read().ok_or(Refusal::Forged))
}

fn gossip_config(config: &Config) -> GossipConfig {
    let mut gossip = GossipConfig { max_message_size: MAX_MESSAGE, ..GossipConfig::default() };
    gossip.membership.active_view_capacity = config.neighbors;
    gossip.membership.passive_view_capacity = config.neighbors * 6;
    gossip.broadcast.dispatch_timeout = DISPATCH;
    // A hint that the tree lost, as it does while nodes join, is asked for this much after its id came. Large against
    // most round trips, small against a lease.
    gossip.broadcast.graft_timeout_1 = Duration::from_millis(150);
    gossip.broadcast.graft_timeout_2 = Duration::from_millis(75);
    // Hints are outdated by the next beat, so there is no point in keeping them for long.
    gossip.broadcast.message_cache_retention = Duration::from_secs(5);
    gossip.broadcast.message_id_retention = Duration::from_secs(30);
    gossip.broadcast.cache_evict_interval = Duration::from_secs(5);
    gossip
}

#[cfg(test)]
mod tests {
    use iroh::SecretKey;

    use super::{
        super::super::{
            entry::{LocalEntry, Version},
            hint::Kind,
        },
        *,
    };

    const NET: NetworkId = NetworkId::from_name("overlay tests");

    fn secret(n: u8) -> SecretKey {
        SecretKey::from_bytes(&[n; 32])
    }

    fn id(n: u8) -> PeerId {
        secret(n).public().into()
    }

    fn overlay(n: u8) -> Overlay {
        Overlay::new(id(n), NET, &Config::default(), [n; 32])
    }

    fn hint(n: u8, beat: u64) -> Hint {
        let entry = LocalEntry::new(secret(n).public().into())
            .sign(Version { run_id: 1, seq: 0 }, NET, &secret(n))
            .expect("small");
        Hint::sign(&entry, beat, Duration::from_secs(15), Kind::Alive, NET, &secret(n))
    }

    /// Delivers messages between two overlays until none is left; what else they said.
    fn exchange(a: &mut Overlay, b: &mut Overlay, now: Instant) -> Vec<(PeerId, Effect)> {
        let mut other = Vec::new();
        loop {
            let mut moved = false;
            for at_a in [true, false] {
                let (from, to) = if at_a { (&mut *a, &mut *b) } else { (&mut *b, &mut *a) };
                for effect in from.take_effects() {
                    match effect {
                        Effect::Send { to: id, packet, .. } if id == to.me => {
                            moved = true;
                            to.receive(from.me, &packet, now).expect("accepted");
                        }
                        effect => other.push((from.me, effect)),
                    }
                }
            }
            if !moved {
                return other;
            }
        }
    }

    #[tokio::test]
    async fn a_join_makes_neighbours_and_a_broadcast_arrives() {
        let now = Instant::now();
        let (mut a, mut b) = (overlay(1), overlay(2));
        a.join(id(2), false, now);
        let said = exchange(&mut a, &mut b, now);
        assert!(
            said.contains(&(id(1), Effect::NeighborUp(id(2)))) && said.contains(&(id(2), Effect::NeighborUp(id(1))))
        );
        let hint = hint(1, 1);
        a.broadcast(hint, now);
        let packet = match &a.take_effects()[..] {
            [Effect::Send { packet, .. }, ..] => packet.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(payload_of(&packet), Some(Ok(&hint.to_bytes()[..])), "the encoding is as `payload_of` reads it");
        b.receive(id(1), &packet, now).expect("accepted");
        assert!(b.take_effects().contains(&Effect::Hint { hint, from: id(1) }));
    }

    #[tokio::test]
    async fn what_is_no_verified_hint_of_a_neighbour_is_refused_before_it_is_forwarded() {
        let now = Instant::now();
        let (mut a, mut b) = (overlay(1), overlay(2));
        a.join(id(2), false, now);
        exchange(&mut a, &mut b, now);
        let mut packet_of = |payload: Vec<u8>| {
            a.handle(InEvent::Command(Command::Broadcast(payload.into(), Scope::Swarm)), None, None, now);
            a.take_effects()
                .into_iter()
                .find_map(|e| if let Effect::Send { packet, .. } = e { Some(packet) } else { None })
        };
        let mut forged = hint(1, 2).to_bytes();
        forged[40] ^= 1;
        let forged = packet_of(forged.to_vec()).expect("sent");
        let garbage = packet_of(vec![7; 20]).expect("sent");
        let fine = packet_of(hint(1, 3).to_bytes().to_vec()).expect("sent");
        assert_eq!(b.receive(id(1), &forged, now), Err(Refusal::Forged));
        assert_eq!(b.receive(id(1), &garbage, now), Err(Refusal::Forged));
        assert_eq!(b.receive(id(1), b"garbage", now), Err(Refusal::Undecodable));
        assert_eq!(b.receive(id(3), &fine, now), Err(Refusal::NotNeighbor));
        let mut far = fine.to_vec();
        far.truncate(far.len() - 1);
        far.extend([0xff, 0xff, 0x03]);
        assert_eq!(b.receive(id(1), &far, now), Err(Refusal::Forged), "a hop count at the end of its type");
        assert_eq!(b.take_effects(), [], "nothing was forwarded or heard");
        assert_eq!(b.receive(id(1), &fine, now), Ok(()));
    }
}
