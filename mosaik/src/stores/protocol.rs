//! How a replica gets a snapshot from its primary. Deltas travel as an ordinary stream.
//!
//! The replica asks; the answer is a head, then the serialised state in chunks, in order. The replica counts them and holds them
//! against the hash before it believes anything.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    network::{Family, Protocol},
    primitives::{StoreId, StreamId, names},
};

/// The largest serialised state in bytes.
pub(super) const MAX_STATE: u64 = 256 << 20;
/// Bytes in one chunk.
pub(super) const CHUNK: usize = 64 << 10;
/// How many chunks may be written per second, of all snapshots of one primary together: 32 MiB/s.
pub(super) const CHUNK_TIME: Duration = Duration::from_micros(1_000_000 / 512);
/// How long the other side may take to say anything, or to take anything.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// The protocol of a snapshot.
pub(super) struct Snapshot;

impl Protocol for Snapshot {
    type Message = Message;
    const FAMILY: Family = Family::STREAMS;
    const NAME: &'static str = "snapshot/1";
    const MAX_FRAME: usize = 2 * CHUNK;
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Message {
    /// The replica's question: a state of this run that has at least so many deltas.
    Ask { store: StoreId, epoch: u64, at_least: u64 },
    /// A state with so many deltas follows.
    Head { seq: u64, bytes: u64, hash: [u8; 32] },
    /// A part of it.
    Chunk(Bytes),
}

/// The stream of a store's deltas.
pub(super) fn deltas(store: StoreId) -> StreamId {
    StreamId::from_bytes(blake3::derive_key("mosaik store deltas 1", store.as_bytes()))
}

/// The same, which people then read as `store:` and the store's name.
pub(super) fn named_deltas(store: StoreId) -> StreamId {
    let stream = deltas(store);
    if let Some(name) = names::of(store.as_bytes()) {
        names::note(*stream.as_bytes(), &format!("store:{name}"));
    }
    stream
}

/// What both ends must agree on.
pub(super) fn fingerprint<V: super::View>() -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("mosaik store view 1");
    hasher.update(&V::VERSION.to_le_bytes());
    if let Some(schema) = V::SCHEMA {
        hasher.update(&schema);
    }
    hasher.update(V::NAME.as_bytes());
    *hasher.finalize().as_bytes()
}
