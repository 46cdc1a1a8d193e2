//! The first difference of two shapes, by its path.

use std::{collections::BTreeSet, fmt};

use super::{
    Content, Node, Schema,
    evolve::{Field, Need},
};

/// Where two shapes differ, and what each has there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The way to it: `Quote.inner.bid`.
    pub path: String,
    /// What this side has.
    pub ours: String,
    /// What the other side has.
    pub theirs: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, ours, theirs } = self;
        write!(f, "{path}: {ours} here, {theirs} there")
    }
}

impl Schema {
    /// The first difference from another side's shape; `None`: they are equal.
    #[must_use]
    pub fn difference(&self, theirs: &Self) -> Option<Difference> {
        self.compare(theirs, None)
    }

    /// As [`difference`](Self::difference). For a reader, the other shape may lack and have what [`evolve`](super::evolve) says.
    pub(super) fn compare(&self, theirs: &Self, reader: Option<Reader<'_>>) -> Option<Difference> {
        let mut walk = Walk { ours: self, theirs, reader, passed: BTreeSet::new() };
        walk.nodes(0, 0, self.name().unwrap_or("value"), true)
    }

    pub(crate) fn node(&self, at: u32) -> Option<&Node> {
        self.nodes.get(at as usize)
    }

    /// A part in a few words.
    fn words(&self, at: u32) -> String {
        match self.node(at) {
            None => "nothing".to_owned(),
            Some(Node::Opaque(name)) if name.is_empty() => "something unknown".to_owned(),
            Some(Node::Opaque(name)) => format!("something unknown in {name}"),
            Some(Node::Leaf(name) | Node::Container(name, _) | Node::Enum(name, _)) => name.clone(),
            Some(Node::Option(inside)) => format!("Option<{}>", self.short(*inside)),
            Some(Node::Seq(inside)) => format!("Vec<{}>", self.short(*inside)),
            Some(Node::Array(inside, len)) => format!("[{}; {len}]", self.short(*inside)),
            Some(Node::Map(key, value)) => format!("Map<{}, {}>", self.short(*key), self.short(*value)),
            Some(Node::Tuple(all)) => format!("a tuple of {}", all.len()),
        }
    }

    fn short(&self, at: u32) -> &str {
        match self.node(at) {
            Some(Node::Leaf(name) | Node::Container(name, _) | Node::Enum(name, _)) => name,
            _ => "..",
        }
    }
}

/// What this side does with values of the other one, if it only has to read them.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) needs: &'a [(Field, Need)],
    /// No field may be passed over.
    pub(super) keeps_all: bool,
}

struct Walk<'a> {
    ours: &'a Schema,
    theirs: &'a Schema,
    reader: Option<Reader<'a>>,
    passed: BTreeSet<(u32, u32)>,
}

impl Walk<'_> {
    fn nodes(&mut self, ours: u32, theirs: u32, path: &str, outermost: bool) -> Option<Difference> {
        // A pair that was passed is equal, or its difference is found where it was passed.
        if !self.passed.insert((ours, theirs)) || self.passed.len() > 1 << 16 {
            return None;
        }
        let differ = |walk: &Self| {
            let (ours, theirs) = (walk.ours.words(ours), walk.theirs.words(theirs));
            Some(Difference { path: path.to_owned(), ours, theirs })
        };
        let (one, other) = (self.ours.node(ours)?.clone(), self.theirs.node(theirs)?.clone());
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
                self.contents((ours, 0), &inside, &other_inside, path)
            }
            (Node::Enum(one, variants), Node::Enum(other, theirs))
                if self.reader.is_some() && (outermost || one == other) =>
            {
                (0..).zip(&variants).find_map(|(at, (name, inside))| {
                    let (_, other) = theirs.iter().find(|(other, _)| other == name)?;
                    self.contents((ours, at), inside, other, &format!("{path}::{name}"))
                })
            }
            (Node::Enum(one, variants), Node::Enum(other, other_variants)) if outermost || one == other => {
                let longest = variants.len().max(other_variants.len());
                (0..longest).find_map(|at| match (variants.get(at), other_variants.get(at)) {
                    (Some((name, inside)), Some((other, other_inside))) if name == other => {
                        self.contents((ours, 0), inside, other_inside, &format!("{path}::{name}"))
                    }
                    (one, other) => {
                        let name = |side: Option<&(String, Content)>| {
                            side.map_or_else(|| "none".to_owned(), |(name, _)| name.clone())
                        };
                        let path = format!("{path}, variant {at}");
                        Some(Difference { path, ours: name(one), theirs: name(other) })
                    }
                })
            }
            _ => differ(self),
        }
    }

    fn all(&mut self, one: &[u32], other: &[u32], path: &str) -> Option<Difference> {
        (0..)
            .zip(one.iter().zip(other))
            .find_map(|(at, (one, other)): (usize, _)| self.nodes(*one, *other, &format!("{path}.{at}"), false))
    }

    /// The contents of a struct, or of the variant of this node.
    fn contents(&mut self, of: (u32, u32), ours: &Content, theirs: &Content, path: &str) -> Option<Difference> {
        match (ours, theirs) {
            (Content::Unit, Content::Unit) => None,
            (Content::Newtype(one), Content::Newtype(other)) => self.nodes(*one, *other, &format!("{path}.0"), false),
            (Content::Tuple(one), Content::Tuple(other)) if one.len() == other.len() => self.all(one, other, path),
            (Content::Struct(one), Content::Struct(other)) => {
                if let Some(reader) = self.reader {
                    return self.fields(reader, of, one, other, path);
                }
                let longest = one.len().max(other.len());
                (0..longest).find_map(|at| match (one.get(at), other.get(at)) {
                    (Some((name, one)), Some((same, other))) if name == same => {
                        self.nodes(*one, *other, &format!("{path}.{name}"), false)
                    }
                    (one, other) => {
                        let name = |side: Option<&(String, u32)>| {
                            side.map_or_else(|| "nothing".to_owned(), |(name, _)| name.clone())
                        };
                        let path = format!("{path}, field {at}");
                        Some(Difference { path, ours: name(one), theirs: name(other) })
                    }
                })
            }
            (ours, theirs) => Some(Difference { path: path.to_owned(), ours: words(ours), theirs: words(theirs) }),
        }
    }

    /// The fields of the reader's struct, or variant, of this node.
    fn fields(
        &mut self,
        Reader { needs, keeps_all }: Reader<'_>,
        of: (u32, u32),
        reader: &[(String, u32)],
        writer: &[(String, u32)],
        path: &str,
    ) -> Option<Difference> {
        let differ = |name: &str, ours: &str, theirs: &str| {
            Some(Difference { path: format!("{path}.{name}"), ours: ours.to_owned(), theirs: theirs.to_owned() })
        };
        let mut read = BTreeSet::new();
        for (at, (name, part)) in (0..).zip(reader) {
            let (mut is_optional, mut names) = (false, vec![name]);
            for (_, need) in needs.iter().filter(|(field, _)| *field == (of.0, of.1, at)) {
                match need {
                    Need::Optional => is_optional = true,
                    Need::Alias(name) => names.push(name),
                }
            }
            if let Some((written, other)) = writer.iter().find(|(name, _)| names.contains(&name)) {
                read.insert(written);
                let differs = self.nodes(*part, *other, &format!("{path}.{name}"), false);
                if differs.is_some() {
                    return differs;
                }
            } else if !is_optional {
                return differ(name, "a field that has no default", "nothing");
            }
        }
        let passed_over = writer.iter().find(|(name, _)| keeps_all && !read.contains(name));
        passed_over.and_then(|(name, _)| differ(name, "nothing", "a field"))
    }
}

fn words(content: &Content) -> String {
    match content {
        Content::Unit => "no content".to_owned(),
        Content::Newtype(_) => "one value".to_owned(),
        Content::Tuple(all) => format!("{} values", all.len()),
        Content::Struct(all) => format!("{} named fields", all.len()),
    }
}
