#!/usr/bin/env bash
# postcard 1.2.0 with serde 1.0.229: an enum with a `#[serde(skip)]` variant is written and read back as another variant.
#
# Expected: what was serialised is read back equal, or one of both fails.
# Happens: serde_derive numbers variants differently on both sides. `Serialize` counts all of them, `Deserialize` only those that
# are not skipped; a format that writes numbers (postcard, and others like it) takes one for the other. `Three` arrives as
# `Four`, and the last one does not arrive at all. JSON, which writes names, is right.
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
postcard = { version = "=1.2.0", default-features = false, features = ["alloc"] }
serde = { version = "=1.0.229", features = ["derive"] }
serde_json = "1"
TOML
cat >src/main.rs <<'RUST'
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Count {
    One,
    #[serde(skip)]
    #[allow(dead_code)]
    Two,
    Three,
    Four,
}

fn main() {
    let mut read = Vec::new();
    for count in [Count::One, Count::Three, Count::Four] {
        let bytes = postcard::to_allocvec(&count).unwrap();
        let back = postcard::from_bytes::<Count>(&bytes).ok();
        let json: Count = serde_json::from_str(&serde_json::to_string(&count).unwrap()).unwrap();
        println!("{count:?}: postcard writes {bytes:?} and reads {back:?}; JSON reads {json:?}");
        read.push((back, json == count));
    }
    let as_stated = read == [(Some(Count::One), true), (Some(Count::Four), true), (None, true)];
    println!("{}", if as_stated { "as stated" } else { "CHANGED" });
    std::process::exit(if as_stated { 0 } else { 1 });
}
RUST
CARGO_TARGET_DIR=$dir/target cargo run --quiet
