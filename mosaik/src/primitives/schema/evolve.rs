//! Types that may grow: whether what one program writes by names can be read by another one, although their types differ.
//!
//! The rule: what both have is alike, as deep as it goes. A field that only the reader has is one that it can do without
//! (`#[serde(default)]`, an `Option`). Fields and variants that only the writer has do not matter: the reader passes the fields
//! over, and an item with such a variant cannot be decoded there, which is counted and told. Order does not matter.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Content, Described, Difference, Node, Schema, compare::words};

/// How the items of a stream may change from one program to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Evolve {
    /// Not at all: both ends have the same shape.
    #[default]
    Strict,
    /// New fields that the reader can do without, and new variants, both ways. Items are written with `MessagePack`.
    Append,
}

/// A field of a struct or of a variant: the node, the variant's place (of a struct 0), the field's place.
pub(super) type Field = (u32, u32, u32);

/// What a reader says of a field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Need {
    /// It may be missing.
    Optional,
    /// It may be written under this name.
    Alias(String),
}

/// The shape of a type together with what a reader of it can do without.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Readable {
    pub(crate) schema: Schema,
    pub(super) needs: Vec<(Field, Need)>,
}

impl Readable {
    pub(crate) fn of<T: DeserializeOwned>() -> Self {
        let (Described { schema, .. }, needs) = Described::with_needs::<T>();
        Self { schema, needs }
    }

    /// What keeps this reader from reading what is written with the other shape. `swapped`: the writer is this side, in the
    /// words of the difference.
    pub(crate) fn unreadable(&self, writer: &Schema, swapped: bool) -> Option<Difference> {
        let mut walk = Walk { reader: &self.schema, writer, needs: &self.needs, passed: BTreeSet::new() };
        let difference = walk.nodes(0, 0, self.schema.name().unwrap_or("value"), true)?;
        let Difference { path, ours, theirs } = difference;
        let (ours, theirs) = if swapped { (theirs, ours) } else { (ours, theirs) };
        Some(Difference { path, ours, theirs })
    }
}

struct Walk<'a> {
    reader: &'a Schema,
    writer: &'a Schema,
    needs: &'a [(Field, Need)],
    passed: BTreeSet<(u32, u32)>,
}

impl Walk<'_> {
    fn nodes(&mut self, reader: u32, writer: u32, path: &str, outermost: bool) -> Option<Difference> {
        // A pair that was passed is alike, or its difference is found where it was passed.
        if !self.passed.insert((reader, writer)) || self.passed.len() > 1 << 16 {
            return None;
        }
        let (one, other) = (self.reader.node(reader)?.clone(), self.writer.node(writer)?.clone());
        match (one, other) {
            (Node::Leaf(one), Node::Leaf(other)) | (Node::Opaque(one), Node::Opaque(other)) if one == other => None,
            (Node::Option(one), Node::Option(other)) => self.nodes(one, other, path, false),
            (Node::Seq(one), Node::Seq(other)) => self.nodes(one, other, &format!("{path}[]"), false),
            (Node::Array(one, count), Node::Array(other, counted)) if count == counted => {
                self.nodes(one, other, &format!("{path}[]"), false)
            }
            (Node::Map(key, value), Node::Map(other_key, other_value)) => self
                .nodes(key, other_key, &format!("{path}{{key}}"), false)
                .or_else(|| self.nodes(value, other_value, &format!("{path}{{}}"), false)),
            (Node::Tuple(one), Node::Tuple(other)) if one.len() == other.len() => self.all(&one, &other, path),
            (Node::Container(one, inside), Node::Container(other, other_inside)) if outermost || one == other => {
                self.contents((reader, 0), &inside, &other_inside, path)
            }
            (Node::Enum(one, variants), Node::Enum(other, theirs)) if outermost || one == other => {
                (0..).zip(&variants).find_map(|(at, (name, inside))| {
                    let (_, other) = theirs.iter().find(|(other, _)| other == name)?;
                    self.contents((reader, at), inside, other, &format!("{path}::{name}"))
                })
            }
            _ => {
                let (ours, theirs) = (self.reader.words(reader), self.writer.words(writer));
                Some(Difference { path: path.to_owned(), ours, theirs })
            }
        }
    }

    fn all(&mut self, reader: &[u32], writer: &[u32], path: &str) -> Option<Difference> {
        let pairs = reader.iter().zip(writer).enumerate();
        pairs.into_iter().find_map(|(at, (one, other))| self.nodes(*one, *other, &format!("{path}.{at}"), false))
    }

    fn contents(&mut self, at: (u32, u32), reader: &Content, writer: &Content, path: &str) -> Option<Difference> {
        match (reader, writer) {
            (Content::Unit, Content::Unit) => None,
            (Content::Newtype(one), Content::Newtype(other)) => self.nodes(*one, *other, &format!("{path}.0"), false),
            (Content::Tuple(one), Content::Tuple(other)) if one.len() == other.len() => self.all(one, other, path),
            (Content::Struct(one), Content::Struct(other)) => (0..)
                .zip(one)
                .find_map(|(field, (name, part))| self.field((at.0, at.1, field), name, *part, other, path)),
            (ours, theirs) => Some(Difference { path: path.to_owned(), ours: words(ours), theirs: words(theirs) }),
        }
    }

    /// One field of the reader's.
    fn field(&mut self, of: Field, name: &str, part: u32, writer: &[(String, u32)], path: &str) -> Option<Difference> {
        let (mut is_optional, mut names) = (false, vec![name]);
        for need in self.needs.iter().filter(|(field, _)| *field == of) {
            match &need.1 {
                Need::Optional => is_optional = true,
                Need::Alias(name) => names.push(name),
            }
        }
        if let Some((_, other)) = writer.iter().find(|(name, _)| names.contains(&name.as_str())) {
            return self.nodes(part, *other, &format!("{path}.{name}"), false);
        }
        if is_optional {
            return None;
        }
        let (ours, theirs) = ("a field that has no default".to_owned(), "nothing".to_owned());
        Some(Difference { path: format!("{path}.{name}"), ours, theirs })
    }
}
