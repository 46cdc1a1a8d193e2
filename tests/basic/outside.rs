//! A node in a network of its own behind a forwarded port, as in a container: three network namespaces, real processes.
//!
//! Needs root and `ip` (iproute2); without them the test says so and passes.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crate::processes::{Contact, Process};

const WEATHER: &str = env!("CARGO_BIN_EXE_weather");
const SOON: Duration = Duration::from_secs(40);
/// Tells the copy of this test binary in the gateway what to forward: from where, and to where.
const FORWARD: &str = "MOSAIK_TEST_FORWARD";

fn ip(args: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(args).output().map_err(|error| format!("ip: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("ip {}: {}", args.join(" "), said.trim())) }
}

/// `inside` and `outside` reach the gateway and nothing beyond it. Taken down when dropped.
struct Namespaces {
    inside: String,
    gateway: String,
    outside: String,
}

impl Namespaces {
    fn new() -> Result<Self, String> {
        let name = |part: &str| format!("mosaik-{}-{part}", std::process::id());
        let this = Self { inside: name("in"), gateway: name("gw"), outside: name("out") };
        for namespace in [&this.inside, &this.gateway, &this.outside] {
            ip(&["netns", "add", namespace])?;
            ip(&["-n", namespace, "link", "set", "lo", "up"])?;
        }
        for (namespace, ours, theirs, host, gateway) in [
            (&this.inside, "eth0", "inner", "10.79.2.1/24", "10.79.2.254/24"),
            (&this.outside, "eth0", "outer", "10.79.1.1/24", "10.79.1.254/24"),
        ] {
            let veth = ["-n", namespace, "link", "add", ours, "type", "veth", "peer", "name", theirs];
            ip(&[&veth[..], &["netns", &this.gateway]].concat())?;
            ip(&["-n", namespace, "addr", "add", host, "dev", ours])?;
            ip(&["-n", namespace, "link", "set", ours, "up"])?;
            ip(&["-n", &this.gateway, "addr", "add", gateway, "dev", theirs])?;
            ip(&["-n", &this.gateway, "link", "set", theirs, "up"])?;
        }
        Ok(this)
    }

    fn run(namespace: &str, args: &[&str]) -> (Process, Contact) {
        let mut process = Process::start("ip", &[&["netns", "exec", namespace, WEATHER, "run"], args].concat(), &[]);
        let contact = process.contact();
        (process, contact)
    }

    /// Forwards a UDP port of the gateway, as a container's host does.
    fn forward(&self, from: &str, to: &str) -> Forwarder {
        let test = std::env::current_exe().unwrap();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.gateway]).arg(test);
        command.args(["--exact", "outside::forwards_what_another_test_asks_for", "--ignored"]);
        let command = command.env(FORWARD, format!("{from} {to}")).stdin(Stdio::null()).stdout(Stdio::null());
        Forwarder(command.spawn().unwrap())
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for namespace in [&self.inside, &self.gateway, &self.outside] {
            // What is not there need not be removed.
            let _ = ip(&["netns", "del", namespace]);
        }
    }
}

struct Forwarder(Child);

impl Drop for Forwarder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// No test: what [`Namespaces::forward`] runs in the gateway. Each sender has a socket of its own, which the inside answers.
#[test]
#[ignore = "a part of another test, which runs it"]
fn forwards_what_another_test_asks_for() {
    let Ok(what) = std::env::var(FORWARD) else { return };
    let (from, to) = what.split_once(' ').unwrap();
    let (outer, to): (_, SocketAddr) = (Arc::new(UdpSocket::bind(from).unwrap()), to.parse().unwrap());
    let mut inner: BTreeMap<SocketAddr, Arc<UdpSocket>> = BTreeMap::new();
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok((length, sender)) = outer.recv_from(&mut buffer) else { continue };
        let socket = inner.entry(sender).or_insert_with(|| {
            let socket = Arc::new(UdpSocket::bind("0.0.0.0:0").unwrap());
            let (back, outer) = (socket.clone(), outer.clone());
            thread::spawn(move || {
                let mut buffer = vec![0; 65_536];
                loop {
                    if let Ok((length, _)) = back.recv_from(&mut buffer) {
                        let _ = outer.send_to(&buffer[..length], sender);
                    }
                }
            });
            socket
        });
        let _ = socket.send_to(&buffer[..length], to);
    }
}

/// A sensor inside announces the forwarded port. A display that only knows another display learns of it, and reaches it.
#[test]
fn a_node_behind_a_forwarded_port_is_reached_by_what_it_announces() {
    let namespaces = match Namespaces::new() {
        Ok(namespaces) => namespaces,
        Err(error) => {
            eprintln!("skipped: {error}");
            return;
        }
    };
    let _forwarder = namespaces.forward("10.79.1.254:5000", "10.79.2.1:4433");
    let sensor = ["sensor", "--id", "1", "--listen", "10.79.2.1:4433", "--announce", "10.79.1.254:5000"];
    let (_sensor, inside) = Namespaces::run(&namespaces.inside, &sensor);
    let at = format!("{}@10.79.1.254:5000", inside.id);
    let outside = |bootstrap: &str| {
        let args = ["display", "--listen", "10.79.1.1:0", "--bootstrap", bootstrap];
        Namespaces::run(&namespaces.outside, &args)
    };
    let (mut first, contact) = outside(&at);
    first.stdout.wait(Instant::now() + SOON, "reading", |line| line.ends_with(": 1 = 21.5 C"));
    let (mut second, _) = outside(&contact.address);
    second.stdout.wait(Instant::now() + SOON, "reading", |line| line.ends_with(": 1 = 21.5 C"));
}
