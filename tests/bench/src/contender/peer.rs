//! The crate that the registry knows as `mosaik`, in its default settings.

use std::{env, net::SocketAddr};

use anyhow::{Context, Result, anyhow};
use futures::SinkExt;
use iroh::EndpointAddr;
use mosaik_peer::{
    Network, NetworkId, StreamId, discovery,
    network::RelayMode,
    streams::{Consumer, Producer},
};

use super::{Contender, Framework, Receiver, Sender, Session, connect};
use crate::item::Item;

/// How a child learns which relay to use.
pub const RELAY: &str = "MOSAIK_BENCH_RELAY";

pub struct Peer;

impl Contender for Peer {
    type Sender = Producer<Item>;
    type Receiver = Consumer<Item>;
    /// Its default queue is 1,024 items. A consumer with more than that before it is disconnected, and a `send` into a
    /// full queue fails instead of waiting; a few places of it are taken up by what waits elsewhere on the way.
    const WINDOW: Option<u64> = Some(960);

    async fn connect(receivers: usize) -> Result<Session<Self::Sender, Self::Receiver>> {
        connect::<Self>(receivers).await
    }
}

impl Sender for Producer<Item> {
    async fn send(&mut self, item: Item) -> Result<()> {
        SinkExt::send(self, item).await.map_err(|error| anyhow!("{error}"))
    }
}

impl Receiver for Consumer<Item> {
    async fn next(&mut self) -> Result<Item> {
        self.recv().await.context("the consumer has ended")
    }
}

impl Framework for Peer {
    type Node = Network;
    type Sender = Producer<Item>;
    type Receiver = Consumer<Item>;

    async fn node(network: &str, bootstrap: Option<EndpointAddr>) -> Result<Network> {
        let relay = env::var(RELAY).context("no relay given")?;
        let listen: SocketAddr = "127.0.0.1:0".parse()?;
        Network::builder(NetworkId::from(network))
            .with_relay_mode(RelayMode::custom([relay.parse()?]))
            .with_addresses([listen])
            .with_discovery(
                discovery::Config::builder()
                    .no_dht_bootstrap()
                    .with_bootstrap(bootstrap.into_iter().collect::<Vec<_>>()),
            )
            .build()
            .await
            .map_err(|error| anyhow!("{error}"))
    }

    fn addr(node: &Network) -> EndpointAddr {
        node.local().addr()
    }

    fn peers(node: &Network) -> usize {
        node.discovery().catalog().signed_peers_count()
    }

    async fn sync(node: &Network, with: EndpointAddr) -> Result<()> {
        node.discovery().sync_with(with).await.map_err(|error| anyhow!("{error}"))
    }

    fn produce(node: &Network, stream: &str) -> Result<Producer<Item>> {
        let stream = StreamId::from(stream);
        node.streams().producer().with_stream_id(stream).build().map_err(|error| anyhow!("{error}"))
    }

    fn consume(node: &Network, stream: &str) -> Consumer<Item> {
        node.streams().consumer().with_stream_id(StreamId::from(stream)).build()
    }

    async fn subscribed(sender: &Producer<Item>, consumers: usize) {
        sender.when().subscribed().minimum_of(consumers).await;
    }

    async fn shutdown(nodes: Vec<Network>) {
        drop(nodes);
    }
}
