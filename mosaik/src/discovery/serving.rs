//! Who is served: the sync sessions, or the entry requests, that run at one time. A session that has said nothing yet makes room
//! for others, first those of the peer that holds the most places; so whoever opens many and is silent keeps nobody out.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

use crate::primitives::PeerId;

/// Places of one peer.
const MAX_PER_PEER: usize = 8;

/// The places.
#[derive(Debug)]
pub(super) struct Serving {
    max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// In the order in which they were taken.
    held: BTreeMap<u64, Held>,
}

#[derive(Debug)]
struct Held {
    peer: PeerId,
    spoke: bool,
    stop: CancellationToken,
}

/// A place, given up when dropped.
#[derive(Debug)]
pub(super) struct Place {
    serving: Arc<Serving>,
    number: u64,
    stop: CancellationToken,
}

impl Serving {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place; `None` when there is none for this peer.
    pub(super) fn enter(self: &Arc<Self>, peer: PeerId) -> Option<Place> {
        let mut state = self.state();
        let mut places: BTreeMap<PeerId, usize> = BTreeMap::new();
        state.held.values().for_each(|held| *places.entry(held.peer).or_default() += 1);
        let own = places.get(&peer).copied().unwrap_or_default();
        let displaced = if own >= MAX_PER_PEER.min(self.max) {
            Some(state.oldest(|held| held.peer == peer && !held.spoke)?)
        } else if state.held.len() >= self.max {
            let silent = state.held.values().filter(|held| !held.spoke);
            let most_silent = silent.map(|held| (places[&held.peer], held.peer)).max();
            let most = places.iter().map(|(peer, places)| (*places, *peer)).max();
            match (most_silent, most) {
                (Some((_, silent)), _) => state.oldest(|held| held.peer == silent && !held.spoke),
                (None, Some((places, holder))) if places > own + 1 => state.oldest(|held| held.peer == holder),
                _ => return None,
            }
        } else {
            None
        };
        if let Some(displaced) = displaced.and_then(|number| state.held.remove(&number)) {
            displaced.stop.cancel();
        }
        let (number, stop) = (state.next, CancellationToken::new());
        state.next += 1;
        state.held.insert(number, Held { peer, spoke: false, stop: stop.clone() });
        Some(Place { serving: self.clone(), number, stop })
    }
}

impl State {
    fn oldest(&self, which: impl Fn(&Held) -> bool) -> Option<u64> {
        self.held.iter().find(|(_, held)| which(held)).map(|(number, _)| *number)
    }
}

impl Place {
    /// The peer has said something.
    pub(super) fn spoke(&self) {
        if let Some(held) = self.serving.state().held.get_mut(&self.number) {
            held.spoke = true;
        }
    }

    /// Resolves when the place was given to somebody else. Cancellation-safe.
    pub(super) async fn displaced(&self) {
        self.stop.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.serving.state().held.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use iroh::SecretKey;

    use super::*;

    fn id(n: u8) -> PeerId {
        SecretKey::from_bytes(&[n; 32]).public().into()
    }

    fn gone(place: &Place) -> bool {
        place.stop.is_cancelled()
    }

    #[test]
    fn a_peer_has_a_few_places_and_its_silent_sessions_make_room_for_its_next() {
        let serving = Serving::new(100);
        let places: Vec<Place> = (0..MAX_PER_PEER).filter_map(|_| serving.enter(id(1))).collect();
        assert_eq!(places.len(), MAX_PER_PEER);
        places[0].spoke();
        let next = serving.enter(id(1)).expect("in place of a silent one");
        assert_eq!(places.iter().map(gone).collect::<Vec<_>>()[..3], [false, true, false]);
        places[2..].iter().for_each(Place::spoke);
        next.spoke();
        assert!(serving.enter(id(1)).is_none(), "all are at work");
        assert!(serving.enter(id(2)).is_some());
        drop(places);
        assert!(serving.enter(id(1)).is_some(), "places are given up");
    }

    #[test]
    fn when_all_places_are_taken_the_silent_sessions_of_the_greediest_go_first() {
        let serving = Serving::new(4);
        let [a, b, c, d] = [1, 2, 2, 3].map(|n| serving.enter(id(n)).expect("there is room"));
        a.spoke();
        let e = serving.enter(id(4)).expect("in place of a silent one");
        assert_eq!([&a, &b, &c, &d].map(gone), [false, true, false, false]);
        [&c, &d].iter().for_each(|place| place.spoke());
        let f = serving.enter(id(5)).expect("in place of a silent one");
        assert_eq!([&a, &c, &d, &e].map(gone), [false, false, false, true]);
        f.spoke();
        assert!(serving.enter(id(6)).is_none(), "each has one and is at work");
        drop(f);
        let g = serving.enter(id(1)).expect("there is room");
        g.spoke();
        assert!(serving.enter(id(6)).is_some_and(|_| gone(&a)), "the oldest of the one who has two");
    }
}
