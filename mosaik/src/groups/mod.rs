//! Groups: replicated state machines with a leader.
//!
//! So far the consensus core and what a user writes and chooses; the bonds, storage and workers that drive it are being
//! built.

#[cfg_attr(not(test), allow(dead_code, reason = "the worker that uses it is being built"))]
pub(crate) mod bonds;
mod key;
mod machine;
mod options;
#[doc(hidden)]
pub mod raft;
pub mod storage;

pub use self::{
    bonds::{Refusal, Refused},
    key::GroupKey,
    machine::{ApplyContext, Encode, NoOp, SnapshotError, Snapshots, StateMachine},
    options::{Consistency, MemberRole, Timing},
};
