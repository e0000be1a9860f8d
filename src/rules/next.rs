//! When the next round is due, even if nothing changes.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::base::clock::Clock;

/// The clock is looked at so often while an opening is waited for: somebody may set it.
const CLOCK_LOOK: Duration = Duration::from_secs(10);

/// When it is due: what waits for a time is measured, and a window opens by the clock on the wall.
#[derive(Debug, Clone, Copy)]
pub(in crate::rules) struct Next {
    /// At the latest.
    pub(in crate::rules) at: Instant,
    /// When the first window opens that is closed.
    pub(in crate::rules) opens: Option<Timestamp>,
    /// Whether there is more to begin than may be under way at once.
    pub(in crate::rules) is_full: bool,
}

impl Next {
    /// At this moment, with nothing else to wait for.
    pub(in crate::rules) fn at(at: Instant) -> Self {
        Self { at, opens: None, is_full: false }
    }

    /// Waits until it is due.
    pub(in crate::rules) async fn is_due(self, clock: &Clock) {
        loop {
            let left = self.at.saturating_duration_since(clock.steady());
            let opens = self.opens.map(|opens| opens.duration_since(clock.now()));
            let opens = opens.map(|left| Duration::try_from(left).unwrap_or_default());
            let left = opens.unwrap_or(left).min(left);
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(CLOCK_LOOK)).await;
        }
    }
}
