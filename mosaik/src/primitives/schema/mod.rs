//! [`Schema`]: the shape of a type as serde sees it, as deep as it goes: names of containers, fields and variants in their
//! order, and the types of leaves. Two programs compare it before they exchange values, and name the first difference.
//!
//! Where the type cannot be looked into stands an opaque part: what describes itself, and what accepts only values that
//! nobody can make up. Such parts are compared by the name of the container that they are in.

mod compare;
mod evolve;
#[cfg(feature = "cli")]
mod read;
mod trace;

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use trace::{Body, Container, Found, Part};

pub use compare::Difference;
pub use evolve::Evolve;
pub(crate) use evolve::Readable;
use evolve::{Field, Need};
#[cfg(feature = "cli")]
pub(crate) use read::Value;
#[cfg(test)]
pub(crate) use trace::samples;

/// Most nodes of a schema that is read from a peer.
const MAX_NODES: usize = 4_096;
/// Most characters of a text that a fingerprint is made of.
const MAX_TEXT: usize = 1 << 20;

/// The shape of a type: a table of nodes, the first of which is the type itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    nodes: Vec<Node>,
}

/// One part of a shape; numbers are places in the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Node {
    /// Nothing is known of it.
    Opaque(String),
    Leaf(String),
    Option(u32),
    Seq(u32),
    Map(u32, u32),
    Tuple(Vec<u32>),
    Array(u32, u64),
    Container(String, Content),
    Enum(String, Vec<(String, Content)>),
}

/// What a struct or a variant has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Content {
    Unit,
    Newtype(u32),
    Tuple(Vec<u32>),
    Struct(Vec<(String, u32)>),
}

/// What the writer of a value may name, and how the reader knows it: what a checking serializer compares.
#[derive(Debug)]
pub(crate) struct Known {
    /// The struct's or enum's name.
    pub(crate) name: &'static str,
    /// The variant, by its index and name.
    pub(crate) variant: Option<(u32, &'static str)>,
    /// The names of the fields; of a tuple, as many empty names. `None`: there is nothing to count.
    pub(crate) fields: Option<Vec<&'static str>>,
}

/// A type as its `Deserialize` shows it.
#[derive(Debug)]
pub(crate) struct Described {
    pub(crate) schema: Schema,
    pub(crate) known: Vec<Known>,
    /// Why postcard may not carry it.
    pub(crate) unproven: Option<String>,
}

impl Described {
    pub(crate) fn of<T: DeserializeOwned>() -> Self {
        Self::made(trace::trace::<T>(false)).0
    }

    /// Also which fields a reader can do without.
    fn with_needs<T: DeserializeOwned>() -> (Self, Vec<(Field, Need)>) {
        Self::made(trace::trace::<T>(true))
    }

    fn made(found: Found) -> (Self, Vec<(Field, Need)>) {
        let Found { root, containers, mut unproven, needs } = found;
        if unproven.is_none() && has_endless(&root, &containers) {
            unproven = Some("it has a sequence of elements without bytes".to_owned());
        }
        let known = known(&containers);
        let mut table = Table { containers: &containers, nodes: Vec::new(), places: vec![None; containers.len()] };
        table.add(&root);
        let Table { nodes, places, .. } = table;
        let needs = needs.into_iter().filter_map(|((id, variant, field), need)| {
            Some(((places[id]?, u32::try_from(variant).ok()?, u32::try_from(field).ok()?), need))
        });
        (Self { schema: Schema { nodes }, known, unproven }, needs.collect())
    }
}

/// Everything that a value of the type may name.
fn known(containers: &[Container]) -> Vec<Known> {
    let mut known = Vec::new();
    for Container { name, body, .. } in containers {
        match body {
            Body::Enum(names, variants) => {
                for (index, (variant, details)) in (0..).zip(names.iter().zip(variants)) {
                    known.push(Known { name, variant: Some((index, variant)), fields: fields(&details.body) });
                }
            }
            body => known.push(Known { name, variant: None, fields: fields(body) }),
        }
    }
    known
}

fn fields(body: &Body) -> Option<Vec<&'static str>> {
    match body {
        Body::Struct(names, _) => Some(names.clone()),
        Body::Tuple(parts) => Some(vec![""; parts.len()]),
        _ => None,
    }
}

/// Whether a sequence says its length and then has no bytes: a few bytes could say that it is endless.
fn has_endless(root: &Part, containers: &[Container]) -> bool {
    let parts = containers.iter().flat_map(|container| match &container.body {
        Body::Enum(_, variants) => variants.iter().flat_map(|variant| body_parts(&variant.body)).collect(),
        body => body_parts(body),
    });
    parts.chain([root]).any(|part| endless(part, containers))
}

fn body_parts(body: &Body) -> Vec<&Part> {
    match body {
        Body::Newtype(part) => vec![part],
        Body::Tuple(parts) | Body::Struct(_, parts) => parts.iter().collect(),
        Body::Unit | Body::Enum(..) => Vec::new(),
    }
}

fn endless(part: &Part, containers: &[Container]) -> bool {
    match part {
        Part::Seq(content) => empty(content, containers, 0) || endless(content, containers),
        Part::Map(key, value) => {
            (empty(key, containers, 0) && empty(value, containers, 0))
                || endless(key, containers)
                || endless(value, containers)
        }
        Part::Option(content) | Part::Array(content, _) => endless(content, containers),
        Part::Tuple(parts) => parts.iter().any(|part| endless(part, containers)),
        _ => false,
    }
}

/// Whether values of the part have no bytes.
fn empty(part: &Part, containers: &[Container], depth: usize) -> bool {
    let inside = |part: &Part| depth < 64 && empty(part, containers, depth + 1);
    match part {
        Part::Leaf(name) => *name == "()",
        Part::Tuple(parts) => parts.iter().all(inside),
        Part::Array(content, len) => *len == 0 || inside(content),
        Part::Container(id) => match &containers[*id].body {
            Body::Enum(..) => false,
            body => body_parts(body).into_iter().all(inside),
        },
        _ => false,
    }
}

/// Numbers the parts as they are reached from the first one on, which is the same in every program.
struct Table<'a> {
    containers: &'a [Container],
    nodes: Vec<Node>,
    places: Vec<Option<u32>>,
}

impl Table<'_> {
    fn add(&mut self, part: &Part) -> u32 {
        if let Part::Container(id) = part
            && let Some(place) = self.places[*id]
        {
            return place;
        }
        let place = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        self.nodes.push(Node::Opaque(String::new()));
        let node = match part {
            Part::Unknown => Node::Opaque(String::new()),
            Part::Opaque(name) => Node::Opaque(name.clone()),
            Part::Leaf(name) => Node::Leaf((*name).to_owned()),
            Part::Option(content) => Node::Option(self.add(content)),
            Part::Seq(content) => Node::Seq(self.add(content)),
            Part::Map(key, value) => Node::Map(self.add(key), self.add(value)),
            Part::Tuple(parts) => Node::Tuple(parts.iter().map(|part| self.add(part)).collect()),
            Part::Array(content, len) => Node::Array(self.add(content), *len as u64),
            Part::Container(id) => {
                self.places[*id] = Some(place);
                let Container { name, body, .. } = &self.containers[*id];
                match body {
                    Body::Enum(names, variants) => {
                        let variants = names
                            .iter()
                            .zip(variants)
                            .map(|(variant, details)| ((*variant).to_owned(), self.content(&details.body)));
                        let variants = variants.collect();
                        Node::Enum((*name).to_owned(), variants)
                    }
                    body => Node::Container((*name).to_owned(), self.content(body)),
                }
            }
        };
        if let Some(slot) = self.nodes.get_mut(place as usize) {
            *slot = node;
        }
        place
    }

    fn content(&mut self, body: &Body) -> Content {
        match body {
            Body::Unit | Body::Enum(..) => Content::Unit,
            Body::Newtype(part) => Content::Newtype(self.add(part)),
            Body::Tuple(parts) => Content::Tuple(parts.iter().map(|part| self.add(part)).collect()),
            Body::Struct(names, parts) => Content::Struct(
                names.iter().zip(parts).map(|(name, part)| ((*name).to_owned(), self.add(part))).collect(),
            ),
        }
    }
}

impl Schema {
    /// The shape of a type.
    #[must_use]
    pub fn of<T: DeserializeOwned>() -> Self {
        Described::of::<T>().schema
    }

    /// Nothing is known.
    #[cfg(feature = "cli")]
    pub(crate) fn unknown() -> Self {
        Self { nodes: vec![Node::Opaque(String::new())] }
    }

    /// The name of the type's outermost container, if it is a struct or enum.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self.nodes.first()? {
            Node::Container(name, _) | Node::Enum(name, _) => Some(name),
            _ => None,
        }
    }

    /// 32 bytes that are equal where shapes are, whatever the modules that types are in. The name of the outermost container
    /// does not count: what is compared is known by another name already.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("mosaik schema 2");
        hasher.update(self.text(false).as_bytes());
        *hasher.finalize().as_bytes()
    }

    /// Where there is an option whose content may be nil, too, so that a format with one nil cannot tell the two apart: the type
    /// and the field.
    pub(crate) fn twice_nil(&self) -> Option<String> {
        let twice = |at: &u32| matches!(self.node(*at), Some(Node::Option(inside)) if self.may_be_nil(*inside, 0));
        let field = |name: &str, content: &Content| match content {
            Content::Struct(all) => all.iter().find(|(_, at)| twice(at)).map(|(field, _)| format!("{name}.{field}")),
            Content::Tuple(all) => all.iter().position(twice).map(|at| format!("{name}.{at}")),
            Content::Newtype(at) => twice(at).then(|| format!("{name}.0")),
            Content::Unit => None,
        };
        let named = self.nodes.iter().find_map(|node| match node {
            Node::Container(name, content) => field(name, content),
            Node::Enum(name, variants) => {
                variants.iter().find_map(|(variant, content)| field(&format!("{name}::{variant}"), content))
            }
            _ => None,
        });
        let any = || (0..).zip(&self.nodes).any(|(at, _)| twice(&at));
        named.or_else(|| any().then(|| self.name().unwrap_or("value").to_owned()))
    }

    /// Whether a value of the part may be nothing at all.
    fn may_be_nil(&self, at: u32, depth: usize) -> bool {
        match self.node(at) {
            Some(Node::Option(_)) => true,
            Some(Node::Leaf(name)) => name == "()",
            Some(Node::Container(_, Content::Newtype(inside))) => depth < 64 && self.may_be_nil(*inside, depth + 1),
            _ => false,
        }
    }

    /// Whether all parts could be looked into.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.nodes.iter().any(|node| matches!(node, Node::Opaque(_)))
    }

    /// Whether the table can be read without care: what a peer sent.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let sound = |at: &u32| (*at as usize) < self.nodes.len();
        let content = |content: &Content| match content {
            Content::Unit => true,
            Content::Newtype(at) => sound(at),
            Content::Tuple(all) => all.iter().all(sound),
            Content::Struct(all) => all.iter().all(|(_, at)| sound(at)),
        };
        (1..=MAX_NODES).contains(&self.nodes.len())
            && self.nodes.iter().all(|node| match node {
                Node::Opaque(_) | Node::Leaf(_) => true,
                Node::Option(at) | Node::Seq(at) | Node::Array(at, _) => sound(at),
                Node::Map(key, value) => sound(key) && sound(value),
                Node::Tuple(all) => all.iter().all(sound),
                Node::Container(_, inside) => content(inside),
                Node::Enum(_, variants) => variants.iter().all(|(_, inside)| content(inside)),
            })
    }

    /// The shape as text; parts that were passed on the way are told by their distance.
    fn text(&self, outermost: bool) -> String {
        let mut text = String::new();
        self.write(0, outermost, &mut Vec::new(), &mut text);
        text
    }

    fn write(&self, at: u32, named: bool, around: &mut Vec<u32>, out: &mut String) {
        if let Some(up) = around.iter().rev().position(|other| *other == at) {
            let _ = write!(out, "^{up}");
            return;
        }
        if out.len() > MAX_TEXT {
            return;
        }
        around.push(at);
        let mut each = |all: &mut dyn Iterator<Item = (&str, u32)>, marks: [char; 2], out: &mut String| {
            out.push(marks[0]);
            for (number, (name, at)) in all.enumerate() {
                if number > 0 {
                    out.push(',');
                }
                if !name.is_empty() {
                    let _ = write!(out, "{name}:");
                }
                self.write(at, true, around, out);
            }
            out.push(marks[1]);
        };
        let mut content = |content: &Content, out: &mut String| match content {
            Content::Unit => {}
            Content::Newtype(at) => each(&mut [("", *at)].into_iter(), ['(', ')'], out),
            Content::Tuple(all) => each(&mut all.iter().map(|at| ("", *at)), ['(', ')'], out),
            Content::Struct(all) => {
                each(&mut all.iter().map(|(name, at)| (name.as_str(), *at)), ['{', '}'], out);
            }
        };
        match self.nodes.get(at as usize) {
            None => out.push('_'),
            Some(Node::Opaque(name)) => {
                let _ = write!(out, "opaque({name})");
            }
            Some(Node::Leaf(name)) => out.push_str(name),
            Some(Node::Option(inside)) => each(&mut [("", *inside)].into_iter(), ['?', ' '], out),
            Some(Node::Seq(inside)) => each(&mut [("", *inside)].into_iter(), ['[', ']'], out),
            Some(Node::Array(inside, len)) => {
                each(&mut [("", *inside)].into_iter(), ['[', ';'], out);
                let _ = write!(out, "{len}]");
            }
            Some(Node::Map(key, value)) => each(&mut [("", *key), ("", *value)].into_iter(), ['<', '>'], out),
            Some(Node::Tuple(all)) => each(&mut all.iter().map(|at| ("", *at)), ['(', ')'], out),
            Some(Node::Container(name, inside)) => {
                if named {
                    out.push_str(name);
                }
                content(inside, out);
            }
            Some(Node::Enum(name, variants)) => {
                if named {
                    out.push_str(name);
                }
                out.push('|');
                for (name, inside) in variants {
                    out.push_str(name);
                    content(inside, out);
                    out.push('|');
                }
            }
        }
        around.pop();
    }
}

impl fmt::Display for Schema {
    /// The shape on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(true))
    }
}

#[cfg(test)]
mod tests;
