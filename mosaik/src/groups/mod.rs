//! Groups: replicated state machines with a leader.
//!
//! So far only the consensus core; the bonds, storage and workers that drive it are not built yet.

#[doc(hidden)]
pub mod raft;
