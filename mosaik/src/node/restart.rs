//! How a role is made anew after a handler with `on_error = restart` has failed: from the flags that it was made from, on the
//! same node, with growing delays.

use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::{Instant, sleep};

use super::{
    args::ArgValues,
    role::{Handlers, RoleError, Setup},
};
use crate::network::WeakNetwork;

/// The delay before the first restart; it doubles with each further one.
const FIRST: Duration = Duration::from_millis(100);
/// The longest delay.
const LONGEST: Duration = Duration::from_secs(10);
/// A role that ran this long was a good one: its next restart counts as the first.
const STABLE: Duration = Duration::from_mins(1);

/// Makes a role.
pub(super) type Maker<R> = Box<dyn Fn() -> BoxFuture<'static, Result<R, RoleError>> + Send + Sync>;

/// Makes the role of this setup again, as long as somebody keeps its node.
pub(super) fn maker<R: Handlers>(setup: &Setup<'_>) -> Maker<R> {
    let (network, values) = (setup.network.downgrade(), setup.values.clone());
    let (alone, lines) = (setup.alone, setup.lines.clone());
    Box::new(move || Box::pin(make(network.clone(), values.clone(), alone, lines.clone())))
}

async fn make<R: Handlers>(
    network: WeakNetwork,
    values: ArgValues,
    alone: bool,
    lines: Option<String>,
) -> Result<R, RoleError> {
    let network = network.upgrade().ok_or(RoleError::NodeEnded { role: R::ROLE.name })?;
    R::open(&mut Setup { network: &network, values: &values, alone, lines, online: Vec::new() }).await
}

/// The delays between the lives of one role.
#[derive(Debug, Default)]
pub(super) struct Delays {
    /// Restarts in a row, and when the last one was.
    last: Option<(u32, Instant)>,
}

impl Delays {
    /// The delay before the next life.
    fn next(&mut self, now: Instant) -> Duration {
        let row = match self.last {
            Some((row, at)) if now.saturating_duration_since(at) < STABLE => row.saturating_add(1),
            _ => 0,
        };
        self.last = Some((row, now));
        FIRST.saturating_mul(2u32.saturating_pow(row)).min(LONGEST)
    }

    /// Makes the role after the delay that is due. What the node cannot have yet, such as an endpoint that still closes, is tried
    /// again.
    pub(super) async fn make<R: Handlers>(&mut self, maker: &Maker<R>) -> Result<R, RoleError> {
        loop {
            sleep(self.next(Instant::now())).await;
            match maker().await {
                Err(error @ (RoleError::Endpoint { .. } | RoleError::Group { .. } | RoleError::Store { .. })) => {
                    tracing::warn!(%error, role = R::ROLE.name, "the role cannot be made anew yet");
                }
                other => return other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_until_a_life_was_long() {
        let mut delays = Delays::default();
        let mut now = Instant::now();
        let mut row: Vec<u128> = Vec::new();
        for _ in 0..9 {
            row.push(delays.next(now).as_millis());
            now += Duration::from_secs(1);
        }
        assert_eq!(row, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(delays.next(now + STABLE), FIRST);
    }
}
