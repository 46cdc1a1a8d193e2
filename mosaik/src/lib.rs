//! mosaik: self-organising, leaderless distributed systems from annotated Rust types.

pub mod discovery;
pub mod network;
pub mod node;
pub mod prelude;
pub mod primitives;
pub mod streams;
#[cfg(feature = "testing")]
pub mod testing;
mod transport;

pub use iroh::{EndpointAddr, RelayUrl, SecretKey};
pub use network::Network;
pub use primitives::{Datum, GroupId, NetworkId, PeerId, StoreId, StreamId, Tag, Tags};

pub use mosaik_macros::{app, handlers, main, node, stream};
pub use node::App;

#[doc(hidden)]
pub use node::private as __private;
