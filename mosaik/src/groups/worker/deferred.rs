//! Batches that a leader writes after its frames had a turn to leave.
//!
//! Invariant: storage takes batches in the order of their tokens, also when the leader steps down with some still here.

use crate::groups::raft::{Token, Write};

type Batch = (Token, Vec<Write>);

#[derive(Debug, Default)]
pub(super) struct Deferred(Vec<Batch>);

impl Deferred {
    /// Keeps the batch of a leader, and any batch while another waits. What may be written at once comes back.
    pub fn keep(&mut self, leads: bool, token: Token, writes: Vec<Write>) -> Option<Batch> {
        if leads || !self.0.is_empty() {
            self.0.push((token, writes));
            return None;
        }
        Some((token, writes))
    }

    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What waits, in order.
    pub fn take(&mut self) -> Vec<Batch> {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(batches: impl IntoIterator<Item = Batch>) -> Vec<Token> {
        batches.into_iter().map(|(token, _)| token).collect()
    }

    #[test]
    fn a_deposed_leader_writes_in_order() {
        let mut deferred = Deferred::default();
        assert_eq!(tokens(deferred.keep(false, 1, Vec::new())), [1], "a follower writes at once");
        assert!(deferred.keep(true, 2, Vec::new()).is_none());
        assert!(deferred.keep(false, 3, Vec::new()).is_none(), "it would overtake what the leader wrote");
        assert_eq!(tokens(deferred.take()), [2, 3]);
        assert!(deferred.is_empty());
        assert_eq!(tokens(deferred.keep(false, 4, Vec::new())), [4]);
    }
}
