//! Each of serde's attributes: carried, or refused with the field.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{carried, refused};

macro_rules! value {
    ($($item:item)*) => {
        $(#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)] $item)*
    };
}

value! {
    struct Left { one: u32, #[serde(skip_serializing_if = "Option::is_none")] maybe: Option<u32>, two: u32 }
    struct Inner { a: u8, b: String }
    struct Flat { id: u64, #[serde(flatten)] inner: Inner, #[serde(flatten)] rest: BTreeMap<String, i64> }
    #[serde(untagged)]
    enum Untagged { Number(u64), Text(String), Both { a: u8, b: String } }
    #[serde(tag = "kind")]
    enum Internal { A { x: u8 }, B(Inner), C }
    #[serde(tag = "kind", content = "of")]
    enum Adjacent { A { x: u8 }, B(Inner), C, D(u8, u8) }
    struct Defaults { #[serde(default)] a: u8, #[serde(default, alias = "other", rename = "b2")] b: Vec<u8> }
    enum Others { Known(u8), #[serde(other)] Unknown }
    #[serde(transparent)]
    struct Transparent { inner: Inner }
    struct Remote { #[serde(with = "Foreign")] value: Outside }
    enum Skipping { A, #[serde(skip)] #[allow(dead_code)] B, C(u8), D }
    struct Lost { kept: u8, #[serde(skip_serializing)] lost: u8 }
    struct Around { all: Vec<Wrong> }
    struct Wrong { ok: u8, #[serde(serialize_with = "as_text")] number: u32 }
}

#[derive(Clone, Debug, PartialEq)]
struct Outside {
    inside: u8,
}

impl Outside {
    fn inside(&self) -> u8 {
        self.inside
    }
}

impl From<Foreign> for Outside {
    fn from(foreign: Foreign) -> Self {
        Self { inside: foreign.inside }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Outside")]
struct Foreign {
    #[serde(getter = "Outside::inside")]
    inside: u8,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn as_text<S: serde::Serializer>(number: &u32, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(number)
}

fn inner() -> Inner {
    Inner { a: 1, b: "b".into() }
}

#[test]
fn left_out() {
    carried(&[Left { one: 1, maybe: None, two: 2 }, Left { one: 1, maybe: Some(9), two: 2 }]);
}

#[test]
fn flattened() {
    carried(&[Flat { id: u64::MAX, inner: inner(), rest: [("x".into(), -1)].into() }]);
}

#[test]
fn tagged() {
    carried(&[Untagged::Number(1), Untagged::Text("t".into()), Untagged::Both { a: 1, b: "b".into() }]);
    carried(&[Internal::A { x: 1 }, Internal::B(inner()), Internal::C]);
    carried(&[Adjacent::A { x: 1 }, Adjacent::B(inner()), Adjacent::C, Adjacent::D(1, 2)]);
}

#[test]
fn renamed_and_defaulted() {
    carried(&[Defaults { a: 0, b: vec![1, 2] }]);
    carried(&[Others::Known(1), Others::Unknown]);
    carried(&[Transparent { inner: inner() }]);
    carried(&[Remote { value: Outside { inside: 7 } }]);
}

#[test]
fn skipped_variants() {
    carried(&[Skipping::A, Skipping::C(1), Skipping::D]);
}

#[test]
fn what_is_lost_is_refused_with_its_field() {
    let text = refused(Lost { kept: 1, lost: 2 });
    assert!(text.contains("Lost") && text.contains("lost"), "{text}");
    let text = refused(Around { all: vec![Wrong { ok: 1, number: 70_000 }] });
    assert!(text.contains("Around") && text.contains("all[0]"), "{text}");
}
