//! What `dev --chaos` does to the nodes of a trial run: what, to whom and when, drawn from a seed. One fault at a time and so many in
//! all, so that the run comes to rest. Only draws; [`dev`](super::dev) does it.

use std::{fmt, time::Duration};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::time::{Instant, sleep_until};

/// How many faults there are in all.
const FAULTS: u32 = 20;
/// How long nothing happens between two of them, milliseconds.
const QUIET: (u64, u64) = (300, 1_500);
/// How long one lasts, milliseconds: some are shorter than what peers notice, some longer.
const LASTS: (u64, u64) = (200, 2_500);

/// What happens to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It ends without a farewell, and is started again.
    Kill,
    /// Its tasks do not run, as after SIGSTOP; what it said before still arrives.
    Freeze,
    /// It and all others refuse each other's connections.
    Part,
}

/// A fault of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: Kind,
    /// The node's place among all.
    pub(super) node: usize,
    pub(super) lasts: Duration,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Begin(Fault),
    End(Fault),
    /// There is no further fault.
    Over,
}

/// The faults of one run.
#[derive(Debug)]
pub(super) struct Chaos {
    seed: u64,
    random: SmallRng,
    nodes: usize,
    begun: u32,
    current: Option<Fault>,
    next: Instant,
    over: bool,
}

impl Chaos {
    /// The faults of this seed, for so many nodes.
    pub(super) fn new(seed: u64, nodes: usize) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let next = Instant::now() + draw(&mut random, QUIET);
        Self { seed, random, nodes, begun: 0, current: None, next, over: nodes == 0 }
    }

    /// The fault that is under way.
    pub(super) const fn current(&self) -> Option<Fault> {
        self.current
    }

    /// Waits for what comes next; for ever after the last. Cancellation-safe.
    pub(super) async fn step(&mut self) -> Step {
        if self.over {
            std::future::pending::<()>().await;
        }
        sleep_until(self.next).await;
        match self.current.take() {
            Some(fault) => {
                self.next = Instant::now() + draw(&mut self.random, QUIET);
                Step::End(fault)
            }
            None if self.begun == FAULTS => {
                self.over = true;
                Step::Over
            }
            None => Step::Begin(self.begin()),
        }
    }

    fn begin(&mut self) -> Fault {
        // With one node there is nobody to be parted from.
        let kinds = if self.nodes > 1 { 3 } else { 2 };
        let kind = match self.random.random_range(0..kinds) {
            0 => Kind::Kill,
            1 => Kind::Freeze,
            _ => Kind::Part,
        };
        let node = self.random.random_range(0..self.nodes);
        let fault = Fault { kind, node, lasts: draw(&mut self.random, LASTS) };
        (self.begun, self.current, self.next) = (self.begun + 1, Some(fault), Instant::now() + fault.lasts);
        fault
    }
}

fn draw(random: &mut SmallRng, (least, most): (u64, u64)) -> Duration {
    Duration::from_millis(random.random_range(least..most))
}

impl fmt::Display for Chaos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "up to {FAULTS} faults, one at a time; the same again with --chaos={}", self.seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn drawn(seed: u64, nodes: usize) -> Vec<Step> {
        let mut chaos = Chaos::new(seed, nodes);
        let mut steps = Vec::new();
        loop {
            let step = chaos.step().await;
            steps.push(step);
            if step == Step::Over {
                return steps;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_seed_is_a_schedule_that_ends() {
        let steps = drawn(1, 4).await;
        assert_eq!(steps.len(), 2 * FAULTS as usize + 1);
        assert_eq!(steps, drawn(1, 4).await);
        assert_ne!(steps, drawn(2, 4).await);
        for pair in steps.chunks_exact(2) {
            let [Step::Begin(begun), Step::End(ended)] = pair else { panic!("{pair:?}") };
            assert!(begun == ended && begun.node < 4, "one at a time");
        }
        let kinds =
            |wanted| steps.iter().any(|step| matches!(step, Step::Begin(Fault { kind, .. }) if *kind == wanted));
        assert!([Kind::Kill, Kind::Freeze, Kind::Part].into_iter().all(kinds));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lone_node_is_parted_from_nobody() {
        let parted = |step: &Step| matches!(step, Step::Begin(Fault { kind: Kind::Part, .. }));
        assert!(!drawn(3, 1).await.iter().any(parted));
    }
}
