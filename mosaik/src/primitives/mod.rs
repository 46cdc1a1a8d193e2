//! The nouns every other room shares: identifiers, tags, the [`Datum`] contract and limits.
//!
//! Everyone may import from here; this room imports from no other one.

pub(crate) mod caller;
pub(crate) mod codec;
pub(crate) mod const_hash;
mod datum;
mod entropy;
mod fence;
pub(crate) mod figures;
#[cfg(test)]
pub(crate) mod fixtures;
mod id;
pub(crate) mod names;
pub(crate) mod ordered;
mod peer;
mod persistent;
pub(crate) mod private;
pub(crate) mod schema;
mod terms;
pub(crate) mod throttle;
pub(crate) mod varint;
pub(crate) mod verified;
pub(crate) mod watch;

pub use codec::Format;
pub use datum::{Datum, Streamed, Unnamed, datum_name};
pub use fence::Fence;
pub use id::{GroupId, IdParseError, NetworkId, StoreId, StreamId, Tag, Tags};
pub use peer::PeerId;
pub use schema::{Difference, Evolve, Schema};
pub use terms::StreamTerms;

pub(crate) use entropy::fresh_bytes;
pub(crate) use id::parse_hex;
pub(crate) use persistent::OrdMap;
