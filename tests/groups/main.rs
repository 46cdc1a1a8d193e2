//! Groups on the whole stack: in simulated networks, in virtual time; their storages; and what is quick of the tests of the core by
//! itself (`--test raft`).

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    clippy::type_complexity,
    clippy::bool_to_int_with_if,
    reason = "a test may fail, and counts are small"
)]
#![expect(clippy::disallowed_methods, reason = "a test is no node: it may read the real clock")]

mod callers;
#[path = "../raft/clients.rs"]
mod clients;
mod clocks;
mod copies;
mod core;
mod entries;
mod faults;
mod handover;
mod lab;
mod liveness;
mod machines;
#[path = "../raft/handover.rs"]
mod moving;
#[path = "../raft/mutants.rs"]
mod mutants;
mod random;
mod registers;
#[path = "../raft/regressions.rs"]
mod regressions;
mod scenarios;
#[path = "../raft/schedules.rs"]
mod schedules;
#[path = "../raft/sim/mod.rs"]
mod sim;
mod soak;
mod storage;
mod swarm;
mod versions;
