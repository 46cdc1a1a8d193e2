#!/usr/bin/env bash
# sd-notify 0.5.0: a NOTIFY_SOCKET in the abstract namespace (`@name`) is taken for the name of a file.
#
# Expected: as sd_notify(3) says, a leading `@` stands for the zero byte of an abstract socket; the message arrives.
# Happens: `notify` looks for a file `@name` and fails with "no such file"; nothing arrives. Service managers and container
# runtimes that listen on an abstract socket never see such a service as ready.
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
sd-notify = "=0.5.0"
TOML
cat >src/main.rs <<'RUST'
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;

/// What `notify` gives, and what arrives at the socket.
fn notify(socket: &UnixDatagram, name: &str) -> (io::Result<()>, Option<String>) {
    std::env::set_var("NOTIFY_SOCKET", name);
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let sent = sd_notify::notify(&[NotifyState::Ready]);
    let mut buffer = [0; 64];
    let arrived = socket.recv(&mut buffer).ok().map(|len| String::from_utf8_lossy(&buffer[..len]).into_owned());
    println!("NOTIFY_SOCKET={name}: {sent:?}, arrived: {arrived:?}");
    (sent, arrived)
}

fn main() {
    let name = format!("finding-{}", std::process::id());
    let path = std::env::current_dir().unwrap().join("socket");
    let (_, in_file) = notify(&UnixDatagram::bind(&path).unwrap(), path.to_str().unwrap());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let (sent, in_abstract) = notify(&UnixDatagram::bind_addr(&address).unwrap(), &format!("@{name}"));
    let as_stated = in_file.is_some_and(|text| text.starts_with("READY=1"))
        && sent.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        && in_abstract.is_none();
    println!("{}", if as_stated { "as stated" } else { "CHANGED" });
    std::process::exit(if as_stated { 0 } else { 1 });
}
RUST
CARGO_TARGET_DIR=$dir/target cargo run --quiet
