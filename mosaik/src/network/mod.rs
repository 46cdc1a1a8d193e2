//! The network layer: the [`Network`] handle, and typed links between peers for the subsystems.
//!
//! It owns connections (one pool per node), the accept side with its limits against strangers, and shutdown. It knows
//! no protocol: discovery, streams and later groups register theirs and open links through `Node`.

mod builder;
mod close;
#[cfg(test)]
mod fixtures;
mod gate;
mod handle;
mod identity;
mod lane;
mod link;
mod lock;
mod member;
mod node;
mod pool;
mod router;
#[cfg(test)]
mod tests;

pub use builder::{BuildError, NetworkBuilder};
pub use close::CloseCode;
pub use handle::{Local, Network};
pub use identity::SecretError;
pub use link::{Family, LinkError, Protocol};
pub use lock::DataDirError;
pub use member::TrustError;

pub use crate::transport::{Lane, NodeFailure, TaskProbe};

pub(crate) use builder::bare as bare_node;
pub(crate) use handle::WeakNetwork;
#[cfg(feature = "cli")]
pub(crate) use identity::in_data_dir as secret_in_data_dir;
pub(crate) use identity::load_or_create as load_or_create_secret;
pub(crate) use link::{Link, RawLink, decode, encode_frame, read_frame};
#[cfg(feature = "cli")]
pub(crate) use lock::DataDirLock;
pub(crate) use member::credentials;
pub(crate) use node::{Node, OpenError};
pub(crate) use pool::{ConnectionChange, ConnectionEvent, ConnectionInfo};
pub(crate) use router::{Acceptors, Incoming};
