//! Tests of the example: transactions, the declared app in virtual time, and its processes.

mod common;
mod envelopes;
mod pipeline;
mod processes;
mod seeds;
