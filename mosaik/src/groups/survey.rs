//! Who is there? Asked by a member that does not run, before something is done to its storage.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};

use super::{
    Registry,
    bonds::{Bonds, Identity},
};

/// How long the members that can be reached have to answer.
pub(super) const ASK: Duration = Duration::from_secs(5);

/// Bonds without running, and looks at who answers until `judge` comes to something: it is told whether this is the last look.
/// None if it never does, or the network is shut down.
pub(super) async fn survey<T>(
    registry: &Arc<Registry>,
    identity: Identity,
    mut judge: impl FnMut(&Bonds, bool) -> Option<T>,
) -> Option<T> {
    let (bonds, mut events) = Bonds::join(&registry.bonds, &registry.node, &registry.discovery, identity);
    bonds.open();
    let until = Instant::now() + ASK;
    let verdict = loop {
        let over = Instant::now() >= until;
        let verdict = judge(&bonds, over);
        if over || verdict.is_some() {
            break verdict;
        }
        // What comes is only a reason to look again, and so is a while.
        let look = until.min(Instant::now() + ASK / 20);
        if matches!(timeout_at(look, events.recv()).await, Ok(None)) {
            break None;
        }
    };
    bonds.leave().await;
    verdict
}
