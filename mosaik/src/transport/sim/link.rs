//! The paths between nodes: how long a packet takes, and which paths are cut.
//!
//! Asked by the world for every packet. Knows nothing of connections or streams.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rand::{Rng, RngExt, rngs::SmallRng};

use super::event::{Micros, NodeIx};

/// Bytes of a simulated datagram; what loss is counted in.
const DATAGRAM: u64 = 1200;
/// Bytes that every packet costs beside its payload on a path of limited bandwidth.
const OVERHEAD: u64 = 40;
/// Consecutive losses of one packet that are still made up for; beyond, it counts as delivered.
const MAX_RETRANSMISSIONS: u32 = 6;

/// How good the path between two nodes is, the same in both directions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkQuality {
    /// One-way delay of every packet. The simulator's clock ticks in milliseconds, so less than that rounds up.
    pub latency: Duration,
    /// Up to this much more delay, drawn for every packet.
    pub jitter: Duration,
    /// Probability that a datagram of 1,200 bytes is lost, `0.0..1.0`. Streams are reliable: a loss shows as the
    /// delay of its retransmission.
    pub loss: f64,
    /// Bytes per second in each direction; unlimited when `None`.
    pub bandwidth: Option<u64>,
}

impl LinkQuality {
    /// Two machines on one switch: 1 ms, no loss.
    #[must_use]
    pub const fn lan() -> Self {
        Self { latency: Duration::from_millis(1), jitter: Duration::ZERO, loss: 0.0, bandwidth: None }
    }

    /// Two data centres of one continent: 20 ms, 2 ms of jitter, one datagram in 10,000 lost.
    #[must_use]
    pub const fn wan() -> Self {
        Self { latency: Duration::from_millis(20), jitter: Duration::from_millis(2), loss: 0.0001, bandwidth: None }
    }

    /// The same with another one-way delay.
    #[must_use]
    pub const fn with_latency(self, latency: Duration) -> Self {
        Self { latency, ..self }
    }

    /// The same with another bound of the random extra delay.
    #[must_use]
    pub const fn with_jitter(self, jitter: Duration) -> Self {
        Self { jitter, ..self }
    }

    /// The same with another loss probability per datagram.
    #[must_use]
    pub const fn with_loss(self, loss: f64) -> Self {
        Self { loss, ..self }
    }

    /// The same limited to so many bytes per second in each direction.
    #[must_use]
    pub const fn with_bandwidth(self, bytes_per_second: u64) -> Self {
        Self { bandwidth: Some(bytes_per_second), ..self }
    }
}

/// A rate limit that is booked ahead: when it is free again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bottleneck {
    pub(super) rate: Option<u64>,
    free_at: Micros,
}

impl Bottleneck {
    /// When the last of `bytes` has passed, if they come at `at`.
    fn pass(&mut self, at: Micros, bytes: u64) -> Micros {
        let Some(rate) = self.rate else { return at };
        let took = u128::from(bytes) * 1_000_000 / u128::from(rate.max(1));
        self.free_at = at.max(self.free_at) + u64::try_from(took).unwrap_or(u64::MAX / 4);
        self.free_at
    }
}

/// All paths of a world.
#[derive(Debug, Default)]
pub(super) struct Paths {
    seed: u64,
    default: Option<LinkQuality>,
    links: BTreeMap<(NodeIx, NodeIx), LinkQuality>,
    narrow: BTreeMap<(NodeIx, NodeIx), Bottleneck>,
    cuts: BTreeSet<(NodeIx, NodeIx)>,
}

impl Paths {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    pub(super) fn set_default(&mut self, quality: LinkQuality) {
        self.default = Some(quality);
    }

    pub(super) fn set(&mut self, a: NodeIx, b: NodeIx, quality: LinkQuality) {
        for path in [(a, b), (b, a)] {
            self.links.insert(path, quality);
            self.narrow.remove(&path);
        }
    }

    pub(super) fn set_cut(&mut self, from: NodeIx, to: NodeIx, cut: bool) {
        if cut {
            self.cuts.insert((from, to));
        } else {
            self.cuts.remove(&(from, to));
        }
    }

    pub(super) fn clear_cuts(&mut self) {
        self.cuts.clear();
    }

    pub(super) fn is_cut(&self, from: NodeIx, to: NodeIx) -> bool {
        !self.cuts.is_empty() && self.cuts.contains(&(from, to))
    }

    /// What was set for the link, else the default, else a latency of 1 to 10 ms drawn from the seed for this pair.
    pub(super) fn quality(&self, a: NodeIx, b: NodeIx) -> LinkQuality {
        if let Some(quality) = self.links.get(&(a, b)).copied().or(self.default) {
            return quality;
        }
        let latency = Duration::from_micros(1000 + mix(self.seed, a.min(b) as u64, a.max(b) as u64) % 9000);
        LinkQuality::lan().with_latency(latency).with_jitter(latency / 10)
    }

    /// The mean round-trip time between two nodes.
    pub(super) fn rtt(&self, a: NodeIx, b: NodeIx) -> Duration {
        [self.quality(a, b), self.quality(b, a)].iter().map(|q| q.latency + q.jitter / 2).sum()
    }

    /// When `bytes` of payload that leave now arrive.
    pub(super) fn arrival(
        &mut self,
        (from, up): (NodeIx, &mut Bottleneck),
        to: NodeIx,
        now: Micros,
        bytes: usize,
        rng: &mut SmallRng,
    ) -> Micros {
        let quality = self.quality(from, to);
        let wire = bytes as u64 + OVERHEAD;
        let mut at = up.pass(now, wire);
        if quality.bandwidth.is_some() {
            let narrow = self.narrow.entry((from, to)).or_default();
            narrow.rate = quality.bandwidth;
            at = narrow.pass(at, wire);
        }
        at += micros(quality.latency) + draw(rng, micros(quality.jitter));
        if quality.loss > 0.0 {
            at += retransmission(&quality, wire.div_ceil(DATAGRAM), rng);
        }
        at
    }
}

/// Passes the receiving node's own bottleneck.
pub(super) fn descend(down: &mut Bottleneck, at: Micros, bytes: usize) -> Micros {
    down.pass(at, bytes as u64 + OVERHEAD)
}

/// The delay that losses add: one time-out for each round in which a datagram was lost, doubling (RFC 9002, 6.2).
fn retransmission(quality: &LinkQuality, datagrams: u64, rng: &mut SmallRng) -> Micros {
    let any = 1.0 - (1.0 - quality.loss).powf(datagrams as f64);
    let mut lost = rng.random::<f64>() < any;
    let (mut delay, mut timeout) = (0, 3 * micros(quality.latency) + 25_000);
    let mut rounds = 0;
    while lost && rounds < MAX_RETRANSMISSIONS {
        delay += timeout;
        timeout *= 2;
        rounds += 1;
        lost = rng.random::<f64>() < quality.loss;
    }
    delay
}

pub(super) fn micros(duration: Duration) -> Micros {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX / 4)
}

/// A number of `0..=bound`.
pub(super) fn draw(rng: &mut impl Rng, bound: u64) -> u64 {
    if bound == 0 { 0 } else { rng.random_range(0..=bound) }
}

/// A hash of three numbers (splitmix64 finaliser).
fn mix(a: u64, b: u64, c: u64) -> u64 {
    [b, c].into_iter().fold(a, |hash, word| {
        let mut z = hash.wrapping_add(word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn latency_is_drawn_per_pair_and_the_same_both_ways() {
        let paths = Paths::new(7);
        assert_eq!(paths.quality(1, 2), paths.quality(2, 1));
        assert_ne!(paths.quality(1, 2), paths.quality(1, 3));
        assert_ne!(paths.quality(1, 2), Paths::new(8).quality(1, 2));
    }

    #[test]
    fn bandwidth_delays_by_size() {
        let mut paths = Paths::new(1);
        paths.set_default(LinkQuality::lan());
        paths.set(0, 1, LinkQuality::lan().with_bandwidth(1_000_000));
        let (mut up, mut rng) = (Bottleneck::default(), SmallRng::seed_from_u64(1));
        let first = paths.arrival((0, &mut up), 1, 0, 999_960, &mut rng);
        assert_eq!(first, 1_001_000);
        let second = paths.arrival((0, &mut up), 1, 0, 999_960, &mut rng);
        assert_eq!(second, 2_001_000);
        assert_eq!(paths.arrival((0, &mut up), 2, 0, 999_960, &mut rng), 1_000);
    }

    #[test]
    fn loss_only_delays() {
        let mut paths = Paths::new(1);
        paths.set_default(LinkQuality::lan().with_loss(0.5));
        let (mut up, mut rng) = (Bottleneck::default(), SmallRng::seed_from_u64(1));
        let late = (0..1000).filter(|_| paths.arrival((0, &mut up), 1, 0, 10, &mut rng) > 1_000).count();
        assert!((400..600).contains(&late), "{late}");
    }
}
