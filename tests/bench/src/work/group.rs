//! Groups: commands and queries at the leader and at a follower, one at a time, many in flight, and in batches.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::future::try_join_all;
use tokio::time::sleep;

use super::{Figures, GroupWork, Kind, memory, quantile};
use crate::{contender::Replicated, disk};

/// Samples of a latency.
const SAMPLES: usize = 2000;
/// Commands of one batch.
const BATCH: u32 = 1000;

pub async fn run<F: Replicated>(work: &GroupWork) -> Result<Figures> {
    let mut figures = Figures::new();
    if work.kind == Kind::Durable {
        figures.insert("fdatasync".to_owned(), disk::sync_time(std::path::Path::new("."))? * 1e6);
    }
    let began = Instant::now();
    let members = F::members(work.members, work.kind).await?;
    figures.insert("online".to_owned(), began.elapsed().as_secs_f64());
    let leader = members.iter().find(|member| F::is_leader(member)).context("no leader")?.clone();
    let follower = members.iter().find(|member| !F::is_leader(member)).context("no follower")?.clone();
    for (name, member) in [("leader", leader), ("follower", follower)] {
        at::<F>(name, &member, work, &mut figures).await?;
    }
    figures.insert("memory".to_owned(), memory::peak());
    Ok(figures)
}

/// Everything that is asked for at one member.
async fn at<F: Replicated>(name: &str, member: &F::Member, work: &GroupWork, figures: &mut Figures) -> Result<()> {
    let (time, wanted) = (Duration::from_secs_f64(work.seconds), |figure: &str| figure.contains(&work.only));
    let figure = format!("{name} execute");
    if wanted(&figure) {
        let mut samples = Vec::with_capacity(SAMPLES);
        for turn in 0..SAMPLES + 200 {
            let began = Instant::now();
            F::execute(member, vec![1]).await?;
            if turn >= 200 {
                samples.push(began.elapsed().as_secs_f64() * 1e6);
            }
        }
        latency(figures, &figure, samples);
    }
    for (load, inflight, batch) in [("64", 64, 1), ("512", 512, 1), ("batches", 4, BATCH)] {
        let figure = format!("{name} {load}");
        if wanted(&figure) {
            let rate = throughput::<F>(member, inflight, time, batch).await?;
            figures.insert(figure, rate);
        }
    }
    for (kind, strong) in [("strong", true), ("weak", false)] {
        let figure = format!("{name} {kind}");
        if wanted(&figure) {
            let mut samples = Vec::with_capacity(SAMPLES);
            for _ in 0..SAMPLES {
                let began = Instant::now();
                F::query(member, strong).await?;
                samples.push(began.elapsed().as_secs_f64() * 1e6);
            }
            latency(figures, &figure, samples);
        }
    }
    Ok(())
}

/// How long a fourth member takes from its start until its machine has seen all commands.
pub async fn late_joiner<F: Replicated>(commands: u32) -> Result<Figures> {
    let members = F::members(3, Kind::Volatile).await?;
    let leader = members.iter().find(|member| F::is_leader(member)).context("no leader")?;
    for _ in 0..commands / BATCH {
        F::execute(leader, vec![1; BATCH as usize]).await?;
    }
    let wanted = i64::from(commands / BATCH * BATCH);
    let began = Instant::now();
    let late = F::join(&members).await?;
    while F::query(&late, false).await.ok() != Some(wanted) {
        sleep(Duration::from_millis(1)).await;
    }
    let took = began.elapsed().as_secs_f64();
    Ok(Figures::from([("caught up".to_owned(), took), ("memory".to_owned(), memory::peak())]))
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
