//! A channel of the newest value, as `tokio::sync::watch`, that wakes its receivers in the order in which they began
//! to wait.
//!
//! Tokio's own spreads waiting receivers over eight lists at random, and its randomness cannot be seeded: a simulation
//! with two receivers of one value would run differently each time. Everyone in this crate uses this one instead.

use std::{
    fmt,
    ops::Deref,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

/// Sets the value. Cheap to clone.
pub(crate) struct Sender<T>(Arc<Shared<T>>);

/// Sees the newest value. Cheap to clone; a clone has seen what the original had.
pub(crate) struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

/// A look at the value. Setting it waits for as long as this lives, so it must not be kept, let alone over an await.
pub(crate) struct Ref<'a, T>(RwLockReadGuard<'a, Versioned<T>>);

/// All senders are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the value will not change any more")]
pub(crate) struct RecvError;

struct Shared<T> {
    value: RwLock<Versioned<T>>,
    senders: AtomicUsize,
    receivers: AtomicUsize,
    changed: Notify,
}

struct Versioned<T> {
    value: T,
    version: u64,
}

/// A value with its first receiver.
pub(crate) fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(value);
    let receiver = sender.subscribe();
    (sender, receiver)
}

impl<T> Shared<T> {
    fn read(&self) -> RwLockReadGuard<'_, Versioned<T>> {
        self.value.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Versioned<T>> {
        self.value.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Sender<T> {
    /// A value without receivers.
    pub(crate) fn new(value: T) -> Self {
        Self(Arc::new(Shared {
            value: RwLock::new(Versioned { value, version: 0 }),
            senders: AtomicUsize::new(1),
            receivers: AtomicUsize::new(0),
            changed: Notify::new(),
        }))
    }

    /// A receiver that has seen the present value.
    pub(crate) fn subscribe(&self) -> Receiver<T> {
        self.0.receivers.fetch_add(1, Ordering::AcqRel);
        let seen = self.0.read().version;
        Receiver { shared: self.0.clone(), seen }
    }

    pub(crate) fn borrow(&self) -> Ref<'_, T> {
        Ref(self.0.read())
    }

    /// Sets the value and returns the former one.
    pub(crate) fn send_replace(&self, value: T) -> T {
        let mut former = value;
        self.send_modify(|present| std::mem::swap(present, &mut former));
        former
    }

    /// Changes the value in place.
    pub(crate) fn send_modify(&self, change: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            change(value);
            true
        });
    }

    /// Changes the value in place and tells the receivers if `change` says so.
    pub(crate) fn send_if_modified(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        let modified = {
            let mut value = self.0.write();
            let modified = change(&mut value.value);
            value.version += u64::from(modified);
            modified
        };
        if modified {
            self.0.changed.notify_waiters();
        }
        modified
    }

    pub(crate) fn receiver_count(&self) -> usize {
        self.0.receivers.load(Ordering::Acquire)
    }
}

impl<T> Receiver<T> {
    /// The present value, without marking it as seen.
    pub(crate) fn borrow(&self) -> Ref<'_, T> {
        Ref(self.shared.read())
    }

    /// The present value, marked as seen.
    pub(crate) fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let value = self.shared.read();
        self.seen = value.version;
        Ref(value)
    }

    /// Resolves when the value was set since it was last seen, and marks it as seen. Cancellation-safe.
    pub(crate) async fn changed(&mut self) -> Result<(), RecvError> {
        let seen = self.seen;
        self.advance(|value| value.version != seen).await.map(|_| ())
    }

    /// Resolves when the value, the present one included, fulfils the condition. Cancellation-safe.
    pub(crate) async fn wait_for(&mut self, mut condition: impl FnMut(&T) -> bool) -> Result<Ref<'_, T>, RecvError> {
        self.advance(|value| condition(&value.value)).await
    }

    async fn advance(&mut self, mut until: impl FnMut(&Versioned<T>) -> bool) -> Result<Ref<'_, T>, RecvError> {
        let Self { shared, seen } = self;
        let shared: &Shared<T> = shared;
        loop {
            let changed = shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            // In this order: what the last sender set before it went is still seen.
            let ended = shared.senders.load(Ordering::Acquire) == 0;
            {
                let value = shared.read();
                let reached = until(&value);
                *seen = value.version;
                if reached {
                    return Ok(Ref(value));
                }
            }
            if ended {
                return Err(RecvError);
            }
            changed.await;
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::AcqRel);
        Self(self.0.clone())
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.shared.receivers.fetch_add(1, Ordering::AcqRel);
        Self { shared: self.shared.clone(), seen: self.seen }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.changed.notify_waiters();
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.receivers.fetch_sub(1, Ordering::AcqRel);
    }
}

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sender").field(&*self.borrow()).finish()
    }
}

impl<T: fmt::Debug> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Receiver").field(&*self.borrow()).finish()
    }
}

impl<T: fmt::Debug> fmt::Debug for Ref<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        sync::{Barrier, atomic::AtomicBool},
        task::{Context, Poll, Wake, Waker},
        time::Duration,
    };

    use futures::{FutureExt, poll};
    use tokio::{sync::mpsc, time::timeout};

    use super::*;

    #[tokio::test]
    async fn receivers_wake_in_the_order_of_waiting() {
        let (sender, receiver) = channel(0);
        let (tell, mut told) = mpsc::channel(16);
        let mut tasks = tokio::task::JoinSet::new();
        for i in 0..16 {
            let (mut receiver, tell) = (receiver.clone(), tell.clone());
            tasks.spawn(async move {
                receiver.changed().await.expect("there is a sender");
                tell.send(i).await.expect("the test listens");
            });
        }
        tokio::task::yield_now().await;
        sender.send_replace(1);
        for i in 0..16 {
            assert_eq!(told.recv().await, Some(i));
        }
    }

    #[tokio::test]
    async fn a_change_is_seen_once_and_the_last_one_even_without_a_sender() {
        let (sender, mut receiver) = channel(1);
        assert!(receiver.changed().now_or_never().is_none());
        assert!(!sender.send_if_modified(|_| false));
        assert!(receiver.changed().now_or_never().is_none());
        sender.send_modify(|value| *value = 2);
        assert_eq!(receiver.changed().now_or_never(), Some(Ok(())));
        assert_eq!(*receiver.borrow(), 2);
        assert!(receiver.changed().now_or_never().is_none());
        assert_eq!(sender.send_replace(3), 2);
        drop(sender);
        assert_eq!(receiver.wait_for(|value| *value == 3).now_or_never().map(|found| found.map(|v| *v)), Some(Ok(3)));
        assert_eq!(receiver.changed().now_or_never(), Some(Err(RecvError)));
    }

    /// Who waits when the last sender goes is told, and only then.
    #[tokio::test]
    async fn the_end_of_the_last_sender_wakes_who_waits() {
        let (sender, receiver) = channel(1);
        let other = sender.clone();
        let (mut waits, mut seeks) = (receiver.clone(), receiver);
        let (mut change, mut find) = (pin!(waits.changed()), pin!(seeks.wait_for(|value| *value == 2)));
        assert!(poll!(change.as_mut()).is_pending() && poll!(find.as_mut()).is_pending());
        drop(sender);
        assert!(poll!(change.as_mut()).is_pending() && poll!(find.as_mut()).is_pending(), "there is another one");
        let both = async {
            let limit = Duration::from_secs(10);
            let change = timeout(limit, change).await;
            (change, timeout(limit, find).await.map(|found| found.map(|value| *value)))
        };
        let ended = async {
            tokio::task::yield_now().await;
            drop(other);
        };
        let ((change, find), ()) = futures::join!(both, ended);
        assert_eq!((change, find), (Ok(Err(RecvError)), Ok(Err(RecvError))));
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    /// A value that is set while somebody has looked at the former one and not yet begun to wait wakes it all the same, and so
    /// does the end of the last sender; and what that has set is seen. Whether the two meet is chance, so it is tried often.
    #[test]
    fn no_wake_up_is_missed() {
        const ROUNDS: u32 = 30_000;
        let (begin, end) = (Barrier::new(2), Barrier::new(2));
        let (give, take) = std::sync::mpsc::channel::<Sender<u32>>();
        let sends = || {
            for (round, sender) in (0..ROUNDS).zip(take) {
                begin.wait();
                (0..round % 100).for_each(|_| std::hint::spin_loop());
                if round % 3 > 0 {
                    sender.send_modify(|value| *value = 1);
                }
                let kept = (round % 3 == 1).then_some(sender);
                end.wait();
                drop(kept);
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(sends);
            for round in 0..ROUNDS {
                let (sender, mut receiver) = channel(0);
                assert!(give.send(sender).is_ok(), "the other thread has failed");
                let woken = Arc::<Woken>::default();
                let waker = Waker::from(woken.clone());
                let mut cx = Context::from_waker(&waker);
                let mut change = pin!(receiver.changed());
                begin.wait();
                let first = change.as_mut().poll(&mut cx);
                end.wait();
                let last = if first.is_pending() {
                    assert!(woken.0.load(Ordering::SeqCst), "round {round}: it would wait for ever");
                    change.as_mut().poll(&mut cx)
                } else {
                    first
                };
                let expected = if round % 3 == 0 { Err(RecvError) } else { Ok(()) };
                assert_eq!(last, Poll::Ready(expected), "round {round}");
            }
        });
    }
}
