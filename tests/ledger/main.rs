//! The ledger example from outside: three real processes under clients that never stop, killed, frozen, restarted and cut
//! off, with clocks that jump. The history that the clients have recorded must be linearizable: nothing acknowledged is lost, nothing is applied
//! twice.
//!
//! The short version is part of `cargo test`. The long one, with 50 kills and partitions between network namespaces (root
//! and iproute2; left out with a message otherwise):
//!
//! ```text
//! cargo test -p mosaik-tests --test ledger -- --ignored --nocapture --test-threads=1
//! ```
//!
//! `LEDGER_KILLS=n` kills the leader so many times instead of 50.

#![expect(clippy::disallowed_methods, reason = "processes live in real time")]
#![expect(clippy::unwrap_used, reason = "a test may fail")]

mod clients;
mod cluster;
#[path = "../raft/sim/linear.rs"]
mod linear;
mod namespaces;

use std::{
    env,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use clients::Clients;
use cluster::{Branch, Cluster, LAN, LEDGER, SOON};
use namespaces::Namespaces;
use serde_json::json;

/// After a SIGKILL of the leader, the median.
const FAILOVER: Duration = Duration::from_millis(1200);
const FAILOVER_LAN: Duration = Duration::from_millis(400);
/// After a majority is back, each time.
const RECOVERY: Duration = Duration::from_secs(3);
/// From the start of three processes to the first write.
const JOIN: Duration = Duration::from_secs(2);

/// A promised time, stretched by how much more the machine has to do than it can.
fn promised(time: Duration) -> Duration {
    let load = std::fs::read_to_string("/proc/loadavg").ok().and_then(|text| text.split(' ').next()?.parse().ok());
    let cores = thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
    time.mul_f64((load.unwrap_or(0.0) / cores).clamp(1.0, 20.0))
}

/// A cluster under load, and how long it took to answer after each fault.
struct Trial {
    cluster: Cluster,
    clients: Clients,
    failovers: Vec<Duration>,
    recoveries: Vec<Duration>,
}

impl Trial {
    fn new(cluster: Cluster) -> Self {
        let apis: Vec<SocketAddr> = cluster.branches.iter().map(|branch| branch.place.api).collect();
        let clients = Clients::start(&apis);
        clients.wait_for_write(0, SOON);
        cluster.wait_whole();
        Self { cluster, clients, failovers: Vec::new(), recoveries: Vec::new() }
    }

    /// SIGKILL of the leader; it comes back when the others have gone on.
    fn kill_leader(&mut self) {
        self.clients.next_round();
        let leader = self.cluster.leader();
        let at = self.clients.now();
        self.cluster.branches[leader].kill();
        self.failovers.push(self.clients.wait_for_write(at, SOON));
        self.restart(&[leader]);
        self.cluster.wait_whole();
    }

    /// SIGSTOP of the leader for so long.
    fn freeze_leader(&mut self, time: Duration) {
        self.clients.next_round();
        let leader = self.cluster.leader();
        self.cluster.branches[leader].signal("STOP");
        pause(time);
        self.cluster.branches[leader].signal("CONT");
        let at = self.clients.now();
        self.recoveries.push(self.clients.wait_for_write(at, SOON));
        self.cluster.wait_whole();
    }

    /// The wall clock of each member in turn jumps ahead and back, at last those of all at once and apart; so much each way.
    /// Everybody is served on.
    fn jump_clocks(&mut self, seconds: i64) {
        let members = self.cluster.branches.len();
        for member in 0..members {
            for skew in [seconds, -seconds, 0] {
                self.clients.next_round();
                self.cluster.branches[member].set_clock(skew);
                self.wait_for_service();
                self.cluster.wait_skewed(usize::from(skew != 0));
            }
        }
        for skews in [[seconds, -seconds, seconds], [-seconds, seconds, -seconds]] {
            self.clients.next_round();
            self.cluster.branches.iter().zip(skews).for_each(|(branch, skew)| branch.set_clock(skew));
            self.wait_for_service();
        }
    }

    /// Clients are answered at all times for a second.
    fn wait_for_service(&self) {
        for _ in 0..10 {
            let at = self.clients.now();
            pause(Duration::from_millis(100));
            self.clients.wait_for_write(at, SOON);
        }
    }

    /// SIGTERM and restart of one member after the other.
    fn roll(&mut self, pause_between: Duration) {
        self.clients.next_round();
        for member in 0..self.cluster.branches.len() {
            let at = self.clients.now();
            self.cluster.branches[member].terminate();
            self.recoveries.push(self.clients.wait_for_write(at, SOON));
            self.restart(&[member]);
            pause(pause_between);
        }
        self.cluster.wait_whole();
    }

    /// SIGKILL of all at the same time; how long after the second one is back there is service.
    fn kill_all(&mut self) {
        self.clients.next_round();
        self.cluster.branches.iter_mut().for_each(Branch::kill);
        let members: Vec<_> = (0..self.cluster.branches.len()).collect();
        self.cluster.branches.iter_mut().for_each(Branch::spawn);
        self.cluster.branches[members[0]].wait_for_api();
        self.cluster.branches[members[1]].wait_for_api();
        let at = self.clients.now();
        self.recoveries.push(self.clients.wait_for_write(at, SOON));
        self.cluster.branches[members[2]].wait_for_api();
        self.cluster.wait_whole();
    }

    /// Cuts these ways for a time, from one member to another.
    fn cut(&mut self, namespaces: &Namespaces, ways: &[(usize, usize)], time: Duration) {
        self.clients.next_round();
        ways.iter().for_each(|(from, to)| namespaces.cut(*from, *to));
        pause(time);
        ways.iter().for_each(|(from, to)| namespaces.mend(*from, *to));
        let at = self.clients.now();
        self.recoveries.push(self.clients.wait_for_write(at, SOON));
        self.cluster.wait_whole();
    }

    fn restart(&mut self, members: &[usize]) {
        members.iter().for_each(|member| self.cluster.branches[*member].spawn());
        members.iter().for_each(|member| self.cluster.branches[*member].wait_for_api());
    }

    /// Checks the history and how long the clients had to wait; `failover` bounds the median after a kill.
    fn finish(self, what: &str, failover: Duration) {
        let Self { clients, failovers, recoveries, cluster } = self;
        let (all, unknown) = clients.check();
        println!("{what}: {all} operations, {unknown} of unknown outcome, linearizable");
        report("first write after the leader was killed", &failovers);
        report("first write after a majority was back", &recoveries);
        let median = median(&failovers);
        assert!(median.is_none_or(|median| median < promised(failover)), "{what}: median of {failovers:?}");
        assert!(recoveries.iter().all(|it| *it < promised(RECOVERY)), "{what}: {recoveries:?}");
        drop(cluster);
    }
}

fn pause(time: Duration) {
    let until = Instant::now() + time;
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        thread::park_timeout(left);
    }
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().unwrap())
}

fn median(times: &[Duration]) -> Option<Duration> {
    let mut times = times.to_vec();
    times.sort();
    times.get(times.len() / 2).copied()
}

fn report(what: &str, times: &[Duration]) {
    if let (Some(median), Some(longest)) = (median(times), times.iter().max()) {
        let (median, longest) = (median.as_millis(), longest.as_millis());
        println!("  {what}: {} times, median {median} ms, longest {longest} ms", times.len());
    }
}

#[test]
fn what_was_acknowledged_is_kept_through_every_fault() {
    let mut trial = Trial::new(Cluster::on_loopback(LEDGER));
    for _ in 0..3 {
        trial.kill_leader();
    }
    trial.freeze_leader(Duration::from_secs(2));
    trial.roll(Duration::from_secs(1));
    trial.kill_all();
    trial.finish("short", FAILOVER);
}

/// Two hours each way, at any member, under load; and whoever leads is killed while its clock is wrong, with commands under way.
#[test]
fn clocks_that_jump_by_hours_expire_nothing() {
    const HOURS: i64 = 2 * 3600;
    let mut trial = Trial::new(Cluster::on_loopback(LEDGER));
    trial.jump_clocks(HOURS);
    for skew in [-HOURS, HOURS] {
        let leader = trial.cluster.leader();
        trial.cluster.branches[leader].set_clock(skew);
        trial.wait_for_service();
        trial.kill_leader();
    }
    let errors = trial.clients.errors();
    let expired: Vec<_> = errors.iter().filter(|error| error.contains("older than the group remembers")).collect();
    assert!(expired.is_empty(), "{errors:#?}");
    trial.finish("clocks that jump", FAILOVER);
}

#[test]
#[ignore = "takes many minutes"]
fn long_kills_freezes_and_restarts() {
    let mut trial = Trial::new(Cluster::on_loopback(LEDGER));
    for _ in 0..number("LEDGER_KILLS").unwrap_or(50) {
        trial.kill_leader();
    }
    for seconds in 1..=10 {
        trial.freeze_leader(Duration::from_secs(seconds));
    }
    for _ in 0..3 {
        trial.roll(Duration::from_secs(3));
    }
    for _ in 0..5 {
        trial.kill_all();
    }
    trial.finish("long", FAILOVER);
}

#[test]
#[ignore = "takes a minute"]
fn long_joins_of_three() {
    let (mut writes, mut wholes) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let cluster = Cluster::on_loopback(LEDGER);
        let deposit = json!({"id": 1, "op": "deposit", "account": "a", "amount": 1});
        while cluster.branches[0].ask(&deposit).is_none_or(|answer| answer["ok"].is_null()) {
            assert!(cluster.begun.elapsed() < SOON, "no write");
        }
        writes.push(cluster.begun.elapsed());
        cluster.wait_whole();
        wholes.push(cluster.begun.elapsed());
    }
    println!("three processes that never met:");
    report("first write after their start", &writes);
    report("all online after their start", &wholes);
    assert!(median(&wholes).is_some_and(|median| median < promised(JOIN)), "{wholes:?}");
}

#[test]
#[ignore = "takes minutes"]
fn long_failover_in_one_building() {
    let mut trial = Trial::new(Cluster::on_loopback(LAN));
    for _ in 0..30 {
        trial.kill_leader();
    }
    trial.finish("with the timing for one building", FAILOVER_LAN);
}

#[test]
#[ignore = "takes minutes and needs root and iproute2"]
fn long_partitions() {
    let namespaces = match Namespaces::new() {
        Ok(namespaces) => namespaces,
        Err(error) => return println!("left out: no network namespaces here ({error})"),
    };
    let mut trial = Trial::new(Cluster::start(LEDGER, namespaces.places()));
    for time in [2, 5, 15].map(Duration::from_secs) {
        let leader = trial.cluster.leader();
        let (one, other) = ((leader + 1) % 3, (leader + 2) % 3);
        // The leader against the two others.
        trial.cut(&namespaces, &[(leader, one), (one, leader), (leader, other), (other, leader)], time);
        // One bad link, at the leader.
        let leader = trial.cluster.leader();
        let other = (leader + 1) % 3;
        trial.cut(&namespaces, &[(leader, other), (other, leader)], time);
        // One way only: the leader speaks and does not hear, and the reverse.
        let leader = trial.cluster.leader();
        let (one, other) = ((leader + 1) % 3, (leader + 2) % 3);
        trial.cut(&namespaces, &[(one, leader), (other, leader)], time);
        let leader = trial.cluster.leader();
        let (one, other) = ((leader + 1) % 3, (leader + 2) % 3);
        trial.cut(&namespaces, &[(leader, one), (leader, other)], time);
    }
    trial.finish("partitions", FAILOVER);
}
