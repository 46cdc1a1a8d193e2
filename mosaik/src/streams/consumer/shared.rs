//! The state of one consumer, shared by its handle, its worker and its subscriptions.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::primitives::watch;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    ahead::Ahead,
    channel::{Channel, Lateness, Standing},
    merge::Merge,
};
use crate::{
    discovery::{Catalog, PeerEntry},
    primitives::{Format, PeerId, Schema, StreamId, schema::Readable},
    streams::{
        Registry,
        conditions::{Conditions, Topology},
        core::{
            filter,
            lineage::Lineage,
            mutants::Switch,
            progress::{Missed, Resume},
            union::{Trail, Union},
        },
        events::{Event, EventSender},
        inspect::{CandidateView, ConsumerView, Counts, Verdict},
        limits::BEHIND,
        producer::Predicate,
        protocol::Fingerprint,
        stats::{ChannelInfo, Stats},
    },
    trust::{Held, Label, MissingGrant, Needed, RefusedBy},
};

pub(in crate::streams) struct Shared {
    pub(super) registry: Arc<Registry>,
    pub(in crate::streams) stream: StreamId,
    pub(super) items: Items,
    /// What the ticket of a producer needs.
    produce: Needed,
    /// What producers must declare, too.
    pub(super) label: Option<Label>,
    pub(super) subscribe_if: Option<Predicate>,
    /// How long a producer may be silent before it is late.
    deadline: watch::Sender<Option<Duration>>,
    /// The same for a look at it that costs nothing.
    has_deadline: AtomicBool,
    /// The first and the longest delay between attempts to subscribe, if they are said.
    pub(super) backoff: Option<(Duration, Duration)>,
    /// Whether what producers keep for late joiners is wanted.
    pub(super) replay: bool,
    /// What an earlier life of this consumer had received, of one producer.
    pub(super) begin: Option<(PeerId, Resume)>,
    /// Which items are asked for, if not all.
    pub(super) filter: Option<filter::Asked>,
    /// What is had of the one sequence that all producers publish, if they do.
    pub(super) replicated: Option<Replicated>,
    /// It takes items whether a group owns the stream or not.
    pub(super) any_owner: bool,
    began: Instant,
    /// Tells this consumer apart from others of this node.
    pub(super) id: u64,
    pub(super) merge: Merge,
    pub(super) events: EventSender,
    /// Ends the worker and all subscriptions.
    pub(super) cancel: CancellationToken,
    topology: watch::Sender<Topology>,
    channels: Mutex<Channels>,
    rng: Mutex<SmallRng>,
}

/// What this end says of the items.
pub(super) struct Items {
    pub(super) fingerprint: Option<Fingerprint>,
    /// How they are written, if that is said.
    pub(super) format: Option<Format>,
    pub(super) schema: &'static Schema,
    /// The shape that both ends compare.
    pub(super) compared: &'static Schema,
    /// What can be read, of a type that may grow.
    pub(super) readable: Option<Readable>,
    pub(super) ahead: Ahead,
}

/// What a consumer is configured with.
pub(super) struct Options {
    pub(super) produce: Needed,
    pub(super) label: Option<Label>,
    pub(super) subscribe_if: Option<Predicate>,
    pub(super) deadline: Option<Duration>,
    pub(super) backoff: Option<(Duration, Duration)>,
    pub(super) replay: bool,
    pub(super) begin: Option<(PeerId, Resume)>,
    pub(super) filter: Option<filter::Asked>,
    pub(super) replicated: bool,
    /// Whether a group owns the stream; `None`: it takes items either way.
    pub(super) owned: Option<bool>,
}

/// One sequence of several producers.
#[derive(Debug)]
pub(super) struct Replicated {
    union: Mutex<Union>,
    /// Of each that stands by: how far the items trail its heads.
    trails: Mutex<BTreeMap<PeerId, Trail>>,
    /// Whose numbers these are, if a group owns the stream. Locked after the union, and only with that.
    lineage: Option<Mutex<Lineage>>,
}

impl Replicated {
    fn new(owned: bool) -> Self {
        let switch = Switch::of_this_thread();
        let lineage = owned.then(|| Mutex::new(Lineage::with(switch)));
        Self { union: Mutex::new(Union::with(switch)), trails: Mutex::default(), lineage }
    }

    pub(super) fn union(&self) -> MutexGuard<'_, Union> {
        self.union.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trails(&self) -> MutexGuard<'_, BTreeMap<PeerId, Trail>> {
        self.trails.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of an owned stream.
    pub(super) fn lineage(&self) -> Option<MutexGuard<'_, Lineage>> {
        Some(self.lineage.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Default)]
struct Channels {
    by_peer: BTreeMap<PeerId, Arc<Channel>>,
    /// Counts of those that were forgotten.
    forgotten: Stats,
}

impl Shared {
    /// The shape of the items.
    pub(in crate::streams) const fn schema(&self) -> &'static Schema {
        self.items.schema
    }

    pub(super) fn new(registry: Arc<Registry>, stream: StreamId, items: Items, options: Options) -> Self {
        let Options { produce, label, subscribe_if, deadline, backoff, replay, begin, filter, replicated, owned } =
            options;
        let (owned, any_owner) = (owned == Some(true), owned.is_none());
        let mut rng = SmallRng::from_seed(registry.node.transport().random_seed());
        Self {
            id: rng.random(),
            cancel: registry.cancel.child_token(),
            registry,
            stream,
            items,
            produce,
            label,
            subscribe_if,
            backoff,
            has_deadline: AtomicBool::new(deadline.is_some()),
            deadline: watch::Sender::new(deadline),
            replay,
            begin,
            filter,
            any_owner,
            replicated: (replicated || owned).then(|| Replicated::new(owned)),
            began: Instant::now(),
            merge: Merge::default(),
            events: EventSender::new(),
            topology: watch::Sender::new(Topology::default()),
            channels: Mutex::default(),
            rng: Mutex::new(rng),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Channels> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn topology(&self) -> watch::Receiver<Topology> {
        self.topology.subscribe()
    }

    /// Whether something is asked of producers that can change by itself.
    pub(super) fn asks(&self) -> bool {
        self.subscribe_if.is_some() || self.produce.asks(self.registry.node.trust())
    }

    /// What the ticket of a producer lets it do.
    pub(super) fn held(&self, producer: &PeerEntry) -> Held {
        self.produce.held(self.registry.node.trust(), producer.id(), producer.ticket())
    }

    /// Tells that a ticket lacks a grant, that of the producer or of this node.
    pub(super) fn not_granted(&self, producer: PeerId, by: RefusedBy, missing: MissingGrant) {
        let node = &self.registry.node;
        node.trust().note_missing(producer, by, missing.clone(), node.transport().wall_clock());
        self.events.send(Event::NotGranted { producer, by, missing });
    }

    /// Uniform in 0..1.
    pub(super) fn random(&self) -> f64 {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner).random()
    }

    pub(super) fn add(&self, channel: Arc<Channel>) {
        self.lock().by_peer.insert(channel.peer, channel);
    }

    /// Forgets a producer but not its counts.
    pub(super) fn forget(&self, channel: &Arc<Channel>) {
        let mut channels = self.lock();
        if channels.by_peer.get(&channel.peer).is_some_and(|known| Arc::ptr_eq(known, channel)) {
            channels.by_peer.remove(&channel.peer);
            let stats = channel.stats(None);
            add(&mut channels.forgotten, &stats);
        }
    }

    /// Counts a gap and tells of it.
    #[cold]
    pub(super) fn missed(&self, channel: &Channel, missed: Missed) {
        let Missed { from, to, reason } = missed;
        let (producer, stream) = (channel.peer, self.stream);
        tracing::debug!(peer = ?producer, ?stream, from, to, ?reason, "gap");
        channel.missed(to - from);
        self.events.send(Event::Gap { producer, from, to, reason });
    }

    pub(super) fn has_deadline(&self) -> bool {
        self.has_deadline.load(Relaxed)
    }

    pub(super) fn deadline(&self) -> watch::Receiver<Option<Duration>> {
        self.deadline.subscribe()
    }

    pub(super) fn set_deadline(&self, deadline: Duration) {
        self.has_deadline.store(true, Relaxed);
        self.deadline.send_replace(Some(deadline));
    }

    /// Tells of producers that have become late; when to look again.
    pub(super) fn check_deadline(&self, deadline: Duration) -> Instant {
        let channels = self.lock();
        let mut next = Instant::now() + deadline;
        for channel in channels.by_peer.values() {
            match channel.lateness(deadline) {
                Lateness::Due(at) => next = next.min(at),
                Lateness::New(silent) => {
                    tracing::debug!(peer = ?channel.peer, stream = ?self.stream, ?silent, "late");
                    // Of one that stands by nothing is expected; it is passed over.
                    if !channel.stands_by() {
                        self.events.send(Event::Late { producer: channel.peer, silent });
                    }
                }
                Lateness::Known => {}
            }
        }
        next
    }

    /// Publishes who is connected, after that has changed.
    pub(super) fn refresh(&self) {
        // Under the lock, so that the last to publish has seen the latest.
        let channels = self.lock();
        let peers: Vec<_> = channels.by_peer.values().filter_map(|channel| channel.connected()).collect();
        let online = Conditions::default().met(&peers);
        self.topology.send_replace(Topology { online, peers });
    }

    /// Whether a group owns the stream.
    pub(super) fn is_owned(&self) -> bool {
        self.replicated.as_ref().is_some_and(|replicated| replicated.lineage.is_some())
    }

    /// Whether some producer serves this consumer now.
    pub(super) fn is_served(&self) -> bool {
        !self.topology.borrow().peers.is_empty()
    }

    /// A producer that stands by says what comes next there.
    pub(super) fn head(&self, producer: PeerId, next: u64) {
        let Some(replicated) = &self.replicated else { return };
        let had = replicated.union().next();
        replicated.trails().entry(producer).or_default().head(next, had, self.began.elapsed());
    }

    /// A producer stands by no longer.
    pub(super) fn forget_trail(&self, producer: PeerId) {
        if let Some(replicated) = &self.replicated {
            replicated.trails().remove(&producer);
        }
    }

    /// For how long items may trail the heads of one that stands by, if that is told.
    fn trail_limit(&self) -> Option<Duration> {
        let limit = || self.deadline.borrow().map_or(BEHIND, |deadline| deadline.min(BEHIND));
        self.replicated.as_ref().map(|_| limit())
    }

    /// How often to look at trails, while there are some.
    pub(super) fn trail_look(&self) -> Option<Duration> {
        let stands_by = self.replicated.as_ref().is_some_and(|replicated| !replicated.trails().is_empty());
        self.trail_limit().filter(|_| stands_by).map(|limit| limit / 4)
    }

    /// Whether one that stands by has had for too long what did not come from who is taken.
    pub(super) fn trails(&self) -> bool {
        let (Some(replicated), Some(limit)) = (&self.replicated, self.trail_limit()) else { return false };
        let (had, now) = (replicated.union().next(), self.began.elapsed());
        let mut trails = replicated.trails();
        trails.values_mut().any(|trail| trail.look(had, now).is_some_and(|since| now >= since + limit))
    }

    /// How each producer is that was taken before.
    pub(super) fn states(&self) -> BTreeMap<PeerId, Standing> {
        self.lock().by_peer.iter().map(|(peer, channel)| (*peer, channel.stands())).collect()
    }

    /// Says why each is taken or not.
    pub(super) fn set_choices(&self, choices: impl IntoIterator<Item = (PeerId, String)>) {
        let channels = self.lock();
        for (peer, why) in choices {
            if let Some(channel) = channels.by_peer.get(&peer) {
                channel.set_choice(why);
            }
        }
    }

    /// Whether another producer is preferred to this one.
    pub(super) fn set_spare(&self, peer: PeerId, spare: bool) {
        if let Some(channel) = self.lock().by_peer.get(&peer) {
            channel.set_spare(spare);
        }
    }

    pub(super) fn close(&self) {
        self.cancel.cancel();
    }

    pub(in crate::streams) fn is_closed(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Everything about this consumer. Asks its predicate about every producer.
    pub(in crate::streams) fn inspect(&self, catalog: &Catalog) -> ConsumerView {
        let channels: Vec<_> = self.lock().by_peer.values().cloned().collect();
        let candidate = |channel: &Arc<Channel>| {
            let (last_end, ends) = channel.endings();
            let (info, choice) = (channel.info(self.registry.node.rtt(channel.peer)), channel.choice());
            CandidateView { info, last_end, ends, choice }
        };
        let producers = catalog.peers().filter(|entry| entry.produces().contains(self.stream));
        let trust = self.registry.node.trust();
        let verdict = |entry: &PeerEntry| match self.produce.lacks(trust, entry.id(), entry.ticket()) {
            None => Verdict::of(self.subscribe_if.as_ref(), entry),
            Some(missing) => Verdict::Lacks(missing),
        };
        let verdicts = producers.map(|entry| (entry.id(), verdict(entry)));
        let refused: Vec<_> = verdicts.filter(|(_, verdict)| *verdict != Verdict::Admits).collect();
        let is_refused = |peer: PeerId| refused.iter().any(|(refused, _)| *refused == peer);
        ConsumerView {
            stream: self.stream,
            fingerprint: self.items.fingerprint,
            stats: self.stats(),
            candidates: channels.iter().filter(|channel| !is_refused(channel.peer)).map(candidate).collect(),
            refused,
        }
    }

    pub(super) fn channels(&self) -> Vec<ChannelInfo> {
        let rtt = |peer| self.registry.node.rtt(peer);
        self.lock().by_peer.values().map(|channel| channel.info(rtt(channel.peer))).collect()
    }

    /// Adds the counts of this consumer to those of others of the stream.
    pub(in crate::streams) fn count(&self, counts: &mut Counts) {
        let stats = self.stats();
        add(&mut counts.stats, &stats);
        counts.stats.queue.items += stats.queue.items;
        counts.stats.queue.bytes += stats.queue.bytes;
        let channels = self.channels();
        counts.channels += channels.iter().filter(|channel| channel.is_connected()).count();
        counts.late += channels.iter().filter(|channel| channel.is_late()).count();
    }

    pub(super) fn stats(&self) -> Stats {
        let channels = self.lock();
        let mut total = channels.forgotten;
        for channel in channels.by_peer.values() {
            let stats = channel.stats(None);
            add(&mut total, &stats);
            total.uptime = total.uptime.max(stats.uptime);
            total.queue.items += stats.queue.items;
            total.queue.bytes += stats.queue.bytes;
        }
        total
    }
}

fn add(total: &mut Stats, stats: &Stats) {
    total.datums += stats.datums;
    total.bytes += stats.bytes;
    total.gaps += stats.gaps;
    total.drops += stats.drops;
    total.high_water = total.high_water.max(stats.high_water);
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("stream", &self.stream).finish_non_exhaustive()
    }
}
