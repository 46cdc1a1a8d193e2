//! The declarative layer at run time: what the attributes of `mosaik-macros` expand to calls of.
//!
//! [`decl`](self) types are the declarations as constant data, [`Role`] and [`Handlers`] are what the attributes
//! implement, [`spawn`] runs a role on a node, [`Graph`] is an app's data flow, and [`main`] its command line. This room
//! is the top of the house: it uses the public surface of networks, discovery, streams, stores and groups, and nobody below knows
//! it.

mod announced;
mod app;
mod args;
mod attested;
mod board;
mod chaos;
mod cli;
mod client;
mod config;
mod corridor;
mod decl;
mod dev;
mod embed;
mod environment;
mod feed;
mod graph;
mod join;
mod log;
mod machine;
mod members;
mod metrics;
mod names;
#[cfg(feature = "cli")]
mod operator;
#[doc(hidden)]
pub mod options;
mod outcome;
mod output;
mod peers;
#[doc(hidden)]
pub mod private;
mod process;
mod program;
mod render;
mod replica;
mod restart;
mod role;
mod run;
mod runner;
mod secret;
mod snapshots;
mod states;
mod store;
mod supervisor;
mod svg;
mod table;
mod together;
mod warnings;

#[doc(hidden)]
pub use crate::groups::fence::Leading;
pub use app::{App, main};
pub use args::{ArgError, ArgType, ArgValues};
pub use client::Client;
pub use decl::{
    ArgDecl, Direction, EndpointDecl, Link, Occurs, OptionDecl, Place, RoleDecl, Schema, StreamDecl, TagDecl,
};
pub use feed::Feeds;
#[doc(hidden)]
pub use feed::{Fed, Waits};
pub use graph::{Graph, GroupUse, RoleEntry, StoreUse, StreamUse};
#[cfg(feature = "testing")]
pub(crate) use machine::test_key;
pub use machine::{Declared, GroupDecl, GroupType, KeyDecl, KeyError, MachineDecl, MethodDecl};
pub use options::{Absent, Configure, MemberOptions};
pub use outcome::{Emits, Handled};
pub use program::MainResult;
#[doc(hidden)]
pub use replica::GroupHandle;
pub use replica::{MachineClient, QueryCall, Replica};
pub use role::{Consumes, Endpoint, Handlers, Opening, Produces, Role, RoleError, Setup, StreamType};
pub use runner::{RoleHandle, RoleStatus, spawn};
#[doc(hidden)]
pub use states::{Due, TimeOuts};
pub use states::{StatesDecl, TransitionDecl};
pub use store::{StoreDecl, StoreType};
pub use table::{OnError, Table};
pub use warnings::Warning;
