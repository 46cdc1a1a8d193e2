//! [`Lane`]: how two tasks of one member hand each other work in batches.
//!
//! It has no limit of its own, because each of its uses has one: jobs for the machine and their results are bounded by
//! the consensus core (`Settings::applying`).

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

#[derive(Debug)]
pub(super) struct Lane<T> {
    items: Mutex<VecDeque<T>>,
    wake: Notify,
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Self { items: Mutex::default(), wake: Notify::new() }
    }
}

impl<T> Lane<T> {
    fn items(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn push(&self, item: T) {
        self.items().push_back(item);
        self.wake.notify_one();
    }

    /// Everything that waits.
    pub fn take(&self) -> VecDeque<T> {
        std::mem::take(&mut *self.items())
    }

    /// Resolves when something was pushed since the last time. One task waits. Cancellation-safe.
    pub async fn filled(&self) {
        self.wake.notified().await;
    }
}
