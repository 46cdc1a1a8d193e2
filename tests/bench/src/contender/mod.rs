//! The contenders behind common traits, so that every one runs the very same load.

pub mod ours;
pub mod ours_group;
pub mod peer;
mod peer_group;
pub mod raw;

use std::{any::Any, time::Duration};

use anyhow::Result;
use futures::future::try_join_all;
use iroh::EndpointAddr;
use tokio::time::sleep;

use crate::{item::Item, work::Kind};

/// The sending end of a stream.
pub trait Sender: Send + 'static {
    fn send(&mut self, item: Item) -> impl Future<Output = Result<()>> + Send;
    /// Puts what `send` may have kept back for a batch on its way.
    fn flush(&mut self) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }
}

/// The receiving end of a stream.
pub trait Receiver: Send + 'static {
    fn next(&mut self) -> impl Future<Output = Result<Item>> + Send;
}

/// One sender, connected to its receivers.
pub struct Session<S, R> {
    pub sender: S,
    pub receivers: Vec<R>,
    /// Whatever must live as long as the session.
    #[expect(dead_code, reason = "only its end matters")]
    pub keep: Box<dyn Any + Send>,
}

/// Carries items from one node to several others.
pub trait Contender {
    type Sender: Sender;
    type Receiver: Receiver;
    /// How many items may be on their way to the slowest receiver, for a contender that would otherwise drop some in
    /// its default mode. None: its own back-pressure sets the pace.
    const WINDOW: Option<u64>;
    fn connect(receivers: usize) -> impl Future<Output = Result<Session<Self::Sender, Self::Receiver>>> + Send;
}

/// A framework whose nodes find each other.
pub trait Framework: Send + 'static {
    type Node: Send + Sync + 'static;
    type Sender: Sender;
    type Receiver: Receiver;

    /// A ready node on loopback.
    fn node(network: &str, bootstrap: Option<EndpointAddr>) -> impl Future<Output = Result<Self::Node>> + Send;
    fn addr(node: &Self::Node) -> EndpointAddr;
    /// How many other nodes this one knows.
    fn peers(node: &Self::Node) -> usize;
    fn sync(node: &Self::Node, with: EndpointAddr) -> impl Future<Output = Result<()>> + Send;
    fn produce(node: &Self::Node, stream: &str) -> Result<Self::Sender>;
    fn consume(node: &Self::Node, stream: &str) -> Self::Receiver;
    /// Resolves when so many consumers have subscribed.
    fn subscribed(sender: &Self::Sender, consumers: usize) -> impl Future<Output = ()> + Send;
    fn shutdown(nodes: Vec<Self::Node>) -> impl Future<Output = ()> + Send;
}

/// Resolves when every node knows all the others.
pub async fn all_known<F: Framework>(nodes: &[F::Node]) {
    while nodes.iter().any(|node| F::peers(node) + 1 < nodes.len()) {
        sleep(Duration::from_millis(1)).await;
    }
}

/// Starts one node, then the others with the first as their bootstrap.
pub async fn nodes<F: Framework>(network: &str, count: usize) -> Result<Vec<F::Node>> {
    let first = F::node(network, None).await?;
    let bootstrap = F::addr(&first);
    let rest = try_join_all((1..count).map(|_| {
        let (network, bootstrap) = (network.to_owned(), bootstrap.clone());
        async move { tokio::spawn(async move { F::node(&network, Some(bootstrap)).await }).await? }
    }))
    .await?;
    Ok([first].into_iter().chain(rest).collect())
}

/// One node that produces and `receivers` others that consume.
pub async fn connect<F: Framework>(receivers: usize) -> Result<Session<F::Sender, F::Receiver>> {
    let nodes = nodes::<F>(&network_name(), receivers + 1).await?;
    all_known::<F>(&nodes).await;
    let sender = F::produce(&nodes[0], "bench")?;
    let receivers: Vec<_> = nodes[1..].iter().map(|node| F::consume(node, "bench")).collect();
    F::subscribed(&sender, receivers.len()).await;
    Ok(Session { sender, receivers, keep: Box::new(nodes) })
}

/// A network of its own for each run.
pub fn network_name() -> String {
    format!("bench-{}-{:?}", std::process::id(), std::time::SystemTime::now())
}

/// A framework with replicated state machines: a counter.
pub trait Replicated: Send + 'static {
    type Member: Clone + Send + Sync + 'static;

    /// So many members of one group in this process, all online and with one leader.
    fn members(count: usize, kind: Kind) -> impl Future<Output = Result<Vec<Self::Member>>> + Send;
    /// One more member of that group, which has just begun to join; not a voter at first.
    fn join(members: &[Self::Member]) -> impl Future<Output = Result<Self::Member>> + Send;
    fn is_leader(member: &Self::Member) -> bool;
    /// Resolves when all are committed and seen by this member.
    fn execute(member: &Self::Member, commands: Vec<u32>) -> impl Future<Output = Result<()>> + Send;
    fn query(member: &Self::Member, strong: bool) -> impl Future<Output = Result<i64>> + Send;
}
