//! [`Outbox`]: what was sent on an owned stream and is not in the log yet. Items that come while others are on their way go
//! together: what an entry of the log costs is shared by all that fit into it.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::{
    groups::{Fence, outlet::Outlet},
    primitives::watch,
    streams::{Committed, owner::Offer},
};

/// Bytes of items in one entry of the log, beyond which no further one is added.
const ENTRY: usize = 128 << 10;
/// Items in one entry.
const ITEMS: u64 = 8_192;
/// Bytes of items that wait for an entry. Beyond it senders wait.
const WAITING: usize = 1 << 20;

/// Items for one entry, offered under one leadership.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) fence: Fence,
    pub(super) count: u64,
    pub(super) framed: Vec<u8>,
}

#[derive(Default)]
struct Inner {
    /// The member, while it runs and its cluster is known.
    outlet: Option<Outlet>,
    bound: bool,
    batches: VecDeque<Batch>,
    bytes: usize,
    offered: u64,
}

/// See the module's text.
pub(super) struct Outbox {
    inner: Mutex<Inner>,
    /// Told when there is something to be sent.
    pub(super) filled: Notify,
    settled: watch::Sender<Committed>,
}

impl Outbox {
    pub(super) fn new() -> Self {
        let settled = watch::Sender::new(Committed::default());
        Self { inner: Mutex::default(), filled: Notify::new(), settled }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The member through which items go from now on.
    pub(super) fn attach(&self, outlet: Option<Outlet>) {
        self.inner().outlet = outlet;
    }

    pub(super) fn set_bound(&self, bound: bool) {
        self.inner().bound = bound;
    }

    /// The next items for an entry.
    pub(super) fn take(&self) -> Option<Batch> {
        let mut inner = self.inner();
        let batch = inner.batches.pop_front()?;
        inner.bytes -= batch.framed.len();
        Some(batch)
    }

    /// It is known what became of so many items, or that it never will be.
    pub(super) fn settle(&self, add: impl FnOnce(&mut Committed)) {
        self.settled.send_modify(add);
    }

    /// Resolves when it is known what became of all that was offered before.
    pub(super) async fn committed(&self) -> Committed {
        let offered = self.inner().offered;
        let mut settled = self.settled.subscribe();
        // The sender is here, so it does not end.
        let found = settled.wait_for(|settled| settled.all() >= offered).await;
        found.map_or_else(|_| Committed::default(), |settled| *settled)
    }

    fn offer_to(inner: &Inner, reserved: bool) -> Result<Fence, Offer> {
        let Some(fence) = inner.outlet.as_ref().and_then(Outlet::fence) else { return Err(Offer::NotLeader) };
        if inner.bytes >= WAITING && !reserved { Err(Offer::Full) } else { Ok(fence) }
    }

    /// Takes an item.
    pub(super) fn offer(&self, framed: &[u8], reserved: bool) -> Offer {
        let mut inner = self.inner();
        let fence = match Self::offer_to(&inner, reserved) {
            Ok(fence) => fence,
            Err(not_now) => return not_now,
        };
        let joins = |last: &&mut Batch| {
            let fits = last.framed.len() + framed.len() <= ENTRY && last.count < ITEMS;
            fits && last.fence.term() == fence.term()
        };
        if let Some(last) = inner.batches.back_mut().filter(joins) {
            last.framed.extend_from_slice(framed);
            last.count += 1;
        } else {
            inner.batches.push_back(Batch { fence, count: 1, framed: framed.to_vec() });
        }
        inner.bytes += framed.len();
        inner.offered += 1;
        drop(inner);
        self.filled.notify_one();
        Offer::Taken
    }

    pub(super) fn room(&self) -> Offer {
        Self::offer_to(&self.inner(), false).map_or_else(|not_now| not_now, |_| Offer::Taken)
    }

    pub(super) fn is_bound(&self) -> bool {
        self.inner().bound
    }
}
