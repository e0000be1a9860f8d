//! A count that drains at a fixed rate, whatever is added meanwhile.

use std::time::{Duration, Instant};

/// The count: all that was added, less one for each interval that has passed.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    level: u32,
    /// The time up to which it has been drained.
    since: Option<Instant>,
}

impl Bucket {
    /// What is left in it, if one drains in each `every`.
    pub(crate) fn level(&self, every: Duration, now: Instant) -> u32 {
        self.level.saturating_sub(self.drained(every, now))
    }

    /// Adds one.
    pub(crate) fn add(&mut self, every: Duration, now: Instant) {
        let level = self.level(every, now);
        // The part of the next interval that has passed already still counts.
        let since = self.since.map(|since| since + every * self.drained(every, now));
        *self = Self { level: level.saturating_add(1), since: since.filter(|_| level > 0).or(Some(now)) };
    }

    /// How long until one more has drained.
    pub(crate) fn next(&self, every: Duration, now: Instant) -> Duration {
        let passed = self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        every.saturating_sub(passed.saturating_sub(every * self.drained(every, now)))
    }

    fn drained(&self, every: Duration, now: Instant) -> u32 {
        let passed = self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let drained = passed.as_millis().checked_div(every.as_millis()).unwrap_or_default();
        u32::try_from(drained).unwrap_or(u32::MAX).min(self.level)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Bucket;

    const EVERY: Duration = Duration::from_secs(4);

    #[test]
    fn it_drains_at_its_pace_whatever_is_added() {
        let (start, mut bucket) = (Instant::now(), Bucket::default());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        assert_eq!((bucket.level(EVERY, start), bucket.next(EVERY, start)), (0, EVERY));
        // Adds one each second, of which every fourth has drained.
        for second in 0..12 {
            bucket.add(EVERY, at(second));
        }
        assert_eq!(bucket.level(EVERY, at(11)), 10);
        assert_eq!(bucket.next(EVERY, at(11)), Duration::from_secs(1));
        assert_eq!(bucket.level(EVERY, at(12)), 9);
        assert_eq!(bucket.level(EVERY, at(1_000)), 0);
        bucket.add(EVERY, at(1_000));
        assert_eq!((bucket.level(EVERY, at(1_003)), bucket.level(EVERY, at(1_004))), (1, 0));
    }
}
