//! The endpoint that Prometheus scrapes (feature `prometheus`).

use std::{
    fmt,
    future::Future,
    net::{SocketAddr, TcpListener},
    pin::Pin,
    task::{Context, Poll},
};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};

/// Upper bounds of the buckets of times, in seconds: from 10 us, below which nothing over a network is, to 10 s.
const BUCKETS: [f64; 19] = [
    1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Why metrics cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address cannot be used.
    #[error("metrics cannot be served on {addr}: {reason}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What is wrong with it.
        reason: String,
    },
    /// The process has a recorder already; there can be one.
    #[error("metrics cannot be served: the process has another recorder of metrics already")]
    Installed,
}

/// Serves metrics while it is polled.
#[must_use = "it serves only while it is polled"]
pub struct Server {
    addr: SocketAddr,
    serving: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Server {
    /// Where it listens.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Future for Server {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.serving.as_mut().poll(cx)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("addr", &self.addr).finish_non_exhaustive()
    }
}

/// Installs a recorder for the whole process and gives what serves it, at `http://<addr>/metrics`, in the
/// [text format](https://prometheus.io/docs/instrumenting/exposition_formats/) of Prometheus. With port 0 a free one is
/// taken. To be called on a tokio runtime, once, before the networks are built that publish to it
/// ([`with_metrics`](crate::network::NetworkBuilder::with_metrics)).
///
/// Whoever reaches the address can read it: names of streams, groups, stores and roles, and counts.
///
/// ```no_run
/// # async fn start() -> Result<(), Box<dyn std::error::Error>> {
/// let server = mosaik::metrics::serve("127.0.0.1:9000".parse()?)?;
/// tokio::spawn(server);
/// let network = mosaik::Network::builder("prod").with_metrics().build().await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// When the address cannot be used, or a recorder is installed already.
pub fn serve(addr: SocketAddr) -> Result<Server, ServeError> {
    let refused = |reason: String| ServeError::Listen { addr, reason };
    // The exporter does not tell its port, so a free one is looked for here; another process may take it in between, which
    // is told then.
    let probe = TcpListener::bind(addr).map_err(|error| refused(error.to_string()))?;
    let addr = probe.local_addr().map_err(|error| refused(error.to_string()))?;
    drop(probe);
    let builder = PrometheusBuilder::new().with_http_listener(addr);
    let builder = builder.set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS);
    let (recorder, serving) = builder.and_then(PrometheusBuilder::build).map_err(|error| match error {
        BuildError::FailedToCreateHTTPListener(reason) => refused(reason),
        error => refused(error.to_string()),
    })?;
    metrics::set_global_recorder(recorder).map_err(|_| ServeError::Installed)?;
    let serving = Box::pin(async move {
        if let Err(error) = serving.await {
            tracing::error!(?error, "metrics are not served any more");
        }
    });
    Ok(Server { addr, serving })
}
