//! `--metrics`: the endpoint of a generated main. Without the feature `prometheus` the flag is refused as wrong usage, so there
//! is nothing to serve.

use std::net::SocketAddr;

use super::process::Failure;
#[cfg(feature = "prometheus")]
use crate::metrics::Server;
use crate::transport::Tasks;

/// There is none.
#[cfg(not(feature = "prometheus"))]
type Server = std::convert::Infallible;

/// What is to be served, if something is.
pub(super) struct Metrics(Option<Server>);

/// Takes the address; before the node is built.
#[cfg(feature = "prometheus")]
pub(super) fn serve(addr: Option<SocketAddr>) -> Result<Metrics, Failure> {
    Ok(Metrics(addr.map(crate::metrics::serve).transpose()?))
}

/// There is no address.
#[cfg(not(feature = "prometheus"))]
#[expect(clippy::unnecessary_wraps, reason = "with the feature it can fail")]
pub(super) fn serve(_addr: Option<SocketAddr>) -> Result<Metrics, Failure> {
    Ok(Metrics(None))
}

impl Metrics {
    /// Begins to serve and says where.
    #[cfg_attr(not(feature = "prometheus"), expect(unused_variables, reason = "there is nothing to serve"))]
    pub(super) fn tell(self, tasks: &Tasks) {
        let Some(server) = self.0 else { return };
        #[cfg(feature = "prometheus")]
        {
            super::process::say(format_args!("metrics http://{}/metrics", server.addr()));
            tasks.spawn("metrics endpoint", server);
        }
        #[cfg(not(feature = "prometheus"))]
        match server {}
    }
}
