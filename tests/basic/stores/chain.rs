//! The view of the tests, and nodes that lead and follow it.

use std::{collections::BTreeMap, panic, path::Path, time::Duration};

use mosaik::{
    Network, NetworkId,
    stores::{Position, Primary, StoreError, StoreReplica, View},
    streams::Buffer,
    testing::{LinkQuality, Sim, SimNode},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::time::sleep;

use crate::streams::soon;

/// A state that tells its whole history: a chain over all deltas, and what a real one would hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    pub length: u64,
    pub link: u64,
    pub sums: BTreeMap<u8, u64>,
    pub ballast: Ballast,
}

/// So many bytes in a snapshot, which cost nothing here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ballast(pub u32);

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Link {
    pub value: u64,
    /// How large the state is to be.
    pub ballast: u32,
}

/// A value on which the view panics, when half of the work is done.
pub const POISON: u64 = u64::MAX;

impl View for Chain {
    type Delta = Link;
    const NAME: &'static str = "chain";

    fn fold(&mut self, Link { value, ballast }: Link) {
        self.length += 1;
        if value == POISON {
            panic::resume_unwind(Box::new("no such value")); // without a word on stderr
        }
        self.link = (self.link ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
        *self.sums.entry(value.to_le_bytes()[0] % 16).or_default() += value % 1000;
        self.ballast = Ballast(ballast);
    }
}

impl Serialize for Ballast {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&vec![7; self.0 as usize])
    }
}

impl<'de> Deserialize<'de> for Ballast {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Length;
        impl serde::de::Visitor<'_> for Length {
            type Value = Ballast;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("ballast")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Ballast, E> {
                u32::try_from(bytes.len()).map(Ballast).map_err(E::custom)
            }
        }
        deserializer.deserialize_bytes(Length)
    }
}

pub async fn start(node: &SimNode, id: NetworkId) -> Network {
    node.builder(id).build().await.unwrap()
}

/// A node with a data directory.
pub async fn start_in(node: &SimNode, id: NetworkId, dir: &Path) -> Network {
    node.restart(id).with_data_dir(dir).build().await.unwrap()
}

/// A crash takes effect when the runtime gets to it.
pub async fn crash(node: &SimNode) {
    node.crash();
    sleep(Duration::from_millis(1)).await;
}

pub fn primary(network: &Network, replay: usize) -> Primary<Chain> {
    network.stores().primary::<Chain>("chain").with_replay(Buffer::items(replay)).build().unwrap()
}

pub fn replica(network: &Network) -> StoreReplica<Chain> {
    network.stores().replica::<Chain>("chain").build()
}

pub fn durable(network: &Network) -> Result<Primary<Chain>, StoreError> {
    network.stores().primary::<Chain>("chain").durable().build()
}

pub fn durable_replica(network: &Network) -> StoreReplica<Chain> {
    network.stores().replica::<Chain>("chain").durable().build()
}

pub async fn apply(primary: &Primary<Chain>, value: u64) -> Position {
    soon("apply", primary.apply(Link { value, ballast: 10 })).await.unwrap()
}

/// Applies all of them; the position behind the last.
pub async fn apply_all(primary: &Primary<Chain>, values: impl IntoIterator<Item = u64>) -> Position {
    let mut position = primary.read().position();
    for value in values {
        position = apply(primary, value).await;
    }
    position
}

/// Puts a copy of a directory in the place of another one.
pub fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).into_iter().flatten() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Links of 500 kB/s between a primary and its replicas.
pub fn slow(sim: &Sim, primary: &SimNode, replicas: &[SimNode]) {
    let quality = LinkQuality { bandwidth: Some(500_000), ..LinkQuality::lan() };
    replicas.iter().for_each(|node| sim.link(primary, node, quality));
}
