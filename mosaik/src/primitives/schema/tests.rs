//! Shapes of types as people write them.
#![expect(dead_code, reason = "only the shapes of these types are looked at")]

use std::{collections::BTreeMap, net::IpAddr, num::NonZeroU16};

use serde::{Deserialize, Serialize};

use super::*;

fn shape<T: DeserializeOwned>() -> String {
    Schema::of::<T>().to_string()
}

fn proven<T: DeserializeOwned>() -> bool {
    Described::of::<T>().unproven.is_none()
}

#[derive(Serialize, Deserialize)]
struct Inner {
    bid: u64,
    size: Option<NonZeroU16>,
}

#[derive(Serialize, Deserialize)]
enum Side {
    Buy,
    Sell(Inner),
    Both { one: Inner, other: Vec<String> },
}

#[derive(Serialize, Deserialize)]
struct Quote {
    inner: Inner,
    side: Side,
    tags: BTreeMap<String, (u8, f32)>,
    hash: [u8; 32],
}

#[test]
fn a_shape_reaches_down() {
    assert_eq!(shape::<u64>(), "u64");
    assert_eq!(
        shape::<Quote>(),
        "Quote{inner:Inner{bid:u64,size:?u16 },side:Side|Buy|Sell(Inner{bid:u64,size:?u16 })|\
         Both{one:Inner{bid:u64,size:?u16 },other:[String]}|,tags:<String,(u8,f32)>,hash:[u8;32]}"
    );
    assert!(proven::<Quote>());
}

#[test]
fn all_variants_below_variants_are_seen() {
    #[derive(Deserialize)]
    enum Outer {
        A(Side),
        B { side: Side, deep: Option<Box<Side>> },
    }
    let text = shape::<Outer>();
    assert_eq!(text.matches("Both{").count(), 3, "{text}");
    assert!(!text.contains("opaque"), "{text}");
    assert!(proven::<Outer>());
}

#[test]
fn values_that_are_checked_are_made_up() {
    #[derive(Deserialize)]
    struct Checked {
        ip: IpAddr,
        #[serde(deserialize_with = "no_ones")]
        zero: u8,
        after: Inner,
    }
    fn no_ones<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u8, D::Error> {
        let value = u8::deserialize(from)?;
        if value == 1 { Err(serde::de::Error::custom("one")) } else { Ok(value) }
    }
    let text = shape::<Checked>();
    assert!(text.ends_with("zero:u8,after:Inner{bid:u64,size:?u16 }}"), "{text}");
    assert!(proven::<Checked>());
}

#[test]
fn what_contains_itself_ends_and_is_not_for_postcard() {
    #[derive(Deserialize)]
    struct Tree {
        left: Option<Box<Tree>>,
        all: Vec<Tree>,
        name: String,
    }
    #[derive(Deserialize)]
    enum Expr {
        Add(Box<Expr>, Box<Expr>),
        Neg(Box<Expr>),
        Number(i64),
    }
    #[derive(Deserialize)]
    enum Endless {
        Deeper(Box<Endless>),
    }
    assert_eq!(shape::<Tree>(), "Tree{left:?^1 ,all:[^1],name:String}");
    assert_eq!(shape::<Expr>(), "Expr|Add(^0,^0)|Neg(^0)|Number(i64)|");
    assert!(!proven::<Tree>() && !proven::<Expr>() && !proven::<Endless>());
    assert!(shape::<(Endless, u8)>().starts_with("(Endless|"));
}

#[test]
fn what_asks_the_format_is_opaque() {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        Text(String),
        Number(u64),
    }
    #[derive(Deserialize)]
    #[serde(tag = "kind")]
    enum Tagged {
        One { a: u8 },
    }
    #[derive(Deserialize)]
    struct Flat {
        #[serde(flatten)]
        inner: Inner,
        other: u8,
    }
    #[derive(Deserialize)]
    struct Around {
        maybe: Option<Tagged>,
        all: Vec<Untagged>,
        inner: Inner,
    }
    for proven in [proven::<Untagged>(), proven::<Tagged>(), proven::<Flat>(), proven::<Around>()] {
        assert!(!proven);
    }
    let text = shape::<Around>();
    assert!(text.contains("opaque(Around)") && text.ends_with("inner:Inner{bid:u64,size:?u16 }}"), "{text}");
}

#[test]
fn a_sequence_that_could_be_endless_is_not_for_postcard() {
    #[derive(Deserialize)]
    struct Nothing;
    assert!(!proven::<Vec<()>>() && !proven::<(u8, Vec<(Nothing, ())>)>());
    assert!(proven::<Vec<Option<()>>>() && proven::<()>());
}

#[test]
fn equal_shapes_have_equal_fingerprints_and_others_a_path() {
    mod other {
        #[derive(serde::Deserialize)]
        pub(super) struct Inner {
            bid: i64,
            size: Option<u16>,
        }
        #[derive(serde::Deserialize)]
        pub(super) struct Quote {
            inner: Inner,
        }
        #[derive(serde::Deserialize)]
        pub(super) enum Side {
            Buy,
            Sell(super::Inner),
            Hold,
        }
    }
    mod same {
        #[derive(serde::Deserialize)]
        pub(super) struct Moved {
            pub inner: super::Inner,
        }
    }
    #[derive(Deserialize)]
    struct Quote {
        inner: Inner,
    }
    let (ours, theirs) = (Schema::of::<Quote>(), Schema::of::<other::Quote>());
    assert_ne!(ours.fingerprint(), theirs.fingerprint());
    let difference = ours.difference(&theirs).unwrap();
    assert_eq!(difference.to_string(), "Quote.inner.bid: u64 here, i64 there");
    let moved = Schema::of::<same::Moved>();
    assert_eq!((ours.fingerprint(), ours.difference(&moved)), (moved.fingerprint(), None));
    let difference = Schema::of::<Side>().difference(&Schema::of::<other::Side>()).unwrap();
    assert_eq!(difference.to_string(), "Side, variant 2: Both here, Hold there");
}

#[test]
fn a_table_from_a_peer_is_looked_at_first() {
    let sound = Schema::of::<Quote>();
    assert!(sound.is_sound());
    let bytes = postcard::to_allocvec(&sound).unwrap();
    assert_eq!(postcard::from_bytes::<Schema>(&bytes).unwrap(), sound);
    assert!(!Schema { nodes: vec![Node::Option(1)] }.is_sound());
    assert!(!Schema { nodes: Vec::new() }.is_sound());
    // One that refers to itself ends.
    let endless = Schema { nodes: vec![Node::Option(0)] };
    assert!(endless.is_sound() && endless.difference(&endless).is_none() && endless.to_string() == "?^0 ");
}

mod grown {
    use super::*;

    #[derive(Serialize, Deserialize)]
    pub enum Side {
        Hold,
        Both {
            other: Vec<String>,
            one: Inner,
            #[serde(default)]
            third: u8,
        },
        Buy,
        Sell(Inner),
    }

    #[derive(Serialize, Deserialize)]
    pub struct Quote {
        #[serde(default)]
        pub venue: String,
        pub side: Side,
        pub inner: Inner,
        #[serde(alias = "labels")]
        pub tags: BTreeMap<String, (u8, f32)>,
        pub note: Option<String>,
        pub hash: [u8; 32],
    }
}

#[test]
fn what_a_reader_can_do_without_is_found() {
    let needs = |readable: &Readable| {
        let mut needs: Vec<_> = readable.needs.iter().map(|((.., field), need)| (*field, need.clone())).collect();
        needs.sort_by_key(|(field, _)| *field);
        needs
    };
    assert_eq!(needs(&Readable::of::<Quote>()), [(1, Need::Optional)], "the size of its inner part");
    let grown = Readable::of::<grown::Quote>();
    assert_eq!(grown.schema, Schema::of::<grown::Quote>());
    // Of the quote venue, note, and another name of tags; the size of its inner part; the third part of a variant.
    let expected = [(0, Need::Optional), (1, Need::Optional), (2, Need::Optional), (3, Need::Alias("labels".into()))];
    assert_eq!(needs(&grown), [&expected[..], &[(4, Need::Optional)]].concat());
    let bytes = postcard::to_allocvec(&grown).unwrap();
    assert_eq!(postcard::from_bytes::<Readable>(&bytes).unwrap(), grown);
}

#[test]
fn another_name_of_a_field_is_not_part_of_the_shape() {
    #[derive(Serialize, Deserialize)]
    struct Many {
        #[serde(alias = "a", alias = "z")]
        m: u8,
        #[serde(alias = "b")]
        n: String,
    }
    assert_eq!(shape::<Many>(), "Many{m:u8,n:String}");
    assert!(proven::<Many>());
}

#[test]
fn a_type_that_has_grown_is_read_both_ways() {
    let (old, new) = (Readable::of::<Quote>(), Readable::of::<grown::Quote>());
    assert_eq!(old.unreadable(&new.schema, false), None);
    assert_eq!(new.unreadable(&old.schema, false), None);
}

#[test]
fn what_cannot_be_read_is_told_by_its_path() {
    mod other {
        use super::*;
        #[derive(Deserialize)]
        pub struct Inner {
            pub bid: i64,
            pub size: Option<NonZeroU16>,
        }
        #[derive(Deserialize)]
        pub struct Changed {
            pub inner: Inner,
        }
        #[derive(Deserialize)]
        pub struct Renamed {
            #[serde(alias = "inner")]
            pub within: super::Inner,
        }
    }
    #[derive(Deserialize)]
    struct Plain {
        inner: Inner,
    }
    let plain = Readable::of::<Plain>();
    let told =
        |reader: &Readable, writer: &Schema, swapped| reader.unreadable(writer, swapped).map(|it| it.to_string());
    let changed = Schema::of::<other::Changed>();
    assert_eq!(told(&plain, &changed, false).unwrap(), "Plain.inner.bid: u64 here, i64 there");
    assert_eq!(told(&plain, &changed, true).unwrap(), "Plain.inner.bid: i64 here, u64 there");
    let renamed = Readable::of::<other::Renamed>();
    assert_eq!(told(&renamed, &plain.schema, false), None, "by its other name");
    let missing = told(&plain, &renamed.schema, false);
    assert_eq!(missing.unwrap(), "Plain.inner: a field that has no default here, nothing there");
    #[derive(Deserialize)]
    struct More {
        inner: Inner,
        must: u8,
    }
    let more = told(&Readable::of::<More>(), &plain.schema, false);
    assert_eq!(more.unwrap(), "More.must: a field that has no default here, nothing there");
    assert_eq!(told(&plain, &Schema::of::<More>(), false), None);
}

#[cfg(feature = "cli")]
mod reading {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::primitives::codec::{Codec, Format};

    #[derive(Serialize, Deserialize)]
    struct All {
        quote: super::Quote,
        bytes: bytes::Bytes,
        map: BTreeMap<u8, Option<char>>,
        unit: (),
        nothing: Nothing,
        pair: Pair,
        signed: i64,
        huge: u128,
        half: f32,
        none: f64,
    }

    #[derive(Serialize, Deserialize)]
    struct Nothing;

    #[derive(Serialize, Deserialize)]
    struct Pair(u8, bool);

    fn value() -> All {
        let inner = || Inner { bid: 7, size: NonZeroU16::new(3) };
        let side = Side::Both { one: inner(), other: vec!["x".into()] };
        let tags = [("t".to_owned(), (1, 0.5))].into();
        All {
            quote: Quote { inner: inner(), side, tags, hash: [2; 32] },
            bytes: bytes::Bytes::from_static(&[1, 255]),
            map: [(1, Some('a')), (2, None)].into(),
            unit: (),
            nothing: Nothing,
            pair: Pair(9, true),
            signed: -5,
            huge: u128::MAX,
            half: 0.1,
            none: f64::NAN,
        }
    }

    fn json(format: Format) -> serde_json::Value {
        let mut bytes = Vec::new();
        let codec = Codec::<All>::chosen(Some(format));
        assert_eq!(codec.append(&value(), &mut bytes, usize::MAX), Ok(format));
        serde_json::to_value(codec.schema().read(format, &bytes).unwrap()).unwrap()
    }

    #[test]
    fn values_are_read_by_their_shape_alone() {
        let inner = json!({"bid": 7, "size": 3});
        let mut expected = json!({
            "quote": {
                "inner": inner, "side": {"Both": {"one": inner, "other": ["x"]}}, "tags": {"t": [1, 0.5]},
                "hash": vec![2; 32],
            },
            "bytes": "0x01ff", "map": {"1": "a", "2": null}, "unit": null, "nothing": null, "pair": [9, true],
            "signed": -5, "huge": u128::MAX.to_string(), "half": 0.1, "none": "NaN",
        });
        assert_eq!(json(Format::Postcard), expected);
        // What describes itself needs no shape, and says the same, but for how it has numbers of 128 bits and empty structs.
        expected["huge"] = json!("0xffffffffffffffffffffffffffffffff");
        expected["nothing"] = json!([]);
        assert_eq!(json(Format::MessagePack), expected);
    }

    #[test]
    fn what_does_not_fit_its_shape_is_an_error() {
        let schema = Schema::of::<Side>();
        let read = |bytes: &[u8]| schema.read(Format::Postcard, bytes);
        assert_eq!(read(&[0]), Ok(Value::Text("Buy".into())));
        assert_eq!(read(&[3]).unwrap_err(), "there is no variant 3");
        assert_eq!(read(&[0, 0]).unwrap_err(), "1 bytes left over");
        assert!(read(&[1, 7]).is_err());
        let endless = Schema { nodes: vec![Node::Container("C".into(), Content::Newtype(0))] };
        assert_eq!(endless.read(Format::Postcard, &[1; 9]).unwrap_err(), "it nests too deep");
        let empty = Schema { nodes: vec![Node::Seq(1), Node::Leaf("()".into())] };
        assert_eq!(empty.read(Format::Postcard, &[255, 255, 255, 255, 15]).unwrap_err(), "it has too many parts");
        assert!(Schema::unknown().read(Format::Postcard, &[1]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_value_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            for schema in [Schema::of::<All>(), Schema::of::<Side>(), Schema::unknown()] {
                let _ = schema.read(Format::Postcard, &bytes);
                let _ = schema.read(Format::MessagePack, &bytes);
            }
        }
    }
}
