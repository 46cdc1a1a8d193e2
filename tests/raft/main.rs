//! The consensus core under simulation. `RAFT_SECONDS=3600 cargo test --release --test raft swarm -- --nocapture` is the
//! long run; `RAFT_SEED=n` replays one seed, `RAFT_TRACE=1` prints its events.

mod mutants;
mod regressions;
mod schedules;
mod sim;
mod swarm;
