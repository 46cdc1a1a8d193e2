#!/usr/bin/env bash
# alloy-consensus 2.5.0 with rmp-serde 1.3.1 and ciborium 0.2.2: a signed transaction is written and cannot be read back.
#
# Expected: both formats describe themselves, as JSON does, so what they write of a `TxEnvelope` is read back; or writing fails.
# Happens: both are told that they are not human-readable, so that numbers and hashes are written as bytes. The reader of a
# `TxEnvelope` takes its fields for JSON values while it looks for the kind of transaction, and there are no bytes in JSON: it fails,
# always. Nothing fails before that. MessagePack works once both sides are told to be human-readable; JSON works because it is.
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
alloy-consensus = { version = "=2.5.0", features = ["serde", "k256"] }
alloy-primitives = { version = "1", features = ["serde"] }
ciborium = "=0.2.2"
rmp-serde = "=1.3.1"
serde = "1"
serde_json = "1"
TOML
cat >src/main.rs <<'RUST'
use alloy_consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy_primitives::Signature;
use serde::{Deserialize, Serialize};

fn main() {
    let transaction = TxEip1559 { chain_id: 1, gas_limit: 21_000, ..Default::default() };
    let envelope = TxEnvelope::from(transaction.into_signed(Signature::test_signature()));

    let json = serde_json::to_string(&envelope).unwrap();
    assert_eq!(serde_json::from_str::<TxEnvelope>(&json).unwrap(), envelope, "JSON");

    let named = rmp_serde::to_vec_named(&envelope).unwrap();
    let error = rmp_serde::from_slice::<TxEnvelope>(&named).unwrap_err();
    println!("MessagePack with names: {} bytes written, then: {error}", named.len());

    let mut cbor = Vec::new();
    ciborium::into_writer(&envelope, &mut cbor).unwrap();
    let error = ciborium::from_reader::<TxEnvelope, _>(cbor.as_slice()).unwrap_err();
    println!("CBOR: {} bytes written, then: {error}", cbor.len());

    let mut readable = Vec::new();
    envelope.serialize(&mut rmp_serde::Serializer::new(&mut readable).with_struct_map().with_human_readable()).unwrap();
    let mut reader = rmp_serde::Deserializer::new(readable.as_slice()).with_human_readable();
    assert_eq!(TxEnvelope::deserialize(&mut reader).unwrap(), envelope, "MessagePack, human-readable on both sides");
    println!("MessagePack with names, human-readable: {} bytes, read back equal", readable.len());
}
RUST
cargo run --quiet
