#!/usr/bin/env bash
# alloy-network-primitives 2.5.0: an empty list of transaction hashes is read back as an empty list of whole transactions.
#
# Expected: a block's transactions that were serialised are read back equal: `Hashes([])` as `Hashes([])`.
# Happens: `BlockTransactions` is an untagged enum. An empty JSON array fits the first variant, so that an empty block of the kind
# that `eth_getBlockByNumber(.., false)` answers comes back as the other kind: `is_hashes` is false, and comparing it with the
# original says that they differ. With one hash in it the list is read back as it was. Whoever compares or forwards blocks by their
# JSON (or by any other serde format) sees this at every empty block.
#
# Exit status 0 while it is so, another when it changes.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"

[dependencies]
alloy-network-primitives = "=2.5.0"
alloy-primitives = { version = "1", features = ["serde"] }
serde_json = "1"
TOML
cat >src/main.rs <<'RUST'
use alloy_network_primitives::BlockTransactions;
use alloy_primitives::B256;

type Kind = BlockTransactions<u64>;

fn main() {
    let back = |kind: &Kind| serde_json::from_str::<Kind>(&serde_json::to_string(kind).unwrap()).unwrap();
    let one = Kind::Hashes(vec![B256::repeat_byte(7)]);
    assert_eq!(back(&one), one, "a list with something in it");
    let none = Kind::Hashes(vec![]);
    let read = back(&none);
    println!("{none:?} was read back as {read:?}");
    assert!(read != none && read == Kind::Full(vec![]));
}
RUST
cargo run --quiet
