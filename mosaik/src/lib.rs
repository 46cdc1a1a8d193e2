//! mosaik: self-organising, leaderless distributed systems from annotated Rust types.
//!
//! Streams are types, roles are structs, handlers are methods. Nodes of one network find each other and connect every
//! producer with every consumer of its stream; there is no broker and no list of who talks to whom.
//!
//! ```no_run
//! use mosaik::prelude::*;
//!
//! #[mosaik::stream(name = "readings")]
//! pub struct Reading {
//!     pub celsius: f32,
//! }
//!
//! #[mosaik::node(tags = ["display"])]
//! pub struct Display {
//!     readings: Consumer<Reading>,
//! }
//!
//! #[mosaik::handlers]
//! impl Display {
//!     #[on(readings)]
//!     fn show(&mut self, reading: Reading, from: PeerId) {
//!         println!("{from}: {} C", reading.celsius);
//!     }
//! }
//!
//! #[mosaik::app(name = "weather", roles = [Display])]
//! pub struct Weather;
//!
//! fn main() -> std::process::ExitCode {
//!     Weather::main()
//! }
//! ```
//!
//! Three levels, of which each is written in terms of the next:
//!
//! * roles and a generated main: [`stream`](macro@stream), [`node`](macro@node), [`handlers`](macro@handlers),
//!   [`app`](macro@app);
//! * an async `main` with a node that is set up from the command line: [`main`](macro@main);
//! * the runtime: a [`Network`] with its [`discovery`](Network::discovery) and [`streams`](Network::streams).
//!
//! The feature `cli` adds the command `mosaik`, with which an operator looks at any network; `testing` adds whole networks
//! in virtual time, with faults, for your tests. The book in `docs/` of the repository has a tutorial, the promises of
//! each part, and the protocols.

pub mod builtin;
pub mod diagnostics;
pub mod discovery;
pub mod groups;
pub mod metrics;
pub mod network;
pub mod node;
mod owned;
pub mod prelude;
pub mod primitives;
pub mod stores;
pub mod streams;
#[cfg(feature = "testing")]
pub mod testing;
mod transport;
pub mod trust;

pub use iroh::{EndpointAddr, RelayUrl, SecretKey};
pub use network::Network;
pub use primitives::{Datum, GroupId, NetworkId, PeerId, StoreId, StreamId, Tag, Tags};
pub use trust::{Authority, AuthorityId, Invitation, NetworkKey, Ticket};

#[cfg(feature = "testing")]
pub use mosaik_macros::test;
pub use mosaik_macros::{app, group, handlers, main, node, state_machine, store, stream};
pub use node::App;

#[doc(hidden)]
pub use node::private as __private;
