//! `#[mosaik::main]` gives the node to `main`.

#[mosaik::main]
async fn main() {}
