//! Ready-made parts for groups.

pub use crate::groups::{NoOp, storage::InMemory};
