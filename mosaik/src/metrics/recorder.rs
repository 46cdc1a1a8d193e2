//! The recorder behind the endpoint: which series end by themselves, and the buckets of histograms.
//!
//! The crate `metrics` has no way to take a series back. So there are three recorders of the exporter: one for what a node
//! publishes every second, whose series end soon after that stops; one for times, whose series end when nothing was measured
//! for [`IDLE`]; and one for all other metrics, the program's own among them, which stay. They are rendered one after the other.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use metrics_util::MetricKindMask;

use super::{Kind, METRICS};

/// Upper bounds of the buckets of times, in seconds: from 10 us, below which nothing over a network is, to 10 s.
const TIMES: [f64; 19] = [
    1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// Those of all other histograms, whose unit is not known: three for each power of ten from a thousandth to a thousand million.
const OTHERS: [f64; 37] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3,
    2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6, 2e6, 5e6, 1e7, 2e7, 5e7, 1e8, 2e8, 5e8, 1e9,
];
/// Series that were not published for so long end. Nodes publish once a second.
const GONE: Duration = Duration::from_secs(10);
/// Histograms of ours in which nothing was recorded for so long end; they begin again at zero.
const IDLE: Duration = Duration::from_hours(1);

/// See the module's text.
pub(super) struct Recorders {
    published: PrometheusRecorder,
    times: PrometheusRecorder,
    others: PrometheusRecorder,
}

/// Renders what the recorders have.
#[derive(Clone)]
pub(super) struct Handles([PrometheusHandle; 3]);

fn recorder(idle: Option<Duration>) -> Result<PrometheusRecorder, BuildError> {
    let builder = PrometheusBuilder::new().set_buckets(&OTHERS)?;
    let builder = builder.set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &TIMES)?;
    Ok(builder.idle_timeout(MetricKindMask::ALL, idle).build_recorder())
}

impl Recorders {
    pub(super) fn new() -> Result<(Self, Handles), BuildError> {
        let recorders =
            Self { published: recorder(Some(GONE))?, times: recorder(Some(IDLE))?, others: recorder(None)? };
        let handles = [&recorders.published, &recorders.times, &recorders.others].map(PrometheusRecorder::handle);
        Ok((recorders, Handles(handles)))
    }

    /// The recorder of a metric.
    fn of(&self, name: &str) -> &PrometheusRecorder {
        match METRICS.iter().find(|metric| metric.name == name) {
            Some(metric) if metric.kind == Kind::Histogram => &self.times,
            // With the label of its node it is published; what is counted where it happens has none.
            Some(metric) if metric.labels.contains(&"node") => &self.published,
            _ => &self.others,
        }
    }
}

impl Recorder for Recorders {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.of(key.as_str()).describe_counter(key, unit, description);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.of(key.as_str()).describe_gauge(key, unit, description);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.of(key.as_str()).describe_histogram(key, unit, description);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.of(key.name()).register_counter(key, metadata)
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.of(key.name()).register_gauge(key, metadata)
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        self.of(key.name()).register_histogram(key, metadata)
    }
}

impl Handles {
    pub(super) fn render(&self) -> String {
        self.0.iter().map(PrometheusHandle::render).collect()
    }

    /// Takes in what was recorded, and looks which series have ended; to be called every few seconds, whether somebody scrapes
    /// or not.
    pub(super) fn upkeep(&self) {
        self.0.iter().for_each(PrometheusHandle::run_upkeep);
        // The exporter looks at the age of series only when it renders them.
        self.0[..2].iter().for_each(|handle| drop(handle.render()));
    }
}
