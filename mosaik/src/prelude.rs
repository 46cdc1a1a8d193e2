//! Every noun of the public surface, for `use mosaik::prelude::*;`.
//!
//! Also brings `futures::{SinkExt, StreamExt}`, because producers are sinks and consumers are streams, and serde's
//! `Serialize` and `Deserialize`, traits and derives.

pub use futures::{SinkExt, StreamExt};
pub use serde::{Deserialize, Serialize};

pub use crate::{
    App, EndpointAddr, GroupId, Network, NetworkId, PeerId, RelayUrl, SecretKey, StoreId, StreamId, Tag, Tags,
    primitives::Datum,
    streams::{Consumer, Producer},
};
