//! Corridors: what has a label goes only to roles that clear it, and who has received it passes on nothing without that label, except
//! by a field that says why (`declassify`). Checked by the compiler, role by role, in time that grows with the number of fields;
//! what breaks a rule is told with the whole way of the label. [`report`] prints what there is.
//!
//! A stream goes from producers to consumers, a store from its primary to its replicas; members and clients of a group both send
//! to it and receive from it. Who sends what has a label need not clear it: it is the origin.

use std::fmt::Write as _;

use super::{
    app::App,
    decl::{EndpointDecl, RoleDecl, same_text},
    graph::Graph,
};

/// The most roles on a way that is told.
const LONGEST: usize = 16;
/// The longest message in bytes; what does not fit is left out.
const MESSAGE: usize = 2048;

/// A message that is put together at compile time.
struct Message {
    bytes: [u8; MESSAGE],
    len: usize,
}

impl Message {
    const fn new() -> Self {
        Self { bytes: [0; MESSAGE], len: 0 }
    }

    const fn put(&mut self, text: &str) {
        if self.len + text.len() <= MESSAGE {
            self.bytes.split_at_mut(self.len).1.split_at_mut(text.len()).0.copy_from_slice(text.as_bytes());
            self.len += text.len();
        }
    }

    const fn all(&mut self, texts: &[&str]) {
        let mut i = 0;
        while i < texts.len() {
            self.put(texts[i]);
            i += 1;
        }
    }

    /// A stream, group or store on the way.
    const fn target(&mut self, endpoint: &EndpointDecl) {
        let (kind, name) = endpoint.target();
        self.all(&[kind, " ", name]);
        if let Some(label) = endpoint.label() {
            self.all(&[" [", label, "]"]);
        }
    }

    const fn text(&self) -> &str {
        match std::str::from_utf8(self.bytes.split_at(self.len).0) {
            Ok(text) => text,
            // Only whole texts are put.
            Err(_) => "",
        }
    }
}

/// Checks what a role receives and passes on.
///
/// # Panics
/// When it does not clear the label of something that it receives, when it passes on what lacks a label that it receives without saying
/// why, and when it says why on a field that sends nothing.
#[expect(clippy::manual_assert, reason = "a message is put together only when it is told")]
pub(super) const fn check(graph: &'static Graph, index: usize) {
    let role = &graph.roles[index].role;
    let (labels, mut i) = (labels(role), 0);
    while i < role.endpoints.len() {
        let endpoint = &role.endpoints[i];
        let declassified = endpoint.option("declassify").is_some();
        if let Some(label) = endpoint.label()
            && endpoint.receives()
            && !has(role.clears, label)
        {
            panic!("{}", not_cleared(graph, index, endpoint, label).text());
        }
        if declassified && !endpoint.sends() {
            panic!("{}", sends_nothing(role, endpoint).text());
        }
        if endpoint.sends()
            && !declassified
            && let Some(received) = lost(labels, endpoint)
        {
            panic!("{}", passed_on(graph, index, received, endpoint).text());
        }
        i += 1;
    }
}

const fn has(labels: &[&str], label: &str) -> bool {
    let mut i = 0;
    while i < labels.len() {
        if same_text(labels[i], label) {
            return true;
        }
        i += 1;
    }
    false
}

/// A field by which a role receives a label, and one by which it receives another label.
const fn labels(role: &RoleDecl) -> (Option<&'static EndpointDecl>, Option<&'static EndpointDecl>) {
    let (mut first, mut i): (Option<(&EndpointDecl, &str)>, _) = (None, 0);
    while i < role.endpoints.len() {
        let endpoint = &role.endpoints[i];
        if let Some(label) = endpoint.label()
            && endpoint.receives()
        {
            match first {
                None => first = Some((endpoint, label)),
                Some((_, known)) if same_text(known, label) => {}
                Some((known, _)) => return (Some(known), Some(endpoint)),
            }
        }
        i += 1;
    }
    match first {
        Some((endpoint, _)) => (Some(endpoint), None),
        None => (None, None),
    }
}

/// The field by which a role receives a label that what it sends by another one lacks, of those that [`labels`] has found.
const fn lost(
    (first, other): (Option<&'static EndpointDecl>, Option<&'static EndpointDecl>),
    sends: &EndpointDecl,
) -> Option<&'static EndpointDecl> {
    let Some(received) = first else { return None };
    match (sends.label(), received.label()) {
        (Some(own), Some(label)) if same_text(own, label) => other,
        _ => first,
    }
}

const fn not_cleared(graph: &Graph, index: usize, endpoint: &'static EndpointDecl, label: &str) -> Message {
    let (mut out, name) = (Message::new(), graph.roles[index].role.name);
    out.all(&["the label \"", label, "\" reaches the role ", name, ", which does not clear it: "]);
    way(&mut out, graph, index, endpoint, label);
    out.all(&[". If the role may have it: `#[mosaik::node(clears = [\"", label, "\"])]`"]);
    out
}

const fn passed_on(
    graph: &Graph,
    index: usize,
    received: &'static EndpointDecl,
    sends: &'static EndpointDecl,
) -> Message {
    let (mut out, name) = (Message::new(), graph.roles[index].role.name);
    let label = match received.label() {
        Some(label) => label,
        None => "",
    };
    out.all(&["the role ", name, " receives the label \"", label, "\" and passes on what lacks it: "]);
    way(&mut out, graph, index, received, label);
    out.put(" -> ");
    out.target(sends);
    if let Some(next) = receiver(graph, sends, index) {
        out.all(&[" -> ", graph.roles[next].role.name]);
    }
    out.all(&[
        ". Give it the label, or say on the field `",
        sends.field,
        "` why it may be passed on: `#[mosaik(declassify = \"..\")]`",
    ]);
    out
}

const fn sends_nothing(role: &RoleDecl, endpoint: &EndpointDecl) -> Message {
    let mut out = Message::new();
    out.all(&[
        "the field `",
        endpoint.field,
        "` of the role ",
        role.name,
        " sends nothing: `declassify` stands on the ",
    ]);
    out.put("field by which a role passes on what it has received");
    out
}

/// How a label comes to a role: from its origin, as far as it can be found, over every role and what lies between.
const fn way(out: &mut Message, graph: &Graph, index: usize, endpoint: &'static EndpointDecl, label: &str) {
    let mut senders = [0; LONGEST];
    let mut ends = [endpoint; LONGEST];
    let (mut known, mut receiver) = (0, index);
    while known < LONGEST
        && let Some(sender) = sender(graph, ends[known], receiver, senders.split_at(known).0)
    {
        senders[known] = sender;
        known += 1;
        match received(&graph.roles[sender].role, ends[known - 1], label) {
            Some(before) if known < LONGEST => (ends[known], receiver) = (before, sender),
            _ => break,
        }
    }
    // The first in the app are the last that were found.
    if known == 0 {
        out.target(endpoint);
        out.put(" -> ");
    }
    while known > 0 {
        known -= 1;
        out.all(&[graph.roles[senders[known]].role.name, " -> "]);
        out.target(ends[known]);
        out.put(" -> ");
    }
    out.put(graph.roles[index].role.name);
}

/// A role that sends what another one receives, and is not on the way yet.
const fn sender(graph: &Graph, of: &EndpointDecl, receiver: usize, known: &[usize]) -> Option<usize> {
    let mut index = 0;
    while index < graph.roles.len() {
        let mut is_new = index != receiver;
        let mut i = 0;
        while i < known.len() {
            is_new = is_new && known[i] != index;
            i += 1;
        }
        if is_new && any(&graph.roles[index].role, of, true) {
            return Some(index);
        }
        index += 1;
    }
    None
}

/// Another role that receives what one sends.
const fn receiver(graph: &Graph, of: &EndpointDecl, sender: usize) -> Option<usize> {
    let mut index = 0;
    while index < graph.roles.len() {
        if index != sender && any(&graph.roles[index].role, of, false) {
            return Some(index);
        }
        index += 1;
    }
    None
}

/// Whether a role sends, or receives, what another one's field is connected to.
const fn any(role: &RoleDecl, of: &EndpointDecl, sending: bool) -> bool {
    let mut i = 0;
    while i < role.endpoints.len() {
        let endpoint = &role.endpoints[i];
        let fits = if sending { endpoint.sends() } else { endpoint.receives() };
        if fits && endpoint.is_of_the_same(of) {
            return true;
        }
        i += 1;
    }
    false
}

/// The field by which a role receives a label, from something else.
const fn received(role: &RoleDecl, other: &EndpointDecl, label: &str) -> Option<&'static EndpointDecl> {
    let mut i = 0;
    while i < role.endpoints.len() {
        let endpoint = &role.endpoints[i];
        if let Some(own) = endpoint.label()
            && endpoint.receives()
            && same_text(own, label)
            && !endpoint.is_of_the_same(other)
        {
            return Some(endpoint);
        }
        i += 1;
    }
    None
}

/// Checks that nothing which one role sends reaches another one, over whatever roles, streams, groups and stores, whether something is
/// declassified on the way or not. `N` is the number of roles. Called in a constant, so that a violation is a compile error;
/// see [`assert_no_path!`](crate::assert_no_path).
///
/// # Panics
/// When there is a path, which the message names, or the app has no such role.
#[expect(clippy::manual_assert, reason = "a message is put together only when it is told")]
pub const fn assert_no_path<A: App, const N: usize>(from: &str, to: &str) {
    let graph = &A::GRAPH;
    let (from, to) = (role_of(graph, from), role_of(graph, to));
    // Breadth first: `before` is by which role one was reached, and over what.
    let mut before: [Option<(usize, &'static EndpointDecl)>; N] = [None; N];
    let mut queue = [0; N];
    queue[0] = from;
    let (mut next, mut end) = (0, 1);
    while next < end {
        let role = &graph.roles[queue[next]].role;
        let mut i = 0;
        while i < role.endpoints.len() {
            let endpoint: &'static EndpointDecl = &role.endpoints[i];
            let mut index = 0;
            while endpoint.sends() && index < N {
                let is_new = before[index].is_none() && (index != from || index == to);
                if is_new && any(&graph.roles[index].role, endpoint, false) {
                    before[index] = Some((queue[next], endpoint));
                    if index == to {
                        panic!("{}", path(graph, &before, from, to).text());
                    }
                    queue[end] = index;
                    end += 1;
                }
                index += 1;
            }
            i += 1;
        }
        next += 1;
    }
}

const fn role_of(graph: &Graph, name: &str) -> usize {
    let mut index = 0;
    while index < graph.roles.len() {
        if same_text(graph.roles[index].role.name, name) {
            return index;
        }
        index += 1;
    }
    let mut out = Message::new();
    out.all(&["the app ", graph.app, " has no role ", name]);
    panic!("{}", out.text());
}

const fn path(graph: &Graph, before: &[Option<(usize, &'static EndpointDecl)>], from: usize, to: usize) -> Message {
    let mut out = Message::new();
    out.all(&["there is a path from ", graph.roles[from].role.name, " to ", graph.roles[to].role.name, ": "]);
    let mut steps = [0; LONGEST];
    let (mut known, mut at) = (0, to);
    while known < LONGEST
        && let Some((earlier, _)) = before[at]
    {
        steps[known] = at;
        known += 1;
        at = earlier;
        if at == from {
            break;
        }
    }
    out.put(graph.roles[at].role.name);
    while known > 0 {
        known -= 1;
        if let Some((_, endpoint)) = before[steps[known]] {
            out.put(" -> ");
            out.target(endpoint);
            out.all(&[" -> ", graph.roles[steps[known]].role.name]);
        }
    }
    out
}

/// Fails to compile when something that one role of an app sends reaches another one, and names the path. Whether it is labelled or
/// declassified on the way does not matter.
///
/// ```
/// use mosaik::prelude::*;
///
/// #[mosaik::stream]
/// struct Order(u64);
///
/// #[mosaik::node]
/// struct Shop { orders: Producer<Order> }
/// #[mosaik::handlers]
/// impl Shop {}
///
/// #[mosaik::node]
/// struct Kitchen { orders: Consumer<Order> }
/// #[mosaik::handlers]
/// impl Kitchen {}
///
/// #[mosaik::app(roles = [Shop, Kitchen])]
/// struct Diner;
///
/// mosaik::assert_no_path!(Diner: Kitchen => Shop);
/// ```
#[macro_export]
macro_rules! assert_no_path {
    ($app:ty: $from:ty => $to:ty) => {
        #[allow(long_running_const_eval, reason = "ends: it looks at each role once")]
        const _: () = $crate::__private::assert_no_path::<$app, { <$app as $crate::App>::GRAPH.roles.len() }>(
            <$from as $crate::node::Role>::ROLE.name,
            <$to as $crate::node::Role>::ROLE.name,
        );
    };
}

/// An end of a stream, group or store, as the report sees it.
pub(super) struct End<'a> {
    pub(super) role: &'a str,
    pub(super) field: &'a str,
    /// The kind and the name of what it is connected to.
    pub(super) target: (&'a str, &'a str),
    pub(super) label: Option<&'a str>,
    pub(super) sends: bool,
    pub(super) receives: bool,
    pub(super) declassify: Option<&'a str>,
}

/// What is labelled, who has it, and what is declassified for what reason; nothing where there is no label.
pub(super) fn report(ends: &[End<'_>]) -> String {
    let mut out = String::new();
    let mut labels: Vec<&str> = ends.iter().filter_map(|end| end.label).collect();
    labels.sort_unstable();
    labels.dedup();
    // Writing to a String does not fail.
    for label in labels {
        let _ = writeln!(out, "label {label}");
        let mut targets: Vec<_> = ends.iter().filter(|end| end.label == Some(label)).map(|end| end.target).collect();
        targets.sort_unstable();
        targets.dedup();
        for (kind, name) in targets {
            let _ = writeln!(out, "  {kind} {name}: {}", between(ends, (kind, name)));
        }
    }
    for end in ends {
        let (Some(reason), (kind, name)) = (end.declassify, end.target) else { continue };
        let to = roles(ends.iter().filter(|other| other.target == end.target && other.receives));
        let _ = writeln!(out, "declassified by {}.{}: {kind} {name} to {to}\n  {reason}", end.role, end.field);
    }
    out
}

/// The roles at both sides.
fn between(ends: &[End<'_>], target: (&str, &str)) -> String {
    let of = || ends.iter().filter(move |end| end.target == target);
    let both = roles(of().filter(|end| end.sends && end.receives));
    if target.0 == "group" {
        return both;
    }
    format!("{} -> {}", roles(of().filter(|end| end.sends)), roles(of().filter(|end| end.receives)))
}

fn roles<'a>(ends: impl Iterator<Item = &'a End<'a>>) -> String {
    let mut names: Vec<&str> = Vec::new();
    for end in ends {
        if !names.contains(&end.role) {
            names.push(end.role);
        }
    }
    if names.is_empty() { String::from("nobody") } else { names.join(", ") }
}

impl Graph {
    /// What is labelled, which roles have it, and what is declassified by which field for what reason.
    #[must_use]
    pub fn corridors(&self) -> String {
        let ends: Vec<_> =
            self.roles().flat_map(|role| role.endpoints.iter().map(move |end| End::of(role, end))).collect();
        let report = report(&ends);
        if report.is_empty() { String::from("nothing is labelled\n") } else { report }
    }
}

impl End<'static> {
    fn of(role: &'static RoleDecl, endpoint: &'static EndpointDecl) -> Self {
        Self {
            role: role.name,
            field: endpoint.field,
            target: endpoint.target(),
            label: endpoint.label(),
            sends: endpoint.sends(),
            receives: endpoint.receives(),
            declassify: endpoint.option("declassify"),
        }
    }
}

/// Whether a field declassifies nothing: the role receives no label, or none that what it sends lacks.
pub(super) fn declassifies_nothing(role: &RoleDecl, endpoint: &EndpointDecl) -> bool {
    endpoint.option("declassify").is_some() && lost(labels(role), endpoint).is_none()
}
