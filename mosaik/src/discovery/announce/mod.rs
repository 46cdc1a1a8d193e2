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

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub(super) use self::{
    neighbors::{FromLink, Neighbors},
    overlay::{Effect, Overlay},
};
use crate::network::{Family, Protocol};

/// The longest message of the overlay, in bytes.
const MAX_MESSAGE: usize = 4096;

/// `gossip/1`: each direction of a neighbourhood is a stream of its own, opened by the sender.
pub(super) struct Gossip;

impl Protocol for Gossip {
    type Message = Packet;
    const FAMILY: Family = Family::DISCOVERY;
    const NAME: &'static str = "gossip/1";
    const MAX_FRAME: usize = MAX_MESSAGE + 8;
}

/// An encoded message of the overlay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Packet(pub(super) Bytes);
