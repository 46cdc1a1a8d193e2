//! mosaik: self-organising, leaderless distributed systems from annotated Rust types.

pub mod discovery;
pub mod network;
pub mod primitives;
pub mod streams;
#[cfg(feature = "testing")]
pub mod testing;
mod transport;

pub use iroh::{EndpointAddr, RelayUrl, SecretKey};
pub use network::Network;
pub use primitives::{Datum, GroupId, NetworkId, PeerId, StoreId, StreamId, Tag, Tags};
