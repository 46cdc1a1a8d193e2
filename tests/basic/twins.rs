//! One key at two nodes, as operators do it: a copied secret. Both and their peers must say so.

#![expect(clippy::disallowed_methods, reason = "processes live in real time")]

use std::time::{Duration, Instant};

use super::processes::{Keys, Process, WEATHER};

const SOON: Duration = Duration::from_mins(1);

fn run(role: &str, secret: &str, bootstrap: &[&str]) -> (Process, String) {
    let mut args = vec!["run", role, "--secret", secret, "--listen", "127.0.0.1:0"];
    for peer in bootstrap {
        args.extend(["--bootstrap", peer]);
    }
    let mut process = Process::start(WEATHER, &args, &[]);
    let address = process.contact().address;
    (process, address)
}

#[test]
fn one_secret_on_two_hosts_is_named_by_both_and_by_their_peers() {
    let keys = Keys::new();
    let (mut peer, at) = run("display", &keys.path("peer"), &[]);
    let (mut one, first) = run("sensor", &keys.path("twin"), &[&at]);
    let (mut two, second) = run("sensor", &keys.path("twin"), &[&at]);
    let places = [&first, &second].map(|address| address.split_once('@').unwrap().1.to_owned());
    assert_ne!(places[0], places[1]);
    let deadline = Instant::now() + SOON;
    for process in [&mut one, &mut two, &mut peer] {
        let fits = |line: &str| line.contains("WARN") && places.iter().all(|place| line.contains(place.as_str()));
        process.stderr.has(deadline, "warning with both addresses", fits);
    }
}
