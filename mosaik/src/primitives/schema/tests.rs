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
