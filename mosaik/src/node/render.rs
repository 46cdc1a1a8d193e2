//! A graph as text: Mermaid for documents, DOT for Graphviz, JSON for programs, and a listing for people.

use std::fmt::Write;

use super::{
    decl::{Direction, EndpointDecl, Link, Occurs, RoleDecl, way},
    graph::{Graph, GroupUse},
    machine::{KeyDecl, MachineDecl},
    store::StoreDecl,
};
use crate::primitives::NetworkId;

/// The first paragraph of a doc comment on one line.
pub(super) fn summary(doc: &str) -> String {
    doc.lines().take_while(|line| !line.trim().is_empty()).map(str::trim).collect::<Vec<_>>().join(" ")
}

impl Graph {
    /// A Mermaid flowchart: boxes are roles, rounded boxes streams, cylinders groups, hexagons stores. A dashed arrow to a group
    /// is that of a client, one from it leads to a stream that it owns.
    #[must_use]
    pub fn to_mermaid(&self) -> String {
        let mut out = String::from("flowchart LR\n");
        for (index, role) in self.roles().enumerate() {
            line(&mut out, &format!("    r{index}[\"{}\"]", role.name));
        }
        self.edges(&mut out, |index, name| format!("    s{index}([\"{}\"])", name.replace('"', "#quot;")), "-->", "");
        for (index, group) in self.groups().iter().enumerate() {
            line(&mut out, &format!("    g{index}[(\"{}\")]", group.machine.group.name.replace('"', "#quot;")));
            for role in self.members(&group.members) {
                line(&mut out, &format!("    r{role} <--> g{index}"));
            }
            for role in self.members(&group.clients) {
                line(&mut out, &format!("    r{role} -.-> g{index}"));
            }
            for stream in self.owned_by(group) {
                line(&mut out, &format!("    g{index} -. owns .-> s{stream}"));
            }
        }
        for (index, used) in self.stores().iter().enumerate() {
            line(&mut out, &format!("    k{index}{{{{\"{}\"}}}}", used.store.name.replace('"', "#quot;")));
            self.ends(&mut out, (&used.primaries, &used.replicas), &format!("k{index}"), "-->", "");
        }
        out
    }

    /// A Graphviz digraph: boxes are roles, ellipses streams, cylinders groups, hexagons stores. A dashed arrow to a group is
    /// that of a client, a dotted one from it leads to a stream that it owns.
    #[must_use]
    pub fn to_dot(&self) -> String {
        let mut out = format!("digraph {} {{\n    rankdir=LR;\n", quoted(self.app));
        for (index, role) in self.roles().enumerate() {
            line(&mut out, &format!("    r{index} [shape=box, label={}];", quoted(role.name)));
        }
        self.edges(&mut out, |index, name| format!("    s{index} [shape=ellipse, label={}];", quoted(name)), "->", ";");
        for (index, group) in self.groups().iter().enumerate() {
            let name = quoted(group.machine.group.name);
            line(&mut out, &format!("    g{index} [shape=cylinder, label={name}];"));
            for role in self.members(&group.members) {
                line(&mut out, &format!("    r{role} -> g{index} [dir=both];"));
            }
            for role in self.members(&group.clients) {
                line(&mut out, &format!("    r{role} -> g{index} [style=dashed];"));
            }
            for stream in self.owned_by(group) {
                line(&mut out, &format!("    g{index} -> s{stream} [style=dotted, label=owns];"));
            }
        }
        for (index, used) in self.stores().iter().enumerate() {
            line(&mut out, &format!("    k{index} [shape=hexagon, label={}];", quoted(used.store.name)));
            self.ends(&mut out, (&used.primaries, &used.replicas), &format!("k{index}"), "->", ";");
        }
        out.push_str("}\n");
        out
    }

    /// The numbers of the streams that a group owns.
    fn owned_by(&self, group: &GroupUse) -> impl Iterator<Item = usize> {
        let owner = Some(group.machine.group.name);
        self.streams()
            .into_iter()
            .enumerate()
            .filter(move |(_, used)| used.stream.owner == owner)
            .map(|(index, _)| index)
    }

    /// The numbers of the roles of these names.
    fn members(&self, names: &[&'static str]) -> impl Iterator<Item = usize> {
        self.roles().enumerate().filter(|(_, role)| names.contains(&role.name)).map(|(index, _)| index)
    }

    fn edges(&self, out: &mut String, node: impl Fn(usize, &str) -> String, arrow: &str, end: &str) {
        for (index, stream) in self.streams().iter().enumerate() {
            line(out, &node(index, stream.stream.name));
            self.ends(out, (&stream.producers, &stream.consumers), &format!("s{index}"), arrow, end);
        }
    }

    /// The arrows from the first of two lists of roles to a node and from it to the second.
    fn ends(
        &self,
        out: &mut String,
        (from, to): (&[&'static str], &[&'static str]),
        node: &str,
        arrow: &str,
        end: &str,
    ) {
        for (role, decl) in self.roles().enumerate() {
            if from.contains(&decl.name) {
                line(out, &format!("    r{role} {arrow} {node}{end}"));
            }
            if to.contains(&decl.name) {
                line(out, &format!("    {node} {arrow} r{role}{end}"));
            }
        }
    }

    /// Everything that is declared, as one JSON object with the keys `app`, `doc`, `version`, `network`, `roles`,
    /// `streams`, `groups`, `stores` and `warnings`. Identifiers and fingerprints are 64 hex digits.
    #[must_use]
    pub fn to_json(&self) -> String {
        let roles = self.roles().map(role_json);
        let streams = self.streams().into_iter().map(|each| {
            object([
                ("name", string(each.stream.name)),
                ("id", string(&each.stream.id.to_string())),
                ("type", string(each.stream.ty)),
                ("doc", string(each.stream.doc)),
                ("shape", string(each.stream.shape)),
                ("schema", string(&each.stream.schema.to_string())),
                ("produce", texts(each.stream.produce)),
                ("consume", texts(each.stream.consume)),
                ("label", optional(each.stream.label)),
                ("owner", optional(each.stream.owner)),
                ("producers", array(each.producers.iter().map(|name| string(name)))),
                ("consumers", array(each.consumers.iter().map(|name| string(name)))),
            ])
        });
        let mut json = object([
            ("app", string(self.app)),
            ("doc", string(self.doc)),
            ("version", optional(self.version)),
            ("network", string(&NetworkId::from(self.app).to_string())),
            ("roles", array(roles)),
            ("streams", array(streams)),
            ("groups", array(self.groups().iter().map(group_json))),
            (
                "stores",
                array(self.stores().iter().map(|each| store_json(&each.store, &each.primaries, &each.replicas))),
            ),
            ("warnings", array(self.warnings().iter().map(|warning| string(&warning.to_string())))),
        ]);
        json.push('\n');
        json
    }

    /// The roles with their tags, flags, streams, groups and stores, for people.
    #[must_use]
    pub fn to_listing(&self) -> String {
        let mut out = String::new();
        for role in self.roles() {
            let doc = summary(role.doc);
            line(&mut out, &if doc.is_empty() { role.name.to_owned() } else { format!("{}: {doc}", role.name) });
            if !role.tags.is_empty() {
                let tags: Vec<_> = role.tags.iter().map(|tag| tag.name).collect();
                line(&mut out, &format!("    tags      {}", tags.join(", ")));
            }
            if !role.clears.is_empty() {
                line(&mut out, &format!("    clears    {}", role.clears.join(", ")));
            }
            if let Some(file) = role.attest {
                line(&mut out, &format!("    attested  by {file}"));
            }
            for direction in [Direction::Produces, Direction::Consumes] {
                let streams = role.endpoints.iter().filter_map(|end| Some((end, end.stream()?)));
                for (end, (_, stream)) in streams.filter(|(_, (its, _))| *its == direction) {
                    let granted = granted(way(direction, stream.produce, stream.consume));
                    let (verb, options) = (verb(direction), declared(end));
                    let owned = stream.owner.map_or_else(String::new, |group| format!(", owned by {group}"));
                    line(&mut out, &format!("    {verb:<9} {} ({}){owned}{granted}{options}", stream.name, stream.ty));
                }
            }
            for (end, machine) in role.endpoints.iter().filter_map(|end| Some((end, end.machine()?))) {
                let granted = granted(machine.group.member);
                line(&mut out, &format!("    member of {}{granted}{}", described(machine), declared(end)));
            }
            for (end, machine) in role.endpoints.iter().filter_map(|end| Some((end, end.called()?))) {
                let granted = granted(machine.group.call);
                line(&mut out, &format!("    calls     {}{granted}{}", described(machine), declared(end)));
            }
            for (end, (direction, store)) in role.endpoints.iter().filter_map(|end| Some((end, end.store()?))) {
                let granted = granted(way(direction, store.primary, store.replica));
                let (part, options) = (part(direction), declared(end));
                let owned = store.owner.map_or_else(String::new, |group| format!(", owned by {group}"));
                line(&mut out, &format!("    {part:<9} {} ({}){owned}{granted}{options}", store.name, store.ty));
            }
            for arg in role.args {
                line(&mut out, format!("    --{:<7} {}", arg.flag, summary(arg.doc)).trim_end());
            }
        }
        out
    }
}

const fn verb(direction: Direction) -> &'static str {
    way(direction, "produces", "consumes")
}

/// What a role does with a store.
const fn part(direction: Direction) -> &'static str {
    way(direction, "changes", "follows")
}

/// A group with its machine, size and key, for a listing.
fn described(machine: &MachineDecl) -> String {
    let group = &machine.group;
    let size = group.size.map_or_else(String::new, |size| format!(", {size} founders"));
    let key = match group.key {
        KeyDecl::Env(variable) => format!(", key in {variable}"),
        KeyDecl::File(path) => format!(", key in the file {path}"),
        KeyDecl::Secret | KeyDecl::Value => String::new(),
    };
    format!("{} ({}{size}{key})", group.name, group.ty)
}

fn group_json(GroupUse { machine, members, clients }: &GroupUse) -> String {
    let group = &machine.group;
    let null = || String::from("null");
    let variable = match group.key {
        KeyDecl::Env(variable) => string(variable),
        KeyDecl::File(_) | KeyDecl::Secret | KeyDecl::Value => null(),
    };
    let names = |methods: &[super::machine::MethodDecl]| array(methods.iter().map(|method| string(method.name)));
    object([
        ("name", string(group.name)),
        ("type", string(group.ty)),
        ("doc", string(group.doc)),
        ("size", group.size.map_or_else(null, |size| size.to_string())),
        ("key_variable", variable),
        ("version", machine.version.to_string()),
        ("schema", machine.fingerprint().map_or_else(null, |schema| string(&schema))),
        ("commands", names(machine.commands)),
        ("queries", names(machine.queries)),
        ("states", machine.states.map_or_else(null, |states| states.to_json())),
        ("member", texts(group.member)),
        ("call", texts(group.call)),
        ("label", optional(group.label)),
        ("members", array(members.iter().map(|name| string(name)))),
        ("clients", array(clients.iter().map(|name| string(name)))),
    ])
}

fn store_json(store: &StoreDecl, primaries: &[&'static str], replicas: &[&'static str]) -> String {
    object([
        ("name", string(store.name)),
        ("id", string(&store.id.to_string())),
        ("type", string(store.ty)),
        ("doc", string(store.doc)),
        ("delta", string(store.delta)),
        ("version", store.version.to_string()),
        ("schema", string(&store.schema.to_string())),
        ("primary", texts(store.primary)),
        ("replica", texts(store.replica)),
        ("label", optional(store.label)),
        ("owner", optional(store.owner)),
        ("primaries", array(primaries.iter().map(|name| string(name)))),
        ("replicas", array(replicas.iter().map(|name| string(name)))),
    ])
}

fn role_json(role: &RoleDecl) -> String {
    let endpoints = role.endpoints.iter().map(|endpoint| match &endpoint.link {
        Link::Stream { direction, stream, .. } => object([
            ("field", string(endpoint.field)),
            ("direction", string(verb(*direction))),
            ("stream", string(stream.name)),
            ("declared", declared_json(endpoint)),
        ]),
        Link::Group(machine) => object([
            ("field", string(endpoint.field)),
            ("direction", string("replicates")),
            ("group", string(machine.group.name)),
            ("declared", declared_json(endpoint)),
        ]),
        Link::Client(machine) => object([
            ("field", string(endpoint.field)),
            ("direction", string("calls")),
            ("group", string(machine.group.name)),
            ("declared", declared_json(endpoint)),
        ]),
        Link::Store { direction, store } => object([
            ("field", string(endpoint.field)),
            ("direction", string(part(*direction))),
            ("store", string(store.name)),
            ("declared", declared_json(endpoint)),
        ]),
    });
    let args = role.args.iter().map(|arg| {
        let default = match arg.occurs {
            Occurs::Default(text) | Occurs::Computed(text) => string(text),
            _ => String::from("null"),
        };
        object([
            ("flag", string(arg.flag)),
            ("doc", string(arg.doc)),
            ("required", (arg.occurs == Occurs::Required).to_string()),
            ("default", default),
        ])
    });
    object([
        ("name", string(role.name)),
        ("type", string(role.ty)),
        ("doc", string(role.doc)),
        ("tags", array(role.tags.iter().map(|tag| string(tag.name)))),
        ("clears", texts(role.clears)),
        ("attest", optional(role.attest)),
        ("args", array(args)),
        ("endpoints", array(endpoints)),
    ])
}

/// What a field says beside its type, and where.
fn declared_json(endpoint: &EndpointDecl) -> String {
    let options = endpoint.options.iter().map(|option| format!("{}:{}", string(option.key), string(option.value)));
    object([
        ("optional", endpoint.optional.to_string()),
        ("options", format!("{{{}}}", options.collect::<Vec<_>>().join(","))),
        ("file", string(endpoint.place.file)),
        ("line", endpoint.place.line.to_string()),
    ])
}

/// The grants of which it needs one, for a listing.
fn granted(names: &[&str]) -> String {
    if names.is_empty() { String::new() } else { format!(", granted to {}", names.join(" or ")) }
}

/// A text as JSON, or null.
fn optional(text: Option<&str>) -> String {
    text.map_or_else(|| String::from("null"), string)
}

/// Names as JSON.
pub(super) fn texts(names: &[&str]) -> String {
    array(names.iter().map(|name| string(name)))
}

/// The label and the options of an endpoint behind what it is connected to, for a listing.
fn declared(endpoint: &EndpointDecl) -> String {
    let label = endpoint.label().map_or_else(String::new, |label| format!(", labelled {label}"));
    let options = endpoint.options.iter().map(|option| match option.value {
        "" => option.key.to_owned(),
        value => format!("{} = {value}", option.key),
    });
    let all: Vec<_> = endpoint.optional.then(|| String::from("optional")).into_iter().chain(options).collect();
    if all.is_empty() { label } else { format!("{label} [{}]", all.join(", ")) }
}

pub(super) fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

pub(super) fn object<const N: usize>(members: [(&str, String); N]) -> String {
    let members: Vec<String> = members.into_iter().map(|(key, value)| format!("{}:{value}", string(key))).collect();
    format!("{{{}}}", members.join(","))
}

pub(super) fn array(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(","))
}

/// A JSON string (RFC 8259, section 7).
pub(super) fn string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            c if u32::from(c) < 0x20 => {
                // Writing to a String does not fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A DOT string: only the quote is special.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_strings_are_escaped() {
        assert_eq!(string("a\"b\\c\nd\u{1}é"), "\"a\\\"b\\\\c\\nd\\u0001é\"");
    }

    #[test]
    fn a_summary_is_the_first_paragraph() {
        assert_eq!(summary("One\n two.\n\nThree."), "One two.");
        assert_eq!(summary(""), "");
    }
}
