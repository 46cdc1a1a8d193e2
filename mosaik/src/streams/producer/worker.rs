//! The worker of a producer: asks predicates and the lag policy again, and sees the stream to its end.

use std::sync::Arc;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::shared::Shared;
use crate::{
    network::CloseCode,
    streams::limits::{DRAIN, RECHECK},
    trust::{MissingGrant, RefusedBy},
};

pub(super) async fn run(shared: Arc<Shared>) {
    let mut catalog = shared.discovery.watch();
    let mut recheck = interval(RECHECK);
    recheck.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut check_at, mut lacks) = (None, None);
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
                lacks = look_at_own(&shared, lacks.as_ref());
            }
        }
    }
    drain(&shared).await;
    shared.abort();
}

/// Says when this node's own ticket does not let it produce, once for each such change.
fn look_at_own(shared: &Shared, before: Option<&MissingGrant>) -> Option<MissingGrant> {
    let lacks = shared.lacks_itself();
    if let Some(missing) = lacks.as_ref().filter(|missing| before != Some(*missing)) {
        let (node, now) = (&shared.node, shared.node.transport().wall_clock());
        node.trust().note_missing(node.id(), RefusedBy::Us, missing.clone(), now);
    }
    lacks
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
