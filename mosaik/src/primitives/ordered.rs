//! The bytes of a key, such that they are ordered as the keys are and the same for the same key, whatever its Rust type: integers of
//! any width and sign, and owned and borrowed text, encode alike. So a filter that is written in one program means the same in another,
//! and a prefix or a range of the bytes is one of the keys.
//!
//! ```text
//! unit 05   none 02   some 03 value   false 08   true 09   text 50 bytes 00 00   bytes 58 bytes 00 00   float 40 u64 BE
//! integer   20 + n, n bytes BE; below zero 20 - n, n bytes BE of the size, inverted        n = 0..=16
//! variant 60 integer content   tuple, struct: its fields one after the other   list, map: 70 elements 00
//! ```
//!
//! A zero byte of a text is written `00 FF`, so that no text is the beginning of another one. Bits of a float are inverted below zero,
//! else only the first one.

use std::fmt::Display;

use serde::{Serialize, ser};

const UNIT: u8 = 0x05;
const NONE: u8 = 0x02;
const SOME: u8 = 0x03;
const FALSE: u8 = 0x08;
const ZERO: u8 = 0x20;
const FLOAT: u8 = 0x40;
const TEXT: u8 = 0x50;
const BYTES: u8 = 0x58;
const VARIANT: u8 = 0x60;
const LIST: u8 = 0x70;
const END: u8 = 0x00;

/// A value that says itself that it cannot be encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct KeyError(String);

impl ser::Error for KeyError {
    fn custom<T: Display>(why: T) -> Self {
        Self(why.to_string())
    }
}

/// Appends the bytes of a key.
pub(crate) fn write<K: Serialize + ?Sized>(key: &K, out: &mut Vec<u8>) -> Result<(), KeyError> {
    key.serialize(&mut Writer { out, compound: false })
}

/// The bytes with which the keys begin that begin with this one: of a text its characters, of a tuple its fields.
pub(crate) fn prefix<K: Serialize + ?Sized>(key: &K) -> Result<Vec<u8>, KeyError> {
    let mut out = Vec::new();
    let mut writer = Writer { out: &mut out, compound: false };
    key.serialize(&mut writer)?;
    if !writer.compound && matches!(out.first(), Some(&(TEXT | BYTES))) {
        out.truncate(out.len() - 2);
    }
    Ok(out)
}

/// What sort of value a key begins with: keys of different sorts are never equal.
pub(crate) fn sort(bytes: &[u8]) -> &'static str {
    match bytes.first() {
        Some(&(NONE | SOME)) => "an option",
        Some(&(FALSE | 0x09)) => "a bool",
        Some(0x10..=0x30) => "a whole number",
        Some(&FLOAT) => "a float",
        Some(&TEXT) => "text",
        Some(&BYTES) => "bytes",
        Some(&VARIANT) => "an enum",
        Some(&LIST) => "a list",
        _ => "nothing",
    }
}

struct Writer<'a> {
    out: &'a mut Vec<u8>,
    /// The value has parts.
    compound: bool,
}

impl Writer<'_> {
    fn put(&mut self, byte: u8) {
        self.out.push(byte);
    }

    fn whole(&mut self, size: u128, below_zero: bool) {
        let bytes = size.to_be_bytes();
        let skip = size.leading_zeros() as usize / 8;
        let length = u8::try_from(bytes.len() - skip).unwrap_or_default();
        if below_zero {
            self.put(ZERO - length);
            self.out.extend(bytes[skip..].iter().map(|byte| !byte));
        } else {
            self.put(ZERO + length);
            self.out.extend_from_slice(&bytes[skip..]);
        }
    }

    fn escaped(&mut self, tag: u8, bytes: &[u8]) {
        self.put(tag);
        for byte in bytes {
            self.put(*byte);
            if *byte == 0 {
                self.put(0xFF);
            }
        }
        self.out.extend_from_slice(&[END, END]);
    }

    fn variant(&mut self, index: u32) {
        self.put(VARIANT);
        self.whole(index.into(), false);
    }
}

macro_rules! whole_numbers {
    ($($method:ident: $ty:ty,)*) => {
        $(fn $method(self, value: $ty) -> Result<(), KeyError> {
            self.serialize_i128(value.into())
        })*
    };
}

impl<'a, 'b> ser::Serializer for &'a mut Writer<'b> {
    type Ok = ();
    type Error = KeyError;
    type SerializeSeq = List<'a, 'b>;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = List<'a, 'b>;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    whole_numbers!(
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64,
    );

    fn serialize_i128(self, value: i128) -> Result<(), KeyError> {
        self.whole(value.unsigned_abs(), value < 0);
        Ok(())
    }

    fn serialize_u128(self, value: u128) -> Result<(), KeyError> {
        self.whole(value, false);
        Ok(())
    }

    fn serialize_bool(self, value: bool) -> Result<(), KeyError> {
        self.put(FALSE + u8::from(value));
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> Result<(), KeyError> {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<(), KeyError> {
        // So that the two zeros are one key.
        let bits = (value + 0.0).to_bits();
        let ordered = if bits >> 63 == 1 { !bits } else { bits | (1 << 63) };
        self.put(FLOAT);
        self.out.extend_from_slice(&ordered.to_be_bytes());
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<(), KeyError> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), KeyError> {
        self.escaped(TEXT, value.as_bytes());
        Ok(())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), KeyError> {
        self.escaped(BYTES, value);
        Ok(())
    }

    fn serialize_none(self) -> Result<(), KeyError> {
        self.put(NONE);
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), KeyError> {
        self.put(SOME);
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), KeyError> {
        self.put(UNIT);
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), KeyError> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, index: u32, _: &'static str) -> Result<(), KeyError> {
        self.variant(index);
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), KeyError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), KeyError> {
        self.variant(index);
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<List<'a, 'b>, KeyError> {
        self.put(LIST);
        Ok(List(self))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<List<'a, 'b>, KeyError> {
        self.put(LIST);
        Ok(List(self))
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, KeyError> {
        self.compound = true;
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, length: usize) -> Result<Self, KeyError> {
        self.serialize_tuple(length)
    }

    fn serialize_struct(self, _: &'static str, length: usize) -> Result<Self, KeyError> {
        self.serialize_tuple(length)
    }

    fn serialize_tuple_variant(self, _: &'static str, index: u32, _: &'static str, _: usize) -> Result<Self, KeyError> {
        self.variant(index);
        Ok(self)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, KeyError> {
        self.variant(index);
        Ok(self)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

macro_rules! parts {
    ($($trait:ident: $method:ident($($name:ident)?),)*) => {
        $(impl ser::$trait for &mut Writer<'_> {
            type Ok = ();
            type Error = KeyError;

            fn $method<T: Serialize + ?Sized>(&mut self, $($name: &'static str,)? value: &T) -> Result<(), KeyError> {
                value.serialize(&mut **self)
            }

            fn end(self) -> Result<(), KeyError> {
                Ok(())
            }
        })*
    };
}

parts!(
    SerializeTuple: serialize_element(),
    SerializeTupleStruct: serialize_field(),
    SerializeTupleVariant: serialize_field(),
    SerializeStruct: serialize_field(_name),
    SerializeStructVariant: serialize_field(_name),
);

/// Elements up to an end, which is less than any of them.
struct List<'a, 'b>(&'a mut Writer<'b>);

impl ser::SerializeSeq for List<'_, '_> {
    type Ok = ();
    type Error = KeyError;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), KeyError> {
        value.serialize(&mut *self.0)
    }

    fn end(self) -> Result<(), KeyError> {
        self.0.put(END);
        Ok(())
    }
}

impl ser::SerializeMap for List<'_, '_> {
    type Ok = ();
    type Error = KeyError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), KeyError> {
        key.serialize(&mut *self.0)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), KeyError> {
        value.serialize(&mut *self.0)
    }

    fn end(self) -> Result<(), KeyError> {
        ser::SerializeSeq::end(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes<K: Serialize>(key: K) -> Vec<u8> {
        let mut out = Vec::new();
        write(&key, &mut out).expect("a key");
        out
    }

    #[test]
    fn the_same_value_of_another_type_has_the_same_bytes() {
        assert_eq!(bytes(7_u8), bytes(7_i128));
        assert_eq!(bytes(u64::MAX), bytes(u128::from(u64::MAX)));
        assert_eq!(bytes("eu"), bytes(String::from("eu")));
        assert_eq!(bytes(("eu", 7_u32)), bytes((String::from("eu"), 7_i64)));
        assert_eq!(bytes('x'), bytes("x"));
        assert_eq!(bytes(0.0), bytes(-0.0));
        assert_eq!(bytes(1.5_f32), bytes(1.5_f64));
        assert_ne!(bytes(1), bytes("1"));
        assert_ne!(bytes(1), bytes(Some(1)));
        assert_eq!((sort(&bytes(-1)), sort(&bytes("1"))), ("a whole number", "text"));
    }

    #[test]
    fn a_prefix_is_one_of_texts_and_of_tuples() {
        let begins = |key: &[u8], prefix: Vec<u8>| key.starts_with(&prefix);
        assert!(begins(&bytes("europe"), prefix("eu").expect("text")));
        assert!(!begins(&bytes("usa"), prefix("eu").expect("text")));
        assert!(begins(&bytes("a\0b"), prefix("a\0").expect("text")));
        assert!(begins(&bytes(("eu", 7)), prefix(&("eu",)).expect("a tuple of one")));
        assert!(!begins(&bytes(("europe", 7)), prefix(&("eu",)).expect("a tuple of one")));
        assert!(begins(&bytes((7, "eu")), prefix(&7).expect("its first part")));
        assert!(!begins(&bytes((70, "eu")), prefix(&7).expect("its first part")));
        assert!(begins(&bytes(("eu", "x", 1)), prefix(&("eu", "x")).expect("its first parts")));
    }

    proptest! {
        #[test]
        fn bytes_are_ordered_as_keys_are(a: (i64, String, Option<u16>), b: (i64, String, Option<u16>)) {
            prop_assert_eq!(bytes(&a).cmp(&bytes(&b)), a.cmp(&b));
            prop_assert_eq!(bytes(&a.1).cmp(&bytes(&b.1)), a.1.cmp(&b.1));
        }

        #[test]
        fn numbers_and_lists_are_ordered(a: i128, b: i128, x: Vec<Vec<u8>>, y: Vec<Vec<u8>>, f: f64, g: f64) {
            prop_assert_eq!(bytes(a).cmp(&bytes(b)), a.cmp(&b));
            prop_assert_eq!(bytes(&x).cmp(&bytes(&y)), x.cmp(&y));
            if let Some(order) = f.partial_cmp(&g) {
                prop_assert_eq!(bytes(f).cmp(&bytes(g)), order);
            }
        }
    }
}
