//! `key` and `retain` of `#[mosaik::stream]`: each mistake is named where it is, and the type can be used all the same.

use mosaik::prelude::*;

#[mosaik::stream(retain = lst(5))]
struct Misspelt;

#[mosaik::stream(retain = 5)]
struct Number;

#[mosaik::stream(retain = last())]
struct None;

#[mosaik::stream(retain = last(0))]
struct Zero;

#[mosaik::stream(retain = last("5"))]
struct Text;

#[mosaik::stream(retain = last_per_key(1))]
struct NoKey {
    symbol: u8,
}

#[mosaik::stream(retain = keyframe(true))]
struct NoFunction;

#[mosaik::stream(retain = window("64MB", "30s"))]
struct Unit;

#[mosaik::stream(retain = window("64MiB"))]
struct NoAge;

#[mosaik::stream(retain = window(1 << 20, 30))]
struct AgeWithoutUnit;

#[mosaik::stream(retain = last(1), retain = last(2))]
struct Twice;

#[mosaik::stream(key = "symbol")]
struct KeyAsText {
    symbol: u8,
}

fn used(net: &Network) {
    let _ = Misspelt::producer(net);
    let _ = Unit::consumer(net);
}

fn main() {}
