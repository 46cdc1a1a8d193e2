//! A graph as text: Mermaid for documents, DOT for Graphviz, JSON for programs, and a listing for people.

use std::fmt::Write;

use super::{
    decl::{Direction, Occurs, RoleDecl},
    graph::Graph,
};
use crate::primitives::NetworkId;

/// The first paragraph of a doc comment on one line.
pub(super) fn summary(doc: &str) -> String {
    doc.lines().take_while(|line| !line.trim().is_empty()).map(str::trim).collect::<Vec<_>>().join(" ")
}

impl Graph {
    /// A Mermaid flowchart: boxes are roles, rounded boxes streams.
    #[must_use]
    pub fn to_mermaid(&self) -> String {
        let mut out = String::from("flowchart LR\n");
        for (index, role) in self.roles().enumerate() {
            line(&mut out, &format!("    r{index}[\"{}\"]", role.name));
        }
        self.edges(&mut out, |index, name| format!("    s{index}([\"{}\"])", name.replace('"', "#quot;")), "-->", "");
        out
    }

    /// A Graphviz digraph: boxes are roles, ellipses streams.
    #[must_use]
    pub fn to_dot(&self) -> String {
        let mut out = format!("digraph {} {{\n    rankdir=LR;\n", quoted(self.app));
        for (index, role) in self.roles().enumerate() {
            line(&mut out, &format!("    r{index} [shape=box, label={}];", quoted(role.name)));
        }
        self.edges(&mut out, |index, name| format!("    s{index} [shape=ellipse, label={}];", quoted(name)), "->", ";");
        out.push_str("}\n");
        out
    }

    fn edges(&self, out: &mut String, node: impl Fn(usize, &str) -> String, arrow: &str, end: &str) {
        for (index, stream) in self.streams().iter().enumerate() {
            line(out, &node(index, stream.stream.name));
            for (role, decl) in self.roles().enumerate() {
                if stream.producers.contains(&decl.name) {
                    line(out, &format!("    r{role} {arrow} s{index}{end}"));
                }
                if stream.consumers.contains(&decl.name) {
                    line(out, &format!("    s{index} {arrow} r{role}{end}"));
                }
            }
        }
    }

    /// Everything that is declared, as one JSON object with the keys `app`, `doc`, `version`, `network`, `roles`,
    /// `streams` and `warnings`. Identifiers and fingerprints are 64 hex digits.
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
                ("producers", array(each.producers.iter().map(|name| string(name)))),
                ("consumers", array(each.consumers.iter().map(|name| string(name)))),
            ])
        });
        let mut json = object([
            ("app", string(self.app)),
            ("doc", string(self.doc)),
            ("version", self.version.map_or_else(|| String::from("null"), string)),
            ("network", string(&NetworkId::from(self.app).to_string())),
            ("roles", array(roles)),
            ("streams", array(streams)),
            ("warnings", array(self.warnings().iter().map(|warning| string(&warning.to_string())))),
        ]);
        json.push('\n');
        json
    }

    /// The roles with their tags, flags and streams, for people.
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
            for direction in [Direction::Produces, Direction::Consumes] {
                for endpoint in role.endpoints.iter().filter(|endpoint| endpoint.direction == direction) {
                    line(
                        &mut out,
                        &format!("    {:<9} {} ({})", verb(direction), endpoint.stream.name, endpoint.stream.ty),
                    );
                }
            }
            for arg in role.args {
                line(&mut out, format!("    --{:<7} {}", arg.flag, summary(arg.doc)).trim_end());
            }
        }
        out
    }
}

const fn verb(direction: Direction) -> &'static str {
    match direction {
        Direction::Produces => "produces",
        Direction::Consumes => "consumes",
    }
}

fn role_json(role: &RoleDecl) -> String {
    let endpoints = role.endpoints.iter().map(|endpoint| {
        object([
            ("field", string(endpoint.field)),
            ("direction", string(verb(endpoint.direction))),
            ("stream", string(endpoint.stream.name)),
        ])
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
        ("args", array(args)),
        ("endpoints", array(endpoints)),
    ])
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

fn object<const N: usize>(members: [(&str, String); N]) -> String {
    let members: Vec<String> = members.into_iter().map(|(key, value)| format!("{}:{value}", string(key))).collect();
    format!("{{{}}}", members.join(","))
}

fn array(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(","))
}

/// A JSON string (RFC 8259, section 7).
fn string(text: &str) -> String {
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
fn quoted(text: &str) -> String {
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
