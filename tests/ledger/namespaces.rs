//! Members in network namespaces of their own, so that the network between two of them can be cut, one way or both.
//!
//! Needs `ip` (iproute2) and root. Each member has an address on one bridge; a way is cut by a route to nowhere.

use std::process::Command;

use super::cluster::Place;

const BRIDGE: &str = "mosaik-ledger";
const SIZE: u8 = 3;

/// The namespaces; taken down when dropped.
pub struct Namespaces {
    /// The name and address of each member.
    members: Vec<(String, String)>,
}

impl Namespaces {
    /// Sets them up, or says why that cannot be done here.
    pub fn new() -> Result<Self, String> {
        remove();
        let members = (0..SIZE).map(|member| (name(member), addr(member))).collect();
        let this = Self { members };
        ip(&["link", "add", BRIDGE, "type", "bridge"])?;
        ip(&["addr", "add", "10.77.0.254/24", "dev", BRIDGE])?;
        ip(&["link", "set", BRIDGE, "up"])?;
        for member in 0..SIZE {
            let (name, outer, addr) = (name(member), format!("mosaik-l{member}"), format!("{}/24", addr(member)));
            ip(&["netns", "add", &name])?;
            ip(&["link", "add", &outer, "type", "veth", "peer", "name", "eth0", "netns", &name])?;
            ip(&["link", "set", &outer, "master", BRIDGE, "up"])?;
            ip(&["-n", &name, "addr", "add", &addr, "dev", "eth0"])?;
            ip(&["-n", &name, "link", "set", "eth0", "up"])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
        }
        Ok(this)
    }

    pub fn places(&self) -> Vec<Place> {
        let place = |(name, addr): &(String, String)| Place {
            namespace: Some(name.clone()),
            listen: format!("{addr}:7000").parse().unwrap(),
            api: format!("{addr}:8000").parse().unwrap(),
        };
        self.members.iter().map(place).collect()
    }

    /// Nothing of `from` reaches `to` any more; clients are not concerned.
    pub fn cut(&self, from: usize, to: usize) {
        ip(&["-n", &self.members[from].0, "route", "add", "blackhole", &self.members[to].1]).unwrap();
    }

    pub fn mend(&self, from: usize, to: usize) {
        ip(&["-n", &self.members[from].0, "route", "del", "blackhole", &self.members[to].1]).unwrap();
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        remove();
    }
}

fn remove() {
    for member in 0..SIZE {
        // What is not there need not be removed.
        let _ = ip(&["netns", "del", &name(member)]);
        let _ = ip(&["link", "del", &format!("mosaik-l{member}")]);
    }
    let _ = ip(&["link", "del", BRIDGE]);
}

fn name(member: u8) -> String {
    format!("mosaik-ledger-{member}")
}

fn addr(member: u8) -> String {
    format!("10.77.0.{}", member + 1)
}

fn ip(args: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(args).output().map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}
