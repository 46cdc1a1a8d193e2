//! Two builds of one program whose types differ, as real processes: each reads what the other one sends.

#![expect(clippy::disallowed_methods, reason = "processes live in real time")]

use std::time::{Duration, Instant};

use super::processes::Process;

const OLD: &str = env!("CARGO_BIN_EXE_orders_old");
const NEW: &str = env!("CARGO_BIN_EXE_orders_new");

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

/// A seller of one build and a buyer of the other one.
fn pair(seller: &str, buyer: &str) -> (Process, Process) {
    let mut seller = Process::start(seller, &["run", "seller", "--listen", "127.0.0.1:0"], &[]);
    let address = seller.contact().address;
    let buyer = Process::start(buyer, &["run", "buyer", "--listen", "127.0.0.1:0", "--bootstrap", &address], &[]);
    (seller, buyer)
}

#[test]
fn an_older_build_reads_what_a_newer_one_sends() {
    let (_seller, mut buyer) = pair(NEW, OLD);
    // What it does not know of an item is left out, and of three kinds of items one is passed over, by name.
    buyer.stdout.wait(soon(), "order with a limit", |line| line.contains("kind: Limit { cents:"));
    buyer.stdout.wait(soon(), "order at market", |line| line.contains("kind: Market"));
    buyer.stderr.has(soon(), "word about the variant", |line| line.contains("Pegged"));
    buyer.stdout.wait(soon(), "later order", |line| line.contains("kind: Limit"));
    assert!(!buyer.stdout.seen.iter().any(|line| line.contains("venue") || line.contains("Pegged")));
}

#[test]
fn a_newer_build_reads_what_an_older_one_sends() {
    let (_seller, mut buyer) = pair(OLD, NEW);
    buyer.stdout.wait(soon(), "order with a limit", |line| {
        line.starts_with("Order { venue: \"\"") && line.contains("hidden: false") && line.ends_with("note: None }")
    });
    buyer.stdout.wait(soon(), "order at market", |line| line.contains("kind: Market"));
}
