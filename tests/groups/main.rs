//! Groups on the whole stack: in simulated networks, in virtual time.

#![expect(clippy::unwrap_used, reason = "a test may fail")]
#![expect(clippy::disallowed_methods, reason = "a test is no node: it may read the real clock")]

mod clocks;
mod entries;
mod faults;
mod lab;
#[path = "../raft/sim/linear.rs"]
mod linear;
mod liveness;
mod machines;
mod random;
mod registers;
mod scenarios;
mod soak;
mod swarm;
mod versions;
