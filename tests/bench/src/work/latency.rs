//! One item in flight: from before `send` until it is out of the consumer's `next`.

use anyhow::Result;
use tokio::time::Instant;

use super::{Figures, memory, quantile};
use crate::{
    contender::{Contender, Receiver, Sender},
    item::{Checker, Item, body},
};

const SIZE: usize = 32;
/// Items before the clock starts.
const WARM_UP: usize = 1_000;

pub async fn run<C: Contender>(items: usize) -> Result<Figures> {
    let mut session = C::connect(1).await?;
    let mut receiver = session.receivers.remove(0);
    let body = body(SIZE);
    // In a task of its own, as the runtime's main thread is not one of its workers.
    let samples = tokio::spawn(async move {
        let mut checker = Checker::new(SIZE);
        let mut samples = Vec::with_capacity(items);
        for sequence in 0..WARM_UP + items {
            let start = Instant::now();
            session.sender.send(Item { sequence: sequence as u64, body: body.clone() }).await?;
            session.sender.flush().await?;
            checker.take(&receiver.next().await?)?;
            if sequence >= WARM_UP {
                samples.push(start.elapsed().as_secs_f64() * 1e6);
            }
        }
        anyhow::Ok(samples)
    });
    let mut samples = samples.await??;
    samples.sort_by(f64::total_cmp);
    Ok(Figures::from([
        ("p50".into(), quantile(&samples, 0.5)),
        ("p99".into(), quantile(&samples, 0.99)),
        ("memory".into(), memory::peak()),
    ]))
}
