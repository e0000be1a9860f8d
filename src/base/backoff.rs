//! Waits between attempts: each longer than the one before, up to a limit.

use std::time::Duration;

/// How long to wait after each failure in a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    first: Duration,
    times: u32,
    longest: Duration,
}

impl Backoff {
    /// Waits that double.
    pub(crate) const fn doubling(first: Duration, longest: Duration) -> Self {
        Self::growing(first, 2, longest)
    }

    /// Waits that are each `times` as long as the one before.
    pub(crate) const fn growing(first: Duration, times: u32, longest: Duration) -> Self {
        Self { first, times, longest }
    }

    /// The wait after this many failures in a row, the last included.
    pub(crate) fn after(self, failures: u32) -> Duration {
        let times = self.times.saturating_pow(failures.saturating_sub(1));
        self.first.saturating_mul(times).min(self.longest)
    }

    /// The wait of [`Backoff::after`], shortened at random to anything from half of it on, so that tasks that failed
    /// together don't try again together. `chance` is a random number.
    pub(crate) fn spread(self, failures: u32, chance: u64) -> Duration {
        let half = self.after(failures) / 2;
        let milliseconds = u64::try_from(half.as_millis()).unwrap_or(u64::MAX);
        half + Duration::from_millis(chance % milliseconds.saturating_add(1))
    }
}

/// A random number for [`Backoff::spread`]. If the system provides none, the waits are merely spread less.
pub(crate) fn chance() -> u64 {
    getrandom::u64().unwrap_or_default()
}

/// The waits of a task that tries until it succeeds.
#[derive(Debug, Clone)]
pub(crate) struct Waits {
    backoff: Backoff,
    failures: u32,
}

impl Waits {
    /// The waits of a task that has not failed yet.
    pub(crate) const fn new(backoff: Backoff) -> Self {
        Self { backoff, failures: 0 }
    }

    /// Records one more failure, and returns how long to wait.
    pub(crate) fn longer(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.backoff.after(self.failures)
    }

    /// [`Waits::longer`], spread as [`Backoff::spread`] does.
    pub(crate) fn longer_spread(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.backoff.spread(self.failures, chance())
    }

    /// Makes the next wait at least this long, up to the longest.
    pub(crate) fn skip_to(&mut self, wait: Duration) {
        while self.backoff.after(self.failures.saturating_add(1)) < wait.min(self.backoff.longest) {
            self.failures += 1;
        }
    }

    /// Records a success: the next wait is a first one.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Backoff, Waits};

    const BACKOFF: Backoff = Backoff::doubling(Duration::from_secs(1), Duration::from_secs(10));

    #[test]
    fn waits_grow_to_the_longest() {
        let waits = |backoff: Backoff| [0, 1, 2, 3, 4, 5, u32::MAX].map(|n| backoff.after(n).as_secs());
        assert_eq!(waits(BACKOFF), [1, 1, 2, 4, 8, 10, 10]);
        let fast = Backoff::growing(Duration::from_mins(1), 4, Duration::from_hours(6));
        assert_eq!(waits(fast), [60, 60, 240, 960, 3_840, 15_360, 21_600]);
    }

    #[test]
    fn a_spread_wait_is_between_half_of_it_and_all_of_it() {
        for chance in [0, 1, 77, u64::MAX] {
            let wait = BACKOFF.spread(3, chance);
            assert!((Duration::from_secs(2)..=Duration::from_secs(4)).contains(&wait), "{wait:?}");
        }
        assert_ne!(BACKOFF.spread(3, 1), BACKOFF.spread(3, 900));
        assert!(BACKOFF.spread(u32::MAX, u64::MAX) <= Duration::from_secs(10));
    }

    #[test]
    fn who_succeeds_begins_anew_and_who_is_refused_may_skip() {
        let mut waits = Waits::new(BACKOFF);
        assert_eq!([(); 3].map(|()| waits.longer().as_secs()), [1, 2, 4]);
        waits.reset();
        assert_eq!(waits.longer().as_secs(), 1);
        waits.skip_to(Duration::from_secs(3));
        assert_eq!(waits.longer().as_secs(), 4);
        waits.skip_to(Duration::from_secs(1_000));
        assert_eq!(waits.longer().as_secs(), 10);
    }
}
