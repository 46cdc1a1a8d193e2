//! What can travel on a stream, and the name under which a type does.
//!
//! A type's stream is named by its serde container name. Streams, groups and macros call [`StreamId::of`]; nothing here touches
//! the network.
//!
//! Why not `core::any::type_name`: it changes when a type moves between modules or compilers, and two versions of one
//! program would silently stop seeing each other.

use std::{any::TypeId, fmt};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use super::{StreamId, codec::Codec};

/// A value that can be sent: any `Serialize + DeserializeOwned + Send + 'static` type is one. Written with postcard where that
/// carries the value, else with `MessagePack`; what neither carries is refused when it is sent.
pub trait Datum: Serialize + DeserializeOwned + Send + 'static {}

impl<T: Serialize + DeserializeOwned + Send + 'static> Datum for T {}

/// What names a stream: the type of its items, or a name declared for items of another crate
/// (`#[mosaik::stream(name = "txs", of = TxEnvelope)] struct Txs;`, so that a `Producer<Txs>` sends `TxEnvelope`).
pub trait Streamed: 'static {
    /// The items.
    type Item: Datum;

    /// The stream's identity, unless its endpoints are given one.
    ///
    /// # Errors
    /// When the type has no name.
    fn stream_id() -> Result<StreamId, Unnamed>;
}

impl<T: Datum> Streamed for T {
    type Item = T;

    fn stream_id() -> Result<StreamId, Unnamed> {
        StreamId::try_of::<T>()
    }
}

/// A type that has no name of its own, so that unlike types would share a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unnamed {
    /// The Rust type.
    pub datum: &'static str,
}

impl fmt::Display for Unnamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} has no name of its own in serde, so that its stream could be that of another type: give the stream a name \
             (`with_stream_id`), or send a type that is declared with #[mosaik::stream]",
            self.datum
        )
    }
}

impl std::error::Error for Unnamed {}

impl StreamId {
    /// The default stream of a type: [`datum_name`] of it, hashed like any other name.
    ///
    /// # Panics
    /// When the type has no name; [`try_of`](Self::try_of) says so with an error.
    #[must_use]
    pub fn of<T: Datum>() -> Self {
        Self::try_of::<T>().unwrap_or_else(|error| panic!("{error}"))
    }

    /// As [`of`](Self::of).
    ///
    /// # Errors
    /// When the type has no name.
    pub fn try_of<T: Datum>() -> Result<Self, Unnamed> {
        // Asked for when an endpoint is made, not for each item.
        let name = name::<T>().ok_or_else(|| Unnamed { datum: std::any::type_name::<T>() })?;
        Ok(Self::from(name))
    }
}

/// The name of a type: of structs and enums their serde container name (`#[serde(rename = "..")]` counts, the module does not);
/// of `bool`, `char`, numbers, `String`, `Bytes` and `()`, and of a `Vec` or `Option` of these, the Rust spelling.
///
/// Any other type has none and is `_`: tuples, maps, and foreign types that serde sees as text, bytes or a sequence. Parameters of a generic
/// struct are not part of serde's name: give such streams an id of their own.
#[must_use]
pub fn datum_name<T: DeserializeOwned + 'static>() -> String {
    name::<T>().unwrap_or_else(|| "_".to_owned())
}

fn name<T: DeserializeOwned + 'static>() -> Option<String> {
    Codec::<T>::of().schema().name().map(str::to_owned).or_else(|| plain(TypeId::of::<T>()))
}

/// The names of types of the standard library.
fn plain(ty: TypeId) -> Option<String> {
    macro_rules! known {
        ($($name:literal: $plain:ty),*) => {
            $(if ty == TypeId::of::<$plain>() {
                return Some($name.to_owned());
            }
            if ty == TypeId::of::<Vec<$plain>>() {
                return Some(concat!("Vec<", $name, ">").to_owned());
            }
            if ty == TypeId::of::<Option<$plain>>() {
                return Some(concat!("Option<", $name, ">").to_owned());
            })*
        };
    }
    known! {
        "bool": bool, "char": char, "String": String, "Bytes": Bytes, "()": (),
        "i8": i8, "i16": i16, "i32": i32, "i64": i64, "i128": i128, "isize": isize,
        "u8": u8, "u16": u16, "u32": u32, "u64": u64, "u128": u128, "usize": usize,
        "f32": f32, "f64": f64
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

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
    struct Nothing;

    #[derive(Serialize, Deserialize)]
    enum Side {
        Buy { _price: u64 },
        Sell(u64, u8),
    }

    #[test]
    fn containers_have_their_serde_name() {
        assert_eq!(name::<Reading>().as_deref(), Some("readings"));
        assert_eq!(name::<Wrapped>().as_deref(), Some("Wrapped"));
        assert_eq!(name::<Nothing>().as_deref(), Some("Nothing"));
        assert_eq!(name::<Side>().as_deref(), Some("Side"));
        assert_eq!(name::<Box<Reading>>().as_deref(), Some("readings"));
    }

    #[test]
    fn types_of_the_standard_library_have_their_rust_name() {
        assert_eq!(name::<u64>().as_deref(), Some("u64"));
        assert_eq!(name::<String>().as_deref(), Some("String"));
        assert_eq!(name::<Bytes>().as_deref(), Some("Bytes"));
        assert_eq!(name::<Vec<u8>>().as_deref(), Some("Vec<u8>"));
        assert_eq!(name::<Option<f32>>().as_deref(), Some("Option<f32>"));
    }

    #[test]
    fn what_would_share_a_name_has_none() {
        assert_eq!(name::<(u8, String)>(), None);
        assert_eq!(name::<BTreeMap<u8, u8>>(), None);
        assert_eq!(name::<Vec<Reading>>(), None);
        assert_eq!(name::<std::path::PathBuf>(), None, "text to serde, and yet no String");
        assert_eq!(name::<[u8; 32]>(), None);
        let error = StreamId::try_of::<(u8, u8)>().unwrap_err().to_string();
        assert!(error.starts_with("(u8, u8) has no name") && error.contains("with_stream_id"), "{error}");
    }

    #[test]
    fn the_stream_of_a_type_is_the_hash_of_its_name() {
        assert_eq!(StreamId::of::<Reading>(), StreamId::from("readings"));
        assert_eq!(StreamId::try_of::<u64>(), Ok(StreamId::from("u64")));
    }
}
