//! A wrapper that makes any storage fail, or lie, in one of the ways in which storage does.

use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::time::{Sleep, sleep};

use super::{Storage, StorageError};
use crate::groups::raft::{Stored, Token, Write};

/// What goes wrong. The first four are survived: the member stops, or waits. The others are lies that no member can
/// see through while they are told; the conformance suite must.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing.
    None,
    /// The device fails (EIO) from the n-th batch of a life on.
    Error(u64),
    /// The disk is full from the n-th batch of a life on.
    Full(u64),
    /// Every report of durability comes so much later, in tokio's time.
    Slow(Duration),
    /// The last n batches of a life are reported durable and lost at its end: a disk that acknowledges from its cache.
    LostTail(usize),
    /// Of the last batch of a life, which is reported durable, only the first write remains.
    Torn,
    /// A bit of the last entry is another one when it is read back.
    BitFlip,
}

/// A storage with a fault.
pub struct Faulty<S> {
    inner: S,
    fault: Fault,
    /// Batches that were taken in this life.
    taken: u64,
    /// Batches that are kept back, so that they can be lost.
    held: std::collections::VecDeque<(Token, Vec<Write>)>,
    /// Reported durable although held.
    claimed: Token,
    given: Token,
    failed: bool,
    delay: Option<(Token, Pin<Box<Sleep>>)>,
    waker: Option<Waker>,
}

impl<S> Faulty<S> {
    /// Wraps a storage.
    pub fn new(inner: S, fault: Fault) -> Self {
        Self {
            inner,
            fault,
            taken: 0,
            held: std::collections::VecDeque::new(),
            claimed: 0,
            given: 0,
            failed: false,
            delay: None,
            waker: None,
        }
    }

    /// Another fault from now on.
    pub fn set(&mut self, fault: Fault) {
        self.fault = fault;
    }

    fn error(&self) -> Option<StorageError> {
        let (kind, from) = match self.fault {
            Fault::Error(from) => (io::ErrorKind::Other, from),
            Fault::Full(from) => (io::ErrorKind::StorageFull, from),
            _ => return None,
        };
        (self.failed || self.taken >= from).then(|| StorageError::io("write to", "a faulty storage", kind.into()))
    }
}

impl<S: Storage> Faulty<S> {
    /// Takes a batch that is reported durable, and hands on those that have enough successors to be safe.
    fn hold(&mut self, token: Token, writes: Vec<Write>, count: usize) {
        self.held.push_back((token, writes));
        self.claimed = token;
        while self.held.len() > count {
            let Some((token, writes)) = self.held.pop_front() else { break };
            self.inner.submit(token, writes);
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl<S: Storage> Storage for Faulty<S> {
    fn load(&mut self) -> Result<Stored, StorageError> {
        let mut stored = self.inner.load()?;
        if self.fault == Fault::BitFlip
            && let Some(last) = stored.entries.last_mut()
        {
            last.time ^= 1;
        }
        Ok(stored)
    }

    fn submit(&mut self, token: Token, writes: Vec<Write>) {
        self.taken += 1;
        match self.fault {
            _ if self.error().is_some() => {
                self.failed = true;
                if let Some(waker) = self.waker.take() {
                    waker.wake();
                }
            }
            Fault::LostTail(count) => self.hold(token, writes, count),
            Fault::Torn => self.hold(token, writes, 1),
            _ => self.inner.submit(token, writes),
        }
    }

    fn poll_durable(&mut self, cx: &mut Context<'_>) -> Poll<Result<Token, StorageError>> {
        if self.failed
            && let Some(error) = self.error()
        {
            return Poll::Ready(Err(error));
        }
        if self.claimed > self.given {
            self.given = self.claimed;
            return Poll::Ready(Ok(self.given));
        }
        if let Some((token, delay)) = &mut self.delay {
            if delay.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let token = *token;
            self.delay = None;
            return Poll::Ready(Ok(token));
        }
        self.waker = Some(cx.waker().clone());
        match self.inner.poll_durable(cx) {
            Poll::Ready(Ok(token)) if token <= self.given => self.poll_durable(cx),
            Poll::Ready(Ok(token)) if matches!(self.fault, Fault::Slow(_)) => {
                let Fault::Slow(by) = self.fault else { return Poll::Pending };
                self.delay = Some((token, Box::pin(sleep(by))));
                self.poll_durable(cx)
            }
            other => other,
        }
    }

    fn wipe(&mut self) -> Result<(), StorageError> {
        self.held.clear();
        (self.taken, self.claimed, self.given, self.failed, self.delay) = (0, 0, 0, false, None);
        self.inner.wipe()
    }

    fn abandon(&mut self) {
        self.inner.abandon();
    }

    fn is_durable(&self) -> bool {
        self.inner.is_durable()
    }
}

impl<S> fmt::Debug for Faulty<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({:?})", self.fault)
    }
}
