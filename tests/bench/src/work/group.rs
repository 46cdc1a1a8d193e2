//! Groups: commands and queries at the leader and at a follower, one at a time, many in flight, and in batches.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::future::try_join_all;

use super::{Figures, memory, quantile};
use crate::contender::Replicated;

/// Samples of a latency.
const SAMPLES: usize = 2000;
/// Commands of one batch.
const BATCH: u32 = 1000;

pub async fn run<F: Replicated>(members: usize, seconds: f64) -> Result<Figures> {
    let began = Instant::now();
    let members = F::members(members).await?;
    let mut figures = Figures::new();
    figures.insert("online".to_owned(), began.elapsed().as_secs_f64());
    let leader = members.iter().find(|member| F::is_leader(member)).context("no leader")?.clone();
    let follower = members.iter().find(|member| !F::is_leader(member)).context("no follower")?.clone();
    let time = Duration::from_secs_f64(seconds);
    for (name, member) in [("leader", leader), ("follower", follower)] {
        let mut samples = Vec::with_capacity(SAMPLES);
        for turn in 0..SAMPLES + 200 {
            let began = Instant::now();
            F::execute(&member, vec![1]).await?;
            if turn >= 200 {
                samples.push(began.elapsed().as_secs_f64() * 1e6);
            }
        }
        latency(&mut figures, &format!("{name} execute"), samples);
        for inflight in [64, 512] {
            let rate = throughput::<F>(&member, inflight, time, 1).await?;
            figures.insert(format!("{name} {inflight}"), rate);
        }
        figures.insert(format!("{name} batches"), throughput::<F>(&member, 4, time, BATCH).await?);
        for strong in [true, false] {
            let mut samples = Vec::with_capacity(SAMPLES);
            for _ in 0..SAMPLES {
                let began = Instant::now();
                F::query(&member, strong).await?;
                samples.push(began.elapsed().as_secs_f64() * 1e6);
            }
            latency(&mut figures, &format!("{name} {}", if strong { "strong" } else { "weak" }), samples);
        }
    }
    figures.insert("memory".to_owned(), memory::peak());
    Ok(figures)
}

fn latency(figures: &mut Figures, name: &str, mut samples: Vec<f64>) {
    samples.sort_by(f64::total_cmp);
    figures.insert(format!("{name} p50"), quantile(&samples, 0.5));
    figures.insert(format!("{name} p99"), quantile(&samples, 0.99));
}

/// Commands per second with so many calls in flight, each of `batch` commands.
async fn throughput<F: Replicated>(member: &F::Member, inflight: usize, time: Duration, batch: u32) -> Result<f64> {
    let began = Instant::now();
    let callers = (0..inflight).map(|_| {
        let member = member.clone();
        tokio::spawn(async move {
            let mut done = 0_u64;
            while began.elapsed() < time {
                F::execute(&member, vec![1; batch as usize]).await?;
                done += u64::from(batch);
            }
            anyhow::Ok(done)
        })
    });
    let done: Vec<Result<u64>> = try_join_all(callers).await?;
    let done: u64 = done.into_iter().sum::<Result<u64>>()?;
    Ok(done as f64 / began.elapsed().as_secs_f64())
}
