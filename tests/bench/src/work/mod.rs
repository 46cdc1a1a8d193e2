//! The loads. Each runs in a process of its own, so that its memory is its own, and gives back named figures.

mod group;
mod latency;
mod memory;
mod metrics;
mod polled;
mod replay;
mod stream;
mod subscribe;
mod topology;

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::contender::{Contender, Framework, Replicated, ours::Ours, peer::Peer, raw::Raw};

/// What a run measured, by the name of the figure.
pub type Figures = BTreeMap<String, f64>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Who {
    Ours,
    Peer,
    Raw,
    /// Plain iroh again, bytes without items.
    RawBytes,
}

/// A load and its shape.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Work {
    /// Items of `size` bytes as fast as they go, from one sender to `receivers`.
    Stream { size: usize, receivers: usize, seconds: f64 },
    /// One item of 32 bytes at a time.
    Latency { items: usize },
    /// From nothing to `nodes` nodes that all know each other and a stream that reaches all.
    Topology { nodes: usize },
    /// A group: commands and queries.
    Group(GroupWork),
    /// A member that joins a group of three with so many commands in its log.
    LateJoiner { commands: u32 },
    /// A late joiner that is replayed what is retained, beside live flow.
    Replay(ReplayWork),
    /// A stream at full speed, without and with a client that asks for its diagnostics.
    Polled(PolledWork),
    /// A stream at full speed, without and with metrics that are scraped.
    Metrics(PolledWork),
    /// Pairs of ready nodes, one after the other: from `produce` and `consume` to the first item.
    Subscribe { tries: usize, limit: f64 },
}

impl Work {
    /// Whether its threads often wait for each other or for a disk, and cores are idle meanwhile.
    pub const fn sleeps(&self) -> bool {
        matches!(self, Self::Group(_) | Self::LateJoiner { .. })
    }
}

/// A replay beside live flow.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReplayWork {
    /// Of an item, bytes.
    pub size: usize,
    /// Live items per second.
    pub rate: u32,
    /// Retained and replayed.
    pub bytes: usize,
    /// How long live flow is measured without a joiner, each time.
    pub seconds: f64,
    /// How often without and with a joiner.
    pub turns: usize,
}

/// A stream that is looked at.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PolledWork {
    /// Of an item, bytes.
    pub size: usize,
    /// How long each window lasts.
    pub seconds: f64,
    /// How often without and with the client, or metrics.
    pub turns: usize,
}

/// What is measured of a group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GroupWork {
    pub members: usize,
    /// Each throughput is measured for so long.
    pub seconds: f64,
    pub kind: Kind,
    /// Only figures whose name contains this, such as `leader 64`.
    pub only: String,
}

/// What kind of group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// In memory, default timing.
    Volatile,
    /// In memory, the timing for members in one building.
    Lan,
    /// Each member has a data directory below the current one.
    Durable,
}

pub async fn run(who: Who, work: &Work) -> Result<Figures> {
    match (who, work) {
        (Who::Ours, Work::Polled(work)) => polled::run(work).await,
        (Who::Ours, Work::Metrics(work)) => metrics::run(work).await,
        (Who::Ours, Work::Replay(work)) => replay::run(work).await,
        (Who::Ours, work) => framework::<Ours>(work).await,
        (Who::Peer, work) => framework::<Peer>(work).await,
        (Who::Raw, Work::Stream { size, receivers, seconds }) => stream::run::<Raw>(*size, *receivers, *seconds).await,
        (Who::Raw, Work::Latency { items }) => latency::run::<Raw>(*items).await,
        (Who::RawBytes, Work::Stream { size, seconds, .. }) => stream::bytes(*size, *seconds).await,
        (who, work) => bail!("{who:?} has no {work:?}"),
    }
}

async fn framework<F: Contender + Framework + Replicated>(work: &Work) -> Result<Figures> {
    match work {
        Work::Stream { size, receivers, seconds } => stream::run::<F>(*size, *receivers, *seconds).await,
        Work::Latency { items } => latency::run::<F>(*items).await,
        Work::Topology { nodes } => topology::run::<F>(*nodes).await,
        Work::Group(work) => group::run::<F>(work).await,
        Work::LateJoiner { commands } => group::late_joiner::<F>(*commands).await,
        Work::Replay(_) | Work::Polled(_) | Work::Metrics(_) => bail!("only mosaik has {work:?}"),
        Work::Subscribe { tries, limit } => subscribe::run::<F>(*tries, *limit).await,
    }
}

/// The value below which the fraction `q` of the sorted samples lie.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((q * last as f64).round() as usize).copied().unwrap_or(f64::NAN)
}
