//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

const POLL_EVERY: Duration = Duration::from_millis(20);

/// Polls until the check holds; panics with `what` when it still does not after the deadline.
pub async fn eventually(what: &str, deadline: Duration, mut check: impl AsyncFnMut() -> bool) {
    eventually_some(what, deadline, async || check().await.then_some(())).await;
}

/// Polls until the check gives a value; panics with `what` when it still does not after the deadline.
pub async fn eventually_some<T>(
    what: &str,
    deadline: Duration,
    mut check: impl AsyncFnMut() -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(start.elapsed() < deadline, "still not so after {deadline:?}: {what}");
        tokio::time::sleep(POLL_EVERY).await;
    }
}
