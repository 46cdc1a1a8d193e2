//! A field whose state is no store at all: the attribute is missing.

use mosaik::prelude::*;

#[derive(Clone, Default, Serialize, Deserialize)]
struct Undeclared(u64);

#[mosaik::node]
struct Desk {
    prices: StoreReplica<Undeclared>,
}

fn main() {}
