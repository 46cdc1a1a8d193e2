//! Reads the counts of a node once a second and publishes them.

use std::{collections::BTreeMap, time::Duration};

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use tokio::time::{MissedTickBehavior, interval};

use super::{Kind, METRICS};
use crate::{
    discovery::Discovery,
    groups::{Groups, Role},
    network::{Lane, Node},
    primitives::{StoreId, figures as of},
    stores::{ReplicaState, Stores},
    streams::{Streams, inspect::Counts},
};

/// How often counts are read.
const EVERY: Duration = Duration::from_secs(1);

/// What is published of one node.
pub(crate) struct Sampler {
    pub(crate) node: Node,
    pub(crate) discovery: Discovery,
    pub(crate) streams: Streams,
    pub(crate) groups: Groups,
    pub(crate) stores: Stores,
}

/// What is known of one store on this node.
#[derive(Default)]
struct Store {
    primaries: u64,
    replicas: u64,
    synced: u64,
    position: Option<u64>,
    served: u64,
    folded: u64,
    taken: u64,
    resumed: u64,
}

fn describe() {
    for metric in METRICS {
        match metric.kind {
            Kind::Counter => describe_counter!(metric.name, metric.help),
            Kind::Gauge => describe_gauge!(metric.name, metric.help),
            Kind::Histogram => describe_histogram!(metric.name, Unit::Seconds, metric.help),
        }
    }
}

impl Sampler {
    /// Publishes until the node ends.
    pub(crate) async fn run(self) {
        describe();
        let me = format!("{:?}", self.node.id());
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let cancel = self.node.cancel().clone();
        while cancel.run_until_cancelled(ticks.tick()).await.is_some() {
            self.peers(&me);
            self.streams(&me);
            self.groups(&me);
            self.stores(&me);
        }
    }

    fn peers(&self, me: &str) {
        let set = |metric, value: usize| gauge!(metric, "node" => me.to_owned()).set(value as f64);
        let lives = self.discovery.lives();
        set(of::PEERS, self.discovery.catalog().len() - 1);
        set(of::SUSPECTS, lives.iter().filter(|life| life.suspect).count());
        let connections: Vec<_> = lives.iter().flat_map(|life| self.node.connections(life.peer)).collect();
        set(of::CONNECTIONS, connections.len());
        let on = |lane| connections.iter().filter(move |it| it.lane == lane && it.family.has_lane()).count();
        for lane in [Lane::Quic, Lane::Local, Lane::Memory] {
            gauge!(of::LANES, "node" => me.to_owned(), "lane" => lane.name()).set(on(lane) as f64);
        }
        for (reason, times) in self.node.trust().refused() {
            counter!(of::REFUSED, "node" => me.to_owned(), "reason" => reason).absolute(times);
        }
    }

    fn streams(&self, me: &str) {
        let (producers, consumers) = self.streams.counts();
        for (stream, Counts { stats, channels, online, waiting, .. }) in producers {
            let labels = labels(me, "stream", of::label(stream.as_bytes(), stream));
            counter!(of::SENT_ITEMS, &labels).absolute(stats.datums());
            counter!(of::SENT_BYTES, &labels).absolute(stats.bytes());
            counter!(of::UNDELIVERED, &labels).absolute(stats.drops());
            gauge!(of::ONLINE, &labels).set(f64::from(u8::from(online)));
            gauge!(of::SUBSCRIBERS, &labels).set(channels as f64);
            gauge!(of::QUEUED, &labels).set(stats.queue().0 as f64);
            gauge!(of::WAITING, &labels).set(waiting as f64);
            counter!(of::WAITS, &labels).absolute(stats.waits());
            counter!(of::TOO_SLOW, &labels).absolute(stats.too_slow());
        }
        for (stream, Counts { stats, channels, late, .. }) in consumers {
            let labels = labels(me, "stream", of::label(stream.as_bytes(), stream));
            counter!(of::RECEIVED_ITEMS, &labels).absolute(stats.datums());
            counter!(of::RECEIVED_BYTES, &labels).absolute(stats.bytes());
            counter!(of::GAPS, &labels).absolute(stats.gaps());
            counter!(of::MISSED, &labels).absolute(stats.drops());
            gauge!(of::PRODUCERS, &labels).set(channels as f64);
            gauge!(of::LATE, &labels).set(late as f64);
            gauge!(of::UNREAD, &labels).set(stats.queue().0 as f64);
        }
    }

    fn groups(&self, me: &str) {
        for view in self.groups.inspect() {
            let (labels, status) = (labels(me, "group", view.name.to_owned()), &view.status);
            let set = |metric: &'static str, value: f64| gauge!(metric, &labels).set(value);
            set(of::GROUP_ONLINE, f64::from(u8::from(status.is_online())));
            set(of::GROUP_QUORUM, f64::from(u8::from(status.has_quorum())));
            set(of::GROUP_LEADER, f64::from(u8::from(status.role() == Role::Leader)));
            set(of::GROUP_TERM, status.term() as f64);
            set(of::GROUP_COMMITTED, status.committed() as f64);
            set(of::GROUP_LOG, status.log_position() as f64);
            set(of::GROUP_MEMBERS, status.members().len() as f64);
            set(of::GROUP_BONDS, status.bonds() as f64);
            set(of::GROUP_STORAGE_SILENCE, status.storage_silence().map_or(0.0, |it| it.as_secs_f64()));
            set(of::GROUP_UNWRITTEN, status.unwritten_bytes() as f64);
            set(of::GROUP_FULL, f64::from(u8::from(status.is_full())));
            set(of::GROUP_COPIED, f64::from(u8::from(status.is_copied())));
            counter!(of::GROUP_DROPPED, &labels).absolute(status.dropped_messages());
            let machine = status.machine();
            counter!(of::GROUP_NO_SNAPSHOT, &labels).absolute(machine.snapshot_failures());
            counter!(of::GROUP_PANICS, &labels).absolute(machine.panics());
            let running = machine.long_command().filter(|long| long.is_running());
            set(of::GROUP_LONG, running.map_or(0.0, |long| long.took().as_secs_f64()));
        }
    }

    fn stores(&self, me: &str) {
        let (primaries, replicas) = self.stores.inspect();
        let mut stores: BTreeMap<StoreId, Store> = BTreeMap::new();
        for view in primaries {
            let store = stores.entry(view.store.store).or_default();
            (store.primaries, store.served) = (1, view.snapshots);
            store.position = Some(view.store.position.seq);
        }
        for view in replicas {
            let store = stores.entry(view.store.store).or_default();
            let behind = store.position.map_or(view.store.position.seq, |other| other.min(view.store.position.seq));
            store.position = Some(behind);
            store.replicas += 1;
            store.synced += u64::from(matches!(view.state, ReplicaState::Synced { .. }));
            store.folded += view.stats.deltas;
            store.taken += view.stats.snapshots;
            store.resumed += view.stats.resumed;
        }
        for (id, store) in stores {
            let labels = labels(me, "store", of::label(id.as_bytes(), id));
            gauge!(of::STORE_PRIMARIES, &labels).set(store.primaries as f64);
            gauge!(of::STORE_POSITION, &labels).set(store.position.unwrap_or_default() as f64);
            counter!(of::STORE_SERVED, &labels).absolute(store.served);
            gauge!(of::STORE_SYNCED, &labels).set(store.synced as f64);
            gauge!(of::STORE_REPLICAS, &labels).set(store.replicas as f64);
            counter!(of::STORE_FOLDED, &labels).absolute(store.folded);
            counter!(of::STORE_TAKEN, &labels).absolute(store.taken);
            counter!(of::STORE_RESUMED, &labels).absolute(store.resumed);
        }
    }
}

fn labels(node: &str, what: &'static str, name: String) -> [(&'static str, String); 2] {
    [("node", node.to_owned()), (what, name)]
}
