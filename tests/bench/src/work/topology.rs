//! From nothing to nodes that all know each other and a stream from the first that reaches all the others.

use anyhow::Result;
use futures::future::try_join_all;
use tokio::time::Instant;

use super::{Figures, memory};
use crate::{
    contender::{Framework, Receiver, Sender, all_known, network_name, nodes},
    item::{Item, body},
};

pub async fn run<F: Framework>(count: usize) -> Result<Figures> {
    let start = Instant::now();
    let nodes = nodes::<F>(&network_name(), count).await?;
    let ready = start.elapsed();
    let mut sender = F::produce(&nodes[0], "bench")?;
    let receivers: Vec<_> = nodes[1..].iter().map(|node| F::consume(node, "bench")).collect();
    let known = async {
        all_known::<F>(&nodes).await;
        start.elapsed()
    };
    let reached = async {
        F::subscribed(&sender, receivers.len()).await;
        sender.send(Item { sequence: 0, body: body(32) }).await?;
        try_join_all(receivers.into_iter().map(|mut receiver| async move { receiver.next().await })).await?;
        anyhow::Ok(start.elapsed())
    };
    let (known, reached) = tokio::join!(known, reached);
    let reached = reached?;
    Ok(Figures::from([
        ("ready".into(), ready.as_secs_f64()),
        ("known".into(), known.as_secs_f64()),
        ("total".into(), known.max(reached).as_secs_f64()),
        ("memory".into(), memory::peak()),
    ]))
}
