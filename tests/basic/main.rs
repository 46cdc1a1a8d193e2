//! The integration suite: `cargo test --test basic`. One module per subsystem.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::unchecked_time_subtraction, reason = "a test may fail")]
#![expect(clippy::disallowed_methods, reason = "a test is no node: it may spawn and read the real clock")]

mod api;
mod attest;
mod attested;
mod branches;
mod busy;
mod chaos;
mod clean;
mod cluster;
#[cfg(target_os = "linux")]
mod compile_time;
mod corridors;
mod declarative;
mod declared_options;
mod declared_stores;
mod dependencies;
mod diagnostics;
mod discovery;
mod explain;
mod field;
mod filters;
mod flow;
mod fronts;
mod grants;
mod hostile;
mod inspect;
mod joining;
mod lane;
mod late;
mod layering;
mod ledger;
mod machines;
mod metrics;
mod once;
mod operator;
mod outside;
mod owned;
mod preference;
mod private;
mod processes;
mod reach;
mod rediscovery;
mod sim;
mod standby;
mod states;
mod stores;
mod streams;
mod subscribers;
mod supervised;
mod tdx;
mod tickets;
mod together;
mod trust;
mod twins;
mod types;
mod ui;
mod versions;
mod wire;
