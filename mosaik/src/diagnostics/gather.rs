//! Makes reports of what the subsystems let be seen.

use std::{collections::BTreeSet, fmt, time::Duration};

use iroh::{EndpointAddr, TransportAddr};
use tokio::time::Instant;

use super::report::{
    AdmissionReport, BondReport, CandidateReport, ConnectionReport, ConsumerReport, EndingReport, GroupReport,
    LinkState, MemberReport, Named, NodeReport, OwnerReport, PeerReport, PrimaryReport, ProducerReport, RefusalKind,
    RefusalReport, RefusedProducer, ReplicaReport, StoreReport, StreamReport, SubscriberReport, SyncState, Trouble,
};
use crate::{
    discovery::{Discovery, Life, PeerEntry},
    groups::{GroupStatus, Groups, LeaderPreference, Refusal, StopReason, WhyOffline, inspect::GroupView},
    network::{ConnectionInfo, Node},
    primitives::{NetworkId, PeerId, Schema, StoreId, StreamId, Tag, Tags, names},
    stores::{
        ReplicaState, Stores,
        inspect::{PrimaryView, ReplicaView},
    },
    streams::{
        ChannelState, Streams, WaitReason,
        inspect::{CandidateView, ConsumerView, Ending, Owned, ProducerView, SubscriberView, Verdict},
    },
    trust,
};

/// Subscribers or producers in one report; more are counted.
const MAX_LISTED: usize = 128;
/// Members and bonds in one report.
const MAX_MEMBERS: usize = 256;
/// A disk that has not answered for so long is worth a warning.
const SILENCE: Duration = Duration::from_secs(1);
/// The longest text that is taken from a program, in bytes.
const MAX_TEXT: usize = 256;

/// Where reports come from.
pub(super) struct Sources {
    node: Node,
    discovery: Discovery,
    streams: Streams,
    groups: Groups,
    stores: Stores,
    started: Instant,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").field("node", &self.node.id()).finish_non_exhaustive()
    }
}

impl Sources {
    pub(super) fn new(node: Node, discovery: Discovery, streams: Streams, groups: Groups, stores: Stores) -> Self {
        Self { node, discovery, streams, groups, stores, started: Instant::now() }
    }

    pub(super) const fn node_handle(&self) -> &Node {
        &self.node
    }

    pub(super) fn node(&self) -> NodeReport {
        let catalog = self.discovery.catalog();
        let me = catalog.local();
        let (primaries, replicas) = self.stores.inspect();
        NodeReport {
            id: me.id(),
            network: named(self.node.network_id(), NetworkId::as_bytes),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: millis(self.started.elapsed()),
            addresses: addresses(me.addr()),
            tags: tags(me.tags()),
            protocols: me.protocols().iter().cloned().collect(),
            peers: catalog.len() as u64 - 1,
            produces: me.produces().len() as u64,
            consumes: me.consumes().len() as u64,
            groups: me.groups().len() as u64,
            primaries: primaries.len() as u64,
            replicas: replicas.len() as u64,
            kind: self.node.trust().kind().to_string(),
            refusals: self.refusals(),
        }
    }

    fn refusals(&self) -> Vec<AdmissionReport> {
        let now = self.node.transport().wall_clock();
        let report = |refusal: trust::Refusal| AdmissionReport {
            peer: refusal.peer,
            by_peer: refusal.by == trust::RefusedBy::Them,
            reason: refusal.reason.name().to_owned(),
            text: refusal.to_string(),
            age_ms: now.saturating_sub(refusal.at) / 1_000,
            times: refusal.times,
        };
        self.node.trust().refusals().into_iter().map(report).collect()
    }

    /// The peers behind one, in the order of their ids.
    pub(super) fn peers(&self, after: Option<PeerId>) -> impl Iterator<Item = PeerReport> + use<'_> {
        let mut lives = self.discovery.lives();
        lives.sort_by_key(|life| life.peer);
        let catalog = self.discovery.catalog();
        let lives = lives.into_iter().filter(move |life| after.is_none_or(|after| life.peer > after));
        lives.filter_map(move |life| Some(peer(catalog.get(life.peer)?, &life, &self.node.connections(life.peer))))
    }

    /// All but those that carry the deltas of stores.
    pub(super) fn schema(&self, stream: StreamId) -> Option<Schema> {
        self.streams.schema(stream)
    }

    pub(super) fn streams(&self) -> Vec<StreamReport> {
        let (primaries, replicas) = self.stores.inspect();
        let of_stores = primaries.iter().map(|it| it.store.deltas).chain(replicas.iter().map(|it| it.store.deltas));
        let of_stores: BTreeSet<StreamId> = of_stores.collect();
        let (mut producers, mut consumers) = self.streams.inspect();
        producers.retain(|view| !of_stores.contains(&view.stream));
        consumers.retain(|view| !of_stores.contains(&view.stream));
        let producers = producers.into_iter().map(|view| StreamReport::Producer(producer(&view)));
        producers.chain(consumers.into_iter().map(|view| StreamReport::Consumer(consumer(view)))).collect()
    }

    pub(super) fn groups(&self) -> Vec<GroupReport> {
        self.groups.inspect().into_iter().map(|view| group(&view)).collect()
    }

    pub(super) fn stores(&self) -> Vec<StoreReport> {
        let (primaries, replicas) = self.stores.inspect();
        let (producers, mut consumers) = self.streams.inspect();
        let primaries = primaries.iter().map(|view| {
            let deltas = producers.iter().find(|producer| producer.stream == view.store.deltas);
            StoreReport::Primary(primary(view, deltas))
        });
        let replicas = replicas.into_iter().map(|view| {
            // Replicas and the consumers of one stream are in the same order.
            let deltas = consumers.iter().position(|consumer| consumer.stream == view.store.deltas);
            StoreReport::Replica(replica(view, deltas.map(|at| consumers.remove(at))))
        });
        primaries.chain(replicas).collect()
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn named<I>(id: I, bytes: impl Fn(&I) -> &[u8; 32]) -> Named<I> {
    let name = names::of(bytes(&id));
    Named { id, name }
}

fn tag(tag: Tag) -> Named<Tag> {
    named(tag, Tag::as_bytes)
}

fn tags(tags: &Tags) -> Vec<Named<Tag>> {
    tags.iter().copied().map(tag).collect()
}

fn stream(stream: StreamId) -> Named<StreamId> {
    named(stream, StreamId::as_bytes)
}

fn store(store: StoreId) -> Named<StoreId> {
    named(store, StoreId::as_bytes)
}

fn text(text: impl fmt::Display) -> String {
    let mut text = text.to_string();
    if text.len() > MAX_TEXT {
        let end = (0..=MAX_TEXT).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

fn schema(fingerprint: Option<[u8; 32]>) -> Option<String> {
    fingerprint.map(|bytes| StreamId::from_bytes(bytes).to_string()[..16].to_owned())
}

fn addresses(addr: &EndpointAddr) -> Vec<String> {
    let show = |addr: &TransportAddr| match addr {
        TransportAddr::Ip(socket) => Some(socket.to_string()),
        TransportAddr::Relay(url) => Some(text(url)),
        _ => None,
    };
    addr.addrs.iter().filter_map(show).collect()
}

fn peer(entry: &PeerEntry, life: &Life, connections: &[ConnectionInfo]) -> PeerReport {
    let connection = |info: &ConnectionInfo| ConnectionReport {
        family: info.family.alpn().to_owned(),
        outgoing: info.outgoing,
        relayed: info.relayed,
        rtt_us: info.rtt.map(micros),
        lane: info.lane.name().to_owned(),
        age_ms: millis(info.age),
    };
    PeerReport {
        id: entry.id(),
        addresses: addresses(entry.addr()),
        tags: tags(entry.tags()),
        grants: entry.grants().iter().take(MAX_LISTED).map(str::to_owned).collect(),
        produces: entry.produces().iter().map(|(id, _)| stream(id)).collect(),
        consumes: entry.consumes().iter().map(|(id, _)| stream(id)).collect(),
        groups: entry.groups().iter().copied().collect(),
        stores: entry.stores().iter().copied().map(store).collect(),
        run_id: entry.version().run_id,
        seq: entry.version().seq,
        heard_ms: millis(life.heard),
        lease_ms: millis(life.lease),
        suspect: life.suspect,
        connections: connections.iter().map(connection).collect(),
    }
}

const fn waiting(reason: WaitReason) -> LinkState {
    match reason {
        WaitReason::NotAllowed => LinkState::NotAllowed,
        WaitReason::NoCapacity => LinkState::NoCapacity,
        WaitReason::NotGranted => LinkState::NotGranted,
    }
}

fn producer(view: &ProducerView) -> ProducerReport {
    let subscriber = |view: &SubscriberView| SubscriberReport {
        peer: view.peer.id(),
        state: match view.waits {
            Some(reason) => waiting(reason),
            None if view.standby => LinkState::Standby,
            None => LinkState::Connected,
        },
        missing_tags: view.missing_tags.iter().take(8).copied().map(tag).collect(),
        missing_grant: view.missing_grant.as_ref().map(text),
        since_ms: view.stats.uptime().map_or(0, millis),
        items: view.stats.datums(),
        bytes: view.stats.bytes(),
        queue_items: view.stats.queue().0,
        queue_bytes: view.stats.queue().1,
        high_items: view.stats.high_water().0,
        rtt_us: view.stats.rtt().map(micros),
    };
    let ending = |ending: &Ending| EndingReport {
        peer: ending.peer,
        reason: ending.code.to_string(),
        code: Some(ending.code.code()),
        ago_ms: millis(ending.at.elapsed()),
        count: ending.count,
    };
    ProducerReport {
        stream: stream(view.stream),
        datum: text(view.datum),
        schema: schema(view.fingerprint),
        epoch: view.epoch,
        online: view.online,
        max_consumers: (view.max_consumers != usize::MAX).then_some(view.max_consumers as u64),
        sent: view.stats.datums(),
        bytes: view.stats.bytes(),
        undelivered: view.stats.drops(),
        waiting: view.waiting.map_or(0, |waiting| waiting.senders as u64),
        waiting_ms: view.waiting.map_or(0, |waiting| millis(waiting.time)),
        waiting_in: view.waiting.and_then(|waiting| waiting.caller).map(text),
        missing_grant: view.missing_grant.as_ref().map(text),
        owner: view.owner.map(|Owned { group, leads, serves }| OwnerReport { group, leads, serves }),
        subscribers: view.subscribers.iter().take(MAX_LISTED).map(subscriber).collect(),
        omitted: view.subscribers.len().saturating_sub(MAX_LISTED) as u64,
        endings: view.endings.iter().map(ending).collect(),
    }
}

fn consumer(view: ConsumerView) -> ConsumerReport {
    let refused = |(peer, verdict): &(PeerId, Verdict)| RefusedProducer {
        peer: *peer,
        missing_tags: match verdict {
            Verdict::Misses(missing) => missing.iter().take(8).copied().map(tag).collect(),
            _ => Vec::new(),
        },
        missing_grant: match verdict {
            Verdict::Lacks(missing) => Some(text(missing)),
            _ => None,
        },
    };
    let omitted = [view.candidates.len(), view.refused.len()].map(|len| len.saturating_sub(MAX_LISTED) as u64);
    ConsumerReport {
        stream: stream(view.stream),
        schema: schema(view.fingerprint),
        received: view.stats.datums(),
        bytes: view.stats.bytes(),
        gaps: view.stats.gaps(),
        missed: view.stats.drops(),
        producers: view.candidates.into_iter().take(MAX_LISTED).map(candidate).collect(),
        refused: view.refused.iter().take(MAX_LISTED).map(refused).collect(),
        omitted: omitted.iter().sum(),
    }
}

fn candidate(view: CandidateView) -> CandidateReport {
    let (info, peer) = (&view.info, view.info.peer().id());
    let stats = info.stats();
    let state = match info.state() {
        ChannelState::Connected => LinkState::Connected,
        ChannelState::Connecting => LinkState::Connecting,
        ChannelState::Spare => LinkState::Spare,
        ChannelState::Standby => LinkState::Standby,
        ChannelState::Waiting(reason) => waiting(reason),
    };
    let last_end = view.last_end.map(|(reason, code, ago)| EndingReport {
        peer,
        reason: text(reason),
        code: code.map(|code| code.code()),
        ago_ms: millis(ago),
        count: view.ends,
    });
    CandidateReport {
        peer,
        state,
        since_ms: stats.uptime().map(millis),
        items: stats.datums(),
        gaps: stats.gaps(),
        missed: stats.drops(),
        queue_items: stats.queue().0,
        queue_bytes: stats.queue().1,
        rtt_us: stats.rtt().map(micros),
        last_end,
        choice: view.choice.map(text),
    }
}

fn primary(view: &PrimaryView, deltas: Option<&ProducerView>) -> PrimaryReport {
    PrimaryReport {
        store: store(view.store.store),
        view: text(view.store.view),
        version: view.store.version,
        epoch: view.store.position.epoch,
        seq: view.store.position.seq,
        snapshots: view.snapshots,
        trouble: view.trouble.clone().map(text),
        deltas: deltas.map(producer),
    }
}

fn replica(view: ReplicaView, deltas: Option<ConsumerView>) -> ReplicaReport {
    let (state, primary) = match view.state {
        ReplicaState::Alone => (SyncState::Alone, None),
        ReplicaState::Catching { primary } => (SyncState::Catching, Some(primary)),
        ReplicaState::Synced { primary } => (SyncState::Synced, Some(primary)),
        ReplicaState::OtherHistory { primary } => (SyncState::OtherHistory, Some(primary)),
    };
    ReplicaReport {
        store: store(view.store.store),
        view: text(view.store.view),
        version: view.store.version,
        epoch: view.store.position.epoch,
        seq: view.store.position.seq,
        state,
        primary,
        failure: view.trouble.map(text),
        folded: view.stats.deltas,
        snapshots: view.stats.snapshots,
        resumed: view.stats.resumed,
        primaries: view.stats.primaries as u64,
        deltas: deltas.map(consumer),
    }
}

fn group(view: &GroupView) -> GroupReport {
    let status = &view.status;
    let members = status.members().iter().take(MAX_MEMBERS);
    let bonds = view.bonds.iter().take(MAX_MEMBERS);
    GroupReport {
        group: view.group,
        name: text(view.name),
        size: (view.size > 0).then_some(view.size),
        machine_version: view.version,
        role: status.role().to_string(),
        leader: status.leader(),
        term: status.term(),
        committed: status.committed(),
        log_position: status.log_position(),
        online: status.is_online(),
        trouble: status.why_offline().map(trouble),
        why: status.why_offline().map(text),
        has_quorum: status.has_quorum(),
        floor: status.floor() as u64,
        compacts: status.compacts(),
        notes: status.machine().notes().iter().map(text).chain(wishes(status)).collect(),
        dropped_messages: status.dropped_messages(),
        members: members
            .map(|it| MemberReport {
                id: it.id(),
                kind: it.kind().to_string(),
                lag: it.lag(),
                skew_ms: it.clock_skew(),
            })
            .collect(),
        bonds: bonds
            .map(|(peer, rtt, age)| BondReport { peer: *peer, rtt_us: rtt.map(micros), age_ms: millis(*age) })
            .collect(),
        refusals: view
            .refusals
            .iter()
            .map(|it| RefusalReport {
                peer: it.peer,
                kind: refusal(&it.reason),
                reason: text(&it.reason),
                by_peer: it.by_peer,
                ago_ms: millis(it.at.elapsed()),
                count: it.count,
            })
            .collect(),
        warnings: warnings(status),
    }
}

/// Whether it is to lead, if that is out of the ordinary.
fn wishes(status: &GroupStatus) -> Vec<String> {
    let preference = status.preference();
    let preferred = (preference != LeaderPreference::Normal).then(|| format!("as leader: {preference}"));
    let unready = (!status.is_ready()).then(|| "not ready to lead".to_owned());
    preferred.into_iter().chain(unready).collect()
}

fn warnings(status: &GroupStatus) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(silence) = status.storage_silence().filter(|it| *it >= SILENCE && status.is_online()) {
        warnings.push(format!("its disk has not answered for {:.1} s", silence.as_secs_f64()));
    }
    if status.is_full() {
        warnings.push(format!("the group is full: it has {} members", status.members().len()));
    }
    if status.is_copied() {
        warnings.push("another process runs on a copy of its storage and is refused".to_owned());
    }
    warnings.extend(status.contradictions().iter().map(|it| text(*it)));
    warnings
}

const fn trouble(why: &WhyOffline) -> Trouble {
    match why {
        WhyOffline::Looking | WhyOffline::NoMemberReached { .. } => Trouble::Looking,
        WhyOffline::WaitingForFounders { .. } => Trouble::WaitingForFounders,
        WhyOffline::Founding { .. } => Trouble::Founding,
        WhyOffline::WaitingToBeTakenIn => Trouble::WaitingToBeTakenIn,
        WhyOffline::CatchingUp { .. } => Trouble::CatchingUp,
        WhyOffline::NoQuorum { .. } => Trouble::NoQuorum,
        WhyOffline::VolatileMajorityLost { .. } => Trouble::VolatileMajorityLost,
        WhyOffline::NoLeader => Trouble::NoLeader,
        WhyOffline::Refused(_) => Trouble::Refused,
        WhyOffline::Stopped(StopReason::SplitGenesis(_)) => Trouble::SplitGenesis,
        WhyOffline::Stopped(_) => Trouble::Stopped,
        WhyOffline::StorageHangs { .. } => Trouble::StorageHangs,
        WhyOffline::Full { .. } => Trouble::Full,
    }
}

fn refusal(refusal: &Refusal) -> RefusalKind {
    match refusal {
        Refusal::NotMember => RefusalKind::NotMember,
        Refusal::WrongKey => RefusalKind::WrongKey,
        Refusal::Incompatible { what: "size", .. } => RefusalKind::Size,
        Refusal::Incompatible { what: "machine version", .. } => RefusalKind::MachineVersion,
        Refusal::Incompatible { .. } => RefusalKind::Settings,
        Refusal::OldIncarnation => RefusalKind::OldIncarnation,
        Refusal::OlderCopy => RefusalKind::OlderCopy,
        Refusal::SecondStart => RefusalKind::SecondStart,
        Refusal::NotGranted(_) => RefusalKind::NotGranted,
        Refusal::Unsupported | Refusal::Malformed => RefusalKind::Other,
    }
}
