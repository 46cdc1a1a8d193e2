//! Whether a cluster is as its app declares it, and what is missing if not: every pair of ends by the checks of `explain`.

use std::{fmt, time::Duration};

use super::{Inner, member::Member};
use crate::{
    diagnostics::{Diagnostics, End, Explanation, Fault, Named, explain_group, explain_store, explain_stream},
    network::Network,
    node::{Direction, EndpointDecl, RoleHandle},
    testing::eventually,
};

/// Something that an app declares and that is not so.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MissingEdge {
    /// The node at one end: the producer, the primary, the member.
    pub from: Member,
    /// The node at the other end; nothing when it is about the first one alone.
    pub to: Option<Member>,
    /// What connects them: `stream "readings"`.
    pub what: String,
    /// Why it does not.
    pub why: String,
}

impl fmt::Display for MissingEdge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, what, why } = self;
        match to {
            Some(to) => write!(f, "{what} from {from} to {to}: {why}"),
            None => write!(f, "{what} of {from}: {why}"),
        }
    }
}

/// A cluster is not as it is declared.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NotConverged {
    /// How long it was waited for.
    pub after: Duration,
    /// What is missing.
    pub missing: Vec<MissingEdge>,
}

impl std::error::Error for NotConverged {}

impl fmt::Display for NotConverged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not as declared after {:?}:", self.after)?;
        self.missing.iter().try_for_each(|edge| write!(f, "\n  {edge}"))
    }
}

pub(super) async fn converged(inner: &Inner, within: Duration) -> Result<(), NotConverged> {
    if eventually(within, || missing(inner, true).is_empty()).await {
        return Ok(());
    }
    Err(NotConverged { after: within, missing: missing(inner, false) })
}

/// A node that runs, and what it says of itself.
struct Seen {
    member: Member,
    endpoints: &'static [EndpointDecl],
    end: End,
}

/// What is not as declared: all of it, or the first thing.
fn missing(inner: &Inner, first: bool) -> Vec<MissingEdge> {
    let (mut seen, mut missing) = (Vec::new(), Vec::new());
    for instance in &inner.instances {
        let member = instance.member;
        let (why, network) = match &*instance.running() {
            None => (Some("it is down".to_owned()), None),
            Some(running) => (unready(&running.handle), Some(running.network.clone())),
        };
        missing.extend(why.map(|why| MissingEdge { from: member, to: None, what: "the role".to_owned(), why }));
        if first && !missing.is_empty() {
            return missing;
        }
        let endpoints = instance.entry.role.endpoints;
        seen.extend(network.map(|network| Seen { member, endpoints, end: end_of(&network) }));
    }
    for from in &seen {
        for endpoint in from.endpoints {
            missing.extend(of_endpoint(from, endpoint, &seen));
            if first && !missing.is_empty() {
                return missing;
            }
        }
    }
    missing
}

fn unready(handle: &RoleHandle) -> Option<String> {
    if let Some(ended) = handle.has_ended() {
        return Some(ended.err().map_or_else(|| "it has stopped".to_owned(), |error| error.to_string()));
    }
    (!handle.is_ready()).then(|| "it is not ready".to_owned())
}

fn end_of(network: &Network) -> End {
    let diagnostics: &Diagnostics = network.diagnostics();
    let (peers, streams) = (diagnostics.peers(), diagnostics.streams());
    let refusals = diagnostics.node().refusals;
    End::new(network.local().id(), peers, streams, diagnostics.groups(), diagnostics.stores()).with_refusals(refusals)
}

fn of_endpoint(from: &Seen, endpoint: &EndpointDecl, seen: &[Seen]) -> Vec<MissingEdge> {
    let edge = |to: &Seen, what: String, explained: &Explanation, forgiven: &[Fault]| {
        let failed = explained.failed().filter(|check| check.fault.is_none_or(|fault| !forgiven.contains(&fault)))?;
        let other = (to.member != from.member).then_some(to.member);
        Some(MissingEdge { from: from.member, to: other, what, why: failed.found.clone() })
    };
    if let Some((Direction::Produces, stream)) = endpoint.stream() {
        let named = Named { id: stream.id, name: Some(stream.name.to_owned()) };
        let ends = seen.iter().filter_map(|to| {
            let mut consumers = to.endpoints.iter().filter(|end| {
                end.stream().is_some_and(|(way, other)| way == Direction::Consumes && other.id == stream.id)
            });
            Some((to, consumers.next()?))
        });
        let edges = ends.filter_map(|(to, consumer)| {
            let explained = explain_stream(&from.end, &to.end, &named);
            edge(to, format!("stream \"{}\"", stream.name), &explained, &forgiven(endpoint, consumer))
        });
        return edges.collect();
    }
    if let Some((Direction::Produces, store)) = endpoint.store() {
        let named = Named { id: store.id, name: Some(store.name.to_owned()) };
        let ends = seen.iter().filter_map(|to| {
            let mut replicas = to.endpoints.iter().filter(|end| {
                end.store().is_some_and(|(way, other)| way == Direction::Consumes && other.id == store.id)
            });
            Some((to, replicas.next()?))
        });
        let edges = ends.filter_map(|(to, replica)| {
            let explained = explain_store(&from.end, &to.end, &named);
            edge(to, format!("store \"{}\"", store.name), &explained, &forgiven(endpoint, replica))
        });
        return edges.collect();
    }
    let Some(machine) = endpoint.machine() else { return Vec::new() };
    let name = machine.group.name;
    let is_member =
        |to: &&Seen| to.endpoints.iter().any(|end| end.machine().is_some_and(|other| other.group.name == name));
    let edges = seen.iter().filter(is_member).filter_map(|to| {
        let other = (to.member != from.member).then_some(&to.end);
        edge(to, format!("group \"{name}\""), &explain_group(&from.end, other, name), &forgiven(endpoint, endpoint))
    });
    edges.collect()
}

/// What is no fault between two ends that declare a rule which may keep them apart.
fn forgiven(one: &EndpointDecl, other: &EndpointDecl) -> Vec<Fault> {
    let mut forgiven = Vec::new();
    if one.option("accept_if").is_some() || other.option("subscribe_if").is_some() {
        forgiven.extend([Fault::TagMissing, Fault::PredicateRefused]);
    }
    if one.option("max_consumers").is_some() {
        forgiven.push(Fault::AtCapacity);
    }
    if one.optional || other.optional {
        forgiven.push(Fault::NotInvolved);
    }
    forgiven
}
