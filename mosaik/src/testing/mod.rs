//! The testing kit: whole networks in memory and virtual time, with faults, and helpers to wait for conditions.
//!
//! For tests of programs built on mosaik and of mosaik itself; feature `testing`. A [`Sim`] is a network of nodes in
//! one thread. Everything on a node is the real thing except its transport, which delivers in virtual time: minutes
//! pass in milliseconds, and the same seed gives the same run.
//!
//! ```
//! use mosaik::{NetworkId, testing::Sim};
//!
//! Sim::run(7, |sim| async move {
//!     let (a, b) = (sim.node("a"), sim.node("b"));
//!     let network = NetworkId::from("example");
//!     let (_a, _b) = (a.builder(network).build().await?, b.builder(network).build().await?);
//!     sim.partition(&[a.clone()], &[b]);
//!     sim.heal();
//!     a.crash();
//!     Ok::<_, mosaik::network::BuildError>(())
//! })
//! .unwrap();
//! ```
//!
//! It simulates networks, not machines: tasks take no virtual time, the clock ticks in milliseconds, and what a node
//! does outside mosaik (threads, files, sockets) is neither slowed nor lost in a crash.

mod cluster;
mod encoding;
mod eventually;
mod sim;
mod trace;

/// Panics in an essential task of the node, which ends it: what a bug in mosaik would do.
///
/// # Panics
/// Not here: in that task.
pub fn panic_in_essential_task(network: &crate::Network) {
    network.node().tasks().spawn_essential("made to panic", async { panic!("asked for by a test") });
}

pub use self::{
    cluster::{
        Cluster, ClusterBuilder, ClusterError, FaultKind, FaultSchedule, Member, MissingEdge, NotConverged, Passes,
        Plan, Planned, run,
    },
    encoding::{NotCarried, encoding},
    eventually::eventually,
    sim::{Sim, SimNode, Trace},
    trace::trace,
};
pub use crate::{
    groups::storage::{Fault, Faults, Faulty, SimDisk, StorageScript, storage_conformance},
    transport::sim::{LinkQuality, Traffic},
};
