//! Explanations: the checks between two nodes in the order in which they matter, up to the first that fails. Pure: works on
//! reports of both, whoever asked for them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    client::AskError,
    report::{
        AdmissionReport, ConsumerReport, GroupReport, LinkState, Named, PeerReport, PrimaryReport, ProducerReport,
        RefusalKind, RefusalReport, ReplicaReport, StoreReport, StreamReport, SyncState, Trouble,
    },
};
use crate::{
    network::CloseCode,
    primitives::{GroupId, PeerId, StoreId, StreamId, Tag},
};

/// For how long a refused copy is spoken of, milliseconds.
const COPIED_MS: u64 = 12_000;
/// The reason of a refusal that holds also for a peer that is still known.
const REVOKED: &str = "revoked";
/// The reason of a refusal of evidence.
const ATTESTATION: &str = "attestation";
/// What the text of a missing grant has if it is one of evidence.
const NEEDS_EVIDENCE: [&str; 2] = ["needs attested:", "needs measured:"];
/// The reason of a refusal that is not one by the network.
const GRANT_MISSING: &str = "grant_missing";

/// What is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Fault {
    /// A node gives no answer.
    Unreachable,
    /// A node does not know the other one.
    NotDiscovered,
    /// A node belongs to another network.
    OtherNetwork,
    /// A node does not admit the other one to the network, or this client.
    Refused,
    /// A node is no end of the stream, no member of the group, or has no part in the store.
    NotInvolved,
    /// The two ends declare the stream's items, or the store's view, differently.
    SchemaDiffers,
    /// A predicate asks for a tag that the other end does not have.
    TagMissing,
    /// A predicate refuses the other end, and no tag would help.
    PredicateRefused,
    /// A ticket lacks a grant that a declaration asks for.
    GrantMissing,
    /// A node asks for evidence of what runs at the other one, which shows none or none that it accepts.
    NotAttested,
    /// The producer has as many consumers as it takes.
    AtCapacity,
    /// There is no subscription, or no link between members, although nothing speaks against it.
    NotConnected,
    /// The store has several primaries.
    TwoPrimaries,
    /// A replica waits for a snapshot.
    NotSynced,
    /// Both run a group of that name, with different keys.
    WrongGroupKey,
    /// They declare different sizes of the group.
    OtherSize,
    /// They run different versions of the machine, or with other settings.
    OtherMachine,
    /// A member's storage is a copy: an older one, or one that another process runs on.
    Copied,
    /// Two clusters of one key both hold user data.
    SplitGenesis,
    /// The member has stopped.
    Stopped,
    /// Fewer voters than a majority are reachable.
    NoQuorum,
    /// The member is not online for another reason.
    NotOnline,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => "unreachable",
            Self::NotDiscovered => "not discovered",
            Self::OtherNetwork => "other network",
            Self::Refused => "refused",
            Self::NotInvolved => "not involved",
            Self::SchemaDiffers => "schema differs",
            Self::TagMissing => "tag missing",
            Self::PredicateRefused => "predicate refused",
            Self::GrantMissing => "grant missing",
            Self::NotAttested => "not attested",
            Self::AtCapacity => "at capacity",
            Self::NotConnected => "not connected",
            Self::TwoPrimaries => "two primaries",
            Self::NotSynced => "not synced",
            Self::WrongGroupKey => "wrong group key",
            Self::OtherSize => "other size",
            Self::OtherMachine => "other machine",
            Self::Copied => "copied storage",
            Self::SplitGenesis => "split genesis",
            Self::Stopped => "stopped",
            Self::NoQuorum => "no quorum",
            Self::NotOnline => "not online",
        })
    }
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Check {
    /// What was looked at.
    pub what: String,
    /// What is wrong, if something is.
    pub fault: Option<Fault>,
    /// What was found, if something is wrong.
    pub found: String,
}

/// The checks that were made, in order; only the last one may have failed.
///
/// `Display` has the result in its first line: `fault: what was found`, or `ok`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Explanation {
    /// See above.
    pub checks: Vec<Check>,
}

/// One of the two nodes and what it said.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct End {
    /// The node.
    pub id: PeerId,
    /// The peers that it knows.
    pub peers: Vec<PeerReport>,
    /// Its streams.
    pub streams: Vec<StreamReport>,
    /// Its groups.
    pub groups: Vec<GroupReport>,
    /// Its stores.
    pub stores: Vec<StoreReport>,
    /// Whom it does not admit to the network, and who does not admit it.
    pub refusals: Vec<AdmissionReport>,
}

impl End {
    /// A node that has answered.
    #[must_use]
    pub const fn new(
        id: PeerId,
        peers: Vec<PeerReport>,
        streams: Vec<StreamReport>,
        groups: Vec<GroupReport>,
        stores: Vec<StoreReport>,
    ) -> Self {
        Self { id, peers, streams, groups, stores, refusals: Vec::new() }
    }

    /// With what it said about whom it does not admit to the network.
    #[must_use]
    pub fn with_refusals(mut self, refusals: Vec<AdmissionReport>) -> Self {
        self.refusals = refusals;
        self
    }

    fn knows(&self, peer: PeerId) -> bool {
        self.peers.iter().any(|known| known.id == peer)
    }

    fn producer(&self, stream: StreamId) -> Option<&ProducerReport> {
        self.streams.iter().find_map(|report| match report {
            StreamReport::Producer(report) if report.stream.id == stream => Some(report),
            _ => None,
        })
    }

    fn consumers(&self, stream: StreamId) -> impl Iterator<Item = &ConsumerReport> {
        self.streams.iter().filter_map(move |report| match report {
            StreamReport::Consumer(report) if report.stream.id == stream => Some(report),
            _ => None,
        })
    }
}

impl End {
    pub(super) fn primary(&self, store: StoreId) -> Option<&PrimaryReport> {
        self.stores.iter().find_map(|report| match report {
            StoreReport::Primary(report) if report.store.id == store => Some(report),
            _ => None,
        })
    }

    pub(super) fn replicas(&self, store: StoreId) -> impl Iterator<Item = &ReplicaReport> {
        self.stores.iter().filter_map(move |report| match report {
            StoreReport::Replica(report) if report.store.id == store => Some(report),
            _ => None,
        })
    }
}

impl Explanation {
    /// The check that failed, if one did.
    #[must_use]
    pub fn failed(&self) -> Option<&Check> {
        self.checks.iter().find(|check| check.fault.is_some())
    }

    /// What is in the way, if anything is.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.failed().and_then(|check| check.fault)
    }

    /// Adds the checks of another one, unless one has failed already.
    #[must_use]
    pub fn then(mut self, next: impl FnOnce() -> Self) -> Self {
        if self.fault().is_none() {
            self.checks.extend(next().checks);
        }
        self
    }

    /// When nobody who answers has the other part of a stream: whether the node has a part in it at all, and whether it
    /// knows somebody who announces the other one. `by` is who was asked for nodes.
    #[must_use]
    pub fn without_counterpart(node: &End, by: PeerId, stream: &Named<StreamId>) -> Self {
        let (produces, consumes) = (node.producer(stream.id).is_some(), node.consumers(stream.id).next().is_some());
        let announces = |peer: &&PeerReport| {
            let list = if consumes { &peer.produces } else { &peer.consumes };
            list.iter().any(|it| it.id == stream.id)
        };
        let somebody = node.peers.iter().find(announces).map(|peer| peer.id);
        alone(node, by, stream, [("produces", produces), ("consumes", consumes)], somebody)
    }

    /// As [`without_counterpart`](Self::without_counterpart), of a store. Who has a replica is not announced.
    #[must_use]
    pub fn without_store_counterpart(node: &End, by: PeerId, store: &Named<StoreId>) -> Self {
        let (primary, replica) = (node.primary(store.id).is_some(), node.replicas(store.id).next().is_some());
        let announces = |peer: &&PeerReport| replica && peer.stores.iter().any(|it| it.id == store.id);
        let somebody = node.peers.iter().find(announces).map(|peer| peer.id);
        alone(node, by, store, [("is the primary of", primary), ("has a replica of", replica)], somebody)
    }

    /// Makes a check unless one has failed already.
    fn check(&mut self, what: impl fmt::Display, look: impl FnOnce() -> Result<(), (Fault, String)>) {
        if self.fault().is_none() {
            let (fault, found) = look().err().map_or((None, String::new()), |(fault, found)| (Some(fault), found));
            self.checks.push(Check { what: what.to_string(), fault, found });
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.failed() {
            Some(Check { fault: Some(fault), found, .. }) => write!(f, "{fault}: {found}")?,
            _ => f.write_str("ok: nothing is in the way")?,
        }
        for check in &self.checks {
            let mark = if check.fault.is_some() { "FAILED" } else { "ok" };
            write!(f, "\n  {mark:6}  {}", check.what)?;
        }
        Ok(())
    }
}

/// See [`Explanation::without_counterpart`]: the two parts that there are and whether the node has them, and somebody who
/// announces the part that the node does not have.
fn alone(
    node: &End,
    by: PeerId,
    what: &impl fmt::Display,
    [(does, has_first), (also, has_second)]: [(&str, bool); 2],
    somebody: Option<PeerId>,
) -> Explanation {
    let (mut it, id) = (Explanation::default(), node.id);
    it.check(format_args!("{id:?} has a part in {what}"), || {
        unless(!has_first && !has_second, Fault::NotInvolved, || format!("{id:?} neither {does} nor {also} {what}"))
    });
    let other = if has_second { does } else { also };
    it.check(format_args!("somebody {other} {what}"), || match somebody {
        Some(peer) => {
            Err((Fault::Unreachable, format!("{peer:?}, which {other} {what}, gives no answer to this client")))
        }
        None => Err((Fault::NotInvolved, format!("nobody that {id:?} or {by:?} knows {other} {what}"))),
    });
    it
}

fn unless(wrong: bool, fault: Fault, found: impl FnOnce() -> String) -> Result<(), (Fault, String)> {
    if wrong { Err((fault, found())) } else { Ok(()) }
}

/// Whether a node can be found and asked: `answer` is what it said when it was asked directly, `known` whether the node at
/// `by` knows it.
#[must_use]
pub fn explain_peer(peer: PeerId, by: PeerId, known: bool, answer: Result<(), &AskError>) -> Explanation {
    let mut it = Explanation::default();
    it.check(format_args!("{peer:?} is of this network"), || match answer {
        Err(AskError::OtherNetwork { network, .. }) => {
            Err((Fault::OtherNetwork, format!("{peer:?} belongs to another network than {network}")))
        }
        _ => Ok(()),
    });
    it.check(format_args!("{peer:?} and this client admit each other"), || match answer {
        Err(AskError::Refused { refusal, .. }) => Err((Fault::Refused, refusal.clone())),
        _ => Ok(()),
    });
    it.check(format_args!("{peer:?} is discovered"), || {
        unless(!known && peer != by, Fault::NotDiscovered, || {
            let runs = if answer.is_ok() { "it runs, but has not met the others" } else { "nobody has heard of it" };
            format!("{by:?} does not know {peer:?}: {runs}; look at its network and its bootstrap peers")
        })
    });
    it.check(format_args!("{peer:?} answers"), || {
        answer.map_err(|error| (Fault::Unreachable, format!("{peer:?} gives no answer: {error}")))
    });
    it
}

/// Whether items of a stream flow between two nodes, and if not, why.
#[must_use]
pub fn explain_stream(from: &End, to: &End, stream: &Named<StreamId>) -> Explanation {
    let (p, c) = (from.id, to.id);
    let mut it = acquainted(from, to);
    it.check(format_args!("{p:?} produces {stream}"), || {
        unless(from.producer(stream.id).is_none(), Fault::NotInvolved, || format!("{p:?} does not produce {stream}"))
    });
    it.check(format_args!("{c:?} consumes {stream}"), || {
        unless(to.consumers(stream.id).next().is_none(), Fault::NotInvolved, || {
            format!("{c:?} does not consume {stream}")
        })
    });
    // Of several consumers, the first one with a problem counts.
    let (Some(producer), false) = (from.producer(stream.id), it.fault().is_some()) else { return it };
    let explained =
        to.consumers(stream.id).map(|consumer| attested(subscription((p, producer), (c, consumer)), from, to));
    let all: Vec<_> = explained.collect();
    let worst = all.iter().find(|one| one.fault().is_some()).or_else(|| all.first()).cloned();
    it.then(|| worst.unwrap_or_default())
}

/// Whether a node says that it and a peer do not admit each other. What it says of one that it knows by now is over, unless the
/// peer was revoked: such a one stays known for a while, and `connected` tells that it has another ticket.
pub(super) fn admission(
    node: PeerId,
    refusals: &[AdmissionReport],
    peer: PeerId,
    (known, connected): (bool, bool),
) -> Explanation {
    let mut it = Explanation::default();
    let is_over = |refusal: &AdmissionReport| {
        // Who lacks a grant is in the network.
        [GRANT_MISSING, ATTESTATION].contains(&&*refusal.reason) || known && (connected || refusal.reason != REVOKED)
    };
    let refused = refusals.iter().find(|refusal| refusal.peer == peer && !is_over(refusal));
    it.check(format_args!("{node:?} and {peer:?} admit each other"), || {
        refused.map_or(Ok(()), |refused| Err((Fault::Refused, format!("{node:?} says: {}", refused.text))))
    });
    it
}

fn acquainted(one: &End, other: &End) -> Explanation {
    let mut it = Explanation::default();
    for (knows, known) in [(one, other), (other, one)] {
        let peer = knows.peers.iter().find(|peer| peer.id == known.id);
        let connected = peer.is_some_and(|peer| !peer.connections.is_empty());
        it = it.then(|| admission(knows.id, &knows.refusals, known.id, (peer.is_some(), connected)));
        it.check(format_args!("{:?} knows {:?}", knows.id, known.id), || {
            unless(!knows.knows(known.id) && knows.id != known.id, Fault::NotDiscovered, || {
                format!("{:?} does not know {:?}: look at their networks and bootstrap peers", knows.id, known.id)
            })
        });
    }
    it
}

/// A grant that is missing may be one of evidence: then what both say of that is told, too.
fn attested(mut explained: Explanation, one: &End, other: &End) -> Explanation {
    let failed = explained.checks.iter_mut().find(|check| check.fault == Some(Fault::GrantMissing));
    let Some(check) = failed.filter(|check| NEEDS_EVIDENCE.iter().any(|it| check.found.contains(it))) else {
        return explained;
    };
    let said = [(one, other), (other, one)].into_iter().find_map(|(by, of)| {
        let mut refusals = by.refusals.iter().filter(|it| it.peer == of.id && it.reason == ATTESTATION);
        refusals.next().map(|refusal| format!("; {:?} says: {}", by.id, refusal.text))
    });
    check.fault = Some(Fault::NotAttested);
    check.found += &said.unwrap_or_else(|| "; no evidence was shown".to_owned());
    explained
}

fn subscription((p, producer): (PeerId, &ProducerReport), (c, consumer): (PeerId, &ConsumerReport)) -> Explanation {
    let mut it = Explanation::default();
    let stream = &producer.stream;
    let candidate = consumer.producers.iter().find(|candidate| candidate.peer == p);
    let state = candidate.map_or(LinkState::Connecting, |candidate| candidate.state);
    it.check("both declare the same schema", || {
        let differs = matches!((&producer.schema, &consumer.schema), (Some(one), Some(other)) if one != other);
        // Shapes that may grow are compared by the producer, which has told the consumer.
        let told = candidate.and_then(|candidate| candidate.last_end.as_ref());
        let told = told.filter(|end| state != LinkState::Connected && end.code == Some(CloseCode::Incompatible.code()));
        unless(differs || told.is_some(), Fault::SchemaDiffers, || {
            let show = |schema: &Option<String>| schema.clone().unwrap_or_default();
            let (one, other) = (show(&producer.schema), show(&consumer.schema));
            let path = told.map_or_else(String::new, |end| format!(" ({c:?} says: {})", end.reason));
            format!("{p:?} declares {stream} as {one}, {c:?} as {other}{path}: build both from the same source")
        })
    });
    it.check(format_args!("the ticket of {p:?} lets it produce"), || {
        let seen = consumer.refused.iter().find(|refused| refused.peer == p).and_then(|it| it.missing_grant.clone());
        let missing = seen.map(|missing| (c, missing)).or_else(|| Some((p, producer.missing_grant.clone()?)));
        missing.map_or(Ok(()), |(by, missing)| Err((Fault::GrantMissing, format!("{by:?} says of {p:?}: {missing}"))))
    });
    let subscriber = producer.subscribers.iter().find(|subscriber| subscriber.peer == c);
    it.check(format_args!("the ticket of {c:?} lets it consume"), || {
        let missing = subscriber.and_then(|subscriber| subscriber.missing_grant.clone());
        unless(missing.is_some() || state == LinkState::NotGranted, Fault::GrantMissing, || {
            let missing = missing.unwrap_or_else(|| "its ticket lacks a grant".to_owned());
            format!("{p:?} says of {c:?}: {missing}")
        })
    });
    it.check(format_args!("the predicate of the consumer admits {p:?}"), || {
        let refused = consumer.refused.iter().find(|refused| refused.peer == p);
        refused.map_or(Ok(()), |refused| Err(refusal("subscribe_if", c, p, &refused.missing_tags)))
    });
    if let Some(owner) = &producer.owner {
        it.check(format_args!("{p:?} serves the stream of {owner}"), || {
            unless(!owner.serves && state != LinkState::Connected, Fault::NotConnected, || {
                format!("{p:?} does not serve {stream} yet: its member of the group does not run, or is not up to date")
            })
        });
    }
    it.check(format_args!("the predicate of the producer admits {c:?}"), || {
        if state != LinkState::NotAllowed {
            return Ok(());
        }
        let missing = subscriber.map_or(&[][..], |subscriber| &subscriber.missing_tags);
        Err(refusal("accept_if", p, c, missing))
    });
    it.check("the producer has room for one more consumer", || {
        let code = candidate.and_then(|candidate| candidate.last_end.as_ref()?.code);
        let refused = state != LinkState::Connected && code == Some(CloseCode::NoCapacity.code());
        unless(state == LinkState::NoCapacity || refused, Fault::AtCapacity, || {
            let max = producer.max_consumers.map_or_else(|| "all".to_owned(), |max| max.to_string());
            format!("{p:?} takes {max} consumers of {stream} at most and has them; {c:?} waits for a place")
        })
    });
    let spare = matches!(state, LinkState::Spare | LinkState::Standby);
    let why = candidate.and_then(|candidate| candidate.choice.as_ref());
    let chosen = match (state, why) {
        (LinkState::Standby, why) => {
            let why = why.map_or_else(String::new, |why| format!(": {why}"));
            format!("{p:?} stands by, so its heads are to come and no items{why}")
        }
        (LinkState::Spare, Some(why)) => format!("another producer is preferred, so nothing is to flow: {why}"),
        (LinkState::Spare, None) => "another producer is preferred, so nothing is to flow".to_owned(),
        (_, Some(why)) => format!("items flow, as the consumer takes {p:?}: {why}"),
        (_, None) => "items flow".to_owned(),
    };
    it.check(chosen, || {
        unless(!spare && state != LinkState::Connected, Fault::NotConnected, || {
            let end = candidate.and_then(|candidate| candidate.last_end.as_ref());
            let end =
                end.map_or_else(|| "there was none so far".to_owned(), |end| format!("the last one: {}", end.reason));
            format!("{c:?} has no subscription to {stream} at {p:?}; {end}")
        })
    });
    it
}

/// Whether a replica follows the primary of a store, and if not, why.
#[must_use]
pub fn explain_store(primary: &End, replica: &End, store: &Named<StoreId>) -> Explanation {
    let (p, r) = (primary.id, replica.id);
    let mut it = acquainted(primary, replica);
    it.check(format_args!("{p:?} is the primary of {store}"), || {
        unless(primary.primary(store.id).is_none(), Fault::NotInvolved, || {
            format!("{p:?} is not the primary of {store}")
        })
    });
    it.check(format_args!("{r:?} has a replica of {store}"), || {
        unless(replica.replicas(store.id).next().is_none(), Fault::NotInvolved, || {
            format!("{r:?} has no replica of {store}")
        })
    });
    let (Some(source), false) = (primary.primary(store.id), it.fault().is_some()) else { return it };
    let all: Vec<_> =
        replica.replicas(store.id).map(|report| replication((primary, source), (replica, report))).collect();
    let worst = all.iter().find(|one| one.fault().is_some()).or_else(|| all.first()).cloned();
    it.then(|| worst.unwrap_or_default())
}

fn replication((one, primary): (&End, &PrimaryReport), (other, replica): (&End, &ReplicaReport)) -> Explanation {
    let (p, r) = (one.id, other.id);
    let mut it = Explanation::default();
    let store = &primary.store;
    it.check("both have the same view", || {
        let (one, other) = ((&primary.view, primary.version), (&replica.view, replica.version));
        unless(one != other, Fault::SchemaDiffers, || {
            format!(
                "{store} is a {} (version {}) at {p:?}, a {} (version {}) at {r:?}: build both from the same source",
                one.0, one.1, other.0, other.1
            )
        })
    });
    it.check("there is one primary", || {
        unless(replica.primaries > 1, Fault::TwoPrimaries, || {
            let followed = replica.primary.map_or_else(String::new, |peer| format!("; it follows {peer:?}"));
            format!("{r:?} sees {} primaries of {store}{followed}: stop all but one", replica.primaries)
        })
    });
    if let (Some(producer), Some(consumer)) = (&primary.deltas, &replica.deltas) {
        it = it.then(|| attested(subscription((p, producer), (r, consumer)), one, other));
    }
    it.check("the replica is synced", || {
        unless(replica.state != SyncState::Synced, Fault::NotSynced, || {
            let why = replica.failure.clone().unwrap_or_else(|| "it is on its way".to_owned());
            format!("{r:?} is not in step with {store}: {why}")
        })
    });
    it
}

fn refusal(predicate: &str, whose: PeerId, of: PeerId, missing: &[Named<Tag>]) -> (Fault, String) {
    if missing.is_empty() {
        let text = format!("`{predicate}` of {whose:?} does not admit {of:?}, and no tag that it asks for would help");
        return (Fault::PredicateRefused, text);
    }
    let tags: Vec<_> = missing.iter().map(|tag| format!("\"{tag}\"")).collect();
    (Fault::TagMissing, format!("{of:?} has no tag {}, which `{predicate}` of {whose:?} asks for", tags.join(", ")))
}

/// Whether two nodes are members of one group that works, and if not, why. The group is named by its machine or by its id.
/// Without a second node, what the first one says of itself.
#[must_use]
pub fn explain_group(one: &End, other: Option<&End>, group: &str) -> Explanation {
    let mut it = other.map_or_else(Explanation::default, |other| acquainted(one, other));
    let ours = member(one, group, None);
    it.check(format_args!("{:?} is a member of {group}", one.id), || {
        unless(ours.is_none(), Fault::NotInvolved, || format!("{:?} is in no group {group}", one.id))
    });
    let Some(ours) = ours else { return it };
    if let Some(other) = other {
        let theirs = member(other, &ours.name, Some(ours.group));
        it = it.then(|| attested(membership((one.id, ours), (other.id, theirs)), one, other));
    }
    it.then(|| health(one.id, ours))
}

/// The group of that id, or of that name.
fn member<'a>(end: &'a End, name: &str, id: Option<GroupId>) -> Option<&'a GroupReport> {
    let by_id = end.groups.iter().find(|group| Some(group.group) == id || group.group.to_string() == name);
    by_id.or_else(|| end.groups.iter().find(|group| group.name == name))
}

fn membership((a, ours): (PeerId, &GroupReport), (b, theirs): (PeerId, Option<&GroupReport>)) -> Explanation {
    let mut it = Explanation::default();
    let name = &ours.name;
    it.check(format_args!("{b:?} is a member of {name}"), || {
        unless(theirs.is_none(), Fault::NotInvolved, || format!("{b:?} is in no group {name}"))
    });
    let Some(theirs) = theirs else { return it };
    let refused = |kinds: &[RefusalKind]| {
        let between = |report: &GroupReport, peer| {
            let mut refusals = report.refusals.iter();
            refusals.any(|refusal| refusal.peer == peer && kinds.contains(&refusal.kind))
        };
        let bonded = ours.bonds.iter().any(|bond| bond.peer == b);
        !bonded && (between(ours, b) || between(theirs, a))
    };
    it.check("both have the same key", || {
        unless(ours.group != theirs.group || refused(&[RefusalKind::WrongKey]), Fault::WrongGroupKey, || {
            format!("{a:?} and {b:?} both run a group {name}, with different keys: they never meet in it")
        })
    });
    it.check("both declare the same size", || {
        let show = |size: Option<u32>| size.map_or_else(|| "none".to_owned(), |size| size.to_string());
        unless(ours.size != theirs.size || refused(&[RefusalKind::Size]), Fault::OtherSize, || {
            format!("{a:?} declares {} members of {name}, {b:?} {}", show(ours.size), show(theirs.size))
        })
    });
    it.check("both run the same machine with the same settings", || {
        let (one, other) = (ours.machine_version, theirs.machine_version);
        let kinds = [RefusalKind::MachineVersion, RefusalKind::Settings];
        unless(one != other || refused(&kinds), Fault::OtherMachine, || {
            format!("{a:?} runs version {one} of {name}, {b:?} version {other}, or their settings or schemas differ")
        })
    });
    // What one of the two says of a refusal.
    let said = |kinds: &[RefusalKind]| {
        let by_one = |report: &GroupReport, me: PeerId, other: PeerId| {
            let last = report.refusals.iter().rev().find(|it| it.peer == other && kinds.contains(&it.kind))?;
            let (by, of) = if last.by_peer { (other, me) } else { (me, other) };
            Some(format!("{by:?} refuses {of:?}: {}", last.reason))
        };
        by_one(ours, a, b).or_else(|| by_one(theirs, b, a)).unwrap_or_default()
    };
    it.check("neither is a copy", || {
        let kinds = [RefusalKind::OlderCopy, RefusalKind::SecondStart];
        unless(refused(&kinds), Fault::Copied, || said(&kinds))
    });
    it.check("the tickets of both let them be members", || {
        let kinds = [RefusalKind::NotGranted];
        unless(refused(&kinds), Fault::GrantMissing, || said(&kinds))
    });
    for (peer, report) in [(a, ours), (b, theirs)] {
        it = it.then(|| running(peer, report));
    }
    it.check("they have a link", || {
        unless(!ours.bonds.iter().any(|bond| bond.peer == b) && a != b, Fault::NotConnected, || {
            let last = ours.refusals.iter().rev().find(|refusal| refusal.peer == b);
            let why = last.map_or_else(String::new, |refusal| format!(": {}", refusal.reason));
            format!("{a:?} and {b:?} have no link in {name}{why}")
        })
    });
    it.then(|| health(b, theirs))
}

/// Whether a member has not stopped.
fn running(peer: PeerId, report: &GroupReport) -> Explanation {
    let mut it = Explanation::default();
    let why = report.why.as_deref().unwrap_or_default();
    it.check(format_args!("the member at {peer:?} runs"), || match report.trouble {
        Some(Trouble::SplitGenesis) => Err((Fault::SplitGenesis, format!("{peer:?} has {why}"))),
        Some(Trouble::Stopped) => Err((Fault::Stopped, format!("{peer:?} has {why}"))),
        _ => Ok(()),
    });
    it
}

/// Whether a member serves calls.
fn health(peer: PeerId, report: &GroupReport) -> Explanation {
    let mut it = running(peer, report);
    let why = report.why.as_deref().unwrap_or_default();
    it.check(format_args!("{peer:?} reaches a majority"), || match report.trouble {
        Some(Trouble::NoQuorum) => Err((Fault::NoQuorum, format!("{peer:?} says \"{why}\""))),
        Some(Trouble::VolatileMajorityLost) => Err((Fault::NoQuorum, format!("{peer:?} says \"{why}\""))),
        _ => Ok(()),
    });
    it.check(format_args!("no other process runs on a copy of the storage of {peer:?}"), || {
        let about =
            |it: &RefusalReport| it.peer == peer && it.kind == RefusalKind::SecondStart && it.ago_ms < COPIED_MS;
        unless(report.refusals.iter().any(about), Fault::Copied, || {
            format!("another process with the identity of {peer:?} is refused: stop it, give it a directory of its own")
        })
    });
    it.check(format_args!("{peer:?} is online"), || {
        unless(!report.online, Fault::NotOnline, || format!("{peer:?} says \"{why}\""))
    });
    it
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_peer_that_is_known_by_now_counts_if_it_was_revoked() {
        let [node, peer] = [1, 2].map(|n| PeerId::from(iroh::SecretKey::from_bytes(&[n; 32]).public()));
        let fault = |reason: &str, standing| {
            let said = AdmissionReport {
                peer,
                by_peer: false,
                reason: reason.to_owned(),
                text: reason.to_owned(),
                age_ms: 5,
                times: 1,
            };
            admission(node, &[said], peer, standing).fault()
        };
        assert_eq!(fault("expired", (false, false)), Some(Fault::Refused));
        assert_eq!(fault("expired", (true, false)), None, "it came back with another ticket");
        assert_eq!(fault(REVOKED, (true, false)), Some(Fault::Refused), "its lease is not over");
        assert_eq!(fault(REVOKED, (true, true)), None, "it came back with another ticket");
        assert_eq!(fault(GRANT_MISSING, (false, false)), None, "it is in the network");
    }
}
