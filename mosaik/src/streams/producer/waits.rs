//! Senders that wait: who they are, for how long, and the warning when that is long.
//!
//! A `send` that waits looks like a program that has nothing to do. Registering is off the path of items: only a sender that was
//! told to wait gets here.

use std::{
    collections::BTreeMap,
    task::{Context, Waker},
    time::Duration,
};

use super::shared::Push;
use crate::primitives::caller::{self, Caller};

/// A sender that waits for so long is told.
const LONG: Duration = Duration::from_secs(5);
/// Told again of the same stream after this time at the earliest.
const REPEAT: Duration = Duration::from_mins(1);

/// The senders of one producer that wait.
#[derive(Debug, Default)]
pub(super) struct Waits {
    senders: BTreeMap<u64, Sender>,
    /// To be woken, in the order of their numbers.
    wakers: BTreeMap<u64, Waker>,
    next: u64,
    /// How often a sender began to wait.
    count: u64,
    told: Option<Duration>,
}

#[derive(Debug)]
struct Sender {
    since: Duration,
    caller: Option<Caller>,
    push: Push,
}

/// What there is to say of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) senders: usize,
    /// For how long the first of them has waited.
    pub(crate) time: Duration,
    /// The handler that it is in, if it is in one.
    pub(crate) caller: Option<Caller>,
    /// Whether it waits for room, not for subscribers.
    pub(crate) for_room: bool,
}

impl Waits {
    /// A sender was told to wait. Its number is made at the first time.
    pub(super) fn add(&mut self, push: Push, key: &mut Option<u64>, cx: &Context<'_>, now: Duration) {
        let key = *key.get_or_insert_with(|| {
            self.next += 1;
            self.next
        });
        self.wakers.insert(key, cx.waker().clone());
        let sender = self.senders.entry(key).or_insert_with(|| {
            self.count += 1;
            Sender { since: now, caller: caller::current(), push }
        });
        sender.push = push;
    }

    /// A sender waits no longer.
    pub(super) fn remove(&mut self, key: u64) {
        self.senders.remove(&key);
        self.wakers.remove(&key);
    }

    /// Whether somebody waits to be woken.
    pub(super) fn is_empty(&self) -> bool {
        self.wakers.is_empty()
    }

    pub(super) fn wake(&mut self) {
        // Waking only schedules tasks, so it may be done under the lock.
        std::mem::take(&mut self.wakers).into_values().for_each(Waker::wake);
    }

    /// How often a sender began to wait.
    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn waiting(&self, now: Duration) -> Option<Waiting> {
        let first = self.senders.values().min_by_key(|sender| sender.since)?;
        Some(Waiting {
            senders: self.senders.len(),
            time: now.saturating_sub(first.since),
            caller: first.caller,
            for_room: first.push == Push::Full,
        })
    }

    /// What is to be told now, if something is.
    pub(super) fn due(&mut self, now: Duration) -> Option<Waiting> {
        let waiting = self.waiting(now).filter(|waiting| waiting.time >= LONG)?;
        if self.told.is_some_and(|told| now.saturating_sub(told) < REPEAT) {
            return None;
        }
        self.told = Some(now);
        Some(waiting)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    const fn at(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn one_that_waits_long_is_told_with_its_handler_and_not_too_often() {
        let (mut waits, cx) = (Waits::default(), Context::from_waker(Waker::noop()));
        let (mut one, mut two) = (None, None);
        let handler = Caller { role: "Role", handler: "place" };
        let entered = caller::enter(handler);
        waits.add(Push::Offline, &mut one, &cx, at(10));
        drop(entered);
        waits.add(Push::Full, &mut two, &cx, at(11));
        waits.add(Push::Offline, &mut one, &cx, at(14)); // polled again: it waits on
        assert_eq!((waits.due(at(14)), waits.count()), (None, 2));
        let told = Waiting { senders: 2, time: at(5), caller: Some(handler), for_room: false };
        assert_eq!(waits.due(at(15)), Some(told));
        assert_eq!(waits.due(at(60)), None);
        assert!(waits.due(at(75)).is_some_and(|waiting| waiting.time == at(65)), "it still waits");
        waits.remove(one.expect("it has a number"));
        let rest = Waiting { senders: 1, time: at(64), caller: None, for_room: true };
        assert_eq!(waits.waiting(at(75)), Some(rest));
        waits.wake();
        assert!(waits.is_empty() && waits.waiting(at(75)).is_some(), "woken, and not yet done");
        waits.remove(two.expect("it has a number"));
        assert_eq!(waits.waiting(at(75)), None);
        waits.add(Push::Offline, &mut one, &cx, at(76));
        assert_eq!((waits.waiting(at(76)).map(|waiting| waiting.time), waits.count()), (Some(at(0)), 3));
    }
}
