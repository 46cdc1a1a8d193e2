//! How long two ready nodes take from `produce` and `consume` to the first item, again and again.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::{Instant, timeout};

use super::{Figures, memory, quantile};
use crate::{
    contender::{Framework, Receiver, Sender, all_known, network_name},
    item::{Item, body},
};

/// What counts as a success.
const GOOD: f64 = 1.0;

pub async fn run<F: Framework>(tries: usize, limit: f64) -> Result<Figures> {
    let mut times = Vec::with_capacity(tries);
    for _ in 0..tries {
        let network = network_name();
        let (a, b) = tokio::try_join!(F::node(&network, None), F::node(&network, None))?;
        F::sync(&a, F::addr(&b)).await?;
        let nodes = vec![a, b];
        timeout(Duration::from_secs(10), all_known::<F>(&nodes)).await.context("two nodes that do not meet")?;
        let start = Instant::now();
        // A try that reaches the limit counts as long as the limit, and is none of the successes.
        let elapsed = match timeout(Duration::from_secs_f64(limit), first_item::<F>(&nodes)).await {
            Ok(received) => {
                received?;
                start.elapsed().as_secs_f64()
            }
            Err(_) => limit,
        };
        times.push(elapsed);
        F::shutdown(nodes).await;
    }
    times.sort_by(f64::total_cmp);
    let good = times.iter().filter(|time| **time < GOOD).count();
    Ok(Figures::from([
        ("percent".into(), 100.0 * good as f64 / tries as f64),
        ("p50".into(), quantile(&times, 0.5) * 1e3),
        ("max".into(), quantile(&times, 1.0) * 1e3),
        ("memory".into(), memory::peak()),
    ]))
}

async fn first_item<F: Framework>(nodes: &[F::Node]) -> Result<()> {
    let mut sender = F::produce(&nodes[0], "bench")?;
    let mut receiver = F::consume(&nodes[1], "bench");
    F::subscribed(&sender, 1).await;
    sender.send(Item { sequence: 0, body: body(32) }).await?;
    let item = receiver.next().await?;
    ensure!(item.sequence == 0, "item {}", item.sequence);
    Ok(())
}
