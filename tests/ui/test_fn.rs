//! Tests of apps.

use mosaik::{prelude::*, testing::Cluster};

#[mosaik::node]
struct Idle {}

#[mosaik::handlers]
impl Idle {}

#[mosaik::app(roles = [Idle])]
struct App;

#[mosaik::test(seeds = 0)]
async fn never(_cluster: Cluster<App>) {}

#[mosaik::test(seeds = "200")]
async fn quoted(_cluster: Cluster<App>) {}

#[mosaik::test(seed = 1)]
async fn misspelt(_cluster: Cluster<App>) {}

#[mosaik::test(faults = [kil, crash])]
async fn unknown_faults(_cluster: Cluster<App>) {}

#[mosaik::test(faults = kill)]
async fn no_list(_cluster: Cluster<App>) {}

#[mosaik::test(faults = [kill, kill])]
async fn twice(_cluster: Cluster<App>) {}

#[mosaik::test(with = [Idle])]
async fn no_count(_cluster: Cluster<App>) {}

#[mosaik::test(with = [Idle = 1, Idle = 2])]
async fn counted_twice(_cluster: Cluster<App>) {}

#[mosaik::test]
fn not_async(_cluster: Cluster<App>) {}

#[mosaik::test]
async fn no_cluster() {}

#[mosaik::test]
async fn too_many(_cluster: Cluster<App>, _seed: u64) {}

#[mosaik::test]
async fn generic<T>(_cluster: Cluster<App>) {}

#[mosaik::test]
struct NotAFunction;

fn main() {}
