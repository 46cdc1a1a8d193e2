//! Log output of tests: switched on by the environment variable `TEST_TRACE`.

use std::{fmt, sync::Once};

use tokio::time::Instant;
use tracing_subscriber::{
    EnvFilter,
    fmt::{format::Writer, time::FormatTime},
};

/// Prints what mosaik logs if the environment variable `TEST_TRACE` is `on` (state changes that matter to an operator),
/// `debug` (all state changes), `trace` (every message), or a filter such as `mosaik::streams=trace`. Every test calls
/// it; [`Sim::run`](super::Sim::run) does by itself. Times are virtual in a simulation. Only the first call counts.
pub fn trace() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let Ok(wanted) = std::env::var("TEST_TRACE") else { return };
        let filter = match wanted.as_str() {
            "" | "0" | "off" => return,
            "1" | "on" => "mosaik=info",
            "debug" => "mosaik=debug",
            "trace" => "mosaik=trace",
            filter => filter,
        };
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(filter))
            .with_timer(SinceStart(Instant::now()))
            .with_test_writer();
        // Somebody else's subscriber may be there already; then that one prints.
        let _ = subscriber.try_init();
    });
}

/// Tokio's time since the subscriber was set up.
struct SinceStart(Instant);

impl FormatTime for SinceStart {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{:>10.3}s", Instant::now().saturating_duration_since(self.0).as_secs_f64())
    }
}
