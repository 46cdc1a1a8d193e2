//! Where the subscriptions of a consumer come together: batches of encoded items in the order of their arrival.
//!
//! Readers push whole batches, the handle takes them, so that an item costs no synchronisation of its own. Each
//! subscription may have [`CONSUMER_BUFFER`] bytes here; then its reader stops reading, and the producer feels it through the
//! flow control of the network. So a consumer that does not read holds a bounded amount, and one busy producer cannot shut
//! out the others.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;

use super::{ahead::Decoded, channel::Channel};
use crate::streams::limits::CONSUMER_BUFFER;

/// Whole framed items of one subscription.
pub(super) struct Batch {
    pub(super) channel: Arc<Channel>,
    pub(super) epoch: u64,
    /// The sequence number of the first item.
    pub(super) first: u64,
    pub(super) items: u64,
    pub(super) data: Bytes,
    /// Each item has its place in a log in front of it.
    pub(super) owned: bool,
    /// The items, if they were decoded ahead.
    pub(super) decoded: Option<Decoded>,
}

#[derive(Default)]
pub(super) struct Merge(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    batches: VecDeque<Batch>,
    reader: Option<Waker>,
    closed: bool,
}

impl Merge {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a batch. The caller has made sure that its subscription has room.
    pub(super) fn push(&self, batch: Batch) {
        batch.channel.queued(batch.items, batch.data.len());
        let mut inner = self.inner();
        inner.batches.push_back(batch);
        let reader = inner.reader.take();
        drop(inner);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Whether the handle has more to do than the batch that it works on.
    pub(super) fn is_behind(&self) -> bool {
        !self.inner().batches.is_empty()
    }

    /// The next batch; `None` after [`close`](Self::close) when all are taken.
    pub(super) fn poll_pop(&self, cx: &Context<'_>) -> Poll<Option<Batch>> {
        let mut inner = self.inner();
        let Some(batch) = inner.batches.pop_front() else {
            if inner.closed {
                return Poll::Ready(None);
            }
            match &mut inner.reader {
                Some(reader) => reader.clone_from(cx.waker()),
                reader => *reader = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        };
        drop(inner);
        batch.channel.dequeued(batch.items, batch.data.len(), CONSUMER_BUFFER);
        Poll::Ready(Some(batch))
    }

    /// Nothing more will come.
    pub(super) fn close(&self) {
        let mut inner = self.inner();
        inner.closed = true;
        let reader = inner.reader.take();
        drop(inner);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}
