//! The two clocks of a group, as its leader keeps them.
//!
//! *Group time* measures: sessions and attempts expire by it. It goes on from the last entry of the log by the leader's
//! monotonic clock, never looks at a wall clock, and stands still while nobody leads. *Civil time* is for machines to see.
//! It begins with the median of the voters' wall clocks, never goes back, and follows that median at a bounded rate.
//! Nothing of ours expires by it. Both are in microseconds here and in milliseconds in entries.

use std::collections::BTreeMap;

use super::{Member, Membership};

/// Wall clocks that differ from the voters' median by more than this are named, milliseconds. Far above what a round trip
/// and NTP leave, far below what people notice.
pub const SKEW_LIMIT: u64 = 1_000;

/// A leader's clocks.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    /// Group time, microseconds.
    group: u64,
    /// Civil time, microseconds since the Unix epoch; 0 before it has begun.
    civil: u64,
    /// The monotonic clock when both were last moved.
    mono: u64,
    /// How far each member's wall clock is ahead of the leader's monotonic clock, microseconds.
    offsets: BTreeMap<Member, i64>,
    /// The two middle ones of the voters' offsets, which are the same if they are odd in number.
    median: Option<(i64, i64)>,
}

impl Clock {
    /// Goes on from the last entry of the log, milliseconds.
    pub fn new(group: u64, civil: u64, mono: u64) -> Self {
        let [group, civil] = [group, civil].map(|millis| millis.saturating_mul(1000));
        Self { group, civil, mono, offsets: BTreeMap::new(), median: None }
    }

    /// What both clocks show, milliseconds.
    pub const fn times(&self) -> (u64, u64) {
        (self.group / 1000, self.civil / 1000)
    }

    /// Whether civil time has begun.
    pub const fn has_begun(&self) -> bool {
        self.civil > 0
    }

    /// The voters' median wall clock now, milliseconds since the Unix epoch. Of an even number it is the middle of two.
    pub fn wall(&self) -> Option<u64> {
        let (low, high) = self.median?;
        Some(at(low.midpoint(high), self.mono) / 1000)
    }

    /// A member has told its wall clock, milliseconds.
    pub fn heard(&mut self, member: Member, wall: u64) {
        self.offsets.insert(member, offset(wall, self.mono));
    }

    /// How far the member's wall clock is ahead of the voters' median, milliseconds.
    pub fn skew(&self, member: &Member) -> Option<i64> {
        let ((low, high), told) = (self.median?, self.offsets.get(member)?);
        Some(told.saturating_sub(low.midpoint(high)) / 1000)
    }

    /// Time goes on. A leader that took no step for longer than `most`, microseconds, cannot know that it led all the time:
    /// no more than that counts.
    pub fn advance(&mut self, mono: u64, most: u64) {
        let passed = mono.saturating_sub(self.mono).min(most);
        self.mono = self.mono.max(mono);
        self.group = self.group.saturating_add(passed);
        if !self.has_begun() {
            return;
        }
        let even = self.civil.saturating_add(passed);
        let goal = self.median.map_or(even, |(low, high)| even.clamp(at(low, mono), at(high, mono)));
        // Twice as fast while it is behind, half as fast while it is ahead.
        self.civil = goal.clamp(self.civil.saturating_add(passed / 2), even.saturating_add(passed));
    }

    /// Takes the own wall clock, milliseconds, and the median of the voters in force, once a majority has told theirs.
    pub fn look(&mut self, me: Member, wall: u64, membership: &Membership) {
        self.heard(me, wall);
        self.offsets.retain(|member, _| *member == me || membership.contains(member));
        let voters = &membership.voters;
        let mut known: Vec<i64> = voters.iter().filter_map(|voter| self.offsets.get(voter)).copied().collect();
        known.sort_unstable();
        let middle = |from: usize| known.get(from / 2).copied();
        let pair = known.len().checked_sub(1).and_then(middle).zip(middle(known.len()));
        self.median = pair.filter(|_| 2 * known.len() > voters.len());
        if let Some((low, _)) = self.median
            && !self.has_begun()
        {
            // The lower one: what is behind catches up, what is ahead can only wait.
            self.civil = at(low, self.mono).max(1);
        }
    }
}

/// How far a wall clock, milliseconds, is ahead of a monotonic one, microseconds.
fn offset(wall: u64, mono: u64) -> i64 {
    let micros = i64::try_from(wall.saturating_mul(1000)).unwrap_or(i64::MAX);
    micros.saturating_sub_unsigned(mono)
}

/// What a wall clock of this offset shows, microseconds.
fn at(offset: i64, mono: u64) -> u64 {
    mono.saturating_add_signed(offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::groups::raft::{ClusterId, Digest, NodeId};

    const SECOND: u64 = 1_000_000;
    const NOON: u64 = 1_700_000_000_000;
    const HOUR: u64 = 3_600_000;

    fn member(n: u8) -> Member {
        Member { node: NodeId::from_bytes([n; 32]), incarnation: 1 }
    }

    fn voters(count: u8) -> Membership {
        Membership::founding(ClusterId(Digest([1; 32])), (0..count).map(member).collect(), u32::from(count))
    }

    #[test]
    fn group_time_counts_the_steps_of_a_leader_and_no_wall_clock() {
        let mut clock = Clock::new(5_000, NOON, 0);
        clock.look(member(0), u64::MAX, &voters(1));
        for step in 1..=20 {
            clock.advance(step * SECOND / 10, SECOND);
        }
        assert_eq!(clock.times().0, 7_000);
        clock.advance(3_600 * SECOND, SECOND);
        assert_eq!(clock.times().0, 8_000, "it was frozen for an hour and cannot know whether it led");
        clock.advance(10, SECOND);
        assert_eq!(clock.times().0, 8_000, "a clock that goes back counts as no time");
    }

    #[test]
    fn civil_time_begins_with_the_median_of_a_majority() {
        let (three, mut clock) = (voters(3), Clock::new(0, 0, 7));
        clock.look(member(0), NOON + 70 * 365 * 24 * HOUR, &three);
        assert!(!clock.has_begun(), "one of three is no majority");
        clock.heard(member(1), NOON + 10);
        clock.look(member(0), NOON + 70 * 365 * 24 * HOUR, &three);
        assert_eq!(clock.times().1, NOON + 10, "of two the lower one");
        clock.heard(member(2), NOON);
        clock.look(member(0), NOON + 2 * HOUR, &three);
        assert_eq!(clock.wall(), Some(NOON + 10));
        let [skew, other] = [0, 2].map(|n| clock.skew(&member(n)));
        assert_eq!((skew, other), (Some(2 * HOUR.cast_signed() - 10), Some(-10)));
    }

    #[test]
    fn civil_time_follows_at_a_bounded_rate_and_never_goes_back() {
        let (one, mut clock) = (voters(1), Clock::new(0, NOON, 0));
        let mut run = |from: u64, seconds: u64, wall: &dyn Fn(u64) -> u64| {
            for step in from * 10 + 1..=(from + seconds) * 10 {
                let before = clock.times().1;
                clock.advance(step * SECOND / 10, SECOND);
                clock.look(member(0), wall(step * 100), &one);
                let passed = clock.times().1 - before;
                assert!((49..=201).contains(&passed), "{passed} ms in 100");
            }
            clock.times().1
        };
        assert_eq!(run(0, 10, &|now| NOON + now), NOON + 10_000);
        // Two hours ahead, for ten seconds: twice as fast; then back: half as fast until it meets.
        let ahead = run(10, 10, &|now| NOON + now + 2 * HOUR);
        assert!((29_700..=30_000).contains(&(ahead - NOON)), "{}", ahead - NOON);
        assert_eq!(run(20, 30, &|now| NOON + now), NOON + 50_000);
        // After a stop of a minute: caught up in a minute.
        assert_eq!(run(50, 70, &|now| NOON + now + 60_000), NOON + 120_000 + 60_000);
    }
}
