//! The integration suite: `cargo test --test basic`. One module per subsystem.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

mod chaos;
mod declarative;
mod discovery;
mod hostile;
mod layering;
mod processes;
mod sim;
mod streams;
mod ui;
