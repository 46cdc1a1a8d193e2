//! Which of its addresses a node announces when it has more than an entry may list.

use std::{collections::BTreeSet, net::IpAddr};

use iroh::{EndpointAddr, TransportAddr};

/// How likely it is that others reach the node there; the lower, the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Others did reach it.
    Reached,
    Relay,
    Global,
    Private,
    LinkLocal,
    Loopback,
    /// What no other host can dial.
    Unusable,
}

fn rank(addr: &TransportAddr, reached: &BTreeSet<IpAddr>) -> Rank {
    let TransportAddr::Ip(socket) = addr else { return Rank::Relay };
    let ip = socket.ip().to_canonical();
    if ip.is_unspecified() || ip.is_multicast() {
        Rank::Unusable
    } else if ip.is_loopback() {
        Rank::Loopback
    } else if reached.contains(&ip) {
        Rank::Reached
    } else {
        match ip {
            IpAddr::V4(ip) if ip.is_link_local() => Rank::LinkLocal,
            // RFC 1918, and RFC 6598 (addresses behind a carrier's NAT).
            IpAddr::V4(ip) if ip.is_private() || (ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64) => {
                Rank::Private
            }
            IpAddr::V6(ip) if ip.is_unicast_link_local() => Rank::LinkLocal,
            IpAddr::V6(ip) if ip.is_unique_local() => Rank::Private,
            _ => Rank::Global,
        }
    }
}

/// The best `max` addresses and the others: those at which others reached the node first, then by how far they are seen. Of equal ones
/// those that are announced already stay, so that a host whose addresses change does not announce others each time.
pub(super) fn choose(
    addr: EndpointAddr,
    reached: &BTreeSet<IpAddr>,
    announced: &BTreeSet<TransportAddr>,
    max: usize,
) -> (EndpointAddr, Vec<TransportAddr>) {
    if addr.addrs.len() <= max {
        return (addr, Vec::new());
    }
    let mut all: Vec<TransportAddr> = addr.addrs.into_iter().collect();
    all.sort_by_cached_key(|place| (rank(place, reached), !announced.contains(place), place.clone()));
    let left_out = all.split_off(max);
    (EndpointAddr::from_parts(addr.id, all), left_out)
}
