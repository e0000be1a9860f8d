//! Where the time comes from, so that tests can say what time it is.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;

/// A source of the present time.
#[derive(Clone)]
pub struct Clock {
    day: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    steady: Arc<dyn Fn() -> Instant + Send + Sync>,
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self::new(Timestamp::now)
    }

    /// A clock that says what `now` says.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self { day: Arc::new(now), steady: Arc::new(Instant::now) }
    }

    /// The same clock with another measure of what passes.
    #[must_use]
    pub fn with_steady(self, steady: impl Fn() -> Instant + Send + Sync + 'static) -> Self {
        Self { steady: Arc::new(steady), ..self }
    }

    /// The time of day, which somebody may set forward or back.
    pub fn now(&self) -> Timestamp {
        (self.day)()
    }

    /// A time that only moves on, at its own pace: for how long something has been, within this process.
    pub fn steady(&self) -> Instant {
        (self.steady)()
    }
}
