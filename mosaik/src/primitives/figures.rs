//! The metrics that a node publishes: the table of all of them, and who measures times.
//!
//! Counts are kept by the subsystems anyway; `metrics` at the top reads them once a second and hands them to the recorder of
//! the crate `metrics`. Only times are recorded where they are measured, and only once somebody has asked for metrics.

use std::{
    fmt,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use metrics::{Histogram, Label, SharedString};
use tokio::time::Instant;

/// Whether some network of this process publishes metrics.
static WANTED: AtomicBool = AtomicBool::new(false);

/// What kind of metric it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the node runs.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Times in seconds, counted in buckets.
    Histogram,
}

/// A metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

macro_rules! table {
    ($($id:ident = $name:literal, $kind:ident, [$($label:literal),*], $help:literal;)*) => {
        $(pub(crate) const $id: &str = $name;)*

        /// All metrics, in the order of the book.
        pub const METRICS: &[Metric] = &[
            $(Metric { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help },)*
        ];
    };
}

table! {
    LOG_DROPPED = "mosaik_log_dropped_lines_total", Counter, [],
        "Lines that found no room on stderr, of all nodes of the process";
    PEERS = "mosaik_peers", Gauge, ["node"], "Peers in the catalog, this node not counted";
    SUSPECTS = "mosaik_suspect_peers", Gauge, ["node"], "Peers whose connection was lost and that are being looked for";
    CONNECTIONS = "mosaik_connections", Gauge, ["node"], "Live connections to peers";
    LANES = "mosaik_lane_connections", Gauge, ["node", "lane"],
        "Live connections for streams and bonds, by what carries their bytes";
    REFUSED = "mosaik_refused_total", Counter, ["node", "reason"],
        "Peers that were not admitted to the network, or did not admit this node";
    SENT_ITEMS = "mosaik_stream_sent_items_total", Counter, ["node", "stream"], "Items that were sent";
    SENT_BYTES = "mosaik_stream_sent_bytes_total", Counter, ["node", "stream"], "Their bytes, once for all subscribers";
    UNDELIVERED = "mosaik_stream_undelivered_items_total", Counter, ["node", "stream"], "Items that reached no one";
    ONLINE = "mosaik_stream_online", Gauge, ["node", "stream"], "Whether the producer's online condition holds";
    SUBSCRIBERS = "mosaik_stream_subscribers", Gauge, ["node", "stream"], "Consumers that the producer serves";
    QUEUED = "mosaik_stream_queued_items", Gauge, ["node", "stream"], "Items that wait for the subscriber furthest behind";
    WAITING = "mosaik_stream_waiting_senders", Gauge, ["node", "stream"],
        "Senders that wait for a subscriber or for room";
    WAITS = "mosaik_stream_waits_total", Counter, ["node", "stream"], "How often a sender has had to wait";
    TOO_SLOW = "mosaik_stream_too_slow_total", Counter, ["node", "stream"],
        "Subscribers closed because they could not keep up";
    RECEIVED_ITEMS = "mosaik_stream_received_items_total", Counter, ["node", "stream"], "Items handed to the program";
    RECEIVED_BYTES = "mosaik_stream_received_bytes_total", Counter, ["node", "stream"], "Their bytes";
    GAPS = "mosaik_stream_gaps_total", Counter, ["node", "stream"], "How often items were missed";
    MISSED = "mosaik_stream_missed_items_total", Counter, ["node", "stream"], "Items that were missed";
    PRODUCERS = "mosaik_stream_producers", Gauge, ["node", "stream"], "Producers that the consumers are subscribed to";
    LATE = "mosaik_stream_late_producers", Gauge, ["node", "stream"], "Producers silent for longer than the deadline";
    UNREAD = "mosaik_stream_unread_items", Gauge, ["node", "stream"], "Items that wait to be read by the program";
    GROUP_ONLINE = "mosaik_group_online", Gauge, ["node", "group"], "Whether the member serves calls";
    GROUP_QUORUM = "mosaik_group_has_quorum", Gauge, ["node", "group"], "Whether a majority of the voters is reachable";
    GROUP_LEADER = "mosaik_group_is_leader", Gauge, ["node", "group"], "Whether the member leads";
    GROUP_TERM = "mosaik_group_term", Gauge, ["node", "group"], "The member's term; each election begins one";
    GROUP_COMMITTED = "mosaik_group_committed", Gauge, ["node", "group"], "The last index committed and applied here";
    GROUP_LOG = "mosaik_group_log_position", Gauge, ["node", "group"], "The end of the member's log";
    GROUP_MEMBERS = "mosaik_group_members", Gauge, ["node", "group"], "Members by the group's configuration";
    GROUP_BONDS = "mosaik_group_bonds", Gauge, ["node", "group"], "Members that this one has a link to";
    GROUP_DROPPED = "mosaik_group_dropped_messages_total", Counter, ["node", "group"],
        "Messages dropped for want of a link or of room";
    GROUP_NO_SNAPSHOT = "mosaik_group_snapshot_failures_total", Counter, ["node", "group"],
        "Snapshots that could not be made or read back; the log is kept";
    GROUP_PANICS = "mosaik_group_command_panics_total", Counter, ["node", "group"],
        "Commands that panicked when they were applied";
    GROUP_LONG = "mosaik_group_long_command_seconds", Gauge, ["node", "group"],
        "For how long the command being applied has run so far, if that is over 50 ms";
    GROUP_STORAGE_SILENCE = "mosaik_group_storage_silence_seconds", Gauge, ["node", "group"],
        "For how long the member's storage has owed an answer and given none";
    GROUP_UNWRITTEN = "mosaik_group_unwritten_bytes", Gauge, ["node", "group"],
        "Bytes that the member's storage has not answered";
    GROUP_FULL = "mosaik_group_full", Gauge, ["node", "group"],
        "Whether the leader can take no further member in";
    GROUP_COPIED = "mosaik_group_copied", Gauge, ["node", "group"],
        "Whether another process runs on a copy of the member's storage";
    GROUP_EXECUTE = "mosaik_group_execute_seconds", Histogram, ["group"],
        "From the call of `execute` to its result, at the caller";
    GROUP_WRITE = "mosaik_group_write_seconds", Histogram, ["group"],
        "From handing a batch to storage until that and all before it are durable";
    STORE_PRIMARIES = "mosaik_store_primaries", Gauge, ["node", "store"], "Whether this node is the store's primary";
    STORE_POSITION = "mosaik_store_position", Gauge, ["node", "store"],
        "Deltas of the run that the primary, or the replica furthest behind, has";
    STORE_SERVED = "mosaik_store_served_snapshots_total", Counter, ["node", "store"], "Snapshots served to replicas";
    STORE_SYNCED = "mosaik_store_synced_replicas", Gauge, ["node", "store"], "Replicas that have everything";
    STORE_REPLICAS = "mosaik_store_replicas", Gauge, ["node", "store"], "Replicas on this node";
    STORE_FOLDED = "mosaik_store_folded_deltas_total", Counter, ["node", "store"], "Deltas folded by replicas";
    STORE_TAKEN = "mosaik_store_taken_snapshots_total", Counter, ["node", "store"], "Snapshots taken by replicas";
    STORE_RESUMED = "mosaik_store_resumed_total", Counter, ["node", "store"],
        "Connections made again after which a replica went on without a snapshot";
    STORE_SNAPSHOT = "mosaik_store_snapshot_seconds", Histogram, ["store"], "How long a replica took to get a snapshot";
    STORE_WRITE = "mosaik_store_write_seconds", Histogram, ["store"], "How long a durable primary took to write a batch";
    ROLE_HANDLER = "mosaik_role_handler_seconds", Histogram, ["role", "handler"], "How long handlers took";
    ROLE_ERRORS = "mosaik_role_handler_errors_total", Counter, ["role", "handler"], "Handlers that returned an error";
    ROLE_PANICS = "mosaik_role_handler_panics_total", Counter, ["role", "handler"], "Handlers that panicked";
}

/// From now on times are measured.
pub(crate) fn want() {
    WANTED.store(true, Ordering::Relaxed);
}

pub(crate) fn wanted() -> bool {
    WANTED.load(Ordering::Relaxed)
}

/// A histogram that was not used for so long is asked for again: its recorder may have let it go.
const ASK_AGAIN: Duration = Duration::from_mins(30);

/// Measures times, once somebody wants them.
#[derive(Clone)]
pub(crate) struct Watch(Arc<Times>);

struct Times {
    metric: &'static str,
    labels: Vec<Label>,
    made: Instant,
    /// When it was recorded last: seconds since `made`.
    used: AtomicU64,
    histogram: RwLock<Histogram>,
}

impl Watch {
    /// Of a metric with one label.
    pub(crate) fn new(metric: &'static str, label: &'static str, value: impl Into<SharedString>) -> Self {
        Self::of(metric, vec![Label::new(label, value)])
    }

    /// Of a metric with two labels.
    pub(crate) fn with(metric: &'static str, labels: [(&'static str, &'static str); 2]) -> Self {
        Self::of(metric, labels.map(|(name, value)| Label::from_static_parts(name, value)).into())
    }

    fn of(metric: &'static str, labels: Vec<Label>) -> Self {
        let histogram = RwLock::new(metrics::histogram!(metric, labels.iter()));
        Self(Arc::new(Times { metric, labels, made: Instant::now(), used: AtomicU64::new(0), histogram }))
    }

    /// Begins to measure.
    #[allow(clippy::unused_self, reason = "it is the watch that is started")]
    pub(crate) fn start(&self) -> Option<Instant> {
        wanted().then(Instant::now)
    }

    /// Records the time since.
    pub(crate) fn stop(&self, since: Option<Instant>) {
        let Some(since) = since else { return };
        let Times { metric, labels, made, used, histogram } = &*self.0;
        let now = Instant::now();
        let secs = now.saturating_duration_since(*made).as_secs();
        if secs.saturating_sub(used.swap(secs, Ordering::Relaxed)) >= ASK_AGAIN.as_secs() {
            *histogram.write().unwrap_or_else(PoisonError::into_inner) = metrics::histogram!(*metric, labels.iter());
        }
        let histogram = histogram.read().unwrap_or_else(PoisonError::into_inner);
        histogram.record(now.saturating_duration_since(since));
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

/// A name of a metric's label: what an id was made from, or its first digits.
pub(crate) fn label(id: &[u8; 32], short: impl fmt::Debug) -> String {
    super::names::of(id).unwrap_or_else(|| format!("{short:?}"))
}
