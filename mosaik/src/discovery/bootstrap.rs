//! [`Bootstrap`]: how a user names a first contact.

use std::{convert::Infallible, fmt, str::FromStr};

use iroh::{EndpointAddr, TransportAddr};

use super::core::Target;
use crate::primitives::PeerId;

/// The longest host name (RFC 1035, section 2.3.4).
const MAX_HOST: usize = 255;

/// A peer to contact first: an address, an identity, or `id@host:port`.
///
/// ```
/// use mosaik::discovery::Bootstrap;
/// let key = mosaik::SecretKey::from_bytes(&[7; 32]).public();
/// let bootstrap: Bootstrap = format!("{key}@localhost:4433").parse().expect("well formed");
/// assert_eq!(bootstrap.to_string(), format!("{key}@localhost:4433"));
/// assert!("localhost:4433".parse::<Bootstrap>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bootstrap(Kind);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    Addr(EndpointAddr),
    Host { id: PeerId, host: String, port: u16 },
}

impl Bootstrap {
    /// Who it is.
    #[must_use]
    pub fn id(&self) -> PeerId {
        match &self.0 {
            Kind::Addr(addr) => addr.id.into(),
            Kind::Host { id, .. } => *id,
        }
    }

    /// Where it can be dialled, a host name resolved.
    pub(crate) async fn resolve(self) -> Result<EndpointAddr, super::Error> {
        super::session::resolve(&self.target()).await
    }

    pub(super) fn target(self) -> Target {
        match self.0 {
            Kind::Addr(addr) => addr.into(),
            Kind::Host { id, host, port } => {
                Target { peer: id, addrs: [].into(), hosts: [format!("{host}:{port}")].into() }
            }
        }
    }
}

impl From<EndpointAddr> for Bootstrap {
    fn from(addr: EndpointAddr) -> Self {
        Self(Kind::Addr(addr))
    }
}

impl From<&EndpointAddr> for Bootstrap {
    fn from(addr: &EndpointAddr) -> Self {
        Self(Kind::Addr(addr.clone()))
    }
}

impl From<PeerId> for Bootstrap {
    fn from(id: PeerId) -> Self {
        Self(Kind::Addr(id.into()))
    }
}

impl TryFrom<&str> for Bootstrap {
    type Error = BootstrapError;

    fn try_from(text: &str) -> Result<Self, BootstrapError> {
        text.parse()
    }
}

impl TryFrom<String> for Bootstrap {
    type Error = BootstrapError;

    fn try_from(text: String) -> Result<Self, BootstrapError> {
        text.parse()
    }
}

/// Text that names no peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BootstrapError {
    /// The identity is not 64 hex digits of a public key.
    #[error("`{id}` is no peer id; expected 64 hex digits of a public key, or id@host:port")]
    Id {
        /// What stands where the identity is expected.
        id: String,
    },
    /// There is no port, or it is not 1 to 65,535.
    #[error("`{at}` has no valid port; expected host:port")]
    Port {
        /// What stands after the `@`.
        at: String,
    },
    /// The host is empty, too long, or has characters that no host name has.
    #[error("`{host}` is no host name or IP address (IPv6 addresses go in brackets)")]
    Host {
        /// What stands where the host is expected.
        host: String,
    },
}

impl From<Infallible> for BootstrapError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl FromStr for Bootstrap {
    type Err = BootstrapError;

    fn from_str(text: &str) -> Result<Self, BootstrapError> {
        let text = text.trim();
        let (id, at) = text.split_once('@').map_or((text, None), |(id, at)| (id, Some(at)));
        let bad_id = || BootstrapError::Id { id: id.into() };
        if id.len() != 64 {
            return Err(bad_id());
        }
        let id: PeerId = id.to_ascii_lowercase().parse().map_err(|_| bad_id())?;
        let Some(at) = at else { return Ok(id.into()) };
        if let Ok(socket) = at.parse() {
            return Ok(EndpointAddr::from_parts(id.into(), [TransportAddr::Ip(socket)]).into());
        }
        let no_port = || BootstrapError::Port { at: at.into() };
        let (host, port) = at.rsplit_once(':').ok_or_else(no_port)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(no_port)?;
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if host.is_empty() || host.len() > MAX_HOST || !host.chars().all(known) {
            return Err(BootstrapError::Host { host: host.into() });
        }
        Ok(Self(Kind::Host { id, host: host.into(), port }))
    }
}

impl fmt::Display for Bootstrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.id())?;
        match &self.0 {
            Kind::Addr(addr) => addr.ip_addrs().next().map_or(Ok(()), |socket| write!(f, "@{socket}")),
            Kind::Host { host, port, .. } => write!(f, "@{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use iroh::SecretKey;

    use super::*;

    fn id() -> PeerId {
        SecretKey::from_bytes(&[3; 32]).public().into()
    }

    #[test]
    fn every_form_parses_and_prints() {
        let id = id();
        for text in [
            format!("{id}"),
            format!("{id}@127.0.0.1:4433"),
            format!("{id}@[::1]:4433"),
            format!("{id}@display.example.org:4433"),
        ] {
            assert_eq!(text.parse::<Bootstrap>().map(|b| b.to_string()), Ok(text));
        }
    }

    #[test]
    fn errors_name_the_part_that_is_wrong() {
        let id = id();
        let parse = |text: &str| text.parse::<Bootstrap>();
        assert!(matches!(parse("display:4433"), Err(BootstrapError::Id { .. })));
        assert!(matches!(parse(&format!("{}@host:1", "f".repeat(63))), Err(BootstrapError::Id { .. })));
        for at in ["host", "host:", "host:0", "host:65536", "host:http"] {
            assert_eq!(parse(&format!("{id}@{at}")), Err(BootstrapError::Port { at: at.into() }));
        }
        for host in ["", "ho st", "::1", "a/b"] {
            assert_eq!(parse(&format!("{id}@{host}:1")), Err(BootstrapError::Host { host: host.into() }));
        }
    }
}
