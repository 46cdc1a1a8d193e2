//! Waiting for a condition with a deadline, the only way in which a test may wait.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// The longest pause between two looks at the condition.
const MAX_STEP: Duration = Duration::from_millis(50);

/// Waits until `condition` holds; false when it does not within the time given. Looks at it at once, then at growing
/// intervals of 1 to 50 ms, of virtual time in a [`Sim`](super::Sim). Cancellation-safe.
#[must_use = "false says that the condition did not come true"]
pub async fn eventually(within: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + within;
    let mut step = Duration::from_millis(1);
    loop {
        if condition() {
            return true;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        sleep(step.min(left)).await;
        step = (step * 2).min(MAX_STEP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn gives_up_at_the_deadline_and_not_before() {
        let start = Instant::now();
        assert!(eventually(Duration::from_secs(1), || start.elapsed() >= Duration::from_millis(999)).await);
        let start = Instant::now();
        assert!(!eventually(Duration::from_secs(1), || false).await);
        assert!((1000..1100).contains(&start.elapsed().as_millis()));
    }
}
