//! Checks any storage against the contract of [`Storage`]: run it against your own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Duration,
};

use super::{Storage, StorageScript};
use crate::groups::raft::{Stored, Token, Write};

/// A storage may take that long to say what is durable.
const PATIENCE: Duration = Duration::from_secs(20);

/// Checks a storage against the contract of [`Storage`]; panics and says which promise is broken.
///
/// `make` opens the same place each time (if [`is_durable`](Storage::is_durable); otherwise each is a blank one) and is
/// called when the one before is dropped. The place is wiped first. Takes a few hundred batches, and waits in real time,
/// outside of any runtime: a storage whose delays are in virtual time must have none here.
///
/// ```
/// use mosaik::{builtin::InMemory, testing::{SimDisk, storage_conformance}};
///
/// storage_conformance(InMemory::default);
/// let disk = SimDisk::new();
/// storage_conformance(|| disk.clone());
/// ```
///
/// It cannot see what only a power failure shows. For that, run it with the storage's own fault injection, or on a
/// device that drops writes.
///
/// # Panics
/// When a promise is broken.
pub fn storage_conformance<S: Storage>(make: impl Fn() -> S) {
    let suite = Suite { make: &make };
    suite.blank();
    suite.each_kind_of_write();
    suite.order_of_reports();
    suite.wakes();
    suite.sizes();
    suite.lives();
    suite.wipe();
}

struct Suite<'a, F> {
    make: &'a F,
}

/// A loaded storage with the script that feeds it, and everything it may hold at the next start.
struct Life<S> {
    storage: S,
    script: StorageScript,
    token: Token,
}

impl<S: Storage, F: Fn() -> S> Suite<'_, F> {
    fn fresh(&self, seed: u64) -> Life<S> {
        let mut storage = (self.make)();
        storage.wipe().unwrap_or_else(|error| panic!("wipe: {error}"));
        drop(storage);
        let mut storage = (self.make)();
        let stored = load(&mut storage);
        assert_eq!(stored, Stored::default(), "after a wipe there is something left");
        Life { storage, script: StorageScript::new(seed), token: 0 }
    }

    fn blank(&self) {
        let mut life = self.fresh(1);
        assert!(life.poll().is_pending(), "reports a token although nothing was submitted");
    }

    /// Each kind of write does what `apply` does.
    fn each_kind_of_write(&self) {
        for seed in 0..20 {
            let mut life = self.fresh(seed);
            for _ in 0..15 {
                life.submit();
            }
            life.wait();
            self.reopen(life, "everything was reported durable");
        }
    }

    /// Opens it again, which must give exactly the image.
    fn reopen(&self, life: Life<S>, why: &str) -> Life<S> {
        let Life { storage, script, .. } = life;
        let durable = storage.is_durable();
        drop(storage);
        let mut storage = (self.make)();
        let stored = load(&mut storage);
        let expected = if durable { script.image().clone() } else { Stored::default() };
        assert!(stored == expected, "{why}, but other things are read back:\n{stored:?}\ninstead of\n{expected:?}");
        let script = if durable { script } else { StorageScript::new(7) };
        Life { storage, script, token: 0 }
    }

    fn order_of_reports(&self) {
        let mut life = self.fresh(3);
        let mut reported = 0;
        for round in 0..40 {
            life.submit();
            if round % 4 == 0 {
                life.token += 1;
                life.storage.submit(life.token, Vec::new());
            }
            if let Poll::Ready(token) = life.poll() {
                assert!(token > reported, "token {token} is reported after token {reported}");
                assert!(token <= life.token, "token {token} is reported before it was submitted");
                reported = token;
            }
        }
        life.wait_beyond(reported);
        assert!(life.poll().is_pending(), "a token is reported twice");
        // Tokens may have gaps.
        life.token += 1000;
        life.submit();
        life.wait();
        self.reopen(life, "everything was reported durable");
    }

    /// A waiting task is woken, from wherever.
    fn wakes(&self) {
        let mut life = self.fresh(4);
        for _ in 0..5 {
            let waking = Arc::new(Waking { count: AtomicU64::new(0), thread: thread::current() });
            let waker = Waker::from(Arc::clone(&waking));
            let polled = life.storage.poll_durable(&mut Context::from_waker(&waker));
            assert!(polled.is_pending(), "reports a token although nothing is under way");
            life.submit();
            life.wait_for(|_| waking.count.load(Ordering::SeqCst) > 0);
            assert!(waking.count.load(Ordering::SeqCst) > 0, "a batch came, but the waiting task was not woken");
            life.wait();
        }
    }

    /// Small, large and misleading content.
    fn sizes(&self) {
        let mut life = self.fresh(5);
        for size in [0, 1, 511, 512, 513, 4096, 70_000, 3 << 20] {
            for _ in 0..2 {
                let writes = life.script.commands(3, size);
                life.put(writes);
            }
        }
        life.wait();
        self.reopen(life, "everything was reported durable");
    }

    /// Many short lives, some of which end without waiting: then any prefix that has what was reported may be there.
    fn lives(&self) {
        let mut life = self.fresh(6);
        for round in 0..20 {
            let mut possible = vec![life.script.clone()];
            let mut reported = 0;
            for _ in 0..life.script.random(20) {
                life.submit();
                possible.push(life.script.clone());
                if let Poll::Ready(token) = life.poll() {
                    reported = token;
                }
            }
            let durable = life.storage.is_durable();
            drop(life);
            let mut storage = (self.make)();
            let stored = load(&mut storage);
            let from = usize::try_from(reported).unwrap_or(0);
            let allowed = |script: &&StorageScript| *script.image() == stored;
            let script = if durable {
                let found = possible[from..].iter().find(allowed).cloned();
                found.unwrap_or_else(|| panic!("life {round}: no prefix of the batches with what was reported durable"))
            } else {
                assert_eq!(stored, Stored::default(), "volatile storage remembers");
                StorageScript::new(round)
            };
            life = Life { storage, script, token: 0 };
        }
    }

    fn wipe(&self) {
        let mut life = self.fresh(8);
        for _ in 0..10 {
            life.submit();
        }
        life.wait();
        for _ in 0..3 {
            life.submit();
        }
        life.storage.wipe().unwrap_or_else(|error| panic!("wipe: {error}"));
        assert!(life.poll().is_pending(), "a wiped storage reports a token of its former life");
        let stored = load(&mut life.storage);
        assert_eq!(stored, Stored::default(), "a wipe leaves something");
        life = Life { script: StorageScript::new(9), token: 0, ..life };
        for _ in 0..10 {
            life.submit();
        }
        life.wait();
        self.reopen(life, "everything was reported durable after a wipe");
    }
}

impl<S: Storage> Life<S> {
    fn submit(&mut self) {
        let writes = self.script.batch();
        self.put(writes);
    }

    fn put(&mut self, writes: Vec<Write>) {
        self.token += 1;
        self.storage.submit(self.token, writes);
    }

    fn poll(&mut self) -> Poll<Token> {
        let polled = self.storage.poll_durable(&mut Context::from_waker(Waker::noop()));
        polled.map(|token| token.unwrap_or_else(|error| panic!("a batch did not become durable: {error}")))
    }

    /// Waits until the last token is reported.
    fn wait(&mut self) {
        self.wait_beyond(0);
    }

    fn wait_beyond(&mut self, mut reported: Token) {
        let last = self.token;
        if reported < last {
            let waking = Arc::new(Waking { count: AtomicU64::new(0), thread: thread::current() });
            let waker = Waker::from(waking);
            self.wait_for(|life| {
                if let Poll::Ready(token) = life.storage.poll_durable(&mut Context::from_waker(&waker)) {
                    reported = token.unwrap_or_else(|error| panic!("a batch did not become durable: {error}"));
                }
                reported >= last
            });
            assert!(reported == last, "token {last} is not reported within {PATIENCE:?}, only {reported}");
        }
    }

    /// Tries again whenever woken, and now and then besides, until it holds or patience ends.
    fn wait_for(&mut self, mut holds: impl FnMut(&mut Self) -> bool) {
        let step = Duration::from_millis(1);
        for _ in 0..PATIENCE.as_millis() {
            if holds(self) {
                return;
            }
            thread::park_timeout(step);
        }
    }
}

fn load<S: Storage>(storage: &mut S) -> Stored {
    storage.load().unwrap_or_else(|error| panic!("load: {error}"))
}

struct Waking {
    count: AtomicU64,
    thread: Thread,
}

impl Wake for Waking {
    fn wake(self: Arc<Self>) {
        self.count.fetch_add(1, Ordering::SeqCst);
        self.thread.unpark();
    }
}
