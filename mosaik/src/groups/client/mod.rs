//! How commands get into the log exactly once: pure state machines, driven by the group's worker and by the simulator.
//!
//! [`Session`] is the side of a node's callers: it numbers their commands, decides what is sent to which leader and when
//! again, and knows of each command whether it can still be applied. [`Router`] is the side of a leader: it proposes batches
//! in order and answers when they are applied. `wire` is what they say to each other, `bundle` how several commands share an
//! entry. No IO, no clock, no randomness: times and fresh ids come in as arguments, callers are numbers.
//!
//! Promise: what may have been applied is never sent again under another number. The argument is in
//! `docs/src/groups/consensus.md`.

pub mod bundle;
mod ordered;
mod pending;
mod router;
mod session;
mod wire;

pub(super) use ordered::Ordered;
pub use pending::{Call, CallId};
pub use router::{Notice, Router, Source};
pub use session::{Event, Failure, Session};
pub use wire::{Batch, CommandResult, Done, Numbered, Rejection, Request, Response};
pub(super) use wire::{decode_request, decode_response, encode};
