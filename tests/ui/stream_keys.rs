//! The keys of `#[mosaik::stream]`: all mistakes are reported at once, and the type can be used all the same.

use mosaik::prelude::*;

#[mosaik::stream(nmae = "a", tags = ["b"], serde = auto, name)]
struct Misspelt {
    a: u8,
}

#[mosaik::stream(name = "a", name = "b")]
struct Twice;

#[mosaik::stream(name = 5)]
struct Number;

#[mosaik::stream(name = "a" serde = manual)]
#[derive(Serialize, Deserialize)]
struct NoComma;

#[mosaik::stream(name = "")]
struct Empty;

#[mosaik::stream(frequency = "1s")]
struct NoSuchKey;

#[mosaik::stream(codec = "json")]
struct NoSuchCodec;

#[mosaik::stream(evolve = "loose")]
struct NoSuchRule;

#[mosaik::stream(evolve = "append", codec = "postcard")]
struct WithoutNames {
    a: u8,
}

#[mosaik::stream(of = u64, serde = manual)]
struct HasFields {
    a: u8,
}

#[mosaik::stream(of = u64)]
enum Either {
    A,
}

fn used(net: &Network) {
    let _ = Misspelt::producer(net);
    let _ = Twice::producer(net);
    let _ = Number::consumer(net);
    let _ = NoComma::consumer(net);
    let _ = Empty::consumer(net);
    let _ = NoSuchKey::consumer(net);
    let _ = NoSuchCodec::consumer(net);
    let _ = NoSuchRule::consumer(net);
    let _ = WithoutNames::consumer(net);
    let _ = HasFields::consumer(net);
    let _ = Either::producer(net);
}

fn main() {}
