//! Announcing by gossip: the only room that names `iroh_gossip`.
//!
//! [`Overlay`] wraps that crate's sans-IO protocol (HyParView membership and PlumTree broadcast); [`Neighbors`] gives
//! it links. We drive it ourselves because its stock network layer blocks every peer behind one slow one and never
//! heals a partition. One topic: the network itself, named in each link's preamble, so no message repeats it.
//!
//! What a link carries is decided here, too: a payload is a verified hint or the link is closed before the protocol
//! forwards it to anybody.

mod neighbors;
mod overlay;
mod pace;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub(super) use self::{
    neighbors::{FromLink, Neighbors},
    overlay::{Effect, Overlay},
};
use crate::network::{Family, Protocol};

/// The longest message of the overlay, in bytes.
const MAX_MESSAGE: usize = 4096;
/// Messages are collected into frames of about this size, in bytes.
const BATCH_BYTES: usize = 32 << 10;

/// `gossip/1`: each direction of a neighbourhood is a stream of its own, opened by the sender.
pub(super) struct Gossip;

impl Protocol for Gossip {
    type Message = Packets;
    const FAMILY: Family = Family::DISCOVERY;
    const NAME: &'static str = "gossip/1";
    const MAX_FRAME: usize = 2 * BATCH_BYTES;
}

/// Encoded messages of the overlay, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Packets(pub(super) Vec<Bytes>);
