//! Metrics: what a node counts and measures, for the recorder of the crate `metrics`.
//!
//! [`METRICS`] is the table of all of them. A node publishes them once [`with_metrics`](crate::network::NetworkBuilder::with_metrics)
//! has asked it to: counts are read once a second from where they are kept anyway, so streams pay nothing for them; times are
//! recorded as they are measured. Without that nothing is done.
//!
//! Any recorder will do; it must be installed before the network is built. With the feature `prometheus`, `serve` installs
//! one and serves what it has over HTTP, and so does the flag `--metrics` of a generated main.

#[cfg(feature = "prometheus")]
mod http;
#[cfg(feature = "prometheus")]
mod prometheus;
#[cfg(feature = "prometheus")]
mod recorder;
mod sample;

#[cfg(feature = "prometheus")]
pub use self::prometheus::{ServeError, Server, serve};
pub(crate) use self::sample::Sampler;
pub use crate::primitives::figures::{Kind, METRICS, Metric};
