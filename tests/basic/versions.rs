//! Two builds of one program whose types differ, as real processes: each reads what the other one sends.

#![expect(clippy::disallowed_methods, reason = "processes live in real time")]

use std::time::{Duration, Instant};

use super::processes::{Process, WEATHER};

const OLD: &str = env!("CARGO_BIN_EXE_orders_old");
const OPERATOR: &str = env!("CARGO_BIN_EXE_operator");
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

#[test]
fn items_of_any_stream_are_printed_by_their_shape() {
    // One stream written with names, one without.
    for (program, role, network, stream, fields) in [
        (NEW, "seller", "orders", "orders", &["venue", "id", "kind", "note"][..]),
        (WEATHER, "sensor", "weather", "readings", &["sensor", "celsius"]),
    ] {
        let mut producer = Process::start(program, &["run", role, "--listen", "127.0.0.1:0"], &[]);
        let address = producer.contact().address;
        let asked = ["tap", stream, "--network", network, "--bootstrap", &address, "--count", "3"];
        let mut tap = Process::start(OPERATOR, &asked, &[]);
        assert!(tap.wait(Duration::from_secs(30)).success(), "{}", tap.stderr.rest());
        let printed = tap.stdout.rest();
        let lines: Vec<serde_json::Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let items: Vec<_> = lines.iter().filter(|line| line.get("item").is_some()).collect();
        assert_eq!(items.len(), 3, "{printed}");
        for line in items {
            assert!(address.starts_with(line["producer"].as_str().unwrap()), "{line}");
            assert!(line["seq"].is_u64() && line["epoch"].is_u64(), "{line}");
            let item = line["item"].as_object().unwrap();
            assert_eq!(
                item.keys().collect::<std::collections::BTreeSet<_>>(),
                fields.iter().map(ToString::to_string).collect::<Vec<_>>().iter().collect(),
                "{line}"
            );
        }
    }
}

#[test]
fn a_tap_of_what_nobody_sends_says_so() {
    let mut producer = Process::start(NEW, &["run", "seller", "--listen", "127.0.0.1:0"], &[]);
    let address = producer.contact().address;
    let asked = ["tap", "odrers", "--network", "orders", "--bootstrap", &address, "--for", "6s"];
    let mut tap = Process::start(OPERATOR, &asked, &[]);
    assert_eq!(tap.wait(Duration::from_secs(30)).code(), Some(1));
    let said = tap.stderr.rest();
    assert!(said.contains("nobody that was found produces") && said.contains("odrers"), "{said}");
}
