//! What a `main` may return.

use mosaik::prelude::*;

#[mosaik::main]
async fn main(net: Network) -> u8 {
    drop(net);
    0
}
