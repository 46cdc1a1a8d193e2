//! What a consumer knows of one producer: the state of the subscription, its figures, and its share of the queue.
//!
//! The subscription's task writes it, the handle reads it and counts what it hands out. It outlives single connections.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::{
    discovery::PeerEntry,
    network::{CloseCode, Lane},
    primitives::PeerId,
    streams::{
        core::lag::Depth,
        limits::CONSUMER_BUFFER,
        stats::{ChannelInfo, ChannelState, Stats},
    },
};

#[derive(Debug)]
pub(super) struct Channel {
    pub(super) peer: PeerId,
    state: Mutex<State>,
    queued_items: AtomicU64,
    queued_bytes: AtomicUsize,
    high_items: AtomicU64,
    high_bytes: AtomicUsize,
    /// Told when there is room again.
    room: Notify,
    /// Handed out. Written by the handle alone.
    datums: AtomicU64,
    bytes: AtomicU64,
    gaps: AtomicU64,
    drops: AtomicU64,
    /// An item of this connection could not be decoded.
    failed: AtomicBool,
    failure: Notify,
    /// When it became known, and for a consumer with a deadline: microseconds from then to the last item, and whether it
    /// is late.
    known: Instant,
    heard: AtomicU64,
    late: AtomicBool,
    /// Another producer is preferred: nothing is to come from this one.
    spare: AtomicBool,
    /// The subscription is one of heads.
    standby: AtomicBool,
}

/// What a preference has to know of a producer.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::streams) struct Standing {
    /// Items flow.
    pub(in crate::streams) flows: bool,
    /// Heads come, as it stands by.
    pub(in crate::streams) heads: bool,
    /// It refuses this consumer, or is late.
    pub(in crate::streams) fails: bool,
}

/// How a producer stands to a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lateness {
    /// On time; to be asked again then.
    Due(Instant),
    /// It has become late, silent for so long.
    New(Duration),
    /// It has been late before.
    Known,
}

#[derive(Debug)]
struct State {
    entry: PeerEntry,
    state: ChannelState,
    since: Option<Instant>,
    /// What carries its items.
    lane: Option<Lane>,
    failure: Option<String>,
    /// Why the last item was passed over that was not known here.
    passed_over: Option<String>,
    /// How the last subscription ended, and when.
    last_end: Option<(String, Option<CloseCode>, Instant)>,
    /// How many have ended.
    ends: u64,
    /// Why it is taken or not, of a consumer that chooses.
    choice: Option<String>,
}

impl Channel {
    pub(super) fn new(entry: PeerEntry) -> Self {
        Self {
            peer: entry.id(),
            state: Mutex::new(State {
                entry,
                state: ChannelState::Connecting,
                since: None,
                lane: None,
                failure: None,
                passed_over: None,
                last_end: None,
                ends: 0,
                choice: None,
            }),
            queued_items: AtomicU64::new(0),
            queued_bytes: AtomicUsize::new(0),
            high_items: AtomicU64::new(0),
            high_bytes: AtomicUsize::new(0),
            room: Notify::new(),
            datums: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            gaps: AtomicU64::new(0),
            drops: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            failure: Notify::new(),
            known: Instant::now(),
            heard: AtomicU64::new(0),
            late: AtomicBool::new(false),
            spare: AtomicBool::new(false),
            standby: AtomicBool::new(false),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_entry(&self, entry: PeerEntry) {
        self.state().entry = entry;
    }

    pub(super) fn set_state(&self, state: ChannelState) {
        let mut inner = self.state();
        inner.state = state;
        inner.since = (state == ChannelState::Connected).then(Instant::now);
    }

    /// Items flow, on this lane.
    pub(super) fn flows(&self, lane: Lane) {
        self.state().lane = Some(lane);
        self.set_state(ChannelState::Connected);
    }

    /// Whether the subscription that begins is one of heads.
    pub(super) fn set_standby(&self, standby: bool) {
        self.standby.store(standby, Relaxed);
    }

    pub(super) fn stands_by(&self) -> bool {
        self.standby.load(Relaxed)
    }

    /// How it is.
    pub(super) fn stands(&self) -> Standing {
        let state = self.state().state;
        let refuses = matches!(state, ChannelState::Waiting(_));
        let spare = self.spare.load(Relaxed);
        Standing {
            flows: state == ChannelState::Connected,
            heads: state == ChannelState::Standby,
            fails: !spare && (refuses || self.late.load(Relaxed)),
        }
    }

    /// The producer's entry, if items flow.
    pub(super) fn connected(&self) -> Option<PeerEntry> {
        let state = self.state();
        (state.state == ChannelState::Connected).then(|| state.entry.clone())
    }

    // The queue.

    pub(super) fn has_room(&self) -> bool {
        self.queued_bytes.load(Relaxed) < CONSUMER_BUFFER
    }

    /// Resolves when this subscription may queue more. Cancellation-safe; for one waiter.
    pub(super) async fn room(&self) {
        while !self.has_room() {
            self.room.notified().await;
        }
    }

    pub(super) fn queued(&self, items: u64, bytes: usize) {
        let items = self.queued_items.fetch_add(items, Relaxed) + items;
        let bytes = self.queued_bytes.fetch_add(bytes, Relaxed) + bytes;
        self.high_items.fetch_max(items, Relaxed);
        self.high_bytes.fetch_max(bytes, Relaxed);
    }

    pub(super) fn dequeued(&self, items: u64, bytes: usize, limit: usize) {
        self.queued_items.fetch_sub(items, Relaxed);
        let before = self.queued_bytes.fetch_sub(bytes, Relaxed);
        if before >= limit && before - bytes < limit {
            self.room.notify_one();
        }
    }

    // What the handle does.

    /// One item was handed out. Plain stores: there is one handle.
    #[inline]
    pub(super) fn delivered(&self, bytes: usize) {
        self.datums.store(self.datums.load(Relaxed) + 1, Relaxed);
        self.bytes.store(self.bytes.load(Relaxed) + bytes as u64, Relaxed);
    }

    /// How many items were handed out so far.
    pub(super) fn read_so_far(&self) -> u64 {
        self.datums.load(Relaxed)
    }

    /// An item could not be decoded: ends the connection. False if another one has ended it already.
    pub(super) fn fail(&self, error: String) -> bool {
        let first = !self.failed.swap(true, Relaxed);
        if first {
            self.state().failure = Some(error);
            self.failure.notify_one();
        }
        first
    }

    // What the subscription's task does.

    /// Resolves when an item could not be decoded. Cancellation-safe; for one waiter.
    pub(super) async fn failure(&self) -> String {
        loop {
            if let Some(failure) = self.state().failure.take() {
                return failure;
            }
            self.failure.notified().await;
        }
    }

    /// An item was not known here; whether that is for another reason than the last one.
    pub(super) fn passes_over(&self, why: &str) -> bool {
        let mut state = self.state();
        let is_new = state.passed_over.as_deref() != Some(why);
        if is_new {
            state.passed_over = Some(why.to_owned());
        }
        is_new
    }

    /// A new connection starts with a clean slate.
    pub(super) fn clear_failure(&self) {
        self.state().failure = None;
        self.failed.store(false, Relaxed);
    }

    pub(super) fn missed(&self, items: u64) {
        self.gaps.fetch_add(1, Relaxed);
        self.drops.fetch_add(items, Relaxed);
    }

    /// A subscription has ended, or was refused; whether the one before ended otherwise.
    pub(super) fn ended(&self, why: String, code: Option<CloseCode>) -> bool {
        let mut state = self.state();
        let is_new = state.last_end.as_ref().is_none_or(|(before, ..)| *before != why);
        state.last_end = Some((why, code, Instant::now()));
        state.ends += 1;
        is_new
    }

    // Deadline.

    /// An item has come.
    pub(super) fn heard(&self) {
        let after = self.known.elapsed().as_micros();
        self.heard.store(u64::try_from(after).unwrap_or(u64::MAX), Relaxed);
        self.late.store(false, Relaxed);
    }

    /// Whether another producer is preferred. When that is over, its silence counts from then.
    pub(super) fn set_spare(&self, spare: bool) {
        if self.spare.swap(spare, Relaxed) && !spare {
            self.heard();
        }
    }

    pub(super) fn lateness(&self, deadline: Duration) -> Lateness {
        if self.spare.load(Relaxed) {
            return Lateness::Due(Instant::now() + deadline);
        }
        let heard = self.known + Duration::from_micros(self.heard.load(Relaxed));
        let silent = heard.elapsed();
        if silent < deadline {
            return Lateness::Due(heard + deadline);
        }
        if self.late.swap(true, Relaxed) { Lateness::Known } else { Lateness::New(silent) }
    }

    /// Says why it is taken or not.
    pub(super) fn set_choice(&self, why: String) {
        self.state().choice = Some(why);
    }

    pub(super) fn choice(&self) -> Option<String> {
        self.state().choice.clone()
    }

    // Figures.

    /// How the last subscription ended and how long ago, and how many have ended.
    pub(super) fn endings(&self) -> (Option<(String, Option<CloseCode>, Duration)>, u64) {
        let state = self.state();
        let last = state.last_end.as_ref().map(|(why, code, at)| (why.clone(), *code, at.elapsed()));
        (last, state.ends)
    }

    pub(super) fn stats(&self, rtt: Option<Duration>) -> Stats {
        let (since, lane) = {
            let state = self.state();
            (state.since, state.lane)
        };
        Stats {
            datums: self.datums.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            gaps: self.gaps.load(Relaxed),
            drops: self.drops.load(Relaxed),
            uptime: since.map(|since| since.elapsed()),
            queue: Depth { items: self.queued_items.load(Relaxed), bytes: self.queued_bytes.load(Relaxed) as u64 },
            high_water: Depth { items: self.high_items.load(Relaxed), bytes: self.high_bytes.load(Relaxed) as u64 },
            rtt,
            lane: lane.filter(|_| since.is_some()),
            ..Stats::default()
        }
    }

    pub(super) fn info(&self, rtt: Option<Duration>) -> ChannelInfo {
        let stats = self.stats(rtt);
        let state = self.state();
        ChannelInfo { peer: state.entry.measured(rtt), state: state.state, late: self.late.load(Relaxed), stats }
    }
}
