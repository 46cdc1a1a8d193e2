//! Clients of a group: nodes that call it and are no members. They hold no data and never vote, so they come and go as they
//! like.
//!
//! A client keeps links to members ([`lines`](self)) that discovery knows of, proves the group's key to each and lets it
//! prove the key, too. Commands go from the client's own session (the same core as a member's) to whoever leads; queries to
//! a member, which asks its machine. `serve` is the members' side, `protocol` what travels: `docs/src/protocols.md`.

#[cfg(test)]
mod fixtures;
mod handle;
mod lines;
mod protocol;
mod serve;
mod worker;

pub use handle::GroupClient;
pub(super) use protocol::Shape;
pub(super) use serve::{Asking, asking};
