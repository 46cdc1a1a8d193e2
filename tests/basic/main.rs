//! The integration suite: `cargo test --test basic`. One module per subsystem.

mod discovery;
