//! Reports: plain data, the same in this process, on the wire and as JSON. Times are in the unit that the field's name
//! ends with; lists are bounded, and say how many they leave out.

use std::net::SocketAddr;

use iroh::{EndpointAddr, RelayUrl, TransportAddr};
use serde::{Deserialize, Serialize};

use crate::primitives::{GroupId, NetworkId, PeerId, StoreId, StreamId, Tag};

/// Declares the report types: plain data that later versions may extend.
macro_rules! reports {
    ($($(#[$doc:meta])* struct $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
            #[non_exhaustive]
            pub struct $name {
                $($(#[$field_doc])* pub $field: $type,)*
            }
        )*
    };
}

/// An identifier, with its name where the node that reports knows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Named<I> {
    /// The identifier.
    pub id: I,
    /// What it was made from.
    pub name: Option<String>,
}

reports! {
    /// A node about itself.
    struct NodeReport {
        /// Its identity.
        id: PeerId,
        /// Its network.
        network: Named<NetworkId>,
        /// The version of mosaik that it runs.
        version: String,
        /// For how long it has run.
        uptime_ms: u64,
        /// Where it says that it can be dialled.
        addresses: Vec<String>,
        /// Its tags.
        tags: Vec<Named<Tag>>,
        /// The wire protocols that it announces.
        protocols: Vec<String>,
        /// Peers that it knows.
        peers: u64,
        /// Streams that it produces.
        produces: u64,
        /// Consumers that it has.
        consumes: u64,
        /// Groups that it is a member of.
        groups: u64,
        /// Stores that it is the primary of.
        primaries: u64,
        /// Replicas of stores that it has.
        replicas: u64,
        /// What keeps strangers out of its network.
        kind: String,
        /// Whom it has refused and who has refused it, newest first.
        refusals: Vec<AdmissionReport>,
    }

    /// A peer that was not admitted to the network of the reporting node, or did not admit it.
    struct AdmissionReport {
        /// The peer.
        peer: PeerId,
        /// Whether the reporting node is the one that was refused.
        by_peer: bool,
        /// A word for the reason.
        reason: String,
        /// The reason with its facts.
        text: String,
        /// How long ago.
        age_ms: u64,
        /// How often in a row.
        times: u64,
    }

    /// A peer as another node knows it.
    struct PeerReport {
        /// Its identity.
        id: PeerId,
        /// Where it says that it can be dialled.
        addresses: Vec<String>,
        /// Its tags: what it says of itself.
        tags: Vec<Named<Tag>>,
        /// What the network's authority says of it, as far as the reporting node knows.
        grants: Vec<String>,
        /// The streams that it produces.
        produces: Vec<Named<StreamId>>,
        /// The streams that it consumes.
        consumes: Vec<Named<StreamId>>,
        /// The groups that it is a member of.
        groups: Vec<GroupId>,
        /// The stores that it is the primary of.
        stores: Vec<Named<StoreId>>,
        /// When this run of it began, by its own clock: microseconds since the Unix epoch.
        run_id: u64,
        /// Changes of its entry within the run.
        seq: u64,
        /// Since its newest sign of life.
        heard_ms: u64,
        /// For how long a sign of life holds.
        lease_ms: u64,
        /// Whether its connection was lost and it is being looked for.
        suspect: bool,
        /// Live connections to it.
        connections: Vec<ConnectionReport>,
    }

    /// A live connection of two nodes.
    struct ConnectionReport {
        /// Its protocols, as an ALPN.
        family: String,
        /// Whether the reporting node dialled it.
        outgoing: bool,
        /// Whether it goes through a relay, if a path is chosen.
        relayed: Option<bool>,
        /// Smoothed round-trip time.
        rtt_us: Option<u64>,
        /// What carries the streams that the reporting node opens on it: `quic`, or within one host `local` or `memory`.
        lane: String,
        /// How long it has been up.
        age_ms: u64,
    }

    /// The group that owns a stream.
    struct OwnerReport {
        /// The group, if its key is known here.
        group: Option<GroupId>,
        /// Whether the reporting node's member leads it, so that it may send.
        leads: bool,
        /// Whether that member serves consumers: it runs, and knows the stream's numbers.
        serves: bool,
    }

    /// A stream that a node produces.
    struct ProducerReport {
        /// The stream.
        stream: Named<StreamId>,
        /// The Rust type of its items.
        datum: String,
        /// The fingerprint of the declared schema, if one is declared.
        schema: Option<String>,
        /// The number of this run of the stream.
        epoch: u64,
        /// Whether its online condition holds.
        online: bool,
        /// The most consumers at one time, if there is a limit.
        max_consumers: Option<u64>,
        /// Items sent.
        sent: u64,
        /// Their bytes, framing included.
        bytes: u64,
        /// Items that reached no one.
        undelivered: u64,
        /// Senders that wait for a subscriber or for room.
        waiting: u64,
        /// For how long the first of them has waited.
        waiting_ms: u64,
        /// The handler that it is in, if it is in one.
        waiting_in: Option<String>,
        /// The grant that the node's own ticket lacks to produce it, if it does.
        missing_grant: Option<String>,
        /// The group that owns the stream, if one does.
        owner: Option<OwnerReport>,
        /// Those who are served or wait, in the order in which they came.
        subscribers: Vec<SubscriberReport>,
        /// How many more there are.
        omitted: u64,
        /// The last subscriptions that ended or were refused, oldest first.
        endings: Vec<EndingReport>,
    }

    /// A subscription at its producer.
    struct SubscriberReport {
        /// The consumer's node.
        peer: PeerId,
        /// Whether it is served.
        state: LinkState,
        /// Tags that the producer's predicate misses, if that is why it waits.
        missing_tags: Vec<Named<Tag>>,
        /// The grant that its ticket lacks, if that is why it waits.
        missing_grant: Option<String>,
        /// Since it is served or waits.
        since_ms: u64,
        /// Items written to it.
        items: u64,
        /// Bytes written to it.
        bytes: u64,
        /// Items that wait for it.
        queue_items: u64,
        /// Bytes that wait for it.
        queue_bytes: u64,
        /// The most items that ever waited.
        high_items: u64,
        /// Smoothed round-trip time.
        rtt_us: Option<u64>,
    }

    /// Why subscriptions ended or were refused.
    struct EndingReport {
        /// The other side.
        peer: PeerId,
        /// In words.
        reason: String,
        /// The close code, if there was one.
        code: Option<u32>,
        /// Since it last happened.
        ago_ms: u64,
        /// How often it has happened.
        count: u64,
    }

    /// A consumer of a node.
    struct ConsumerReport {
        /// The stream.
        stream: Named<StreamId>,
        /// The fingerprint of the declared schema, if one is declared.
        schema: Option<String>,
        /// Items handed to the program.
        received: u64,
        /// Their bytes, framing included.
        bytes: u64,
        /// How often items were missed.
        gaps: u64,
        /// Items that were missed.
        missed: u64,
        /// Producers that it is subscribed to or tries.
        producers: Vec<CandidateReport>,
        /// Producers that may not produce, or that its predicate does not admit.
        refused: Vec<RefusedProducer>,
        /// How many more producers there are.
        omitted: u64,
    }

    /// A producer as a consumer sees it.
    struct CandidateReport {
        /// The producer's node.
        peer: PeerId,
        /// Whether items flow.
        state: LinkState,
        /// Since items flow.
        since_ms: Option<u64>,
        /// Items handed to the program.
        items: u64,
        /// How often items were missed.
        gaps: u64,
        /// Items that were missed.
        missed: u64,
        /// Items that wait to be read.
        queue_items: u64,
        /// Bytes that wait to be read.
        queue_bytes: u64,
        /// Smoothed round-trip time.
        rtt_us: Option<u64>,
        /// How the last subscription ended, or why it was refused; the count is of all endings.
        last_end: Option<EndingReport>,
        /// Why it is taken, stands by or neither, of a consumer that chooses.
        choice: Option<String>,
    }

    /// A producer that may not produce, or that a consumer's predicate does not admit.
    struct RefusedProducer {
        /// The producer's node.
        peer: PeerId,
        /// Tags that the predicate misses, if that is why.
        missing_tags: Vec<Named<Tag>>,
        /// The grant that its ticket lacks, if that is why.
        missing_grant: Option<String>,
    }

    /// The primary of a store on a node.
    struct PrimaryReport {
        /// The store.
        store: Named<StoreId>,
        /// The view's name.
        view: String,
        /// The view's version.
        version: u32,
        /// The run of the primary.
        epoch: u64,
        /// The deltas of that run that were folded.
        seq: u64,
        /// Snapshots that were served to replicas.
        snapshots: u64,
        /// What an operator should know of it: that its disk is full, or that its file was an older copy.
        trouble: Option<String>,
        /// The stream of its deltas, with its replicas as subscribers; nothing while the primary ends.
        deltas: Option<ProducerReport>,
    }

    /// A replica of a store on a node.
    struct ReplicaReport {
        /// The store.
        store: Named<StoreId>,
        /// The view's name.
        view: String,
        /// The view's version.
        version: u32,
        /// The run of the primary whose deltas it has; 0 for none.
        epoch: u64,
        /// The deltas of that run that it has.
        seq: u64,
        /// How it stands.
        state: SyncState,
        /// The primary that it follows.
        primary: Option<PeerId>,
        /// Why it is not in step with its primary, or not on disk.
        failure: Option<String>,
        /// Deltas folded.
        folded: u64,
        /// Snapshots that replaced the state.
        snapshots: u64,
        /// Connections made again after which it went on without a snapshot.
        resumed: u64,
        /// Primaries that are connected; more than one is a mistake.
        primaries: u64,
        /// The consumer of its deltas; nothing while it ends or begins.
        deltas: Option<ConsumerReport>,
    }

    /// A member of a group on a node.
    struct GroupReport {
        /// The group.
        group: GroupId,
        /// The machine's name.
        name: String,
        /// How many founders are declared, if any.
        size: Option<u32>,
        /// The machine's version.
        machine_version: u32,
        /// What the member is.
        role: String,
        /// The leader that it knows.
        leader: Option<PeerId>,
        /// Its term.
        term: u64,
        /// The last index that is committed and applied here.
        committed: u64,
        /// The end of its log.
        log_position: u64,
        /// Whether calls are served.
        online: bool,
        /// Why not, if not.
        trouble: Option<Trouble>,
        /// The same in plain words.
        why: Option<String>,
        /// Whether a majority of the voters is reachable.
        has_quorum: bool,
        /// The smallest number of voters to which the group shrinks by itself.
        floor: u64,
        /// Whether the machine has snapshots; if not, the log grows without end.
        compacts: bool,
        /// What an operator should know of its machine: snapshots that fail, commands that panicked or take long; and whether it
        /// is preferred as leader, reluctant, or not ready.
        notes: Vec<String>,
        /// Messages that were dropped for want of a link or of room.
        dropped_messages: u64,
        /// The members, from the configuration in its log.
        members: Vec<MemberReport>,
        /// Members that it has a link to.
        bonds: Vec<BondReport>,
        /// Who was refused or has refused it, oldest first.
        refusals: Vec<RefusalReport>,
        /// What an operator should look at although it may be online, in plain words.
        warnings: Vec<String>,
    }

    /// A member of a group, from its configuration.
    struct MemberReport {
        /// The node.
        id: PeerId,
        /// Voter, learner or observer.
        kind: String,
        /// Committed entries that it has not acknowledged, where that is known.
        lag: Option<u64>,
        /// How far its wall clock is ahead of the voters' median, milliseconds, where that is known and more than a second.
        skew_ms: Option<i64>,
    }

    /// A link to another member.
    struct BondReport {
        /// The other member.
        peer: PeerId,
        /// Smoothed round-trip time, once it was measured.
        rtt_us: Option<u64>,
        /// How long it has been up.
        age_ms: u64,
    }

    /// A refusal between two nodes that mean the same group.
    struct RefusalReport {
        /// The other node.
        peer: PeerId,
        /// Why.
        kind: RefusalKind,
        /// The same in plain words.
        reason: String,
        /// Whether the other node said so.
        by_peer: bool,
        /// Since it last happened.
        ago_ms: u64,
        /// How often it has happened.
        count: u64,
    }
}

/// A stream of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamReport {
    /// It produces it.
    Producer(ProducerReport),
    /// It consumes it.
    Consumer(ConsumerReport),
}

/// A store of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreReport {
    /// It is its primary.
    Primary(PrimaryReport),
    /// It has a replica.
    Replica(ReplicaReport),
}

/// How a replica of a store stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SyncState {
    /// It reaches no primary.
    Alone,
    /// It waits for a snapshot.
    Catching,
    /// It has everything but what is on its way.
    Synced,
    /// The primary has another history than what it keeps.
    OtherHistory,
}

/// How a subscription stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LinkState {
    /// Items flow.
    Connected,
    /// No connection; it is tried again.
    Connecting,
    /// The producer's predicate does not admit the consumer.
    NotAllowed,
    /// The producer has as many consumers as it takes.
    NoCapacity,
    /// The consumer's ticket lacks a grant.
    NotGranted,
    /// The consumer prefers another producer.
    Spare,
    /// The producer stands by: it tells how far it is, and takes over when another one fails.
    Standby,
}

/// Why a member of a group is not online.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Trouble {
    /// No cluster was found yet.
    Looking,
    /// Founders are missing.
    WaitingForFounders,
    /// The founders are agreeing.
    Founding,
    /// The group has not taken it in yet.
    WaitingToBeTakenIn,
    /// It is being brought up to date.
    CatchingUp,
    /// Fewer voters than a majority are reachable.
    NoQuorum,
    /// A majority of a volatile group lost its memory.
    VolatileMajorityLost,
    /// A leader is being elected.
    NoLeader,
    /// Others refuse it, or it refuses them.
    Refused,
    /// Two clusters of one key both hold user data.
    SplitGenesis,
    /// It has stopped for another reason.
    Stopped,
    /// Its disk does not answer.
    StorageHangs,
    /// The group has no room for it.
    Full,
}

/// Why two nodes do not become members of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RefusalKind {
    /// The one that was asked is no member.
    NotMember,
    /// The key was not proved.
    WrongKey,
    /// They declare different sizes.
    Size,
    /// They run different versions of the machine.
    MachineVersion,
    /// They have different settings of the consensus.
    Settings,
    /// A later life of the member is known.
    OldIncarnation,
    /// The member's storage is an older copy.
    OlderCopy,
    /// Two processes run on copies of one storage.
    SecondStart,
    /// A ticket lacks a grant.
    NotGranted,
    /// Something else.
    Other,
}

impl StreamReport {
    /// The stream.
    #[must_use]
    pub const fn stream(&self) -> &Named<StreamId> {
        match self {
            Self::Producer(report) => &report.stream,
            Self::Consumer(report) => &report.stream,
        }
    }
}

impl StoreReport {
    /// The store.
    #[must_use]
    pub const fn store(&self) -> &Named<StoreId> {
        match self {
            Self::Primary(report) => &report.store,
            Self::Replica(report) => &report.store,
        }
    }
}

impl PeerReport {
    /// Where it can be dialled.
    #[must_use]
    pub fn addr(&self) -> EndpointAddr {
        let transport = |text: &String| {
            let ip = text.parse::<SocketAddr>().ok().map(TransportAddr::Ip);
            ip.or_else(|| text.parse::<RelayUrl>().ok().map(TransportAddr::Relay))
        };
        EndpointAddr::from_parts(self.id.into(), self.addresses.iter().filter_map(transport))
    }
}
