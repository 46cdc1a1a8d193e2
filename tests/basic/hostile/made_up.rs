//! Peers that somebody made up: entries that are signed as they should be, of peers that nobody will ever reach.

use std::time::{Duration, Instant};

use mosaik::{
    NetworkId,
    diagnostics::Client,
    discovery::{Bootstrap, Version},
    network::CloseCode,
};

use super::{
    super::processes::{Process, WEATHER},
    Attacker,
    forgery::{Person, give_to},
};

/// Lines of one kind that a node prints in a minute before it counts instead, the line with the count, and some honest peers.
const MAX_LINES: usize = 30;
const SOON: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_made_up_peers_do_not_flood_stderr() {
    let name = "hostile: made-up peers";
    let network = NetworkId::from(name);
    let mut victim = Process::start(WEATHER, &["run", "display", "--network", name, "--listen", "127.0.0.1:0"], &[]);
    let at: Bootstrap = victim.contact().address.parse().expect("an address");
    let socket = at.to_string().split_once('@').and_then(|(_, at)| at.parse().ok()).expect("a socket");
    let addr = iroh::EndpointAddr::from(at.id()).with_ip_addr(socket);
    let attacker = Attacker::new(1).await;
    for part in 0..4 {
        let made_up = (0..250).map(|n| Person::new(&format!("made up {part} {n}"), network));
        let version = Version { run_id: 5, seq: 0 };
        let records = made_up.map(|person| person.record(person.id(), version, "made up")).collect();
        let (_, code) = give_to(network, addr.clone(), &attacker, records).await;
        assert_eq!(code, CloseCode::Normal);
    }
    let client = Client::new(network).await.expect("starts");
    let deadline = Instant::now() + SOON;
    // Entries are printed before the answer to a question that came after them, or the queue of events is short.
    assert!(client.node(&addr).await.expect("answers").peers >= 500);
    // Their leases end, which makes as many lines again.
    while client.node(&addr).await.expect("answers").peers > 0 {
        assert!(Instant::now() < deadline, "made-up peers do not expire");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    victim.kill();
    let printed = victim.stderr.rest();
    for kind in ["discovered", "departed", "returned"] {
        let lines = printed.lines().filter(|line| line.contains(kind)).count();
        assert!(lines <= MAX_LINES, "{lines} lines of peers {kind}:\n{printed}");
    }
}
