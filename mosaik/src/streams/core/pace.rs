//! Delays: the token bucket of an egress limit and the back-off between attempts to subscribe.

use std::time::Duration;

use crate::streams::limits::ByteRate;

/// How much of a second's bytes may go at once after a pause.
const BURST: Duration = Duration::from_millis(50);
const FIRST_DELAY: Duration = Duration::from_millis(50);
const MAX_DELAY: Duration = Duration::from_secs(2);

/// An egress limit shared by all subscribers of a producer. Who wants to write reserves first and is told when to.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: ByteRate,
    /// When everything reserved so far will have been paid for.
    paid_at: Duration,
}

impl Bucket {
    pub(crate) fn new(rate: ByteRate) -> Self {
        Self { rate, paid_at: Duration::ZERO }
    }

    /// How much one write should have at most, so that subscribers take turns and the rate is even.
    pub(crate) fn slice(&self) -> usize {
        usize::try_from(self.rate.get() / 20).unwrap_or(usize::MAX).max(256)
    }

    /// Reserves bytes; they may be written at the returned time.
    pub(crate) fn reserve(&mut self, bytes: usize, now: Duration) -> Duration {
        let at = self.paid_at.max(now.saturating_sub(BURST));
        let nanos = u128::from(bytes as u64) * 1_000_000_000 / u128::from(self.rate.get());
        self.paid_at = at + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.paid_at.max(now)
    }
}

/// The longest delay that may be asked for.
const LONGEST: Duration = Duration::from_hours(24);

/// Delays between attempts: none, then doubling from a first one up to a longest (by default from 50 ms to 2 s), each shortened
/// at random by up to a half, so that the consumers of a producer that restarts do not come all at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    failures: u32,
    first: Duration,
    longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(FIRST_DELAY, MAX_DELAY)
    }
}

impl Backoff {
    /// From `first` up to `longest`.
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self { failures: 0, first: first.min(LONGEST), longest: longest.min(LONGEST) }
    }

    /// The delay before the next attempt. `random` is uniform in 0..1.
    pub(crate) fn next_delay(&mut self, random: f64) -> Duration {
        let failures = self.failures;
        self.failures = failures.saturating_add(1);
        match failures {
            0 => Duration::ZERO,
            _ => {
                let doubled = self.first.saturating_mul(2u32.pow((failures - 1).min(16)));
                doubled.min(self.longest).mul_f64(1.0 - random / 2.0)
            }
        }
    }

    /// The last attempt ended in a way that trying again at once would repeat: the next delay is that after four failures.
    pub(crate) fn penalize(&mut self) {
        self.failures = self.failures.max(4);
    }

    /// The last attempt was good.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_keeps_its_rate_over_any_pattern() {
        let mut bucket = Bucket::new(ByteRate::kib_per_sec(64));
        let start = Duration::from_secs(100);
        let mut now = start;
        let mut sent = 0;
        for size in (0..1000).map(|i| (i * 37) % 5000) {
            sent += size;
            now = bucket.reserve(size, now);
        }
        let fair = Duration::from_secs_f64(sent as f64 / (64.0 * 1024.0));
        let taken = now.saturating_sub(start);
        assert!(taken <= fair && taken >= fair.saturating_sub(2 * BURST), "{taken:?} for {fair:?}");
    }

    #[test]
    fn a_pause_saves_up_no_more_than_the_burst() {
        let mut bucket = Bucket::new(ByteRate::bytes_per_sec(1000));
        let now = Duration::from_secs(1000);
        assert_eq!(bucket.reserve(50, now), now);
        assert_eq!(bucket.reserve(1000, now), now + Duration::from_secs(1));
    }

    #[test]
    fn delays_start_at_once_and_are_capped() {
        let mut backoff = Backoff::default();
        let delays: Vec<_> = (0..9).map(|_| backoff.next_delay(0.0).as_millis()).collect();
        assert_eq!(delays, [0, 50, 100, 200, 400, 800, 1600, 2000, 2000]);
        assert_eq!(backoff.next_delay(0.999).as_millis(), 1001);
        backoff.reset();
        assert_eq!(backoff.next_delay(0.5), Duration::ZERO);
    }

    #[test]
    fn delays_stay_within_what_was_asked_for() {
        let mut backoff = Backoff::new(Duration::from_millis(3), Duration::from_millis(10));
        let delays: Vec<_> = (0..5).map(|_| backoff.next_delay(0.0).as_millis()).collect();
        assert_eq!(delays, [0, 3, 6, 10, 10]);
        let mut backoff = Backoff::new(Duration::MAX / 2, Duration::MAX);
        let longest = (0..99).map(|_| backoff.next_delay(0.0)).max();
        assert_eq!(longest, Some(LONGEST), "what cannot be meant is cut off");
    }
}
