//! What it costs a stream that somebody looks: its throughput without and with a client of the diagnostics protocol.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use iroh::EndpointAddr;
use mosaik::diagnostics::Client;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{
    Figures, PolledWork, memory,
    stream::{Progress, WARM_UP, receive, send},
};
use crate::{
    contender::{Framework, all_known, network_name, nodes, ours::Ours},
    table::median,
};

/// How often the client asks.
const EVERY: Duration = Duration::from_secs(1);

/// Windows without and with the client in turn; figures are medians of all turns.
pub async fn run(work: &PolledWork) -> Result<Figures> {
    let network = network_name();
    let nodes = nodes::<Ours>(&network, 2).await?;
    all_known::<Ours>(&nodes).await;
    let producer = Ours::produce(&nodes[0], "polled")?;
    let consumer = Ours::consume(&nodes[1], "polled");
    Ours::subscribed(&producer, 1).await;
    let progress = Arc::new(Progress::new(1));
    let stop = Arc::new(AtomicBool::new(false));
    let sending = tokio::spawn(send(producer, work.size, None, progress.clone(), stop.clone()));
    let receiving = tokio::spawn(receive(consumer, 0, work.size, None, progress.clone()));
    let (asked, measured) = (nodes.iter().map(Ours::addr).collect(), progress.clone());
    let polled = work.clone();
    let measuring = tokio::spawn(async move { turns(&polled, &network, asked, &measured).await });
    let measured = measuring.await?;
    stop.store(true, Ordering::Relaxed);
    // The sender is kept until all has been received: dropping it may drop items.
    let (_sender, ()) = tokio::try_join!(async { sending.await? }, async { receiving.await? })?;
    let (alone, polled, ratios, answers) = measured?;
    let median = |values| median(values).unwrap_or(f64::NAN);
    Ok(Figures::from([
        ("alone".to_owned(), median(alone)),
        ("polled".to_owned(), median(polled)),
        ("ratio".to_owned(), median(ratios)),
        ("answers".to_owned(), answers),
        ("memory".to_owned(), memory::peak()),
    ]))
}

/// Items per second of each window without and with the client, their ratios, and how many answers it got.
async fn turns(
    work: &PolledWork,
    network: &str,
    asked: Vec<EndpointAddr>,
    progress: &Progress,
) -> Result<(Vec<f64>, Vec<f64>, Vec<f64>, f64)> {
    sleep(WARM_UP).await;
    let client = Client::new(network).await?;
    let (mut alone, mut polled, mut ratios, mut answers) = (Vec::new(), Vec::new(), Vec::new(), 0.0);
    let window = Duration::from_secs_f64(work.seconds);
    for _ in 0..work.turns {
        let without = rate(progress, sleep(window)).await;
        let until = Instant::now() + window;
        let mut got = 0.0;
        let mut failed = Ok(());
        let with = rate(progress, async {
            failed = poll(&client, &asked, until, &mut got).await;
        });
        let with = with.await;
        failed?;
        alone.push(without);
        polled.push(with);
        ratios.push(with / without);
        answers += got;
    }
    Ok((alone, polled, ratios, answers))
}

/// Items per second while `this` runs.
async fn rate(progress: &Progress, this: impl Future<Output = ()>) -> f64 {
    let (before, began) = (progress.total(), Instant::now());
    this.await;
    (progress.total() - before) as f64 / began.elapsed().as_secs_f64()
}

/// Asks every node for everything, again and again; counts the answers.
async fn poll(client: &Client, nodes: &[EndpointAddr], until: Instant, answers: &mut f64) -> Result<()> {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = tokio::time::sleep_until(until) => return Ok(()),
        }
        for node in nodes {
            let mut session = client.session(node).await?;
            session.node().await?;
            session.peers().await?;
            session.streams().await?;
            session.groups().await?;
            session.stores().await?;
            *answers += 5.0;
        }
    }
}
