//! `--announce HOST:PORT`: where peers outside reach a node that does not see that address itself.

use std::{net::SocketAddr, str::FromStr};

use super::process::Failure;

/// Addresses that are taken of one host name.
const MAX_ADDRESSES: usize = 4;

/// An address to announce: of numbers, or a host name, which is looked up when the node starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Announced {
    host: String,
    port: u16,
}

impl FromStr for Announced {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const USAGE: &str = "expected HOST:PORT, such as 203.0.113.7:4433, [2001:db8::7]:4433 or node.example.org:4433";
        if let Ok(socket) = text.parse::<SocketAddr>() {
            if socket.ip().is_unspecified() || socket.port() == 0 {
                return Err(format!("nobody can be reached at {socket}"));
            }
            return Ok(Self { host: socket.ip().to_string(), port: socket.port() });
        }
        let (host, port) = text.rsplit_once(':').ok_or(USAGE)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(USAGE)?;
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if host.is_empty() || host.len() > 255 || !host.chars().all(known) {
            return Err(USAGE.into());
        }
        Ok(Self { host: host.into(), port })
    }
}

impl Announced {
    /// The addresses that it stands for.
    pub(super) async fn resolve(&self) -> Result<Vec<SocketAddr>, Failure> {
        let Self { host, port } = self;
        let failed = |error: &str| Failure::from(format!("--announce {host}:{port}: {error}"));
        let found =
            tokio::net::lookup_host((host.as_str(), *port)).await.map_err(|error| failed(&error.to_string()))?;
        let mut found: Vec<_> = found.take(MAX_ADDRESSES).collect();
        found.sort_unstable();
        found.dedup();
        if found.is_empty() { Err(failed("the name has no address")) } else { Ok(found) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn numbers_and_names_are_read_and_looked_up() {
        for text in ["203.0.113.7:4433", "[2001:db8::7]:4433"] {
            let announced: Announced = text.parse().expect("is an address");
            assert_eq!(announced.resolve().await.expect("needs no look-up"), [text.parse().expect("is an address")]);
        }
        let local: Announced = "localhost:4433".parse().expect("is a name");
        assert!(
            local.resolve().await.expect("is known").iter().all(|addr| addr.ip().is_loopback() && addr.port() == 4433)
        );
        let nobody: Announced = "nowhere.invalid:4433".parse().expect("is a name");
        assert!(
            nobody
                .resolve()
                .await
                .expect_err("is unknown")
                .to_string()
                .starts_with("--announce nowhere.invalid:4433: ")
        );
    }

    #[test]
    fn what_nobody_can_reach_is_refused() {
        for text in
            ["", "4433", "host", "host:", "host:0", "host:65536", ":4433", "a b:1", "2001:db8::7:1", "0.0.0.0:4433"]
        {
            assert!(text.parse::<Announced>().is_err(), "{text}");
        }
    }
}
