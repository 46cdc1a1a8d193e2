//! [`Fence`]: a place in the log of a group, and the leadership that it belongs to.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A leadership of a member, as a token for what it does: the term, and the last position that the member had applied when it was
/// taken, which is of that term. Later leaderships have greater ones, and of one leadership later tokens are not smaller, so whoever
/// remembers the greatest that it has seen can refuse older ones.
///
/// A handler that is `once` runs under one, and so do the commands that it sends to the group; see
/// [`Group::with_fence`](crate::groups::Group::with_fence) for doing so by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fence {
    term: u64,
    index: u64,
}

impl Fence {
    /// One that no group gives out and that fences everything: its term is 0.
    pub(crate) const NOTHING: Self = Self { term: 0, index: 0 };

    pub(crate) const fn new(term: u64, index: u64) -> Self {
        Self { term, index }
    }

    /// The term that the member leads in.
    #[must_use]
    pub const fn term(&self) -> u64 {
        self.term
    }

    /// What the member had applied, at least.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "index {} of term {}", self.index, self.term)
    }
}
