//! Serde attributes that a value is not carried with both ways: an error at the attribute, before anything is sent.

use mosaik::prelude::*;

#[mosaik::stream]
struct Fields {
    #[serde(skip_serializing)]
    unwritten: u8,
    #[serde(skip_deserializing)]
    unread: u8,
    #[serde(skip_serializing_if = "is_zero")]
    sometimes: u8,
    #[serde(rename(serialize = "a"))]
    renamed: u8,
    #[serde(rename(serialize = "a", deserialize = "b"))]
    twice: u8,
}

#[mosaik::stream]
#[serde(rename_all(serialize = "UPPERCASE", deserialize = "lowercase"))]
enum Variants {
    #[serde(skip_deserializing)]
    Unread,
    Inside {
        #[serde(skip_serializing)]
        unwritten: u8,
    },
}

#[derive(Default, Clone, Serialize, Deserialize)]
#[mosaik::group(key = GroupKey::random())]
struct Machine {
    #[serde(skip_serializing)]
    unwritten: u8,
}

/// All of these are carried.
#[mosaik::stream]
struct Fine {
    #[serde(skip)]
    skipped: u8,
    #[serde(skip_serializing, default)]
    unwritten: u8,
    #[serde(skip_serializing, skip_deserializing)]
    both: u8,
    #[serde(skip_serializing_if = "is_zero", default)]
    sometimes: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    maybe: Option<u8>,
    #[serde(rename(serialize = "c", deserialize = "c"))]
    renamed: u8,
    #[serde(rename(serialize = "d"), alias = "d")]
    alias: u8,
}

fn is_zero(value: &u8) -> bool {
    *value == 0
}

fn main() {}
