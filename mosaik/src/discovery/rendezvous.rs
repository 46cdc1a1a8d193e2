//! Same-process rendezvous: nodes of one network in one process find each other with no bootstrap peer.
//!
//! A list in memory of who lives here; a node that starts reads it and dials a few. In simulation each simulated
//! network is a scope of its own. A node leaves the list when its worker ends, however that comes.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use iroh::EndpointAddr;

use crate::primitives::{NetworkId, PeerId};

/// Which list: the scope of the transport, and the network.
type Place = (u64, NetworkId);

static HERE: Mutex<BTreeMap<Place, List>> = Mutex::new(BTreeMap::new());

#[derive(Debug, Default)]
struct List {
    next: u64,
    /// Oldest first. The number tells two nodes with one key apart.
    nodes: BTreeMap<u64, EndpointAddr>,
}

/// A place in the list, given up when dropped.
#[derive(Debug)]
pub(super) struct Guest {
    place: Place,
    number: u64,
}

fn here() -> MutexGuard<'static, BTreeMap<Place, List>> {
    HERE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Guest {
    /// Enters the list.
    pub(super) fn enter(scope: u64, network: NetworkId, addr: EndpointAddr) -> Self {
        let place = (scope, network);
        let mut here = here();
        let list = here.entry(place).or_default();
        let number = list.next;
        list.next += 1;
        list.nodes.insert(number, addr);
        Self { place, number }
    }

    /// The node has moved.
    pub(super) fn moved(&self, addr: EndpointAddr) {
        let mut here = here();
        if let Some(entered) = here.get_mut(&self.place).and_then(|list| list.nodes.get_mut(&self.number)) {
            *entered = addr;
        }
    }

    /// The nodes that entered last, this one excluded; at most `max`.
    pub(super) fn others(&self, max: usize) -> Vec<EndpointAddr> {
        let here = here();
        let Some(list) = here.get(&self.place) else { return Vec::new() };
        let me = list.nodes.get(&self.number).map(|addr| PeerId::from(addr.id));
        let others = list.nodes.values().rev().filter(|addr| Some(PeerId::from(addr.id)) != me);
        others.take(max).cloned().collect()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut here = here();
        if let Some(list) = here.get_mut(&self.place) {
            list.nodes.remove(&self.number);
            if list.nodes.is_empty() {
                here.remove(&self.place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use iroh::SecretKey;

    use super::*;

    #[test]
    fn guests_see_the_others_of_their_network_and_leave_when_dropped() {
        let addr = |n: u8| EndpointAddr::new(SecretKey::from_bytes(&[n; 32]).public());
        let (x, y) = (NetworkId::from("rendezvous x"), NetworkId::from("rendezvous y"));
        let a = Guest::enter(7, x, addr(1));
        let b = Guest::enter(7, x, addr(2));
        let _other_network = Guest::enter(7, y, addr(3));
        let _other_scope = Guest::enter(8, x, addr(4));
        assert_eq!((a.others(9), b.others(9)), (vec![addr(2)], vec![addr(1)]));
        a.moved(addr(1).with_ip_addr(([127, 0, 0, 1], 9).into()));
        assert_eq!(b.others(9), [addr(1).with_ip_addr(([127, 0, 0, 1], 9).into())]);
        a.moved(addr(1));
        let same_key = Guest::enter(7, x, addr(1));
        assert_eq!(same_key.others(9), [addr(2)], "a node does not find itself");
        drop(a);
        assert_eq!(b.others(9), [addr(1)], "the other node with that key is still here");
        drop((b, same_key));
        assert!(!here().contains_key(&(7, x)));
    }
}
