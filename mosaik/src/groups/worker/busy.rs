//! [`Busy`]: what the machine is doing at the moment, for those who must not wait for it to ask.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use crate::groups::{
    health::{LONG, LongCommand, NAMED},
    raft::Index,
};

/// Written by whoever applies, read by the worker. Each number is right by itself; together they may be one command apart.
#[derive(Debug)]
pub(in crate::groups) struct Busy {
    epoch: Instant,
    /// The entry being applied; 0: none.
    index: AtomicU64,
    /// When it began, microseconds since the epoch.
    began: AtomicU64,
    /// The last one that took long: its index, how long it took and when it ended, microseconds.
    long: [AtomicU64; 3],
}

impl Busy {
    pub fn new() -> Self {
        Self { epoch: Instant::now(), index: AtomicU64::new(0), began: AtomicU64::new(0), long: Default::default() }
    }

    fn at(&self, now: Instant) -> u64 {
        u64::try_from(now.duration_since(self.epoch).as_micros()).unwrap_or(u64::MAX)
    }

    /// Whether something is being applied.
    pub fn is_busy(&self) -> bool {
        self.index.load(Ordering::Relaxed) != 0
    }

    pub fn begin(&self, index: Index, now: Instant) {
        self.began.store(self.at(now), Ordering::Relaxed);
        self.index.store(index, Ordering::Relaxed);
    }

    /// The entry that began at `since` is over. Returns whether it took long.
    pub fn end(&self, index: Index, since: Instant, now: Instant) -> bool {
        let took = now.duration_since(since);
        let long = took > LONG;
        if long {
            let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            for (place, value) in self.long.iter().zip([index, took, self.at(now)]) {
                place.store(value, Ordering::Relaxed);
            }
        }
        long
    }

    /// Nothing is being applied.
    pub fn rest(&self) {
        self.index.store(0, Ordering::Relaxed);
    }

    /// The command that takes long, or took long a short while ago.
    pub fn long(&self) -> Option<LongCommand> {
        let now = self.at(Instant::now());
        let index = self.index.load(Ordering::Relaxed);
        let took = Duration::from_micros(now.saturating_sub(self.began.load(Ordering::Relaxed)));
        if index != 0 && took > LONG {
            return Some(LongCommand { index, took, running: true });
        }
        let [index, took, ended] = [0, 1, 2].map(|at: usize| self.long[at].load(Ordering::Relaxed));
        let fresh = Duration::from_micros(now.saturating_sub(ended)) < NAMED;
        (index != 0 && fresh).then(|| LongCommand { index, took: Duration::from_micros(took), running: false })
    }
}
