//! Discovery: who is in the network, where, and what each says about itself.
//!
//! Hints travel by gossip, entries are pulled by whoever lacks them, and a sync with a random peer every few seconds
//! repairs whatever was missed. `core` decides, `worker` does the IO, `announce` drives the gossip overlay; everybody
//! else reads [`Catalog`] snapshots and [`Events`]. Nothing here knows streams or groups: it only lists their ids.

mod announce;
#[cfg(feature = "attest")]
mod attesting;
mod book;
mod bootstrap;
mod catalog;
mod config;
mod core;
mod entry;
mod events;
#[cfg(test)]
mod fixtures;
mod handle;
mod hint;
mod notices;
mod rendezvous;
mod renewals;
mod revocations;
mod serving;
mod session;
mod shared;
mod stats;
mod tickets;
mod verify;
mod worker;

pub use bootstrap::{Bootstrap, BootstrapError};

pub use catalog::{Catalog, RootDigest};
pub use config::{Config, ConfigBuilder, MAX_PEERS};
pub use entry::{
    EntryDigest, EntryError, Fingerprint, LocalEntry, MAX_ADDRS, MAX_ENTRY_BYTES, MAX_GROUPS, MAX_PROTOCOL_NAME,
    MAX_PROTOCOLS, MAX_STREAMS, MAX_TAGS, PeerEntry, StreamSet, Version,
};
pub use events::{DepartReason, Departed, Event, Events};
pub use handle::Discovery;
pub use session::Error;
pub use stats::{Stats, Traffic};

pub(crate) use self::core::Life;
pub(crate) use entry::SignedEntry;
pub(crate) use handle::Setup;
pub(crate) use renewals::ask as ask_renewal;
pub(crate) use revocations::{Words, tell as tell_words};
