//! The loads. Each runs in a process of its own, so that its memory is its own, and gives back named figures.

mod group;
mod latency;
mod memory;
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
    /// A group of so many members: everything about it, each throughput for so long.
    Group { members: usize, seconds: f64 },
    /// Pairs of ready nodes, one after the other: from `produce` and `consume` to the first item.
    Subscribe { tries: usize, limit: f64 },
}

pub async fn run(who: Who, work: &Work) -> Result<Figures> {
    match (who, work) {
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
        Work::Group { members, seconds } => group::run::<F>(*members, *seconds).await,
        Work::Subscribe { tries, limit } => subscribe::run::<F>(*tries, *limit).await,
    }
}

/// The value below which the fraction `q` of the sorted samples lie.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((q * last as f64).round() as usize).copied().unwrap_or(f64::NAN)
}
