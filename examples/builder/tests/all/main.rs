//! Tests of the example: transactions, the declared app in virtual time, and its processes.
#![allow(clippy::expect_used, reason = "a test")]

mod common;
mod envelopes;
mod pipeline;
mod processes;
mod seeds;
