//! Files of measurements that are none, and flags that a role with `attest` has already.

use mosaik::prelude::*;

#[mosaik::stream(attest = "m.toml")]
struct Bid(u64);

#[mosaik::node(attest = " ")]
struct Empty {}

#[mosaik::node(attest)]
struct Alone {}

#[mosaik::node(attest = 5)]
struct Number {}

#[mosaik::node(attest = "m.toml")]
struct Flags {
    #[mosaik(arg)]
    measurements: String,
    #[mosaik(arg)]
    collateral: String,
    bids: Producer<Bid>,
}

/// A role without it may have such a flag.
#[mosaik::node]
struct Free {
    #[mosaik(arg)]
    measurements: String,
}

fn main() {}
