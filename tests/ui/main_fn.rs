//! `#[mosaik::main]`.

use mosaik::prelude::*;

#[mosaik::main(nam = "x", tags = ["a", "a"])]
fn main(net: Network, _more: u8) {
    drop(net);
}
