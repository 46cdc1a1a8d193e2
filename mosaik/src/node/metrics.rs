//! `--metrics`: the endpoint of a generated main. Without the feature `prometheus` the flag is refused as wrong usage, so there
//! is nothing to serve.

use std::net::SocketAddr;

use super::process::Failure;
#[cfg(feature = "prometheus")]
use super::process::say;
use crate::transport::Tasks;

/// What is to be served, if something is.
pub(super) struct Metrics {
    #[cfg(feature = "prometheus")]
    server: Option<crate::metrics::Server>,
}

/// Takes the address; before the node is built.
#[cfg_attr(not(feature = "prometheus"), expect(clippy::unnecessary_wraps, reason = "with the feature it can fail"))]
pub(super) fn serve(addr: Option<SocketAddr>) -> Result<Metrics, Failure> {
    #[cfg(feature = "prometheus")]
    return Ok(Metrics { server: addr.map(crate::metrics::serve).transpose()? });
    #[cfg(not(feature = "prometheus"))]
    {
        debug_assert!(addr.is_none(), "the flag is refused");
        Ok(Metrics {})
    }
}

impl Metrics {
    /// Begins to serve and says where.
    pub(super) fn tell(self, tasks: &Tasks) {
        #[cfg(feature = "prometheus")]
        if let Some(server) = self.server {
            say(format_args!("metrics http://{}/metrics", server.addr()));
            tasks.spawn("metrics endpoint", server);
        }
        #[cfg(not(feature = "prometheus"))]
        let _ = tasks;
    }
}
