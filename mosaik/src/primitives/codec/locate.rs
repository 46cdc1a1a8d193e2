//! The field that a byte of a written value belongs to: for the errors of values that cannot be written, or are not read back as
//! they were. Works on bytes and shapes alone, so that nothing of it is compiled once per type.

use rmp::Marker;

use super::Format;
use crate::primitives::schema::{Content, Node, Schema};

/// How deep it looks.
const DEPTH: usize = 64;

/// The path of the byte at an offset, or of what is missing at the end of the bytes: `inner.all[2].bid`.
pub(super) fn locate(schema: &Schema, format: Format, bytes: &[u8], offset: usize) -> String {
    let mut walk = Walk { schema, bytes, at: 0, offset, path: Vec::new() };
    let found = match format {
        Format::Postcard => walk.postcard(0, 0),
        Format::MessagePack => walk.message_pack(0),
    };
    let mut path = String::new();
    for step in &walk.path {
        if !path.is_empty() && !step.starts_with('[') {
            path.push('.');
        }
        path.push_str(step);
    }
    match (path.is_empty(), found) {
        (false, _) => path,
        (true, Some(())) => "its end".to_owned(),
        (true, None) => "its first part".to_owned(),
    }
}

/// `None`: the place is found, and `path` leads to it.
type Passed = Option<()>;

struct Walk<'a> {
    schema: &'a Schema,
    bytes: &'a [u8],
    at: usize,
    offset: usize,
    path: Vec<String>,
}

impl Walk<'_> {
    /// Goes on by so many bytes, unless the place is among them.
    fn pass(&mut self, count: usize) -> Passed {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len() && *end <= self.offset)?;
        self.at = end;
        Some(())
    }

    fn step(&mut self, step: String, inside: impl FnOnce(&mut Self) -> Passed) -> Passed {
        self.path.push(step);
        inside(self)?;
        self.path.pop();
        Some(())
    }

    /// A number of postcard.
    fn varint(&mut self) -> Option<u64> {
        let (mut value, mut shift) = (0u64, 0);
        loop {
            let byte = *self.bytes.get(self.at)?;
            self.pass(1)?;
            value |= u64::from(byte & 0x7F).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Some(value);
            }
            shift += 7;
        }
    }

    fn postcard(&mut self, node: u32, depth: usize) -> Passed {
        if depth > DEPTH {
            return None;
        }
        let inside = depth + 1;
        match self.schema.node(node)? {
            Node::Opaque(_) => None,
            Node::Leaf(name) => match name.as_str() {
                "()" => Some(()),
                "bool" | "u8" | "i8" => self.pass(1),
                "f32" => self.pass(4),
                "f64" => self.pass(8),
                "String" | "Bytes" | "char" => {
                    let length = self.varint()?;
                    self.pass(usize::try_from(length).ok()?)
                }
                _ => self.varint().map(drop),
            },
            Node::Option(content) => {
                let some = *self.bytes.get(self.at)?;
                self.pass(1)?;
                if some == 0 { Some(()) } else { self.postcard(*content, inside) }
            }
            Node::Seq(content) => {
                let count = self.varint()?;
                (0..count).try_for_each(|at| self.step(format!("[{at}]"), |walk| walk.postcard(*content, inside)))
            }
            Node::Array(content, count) => {
                (0..*count).try_for_each(|at| self.step(format!("[{at}]"), |walk| walk.postcard(*content, inside)))
            }
            Node::Map(key, value) => {
                let count = self.varint()?;
                (0..count).try_for_each(|at| {
                    self.step(format!("[{at}]"), |walk| {
                        walk.postcard(*key, inside)?;
                        walk.postcard(*value, inside)
                    })
                })
            }
            Node::Tuple(all) => (0..)
                .zip(all)
                .try_for_each(|(at, part): (usize, _)| self.step(at.to_string(), |walk| walk.postcard(*part, inside))),
            Node::Container(_, content) => self.content(content, inside),
            Node::Enum(_, variants) => {
                let index = usize::try_from(self.varint()?).ok()?;
                let (name, content) = variants.get(index)?;
                self.step(name.clone(), |walk| walk.content(content, inside))
            }
        }
    }

    fn content(&mut self, content: &Content, depth: usize) -> Passed {
        match content {
            Content::Unit => Some(()),
            Content::Newtype(inside) => self.postcard(*inside, depth),
            Content::Tuple(all) => (0..)
                .zip(all)
                .try_for_each(|(at, part): (usize, _)| self.step(at.to_string(), |walk| walk.postcard(*part, depth))),
            Content::Struct(all) => {
                all.iter().try_for_each(|(name, part)| self.step(name.clone(), |walk| walk.postcard(*part, depth)))
            }
        }
    }

    /// A length of so many bytes, the highest first.
    fn length(&mut self, bytes: usize) -> Option<usize> {
        let digits = self.bytes.get(self.at..self.at + bytes)?;
        let length = digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
        self.pass(bytes)?;
        Some(length)
    }

    fn message_pack(&mut self, depth: usize) -> Passed {
        if depth > DEPTH {
            return None;
        }
        let marker = Marker::from_u8(*self.bytes.get(self.at)?);
        self.pass(1)?;
        match marker {
            Marker::FixPos(_) | Marker::FixNeg(_) | Marker::Null | Marker::True | Marker::False | Marker::Reserved => {
                Some(())
            }
            Marker::U8 | Marker::I8 => self.pass(1),
            Marker::U16 | Marker::I16 => self.pass(2),
            Marker::U32 | Marker::I32 | Marker::F32 => self.pass(4),
            Marker::U64 | Marker::I64 | Marker::F64 => self.pass(8),
            Marker::FixStr(length) => self.pass(length.into()),
            Marker::Str8 | Marker::Bin8 => self.length(1).and_then(|length| self.pass(length)),
            Marker::Str16 | Marker::Bin16 => self.length(2).and_then(|length| self.pass(length)),
            Marker::Str32 | Marker::Bin32 => self.length(4).and_then(|length| self.pass(length)),
            Marker::FixExt1 => self.pass(2),
            Marker::FixExt2 => self.pass(3),
            Marker::FixExt4 => self.pass(5),
            Marker::FixExt8 => self.pass(9),
            Marker::FixExt16 => self.pass(17),
            Marker::Ext8 => self.length(1).and_then(|length| self.pass(length + 1)),
            Marker::Ext16 => self.length(2).and_then(|length| self.pass(length + 1)),
            Marker::Ext32 => self.length(4).and_then(|length| self.pass(length + 1)),
            Marker::FixArray(count) => self.elements(count.into(), depth),
            Marker::Array16 => self.length(2).and_then(|count| self.elements(count, depth)),
            Marker::Array32 => self.length(4).and_then(|count| self.elements(count, depth)),
            Marker::FixMap(count) => self.entries(count.into(), depth),
            Marker::Map16 => self.length(2).and_then(|count| self.entries(count, depth)),
            Marker::Map32 => self.length(4).and_then(|count| self.entries(count, depth)),
        }
    }

    fn elements(&mut self, count: usize, depth: usize) -> Passed {
        (0..count).try_for_each(|at| self.step(format!("[{at}]"), |walk| walk.message_pack(depth + 1)))
    }

    fn entries(&mut self, count: usize, depth: usize) -> Passed {
        (0..count).try_for_each(|at| {
            let key = self.at;
            self.message_pack(depth + 1)?;
            let mut text = &self.bytes[key..self.at];
            // A key that is no text is told by its number.
            let name = rmp::decode::read_str_len(&mut text).ok().and_then(|_| std::str::from_utf8(text).ok());
            let step = name.map_or_else(|| format!("[{at}]"), str::to_owned);
            self.step(step, |walk| walk.message_pack(depth + 1))
        })
    }
}
