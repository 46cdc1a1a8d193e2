//! Storage for groups that live as long as their processes: nothing is kept, everything is durable at once.

use std::task::{Context, Poll, Waker};

use super::{Storage, StorageError};
use crate::groups::raft::{Stored, Token, Write};

/// Volatile storage. Deterministic, without threads, and it holds nothing: the consensus core has the log in memory
/// anyway, and storage is only ever read at the start of a life, at which this one is always blank.
///
/// A group of such members keeps its state as long as a majority is up: a restarted process comes back as a new
/// incarnation and is brought up to date by the others.
#[derive(Debug, Default)]
pub struct InMemory {
    durable: Token,
    given: Token,
    waker: Option<Waker>,
}

impl Storage for InMemory {
    fn load(&mut self) -> Result<Stored, StorageError> {
        Ok(Stored::default())
    }

    fn submit(&mut self, token: Token, _: Vec<Write>) {
        // Everything is durable at once, so this is the last one that was submitted.
        debug_assert!(token > self.durable, "tokens grow");
        self.durable = token;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn poll_durable(&mut self, cx: &mut Context<'_>) -> Poll<Result<Token, StorageError>> {
        if self.durable > self.given {
            self.given = self.durable;
            return Poll::Ready(Ok(self.durable));
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn wipe(&mut self) -> Result<(), StorageError> {
        (self.durable, self.given) = (0, 0);
        Ok(())
    }

    fn is_durable(&self) -> bool {
        false
    }
}
