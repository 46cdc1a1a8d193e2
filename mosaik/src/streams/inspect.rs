//! What diagnostics may see of the streams of a node: views of producers and consumers, what predicates say of the other side
//! and why subscriptions ended. Read-only, sampled, off the path of items.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    Registry, Streams,
    core::admission::WaitReason,
    producer::{Predicate, Waiting, ask},
    protocol::{Fingerprint, sendable},
    stats::{ChannelInfo, Stats},
};
use crate::{
    discovery::PeerEntry,
    network::CloseCode,
    primitives::{GroupId, PeerId, Schema, StreamId, Tag, names},
    trust::MissingGrant,
};

/// Endings that a producer remembers.
const MAX_ENDINGS: usize = 16;
/// How often a predicate is asked with one more tag, to find out which ones it misses.
const MAX_SUPPOSED: usize = 8;

/// The last subscriptions of a producer that ended, oldest first; the same peer and reason count as one.
#[derive(Debug, Default)]
pub(super) struct Endings(VecDeque<Ending>);

/// Why subscriptions of a peer ended or were refused.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ending {
    pub(crate) peer: PeerId,
    pub(crate) code: CloseCode,
    /// When it last happened.
    pub(crate) at: Instant,
    pub(crate) count: u64,
}

impl Endings {
    pub(super) fn note(&mut self, peer: PeerId, code: CloseCode) {
        let before = self.0.iter().position(|ending| ending.peer == peer && ending.code == code);
        let count = before.and_then(|at| self.0.remove(at)).map_or(0, |ending| ending.count);
        if self.0.len() == MAX_ENDINGS {
            self.0.pop_front();
        }
        self.0.push_back(Ending { peer, code, at: Instant::now(), count: count + 1 });
    }

    pub(super) fn list(&self) -> Vec<Ending> {
        self.0.iter().copied().collect()
    }
}

/// What a predicate says of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Admits,
    Refuses,
    /// It would admit a peer that had these tags, too.
    Misses(BTreeSet<Tag>),
    /// The peer's ticket lacks a grant; the predicate is not asked.
    Lacks(MissingGrant),
}

impl Verdict {
    /// Asks a predicate, and if it refuses, whether tags that it has looked for would change its mind. Runs user code.
    pub(super) fn of(predicate: Option<&Predicate>, entry: &PeerEntry) -> Self {
        let Some(predicate) = predicate else { return Self::Admits };
        let mut supposed = BTreeSet::new();
        for _ in 0..MAX_SUPPOSED {
            let (admits, missed) = names::missed_by(|| ask(predicate, &entry.supposing(supposed.iter().copied())));
            match admits {
                true if supposed.is_empty() => return Self::Admits,
                true => return Self::Misses(supposed),
                false if missed.is_empty() => return Self::Refuses,
                false => {}
            }
            let alone = |tag: &&Tag| ask(predicate, &entry.supposing(supposed.iter().copied().chain([**tag])));
            match missed.iter().find(alone) {
                Some(tag) => _ = supposed.insert(*tag),
                None => supposed.extend(missed),
            }
        }
        Self::Refuses
    }
}

/// A group that owns a stream, as its member here sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owned {
    /// Unless its key is not known.
    pub(crate) group: Option<GroupId>,
    /// Whether the member leads.
    pub(crate) leads: bool,
    /// Whether it serves consumers.
    pub(crate) serves: bool,
}

/// A producer of this node.
#[derive(Debug)]
pub(crate) struct ProducerView {
    pub(crate) stream: StreamId,
    pub(crate) fingerprint: Option<Fingerprint>,
    pub(crate) datum: &'static str,
    pub(crate) epoch: u64,
    pub(crate) online: bool,
    pub(crate) max_consumers: usize,
    pub(crate) stats: Stats,
    /// Senders that wait, if some do.
    pub(crate) waiting: Option<Waiting>,
    /// The grant that this node's own ticket lacks to produce it.
    pub(crate) missing_grant: Option<MissingGrant>,
    /// The group that owns the stream, if one does.
    pub(crate) owner: Option<Owned>,
    pub(crate) subscribers: Vec<SubscriberView>,
    pub(crate) endings: Vec<Ending>,
}

/// A subscription at its producer.
#[derive(Debug)]
pub(crate) struct SubscriberView {
    pub(crate) peer: PeerEntry,
    /// It gets heads, not items.
    pub(crate) standby: bool,
    pub(crate) waits: Option<WaitReason>,
    pub(crate) stats: Stats,
    /// What `accept_if` misses, if it refuses the peer.
    pub(crate) missing_tags: BTreeSet<Tag>,
    /// The grant that its ticket lacks.
    pub(crate) missing_grant: Option<MissingGrant>,
}

/// A consumer of this node.
#[derive(Debug)]
pub(crate) struct ConsumerView {
    pub(crate) stream: StreamId,
    pub(crate) fingerprint: Option<Fingerprint>,
    pub(crate) stats: Stats,
    /// The producers that are subscribed to or tried.
    pub(crate) candidates: Vec<CandidateView>,
    /// Producers that may not produce, or that `subscribe_if` does not admit.
    pub(crate) refused: Vec<(PeerId, Verdict)>,
}

/// A producer as a consumer sees it.
#[derive(Debug)]
pub(crate) struct CandidateView {
    pub(crate) info: ChannelInfo,
    /// How its last subscription ended, how long ago, and how many have ended.
    pub(crate) last_end: Option<(String, Option<CloseCode>, Duration)>,
    pub(crate) ends: u64,
    /// Why it is taken or not, of a consumer that chooses.
    pub(crate) choice: Option<String>,
}

impl Streams {
    /// The producers and consumers of this node, each in the order of their streams. Asks predicates: no lock is held then.
    /// The shape of a stream's items, if this node has an end of it.
    pub(crate) fn schema(&self, stream: StreamId) -> Option<Schema> {
        let registry: &Registry = &self.0;
        let produced = registry.find(stream).map(|shared| shared.schema());
        let mut consumers = registry.open_consumers().into_iter();
        let schema = produced.or_else(|| Some(consumers.find(|consumer| consumer.stream == stream)?.schema()))?;
        sendable(schema)
    }

    pub(crate) fn inspect(&self) -> (Vec<ProducerView>, Vec<ConsumerView>) {
        let registry: &Registry = &self.0;
        let producers: Vec<_> =
            registry.producers().values().map(|slot| (slot.shared.clone(), slot.datum_name)).collect();
        let producers = producers.iter().map(|(shared, datum)| shared.inspect(datum)).collect();
        let consumers = registry.open_consumers();
        let catalog = registry.discovery.catalog();
        let mut consumers: Vec<_> = consumers.iter().map(|shared| shared.inspect(&catalog)).collect();
        consumers.sort_by_key(|consumer| consumer.stream);
        (producers, consumers)
    }
}

/// What metrics say of all producers, or all consumers, of one stream.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) stats: Stats,
    /// Subscriptions that are live.
    pub(crate) channels: usize,
    pub(crate) online: bool,
    /// Senders that wait.
    pub(crate) waiting: usize,
    /// Producers that are late.
    pub(crate) late: usize,
}

impl Streams {
    /// Counts of the producers and of the consumers. Asks no predicates.
    pub(crate) fn counts(&self) -> (BTreeMap<StreamId, Counts>, BTreeMap<StreamId, Counts>) {
        let registry: &Registry = &self.0;
        let producers: Vec<_> = registry.producers().iter().map(|(id, slot)| (*id, slot.shared.clone())).collect();
        let producer = |(id, shared): (StreamId, Arc<super::producer::Shared>)| (id, shared.counts());
        let mut consumers: BTreeMap<StreamId, Counts> = BTreeMap::new();
        for shared in registry.open_consumers() {
            shared.count(consumers.entry(shared.stream).or_default());
        }
        (producers.into_iter().map(producer).collect(), consumers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_are_counted_by_peer_and_reason_and_bounded() {
        let peer = |seed: u8| PeerId::from(iroh::SecretKey::from_bytes(&[seed; 32]).public());
        let mut endings = Endings::default();
        endings.note(peer(1), CloseCode::TooSlow);
        endings.note(peer(2), CloseCode::TooSlow);
        endings.note(peer(1), CloseCode::TooSlow);
        endings.note(peer(1), CloseCode::NotAllowed);
        let seen: Vec<_> = endings.list().iter().map(|it| (it.peer, it.code, it.count)).collect();
        let (slow, out) = (CloseCode::TooSlow, CloseCode::NotAllowed);
        assert_eq!(seen, [(peer(2), slow, 1), (peer(1), slow, 2), (peer(1), out, 1)]);
        (0..100).for_each(|seed| endings.note(peer(seed), CloseCode::Normal));
        assert_eq!(endings.list().len(), MAX_ENDINGS);
    }
}
