//! How many requests a credential may make in a quarter of an hour.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::access::caller::SessionId;

/// The time that requests are counted over.
pub(crate) const WINDOW: Duration = Duration::from_mins(15);
/// The limit of a session or a token: enough for very many pages, and an end to a script that runs wild.
pub(crate) const PERSONAL: u32 = 30_000;
/// How many credentials are counted at a time. Only proved ones are counted, so there are fewer than this.
const MAX_COUNTED: usize = 100_000;

/// The credential whose requests are counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Counted {
    /// A keypair, by its access key.
    Keypair(String),
    /// A session.
    Session(SessionId),
    /// A token, by its hash.
    Token([u8; 32]),
}

/// The state of a credential's limit after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RateStatus {
    /// How many requests it may make in [`WINDOW`].
    pub(crate) limit: u32,
    /// How many more it may make now.
    pub(crate) remaining: u32,
    /// How long to wait, if this request was too many.
    pub(crate) wait: Option<Duration>,
}

/// The requests of one credential: those of this window, and those of the window before. The latter count only for the
/// part of that window that is still less than [`WINDOW`] ago.
struct Count {
    began: Instant,
    now: u32,
    before: u32,
}

impl Count {
    fn turn(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.began);
        if passed >= WINDOW * 2 {
            *self = Self { began: now, now: 0, before: 0 };
        } else if passed >= WINDOW {
            *self = Self { began: self.began + WINDOW, now: 0, before: self.now };
        }
    }

    fn used(&self, now: Instant) -> u32 {
        let left = WINDOW.saturating_sub(now.saturating_duration_since(self.began));
        let before = u128::from(self.before) * left.as_millis() / WINDOW.as_millis();
        self.now.saturating_add(u32::try_from(before).unwrap_or(u32::MAX))
    }
}

/// The counts, in memory only. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Rates {
    counts: Arc<Mutex<HashMap<Counted, Count>>>,
}

impl Rates {
    /// Counts a request, unless it is too many.
    pub(crate) fn count(&self, whose: Counted, limit: u32, now: Instant) -> RateStatus {
        let mut counts = self.counts.lock();
        if counts.len() >= MAX_COUNTED && !counts.contains_key(&whose) {
            forget(&mut counts, now);
        }
        let count = counts.entry(whose).or_insert(Count { began: now, now: 0, before: 0 });
        count.turn(now);
        let used = count.used(now);
        if used >= limit {
            let left = WINDOW.saturating_sub(now.saturating_duration_since(count.began));
            // If the window before alone fills the limit, its share falls bit by bit, so a second is enough to wait.
            let wait = if count.now >= limit { left } else { left.min(Duration::from_secs(1)) };
            return RateStatus { limit, remaining: 0, wait: Some(wait.max(Duration::from_secs(1))) };
        }
        count.now += 1;
        RateStatus { limit, remaining: limit - used - 1, wait: None }
    }

    /// Forgets credentials that have made no request for long.
    pub(crate) fn tidy(&self, now: Instant) {
        forget(&mut self.counts.lock(), now);
    }
}

fn forget(counts: &mut HashMap<Counted, Count>, now: Instant) {
    counts.retain(|_, count| now.saturating_duration_since(count.began) < WINDOW * 2);
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Counted, Rates, WINDOW};

    #[test]
    fn a_limit_is_a_limit_over_any_window() {
        let rates = Rates::default();
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let count = |now| rates.count(Counted::Keypair("A".into()), 10, now);
        for made in 1..=10 {
            let standing = count(start);
            assert_eq!((standing.remaining, standing.wait), (10 - made, None));
        }
        assert_eq!(count(start).wait, Some(WINDOW));
        assert!(count(at(899)).wait.is_some());
        assert!(count(at(900)).wait.is_some(), "the ten of a moment ago still count");
        assert_eq!((0..20).filter(|_| count(at(1350)).wait.is_none()).count(), 5, "half of them no more");
        assert!(rates.count(Counted::Keypair("B".into()), 10, start).wait.is_none(), "each has its own");
    }

    #[test]
    fn who_is_quiet_is_forgotten() {
        let rates = Rates::default();
        let start = Instant::now();
        rates.count(Counted::Keypair("A".into()), 1, start);
        rates.tidy(start + WINDOW);
        assert_eq!(rates.counts.lock().len(), 1);
        rates.tidy(start + WINDOW * 2);
        assert_eq!(rates.counts.lock().len(), 0);
    }
}
