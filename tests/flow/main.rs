//! The flow core of streams in simulation: random and directed schedules of connection loss, crashes, pauses and slow
//! subscribers under every lag policy, and planted bugs that they must find. See docs/src/streams/flow.md.
//!
//! At every step, for every subscriber: delivered + reported gaps = produced, in order, at most once, per epoch.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    reason = "a test may fail, counts are small, and a budget of real time needs the real clock"
)]

mod checks;
mod handover;
mod late;
mod primitives;
mod schedules;
mod streams;
mod swarm;
mod world;
