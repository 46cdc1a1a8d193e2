//! A serializer around another one, that lets pass only what a reader without self-description reads as it was meant: structs
//! with just the fields that the reader expects, in its order; variants by the reader's numbers; lengths that are known.
//!
//! A struct of the type is compared name by name when a writer of it is met first. From then on its address stands for it, and
//! what is left per value is a count. Equal names of unlike parts are compared each time.

use std::{
    fmt,
    sync::atomic::{AtomicUsize, Ordering},
};

use serde::{
    Serialize, Serializer,
    ser::{
        Error, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
        SerializeTupleStruct, SerializeTupleVariant,
    },
};

use crate::primitives::schema::Known;

/// What the reader of a type expects.
#[derive(Debug)]
pub(super) struct Plan {
    parts: Vec<Expected>,
}

#[derive(Debug)]
struct Expected {
    known: Known,
    /// How many fields; variants without any have none.
    count: usize,
    /// The address of the name that a writer gave whose field names were found to be these.
    writer: AtomicUsize,
    /// Another part has the same name.
    ambiguous: bool,
}

impl Plan {
    pub(super) fn new(known: Vec<Known>) -> Self {
        let alike = |one: &Known, other: &Known| {
            one.name == other.name && one.variant.map(|(index, _)| index) == other.variant.map(|(index, _)| index)
        };
        let ambiguous: Vec<bool> =
            known.iter().map(|one| known.iter().filter(|other| alike(one, other)).count() > 1).collect();
        let expected = |(known, ambiguous): (Known, bool)| {
            let count = known.fields.as_ref().map_or(0, Vec::len);
            Expected { known, count, writer: AtomicUsize::new(0), ambiguous }
        };
        Self { parts: known.into_iter().zip(ambiguous).map(expected).collect() }
    }

    /// The value, to be checked while it is written.
    #[inline]
    pub(super) const fn checked<'a, T: ?Sized>(&'a self, value: &'a T) -> Checked<'a, T> {
        Checked { value, plan: self }
    }

    /// What is expected under this name; whether its fields have to be compared.
    #[inline]
    fn find(
        &self,
        name: &'static str,
        variant: Option<(u32, &'static str)>,
        count: usize,
    ) -> Option<(&Expected, bool)> {
        let writer = name.as_ptr() as usize;
        for part in &self.parts {
            if part.writer.load(Ordering::Relaxed) == writer
                && part.count == count
                && part.known.variant.map(|(index, _)| index) == variant.map(|(index, _)| index)
            {
                return Some((part, false));
            }
        }
        self.search(name, variant, count)
    }

    /// A part of the same name that has the same fields up to this one.
    #[cold]
    fn other(&self, like: &Expected, at: usize, key: &str) -> Option<&Expected> {
        self.parts.iter().find(|part| {
            (part.known.name, part.known.variant, part.count) == (like.known.name, like.known.variant, like.count)
                && part.field(at) == Some(key)
                && (0..at).all(|before| part.field(before) == like.field(before))
        })
    }

    #[cold]
    fn search(&self, name: &str, variant: Option<(u32, &'static str)>, count: usize) -> Option<(&Expected, bool)> {
        let same = |part: &&Expected| part.known.name == name && part.known.variant == variant && part.count == count;
        self.parts.iter().find(same).map(|part| (part, true))
    }
}

impl Expected {
    fn field(&self, at: usize) -> Option<&'static str> {
        self.known.fields.as_ref()?.get(at).copied()
    }

    fn approve(&self, name: &'static str) {
        if !self.ambiguous {
            self.writer.store(name.as_ptr() as usize, Ordering::Relaxed);
        }
    }
}

/// A value that is checked while it is written.
pub(super) struct Checked<'a, T: ?Sized> {
    value: &'a T,
    plan: &'a Plan,
}

impl<T: Serialize + ?Sized> Serialize for Checked<'_, T> {
    #[inline]
    fn serialize<S: Serializer>(&self, inner: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(Checker { inner, plan: self.plan })
    }
}

struct Checker<'a, S> {
    inner: S,
    plan: &'a Plan,
}

/// The parts of something, each checked in turn.
pub(super) struct Inside<'a, S> {
    inner: S,
    plan: &'a Plan,
    name: &'static str,
    /// What its fields have to be compared with.
    compare: Option<&'a Expected>,
    at: usize,
    count: usize,
}

#[cold]
fn unlike<E: Error>() -> E {
    E::custom("it is written with other parts than it is read with")
}

impl<'a, S> Inside<'a, S> {
    /// Parts that are not counted: the format does it.
    #[inline]
    const fn free(inner: S, plan: &'a Plan) -> Self {
        Self { inner, plan, name: "", compare: None, at: 0, count: 0 }
    }

    #[inline]
    fn key<E: Error>(&mut self, key: &'static str) -> Result<(), E> {
        if let Some(expected) = self.compare
            && expected.field(self.at) != Some(key)
        {
            // Another part of this name may have it.
            self.compare = Some(self.plan.other(expected, self.at, key).ok_or_else(unlike)?);
        }
        self.at += 1;
        Ok(())
    }

    #[inline]
    fn done<E: Error>(&self) -> Result<(), E> {
        if self.at != self.count {
            return Err(unlike());
        }
        if let Some(expected) = self.compare {
            expected.approve(self.name);
        }
        Ok(())
    }
}

impl<'a, S> Checker<'a, S> {
    #[inline]
    fn open<I, E: Error>(
        self,
        name: &'static str,
        variant: Option<(u32, &'static str)>,
        count: usize,
        open: impl FnOnce(S) -> Result<I, E>,
    ) -> Result<Inside<'a, I>, E> {
        let Some((expected, compare)) = self.plan.find(name, variant, count) else { return Err(unlike()) };
        let compare = compare.then_some(expected);
        Ok(Inside { inner: open(self.inner)?, plan: self.plan, name, compare, at: 0, count })
    }
}

macro_rules! forward {
    ($($method:ident($ty:ty);)*) => {
        $(#[inline]
        fn $method(self, value: $ty) -> Result<S::Ok, S::Error> {
            self.inner.$method(value)
        })*
    };
}

impl<'a, S: Serializer> Serializer for Checker<'a, S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Inside<'a, S::SerializeSeq>;
    type SerializeTuple = Inside<'a, S::SerializeTuple>;
    type SerializeTupleStruct = Inside<'a, S::SerializeTupleStruct>;
    type SerializeTupleVariant = Inside<'a, S::SerializeTupleVariant>;
    type SerializeMap = Inside<'a, S::SerializeMap>;
    type SerializeStruct = Inside<'a, S::SerializeStruct>;
    type SerializeStructVariant = Inside<'a, S::SerializeStructVariant>;

    forward! {
        serialize_bool(bool);
        serialize_i8(i8);
        serialize_i16(i16);
        serialize_i32(i32);
        serialize_i64(i64);
        serialize_i128(i128);
        serialize_u8(u8);
        serialize_u16(u16);
        serialize_u32(u32);
        serialize_u64(u64);
        serialize_u128(u128);
        serialize_f32(f32);
        serialize_f64(f64);
        serialize_char(char);
        serialize_str(&str);
        serialize_bytes(&[u8]);
        serialize_unit_struct(&'static str);
    }

    #[inline]
    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.inner.serialize_none()
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.serialize_some(&self.plan.checked(value))
    }

    #[inline]
    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit()
    }

    #[inline]
    fn serialize_unit_variant(self, name: &'static str, index: u32, variant: &'static str) -> Result<S::Ok, S::Error> {
        let Some((expected, compare)) = self.plan.find(name, Some((index, variant)), 0) else { return Err(unlike()) };
        if compare {
            expected.approve(name);
        }
        self.inner.serialize_unit_variant(name, index, variant)
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.serialize_newtype_struct(name, &self.plan.checked(value))
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let Some((expected, compare)) = self.plan.find(name, Some((index, variant)), 0) else { return Err(unlike()) };
        if compare {
            expected.approve(name);
        }
        self.inner.serialize_newtype_variant(name, index, variant, &self.plan.checked(value))
    }

    #[inline]
    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        let Some(len) = len else { return Err(unlike()) };
        Ok(Inside::free(self.inner.serialize_seq(Some(len))?, self.plan))
    }

    #[inline]
    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, S::Error> {
        Ok(Inside::free(self.inner.serialize_tuple(len)?, self.plan))
    }

    #[inline]
    fn serialize_tuple_struct(self, name: &'static str, len: usize) -> Result<Self::SerializeTupleStruct, S::Error> {
        self.open(name, None, len, |inner| inner.serialize_tuple_struct(name, len))
    }

    #[inline]
    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        self.open(name, Some((index, variant)), len, |inner| inner.serialize_tuple_variant(name, index, variant, len))
    }

    #[inline]
    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        let Some(len) = len else { return Err(unlike()) };
        Ok(Inside::free(self.inner.serialize_map(Some(len))?, self.plan))
    }

    #[inline]
    fn serialize_struct(self, name: &'static str, len: usize) -> Result<Self::SerializeStruct, S::Error> {
        self.open(name, None, len, |inner| inner.serialize_struct(name, len))
    }

    #[inline]
    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        self.open(name, Some((index, variant)), len, |inner| inner.serialize_struct_variant(name, index, variant, len))
    }

    #[inline]
    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.collect_str(value)
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

impl<S: SerializeSeq> SerializeSeq for Inside<'_, S> {
    type Ok = S::Ok;
    type Error = S::Error;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
        self.inner.serialize_element(&self.plan.checked(value))
    }

    #[inline]
    fn end(self) -> Result<S::Ok, S::Error> {
        self.inner.end()
    }
}

impl<S: SerializeTuple> SerializeTuple for Inside<'_, S> {
    type Ok = S::Ok;
    type Error = S::Error;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
        self.inner.serialize_element(&self.plan.checked(value))
    }

    #[inline]
    fn end(self) -> Result<S::Ok, S::Error> {
        self.inner.end()
    }
}

impl<S: SerializeMap> SerializeMap for Inside<'_, S> {
    type Ok = S::Ok;
    type Error = S::Error;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), S::Error> {
        self.inner.serialize_key(&self.plan.checked(key))
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
        self.inner.serialize_value(&self.plan.checked(value))
    }

    #[inline]
    fn end(self) -> Result<S::Ok, S::Error> {
        self.inner.end()
    }
}

macro_rules! tuples {
    ($($trait:ident),*) => {
        $(impl<S: $trait> $trait for Inside<'_, S> {
            type Ok = S::Ok;
            type Error = S::Error;

            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
                self.key("")?;
                self.inner.serialize_field(&self.plan.checked(value))
            }

            #[inline]
            fn end(self) -> Result<S::Ok, S::Error> {
                self.done()?;
                self.inner.end()
            }
        })*
    };
}

tuples!(SerializeTupleStruct, SerializeTupleVariant);

macro_rules! structs {
    ($($trait:ident),*) => {
        $(impl<S: $trait> $trait for Inside<'_, S> {
            type Ok = S::Ok;
            type Error = S::Error;

            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), S::Error> {
                self.key(key)?;
                self.inner.serialize_field(key, &self.plan.checked(value))
            }

            #[inline]
            fn skip_field(&mut self, _: &'static str) -> Result<(), S::Error> {
                Err(unlike())
            }

            #[inline]
            fn end(self) -> Result<S::Ok, S::Error> {
                self.done()?;
                self.inner.end()
            }
        })*
    };
}

structs!(SerializeStruct, SerializeStructVariant);
