//! The state of one producer, shared by its handles, its sessions and its worker.
//!
//! Everything is behind one short mutex; nothing is awaited and no user code runs under it. The decisions are those of
//! the cores; this adds who is woken: senders that wait for room, sessions that wait for items.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Waker},
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::Notify, time::Instant};

use super::Handle;
use crate::{
    discovery::{Discovery, PeerEntry},
    network::{CloseCode, Node},
    primitives::{StreamId, watch},
    streams::{
        conditions::{Conditions, Topology},
        core::{
            SubId,
            admission::{Admission, Answer, Change, WaitReason},
            lag::{Depth, Limit, Room},
            log::{LARGE, Log, Taken},
            pace::Bucket,
        },
        limits::{Buffer, ByteRate, MAX_WAITING, OnLag, STALL},
        protocol::Fingerprint,
        stats::{ChannelInfo, ChannelState, Stats},
    },
};

/// A predicate on a peer's entry.
pub(crate) type Predicate = Box<dyn Fn(&PeerEntry) -> bool + Send + Sync>;

/// What a producer is built from.
pub(super) struct Config {
    pub(super) stream: StreamId,
    pub(super) fingerprint: Option<Fingerprint>,
    pub(super) accept_if: Option<Predicate>,
    pub(super) online_when: Conditions,
    pub(super) max_consumers: usize,
    pub(super) egress: Option<ByteRate>,
    pub(super) buffer: Buffer,
    pub(super) on_lag: OnLag,
    /// Takes the encoded payload of an item that reached no one.
    pub(super) undelivered: Option<Box<dyn Fn(&[u8]) + Send + Sync>>,
}

/// See the module's text.
pub(crate) struct Shared {
    pub(super) config: Config,
    pub(super) epoch: u64,
    pub(super) node: Node,
    pub(super) discovery: Discovery,
    started: Instant,
    state: Mutex<State>,
    topology: watch::Sender<Topology>,
    /// Tells the worker to look again.
    pub(super) attention: Notify,
    /// The handle, as long as the user holds one.
    pub(super) handle: Mutex<Weak<Handle>>,
    me: Weak<Self>,
}

struct State {
    log: Log,
    admission: Admission,
    bucket: Option<Bucket>,
    subs: BTreeMap<SubId, Sub>,
    next_sub: SubId,
    online: bool,
    closing: Option<CloseCode>,
    /// When the lag policy wants to be asked again although nothing moves.
    check_at: Option<Duration>,
    senders: BTreeMap<u64, Waker>,
    next_sender: u64,
    parked: Vec<(SubId, Waker)>,
    sent: Depth,
    drops: u64,
}

/// One subscription, served or waiting.
struct Sub {
    entry: PeerEntry,
    /// Which consumer of that peer it is.
    consumer: u64,
    since: Instant,
    signal: watch::Sender<Signal>,
    written: Depth,
}

/// What a session is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    Wait(WaitReason),
    /// Serve it from this sequence number on.
    Serve(u64),
    /// End it now.
    Close(CloseCode),
}

/// What came of an attempt to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Push {
    Sent,
    Full,
    Offline,
    Closed,
}

/// What a session writes next.
#[derive(Debug)]
pub(super) enum Next {
    Items(Taken),
    /// Nothing more will come; the sequence number behind the last item.
    End(CloseCode, u64),
}

impl Shared {
    pub(super) fn new(config: Config, epoch: u64, node: Node, discovery: Discovery) -> Arc<Self> {
        let Buffer { items, bytes } = config.buffer;
        let limit = Limit { items: items as u64, bytes: bytes as u64 };
        let online = config.online_when.met([]);
        let state = State {
            log: Log::new(limit, config.on_lag),
            admission: Admission::new(config.max_consumers, MAX_WAITING),
            bucket: config.egress.map(Bucket::new),
            subs: BTreeMap::new(),
            next_sub: 0,
            online,
            closing: None,
            check_at: None,
            senders: BTreeMap::new(),
            next_sender: 0,
            parked: Vec::new(),
            sent: Depth::default(),
            drops: 0,
        };
        Arc::new_cyclic(|me| Self {
            config,
            epoch,
            node,
            discovery,
            started: Instant::now(),
            state: Mutex::new(state),
            topology: watch::Sender::new(Topology { online, peers: Vec::new() }),
            attention: Notify::new(),
            handle: Mutex::default(),
            me: me.clone(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn at(&self, time: Duration) -> Instant {
        self.started + time
    }

    pub(in crate::streams) fn stream(&self) -> StreamId {
        self.config.stream
    }

    /// The handle, as long as the user holds one.
    pub(in crate::streams) fn handle(&self) -> Option<Arc<Handle>> {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    pub(super) fn topology(&self) -> watch::Receiver<Topology> {
        self.topology.subscribe()
    }

    // Sending.

    /// Appends one framed item if it may be sent now. If not, and `waiter` is given, its task is woken when it is worth
    /// trying again. A large item is taken out of the vector, a small one is copied.
    pub(super) fn push(&self, framed: &mut Vec<u8>, waiter: Option<(&mut Option<u64>, &Context<'_>)>) -> Push {
        let mut state = self.state();
        match self.room(&mut state) {
            Push::Sent => {}
            not_now => {
                state.wait(not_now, waiter);
                return not_now;
            }
        }
        self.append(state, framed);
        Push::Sent
    }

    /// Whether an item could be sent now; registers `waiter` if not.
    pub(super) fn poll_room(&self, waiter: (&mut Option<u64>, &Context<'_>)) -> Push {
        let mut state = self.state();
        let room = self.room(&mut state);
        state.wait(room, Some(waiter));
        room
    }

    /// Appends one framed item whether there is room or not, unless the stream is closed. For `Sink::start_send`, which
    /// comes after a `poll_ready` that found room.
    pub(super) fn push_reserved(&self, framed: &mut Vec<u8>) -> Push {
        let state = self.state();
        if state.closing.is_some() {
            return Push::Closed;
        }
        self.append(state, framed);
        Push::Sent
    }

    /// `Sent` means that an item may be sent.
    fn room(&self, state: &mut State) -> Push {
        if state.closing.is_some() {
            return Push::Closed;
        }
        if !state.online {
            return Push::Offline;
        }
        match state.log.room(|| self.now()) {
            Room::Yes => {}
            Room::Wait { check_at } => {
                if check_at.is_some_and(|at| state.check_at.is_none_or(|known| at < known)) {
                    state.check_at = check_at;
                    self.attention.notify_one();
                }
                self.expel_laggards(state);
                return Push::Full;
            }
        }
        self.expel_laggards(state);
        if state.online { Push::Sent } else { Push::Offline }
    }

    fn append(&self, mut state: MutexGuard<'_, State>, framed: &mut Vec<u8>) {
        state.sent.items += 1;
        state.sent.bytes += framed.len() as u64;
        if state.log.subscribers() == 0 {
            state.log.skip();
            state.drops += 1;
            drop(state);
            self.hand_back(&Bytes::copy_from_slice(framed));
            return;
        }
        if framed.len() >= LARGE {
            state.log.append_chunk(std::mem::take(framed).into());
        } else {
            state.log.append(framed);
        }
        let parked = std::mem::take(&mut state.parked);
        drop(state);
        parked.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Gives framed items that reached no one to who asked for them.
    fn hand_back(&self, mut framed: &[u8]) {
        let Some(undelivered) = &self.config.undelivered else { return };
        while let Some((payload, rest)) = crate::streams::core::frames::split_item(framed) {
            undelivered(payload);
            framed = rest;
        }
    }

    /// A sender no longer waits.
    pub(super) fn forget_sender(&self, key: u64) {
        self.state().senders.remove(&key);
    }

    // Subscriptions.

    /// Whether the predicate admits a peer. Runs user code: never under the lock.
    pub(super) fn allows(&self, entry: &PeerEntry) -> bool {
        self.config.accept_if.as_ref().is_none_or(|accept| ask(accept, entry))
    }

    /// A new subscription. An older one of the same consumer, or of an earlier run of that peer, is dead and ends here.
    pub(super) fn request(
        &self,
        entry: PeerEntry,
        consumer: u64,
        allowed: bool,
    ) -> Result<(SubId, watch::Receiver<Signal>), CloseCode> {
        let mut state = self.state();
        if let Some(code) = state.closing {
            return Err(code);
        }
        let replaced = |sub: &Sub| {
            sub.entry.id() == entry.id()
                && (sub.consumer == consumer || sub.entry.version().run_id < entry.version().run_id)
        };
        let dead: Vec<SubId> = state.subs.iter().filter(|(_, sub)| replaced(sub)).map(|(id, _)| *id).collect();
        dead.into_iter().for_each(|id| self.end(&mut state, id, CloseCode::Normal));
        let id = state.next_sub;
        state.next_sub += 1;
        let signal = match state.admission.request(id, allowed) {
            Answer::Admit => Signal::Serve(state.log.subscribe(id)),
            Answer::Wait(reason) => Signal::Wait(reason),
            Answer::Refuse => return Err(CloseCode::NoCapacity),
        };
        let (sender, receiver) = watch::channel(signal);
        let sub = Sub { entry, consumer, since: Instant::now(), signal: sender, written: Depth::default() };
        state.subs.insert(id, sub);
        self.refresh(&mut state);
        Ok((id, receiver))
    }

    /// A session is over, whoever ended it.
    pub(super) fn leave(&self, id: SubId) {
        let mut state = self.state();
        if state.subs.contains_key(&id) {
            self.end(&mut state, id, CloseCode::Normal);
            self.refresh(&mut state);
        }
        self.attention.notify_one();
    }

    /// Takes a subscription off every list and tells its session.
    fn end(&self, state: &mut State, id: SubId, code: CloseCode) {
        state.admission.gone(id);
        state.log.unsubscribe(id);
        state.parked.retain(|(parked, _)| *parked != id);
        if let Some(sub) = state.subs.remove(&id) {
            sub.signal.send_replace(Signal::Close(code));
        }
    }

    fn expel_laggards(&self, state: &mut State) {
        let expelled = state.log.expelled();
        if expelled.is_empty() {
            return;
        }
        for id in expelled {
            if let Some(sub) = state.subs.get(&id) {
                let (peer, stream) = (sub.entry.id(), self.config.stream);
                tracing::debug!(?peer, ?stream, "subscriber is too slow");
            }
            self.end(state, id, CloseCode::TooSlow);
        }
        self.refresh(state);
        self.attention.notify_one();
    }

    /// A subscriber has taken nothing for too long.
    pub(super) fn expel(&self, id: SubId, code: CloseCode) {
        let mut state = self.state();
        self.end(&mut state, id, code);
        self.refresh(&mut state);
        self.attention.notify_one();
    }

    /// Brings topology, the online state and waiting senders up to date after subscriptions or entries changed.
    fn refresh(&self, state: &mut State) {
        let served: Vec<PeerEntry> = state.served().map(|(_, sub)| sub.entry.clone()).collect();
        state.online = state.closing.is_none() && self.config.online_when.met(&served);
        self.topology.send_replace(Topology { online: state.online, peers: served });
        if state.log.subscribers() == 0 {
            let unclaimed = state.log.unclaimed();
            if !unclaimed.is_empty() {
                self.return_unclaimed(state, unclaimed);
            }
        }
        state.wake_senders();
    }

    /// The last subscriber went before anybody took these. Decoding them is user code, so a task does it.
    fn return_unclaimed(&self, state: &mut State, unclaimed: Vec<Bytes>) {
        let items: usize = unclaimed.iter().map(|chunk| count_items(chunk)).sum();
        state.drops += items as u64;
        let Some(shared) = self.config.undelivered.as_ref().and_then(|_| self.me.upgrade()) else { return };
        self.node.tasks().spawn("undelivered", async move {
            for chunk in unclaimed {
                shared.hand_back(&chunk);
                tokio::task::yield_now().await;
            }
        });
    }

    /// Runs the predicate for everybody again, with the newest entries, and applies what changed.
    pub(super) fn recheck(&self) {
        let catalog = self.discovery.catalog();
        let mut changed = false;
        let entries: Vec<(SubId, PeerEntry)> = {
            let mut state = self.state();
            for sub in state.subs.values_mut() {
                if let Some(entry) = catalog.get(sub.entry.id()).filter(|e| e.version() > sub.entry.version()) {
                    sub.entry = entry.clone();
                    changed = true;
                }
            }
            state.subs.iter().map(|(id, sub)| (*id, sub.entry.clone())).collect()
        };
        let allowed = entries.iter().map(|(id, entry)| (*id, self.allows(entry))).collect();
        let mut state = self.state();
        for change in state.admission.recheck(&allowed) {
            changed = true;
            match change {
                Change::Admit(id) => {
                    let from = state.log.subscribe(id);
                    if let Some(sub) = state.subs.get_mut(&id) {
                        sub.since = Instant::now();
                        sub.signal.send_replace(Signal::Serve(from));
                    }
                }
                Change::Expel(id) => self.end(&mut state, id, CloseCode::NotAllowed),
                Change::Wait(id, reason) => {
                    if let Some(sub) = state.subs.get(&id) {
                        sub.signal.send_replace(Signal::Wait(reason));
                    }
                }
            }
        }
        if changed {
            self.refresh(&mut state);
        }
    }

    /// Asks the lag policy again for senders that wait; when it wants to be asked next.
    pub(super) fn check_lag(&self) -> Option<Duration> {
        let mut state = self.state();
        if state.check_at.is_some_and(|at| at <= self.now()) {
            state.check_at = None;
            if self.room(&mut state) == Push::Sent {
                state.wake_senders();
            }
        }
        state.check_at
    }

    // What sessions do.

    /// What this subscription writes next; if there is nothing, the session's task is woken when there is.
    pub(super) fn poll_next(&self, id: SubId, max: usize, cx: &Context<'_>) -> Option<Next> {
        let mut state = self.state();
        if let Some(taken) = state.log.take(id, max) {
            return Some(Next::Items(taken));
        }
        if let Some(code) = state.closing {
            return Some(Next::End(code, state.log.head()));
        }
        match state.parked.iter_mut().find(|(parked, _)| *parked == id) {
            Some((_, waker)) => waker.clone_from(cx.waker()),
            None => state.parked.push((id, cx.waker().clone())),
        }
        None
    }

    /// A subscription has written so many bytes of what it took, and with them so many whole items.
    pub(super) fn wrote(&self, id: SubId, bytes: usize, items: u64) {
        let mut state = self.state();
        state.log.wrote(id, bytes);
        if let Some(sub) = state.subs.get_mut(&id) {
            sub.written.bytes += bytes as u64;
            sub.written.items += items;
        }
        if !state.senders.is_empty() && self.room(&mut state) == Push::Sent {
            state.wake_senders();
        }
    }

    /// Reserves bytes of the egress limit: when they may be written, if there is a limit.
    pub(super) fn reserve(&self, bytes: usize) -> Option<Instant> {
        let now = self.now();
        let at = self.state().bucket.as_mut()?.reserve(bytes, now);
        (at > now).then(|| self.at(at))
    }

    /// The most bytes for one write under the egress limit.
    pub(super) fn slice(&self) -> usize {
        self.state().bucket.as_ref().map_or(usize::MAX, Bucket::slice)
    }

    /// How long a subscriber may take nothing.
    pub(super) fn stall_limit(&self) -> Duration {
        match self.config.on_lag {
            OnLag::Disconnect => STALL,
            OnLag::Block(patience) => patience.max(STALL),
        }
    }

    // The end.

    /// Nothing is sent any more. Sessions write what is queued and end with `code`; who waits for admission ends at once.
    pub(in crate::streams) fn close(&self, code: CloseCode) {
        let mut state = self.state();
        if state.closing.is_some() {
            return;
        }
        state.closing = Some(code);
        let waiting: Vec<SubId> = state.subs.iter().filter(|(_, sub)| !sub.is_served()).map(|(id, _)| *id).collect();
        waiting.into_iter().for_each(|id| self.end(&mut state, id, code));
        self.refresh(&mut state);
        let parked = std::mem::take(&mut state.parked);
        drop(state);
        parked.into_iter().for_each(|(_, waker)| waker.wake());
        self.attention.notify_one();
    }

    /// Ends whatever a [`close`](Self::close) has left.
    pub(super) fn abort(&self) {
        let mut state = self.state();
        let code = state.closing.unwrap_or(CloseCode::ShuttingDown);
        state.closing = Some(code);
        let left: Vec<SubId> = state.subs.keys().copied().collect();
        left.into_iter().for_each(|id| self.end(&mut state, id, code));
        self.refresh(&mut state);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.state().closing.is_some()
    }

    /// Whether no session is left.
    pub(super) fn is_drained(&self) -> bool {
        self.state().subs.is_empty()
    }

    /// Resolves when no session is left.
    pub(in crate::streams) async fn drained(&self) {
        // Every departure publishes the topology.
        let mut topology = self.topology();
        while !self.is_drained() && topology.changed().await.is_ok() {}
    }

    // Figures.

    pub(super) fn consumers(&self) -> Vec<ChannelInfo> {
        let state = self.state();
        let info = |(id, sub): (&SubId, &Sub)| ChannelInfo {
            peer: sub.entry.clone(),
            state: ChannelState::Connected,
            stats: state.stats_of(*id, sub, self.node.rtt(sub.entry.id())),
        };
        state.served().map(info).collect()
    }

    pub(super) fn stats(&self) -> Stats {
        let state = self.state();
        let mut total =
            Stats { datums: state.sent.items, bytes: state.sent.bytes, drops: state.drops, ..Stats::default() };
        for (id, sub) in state.served() {
            let stats = state.stats_of(*id, sub, None);
            total.uptime = total.uptime.max(stats.uptime);
            total.queue = total.queue.max(stats.queue);
            total.high_water = total.high_water.max(stats.high_water);
        }
        total
    }
}

impl State {
    fn served(&self) -> impl Iterator<Item = (&SubId, &Sub)> {
        self.subs.iter().filter(|(_, sub)| sub.is_served())
    }

    fn stats_of(&self, id: SubId, sub: &Sub, rtt: Option<Duration>) -> Stats {
        let (queue, high_water) = self.log.depth(id).unwrap_or_default();
        Stats {
            datums: sub.written.items,
            bytes: sub.written.bytes,
            uptime: Some(sub.since.elapsed()),
            queue,
            high_water,
            rtt,
            ..Stats::default()
        }
    }

    /// Registers a sender that was told to wait.
    fn wait(&mut self, push: Push, waiter: Option<(&mut Option<u64>, &Context<'_>)>) {
        let Some((key, cx)) = waiter.filter(|_| matches!(push, Push::Full | Push::Offline)) else { return };
        let key = *key.get_or_insert_with(|| {
            self.next_sender += 1;
            self.next_sender
        });
        self.senders.insert(key, cx.waker().clone());
    }

    fn wake_senders(&mut self) {
        // Waking only schedules tasks, so it may be done under the lock.
        std::mem::take(&mut self.senders).into_values().for_each(Waker::wake);
    }
}

impl Sub {
    fn is_served(&self) -> bool {
        matches!(*self.signal.borrow(), Signal::Serve(_))
    }
}

/// Asks a predicate; one that panics admits nobody.
pub(crate) fn ask(predicate: &Predicate, entry: &PeerEntry) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| predicate(entry))).unwrap_or_else(|_| {
        tracing::error!(peer = ?entry.id(), "a predicate of a stream panicked; it counts as false");
        false
    })
}

fn count_items(mut framed: &[u8]) -> usize {
    let mut items = 0;
    while let Some((_, rest)) = crate::streams::core::frames::split_item(framed) {
        framed = rest;
        items += 1;
    }
    items
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("stream", &self.config.stream)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}
