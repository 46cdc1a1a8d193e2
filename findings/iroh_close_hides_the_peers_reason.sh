#!/usr/bin/env bash
# iroh 1.4.1: closing a connection that the peer has closed already replaces the peer's reason by "closed locally".
#
# Expected: a connection ends once. `close` on one that has ended does nothing, and `close_reason` goes on to say why it ended.
# Happens: the peer closes with a code and a text, this side learns of them from `closed()`, then calls `close` itself, as clean-up
# code does. From then on `close_reason` says that this side closed the connection: a task that looks a moment later never sees the
# peer's code.
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
iroh = { version = "=1.4.1", default-features = false, features = ["tls-ring"] }
tokio = { version = "1", features = ["rt-multi-thread", "macros"] }
TOML
cat >src/main.rs <<'RUST'
use std::net::SocketAddr;

use iroh::{
    endpoint::{presets, ConnectionError},
    Endpoint,
};

async fn endpoint() -> Endpoint {
    let builder = Endpoint::builder(presets::Minimal).clear_ip_transports().alpns(vec![b"finding".to_vec()]);
    builder.bind_addr(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap().bind().await.unwrap()
}

#[tokio::main]
async fn main() {
    let (here, there) = (endpoint().await, endpoint().await);
    let to = there.addr();
    let accept = async { there.accept().await.unwrap().await.unwrap() };
    let (dialled, accepted) = tokio::join!(here.connect(to, b"finding"), accept);
    let dialled = dialled.unwrap();

    accepted.close(7u32.into(), b"the reason");
    let told = dialled.closed().await;
    let before = dialled.close_reason();
    dialled.close(0u32.into(), b"");
    let after = dialled.close_reason();
    println!("closed() said: {told}");
    println!("close_reason() before this side calls close: {before:?}");
    println!("close_reason() after it: {after:?}");

    let is_peers = |reason: &Option<ConnectionError>| matches!(reason, Some(ConnectionError::ApplicationClosed(_)));
    let as_stated = is_peers(&before) && matches!(after, Some(ConnectionError::LocallyClosed));
    println!("{}", if as_stated { "as stated: the peer's reason is gone" } else { "CHANGED" });
    std::process::exit(if as_stated { 0 } else { 1 });
}
RUST
CARGO_TARGET_DIR=$dir/target cargo run --quiet
