//! A home relay for the peer, which starts no node without one. Only its set-up goes through it: all traffic is direct.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use iroh_relay::server::{RelayConfig, Server, ServerConfig};

/// Starts one on loopback, without TLS, which ends with the handle.
pub async fn start() -> Result<Server> {
    let mut config = ServerConfig::default();
    config.relay = Some(RelayConfig::new((Ipv4Addr::LOCALHOST, 0)));
    Server::spawn(config).await.context("no relay")
}

/// Where it is.
pub fn url(server: &Server) -> String {
    server.http_addr().map_or_else(String::new, |addr| format!("http://{addr}"))
}
