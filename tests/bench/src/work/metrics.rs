//! What metrics cost a stream: its throughput between nodes without them, and between nodes that publish to a recorder of
//! Prometheus which is scraped once a second. One process, in turn.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use mosaik::Network;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep},
};

use super::{
    Figures, PolledWork, memory,
    stream::{Progress, WARM_UP, receive, send},
};
use crate::{
    contender::{
        Framework, all_known, network_name, nodes,
        ours::{Ours, builder},
    },
    table::median,
};

/// How often metrics are scraped.
const EVERY: Duration = Duration::from_secs(1);

/// Windows without and with metrics in turn; figures are medians of all turns.
pub async fn run(work: &PolledWork) -> Result<Figures> {
    let plain = nodes::<Ours>(&network_name(), 2).await?;
    let server = mosaik::metrics::serve("127.0.0.1:0".parse()?)?;
    let endpoint = server.addr();
    let serving = tokio::spawn(server);
    let published = publishing().await?;
    for pair in [&plain, &published] {
        all_known::<Ours>(pair).await;
    }
    let scraping = tokio::spawn(scrape(endpoint));
    let (mut without, mut with, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..work.turns {
        without.push(window(&plain, turn, work).await?);
        with.push(window(&published, turn, work).await?);
        ratios.push(with[turn] / without[turn]);
    }
    ensure!(!scraping.is_finished(), "scraping failed: {:?}", scraping.await);
    scraping.abort();
    serving.abort();
    let median = |values| median(values).unwrap_or(f64::NAN);
    Ok(Figures::from([
        ("without".to_owned(), median(without)),
        ("with".to_owned(), median(with)),
        ("ratio".to_owned(), median(ratios)),
        ("memory".to_owned(), memory::peak()),
    ]))
}

/// Two nodes that publish metrics.
async fn publishing() -> Result<Vec<Network>> {
    let id = network_name();
    let builder = || Ok::<_, anyhow::Error>(builder(&id)?.with_metrics());
    let first = builder()?.build().await?;
    let second = builder()?.with_bootstrap(first.local().addr()).build().await?;
    Ok(vec![first, second])
}

/// Items per second of a stream of its own.
async fn window(nodes: &[Network], turn: usize, work: &PolledWork) -> Result<f64> {
    let name = format!("metrics-{turn}");
    let (producer, consumer) = (Ours::produce(&nodes[0], &name)?, Ours::consume(&nodes[1], &name));
    Ours::subscribed(&producer, 1).await;
    let (progress, stop) = (Arc::new(Progress::new(1)), Arc::new(AtomicBool::new(false)));
    let sending = tokio::spawn(send(producer, work.size, None, progress.clone(), stop.clone()));
    let receiving = tokio::spawn(receive(consumer, 0, work.size, None, progress.clone()));
    sleep(WARM_UP).await;
    let (before, began) = (progress.total(), Instant::now());
    sleep(Duration::from_secs_f64(work.seconds)).await;
    let rate = (progress.total() - before) as f64 / began.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    // The sender is kept until all has been received: dropping it may drop items.
    let (_sender, ()) = tokio::try_join!(async { sending.await? }, async { receiving.await? })?;
    Ok(rate)
}

/// Reads the endpoint again and again.
async fn scrape(at: SocketAddr) -> Result<()> {
    loop {
        let mut connection = TcpStream::connect(at).await?;
        connection.write_all(b"GET /metrics HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        sleep(EVERY).await;
    }
}
