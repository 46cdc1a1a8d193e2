//! The state of one producer, shared by its handles ([`sending`](super::sending)), its sessions and its worker
//! ([`subscribers`](super::subscribers)).
//!
//! Everything is behind one short mutex; nothing is awaited and no user code runs under it. The decisions are those of
//! the cores; this adds who is woken: senders that wait for room, sessions that wait for items.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    task::Waker,
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::{
    Handle,
    waits::{Waiting, Waits},
};
use crate::{
    discovery::{Discovery, PeerEntry},
    network::{CloseCode, Lane, Node},
    primitives::{Evolve, Format, PeerId, Schema, StreamId, ordered, watch},
    streams::{
        conditions::{Conditions, Topology},
        core::{
            SubId,
            admission::{Admission, WaitReason},
            filter::{Asked as AskedFilter, Filter, FilterRefusal},
            frames::Between,
            key::Key,
            lag::Depth,
            log::{Log, Settings, take::Taken},
            mutants::Switch,
            pace::Bucket,
            progress::Resume,
            retain::{Label, Replay, Retained, Retention},
        },
        inspect::{Counts, Endings, ProducerView, SubscriberView, Verdict},
        limits::{Buffer, ByteRate, MAX_WAITING, OnLag},
        owner::Owned,
        protocol::Fingerprint,
        stats::{ChannelInfo, ChannelState, Stats},
    },
    trust::{self, Needed},
};

/// A predicate on a peer's entry.
pub(crate) type Predicate = Box<dyn Fn(&PeerEntry) -> bool + Send + Sync>;

/// Takes the encoded payload of an item.
pub(super) type Undelivered = Box<dyn Fn(Format, &[u8]) + Send + Sync>;

/// The key of an item, for a policy that conflates and for what is kept per key.
pub(super) type KeyOf = Box<dyn Fn(&dyn Any) -> Key + Send + Sync>;

/// Whether an item is a key frame.
pub(super) type Opens = Box<dyn Fn(&dyn Any) -> bool + Send + Sync>;

/// What a producer is built from.
/// See [`begin_at`](super::ProducerBuilder::begin_at).
pub(super) struct Begin {
    pub(super) epoch: u64,
    pub(super) first: u64,
    pub(super) framed: Vec<Vec<u8>>,
}

pub(super) struct Config {
    pub(super) stream: StreamId,
    pub(super) fingerprint: Option<Fingerprint>,
    /// How items are said to be written, if that is said.
    pub(super) format: Option<Format>,
    /// The shape of the items, and the one that both ends compare.
    pub(super) schema: &'static Schema,
    pub(super) compared: &'static Schema,
    pub(super) evolve: Evolve,
    /// What this node's ticket needs, and that of a consumer.
    pub(super) produce: Needed,
    pub(super) consume: Needed,
    /// What consumers must declare, too.
    pub(super) label: Option<trust::Label>,
    pub(super) accept_if: Option<Predicate>,
    pub(super) online_when: Conditions,
    pub(super) max_consumers: usize,
    pub(super) egress: Option<ByteRate>,
    pub(super) buffer: Buffer,
    pub(super) on_lag: OnLag,
    pub(super) key: Option<KeyOf>,
    /// What is kept for consumers that come back.
    pub(super) replay: Buffer,
    pub(super) lifespan: Option<Duration>,
    /// What is kept for late joiners, and the pace of its replays.
    pub(super) retention: Option<Retention>,
    pub(super) opens: Option<Opens>,
    pub(super) replay_pace: ByteRate,
    /// Takes the encoded payload of an item that reached no one.
    pub(super) undelivered: OnceLock<Undelivered>,
    /// What is continued of an earlier life of the producer.
    pub(super) begin: Option<Begin>,
    /// Who puts the items in order, if it is not this producer.
    pub(super) owner: OnceLock<Owned>,
}

impl Config {
    /// Whether a group owns the stream.
    pub(super) fn is_owned(&self) -> bool {
        self.owner.get().is_some()
    }

    /// How the log is to be.
    fn settings(&self) -> Settings {
        Settings {
            policy: self.on_lag,
            limit: self.buffer.into(),
            ring: self.replay.into(),
            lifespan: self.lifespan,
            keyed: self.key.is_some(),
            switch: Switch::default(),
        }
    }
}

/// See the module's text.
pub(crate) struct Shared {
    pub(super) config: Config,
    pub(super) node: Node,
    pub(super) discovery: Discovery,
    started: Instant,
    state: Mutex<State>,
    pub(super) topology: watch::Sender<Topology>,
    /// Tells the worker to look again.
    pub(super) attention: Notify,
    /// The handle, as long as the user holds one.
    pub(super) handle: Mutex<Weak<Handle>>,
    pub(super) me: Weak<Self>,
}

pub(super) struct State {
    pub(super) epoch: u64,
    pub(super) log: Log,
    pub(super) admission: Admission,
    pub(super) bucket: Option<Bucket>,
    pub(super) retained: Option<Retained>,
    pub(super) replay_pace: Bucket,
    pub(super) subs: BTreeMap<SubId, Sub>,
    pub(super) next_sub: SubId,
    pub(super) online: bool,
    pub(super) closing: Option<CloseCode>,
    /// When the lag policy wants to be asked again although nothing moves.
    pub(super) check_at: Option<Duration>,
    pub(super) waits: Waits,
    pub(super) parked: Vec<(SubId, Waker)>,
    pub(super) sent: Depth,
    pub(super) drops: u64,
    /// Subscribers that were closed because they could not keep up.
    pub(super) too_slow: u64,
    pub(super) endings: Endings,
    /// How many subscriptions stand by, and then the last item.
    pub(super) standbys: usize,
    pub(super) last: Vec<u8>,
}

/// One subscription, served or waiting.
pub(super) struct Sub {
    /// The newest that the catalog has.
    pub(super) entry: PeerEntry,
    /// The run of the peer that asked.
    pub(super) run: u64,
    pub(super) asked: Asked,
    /// What it may ask to be replayed, for [`HANDSHAKE`] at the longest.
    pub(super) replay: Option<Replay>,
    pub(super) since: Instant,
    pub(super) signal: watch::Sender<Signal>,
    pub(super) written: Depth,
    /// What carries its items, once they flow.
    pub(super) lane: Option<Lane>,
}

/// What a consumer wants.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// Which consumer of that peer it is.
    pub(super) consumer: u64,
    /// What it has already.
    pub(super) resume: Option<Resume>,
    /// Whether it wants what is kept for late joiners.
    pub(super) replay: bool,
    /// Which items, if not all.
    pub(super) filter: Option<Arc<Filter>>,
    /// What it has counts in whatever epoch.
    pub(super) replicated: bool,
    /// It stands by.
    pub(super) heads: bool,
}

impl Asked {
    /// The first item that it lacks of a run.
    pub(super) fn from(&self, epoch: u64) -> Option<u64> {
        self.resume.map(|resume| if self.replicated { resume.next } else { resume.within(epoch) })
    }
}

/// What a session is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    Wait(WaitReason),
    /// Serve it from this sequence number on, after a replay if there is one.
    Serve {
        epoch: u64,
        next: u64,
        replay: bool,
    },
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
    NotLeader,
    TooLarge,
}

/// What a session writes next.
#[derive(Debug)]
pub(super) enum Next {
    Items(Taken),
    /// Nothing for now: the sequence number that comes next, and what lies before it.
    Heartbeat(Between, u64),
    /// To who stands by: the epoch, the number that comes next and a digest of the item before it.
    Head(u64, u64, Option<u64>),
    /// Nothing more will come; the sequence number behind the last item.
    End(CloseCode, u64),
}

impl Shared {
    /// The shape of the items.
    pub(in crate::streams) const fn schema(&self) -> &'static Schema {
        self.config.schema
    }

    pub(super) fn new(mut config: Config, epoch: u64, node: Node, discovery: Discovery) -> Arc<Self> {
        let online = config.online_when.met([]);
        let mut log = Log::new(config.settings());
        if let Some(begin) = config.begin.take() {
            log.begin_at(begin.first);
            for framed in &begin.framed {
                if log.has_ring() { log.append(framed, &mut Key::default()) } else { log.skip() }
            }
        }
        let state = State {
            epoch,
            log,
            admission: Admission::new(config.max_consumers, MAX_WAITING),
            bucket: config.egress.map(Bucket::new),
            retained: config.retention.map(|retention| Retained::new(retention, Switch::default())),
            replay_pace: Bucket::new(config.replay_pace),
            subs: BTreeMap::new(),
            next_sub: 0,
            online,
            closing: None,
            check_at: None,
            waits: Waits::default(),
            parked: Vec::new(),
            sent: Depth::default(),
            drops: 0,
            too_slow: 0,
            endings: Endings::default(),
            standbys: 0,
            last: Vec::new(),
        };
        Arc::new_cyclic(|me| Self {
            config,
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

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn epoch(&self) -> u64 {
        self.state().epoch
    }

    /// See [`Producer::begin_anew`](super::Producer::begin_anew). What is kept for late joiners is of the old run, and goes.
    pub(super) fn begin_anew(&self, epoch: u64) {
        self.begin_run(epoch, 0);
    }

    /// Another run, whose items count from `first` on.
    pub(in crate::streams) fn begin_run(&self, epoch: u64, first: u64) {
        let mut state = self.state();
        let served: Vec<SubId> = state.subs.keys().copied().collect();
        served.into_iter().for_each(|id| state.end(id, CloseCode::Normal));
        state.epoch = epoch;
        state.log = Log::new(self.config.settings());
        state.last.clear();
        state.log.begin_at(first);
        state.retained = self.config.retention.map(|retention| Retained::new(retention, Switch::default()));
        state.check_at = None;
        self.refresh(&mut state);
        drop(state);
        self.attention.notify_one();
    }

    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn at(&self, time: Duration) -> Instant {
        self.started + time
    }

    /// An item's key and whether it is a key frame, if that is of interest. Runs user code: never under the lock.
    #[inline]
    pub(super) fn label_of(&self, item: &dyn Any) -> Label {
        let Config { key, opens, .. } = &self.config;
        let mut label = Label::default();
        if let Some(key) = key {
            label.key = key(item);
        }
        if let Some(opens) = opens {
            label.opens = opens(item);
        }
        label
    }

    /// The filter that a consumer asks for, if items can be judged by it.
    pub(super) fn filter(&self, asked: Option<&AskedFilter>) -> Result<Option<Arc<Filter>>, FilterRefusal> {
        let Some(asked) = asked else { return Ok(None) };
        let filter = Filter::try_from(asked)?;
        if self.config.key.is_none() {
            return Err(FilterRefusal::NoKey);
        }
        let state = self.state();
        let is_other = |(ours, theirs): (&Key, &[u8])| ordered::sort(ours.bytes()) != ordered::sort(theirs);
        if state.log.last_key().zip(filter.example()).is_some_and(is_other) {
            return Err(FilterRefusal::OtherKeys);
        }
        Ok(Some(Arc::new(filter)))
    }

    /// Whether a subscription gets heads, not items.
    pub(super) fn is_standby(&self, id: SubId) -> bool {
        self.state().subs.get(&id).is_some_and(|sub| sub.asked.heads)
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

    pub(super) fn consumers(&self) -> Vec<ChannelInfo> {
        let state = self.state();
        let info = |(id, sub): (&SubId, &Sub)| ChannelInfo {
            peer: sub.entry.clone(),
            state: ChannelState::Connected,
            late: false,
            stats: state.stats_of(*id, sub, self.node.rtt(sub.entry.id())),
        };
        state.served().map(info).collect()
    }

    /// Everything about this producer. Asks its predicate about who waits for it.
    pub(in crate::streams) fn inspect(&self, datum: &'static str) -> ProducerView {
        let mut subscribers = Vec::new();
        let endings = {
            let state = self.state();
            for (id, sub) in &state.subs {
                let waits = match *sub.signal.borrow() {
                    Signal::Wait(reason) => Some(reason),
                    _ => None,
                };
                let stats = state.stats_of(*id, sub, self.node.rtt(sub.entry.id()));
                subscribers.push(SubscriberView {
                    peer: sub.entry.clone(),
                    standby: sub.asked.heads,
                    waits,
                    stats,
                    missing_tags: BTreeSet::new(),
                    missing_grant: None,
                });
            }
            state.endings.list()
        };
        for subscriber in subscribers.iter_mut().filter(|it| it.waits == Some(WaitReason::NotAllowed)) {
            if let Verdict::Misses(tags) = Verdict::of(self.config.accept_if.as_ref(), &subscriber.peer) {
                subscriber.missing_tags = tags;
            }
        }
        for subscriber in subscribers.iter_mut().filter(|it| it.waits == Some(WaitReason::NotGranted)) {
            subscriber.missing_grant = self.lacks(&subscriber.peer);
        }
        ProducerView {
            stream: self.config.stream,
            fingerprint: self.config.fingerprint,
            datum,
            epoch: self.epoch(),
            online: self.topology().borrow().online,
            max_consumers: self.config.max_consumers,
            stats: self.stats(),
            waiting: self.waiting(),
            missing_grant: self.lacks_itself(),
            owner: self.config.owner.get().map(|owner| owner.view()),
            subscribers,
            endings,
        }
    }

    /// A peer was refused before it had a subscription.
    pub(super) fn refused(&self, peer: PeerId, code: CloseCode) {
        self.state().endings.note(peer, code);
    }

    pub(in crate::streams) fn counts(&self) -> Counts {
        let (stats, waiting) = (self.stats(), self.waiting());
        let state = self.state();
        let waiting = waiting.map_or(0, |waiting| waiting.senders);
        Counts { stats, channels: state.served().count(), online: state.online, waiting, late: 0 }
    }

    /// The senders that wait now.
    fn waiting(&self) -> Option<Waiting> {
        self.state().waits.waiting(self.now())
    }

    pub(super) fn stats(&self) -> Stats {
        let state = self.state();
        let mut total = Stats {
            datums: state.sent.items,
            bytes: state.sent.bytes,
            drops: state.drops,
            waits: state.waits.count(),
            too_slow: state.too_slow,
            ..Stats::default()
        };
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
    pub(super) fn served(&self) -> impl Iterator<Item = (&SubId, &Sub)> {
        self.subs.iter().filter(|(_, sub)| sub.is_served() && !sub.asked.heads)
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
            lane: sub.lane,
            ..Stats::default()
        }
    }
}

impl Sub {
    pub(super) fn is_served(&self) -> bool {
        matches!(*self.signal.borrow(), Signal::Serve { .. })
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("stream", &self.config.stream)
            .field("epoch", &self.epoch())
            .finish_non_exhaustive()
    }
}
