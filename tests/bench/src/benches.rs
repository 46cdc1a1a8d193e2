//! Which benches there are, with what load, and the alternation of their runs.

use anyhow::Result;

use crate::{
    child::{self, Common},
    conditions,
    table::{Samples, Section, Shown},
    work::{GroupWork, Kind, PolledWork, ReplayWork, Who, Work},
};

const ITEMS: Shown = Shown { figure: "items", unit: "k items/s", digits: 0, scale: 1e3 };
const MEGABYTES: Shown = Shown { figure: "megabytes", unit: "MB/s", digits: 0, scale: 1.0 };
const MEMORY: Shown = Shown { figure: "memory", unit: "MB resident, peak", digits: 0, scale: 1.0 };

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Bench {
    /// One to one at 32 B, 1 KiB and 64 KiB.
    Stream,
    /// 1 KiB to 4 and to 16 consumers.
    Fanout,
    /// One item of 32 B in flight.
    Latency,
    /// 2, 5, 10 and 20 nodes.
    Topology,
    /// Two ready nodes, again and again.
    Subscribe,
    /// A late joiner gets a replay of 64 MiB beside 10,000 live items per second.
    Replay,
    /// One to one at 1 KiB, without and with a client that asks for diagnostics once a second.
    Polled,
    /// One to one at 1 KiB, without and with metrics for Prometheus.
    Metrics,
    /// Replicated state machines of 3 and 5 members.
    Groups,
}

/// How much of each.
#[derive(Clone, Debug)]
pub struct Effort {
    pub runs: usize,
    pub seconds: f64,
    pub tries: usize,
    /// Of groups only figures whose name contains this.
    pub only: String,
}

/// One line of the table before it is run.
#[derive(Debug)]
pub struct Plan {
    pub name: String,
    pub work: Work,
    pub shown: Vec<Shown>,
    pub contenders: Vec<Who>,
}

pub fn plans(bench: Bench, effort: &Effort) -> Vec<Plan> {
    let seconds = effort.seconds;
    match bench {
        Bench::Stream => [(32, "32 B"), (1 << 10, "1 KiB"), (64 << 10, "64 KiB")]
            .into_iter()
            .map(|(size, name)| {
                let mut contenders = vec![Who::Ours, Who::Peer, Who::Raw];
                contenders.extend((size == 64 << 10).then_some(Who::RawBytes));
                Plan {
                    name: format!("stream 1:1, {name}"),
                    work: Work::Stream { size, receivers: 1, seconds },
                    shown: vec![ITEMS, MEGABYTES, MEMORY],
                    contenders,
                }
            })
            .collect(),
        Bench::Fanout => [4, 16]
            .into_iter()
            .map(|receivers| Plan {
                name: format!("fan-out 1:{receivers}, 1 KiB, delivered"),
                work: Work::Stream { size: 1 << 10, receivers, seconds },
                shown: vec![ITEMS, MEMORY],
                contenders: vec![Who::Ours, Who::Peer, Who::Raw],
            })
            .collect(),
        Bench::Latency => vec![Plan {
            name: "one 32 B item in flight".to_owned(),
            work: Work::Latency { items: 20_000 },
            shown: vec![
                Shown { figure: "p50", unit: "us, p50", digits: 1, scale: 1.0 },
                Shown { figure: "p99", unit: "us, p99", digits: 1, scale: 1.0 },
            ],
            contenders: vec![Who::Ours, Who::Peer, Who::Raw],
        }],
        Bench::Topology => [2, 5, 10, 20]
            .into_iter()
            .map(|nodes| Plan {
                name: format!("topology, {nodes} nodes"),
                work: Work::Topology { nodes },
                shown: vec![
                    Shown { figure: "ready", unit: "s until all are built", digits: 3, scale: 1.0 },
                    Shown { figure: "known", unit: "s until all know all", digits: 3, scale: 1.0 },
                    Shown { figure: "total", unit: "s until a stream reaches all, too", digits: 3, scale: 1.0 },
                    MEMORY,
                ],
                contenders: vec![Who::Ours, Who::Peer],
            })
            .collect(),
        Bench::Groups => groups(seconds / 2.0, &effort.only),
        Bench::Polled => vec![polled(seconds)],
        Bench::Metrics => vec![metrics(seconds)],
        Bench::Replay => vec![replay(seconds)],
        Bench::Subscribe => vec![Plan {
            name: format!("two ready nodes subscribe, {} times per run", effort.tries),
            work: Work::Subscribe { tries: effort.tries, limit: 10.0 },
            shown: vec![
                Shown { figure: "percent", unit: "% in under 1 s", digits: 1, scale: 1.0 },
                Shown { figure: "p50", unit: "ms to the first item, p50", digits: 1, scale: 1.0 },
                Shown { figure: "max", unit: "ms to the first item, max", digits: 1, scale: 1.0 },
            ],
            contenders: vec![Who::Ours, Who::Peer],
        }],
    }
}

/// A replay beside live flow, three times per run.
fn replay(seconds: f64) -> Plan {
    let shown = |figure, unit| Shown { figure, unit, digits: 2, scale: 1.0 };
    let milliseconds = |figure, unit| Shown { figure, unit, digits: 2, scale: 1e3 };
    Plan {
        name: "replay of 64 MiB beside 10,000 items/s of 1 KiB".to_owned(),
        work: Work::Replay(ReplayWork { size: 1 << 10, rate: 10_000, bytes: 64 << 20, seconds, turns: 3 }),
        shown: vec![
            Shown { figure: "live", unit: "live k items/s", digits: 2, scale: 1e3 },
            milliseconds("alone p50", "ms, live item, p50, without a joiner"),
            milliseconds("joined p50", "ms, live item, p50, beside the replay"),
            milliseconds("alone p99", "ms, live item, p99, without a joiner"),
            milliseconds("joined p99", "ms, live item, p99, beside the replay"),
            shown("ratio p99", "p99 beside the replay / without"),
            shown("replay", "s, the replay"),
            Shown { figure: "replay rate", unit: "MB/s, the replay", digits: 1, scale: 1.0 },
            MEMORY,
        ],
        contenders: vec![Who::Ours],
    }
}

/// A stream without and with a client of the diagnostics protocol, five times per run.
fn polled(seconds: f64) -> Plan {
    let rate = |figure, unit| Shown { figure, unit, digits: 0, scale: 1e3 };
    Plan {
        name: "stream 1:1, 1 KiB, both ends asked for all diagnostics once a second".to_owned(),
        work: Work::Polled(PolledWork { size: 1 << 10, seconds, turns: 5 }),
        shown: vec![
            rate("alone", "k items/s, not asked"),
            rate("polled", "k items/s, asked"),
            Shown { figure: "ratio", unit: "asked / not asked", digits: 3, scale: 1.0 },
            Shown { figure: "answers", unit: "answers", digits: 0, scale: 1.0 },
            MEMORY,
        ],
        contenders: vec![Who::Ours],
    }
}

/// A stream without and with metrics, five times per run.
fn metrics(seconds: f64) -> Plan {
    let rate = |figure, unit| Shown { figure, unit, digits: 0, scale: 1e3 };
    Plan {
        name: "stream 1:1, 1 KiB, with metrics scraped once a second".to_owned(),
        work: Work::Metrics(PolledWork { size: 1 << 10, seconds, turns: 5 }),
        shown: vec![
            rate("without", "k items/s, without metrics"),
            rate("with", "k items/s, with metrics"),
            Shown { figure: "ratio", unit: "with / without", digits: 3, scale: 1.0 },
            MEMORY,
        ],
        contenders: vec![Who::Ours],
    }
}

/// Groups of all kinds, and a member that comes late.
fn groups(seconds: f64, only: &str) -> Vec<Plan> {
    let kinds = [
        ("group of 3", 3, Kind::Volatile),
        ("group of 5", 5, Kind::Volatile),
        ("group of 3, LAN timing", 3, Kind::Lan),
        ("group of 3, durable", 3, Kind::Durable),
    ];
    let plan = |(name, members, kind): (&str, usize, Kind)| Plan {
        name: name.to_owned(),
        work: Work::Group(GroupWork { members, seconds, kind, only: only.to_owned() }),
        shown: group(),
        contenders: if kind == Kind::Volatile { vec![Who::Ours, Who::Peer] } else { vec![Who::Ours] },
    };
    let late = Plan {
        name: "a fourth member after 100,000 commands".to_owned(),
        work: Work::LateJoiner { commands: 100_000 },
        shown: vec![Shown { figure: "caught up", unit: "s from its start to the end", digits: 2, scale: 1.0 }, MEMORY],
        contenders: vec![Who::Ours, Who::Peer],
    };
    kinds.map(plan).into_iter().chain([late]).collect()
}

/// What is shown of a group: commands and queries at its leader and at a follower.
fn group() -> Vec<Shown> {
    const RATE: f64 = 1e3;
    let us = |figure, unit| Shown { figure, unit, digits: 0, scale: 1.0 };
    let rate = |figure, unit| Shown { figure, unit, digits: 1, scale: RATE };
    vec![
        us("fdatasync", "us, fdatasync of 4 KiB, p50"),
        Shown { figure: "online", unit: "s until all are online", digits: 2, scale: 1.0 },
        us("leader execute p50", "us, execute at the leader, p50"),
        us("leader execute p99", "us, execute at the leader, p99"),
        us("follower execute p50", "us, execute at a follower, p50"),
        us("follower execute p99", "us, execute at a follower, p99"),
        rate("leader 64", "k commands/s, 64 in flight at the leader"),
        rate("follower 64", "k commands/s, 64 in flight at a follower"),
        rate("leader 512", "k commands/s, 512 in flight at the leader"),
        rate("follower 512", "k commands/s, 512 in flight at a follower"),
        rate("leader batches", "k commands/s, 4 batches of 1,000 in flight at the leader"),
        rate("follower batches", "k commands/s, 4 batches of 1,000 in flight at a follower"),
        us("leader strong p50", "us, strong query at the leader, p50"),
        us("follower strong p50", "us, strong query at a follower, p50"),
        Shown { figure: "follower weak p50", unit: "us, weak query, p50", digits: 2, scale: 1.0 },
        MEMORY,
    ]
}

/// Runs the contenders in turn, round by round. A contender that keeps failing is left out of the rest of its bench.
pub async fn run(plan: Plan, runs: usize, common: &Common, without: &[Who]) -> Result<Section> {
    let mut samples = Samples::default();
    let mut contenders = plan.contenders;
    contenders.retain(|who| !without.contains(who));
    for round in 0..runs {
        for who in contenders.clone() {
            match child::run(who, &plan.work, common).await {
                Ok((figures, failed)) => {
                    eprintln!(
                        "{} {}/{runs} {who:?} load {:.1}: {figures:.1?}",
                        plan.name,
                        round + 1,
                        conditions::load()
                    );
                    samples.rounds.entry(who).or_default().push(figures);
                    *samples.retries.entry(who).or_default() += failed;
                }
                Err(error) => {
                    eprintln!("{}: without {who:?} from here: {error:#}", plan.name);
                    *samples.retries.entry(who).or_default() += child::TRIES;
                    contenders.retain(|other| *other != who);
                }
            }
        }
    }
    Ok(Section { name: plan.name, shown: plan.shown, samples })
}
