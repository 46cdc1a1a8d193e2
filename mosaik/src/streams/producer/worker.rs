//! The worker of a producer: asks predicates and the lag policy again, and sees the stream to its end.

use std::sync::Arc;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::shared::Shared;
use crate::{
    network::CloseCode,
    streams::limits::{DRAIN, RECHECK},
};

pub(super) async fn run(shared: Arc<Shared>) {
    let mut catalog = shared.discovery.watch();
    let mut recheck = interval(RECHECK);
    recheck.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut check_at = None;
    while !shared.is_closing() {
        tokio::select! {
            biased;
            () = shared.node.cancel().cancelled() => shared.close(CloseCode::ShuttingDown),
            () = shared.attention.notified() => {
                check_at = shared.check_lag();
                shared.recheck();
            }
            () = sleep_until(check_at.map_or_else(far_future, |at| shared.at(at))), if check_at.is_some() => {
                check_at = shared.check_lag();
            }
            Ok(()) = catalog.changed() => shared.recheck(),
            _ = recheck.tick() => {
                shared.recheck();
                shared.check_waits();
            }
        }
    }
    drain(&shared).await;
    shared.abort();
}

/// Lets the sessions write what is queued.
async fn drain(shared: &Shared) {
    let deadline = sleep_until(Instant::now() + DRAIN);
    tokio::pin!(deadline);
    while !shared.is_drained() {
        tokio::select! {
            biased;
            () = shared.attention.notified() => {}
            () = shared.node.cancel().cancelled() => return,
            () = &mut deadline => return,
        }
    }
}

fn far_future() -> Instant {
    Instant::now() + RECHECK
}
