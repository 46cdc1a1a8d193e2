//! Prints answers: for people, or as JSON.

use std::{
    fmt::Display,
    io::{IsTerminal, stdout},
    time::Duration,
};

use serde::Serialize;
use serde_json::{Value, json};

use super::super::process::Failure;
use crate::{
    diagnostics::{Answered, AskError, Explained, NodeReport, PeerReport},
    groups::{LeaderPreference, Transferred},
    primitives::PeerId,
};

/// The round trips to a node.
pub(super) struct Pings {
    pub(super) peer: PeerId,
    pub(super) sent: u32,
    pub(super) rtts: Vec<Duration>,
    pub(super) error: Option<AskError>,
}

fn pretty(value: &Value) -> Result<String, Failure> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// What came of sealing a group.
pub(super) fn sealed(machine: &str, member: PeerId, index: u64, json: bool) -> Result<String, Failure> {
    if json {
        return pretty(&json!({ "machine": machine, "member": member, "index": index }));
    }
    Ok(format!(
        "sealed at index {index}, says {member}\nonce `mosaik groups` says so of every member, stop all of them and start the next \
         version\n"
    ))
}

/// What came of handing leadership over.
pub(super) fn transferred(machine: &str, done: Transferred, json: bool) -> Result<String, Failure> {
    let (leader, term) = (done.leader(), done.term());
    if json {
        return pretty(&json!({ "machine": machine, "leader": leader, "term": term, "moved": done.has_moved() }));
    }
    let how = if done.has_moved() { "leads" } else { "leads already" };
    Ok(format!("{leader} {how} in term {term}\n"))
}

/// What a member is to do from now on.
pub(super) fn preferred(
    machine: &str,
    member: PeerId,
    preference: LeaderPreference,
    json: bool,
) -> Result<String, Failure> {
    if json {
        return pretty(&json!({ "machine": machine, "member": member, "preference": preference.to_string() }));
    }
    Ok(format!("{member} is {preference} as leader of {machine} until it ends\n"))
}

/// One more answer of a command that is watched: on a terminal in place of the last one, as JSON on one line.
pub(super) fn again(text: &str, json: bool) -> String {
    if json {
        let lines: Vec<_> = text.lines().map(str::trim_start).collect();
        return lines.concat() + "\n";
    }
    if stdout().is_terminal() { format!("\x1b[2J\x1b[H{text}") } else { format!("{text}\n") }
}

pub(super) fn peers((node, peers): &(NodeReport, Vec<PeerReport>), json: bool) -> Result<String, Failure> {
    if json {
        return pretty(&json!({ "node": node, "peers": peers }));
    }
    let peers: Vec<_> = peers.iter().map(|peer| format!("\n{peer}")).collect();
    Ok(format!("{node}\n{}\n", peers.concat()))
}

pub(super) fn node(node: &NodeReport, json: bool) -> Result<String, Failure> {
    if json { pretty(&serde_json::to_value(node)?) } else { Ok(format!("{node}\n")) }
}

/// What each node has of something.
pub(super) fn by_node<T: Serialize + Display>(
    all: &[Answered<Vec<T>>],
    what: &str,
    json: bool,
) -> Result<String, Failure> {
    if json {
        let node = |(peer, answer): &Answered<Vec<T>>| match answer {
            Ok(list) => json!({ "node": peer, what: list }),
            Err(error) => json!({ "node": peer, "error": error.to_string() }),
        };
        return pretty(&all.iter().map(node).collect());
    }
    let node = |(peer, answer): &Answered<Vec<T>>| match answer {
        Ok(list) if list.is_empty() => None,
        Ok(list) => {
            let list: Vec<_> = list.iter().map(|it| indented(&it.to_string())).collect();
            Some(format!("{peer}\n{}", list.concat()))
        }
        Err(error) => Some(format!("{peer}\n  no answer: {error}\n")),
    };
    let text: Vec<_> = all.iter().filter_map(node).collect();
    Ok(if text.is_empty() { format!("no {what} at {} nodes\n", all.len()) } else { text.concat() })
}

fn indented(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(|line| format!("  {line}\n")).collect();
    lines.concat()
}

pub(super) fn pings(pings: &Pings, json: bool) -> Result<String, Failure> {
    let Pings { peer, sent, rtts, error } = pings;
    let error = error.as_ref().map(ToString::to_string);
    if json {
        let micros: Vec<_> = rtts.iter().map(Duration::as_micros).collect();
        return pretty(&json!({ "peer": peer, "sent": sent, "rtt_us": micros, "error": error }));
    }
    let total: Duration = rtts.iter().sum();
    let mean = total / u32::try_from(rtts.len()).unwrap_or(u32::MAX).max(1);
    let (min, max) = (rtts.iter().min().copied().unwrap_or_default(), rtts.iter().max().copied().unwrap_or_default());
    let error = error.map_or_else(String::new, |error| format!("{error}\n"));
    Ok(format!(
        "{error}{sent} asked, {} answered, {min:.1?} at least, {mean:.1?} on average, {max:.1?} at most\n",
        rtts.len()
    ))
}

pub(super) fn explained(explained: &Explained, json: bool) -> Result<String, Failure> {
    let Explained { peer, with, explanation, .. } = explained;
    let failed = explanation.failed();
    if json {
        return pretty(&json!({
            "peer": peer,
            "with": with,
            "fault": failed.and_then(|check| check.fault),
            "found": failed.map(|check| &check.found),
            "checks": explanation.checks,
        }));
    }
    let with = with.map_or_else(String::new, |with| format!(" and {with}"));
    Ok(format!("{explanation}\nof {peer}{with}\n"))
}
