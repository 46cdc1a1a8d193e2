//! How fit the local member says that it is to lead: its preference, and its readiness with damping.
//!
//! The damping is the member's own, so that it outlives every leader: whoever falls again and again is believed later and
//! later. Being unready is believed at once.

use std::time::Duration;

use tokio::time::Instant;

use super::Worker;
use crate::groups::{
    leadership::LeaderPreference,
    raft::{Fitness, Input},
};

/// After its first fall a member is believed when it was ready for so long.
const FIRST: Duration = Duration::from_millis(500);
/// After its second one, and twice as long after each further one.
const NEXT: Duration = Duration::from_mins(1);
/// At most so long.
const LONGEST: Duration = Duration::from_mins(10);
/// A member that did not fall for so long is as one that never fell.
const FORGOTTEN: Duration = Duration::from_mins(10);

/// Whether the member counts as ready.
#[derive(Debug)]
struct Readiness {
    /// What it says.
    said: bool,
    /// Since when it says that it is ready.
    since: Instant,
    /// Whether it is believed.
    believed: bool,
    /// Falls from being believed, the last of them when.
    falls: u32,
    fell: Instant,
}

impl Readiness {
    const fn new(now: Instant) -> Self {
        Self { said: true, since: now, believed: true, falls: 0, fell: now }
    }

    fn say(&mut self, ready: bool, now: Instant) {
        if ready == self.said {
            return;
        }
        self.said = ready;
        if ready {
            self.since = now;
        } else if self.believed {
            if now >= self.fell + FORGOTTEN {
                self.falls = 0;
            }
            (self.believed, self.fell) = (false, now);
            self.falls = self.falls.saturating_add(1);
        }
    }

    fn hold(&self) -> Duration {
        match self.falls {
            0 | 1 => FIRST,
            falls => (NEXT * 2_u32.saturating_pow((falls - 2).min(8))).min(LONGEST),
        }
    }

    fn look(&mut self, now: Instant) -> bool {
        if self.wake_at().is_some_and(|at| now >= at) {
            self.believed = true;
        }
        self.believed
    }

    fn wake_at(&self) -> Option<Instant> {
        (self.said && !self.believed).then(|| self.since + self.hold())
    }
}

#[derive(Debug)]
pub(super) struct Standing {
    preference: LeaderPreference,
    readiness: Readiness,
}

impl Standing {
    pub const fn new(preference: LeaderPreference, now: Instant) -> Self {
        Self { preference, readiness: Readiness::new(now) }
    }

    pub const fn prefer(&mut self, preference: LeaderPreference) {
        self.preference = preference;
    }

    pub fn ready(&mut self, ready: bool, now: Instant) {
        self.readiness.say(ready, now);
    }

    pub const fn preference(&self) -> LeaderPreference {
        self.preference
    }

    pub const fn is_ready(&self) -> bool {
        self.readiness.believed
    }

    pub fn wake_at(&self) -> Option<Instant> {
        self.readiness.wake_at()
    }

    fn fitness(&mut self, now: Instant) -> Fitness {
        if self.readiness.look(now) { self.preference.fitness() } else { Fitness::Unready }
    }
}

impl Worker {
    /// Tells the core how fit this member is, when that has changed or the core is another one.
    pub(super) fn stand(&mut self) {
        let mut fitness = self.standing.fitness(Instant::now());
        if self.departure.is_under_way() {
            // Whoever leads next would hand leadership back to a member that goes.
            fitness = Fitness::Unready;
        }
        if self.raft.fitness() != fitness {
            tracing::debug!(group = ?self.board.group(), ?fitness, "how fit the local member is to lead");
            self.step(Input::Fitness(fitness));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says it at `at` seconds, and looks there.
    fn at(readiness: &mut Readiness, began: Instant, at: f64, ready: bool) -> bool {
        let now = began + Duration::from_secs_f64(at);
        readiness.say(ready, now);
        readiness.look(now)
    }

    #[test]
    fn the_first_fall_costs_half_a_second_and_the_next_ones_minutes() {
        let began = Instant::now();
        let mut readiness = Readiness::new(began);
        assert!(at(&mut readiness, began, 1.0, true), "ready from the beginning");
        assert!(!at(&mut readiness, began, 2.0, false), "a fall is believed at once");
        assert!(!at(&mut readiness, began, 3.0, true));
        assert!(!at(&mut readiness, began, 3.4, true));
        assert!(at(&mut readiness, began, 3.5, true));
        assert!(!at(&mut readiness, began, 4.0, false));
        assert!(!at(&mut readiness, began, 5.0, true));
        assert!(!at(&mut readiness, began, 64.9, true));
        assert!(at(&mut readiness, began, 65.0, true), "a minute after the second");
        assert!(!at(&mut readiness, began, 66.0, false));
        assert!(!at(&mut readiness, began, 67.0, true));
        assert!(!at(&mut readiness, began, 186.9, true));
        assert!(at(&mut readiness, began, 187.0, true), "two after the third");
    }

    #[test]
    fn a_break_begins_the_wait_anew_and_ten_good_minutes_end_it() {
        let began = Instant::now();
        let mut readiness = Readiness::new(began);
        for fall in [1.0, 3.0] {
            assert!(!at(&mut readiness, began, fall, false));
            at(&mut readiness, began, fall + 1.0, true);
            at(&mut readiness, began, fall + 1.5, true);
        }
        assert!(!at(&mut readiness, began, 60.0, false));
        assert!(!at(&mut readiness, began, 61.0, true));
        assert!(!at(&mut readiness, began, 120.0, true));
        assert!(at(&mut readiness, began, 121.0, true), "a minute without a break");
        assert!(!at(&mut readiness, began, 603.0 + 1.0, false));
        assert!(!at(&mut readiness, began, 605.0, true));
        assert!(at(&mut readiness, began, 605.5, true), "forgotten");
    }
}
