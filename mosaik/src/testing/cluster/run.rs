//! What `#[mosaik::test]` calls: one run for each seed, each in a simulation of its own with faults drawn from the seed; the
//! first that fails is told with what is needed to run it again, and with the fewest of its faults that suffice.

use std::{
    env,
    fmt::Display,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use super::{
    Cluster,
    schedule::{FaultKind, Faults},
};
use crate::{node::App, testing::Sim};

/// The variable that picks one seed.
const SEED: &str = "MOSAIK_SEED";

/// What a test declares.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The test's name, with the path of its module.
    pub name: &'static str,
    /// How many seeds are run, from 0.
    pub seeds: u64,
    /// What faults are drawn from.
    pub faults: &'static [FaultKind],
    /// How many nodes there are of which role, where the usual number is not meant.
    pub roles: &'static [(&'static str, usize)],
    /// Whether nodes have data directories.
    pub durable: bool,
}

/// What a test may return: nothing, or a `Result` with nothing in it.
#[diagnostic::on_unimplemented(
    message = "a test cannot return `{Self}`",
    note = "return nothing, or `Result<(), E>` with an `E` that is `Display`"
)]
pub trait Passes {
    /// The error as text.
    ///
    /// # Errors
    /// When the test returned one.
    fn passes(self) -> Result<(), String>;
}

impl Passes for () {
    fn passes(self) -> Result<(), String> {
        Ok(())
    }
}

impl<E: Display> Passes for Result<(), E> {
    fn passes(self) -> Result<(), String> {
        self.map_err(|error| format!("{error:#}"))
    }
}

/// Runs a test with every seed, or with that in `MOSAIK_SEED`.
///
/// # Panics
/// As the test with the first seed that fails, after saying which that is.
pub fn run<A, T, F>(plan: &Plan, test: T)
where
    A: App,
    T: Fn(Cluster<A>) -> F,
    F: Future<Output: Passes>,
{
    let seeds = match env::var(SEED) {
        Ok(text) => {
            let seed: u64 = text.parse().unwrap_or_else(|_| panic!("{SEED} is no number: {text:?}"));
            seed..seed.saturating_add(1)
        }
        Err(_) => 0..plan.seeds,
    };
    // As the test harness names it: without the crate.
    let name = plan.name.split_once("::").map_or(plan.name, |(_, name)| name);
    for seed in seeds {
        let faults = draw::<A>(plan, seed);
        let Err(panic) = one(plan, seed, &faults, &test) else { continue };
        eprintln!("{name} failed with seed {seed} of {}; its faults:\n{faults}", plan.seeds);
        let (fewest, runs) = shrink(&faults, |fewer| one(plan, seed, fewer, &test).is_err());
        if fewest != faults {
            eprintln!("after {runs} runs with fewer of them, these suffice:\n{fewest}");
        }
        eprintln!("again: {SEED}={seed} cargo test {name}");
        resume_unwind(panic);
    }
}

/// The faults of a seed.
fn draw<A: App>(plan: &Plan, seed: u64) -> Faults {
    // Only the nodes' names and places are needed, so nothing is started.
    Sim::run(seed, |sim| async move {
        let members = configured::<A>(plan, &sim).members();
        Faults::draw(seed, plan.faults, &members.unwrap_or_else(|error| panic!("{error}")))
    })
}

fn configured<A: App>(plan: &Plan, sim: &Sim) -> super::ClusterBuilder<A> {
    let builder = Cluster::<A>::in_sim(sim);
    let builder = plan.roles.iter().fold(builder, |builder, (role, count)| builder.count(role, *count));
    if plan.durable { builder.durable() } else { builder }
}

/// One run; the panic if it fails.
fn one<A, T, F>(plan: &Plan, seed: u64, faults: &Faults, test: &T) -> std::thread::Result<()>
where
    A: App,
    T: Fn(Cluster<A>) -> F,
    F: Future<Output: Passes>,
{
    catch_unwind(AssertUnwindSafe(|| {
        Sim::run(seed, |sim| async move {
            let started = Box::pin(configured::<A>(plan, &sim).with_faults(faults.clone()).start()).await;
            let cluster = started.unwrap_or_else(|error| panic!("{error}"));
            let test = test(cluster.clone());
            let suffer = async {
                cluster.suffer().await.unwrap_or_else(|error| panic!("after a fault: {error}"));
                std::future::pending::<()>().await;
            };
            tokio::select! {
                biased;
                result = test => result.passes().unwrap_or_else(|error| panic!("{error}")),
                () = suffer => {}
            }
        });
    }))
}

/// Leaves out one fault after the other as long as it still fails; how often it was run as well.
fn shrink(faults: &Faults, fails: impl Fn(&Faults) -> bool) -> (Faults, u32) {
    let (mut fewest, mut at, mut runs) = (faults.clone(), 0, 0);
    while at < fewest.planned().len() {
        let fewer = fewest.without(at);
        runs += 1;
        if fails(&fewer) {
            fewest = fewer;
        } else {
            at += 1;
        }
    }
    (fewest, runs)
}

#[cfg(test)]
mod tests {
    use super::{super::member::Member, *};

    #[test]
    fn faults_that_are_not_needed_are_left_out() {
        let members = [0, 1, 2].map(|index| Member { role: "role", index, at: index });
        let kinds = [FaultKind::Kill, FaultKind::Pause];
        let drawn = (0..).map(|seed| Faults::draw(seed, &kinds, &members));
        let faults = drawn.into_iter().find(|faults| faults.planned().len() == 8).unwrap_or_default();
        let needed = [faults.planned()[2], faults.planned()[5]];
        let (fewest, runs) = shrink(&faults, |fewer| needed.iter().all(|each| fewer.planned().contains(each)));
        assert_eq!(fewest.planned(), needed);
        assert_eq!(runs, 8);
    }
}
