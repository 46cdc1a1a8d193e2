//! A discrete-event simulator for the consensus core: real cores, simulated time, network, disks, machines and clients.
//!
//! Everything follows from one seed. Invariants are checked after every step and at every send (`checks`), histories by
//! a linearizability checker (`linear`), and progress after the faults have ended (`World::verdict`).

pub mod checks;
pub mod client;
pub mod disk;
pub mod lab;
pub mod linear;
pub mod machine;
pub mod plan;
pub mod rng;
pub mod world;

pub use lab::{Lab, within};
pub use plan::Plan;
pub use rng::Rng;
pub use world::World;
