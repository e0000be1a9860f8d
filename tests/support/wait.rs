//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

/// Long enough for a busy two-core machine, short enough that a hang is noticed.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Asks again until there is an answer.
///
/// # Panics
///
/// After `limit`, naming what was waited for.
pub async fn until<T>(what: &str, limit: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(started.elapsed() < limit, "waited {limit:?} in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
