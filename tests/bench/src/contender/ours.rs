//! This repository's framework, through its public API alone and in its default settings.

use anyhow::{Context, Result};
use futures::StreamExt;
use iroh::EndpointAddr;
use mosaik::{
    Network, NetworkId,
    network::NetworkBuilder,
    streams::{Consumer, Producer},
};

use super::{Contender, Framework, Receiver, Sender, Session, connect};
use crate::item::Item;

/// The variable that tells a child what carries streams and bonds.
pub const LANE: &str = "MOSAIK_BENCH_LANE";

/// What carries streams and bonds; all nodes of a run are in one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Lane {
    /// Packets.
    Quic,
    /// Unix sockets, as between two processes.
    Local,
    /// The memory of the process.
    Memory,
}

impl Lane {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Local => "local",
            Self::Memory => "memory",
        }
    }
}

/// A node on loopback, on the lane of this run.
pub fn builder(network: &str) -> Result<NetworkBuilder> {
    let lane = std::env::var(LANE).unwrap_or_default();
    let builder = Network::builder(NetworkId::from(network)).with_listen("127.0.0.1:0".parse()?);
    Ok(builder.with_local_lane(lane != Lane::Quic.name()).with_memory_lane(lane != Lane::Local.name()))
}

pub struct Ours;

impl Contender for Ours {
    type Sender = Producer<Item>;
    type Receiver = Consumer<Item>;
    /// Its `send` waits by itself.
    const WINDOW: Option<u64> = None;

    async fn connect(receivers: usize) -> Result<Session<Self::Sender, Self::Receiver>> {
        connect::<Self>(receivers).await
    }
}

impl Sender for Producer<Item> {
    async fn send(&mut self, item: Item) -> Result<()> {
        Ok(Producer::send(self, item).await?)
    }
}

impl Receiver for Consumer<Item> {
    async fn next(&mut self) -> Result<Item> {
        StreamExt::next(self).await.context("the consumer has ended")
    }
}

impl Framework for Ours {
    type Node = Network;
    type Sender = Producer<Item>;
    type Receiver = Consumer<Item>;

    async fn node(network: &str, bootstrap: Option<EndpointAddr>) -> Result<Network> {
        let mut builder = builder(network)?;
        if let Some(bootstrap) = bootstrap {
            builder = builder.with_bootstrap(bootstrap);
        }
        Ok(builder.build().await?)
    }

    fn addr(node: &Network) -> EndpointAddr {
        node.local().addr()
    }

    fn peers(node: &Network) -> usize {
        node.discovery().catalog().peers().count()
    }

    async fn sync(node: &Network, with: EndpointAddr) -> Result<()> {
        Ok(node.discovery().sync_with(with).await?)
    }

    fn produce(node: &Network, stream: &str) -> Result<Producer<Item>> {
        Ok(node.streams().producer().with_stream_id(stream).build()?)
    }

    fn consume(node: &Network, stream: &str) -> Consumer<Item> {
        node.streams().consumer().with_stream_id(stream).build()
    }

    async fn subscribed(sender: &Producer<Item>, consumers: usize) {
        sender.when().subscribed().minimum_of(consumers).await;
    }

    async fn shutdown(nodes: Vec<Network>) {
        for node in nodes {
            node.shutdown().await;
        }
    }
}
