//! Every noun of the public surface, for `use mosaik::prelude::*;`.
//!
//! Also brings `futures::{SinkExt, StreamExt}`, because producers are sinks and consumers are streams, and serde's
//! `Serialize` and `Deserialize`: the traits, and derives that work without a dependency on serde.

pub use futures::{SinkExt, StreamExt};
pub use mosaik_macros::{Deserialize, Serialize, StateMachine};
pub use serde::{de::Deserialize, ser::Serialize};

pub use crate::{
    App, Authority, AuthorityId, Datum, EndpointAddr, GroupId, Network, NetworkId, NetworkKey, PeerId, RelayUrl,
    SecretKey, StoreId, StreamId, Tag, Tags, Ticket,
    builtin::{self, InMemory, NoOp},
    discovery::{self, Bootstrap, Catalog, PeerEntry},
    groups::{
        ApplyContext, CallError, Consistency, Fence, Group, GroupClient, GroupKey, LeaderPreference, MemberRole,
        NoTransition, Snapshots, StateMachine, Timing,
    },
    node::{Client, Replica},
    stores::{Primary, ReplicaState, StoreReplica, Versioned, View},
    streams::{
        Buffer, ByteRate, ChannelInfo, Consumer, DisconnectReason, Filter, Gap, GapReason, OnLag, Prefer, Producer,
        Retain,
    },
};
