//! Compares a node with the others that have a part in a stream, group or store. Pure: [`Survey`](super::Survey) has asked them.

use serde::{Deserialize, Serialize};

use super::{
    client::AskError,
    explain::{End, Explanation, admission, explain_group, explain_peer, explain_store, explain_stream},
    report::{GroupReport, Named, NodeReport, StreamReport},
    survey::Place,
};
use crate::primitives::{PeerId, StoreId, StreamId, names};

/// What is in the way between a node and another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Explained {
    /// The node.
    pub peer: PeerId,
    /// The other one, if there is one.
    pub with: Option<PeerId>,
    /// The checks.
    pub explanation: Explanation,
}

/// What somebody wants to know about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Stream,
    Group,
    Store,
}

/// The first of the others between which and the node something is in the way; if there is none, any of them.
pub(super) fn all(
    subject: &End,
    others: &[(Place, Result<End, AskError>)],
    by: &NodeReport,
    target: &str,
    asked_for: bool,
    reached: &Explanation,
) -> Explained {
    let ends: Vec<&End> = others.iter().filter_map(|(_, end)| end.as_ref().ok()).collect();
    let (kind, name) = kind(subject, &ends, target);
    let mut explained = Explained { peer: subject.id, with: None, explanation: reached.clone() };
    for (place, end) in others {
        let next = match end {
            Ok(end) => pair(subject, end, &ends, (kind, name), asked_for),
            Err(_) => asked_for.then(Explanation::default),
        };
        let Some(next) = next else { continue };
        let of_other = reach(place, by, end.as_ref().err());
        let explanation = reached.clone().then(|| of_other).then(|| next);
        let faulty = explanation.fault().is_some();
        if faulty || explained.with.is_none() {
            (explained.explanation, explained.with) = (explanation, Some(place.id));
        }
        if faulty {
            break;
        }
    }
    if explained.with.is_none() {
        let alone = || match kind {
            Kind::Group => explain_group(subject, None, name),
            Kind::Stream => Explanation::without_counterpart(subject, by.id, &stream(name)),
            Kind::Store => Explanation::without_store_counterpart(subject, by.id, &store(name)),
        };
        explained.explanation = reached.clone().then(alone);
    }
    explained
}

/// Whether a node can be found and asked at all.
pub(super) fn reach(place: &Place, by: &NodeReport, error: Option<&AskError>) -> Explanation {
    let admitted = admission(by.id, &by.refusals, place.id, (place.known, error.is_none()));
    admitted.then(|| explain_peer(place.id, by.id, place.known, error.map_or(Ok(()), Err)))
}

/// Whether a stream, a group or a store is meant: what the node itself has of that name, else what others have.
fn kind<'a>(subject: &End, others: &[&End], target: &'a str) -> (Kind, &'a str) {
    if let Some(name) = target.strip_prefix("stream:") {
        return (Kind::Stream, name);
    }
    if let Some(name) = target.strip_prefix("group:") {
        return (Kind::Group, name);
    }
    if let Some(name) = target.strip_prefix("store:") {
        return (Kind::Store, name);
    }
    let (stream, store) = (stream(target).id, store(target).id);
    for end in std::iter::once(&subject).chain(others) {
        if end.streams.iter().any(|report| report.stream().id == stream) {
            return (Kind::Stream, target);
        }
        if end.groups.iter().any(|group| means(group, target)) {
            return (Kind::Group, target);
        }
        if end.stores.iter().any(|report| report.store().id == store) {
            return (Kind::Store, target);
        }
    }
    (Kind::Stream, target)
}

fn means(group: &GroupReport, name: &str) -> bool {
    group.name == name || group.group.to_string() == name
}

// Any text is an id: 64 hex digits, or a name.
fn stream(name: &str) -> Named<StreamId> {
    let id = name.parse().unwrap_or_else(|_| StreamId::from(name));
    Named { id, name: names::of(id.as_bytes()) }
}

fn store(name: &str) -> Named<StoreId> {
    let id = name.parse().unwrap_or_else(|_| StoreId::from(name));
    Named { id, name: names::of(id.as_bytes()) }
}

fn has(end: &End, stream: StreamId, produces: bool) -> bool {
    let fits = |report: &StreamReport| matches!(report, StreamReport::Producer(_)) == produces;
    end.streams.iter().any(|report| report.stream().id == stream && fits(report))
}

/// Compares the node with another one; nothing if that has no part in it. One that was asked for is always compared.
fn pair(subject: &End, other: &End, all: &[&End], (kind, name): (Kind, &str), asked_for: bool) -> Option<Explanation> {
    if kind == Kind::Group {
        let involved = asked_for || is_fellow(subject, other, all, name);
        return involved.then(|| explain_group(subject, Some(other), name));
    }
    if kind == Kind::Store {
        return store_pair(subject, other, &store(name), asked_for);
    }
    let stream = stream(name);
    let id = stream.id;
    if has(subject, id, false) && (has(other, id, true) || (asked_for && !has(subject, id, true))) {
        return Some(explain_stream(other, subject, &stream));
    }
    let produces = has(subject, id, true) && has(other, id, false);
    (produces || asked_for).then(|| explain_stream(subject, other, &stream))
}

fn store_pair(subject: &End, other: &End, store: &Named<StoreId>, asked_for: bool) -> Option<Explanation> {
    let is_primary = |end: &End| end.primary(store.id).is_some();
    let is_replica = |end: &End| end.replicas(store.id).next().is_some();
    if is_replica(subject) && (is_primary(other) || (asked_for && !is_primary(subject))) {
        return Some(explain_store(other, subject, store));
    }
    let serves = is_primary(subject) && is_replica(other);
    (serves || asked_for).then(|| explain_store(subject, other, store))
}

/// Whether another node is, or means to be, a member of the node's group. One machine may run in several groups: one of
/// another key counts only if nobody has the same key.
fn is_fellow(subject: &End, other: &End, all: &[&End], name: &str) -> bool {
    let Some(ours) = subject.groups.iter().find(|group| means(group, name)) else {
        return other.groups.iter().any(|group| means(group, name));
    };
    let shares = |end: &End| end.groups.iter().any(|group| group.group == ours.group);
    let somebody = all.iter().any(|end| end.id != subject.id && shares(end));
    shares(other) || (!somebody && other.groups.iter().any(|group| group.name == ours.name))
}
