//! What `#[mosaik::stream]` stands on: concrete structs and enums whose shape is the same in every build.

use mosaik::prelude::*;

#[mosaik::stream]
fn not_a_type() {}

#[mosaik::stream]
union Either {
    a: u8,
    b: i8,
}

#[mosaik::stream]
struct Generic<T> {
    value: T,
}

#[mosaik::stream]
struct Conditional {
    #[cfg(unix)]
    uid: u32,
    pid: u32,
}

#[mosaik::stream(name = "a")]
#[serde(rename = "b")]
struct TwoNames;

#[mosaik::node]
struct Uses {
    generic: Producer<Generic<u8>>,
    conditional: Producer<Conditional>,
}

fn main() {}
