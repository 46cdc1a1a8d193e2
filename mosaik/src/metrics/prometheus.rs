//! The endpoint that Prometheus scrapes (feature `prometheus`).

use std::{
    fmt,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::sleep;

use super::{
    http,
    recorder::{Handles, Recorders},
};

/// How often the recorder is looked after, whether somebody scrapes or not.
const UPKEEP: Duration = Duration::from_secs(5);

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
/// Series of what has gone (a stream that was closed, a group that was left, a node that has ended) end within half a minute.
/// Histograms are counted in buckets, also those that the program records itself: of times (names that end in `_seconds`) from
/// 10 us to 10 s, of everything else from 0.001 to a thousand million, three for each power of ten.
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
    let (listener, addr) = http::listen(addr).map_err(|error| refused(error.to_string()))?;
    let (recorders, handles) = Recorders::new().map_err(|error| refused(error.to_string()))?;
    metrics::set_global_recorder(recorders).map_err(|_| ServeError::Installed)?;
    let rendered = handles.clone();
    let serving = http::serve(listener, Arc::new(move || rendered.render()));
    let serving = Box::pin(async move {
        tokio::select! {
            biased;
            () = upkeep(handles) => {}
            () = serving => {}
        }
    });
    Ok(Server { addr, serving })
}

/// Without end.
async fn upkeep(handles: Handles) {
    loop {
        sleep(UPKEEP).await;
        handles.upkeep();
    }
}
