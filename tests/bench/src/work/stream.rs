//! Throughput: items counted at the consumers, none missing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::future::try_join_all;
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use super::{Figures, memory};
use crate::{
    contender::{Contender, Receiver, Sender, raw::RawBytes},
    item::{Checker, Item, body},
};

/// Load before the clock starts, so that windows and buffers have grown.
pub(super) const WARM_UP: Duration = Duration::from_millis(500);

/// What the receivers have counted so far. The sender of a contender that cannot pace itself waits on it.
pub(super) struct Progress {
    received: Vec<AtomicU64>,
    moved: Notify,
}

impl Progress {
    pub(super) fn new(receivers: usize) -> Self {
        Self { received: (0..receivers).map(|_| AtomicU64::new(0)).collect(), moved: Notify::new() }
    }

    pub(super) fn total(&self) -> u64 {
        self.received.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    fn slowest(&self) -> u64 {
        self.received.iter().map(|count| count.load(Ordering::Acquire)).min().unwrap_or(0)
    }
}

pub async fn run<C: Contender>(size: usize, receivers: usize, seconds: f64) -> Result<Figures> {
    let session = C::connect(receivers).await?;
    let progress = Arc::new(Progress::new(receivers));
    let stop = Arc::new(AtomicBool::new(false));
    let sending = tokio::spawn(send(session.sender, size, C::WINDOW, progress.clone(), stop.clone()));
    let receiving = session
        .receivers
        .into_iter()
        .enumerate()
        .map(|(index, receiver)| tokio::spawn(receive(receiver, index, size, C::WINDOW, progress.clone())))
        .map(|task| async move { task.await? });
    let measuring = async {
        sleep(WARM_UP).await;
        let (before, start) = (progress.total(), Instant::now());
        sleep(Duration::from_secs_f64(seconds)).await;
        let (after, elapsed) = (progress.total(), start.elapsed().as_secs_f64());
        stop.store(true, Ordering::Relaxed);
        Ok((after - before) as f64 / elapsed)
    };
    // The first failure ends them all. The sender is kept until all have been received: dropping it may drop items.
    let (items, _sender, _) = tokio::try_join!(measuring, async { sending.await? }, try_join_all(receiving))?;
    Ok(Figures::from([
        ("items".into(), items),
        ("megabytes".into(), items * size as f64 / 1e6),
        ("memory".into(), memory::peak()),
    ]))
}

pub(super) async fn send<S: Sender>(
    mut sender: S,
    size: usize,
    window: Option<u64>,
    progress: Arc<Progress>,
    stop: Arc<AtomicBool>,
) -> Result<S> {
    let body = body(size);
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        if let Some(window) = window {
            while sent - progress.slowest() >= window {
                progress.moved.notified().await;
            }
        }
        sender.send(Item { sequence: sent, body: body.clone() }).await?;
        sent += 1;
    }
    sender.send(Item::end(sent)).await?;
    sender.flush().await?;
    Ok(sender)
}

pub(super) async fn receive<R: Receiver>(
    mut receiver: R,
    index: usize,
    size: usize,
    window: Option<u64>,
    progress: Arc<Progress>,
) -> Result<()> {
    let mut checker = Checker::new(size);
    // Often enough for the sender never to run dry, seldom enough to cost nothing.
    let notify_every = window.map_or(u64::MAX, |window| window / 8);
    loop {
        let item = receiver.next().await.with_context(|| format!("receiver {index}"))?;
        if !checker.take(&item).with_context(|| format!("receiver {index}"))? {
            return Ok(());
        }
        progress.received[index].store(checker.received(), Ordering::Release);
        if checker.received().is_multiple_of(notify_every) {
            progress.moved.notify_one();
        }
    }
}

/// Bytes per second of one stream of plain iroh, in writes of `size` bytes.
pub async fn bytes(size: usize, seconds: f64) -> Result<Figures> {
    let (mut send, mut recv, _keep) = RawBytes::connect().await?.split();
    let received = Arc::new(AtomicU64::new(0));
    let chunk = Bytes::from(vec![7_u8; size]);
    let sending = tokio::spawn(async move { while send.write_chunk(chunk.clone()).await.is_ok() {} });
    let count = received.clone();
    let receiving = tokio::spawn(async move {
        while let Ok(Some(chunk)) = recv.read_chunk(1 << 20).await {
            count.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        }
    });
    sleep(WARM_UP).await;
    let (before, start) = (received.load(Ordering::Relaxed), Instant::now());
    sleep(Duration::from_secs_f64(seconds)).await;
    let (after, elapsed) = (received.load(Ordering::Relaxed), start.elapsed().as_secs_f64());
    sending.abort();
    receiving.abort();
    let per_second = (after - before) as f64 / elapsed;
    Ok(Figures::from([("megabytes".into(), per_second / 1e6), ("memory".into(), memory::peak())]))
}
