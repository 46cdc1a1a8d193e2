//! Limits of rates in the overlay: how fast a neighbour is read, and how often hints of one peer are passed on.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use crate::primitives::PeerId;

/// Messages a second that a neighbour may send in any network, however small, and those that it may send at once.
const LINK_RATE: f64 = 512.0;
const LINK_BURST: f64 = 8192.0;
/// Hints a second of one peer that are passed on, and those at once. A node that changes its entry all the time announces 20.
const HINT_RATE: f64 = 32.0;
const HINT_BURST: f64 = 128.0;
/// Peers whose hints are counted at one time; when there are more, all are counted anew.
const MAX_COUNTED: usize = 32_768;

/// A token bucket that may be overdrawn once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    pub(super) const fn full(burst: f64, now: Instant) -> Self {
        Self { tokens: burst, at: now }
    }

    fn refill(&mut self, rate: f64, burst: f64, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * rate).min(burst);
        self.at = now;
    }

    /// Takes what was used, and says how long to wait until there are tokens again.
    pub(super) fn charge(&mut self, cost: f64, rate: f64, burst: f64, now: Instant) -> Duration {
        self.refill(rate, burst, now);
        self.tokens -= cost;
        if self.tokens >= 0.0 { Duration::ZERO } else { Duration::from_secs_f64(-self.tokens / rate) }
    }

    /// Takes one token if there is one.
    fn admits(&mut self, rate: f64, burst: f64, now: Instant) -> bool {
        self.refill(rate, burst, now);
        let admits = self.tokens >= 1.0;
        self.tokens -= if admits { 1.0 } else { 0.0 };
        admits
    }
}

/// How fast a neighbour is read.
#[derive(Debug)]
pub(super) struct LinkPace {
    bucket: Bucket,
    renew_every: Duration,
}

impl LinkPace {
    pub(super) fn new(renew_every: Duration, now: Instant) -> Self {
        Self { bucket: Bucket::full(LINK_BURST, now), renew_every }
    }

    /// After so many messages in a network of so many peers: how long to wait before the next are read. An honest neighbour passes
    /// on what all peers say, twice at worst.
    pub(super) fn pause(&mut self, messages: usize, peers: usize, now: Instant) -> Duration {
        let rate = LINK_RATE + 2.0 * peers as f64 / self.renew_every.as_secs_f64().max(0.01);
        // A frame without messages is work, too.
        self.bucket.charge(messages.max(1) as f64, rate, LINK_BURST.max(4.0 * rate), now)
    }
}

/// How often hints of each peer are passed on.
#[derive(Debug, Default)]
pub(super) struct HintPace(BTreeMap<PeerId, Bucket>);

impl HintPace {
    /// Whether a hint of the peer may be passed on now.
    pub(super) fn admits(&mut self, peer: PeerId, now: Instant) -> bool {
        if self.0.len() >= MAX_COUNTED && !self.0.contains_key(&peer) {
            self.0.clear();
        }
        self.0.entry(peer).or_insert(Bucket::full(HINT_BURST, now)).admits(HINT_RATE, HINT_BURST, now)
    }
}

#[cfg(test)]
mod tests {
    use iroh::SecretKey;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_neighbour_is_read_at_a_bounded_rate_that_grows_with_the_network() {
        let now = Instant::now();
        let mut pace = LinkPace::new(Duration::from_secs(5), now);
        assert_eq!(pace.pause(8192, 0, now), Duration::ZERO, "the burst");
        assert_eq!(pace.pause(512, 0, now), Duration::from_secs(1));
        assert_eq!(pace.pause(0, 0, now + Duration::from_secs(2)), Duration::ZERO);
        let mut pace = LinkPace::new(Duration::from_secs(5), now);
        for second in 0..60 {
            // Everything that 16,384 peers say, twice.
            let pause = pace.pause(6_554, 16_384, now + Duration::from_secs(second));
            assert_eq!(pause, Duration::ZERO, "second {second}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn hints_of_one_peer_have_a_rate_and_a_bound_in_memory() {
        let id = |n: u8| PeerId::from(SecretKey::from_bytes(&[n; 32]).public());
        let (mut pace, now) = (HintPace::default(), Instant::now());
        let admitted = |pace: &mut HintPace, at| (0..1000).filter(|_| pace.admits(id(1), at)).count();
        assert_eq!(admitted(&mut pace, now), 128);
        assert_eq!(admitted(&mut pace, now + Duration::from_secs(1)), 32);
        assert!(pace.admits(id(2), now), "another peer");
    }
}
