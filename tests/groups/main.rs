//! Groups on the whole stack: in simulated networks, in virtual time.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

mod lab;
mod scenarios;
