//! Faults of a test, drawn from its seed: which node is killed, frozen or cut off, when and for how long.

use std::{fmt, time::Duration};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::time::{Instant, sleep_until};

use super::{Cluster, member::Member};

/// How many faults a schedule has at most.
const MOST: u32 = 8;
/// Within what time they begin, milliseconds.
const WITHIN: u64 = 30_000;
/// How long a fault lasts, milliseconds: some are shorter than what peers notice, some longer.
const LASTS: (u64, u64) = (200, 15_000);

/// A kind of fault, as `#[mosaik::test(faults = [..])]` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// A node is killed, and started again.
    Kill,
    /// A node is cut off from all others.
    Partition,
    /// A node is frozen.
    Pause,
}

/// One fault: what happens to whom, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Planned {
    /// When it begins, since the cluster has started.
    pub at: Duration,
    /// What happens.
    pub kind: FaultKind,
    /// To whom.
    pub member: Member,
    /// After what time it is undone.
    pub lasts: Duration,
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, kind, member, lasts } = self;
        let what = match kind {
            FaultKind::Kill => "is killed",
            FaultKind::Partition => "is cut off",
            FaultKind::Pause => "is frozen",
        };
        write!(f, "at {:.3} s {member} {what} for {:.3} s", at.as_secs_f64(), lasts.as_secs_f64())
    }
}

/// The faults of one run, in the order in which they begin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(Vec<Planned>);

impl Faults {
    /// Draws them for these nodes: none without kinds or nodes.
    #[must_use]
    pub fn draw(seed: u64, kinds: &[FaultKind], members: &[Member]) -> Self {
        if kinds.is_empty() || members.is_empty() {
            return Self::default();
        }
        // Not the numbers that the simulation draws from the same seed.
        let mut random = SmallRng::seed_from_u64(seed ^ 0x6661_756c_7473);
        let count = random.random_range(1..=MOST);
        let mut faults: Vec<Planned> = (0..count)
            .map(|_| Planned {
                at: Duration::from_millis(random.random_range(0..WITHIN)),
                kind: kinds[random.random_range(0..kinds.len())],
                member: members[random.random_range(0..members.len())],
                lasts: Duration::from_millis(random.random_range(LASTS.0..LASTS.1)),
            })
            .collect();
        faults.sort_by_key(|fault| fault.at);
        Self(faults)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The faults.
    #[must_use]
    pub fn planned(&self) -> &[Planned] {
        &self.0
    }

    /// All but one.
    pub(super) fn without(&self, index: usize) -> Self {
        let others = self.0.iter().enumerate().filter(|(at, _)| *at != index);
        Self(others.map(|(_, fault)| *fault).collect())
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("  no faults");
        }
        let mut lines = self.0.iter().map(|fault| format!("  {fault}"));
        f.write_str(&lines.by_ref().collect::<Vec<_>>().join("\n"))
    }
}

/// A change of the cluster: a fault that begins, or ends.
struct Step {
    at: Duration,
    fault: Planned,
    begins: bool,
}

impl<A> Cluster<A> {
    /// Lets the drawn faults happen and end; then undoes whatever is left of them.
    pub(super) async fn suffer(&self) -> Result<(), super::ClusterError> {
        let began = Instant::now();
        let mut steps: Vec<Step> = Vec::new();
        for fault in self.inner.faults.planned() {
            steps.push(Step { at: fault.at, fault: *fault, begins: true });
            steps.push(Step { at: fault.at + fault.lasts, fault: *fault, begins: false });
        }
        steps.sort_by_key(|step| step.at);
        for (number, Step { at, fault, begins }) in steps.iter().enumerate() {
            sleep_until(began + *at).await;
            tracing::debug!(member = %fault.member, kind = ?fault.kind, begins, "fault");
            // Of several faults of one kind at a node, the end of the last one counts.
            let over = !begins
                && !steps[number..]
                    .iter()
                    .any(|later| !later.begins && later.at > *at && same(later, fault) && began_before(later, *at));
            match (fault.kind, begins) {
                (FaultKind::Kill, true) => self.instance(fault.member).kill(),
                (FaultKind::Kill, false) if over => self.start_again(fault.member).await?,
                (FaultKind::Partition, true) => self.cut_off(fault.member),
                // There is one heal for all partitions: those that go on are made again.
                (FaultKind::Partition, false) => self.heal_but(&steps, number),
                (FaultKind::Pause, true) => self.instance(fault.member).pause(),
                (FaultKind::Pause, false) if over => self.instance(fault.member).resume(),
                (FaultKind::Kill | FaultKind::Pause, false) => {}
            }
        }
        self.inner.calm.send_replace(true);
        Ok(())
    }

    /// Heals, and cuts off again who is in a partition that has begun and not ended.
    fn heal_but(&self, steps: &[Step], done: usize) {
        self.heal();
        for (number, step) in steps.iter().enumerate() {
            let goes_on = step.fault.kind == FaultKind::Partition && !step.begins && number > done;
            if goes_on && began_before(step, steps[done].at) {
                self.cut_off(step.fault.member);
            }
        }
    }
}

fn same(step: &Step, fault: &Planned) -> bool {
    step.fault.kind == fault.kind && step.fault.member == fault.member
}

fn began_before(step: &Step, at: Duration) -> bool {
    step.fault.at <= at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_and_others_draw_others() {
        let members = [0, 1].map(|index| Member { role: "role", index, at: index });
        let draw = |seed| Faults::draw(seed, &[FaultKind::Kill, FaultKind::Pause], &members);
        assert_eq!(draw(1), draw(1));
        let drawn: Vec<Faults> = (0..50).map(draw).collect();
        assert!(drawn.iter().all(|faults| (1..=MOST as usize).contains(&faults.planned().len())));
        let all = || drawn.iter().flat_map(Faults::planned);
        for member in members {
            for kind in [FaultKind::Kill, FaultKind::Pause] {
                assert!(all().any(|fault| fault.member == member && fault.kind == kind), "{member} {kind:?}");
            }
        }
        assert!(all().all(|fault| fault.kind != FaultKind::Partition), "what is not declared is not drawn");
        assert!(Faults::draw(1, &[], &members).is_empty() && Faults::draw(1, &[FaultKind::Kill], &[]).is_empty());
    }
}
