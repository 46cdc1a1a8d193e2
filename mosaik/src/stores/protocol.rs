//! How a replica gets a snapshot from its primary, and lets it check what it has. Deltas travel as an ordinary stream.
//!
//! The replica asks; the answer is a head, then the serialised state in chunks, in order, and while others are served first a
//! word now and then that it has to wait. The replica counts the chunks and holds them against the hash before it believes
//! anything. One that comes back with a state tells what it has of the run instead, and is answered whether that can be.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{lineage::Start, view::View};
use crate::{
    network::{Family, Protocol},
    primitives::{Evolve, StoreId, StreamId, codec::Codec, names},
};

/// The largest serialised state in bytes.
pub(super) const MAX_STATE: u64 = 256 << 20;
/// Bytes in one chunk.
pub(super) const CHUNK: usize = 64 << 10;
/// How many chunks may be written per second, of all snapshots of one primary together: 32 MiB/s.
pub(super) const CHUNK_TIME: Duration = Duration::from_micros(1_000_000 / 512);
/// How long the other side may take to say anything, or to take anything.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);
/// How often a replica that waits for its turn is told so.
pub(super) const TURN: Duration = Duration::from_secs(2);

/// The protocol of a snapshot.
pub(super) struct Snapshot;

impl Protocol for Snapshot {
    type Message = Message;
    const FAMILY: Family = Family::STREAMS;
    const NAME: &'static str = "snapshot/3";
    const MAX_FRAME: usize = 2 * CHUNK;
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Message {
    /// The replica's question: a state of this run that has at least so many deltas.
    Ask { store: StoreId, epoch: u64, at_least: u64 },
    /// A state with so many deltas follows. `start` is that of a durable primary; the run continues those of the epochs `parents`.
    Head { seq: u64, bytes: u64, hash: [u8; 32], start: Option<Start>, parents: Vec<u64> },
    /// A part of it.
    Chunk(Bytes),
    /// So many others are served now; the answer follows.
    Wait { served: u32 },
    /// The replica has all deltas of this run before `next`, the last of them from that start. Can that be?
    Check { store: StoreId, epoch: u64, next: u64, start: Option<Start> },
    /// It can. This is the start of a durable primary.
    Checked { start: Option<Start> },
    /// It cannot: the primary's file is older than what it once gave out.
    Contradicted,
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

/// What both ends must agree on. Of a view that may grow that is not its shape, which is compared besides.
pub(super) fn fingerprint<V: View>() -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("mosaik store view 2");
    hasher.update(&V::VERSION.to_le_bytes());
    match V::EVOLVE {
        Evolve::Strict => {
            hasher.update(&Codec::<V::Delta>::of().fingerprint(V::SCHEMA));
            hasher.update(&Codec::<V>::of().fingerprint(None));
        }
        Evolve::Append => _ = hasher.update(b"append"),
    }
    hasher.update(V::NAME.as_bytes());
    *hasher.finalize().as_bytes()
}

/// What two programs must agree on, as one type: their difference is told with its path in it.
#[derive(Serialize, Deserialize)]
#[serde(rename = "store", bound = "")]
pub(super) struct Shape<V: View> {
    delta: V::Delta,
    state: V,
}

/// How the deltas or the states of a store are written.
pub(super) fn codec<V: View, T: DeserializeOwned + 'static>() -> Codec<T> {
    Codec::chosen(V::EVOLVE.format(None))
}
