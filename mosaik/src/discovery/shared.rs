//! What the public handle, the worker and the session tasks share: the core behind one lock, the published catalog,
//! the subscribers.
//!
//! The core is behind a lock and not inside the worker because two of its promises are synchronous: a tag that was
//! added is in the catalog when the call returns, and an entry that a consumer brings is merged before its
//! subscription is judged. The lock is held for one `step`, never across an await; the worker alone carries out what
//! the steps ask for.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    catalog::Catalog,
    config::Config,
    core::{Core, Input, Now, Output},
    entry::PeerEntry,
    events::Subscribers,
    serving::Serving,
    stats::Counters,
};
use crate::{
    network::Node,
    primitives::{PeerId, watch},
};

/// The core's clock starts here: further from zero than any lease is long.
const ORIGIN: Now = Duration::from_hours(1);

pub(super) struct Shared {
    pub(super) node: Node,
    pub(super) config: Config,
    pub(super) cancel: CancellationToken,
    pub(super) counters: Arc<Counters>,
    pub(super) subscribers: Subscribers,
    /// Wakes the worker: there are outputs, or an earlier deadline.
    pub(super) wake: Notify,
    /// Bounds the sync sessions, the entry requests, the ticket requests, the exchanges of revocations, the renewals and the
    /// requests for evidence that are served at once.
    pub(super) serving: [Arc<Serving>; 6],
    started: Instant,
    catalog: watch::Sender<Catalog>,
    state: Mutex<State>,
}

struct State {
    core: Core,
    /// For the worker. Bounded by the core: a dial per peer, a pull per source, a broadcast per beat.
    outputs: Vec<Output>,
    closed: bool,
}

impl Shared {
    pub(super) fn new(node: Node, config: Config, core: Core, cancel: CancellationToken) -> Self {
        let serving = [(); 6].map(|()| Serving::new(config.max_served));
        Self {
            node,
            config,
            cancel,
            counters: Arc::default(),
            subscribers: Subscribers::default(),
            wake: Notify::new(),
            serving,
            started: Instant::now(),
            catalog: watch::Sender::new(core.catalog().clone()),
            state: Mutex::new(State { core, outputs: Vec::new(), closed: false }),
        }
    }

    /// The moment at which the core's clock starts.
    pub(super) const fn origin() -> Now {
        ORIGIN
    }

    pub(super) fn now(&self) -> Now {
        ORIGIN + self.started.elapsed()
    }

    /// A moment of the core's clock as one of the runtime's; one that is far off as a later one than now.
    pub(super) fn instant(&self, at: Now) -> Instant {
        self.started + from_start(at, self.started.elapsed())
    }

    /// Lets the core do something, publishes what changed, and wakes the worker.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Core, Now) -> T) -> T {
        let result = self.with_quietly(act);
        self.wake.notify_one();
        result
    }

    /// The same for the worker, which need not be woken.
    pub(super) fn with_quietly<T>(&self, act: impl FnOnce(&mut Core, Now) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.now();
        let result = act(&mut state.core, now);
        let outputs = state.core.take_outputs();
        // Published under the lock, so that snapshots and events come in order.
        if state.core.catalog().root() != self.catalog.borrow().root() {
            self.catalog.send_replace(state.core.catalog().clone());
        }
        let mut events = Vec::new();
        for output in outputs {
            match output {
                Output::Event(event) => events.push(event),
                output => state.outputs.push(output),
            }
        }
        if !events.is_empty() {
            self.subscribers.publish(&events, self.config.event_buffer);
        }
        result
    }

    /// Feeds the core from outside the worker.
    pub(super) fn step(&self, input: Input) {
        self.with(|core, now| core.step(input, now));
    }

    /// What the worker is to do, and when to tick next.
    pub(super) fn take_outputs(&self) -> (Vec<Output>, Now) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut state.outputs), state.core.next_deadline())
    }

    /// Ends the event streams; later subscriptions end at once.
    pub(super) fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.subscribers.close();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed
    }

    pub(super) fn catalog(&self) -> Catalog {
        self.catalog.borrow().clone()
    }

    /// The peers of the catalog that this node is connected to, in ascending order of their ids. Looks at the connections, of which there
    /// are few, and not at the catalog.
    pub(super) fn connected(&self) -> impl Iterator<Item = PeerEntry> {
        let catalog = self.catalog();
        self.node.connected().into_iter().filter_map(move |peer| catalog.get(peer).cloned())
    }

    /// Whether the catalog has the peer.
    pub(super) fn knows(&self, peer: PeerId) -> bool {
        self.catalog.borrow().contains(peer)
    }

    /// More is known of the peers than their entries say: whoever watches the catalog looks at it again.
    pub(super) fn look_again(&self) {
        let _state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.catalog.send_modify(|_| {});
    }

    pub(super) fn watch(&self) -> watch::Receiver<Catalog> {
        self.catalog.subscribe()
    }
}

/// How long after the start a moment of the core's clock is, when so much time has passed since; at most a day from now, because
/// the runtime's clock cannot express every moment of the core's.
fn from_start(at: Now, passed: Duration) -> Duration {
    at.saturating_sub(ORIGIN).min(passed + Duration::from_hours(24))
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Discovery").field("catalog", &*self.catalog.borrow()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_to_come_is_to_come_however_long_the_node_lives() {
        for hours in [0, 1, 23, 24, 25, 1000, 100_000] {
            let passed = Duration::from_hours(hours);
            let soon = ORIGIN + passed + Duration::from_secs(5);
            assert_eq!(from_start(soon, passed), passed + Duration::from_secs(5), "after {hours} hours");
            assert_eq!(from_start(Now::MAX, passed), passed + Duration::from_hours(24), "after {hours} hours");
        }
    }
}
