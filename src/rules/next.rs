//! When the next round is due, even if nothing changes.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::base::clock::Clock;

/// How often the clock is read while a window's opening is awaited: a user may set the clock.
const CLOCK_LOOK: Duration = Duration::from_secs(10);

/// When the next round is due. Waits are measured on the steady clock; a window opens by the wall clock.
#[derive(Debug, Clone, Copy)]
pub(in crate::rules) struct Next {
    /// The latest time, on the steady clock.
    pub(in crate::rules) at: Instant,
    /// When the first closed window opens.
    pub(in crate::rules) opens: Option<Timestamp>,
    /// Whether there is more to begin than may be under way at once.
    pub(in crate::rules) is_full: bool,
}

impl Next {
    /// Due at this moment, with nothing else to wait for.
    pub(in crate::rules) fn at(at: Instant) -> Self {
        Self { at, opens: None, is_full: false }
    }

    /// Waits until the round is due.
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
