//! Waiting for what tells nobody that it has happened.

use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(5);

/// Looks until it is so, for at most a minute and a half; gives whether it ever was.
pub async fn soon(mut is: impl AsyncFnMut() -> bool) -> bool {
    let begun = Instant::now();
    while !is().await {
        if begun.elapsed() > PATIENCE {
            return false;
        }
        tokio::time::sleep(PAUSE).await;
    }
    true
}

/// Panics if it comes to its end within a tenth of a second.
pub async fn not_yet<T: std::fmt::Debug>(future: &mut (impl Future<Output = T> + Unpin)) {
    let early = tokio::time::timeout(Duration::from_millis(100), future).await;
    assert!(early.is_err(), "too early: {early:?}");
}
