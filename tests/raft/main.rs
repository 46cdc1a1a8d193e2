//! The consensus core under simulation. `RAFT_SECONDS=3600 cargo test --release --test raft swarm -- --nocapture` is the
//! long run; `RAFT_SEED=n` replays one seed, `RAFT_TRACE=1` prints its events.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    clippy::type_complexity,
    clippy::bool_to_int_with_if,
    reason = "a test may fail, counts are small, and a budget of real time needs the real clock"
)]

mod clients;
mod cross;
mod explore;
mod handover;
mod mutants;
mod regressions;
mod schedules;
mod sim;
mod speed;
mod swarm;
