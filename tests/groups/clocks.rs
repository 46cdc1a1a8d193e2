//! Wall clocks that are wrong, by hours or by a lifetime, on any member, at any time: nothing expires, nothing is applied
//! twice, and what machines see of time stays within its bounds.

use std::time::Duration;

use futures::future::join_all;
use mosaik::{
    groups::{ApplyContext, StateMachine},
    prelude::*,
    testing::Sim,
};
use tokio::time::sleep;

use crate::lab::{Increment, Lab, until};

const HOUR: f64 = 3_600.0;
const LIFETIME: f64 = 70.0 * 365.0 * 24.0 * HOUR;

/// G1: a leader's clock is far ahead for one command, then right again.
#[test]
fn a_leader_whose_clock_was_ahead_for_one_command_ends_nobodys_session() {
    for (seed, ahead) in [(1, 2.0 * HOUR), (2, LIFETIME)] {
        Sim::run(seed, async |sim| {
            let mut lab = Lab::durable(&sim, 3).started(3).await;
            let leader = lab.elected().await;
            let mut sum = 0;
            for n in 0..3 {
                sum += 1;
                assert_eq!(lab.add(n, 1).await, sum);
            }
            lab.node(leader).skew(ahead);
            sum += 1;
            assert_eq!(lab.add(leader, 1).await, sum);
            sleep(Duration::from_secs(1)).await;
            lab.node(leader).skew(0.0);
            for n in 0..3 {
                sum += 1;
                assert_eq!(lab.add(n, 1).await, sum, "n{n}");
            }
            for n in 0..3 {
                lab.crash(n);
            }
            for n in 0..3 {
                lab.start(n).await;
            }
            lab.elected().await;
            for n in 0..3 {
                sum += 1;
                assert_eq!(lab.add(n, 1).await, sum, "n{n} after a restart of all");
            }
        });
    }
}

/// G2: a follower's clock is behind: it is served like any other, and named.
#[test]
fn a_follower_whose_clock_is_behind_is_served_and_named() {
    Sim::run(3, async |sim| {
        let lab = Lab::new(&sim, 3).started(3).await;
        let leader = lab.elected().await;
        let behind = (leader + 1) % 3;
        lab.node(behind).skew(-2.0 * HOUR);
        for sum in 1..=5 {
            assert_eq!(lab.add(behind, 1).await, sum);
        }
        let id = lab.members[&behind].0.local().id();
        let skew = |at: usize| {
            let members = lab.group(at).members();
            members.iter().find(|member| member.id() == id).and_then(|member| member.clock_skew())
        };
        until("the leader knows", || skew(leader) == Some(-7_200_000)).await;
        until("it knows itself", || lab.group(behind).status().clock_skew() == Some(-7_200_000)).await;
        assert!(lab.group(behind).status().to_string().contains("wall clock 7200s behind"));
        assert_eq!(lab.group(leader).status().clock_skew(), None, "the median is right");
        lab.node(behind).skew(0.0);
        until("it is right again", || skew(leader).is_none()).await;
    });
}

/// G3: the first leader's clock is two hours behind; it dies while commands of a caller lie in the logs, unanswered.
#[test]
fn commands_that_were_unanswered_when_a_leader_with_a_slow_clock_died_are_applied_once() {
    for seed in 1..=40 {
        Sim::run(seed, async |sim| {
            let mut lab = Lab::durable(&sim, 3);
            for n in 0..3 {
                lab.node(n).skew(-2.0 * HOUR);
            }
            lab = lab.started(3).await;
            let leader = lab.elected().await;
            for n in (0..3).filter(|n| *n != leader) {
                lab.node(n).skew(0.0);
            }
            let caller = (leader + 1) % 3;
            assert_eq!(lab.add(caller, 1).await, 1);
            let group = lab.group(caller).clone();
            let one = |_| {
                let group = group.clone();
                async move { group.execute(Increment(1), Consistency::Strong).await }
            };
            let calls: tokio::task::JoinSet<_> = (0..20).map(one).collect();
            // Some are in the leader's log alone, some at a follower, some nowhere yet.
            sleep(Duration::from_micros(200 * seed)).await;
            lab.crash(leader);
            let outputs = calls.join_all().await;
            let mut sums: Vec<i64> = outputs.into_iter().map(|it| it.expect("done")).collect();
            sums.sort_unstable();
            assert_eq!(sums, (2..=21).collect::<Vec<i64>>(), "seed {seed}: each once");
            assert_eq!(lab.sum(caller).await, 21, "seed {seed}");
        });
    }
}

/// Every wall clock jumps all the time, leaders die: each acknowledged command is applied once, and none is unknown.
#[test]
fn clocks_that_jump_under_load_expire_nothing() {
    Sim::run(5, async |sim| {
        let lab = Lab::durable(&sim, 3).started(3).await;
        lab.elected().await;
        let mut sum = 0;
        for round in 0..200 {
            let skew = [0.0, 2.0 * HOUR, -2.0 * HOUR, LIFETIME, -LIFETIME / 4.0][round % 5];
            lab.node(round % 3).skew(skew);
            let calls = (0..3).map(|n| lab.group(n).execute(Increment(1), Consistency::Weak));
            for output in join_all(calls).await {
                output.expect("done");
                sum += 1;
            }
            sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(lab.sum(0).await, sum);
    });
}

/// Answers with the civil time that it sees, milliseconds.
#[derive(Debug, Default)]
struct Witness;

impl StateMachine for Witness {
    type Command = ();
    type Output = u64;
    type Query = ();
    type QueryResult = ();
    const NAME: &'static str = "witness";

    fn apply(&mut self, (): (), ctx: &ApplyContext) -> u64 {
        u64::try_from(ctx.time().as_millis()).unwrap_or(u64::MAX)
    }

    fn query(&self, (): ()) {}
}

#[test]
fn machines_see_the_median_of_the_wall_clocks_at_a_bounded_rate() {
    Sim::run(6, async |sim| {
        let mut lab: Lab<Witness> = Lab::durable(&sim, 3);
        // Whoever founds, two clocks are right.
        lab.node(0).skew(LIFETIME);
        for n in 0..3 {
            lab.start(n).await;
        }
        let see = async |lab: &Lab<Witness>, n: usize| lab.group(n).execute((), Consistency::Weak).await.expect("done");
        lab.elected().await;
        let (began, first) = (sim.elapsed(), see(&lab, 1).await);
        let passed = || u64::try_from(sim.elapsed().saturating_sub(began).as_millis()).unwrap();
        let wrong = |seen: u64| seen.abs_diff(first + passed());
        // The same clock leads or not, ahead or behind: what is seen goes on as before.
        for skew in [LIFETIME, 0.0, -2.0 * HOUR, 2.0 * HOUR] {
            lab.node(0).skew(skew);
            for n in 0..3 {
                sleep(Duration::from_millis(700)).await;
                let seen = see(&lab, n).await;
                assert!(wrong(seen) < 100, "skew {skew}: {} ms wrong", wrong(seen));
            }
        }
        // A majority jumps ahead by a minute: twice as fast until it is there.
        lab.node(0).skew(60.0);
        lab.node(1).skew(60.0);
        sleep(Duration::from_secs(30)).await;
        let seen = see(&lab, 2).await;
        assert!((29_000..31_000).contains(&wrong(seen)), "{} ms", wrong(seen));
        sleep(Duration::from_mins(1)).await;
        let seen = see(&lab, 2).await;
        assert!((59_000..61_000).contains(&wrong(seen)), "{} ms", wrong(seen));
        // And back: half as fast, never back.
        lab.node(0).skew(0.0);
        lab.node(1).skew(0.0);
        let mut last = seen;
        for _ in 0..130 {
            sleep(Duration::from_secs(1)).await;
            let seen = see(&lab, 2).await;
            assert!(seen >= last + 400, "{seen} after {last}");
            last = seen;
        }
        assert!(wrong(last) < 1_000, "{} ms", wrong(last));
    });
}
