//! What can travel on a stream, and the name under which a type does.
//!
//! A type's stream is named by its serde container name, read by a deserializer that carries no data and only
//! listens to what the type asks for. Streams, groups and macros call [`StreamId::of`]; nothing here touches the network.
//!
//! Why not `core::any::type_name`: it changes when a type moves between modules or compilers, and two versions of one
//! program would silently stop seeing each other.

use std::{
    any::TypeId,
    collections::BTreeMap,
    fmt,
    sync::{Mutex, PoisonError},
};

use serde::{
    Serialize,
    de::{
        self, DeserializeOwned, DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess,
        Visitor,
    },
};

use super::StreamId;

/// A value that can be sent: any `Serialize + DeserializeOwned + Send + 'static` type is one. Encoded with postcard.
pub trait Datum: Serialize + DeserializeOwned + Send + 'static {}

impl<T: Serialize + DeserializeOwned + Send + 'static> Datum for T {}

impl StreamId {
    /// The default stream of a type: [`datum_name`] of it, hashed like any other name. Computed once per type.
    #[must_use]
    pub fn of<T: Datum>() -> Self {
        static KNOWN: Mutex<BTreeMap<TypeId, StreamId>> = Mutex::new(BTreeMap::new());
        let key = TypeId::of::<T>();
        if let Some(id) = KNOWN.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return *id;
        }
        // Outside the lock: it runs the type's own code, which may ask for another stream id.
        let id = Self::from(datum_name::<T>());
        KNOWN.lock().unwrap_or_else(PoisonError::into_inner).insert(key, id);
        id
    }
}

/// The name of a type as serde sees it: the container name of structs and enums (`#[serde(rename = "..")]` counts, the
/// module does not), and the Rust spelling of what has none: `u64`, `String`, `Vec<readings>`, `(u8, String)`.
///
/// What cannot be told is `_`: self-describing types, and in a tuple what follows an element that no invented value fits.
/// Parameters of a generic struct are not part of serde's name: give such streams an id of their own.
#[must_use]
pub fn datum_name<T: DeserializeOwned>() -> String {
    let mut name = UNKNOWN.to_owned();
    // The value or error does not matter: the name was noted on the way.
    let _ = T::deserialize(Tracer { name: Some(&mut name), needed: false, depth: 0 });
    name
}

/// The name of what cannot be named.
const UNKNOWN: &str = "_";
/// How deep wrappers and invented values may nest; it stops types that contain themselves.
const MAX_DEPTH: usize = 16;
/// Rust tuples implement serde up to 16 elements; whatever is longer is an array.
const MAX_TUPLE: usize = 16;

/// Ends a deserialization whose value nobody needs.
#[derive(Debug)]
struct Stop;

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("only the name was wanted")
    }
}

impl std::error::Error for Stop {}

impl de::Error for Stop {
    fn custom<M: fmt::Display>(_: M) -> Self {
        Self
    }
}

/// Notes the name of what is asked for. Where a value is needed to get at the next name (the elements of a tuple before
/// the last, the key of a map), it invents one.
struct Tracer<'a> {
    name: Option<&'a mut String>,
    needed: bool,
    depth: usize,
}

impl Tracer<'_> {
    /// Notes a name; fails when that was all there was to do.
    fn note(&mut self, name: &str) -> Result<(), Stop> {
        if let Some(out) = &mut self.name {
            name.clone_into(out);
        }
        if self.needed && self.depth < MAX_DEPTH { Ok(()) } else { Err(Stop) }
    }

    /// Visits `len` elements, of which the last is only needed if the whole is; notes `name(names of the elements)`.
    fn inside<T>(
        &mut self,
        len: usize,
        visit: impl FnOnce(Elements<'_>) -> Result<T, Stop>,
        name: impl FnOnce(&[String]) -> String,
    ) -> Result<T, Stop> {
        let mut names = Vec::new();
        let result = if self.depth < MAX_DEPTH {
            let wanted = self.name.is_some().then_some(&mut names);
            visit(Elements { names: wanted, left: len, needed: self.needed, depth: self.depth + 1 })
        } else {
            Err(Stop)
        };
        if let Some(out) = &mut self.name {
            names.resize(len.clamp(1, MAX_TUPLE), UNKNOWN.into());
            **out = name(&names);
        }
        result
    }
}

macro_rules! scalars {
    ($($method:ident, $name:literal, $visit:ident, $value:expr;)*) => {
        $(fn $method<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stop> {
            self.note($name)?;
            visitor.$visit($value)
        })*
    };
}

impl<'de> de::Deserializer<'de> for Tracer<'_> {
    type Error = Stop;

    // Ones, not zeros: they also fit the NonZero types.
    scalars! {
        deserialize_bool, "bool", visit_bool, true;
        deserialize_char, "char", visit_char, '1';
        deserialize_i8, "i8", visit_i8, 1;
        deserialize_i16, "i16", visit_i16, 1;
        deserialize_i32, "i32", visit_i32, 1;
        deserialize_i64, "i64", visit_i64, 1;
        deserialize_i128, "i128", visit_i128, 1;
        deserialize_u8, "u8", visit_u8, 1;
        deserialize_u16, "u16", visit_u16, 1;
        deserialize_u32, "u32", visit_u32, 1;
        deserialize_u64, "u64", visit_u64, 1;
        deserialize_u128, "u128", visit_u128, 1;
        deserialize_f32, "f32", visit_f32, 1.0;
        deserialize_f64, "f64", visit_f64, 1.0;
        deserialize_str, "String", visit_str, "1";
        deserialize_string, "String", visit_str, "1";
        deserialize_bytes, "Bytes", visit_bytes, &[1];
        deserialize_byte_buf, "Bytes", visit_bytes, &[1];
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
        Err(Stop)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
        Err(Stop)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
        Err(Stop)
    }

    fn deserialize_unit<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stop> {
        self.note("()")?;
        visitor.visit_unit()
    }

    fn deserialize_option<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stop> {
        if self.name.is_none() {
            return visitor.visit_none();
        }
        self.inside(1, |content| content.sole(visitor), |names| format!("Option<{}>", names[0]))
    }

    fn deserialize_seq<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stop> {
        let len = usize::from(self.name.is_some());
        self.inside(len, |elements| visitor.visit_seq(elements), |names| format!("Vec<{}>", names[0]))
    }

    fn deserialize_map<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stop> {
        let len = 2 * usize::from(self.name.is_some());
        self.inside(len, |elements| visitor.visit_map(elements), |names| format!("Map<{}>", names.join(", ")))
    }

    fn deserialize_tuple<V: Visitor<'de>>(mut self, len: usize, visitor: V) -> Result<V::Value, Stop> {
        self.inside(
            len,
            |elements| visitor.visit_seq(elements),
            |names| match len {
                1 => format!("({},)", names[0]),
                2..=MAX_TUPLE => format!("({})", names.join(", ")),
                _ => format!("[{}; {len}]", names[0]),
            },
        )
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(mut self, name: &'static str, visitor: V) -> Result<V::Value, Stop> {
        self.note(name)?;
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(mut self, name: &'static str, visitor: V) -> Result<V::Value, Stop> {
        self.note(name)?;
        visitor.visit_newtype_struct(Tracer { name: None, needed: true, depth: self.depth + 1 })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.note(name)?;
        visitor.visit_seq(Elements::invented(len, self.depth))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.note(name)?;
        visitor.visit_seq(Elements::invented(fields.len(), self.depth))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.note(name)?;
        visitor.visit_enum(Elements::invented(0, self.depth))
    }

    fn is_human_readable(&self) -> bool {
        false // as postcard says, so that types show the shape they have on the wire
    }
}

/// The elements of a sequence, tuple, map or struct; as an enum, its first variant.
struct Elements<'a> {
    names: Option<&'a mut Vec<String>>,
    left: usize,
    needed: bool,
    depth: usize,
}

impl Elements<'_> {
    fn invented(len: usize, depth: usize) -> Self {
        Self { names: None, left: len, needed: true, depth: depth + 1 }
    }

    fn sole<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let mut name = UNKNOWN.to_owned();
        let result = visitor.visit_some(Tracer { name: Some(&mut name), needed: self.needed, depth: self.depth });
        if let Some(names) = self.names {
            names.push(name);
        }
        result
    }

    fn next<'de, S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Stop> {
        self.left = self.left.saturating_sub(1);
        let whole_is_named_by_its_first = self.left >= MAX_TUPLE && self.names.is_some();
        let needed = self.needed || (self.left > 0 && !whole_is_named_by_its_first);
        let mut name = UNKNOWN.to_owned();
        let wanted = self.names.is_some().then_some(&mut name);
        let result = seed.deserialize(Tracer { name: wanted, needed, depth: self.depth });
        if let Some(names) = &mut self.names {
            names.push(name);
        }
        result
    }
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Stop;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Stop> {
        if self.left == 0 { Ok(None) } else { self.next(seed).map(Some) }
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'de> MapAccess<'de> for Elements<'_> {
    type Error = Stop;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Stop> {
        if self.left == 0 { Ok(None) } else { self.next(seed).map(Some) }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Stop> {
        self.next(seed)
    }
}

impl<'de> EnumAccess<'de> for Elements<'_> {
    type Error = Stop;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Stop> {
        seed.deserialize(0u32.into_deserializer()).map(|variant| (variant, self))
    }
}

impl<'de> VariantAccess<'de> for Elements<'_> {
    type Error = Stop;

    fn unit_variant(self) -> Result<(), Stop> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(mut self, seed: S) -> Result<S::Value, Stop> {
        self.next(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_seq(Elements { left: len, ..self })
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_seq(Elements { left: fields.len(), ..self })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, VecDeque};

    use serde::Deserialize;

    use super::*;

    #[derive(Serialize, Deserialize)]
    #[serde(rename = "readings")]
    struct Reading {
        _sensor: u32,
        _note: Option<Box<Reading>>,
    }

    #[derive(Serialize, Deserialize)]
    struct Wrapped(u64);

    #[derive(Serialize, Deserialize)]
    struct Pair(u64, Vec<String>);

    #[derive(Serialize, Deserialize)]
    struct Nothing;

    #[derive(Serialize, Deserialize)]
    enum Side {
        Buy { _price: u64 },
        Sell(u64, u8),
    }

    #[derive(Serialize, Deserialize)]
    enum Endless {
        Deeper(Box<Endless>),
    }

    #[test]
    fn containers_have_their_serde_name() {
        assert_eq!(datum_name::<Reading>(), "readings");
        assert_eq!(datum_name::<Wrapped>(), "Wrapped");
        assert_eq!(datum_name::<Pair>(), "Pair");
        assert_eq!(datum_name::<Nothing>(), "Nothing");
        assert_eq!(datum_name::<Side>(), "Side");
        assert_eq!(datum_name::<Box<Reading>>(), "readings");
    }

    #[test]
    fn types_without_a_container_have_their_rust_name() {
        assert_eq!(datum_name::<u64>(), "u64");
        assert_eq!(datum_name::<String>(), "String");
        assert_eq!(datum_name::<()>(), "()");
        assert_eq!(datum_name::<Vec<Reading>>(), "Vec<readings>");
        assert_eq!(datum_name::<VecDeque<Option<u8>>>(), "Vec<Option<u8>>");
        assert_eq!(datum_name::<Option<Side>>(), "Option<Side>");
        assert_eq!(datum_name::<(u64,)>(), "(u64,)");
        assert_eq!(datum_name::<[u8; 32]>(), "[u8; 32]");
        assert_eq!(datum_name::<bytes::Bytes>(), "Bytes");
    }

    #[test]
    fn every_part_of_tuples_and_maps_is_named() {
        assert_eq!(datum_name::<(u8, String, Reading)>(), "(u8, String, readings)");
        assert_eq!(datum_name::<(Reading, Vec<(Side, bool)>, f32)>(), "(readings, Vec<(Side, bool)>, f32)");
        assert_eq!(datum_name::<BTreeMap<Wrapped2, Vec<Pair>>>(), "Map<Wrapped2, Vec<Pair>>");
        assert_eq!(datum_name::<(Endless, u8)>(), "(Endless, _)", "no value of it can be invented");
    }

    #[derive(Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
    struct Wrapped2(std::num::NonZeroU16);

    #[test]
    fn the_stream_of_a_type_is_the_hash_of_its_name() {
        assert_eq!(StreamId::of::<Reading>(), StreamId::from("readings"));
        assert_eq!(StreamId::of::<Reading>(), StreamId::from("readings"), "the second time from the table");
        assert_eq!(StreamId::of::<u64>(), StreamId::from("u64"));
    }
}
