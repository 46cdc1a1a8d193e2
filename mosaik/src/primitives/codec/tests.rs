//! What is carried how, and what is refused.

use std::collections::BTreeMap;

use serde::Deserialize;

mod shapes;

use super::*;

const LIMIT: usize = 1 << 20;

fn carried<T: Serialize + DeserializeOwned + PartialEq + fmt::Debug + 'static>(value: &T) -> Format {
    let (codec, mut out) = (Codec::<T>::of(), vec![7]);
    let format = codec.append(value, &mut out, LIMIT).unwrap();
    assert_eq!(codec.decode(format, &out[1..]).unwrap(), *value);
    let marked = codec.marked(value, LIMIT).unwrap();
    assert_eq!(codec.decode_marked(&marked).unwrap(), *value);
    format
}

fn refused<T: Serialize + DeserializeOwned + 'static>(value: &T) -> String {
    let mut out = vec![7];
    let refused = Codec::<T>::of().append(value, &mut out, LIMIT).unwrap_err();
    assert_eq!(out, [7], "the buffer is as before");
    match refused {
        EncodeError::Refused(text) => text,
        EncodeError::TooLarge(_) => panic!("{refused}"),
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Plain {
    a: u32,
    b: Option<String>,
    c: Vec<(u8, i64)>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Kind {
    Unit,
    One(Plain),
    Two(u8, u8),
    Named { x: f64, y: BTreeMap<String, u8> },
}

fn plain() -> Plain {
    Plain { a: 7, b: Some("b".into()), c: vec![(1, -1)] }
}

#[test]
fn ordinary_types_are_written_with_postcard_and_read_back() {
    assert_eq!(carried(&plain()), Format::Postcard);
    assert_eq!(carried(&(1u8, "two".to_owned(), [3.0f32; 3])), Format::Postcard);
    let kinds = [Kind::Unit, Kind::One(plain()), Kind::Two(1, 2), Kind::Named { x: 1.5, y: [("k".into(), 1)].into() }];
    for kind in kinds {
        assert_eq!(carried(&kind), Format::Postcard);
        assert_eq!(carried(&vec![kind; 3]), Format::Postcard);
    }
    let mut out = Vec::new();
    Codec::of().append(&plain(), &mut out, LIMIT).unwrap();
    assert_eq!(out, postcard::to_allocvec(&plain()).unwrap(), "the bytes are postcard's own");
}

#[test]
fn a_field_that_is_left_out_makes_a_value_message_pack() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Left {
        one: u32,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        maybe: Option<u32>,
        two: u32,
    }
    assert_eq!(carried(&Left { one: 1, maybe: Some(2), two: 3 }), Format::Postcard);
    assert_eq!(carried(&Left { one: 1, maybe: None, two: 3 }), Format::MessagePack);
}

#[test]
fn what_asks_for_self_description_is_message_pack() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        Text(String),
        Number(u64),
        Many(Vec<Untagged>),
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "t")]
    enum Internal {
        A { x: u8 },
        B,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "t", content = "c")]
    enum Adjacent {
        A { x: u8 },
        B,
        C(String),
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Flat {
        #[serde(flatten)]
        plain: Plain,
        #[serde(flatten)]
        rest: BTreeMap<String, u64>,
    }
    for value in [Untagged::Text("x".into()), Untagged::Number(5), Untagged::Many(vec![Untagged::Number(1)])] {
        assert_eq!(carried(&value), Format::MessagePack);
    }
    assert_eq!(carried(&[Internal::A { x: 1 }, Internal::B]), Format::MessagePack);
    for value in [Adjacent::A { x: 1 }, Adjacent::B, Adjacent::C("c".into())] {
        carried(&value);
    }
    assert_eq!(carried(&Flat { plain: plain(), rest: [("z".into(), 9)].into() }), Format::MessagePack);
}

#[test]
fn variants_have_the_numbers_of_the_reader() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Skipping {
        A,
        #[serde(skip)]
        #[expect(dead_code, reason = "it only takes a number")]
        Hidden,
        B(u8),
        C,
    }
    assert_eq!(carried(&Skipping::A), Format::Postcard);
    // Postcard alone would read `B` as `C`.
    assert_eq!(carried(&Skipping::B(1)), Format::MessagePack);
    assert_eq!(carried(&Skipping::C), Format::MessagePack);
}

#[test]
fn equal_names_of_unlike_parts_are_told_apart() {
    mod one {
        #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        pub(super) struct Inner {
            pub a: u8,
        }
    }
    mod other {
        #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        pub(super) struct Inner {
            pub b: u8,
        }
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Both {
        one: one::Inner,
        other: other::Inner,
    }
    for _ in 0..3 {
        assert_eq!(carried(&Both { one: one::Inner { a: 1 }, other: other::Inner { b: 2 } }), Format::Postcard);
    }
}

#[test]
fn what_is_written_and_not_read_is_refused_with_type_and_field() {
    #[derive(Serialize, Deserialize)]
    struct OneSided {
        kept: u8,
        #[serde(rename(serialize = "out"))]
        #[serde(skip_serializing_if = "Option::is_none")]
        value: Option<u8>,
        #[serde(skip_serializing)]
        #[expect(dead_code, reason = "it is not read back")]
        lost: u8,
    }
    let text = refused(&OneSided { kept: 1, value: None, lost: 2 });
    assert!(text.contains("OneSided") && text.contains("lost"), "{text}");

    #[derive(Serialize, Deserialize)]
    struct Nested {
        inner: Wrong,
    }
    #[derive(Serialize, Deserialize)]
    struct Wrong {
        ok: u8,
        #[serde(serialize_with = "as_text")]
        number: u32,
    }
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    fn as_text<S: serde::Serializer>(number: &u32, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(number)
    }
    let nested = Nested { inner: Wrong { ok: 1, number: 70_000 } };
    for _ in 0..2 {
        let text = refused(&nested);
        assert!(text.contains("Nested is refused") && text.contains("inner"), "{text}");
    }
    // From then on every value of the type.
    assert!(refused(&Nested { inner: Wrong { ok: 1, number: 0 } }).contains("is refused"));
}

#[test]
fn an_option_directly_in_an_option_needs_postcard() {
    #[expect(clippy::option_option, reason = "it is about that")]
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Twice {
        twice: Option<Option<u8>>,
    }
    assert_eq!(carried(&Twice { twice: Some(None) }), Format::Postcard);
    // Both are nil with names.
    let named =
        Codec::<Twice>::chosen(Some(Format::MessagePack)).append(&Twice { twice: Some(None) }, &mut vec![], LIMIT);
    assert!(matches!(named, Err(EncodeError::Refused(why)) if why.contains("Twice.twice is an option")));
}

#[test]
#[expect(clippy::disallowed_types, reason = "a map in random order is what it is about")]
fn a_map_in_random_order_is_no_difference() {
    let map: std::collections::HashMap<u32, String> = (0..50).map(|n| (n, n.to_string())).collect();
    for _ in 0..20 {
        assert_eq!(carried(&map), Format::Postcard);
    }
}

#[test]
fn a_value_over_the_limit_says_its_size_in_either_format() {
    let long = "x".repeat(100);
    let mut out = vec![7];
    assert_eq!(Codec::of().append(&long, &mut out, 101), Ok(Format::Postcard));
    out.truncate(1);
    assert_eq!(Codec::of().append(&long, &mut out, 100), Err(EncodeError::TooLarge(101)));
    let codec = Codec::<String>::chosen(Some(Format::MessagePack));
    assert_eq!(codec.append(&long, &mut out, 101), Err(EncodeError::TooLarge(102)));
    assert_eq!(out, [7]);
    assert_eq!(codec.append(&long, &mut out, 102), Ok(Format::MessagePack));
    let bytewise = vec![0u8; 1000];
    assert_eq!(Codec::of().append(&bytewise, &mut vec![], 1001), Err(EncodeError::TooLarge(1002)));
}

#[test]
fn deep_and_endless_bytes_end_in_an_error() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Deep {
        Deeper(Box<Deep>),
        End,
    }
    let codec = Codec::<Deep>::of();
    assert_eq!(carried(&Deep::Deeper(Box::new(Deep::End))), Format::MessagePack);
    assert!(matches!(codec.decode(Format::Postcard, &vec![0; 1 << 16]), Err(DecodeError::Unproven(_))));
    let deep = vec![0x81u8; 1 << 16];
    assert!(codec.decode(Format::MessagePack, &deep).is_err());
    let nested: Vec<u8> = [0x81, 0xA6, b'D', b'e', b'e', b'p', b'e', b'r'].repeat(1 << 13);
    assert!(codec.decode(Format::MessagePack, &nested).is_err());
    assert!(Codec::<Vec<()>>::of().decode(Format::Postcard, &[0xFF; 10]).is_err());
    assert!(codec.decode_marked(&[]).is_err() && codec.decode_marked(&[9, 0]).is_err());
}

#[test]
fn bytes_behind_a_value_are_an_error() {
    let codec = Codec::<u8>::of();
    assert!(matches!(codec.decode(Format::Postcard, &[1, 2]), Err(DecodeError::LeftOver(1))));
    assert!(matches!(codec.decode(Format::MessagePack, &[1, 2, 3]), Err(DecodeError::LeftOver(2))));
}

proptest::proptest! {
    #[test]
    fn hostile_bytes_are_an_error_or_a_value(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        for format in [Format::Postcard, Format::MessagePack] {
            let _ = Codec::<Vec<Kind>>::of().decode(format, &bytes);
            let _ = Codec::<BTreeMap<String, Option<Plain>>>::of().decode(format, &bytes);
        }
    }
}
