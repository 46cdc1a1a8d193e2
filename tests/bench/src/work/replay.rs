//! A late joiner beside live flow: how much the replay of what is retained adds to the latency of live items.

use std::{
    mem,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use mosaik::{
    Network,
    streams::{Consumer, Producer, Retain},
};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{Figures, ReplayWork, memory, quantile};
use crate::{
    contender::{Framework, Receiver, all_known, network_name, nodes, ours::Ours},
    item::{Item, body},
    table::median,
};

const STREAM: &str = "replay";
/// Load before the first window, and between the end of a joiner and the next window.
const SETTLE: Duration = Duration::from_millis(500);
/// The sender wakes up so often.
const TICK: Duration = Duration::from_millis(1);

/// What sender, receiver and the one who measures share.
struct Load {
    /// Send times count from here.
    epoch: Instant,
    size: usize,
    sent: AtomicU64,
    stop: AtomicBool,
    /// How long items took from before `send` until they were out of the live consumer's `next`, microseconds.
    samples: Mutex<Vec<f64>>,
}

impl Load {
    /// The next item. Its body begins with when it was made.
    fn item(&self, pattern: &Bytes) -> Item {
        let mut bytes = pattern.to_vec();
        let nanos = u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
        bytes[..8].copy_from_slice(&nanos.to_le_bytes());
        Item { sequence: self.sent.fetch_add(1, Ordering::Relaxed), body: bytes.into() }
    }

    /// Since when the item has been under way, microseconds.
    fn age(&self, item: &Item) -> Result<f64> {
        let sent = u64::from_le_bytes(*item.body.first_chunk().context("an item without a time")?);
        Ok(self.epoch.elapsed().as_secs_f64() * 1e6 - sent as f64 / 1e3)
    }

    /// What was measured since the last call, ascending.
    fn take(&self) -> Vec<f64> {
        let mut samples = mem::take(&mut *self.samples.lock().unwrap_or_else(PoisonError::into_inner));
        samples.sort_by(f64::total_cmp);
        samples
    }
}

/// Windows without and with a joiner in turn; figures are medians of all turns.
pub async fn run(work: &ReplayWork) -> Result<Figures> {
    let nodes = nodes::<Ours>(&network_name(), 3).await?;
    all_known::<Ours>(&nodes).await;
    let retain = Retain::window(work.bytes, Duration::from_secs(3600));
    let producer: Producer<Item> = nodes[0].streams().producer().with_stream_id(STREAM).retain(retain).build()?;
    let live = Ours::consume(&nodes[1], STREAM);
    Ours::subscribed(&producer, 1).await;
    let load = Arc::new(Load {
        epoch: Instant::now(),
        size: work.size,
        sent: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        samples: Mutex::default(),
    });
    let receiving = tokio::spawn(receive(live, load.clone()));
    let pattern = body(work.size);
    for _ in 0..work.bytes / work.size + 1 {
        producer.send(load.item(&pattern)).await?;
    }
    let sending = tokio::spawn(send(producer, work.rate, load.clone()));
    // In a task of its own, as the runtime's main thread is not one of its workers.
    let turns = tokio::spawn(turns(work.clone(), nodes[2].clone(), load.clone())).await?;
    load.stop.store(true, Ordering::Relaxed);
    sending.await??;
    receiving.await??;
    let turns = turns?;
    let medians = turns.first().into_iter().flat_map(Figures::keys).map(|name| {
        let values = turns.iter().filter_map(|turn| turn.get(name).copied()).collect();
        (name.clone(), median(values).unwrap_or(f64::NAN))
    });
    Ok(medians.chain([("memory".to_owned(), memory::peak())]).collect())
}

async fn turns(work: ReplayWork, node: Network, load: Arc<Load>) -> Result<Vec<Figures>> {
    let mut turns = Vec::new();
    for _ in 0..work.turns {
        sleep(SETTLE).await;
        load.take();
        let (from, began) = (load.sent.load(Ordering::Relaxed), Instant::now());
        sleep(Duration::from_secs_f64(work.seconds)).await;
        let alone = load.take();
        let joiner = Ours::consume(&node, STREAM);
        let (replayed, took) = join(joiner, &load).await?;
        let joined = load.take();
        let rate = (load.sent.load(Ordering::Relaxed) - from) as f64 / began.elapsed().as_secs_f64();
        ensure!(replayed * work.size >= work.bytes / 20 * 19, "only {replayed} items were replayed");
        let (before, during) = (quantile(&alone, 0.99), quantile(&joined, 0.99));
        turns.push(Figures::from([
            ("live".to_owned(), rate),
            ("alone p50".to_owned(), quantile(&alone, 0.5)),
            ("alone p99".to_owned(), before),
            ("joined p50".to_owned(), quantile(&joined, 0.5)),
            ("joined p99".to_owned(), during),
            ("ratio p99".to_owned(), during / before),
            ("replay".to_owned(), took),
            ("replay rate".to_owned(), (replayed * work.size) as f64 / took / 1e6),
        ]));
    }
    Ok(turns)
}

/// How many items a late joiner was replayed, and how long that took, seconds, from its start until it has caught up with
/// what was sent before it came. Fails if one is missing.
async fn join(mut joiner: Consumer<Item>, load: &Load) -> Result<(usize, f64)> {
    let (cut, began) = (load.sent.load(Ordering::Relaxed), Instant::now());
    let first = Receiver::next(&mut joiner).await?.sequence;
    let mut next = first + 1;
    while next < cut {
        let item = Receiver::next(&mut joiner).await?;
        ensure!(item.sequence == next, "the joiner got item {} where {next} was due", item.sequence);
        next += 1;
    }
    Ok((usize::try_from(cut - first)?, began.elapsed().as_secs_f64()))
}

/// Sends `rate` items per second until told to stop. The producer is kept: dropping it may drop items.
async fn send(producer: Producer<Item>, rate: u32, load: Arc<Load>) -> Result<Producer<Item>> {
    let pattern = body(load.size);
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (began, mut sent) = (Instant::now(), 0.0);
    while !load.stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let due = began.elapsed().as_secs_f64() * f64::from(rate);
        while sent < due {
            producer.send(load.item(&pattern)).await?;
            sent += 1.0;
        }
    }
    producer.send(Item::end(load.sent.load(Ordering::Relaxed))).await?;
    Ok(producer)
}

/// The live consumer, until the end; fails if an item is missing.
async fn receive(mut consumer: Consumer<Item>, load: Arc<Load>) -> Result<()> {
    let mut checker = crate::item::Checker::new(load.size);
    loop {
        let item = Receiver::next(&mut consumer).await.context("the live consumer")?;
        if !checker.take(&item)? {
            return Ok(());
        }
        let age = load.age(&item)?;
        load.samples.lock().unwrap_or_else(PoisonError::into_inner).push(age);
    }
}
