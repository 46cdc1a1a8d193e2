//! The decisions of streams, without IO: pure state machines that take time as an argument and spawn nothing.
//!
//! * [`log`]: the one queue of a producer, what is still held of it, and [`cursor`]: where each subscriber is.
//! * [`retain`]: what is kept for late joiners, and its replay.
//! * [`lag`]: who is too slow, and when `send` waits.
//! * [`admission`]: who is served, who waits, who is refused.
//! * [`key`], [`filter`]: what items are told apart by, and which of them a subscription is for.
//! * [`frames`], [`batches`]: the bytes of a subscription: batches written, batches read.
//! * [`progress`]: order, gaps and epochs as a consumer sees them.
//! * [`choice`], [`union`]: which producers a consumer takes and which stand by, and one sequence of several producers.
//! * [`lineage`]: whose numbers those of an owned stream are, and the fence against older terms.
//! * [`pace`]: egress limit and reconnect delays.
//!
//! The workers of `producer/` and `consumer/` call them; they import nothing from there.

pub(crate) mod admission;
pub(crate) mod batches;
pub(crate) mod choice;
pub(crate) mod cursor;
pub(crate) mod filter;
pub(crate) mod frames;
pub(crate) mod key;
pub(crate) mod lag;
pub(crate) mod lineage;
pub(crate) mod log;
pub(crate) mod mutants;
pub(crate) mod pace;
pub(crate) mod progress;
pub(crate) mod retain;
pub(crate) mod union;

/// A subscription at its producer, in the order of arrival.
pub(crate) type SubId = u64;
