//! Reads values by their shape alone, without the program's types: what `mosaik tap` prints.
//!
//! A shape and a value may come from anybody: values nest at most 128 deep and have at most a million parts, whatever their
//! lengths say.

use std::{
    cell::{Cell, RefCell},
    fmt,
};

use serde::{
    Serialize, Serializer,
    de::{self, DeserializeSeed, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor},
    ser::SerializeMap,
};

use super::{Content, Node, Schema};
use crate::primitives::codec::Format;

/// How deep a value may nest.
const MAX_DEPTH: usize = 128;
/// How many parts it may have.
const MAX_PARTS: usize = 1 << 20;

/// A value of any shape. To serde it is what JSON can say: bytes are text of hex digits behind `0x`, and so are keys that are no
/// text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Unsigned(u128),
    Signed(i128),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Self>),
    Map(Vec<(Self, Self)>),
}

impl Value {
    /// As the key of a map.
    fn key(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Bool(value) => value.to_string(),
            Self::Unsigned(value) => value.to_string(),
            Self::Signed(value) => value.to_string(),
            Self::Float(value) => value.to_string(),
            Self::Bytes(bytes) => hex(bytes),
            Self::Null => "null".to_owned(),
            Self::List(all) => format!("({})", all.iter().map(Self::key).collect::<Vec<_>>().join(", ")),
            Self::Map(all) => {
                let pairs: Vec<_> = all.iter().map(|(key, value)| format!("{}: {}", key.key(), value.key())).collect();
                format!("{{{}}}", pairs.join(", "))
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |mut text, byte| {
        let _ = fmt::Write::write_fmt(&mut text, format_args!("{byte:02x}"));
        text
    })
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Unsigned(value) => match u64::try_from(*value) {
                Ok(value) => serializer.serialize_u64(value),
                Err(_) => serializer.collect_str(value),
            },
            Self::Signed(value) => match i64::try_from(*value) {
                Ok(value) => serializer.serialize_i64(value),
                Err(_) => serializer.collect_str(value),
            },
            Self::Float(value) if value.is_finite() => serializer.serialize_f64(*value),
            Self::Float(value) => serializer.collect_str(value),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Bytes(bytes) => serializer.serialize_str(&hex(bytes)),
            Self::List(all) => serializer.collect_seq(all),
            Self::Map(all) => {
                let mut map = serializer.serialize_map(Some(all.len()))?;
                for (key, value) in all {
                    map.serialize_entry(&key.key(), value)?;
                }
                map.end()
            }
        }
    }
}

impl Schema {
    /// Reads a value of this shape.
    ///
    /// # Errors
    /// When the bytes are no such value, or the shape has a part that cannot be looked into and the format does not tell.
    pub(crate) fn read(&self, format: Format, bytes: &[u8]) -> Result<Value, String> {
        let bounds = Bounds { left: Cell::new(MAX_PARTS), wrong: RefCell::new(None) };
        match format {
            Format::MessagePack => {
                let mut rest = bytes;
                let mut deserializer = rmp_serde::Deserializer::new(&mut rest).with_human_readable();
                deserializer.set_max_depth(MAX_DEPTH);
                let value = Anything { bounds: &bounds }.deserialize(&mut deserializer);
                let value = value.map_err(|error| error.to_string())?;
                if rest.is_empty() { Ok(value) } else { Err(format!("{} bytes left over", rest.len())) }
            }
            Format::Postcard => {
                let mut deserializer = postcard::Deserializer::from_bytes(bytes);
                let part = Shaped { schema: self, at: 0, depth: 0, bounds: &bounds };
                let value = part.deserialize(&mut deserializer);
                let value = value.map_err(|error| bounds.wrong.take().unwrap_or_else(|| error.to_string()))?;
                match deserializer.finalize() {
                    Ok([]) => Ok(value),
                    Ok(rest) => Err(format!("{} bytes left over", rest.len())),
                    Err(error) => Err(error.to_string()),
                }
            }
        }
    }
}

/// What one value may still have, and what was found to be wrong: errors of postcard have no text.
struct Bounds {
    left: Cell<usize>,
    wrong: RefCell<Option<String>>,
}

impl Bounds {
    fn count<E: de::Error>(&self) -> Result<(), E> {
        let left = self.left.get().checked_sub(1).ok_or_else(|| self.error("it has too many parts"))?;
        self.left.set(left);
        Ok(())
    }

    fn error<E: de::Error>(&self, what: impl fmt::Display) -> E {
        *self.wrong.borrow_mut() = Some(what.to_string());
        E::custom(what)
    }
}

/// Whatever a format that describes itself says.
#[derive(Clone, Copy)]
struct Anything<'a> {
    bounds: &'a Bounds,
}

impl<'de> DeserializeSeed<'de> for Anything<'_> {
    type Value = Value;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.bounds.count()?;
        deserializer.deserialize_any(self)
    }
}

macro_rules! values {
    ($($visit:ident($ty:ty) => $value:expr;)*) => {
        $(fn $visit<E: de::Error>(self, value: $ty) -> Result<Value, E> {
            Ok($value(value))
        })*
    };
}

impl<'de> Visitor<'de> for Anything<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    values! {
        visit_bool(bool) => Value::Bool;
        visit_i64(i64) => |value| Value::Signed(i128::from(value));
        visit_i128(i128) => Value::Signed;
        visit_u64(u64) => |value| Value::Unsigned(u128::from(value));
        visit_u128(u128) => Value::Unsigned;
        visit_f32(f32) => |value: f32| Value::Float(shortest(value));
        visit_f64(f64) => Value::Float;
        visit_char(char) => |value: char| Value::Text(value.to_string());
        visit_str(&str) => |value: &str| Value::Text(value.to_owned());
        visit_string(String) => Value::Text;
        visit_bytes(&[u8]) => |value: &[u8]| Value::Bytes(value.to_vec());
        visit_byte_buf(Vec<u8>) => Value::Bytes;
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_newtype_struct<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = all.next_element_seed(self)? {
            list.push(element);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut all: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = all.next_key_seed(self)? {
            map.push((key, all.next_value_seed(self)?));
        }
        Ok(Value::Map(map))
    }
}

/// A float of 32 bits by the shortest digits that mean it, not by those that its 64 bits have.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| f64::from(value))
}

/// A part of a shape, read from a format that does not describe itself.
#[derive(Clone, Copy)]
struct Shaped<'a> {
    schema: &'a Schema,
    at: u32,
    depth: usize,
    bounds: &'a Bounds,
}

impl<'a> Shaped<'a> {
    const fn part(self, at: u32) -> Self {
        Self { schema: self.schema, at, depth: self.depth + 1, bounds: self.bounds }
    }

    fn content<'de, D: de::Deserializer<'de>>(self, content: &'a Content, deserializer: D) -> Result<Value, D::Error> {
        match content {
            Content::Unit => Ok(Value::Null),
            Content::Newtype(at) => self.part(*at).deserialize(deserializer),
            Content::Tuple(all) => deserializer.deserialize_tuple(all.len(), Each { shaped: self, all, names: None }),
            Content::Struct(all) => {
                let (names, all): (Vec<_>, Vec<_>) = all.iter().map(|(name, at)| (name.as_str(), *at)).unzip();
                let each = Each { shaped: self, all: &all, names: Some(&names) };
                deserializer.deserialize_tuple(all.len(), each)
            }
        }
    }
}

impl<'de> DeserializeSeed<'de> for Shaped<'_> {
    type Value = Value;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.bounds.count()?;
        if self.depth > MAX_DEPTH {
            return Err(self.bounds.error("it nests too deep"));
        }
        let any = Anything { bounds: self.bounds };
        match self.schema.node(self.at) {
            None | Some(Node::Opaque(_)) => Err(self.bounds.error("its shape is not known")),
            Some(Node::Leaf(name)) => match name.as_str() {
                "bool" => deserializer.deserialize_bool(any),
                "char" => deserializer.deserialize_char(any),
                "i8" => deserializer.deserialize_i8(any),
                "i16" => deserializer.deserialize_i16(any),
                "i32" => deserializer.deserialize_i32(any),
                "i64" => deserializer.deserialize_i64(any),
                "i128" => deserializer.deserialize_i128(any),
                "u8" => deserializer.deserialize_u8(any),
                "u16" => deserializer.deserialize_u16(any),
                "u32" => deserializer.deserialize_u32(any),
                "u64" => deserializer.deserialize_u64(any),
                "u128" => deserializer.deserialize_u128(any),
                "f32" => deserializer.deserialize_f32(any),
                "f64" => deserializer.deserialize_f64(any),
                "String" => deserializer.deserialize_str(any),
                "Bytes" => deserializer.deserialize_bytes(any),
                "()" => Ok(Value::Null),
                _ => Err(self.bounds.error(format_args!("a leaf `{name}` is not known"))),
            },
            Some(Node::Option(at)) => deserializer.deserialize_option(Inside(self.part(*at))),
            Some(Node::Seq(at)) => deserializer.deserialize_seq(Inside(self.part(*at))),
            Some(Node::Map(key, value)) => deserializer.deserialize_map(Pairs(self.part(*key), self.part(*value))),
            Some(Node::Tuple(all)) => {
                deserializer.deserialize_tuple(all.len(), Each { shaped: self, all, names: None })
            }
            Some(Node::Array(at, len)) => {
                let len = usize::try_from(*len).map_err(de::Error::custom)?;
                deserializer.deserialize_tuple(len, Inside(self.part(*at)))
            }
            Some(Node::Container(_, content)) => self.content(content, deserializer),
            Some(Node::Enum(_, variants)) => deserializer.deserialize_enum("", &[], Variants(self, variants)),
        }
    }
}

/// Elements alike, or something that may be there.
struct Inside<'a>(Shaped<'a>);

impl<'de> Visitor<'de> for Inside<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("elements")
    }

    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.0.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = all.next_element_seed(self.0)? {
            list.push(element);
        }
        Ok(Value::List(list))
    }
}

/// A key and a value.
struct Pairs<'a>(Shaped<'a>, Shaped<'a>);

impl<'de> Visitor<'de> for Pairs<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("pairs")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut all: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = all.next_key_seed(self.0)? {
            map.push((key, all.next_value_seed(self.1)?));
        }
        Ok(Value::Map(map))
    }
}

/// Parts one after the other, with names or without.
struct Each<'a> {
    shaped: Shaped<'a>,
    all: &'a [u32],
    names: Option<&'a [&'a str]>,
}

impl<'de> Visitor<'de> for Each<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} parts", self.all.len())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Value, A::Error> {
        let mut list = Vec::with_capacity(self.all.len().min(MAX_DEPTH));
        for at in self.all {
            let part = all.next_element_seed(self.shaped.part(*at))?;
            list.push(part.ok_or_else(|| de::Error::invalid_length(list.len(), &"more parts"))?);
        }
        Ok(match self.names {
            None => Value::List(list),
            Some(names) => Value::Map(names.iter().map(|name| Value::Text((*name).to_owned())).zip(list).collect()),
        })
    }
}

/// One of several variants, by its number.
struct Variants<'a>(Shaped<'a>, &'a [(String, Content)]);

impl<'de> Visitor<'de> for Variants<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a variant")
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Value, A::Error> {
        let Self(shaped, variants) = self;
        let (number, content) = data.variant_seed(Number)?;
        let (name, parts) = usize::try_from(number)
            .ok()
            .and_then(|at| variants.get(at))
            .ok_or_else(|| shaped.bounds.error(format_args!("there is no variant {number}")))?;
        let name = Value::Text(name.clone());
        let value = match parts {
            Content::Unit => {
                content.unit_variant()?;
                return Ok(name);
            }
            Content::Newtype(at) => content.newtype_variant_seed(shaped.part(*at))?,
            Content::Tuple(all) => content.tuple_variant(all.len(), Each { shaped, all, names: None })?,
            Content::Struct(all) => {
                let (names, all): (Vec<_>, Vec<_>) = all.iter().map(|(name, at)| (name.as_str(), *at)).unzip();
                content.tuple_variant(all.len(), Each { shaped, all: &all, names: Some(&names) })?
            }
        };
        Ok(Value::Map(vec![(name, value)]))
    }
}

/// The number of a variant.
struct Number;

impl<'de> DeserializeSeed<'de> for Number {
    type Value = u32;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<u32, D::Error> {
        deserializer.deserialize_u32(self)
    }
}

impl Visitor<'_> for Number {
    type Value = u32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the number of a variant")
    }

    fn visit_u32<E: de::Error>(self, value: u32) -> Result<u32, E> {
        Ok(value)
    }
}
