//! Which producers a consumer with a preference takes: the best few, without moving to and fro.
//!
//! A candidate takes the place of another one at once when that is lost, refuses or is late; otherwise only when it is clearly
//! better ([`GAIN`]) for a while ([`HOLD`]). A few others stand by: one of them takes the place of a producer that is
//! lost. Equal ones are spread: each consumer has an order of its own, which also counts for those that become known at the beginning
//! ([`BEGIN`]). Times are microseconds of any monotonic clock; `K` names a producer.

use super::mutants::{Mutant, Switch as Planted};
use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// A round trip is better if it takes so much less of the other one, in percent, and at least [`FLOOR`] less.
pub const GAIN: u32 = 20;
/// Differences below are noise.
pub const FLOOR: Duration = Duration::from_millis(3);
/// For how long a candidate must be better to take the place of a producer that works, microseconds.
pub const HOLD: u64 = 10_000_000;
/// So long after the first candidate others become known one after the other, microseconds.
pub const BEGIN: u64 = 10_000_000;
/// Who becomes known during [`BEGIN`] is for so long taken at once if it is better, or equal with a higher lot: else consumers
/// would pile on whoever is known first, microseconds.
pub const NEW: u64 = 900_000;
/// How long a chosen producer may take until items flow, if there are others, microseconds.
pub const FLOW_TIMEOUT: u64 = 2_000_000;
/// How long a producer that was lost or did not work is passed over while there are others, microseconds.
pub const SHUNNED: u64 = 10_000_000;

/// What a preference says of a candidate, criterion by criterion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// Its smoothed round-trip time, if known: less is better, an unknown one is worst.
    Latency(Option<Duration>),
    /// More is better.
    Rank(i64),
}

/// A producer that qualifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate<K> {
    /// Who.
    pub peer: K,
    /// In the order of the preference.
    pub values: Vec<Value>,
    /// Orders equal ones: more is better, and another order at each consumer.
    pub lot: u64,
    /// Items flow from it.
    pub flows: bool,
    /// Its heads come, as those of one that stands by.
    pub heads: bool,
    /// It refuses this consumer, has been silent for longer than the consumer's deadline, or trails one that stands by.
    pub fails: bool,
}

/// A producer that was taken.
#[derive(Clone, Copy, Debug)]
struct Taken {
    since: u64,
    /// Items have flowed since then.
    flowed: bool,
}

/// One producer takes the place of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch<K> {
    /// Who is left.
    pub from: K,
    /// Who is taken.
    pub to: K,
}

/// Why a producer is taken, stands by, or neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why<K> {
    /// It is as good as any other, and nobody else is there, or comes first by lot.
    Only,
    /// Before this one by a criterion of the preference, by its place there.
    Better(K, usize),
    /// Behind this one by that criterion.
    Worse(K, usize),
    /// Before or behind this one by lot alone, or by having been there first.
    Lot(K),
    /// Better than this one by that criterion, since then; after a while it takes its place.
    Challenges(K, usize, u64),
    /// It refuses, is late or behind.
    Fails,
    /// It was lost or failed, and is passed over until then.
    Shunned(u64),
}

/// The producers of a consumer.
#[derive(Debug)]
pub struct Choice<K> {
    fanin: usize,
    standby: usize,
    taken: BTreeMap<K, Taken>,
    standing_by: BTreeSet<K>,
    switch: Planted,
    /// Until when each is passed over.
    shunned: BTreeMap<K, u64>,
    /// A candidate that is better than one that was taken, and since when.
    challenge: Option<(Switch<K>, u64)>,
    /// When there was a candidate for the first time.
    began: Option<u64>,
    /// Since when each candidate is known.
    known: BTreeMap<K, u64>,
    /// When it was decided last.
    decided: u64,
}

/// Greater is better; equal if no criterion tells a clear difference.
fn compare<K>(a: &Candidate<K>, b: &Candidate<K>) -> Ordering {
    decides(a, b).map_or(Ordering::Equal, |(_, order)| order)
}

/// The first criterion that tells a clear difference, and which.
fn decides<K>(a: &Candidate<K>, b: &Candidate<K>) -> Option<(usize, Ordering)> {
    let each = a.values.iter().zip(&b.values).map(|values| match values {
        (Value::Rank(a), Value::Rank(b)) => a.cmp(b),
        (Value::Latency(a), Value::Latency(b)) => clearly_less(*a, *b).cmp(&clearly_less(*b, *a)),
        (Value::Latency(_), Value::Rank(_)) | (Value::Rank(_), Value::Latency(_)) => Ordering::Equal,
    });
    each.enumerate().find(|(_, order)| order.is_ne())
}

fn clearly_less(a: Option<Duration>, b: Option<Duration>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a + FLOOR <= b && a * 100 <= b * (100 - GAIN),
        (Some(_), None) => true,
        (None, _) => false,
    }
}

/// The best; of equal ones that with the highest lot.
fn best<'a, K>(candidates: impl Iterator<Item = &'a Candidate<K>>) -> Option<&'a Candidate<K>> {
    let mut best: Option<&Candidate<K>> = None;
    for candidate in candidates {
        let better = best.is_none_or(|best| compare(candidate, best).then(candidate.lot.cmp(&best.lot)).is_gt());
        if better {
            best = Some(candidate);
        }
    }
    best
}

impl<K: Ord + Copy> Choice<K> {
    /// Takes up to `fanin` producers, at least one, and lets up to `standby` others stand by.
    #[must_use]
    pub fn new(fanin: usize, standby: usize) -> Self {
        Self {
            fanin: fanin.max(1),
            standby,
            taken: BTreeMap::new(),
            standing_by: BTreeSet::new(),
            switch: Planted::default(),
            shunned: BTreeMap::new(),
            challenge: None,
            began: None,
            known: BTreeMap::new(),
            decided: 0,
        }
    }

    /// The same with a planted bug.
    #[cfg(any(test, feature = "testing"))]
    #[allow(dead_code, reason = "for simulations")]
    pub(crate) fn planted(self, switch: Planted) -> Self {
        Self { switch, ..self }
    }

    /// Whether the producer stands by now.
    #[must_use]
    pub fn stands_by(&self, peer: &K) -> bool {
        self.standing_by.contains(peer)
    }

    /// Whether the producer is taken now.
    #[must_use]
    pub fn takes(&self, peer: &K) -> bool {
        self.taken.contains_key(peer)
    }

    /// Decides anew, and says who has taken whose place.
    pub fn decide(&mut self, candidates: &[Candidate<K>], now: u64) -> Vec<Switch<K>> {
        self.decided = now;
        if !candidates.is_empty() {
            self.began.get_or_insert(now);
        }
        let known: BTreeSet<K> = candidates.iter().map(|candidate| candidate.peer).collect();
        self.known.retain(|peer, _| known.contains(peer));
        for peer in &known {
            self.known.entry(*peer).or_insert(now);
        }
        self.shunned.retain(|peer, until| *until > now && known.contains(peer));
        let gone: Vec<K> = self.taken.keys().filter(|peer| !known.contains(peer)).copied().collect();
        for peer in &gone {
            self.taken.remove(peer);
        }
        let failed = self.failed(candidates, now);
        let mut switches = Vec::new();
        // Whoever is gone leaves a place, whoever failed only if there is somebody for it.
        for from in gone {
            if let Some(to) = self.take(candidates, now) {
                switches.push(Switch { from, to });
            }
        }
        for from in failed {
            self.shunned.insert(from, now + SHUNNED);
            if self.switch.is(Mutant::BothActive) {
                self.take_working(candidates, now);
                continue;
            }
            let kept = self.taken.remove(&from);
            match (self.take_working(candidates, now), kept) {
                (Some(to), _) => switches.push(Switch { from, to }),
                (None, Some(kept)) => _ = self.taken.insert(from, kept),
                (None, None) => {}
            }
        }
        while self.taken.len() < self.fanin && self.take(candidates, now).is_some() {}
        switches.extend(self.challenged(candidates, now));
        self.stand_by(candidates);
        switches
    }

    /// Those that stand by stay as long as they may, and the best of the others fill up. One that fails stays if nobody is there for
    /// its place: as long as it is heard it is known to be as late as the one that was taken.
    fn stand_by(&mut self, candidates: &[Candidate<K>]) {
        let mut standing = std::mem::take(&mut self.standing_by);
        let is_free = |it: &Candidate<K>| !self.takes(&it.peer) && !self.shunned.contains_key(&it.peer);
        let may = |it: &Candidate<K>| is_free(it) && !it.fails;
        let others = candidates.iter().any(|it| may(it) && !standing.contains(&it.peer));
        let stays = |it: &Candidate<K>| if others { may(it) } else { is_free(it) };
        standing.retain(|peer| candidates.iter().any(|it| it.peer == *peer && stays(it)));
        while standing.len() < self.standby
            && let Some(more) = best(candidates.iter().filter(|it| may(it) && !standing.contains(&it.peer)))
        {
            standing.insert(more.peer);
        }
        self.standing_by = standing;
    }

    /// Those that were taken and do not work.
    fn failed(&mut self, candidates: &[Candidate<K>], now: u64) -> Vec<K> {
        let mut failed = Vec::new();
        for Candidate { peer, flows, fails, .. } in candidates {
            let Some(taken) = self.taken.get_mut(peer) else { continue };
            let lost = taken.flowed && !flows;
            let slow = !flows && now >= taken.since + FLOW_TIMEOUT;
            taken.flowed |= flows;
            if (*fails || lost || slow) && !self.switch.is(Mutant::FailedStaysTaken) {
                failed.push(*peer);
            }
        }
        failed
    }

    /// Takes the best candidate that is not shunned, of those that stand by and are known to work if there is one.
    fn take_working(&mut self, candidates: &[Candidate<K>], now: u64) -> Option<K> {
        let free = |it: &&Candidate<K>| !self.takes(&it.peer) && !self.shunned.contains_key(&it.peer) && !it.fails;
        let ready = |it: &&Candidate<K>| free(it) && it.heads && !self.switch.is(Mutant::StandbyNotPreferred);
        let peer = best(candidates.iter().filter(ready)).or_else(|| best(candidates.iter().filter(free)))?.peer;
        self.taken.insert(peer, Taken { since: now, flowed: false });
        Some(peer)
    }

    /// Takes the best candidate; one that is shunned if there is no other.
    fn take(&mut self, candidates: &[Candidate<K>], now: u64) -> Option<K> {
        self.take_working(candidates, now).or_else(|| {
            let peer = best(candidates.iter().filter(|it| !self.takes(&it.peer)))?.peer;
            self.taken.insert(peer, Taken { since: now, flowed: false });
            Some(peer)
        })
    }

    /// A candidate that has been better than one that works for long enough takes its place.
    fn challenged(&mut self, candidates: &[Candidate<K>], now: u64) -> Option<Switch<K>> {
        let free = candidates.iter().filter(|it| !self.takes(&it.peer) && !self.shunned.contains_key(&it.peer));
        let to = best(free.filter(|candidate| !candidate.fails));
        let taken = candidates.iter().filter(|candidate| self.takes(&candidate.peer));
        let from = taken.min_by(|a, b| compare(a, b).then(a.lot.cmp(&b.lot)));
        let begins = self.began.is_some_and(|began| now < began + BEGIN);
        let is_new = |to: &K| begins && self.known.get(to).is_some_and(|since| now < since + NEW);
        let better = to.zip(from).filter(|(to, from)| {
            let order = compare(to, from);
            let is_free = is_new(&to.peer) || self.switch.is(Mutant::NoHysteresis);
            (if is_free { order.then(to.lot.cmp(&from.lot)) } else { order }).is_gt()
        });
        let Some(switch) = better.map(|(to, from)| Switch { from: from.peer, to: to.peer }) else {
            self.challenge = None;
            return None;
        };
        match self.challenge {
            _ if is_new(&switch.to) => Some(self.replace(switch, now)),
            Some((known, since)) if known == switch => {
                if now < since + HOLD && !self.switch.is(Mutant::NoHysteresis) {
                    return None;
                }
                Some(self.replace(switch, now))
            }
            _ => {
                self.challenge = Some((switch, now));
                None
            }
        }
    }

    fn replace(&mut self, switch: Switch<K>, now: u64) -> Switch<K> {
        self.challenge = None;
        self.taken.remove(&switch.from);
        self.taken.insert(switch.to, Taken { since: now, flowed: false });
        switch
    }

    /// Why this candidate is taken or not, after [`decide`](Self::decide) with these.
    #[must_use]
    pub fn why(&self, peer: &K, candidates: &[Candidate<K>]) -> Option<Why<K>> {
        let it = candidates.iter().find(|candidate| candidate.peer == *peer)?;
        if self.takes(peer) {
            let others = candidates.iter().filter(|other| !self.takes(&other.peer));
            let Some(next) = best(others) else { return Some(Why::Only) };
            return Some(match decides(it, next) {
                Some((criterion, Ordering::Greater)) => Why::Better(next.peer, criterion),
                _ => Why::Lot(next.peer),
            });
        }
        if it.fails {
            return Some(Why::Fails);
        }
        if let Some(until) = self.shunned.get(peer) {
            return Some(Why::Shunned(*until));
        }
        let taken = candidates.iter().filter(|candidate| self.takes(&candidate.peer));
        let worst = taken.min_by(|a, b| compare(a, b).then(a.lot.cmp(&b.lot)))?;
        Some(match (decides(it, worst), self.challenge) {
            (Some((criterion, Ordering::Less)), _) => Why::Worse(worst.peer, criterion),
            (Some((criterion, _)), Some((Switch { from, to }, since))) if to == *peer => {
                Why::Challenges(from, criterion, since)
            }
            _ => Why::Lot(worst.peer),
        })
    }

    /// When to decide again although nothing has changed, if ever: after the last time.
    #[must_use]
    pub fn wake_at(&self) -> Option<u64> {
        let held = self.challenge.map(|(_, since)| since + HOLD);
        let slow = self.taken.values().filter(|taken| !taken.flowed).map(|taken| taken.since + FLOW_TIMEOUT);
        let free = self.shunned.values().copied();
        held.into_iter().chain(slow).chain(free).filter(|at| *at > self.decided).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    const fn peer(n: u8) -> u8 {
        n
    }

    fn near(n: u8, millis: u64) -> Candidate<u8> {
        let values = vec![Value::Latency(Some(Duration::from_millis(millis)))];
        Candidate { peer: peer(n), values, lot: n.into(), flows: true, heads: false, fails: false }
    }

    fn taken(choice: &Choice<u8>, of: &[Candidate<u8>]) -> Vec<u8> {
        (1..=9).filter(|n| of.iter().any(|it| it.peer == peer(*n)) && choice.takes(&peer(*n))).collect()
    }

    #[test]
    fn the_nearest_are_taken_and_no_more_than_the_fan_in() {
        let all = [near(1, 40), near(2, 5), near(3, 20), near(4, 80)];
        let mut choice = Choice::new(2, 0);
        assert_eq!(choice.decide(&all, 0), []);
        assert_eq!(taken(&choice, &all), [2, 3]);
    }

    #[test]
    fn a_switch_needs_a_clear_gain_that_lasts() {
        let mut choice = Choice::new(1, 0);
        choice.decide(&[near(1, 20), near(2, 60)], 0);
        // 19 % and 3 ms, then 25 % of so little that it is noise.
        for (ours, other) in [(20, 17), (8, 6)] {
            for second in 1..60 {
                assert_eq!(choice.decide(&[near(1, ours), near(2, other)], second * SECOND), []);
            }
        }
        let better = [near(1, 20), near(2, 10)];
        assert_eq!(choice.decide(&better, 60 * SECOND), []);
        assert_eq!(choice.wake_at(), Some(70 * SECOND));
        assert_eq!(choice.decide(&better, 69 * SECOND), []);
        assert_eq!(choice.decide(&[near(1, 20), near(2, 19)], 70 * SECOND), [], "it did not last");
        assert_eq!(choice.decide(&better, 71 * SECOND), []);
        assert_eq!(choice.decide(&better, 81 * SECOND), [Switch { from: peer(1), to: peer(2) }]);
        assert_eq!(taken(&choice, &better), [2]);
    }

    /// An hour of round trips that vary by 30 % around equal ones: nothing moves.
    #[test]
    fn noise_moves_nothing() {
        let mut choice = Choice::new(1, 0);
        let mut random = 7_u64;
        let mut noisy = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            Duration::from_micros(20_000 + (random >> 33) % 6_000)
        };
        let mut switches = 0;
        for second in 0..3600 {
            let all: Vec<_> =
                (1..=4).map(|n| Candidate { values: vec![Value::Latency(Some(noisy()))], ..near(n, 0) }).collect();
            switches += choice.decide(&all, second * SECOND).len();
        }
        assert_eq!(switches, 0);
    }

    #[test]
    fn a_lost_or_failing_producer_is_replaced_at_once_and_passed_over_for_a_while() {
        let mut choice = Choice::new(1, 0);
        let all = [near(1, 5), near(2, 50)];
        choice.decide(&all, 0);
        choice.decide(&all, SECOND);
        let lost = [Candidate { flows: false, ..near(1, 5) }, near(2, 50)];
        assert_eq!(choice.decide(&lost, 2 * SECOND), [Switch { from: peer(1), to: peer(2) }]);
        for second in 3..12 {
            assert_eq!(choice.decide(&all, second * SECOND), [], "shunned");
        }
        let until = 12 * SECOND;
        assert_eq!(choice.decide(&all, until), [], "from now on it is better again");
        assert_eq!(choice.decide(&all, until + HOLD), [Switch { from: peer(2), to: peer(1) }]);
        let late = [Candidate { fails: true, ..near(1, 5) }, near(2, 50)];
        assert_eq!(choice.decide(&late, until + HOLD + 1), [Switch { from: peer(1), to: peer(2) }]);
    }

    #[test]
    fn without_an_alternative_a_producer_that_fails_is_kept() {
        let mut choice = Choice::new(1, 0);
        let alone = [Candidate { flows: false, fails: true, ..near(1, 5) }];
        for second in 0..30 {
            assert_eq!(choice.decide(&alone, second * SECOND), []);
            assert_eq!(taken(&choice, &alone), [1]);
        }
        let two = [alone[0].clone(), Candidate { flows: false, ..near(2, 50) }];
        assert_eq!(choice.decide(&two, 30 * SECOND), [Switch { from: peer(1), to: peer(2) }]);
    }

    #[test]
    fn who_departs_is_replaced_and_a_producer_that_never_flows_is_given_up() {
        let mut choice = Choice::new(1, 0);
        let silent = |n, millis| Candidate { flows: false, ..near(n, millis) };
        choice.decide(&[silent(1, 5), silent(2, 50)], 0);
        assert_eq!(choice.wake_at(), Some(FLOW_TIMEOUT));
        assert_eq!(
            choice.decide(&[silent(1, 5), silent(2, 50)], FLOW_TIMEOUT),
            [Switch { from: peer(1), to: peer(2) }]
        );
        assert_eq!(choice.decide(&[near(3, 9)], 3 * SECOND), [Switch { from: peer(2), to: peer(3) }]);
        assert_eq!(choice.decide(&[], 4 * SECOND), []);
        assert_eq!(taken(&choice, &[near(3, 9)]), Vec::<u8>::new());
    }

    #[test]
    fn the_first_criterion_that_tells_a_difference_decides() {
        let both = |n, millis, rank| {
            let values = vec![Value::Latency(Some(Duration::from_millis(millis))), Value::Rank(rank)];
            Candidate { values, ..near(n, millis) }
        };
        let mut choice = Choice::new(1, 0);
        let all = [both(1, 20, 0), both(2, 21, 1), both(3, 60, 9)];
        choice.decide(&all, 0);
        assert_eq!(taken(&choice, &all), [2], "as near as 1, and of a higher rank");
    }

    /// Equal producers share their consumers.
    #[test]
    fn equal_producers_are_spread_by_lot() {
        let mut consumers = [0; 4];
        for consumer in 0..100_u64 {
            let lot = |n: u8| {
                let hash = blake3::hash(&[&consumer.to_le_bytes()[..], &[n]].concat());
                u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("eight bytes"))
            };
            let all: Vec<_> = (1..=4).map(|n| Candidate { lot: lot(n), ..near(n, 10) }).collect();
            let mut choice = Choice::new(1, 0);
            choice.decide(&all, 0);
            consumers[usize::from(taken(&choice, &all)[0]) - 1] += 1;
        }
        assert!(consumers.iter().all(|count| (10..=35).contains(count)), "{consumers:?}");
    }

    #[test]
    fn the_next_best_stand_by_and_one_of_them_takes_over() {
        let mut choice = Choice::new(1, 1);
        let all = [near(1, 5), near(2, 20), near(3, 50)];
        let standing = |choice: &Choice<u8>| (1..=3).filter(|n| choice.stands_by(n)).collect::<Vec<_>>();
        choice.decide(&all, 0);
        assert_eq!((taken(&choice, &all), standing(&choice)), (vec![1], vec![2]));
        // The one that stands by stays, although it is no longer the next best.
        let moved = [near(1, 5), Candidate { heads: true, ..near(2, 60) }, near(3, 50)];
        choice.decide(&moved, SECOND);
        assert_eq!(standing(&choice), [2]);
        let late = [Candidate { fails: true, ..near(1, 5) }, moved[1].clone(), near(3, 50)];
        assert_eq!(choice.decide(&late, 2 * SECOND), [Switch { from: 1, to: 2 }], "it is known to work");
        assert_eq!((taken(&choice, &all), standing(&choice)), (vec![2], vec![3]));
        choice.decide(&[near(2, 60)], 3 * SECOND);
        assert_eq!(standing(&choice), [0_u8; 0]);
    }
}
