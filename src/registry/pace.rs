//! The pauses that all requests to one registry share.

use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use reqwest::header::HeaderMap;

use crate::registry::retry::MAX_PAUSE;

/// Pulls left to a person behind our address; below this we stop reading manifests for a while.
const QUOTA_RESERVE: u64 = 3;

/// When this registry may be asked again.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// The pause after a 429: nothing is sent.
    pause: Mutex<Option<Pause>>,
    /// The pause after `ratelimit-remaining` ran low: nothing that counts as a pull is sent. HEAD stays free.
    quota: Mutex<Option<Pause>>,
}

/// The end of a pause: on the monotonic clock for us, on the wall clock for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pause {
    end: Instant,
    /// The same moment on the wall clock.
    pub(crate) until: SystemTime,
}

impl Pause {
    /// A pause that begins now.
    pub(crate) fn lasting(wait: Duration) -> Self {
        Self { end: Instant::now() + wait, until: SystemTime::now() + wait }
    }

    /// How much of the pause is left.
    pub(crate) fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }
}

impl Pace {
    /// Sends nothing for this long. A longer pause stays as it is.
    pub(crate) fn hold(&self, wait: Duration) -> Pause {
        extend(&mut self.pause.lock(), Pause::lasting(wait.min(MAX_PAUSE)))
    }

    /// Notes Docker Hub's `ratelimit-remaining: 76;w=21600`, which HEAD responses carry too.
    pub(crate) fn note_quota(&self, headers: &HeaderMap) {
        let Some(remaining) = remaining(headers) else { return };
        let mut quota = self.quota.lock();
        if remaining >= QUOTA_RESERVE {
            *quota = None;
        } else {
            // The registry does not say when the window ends. So we ask again from time to time, and a free HEAD may
            // end the pause sooner.
            extend(&mut quota, Pause::lasting(MAX_PAUSE));
        }
    }

    /// The pause a request must wait out now, if any; `counted` if the request uses up quota.
    pub(crate) fn pending(&self, counted: bool) -> Option<Pause> {
        let quota = if counted { *self.quota.lock() } else { None };
        let pause = *self.pause.lock();
        [pause, quota].into_iter().flatten().filter(|p| !p.left().is_zero()).max_by_key(|p| p.end)
    }
}

fn extend(slot: &mut Option<Pause>, new: Pause) -> Pause {
    match slot {
        Some(old) if old.end >= new.end => *old,
        _ => *slot.insert(new),
    }
}

fn remaining(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get("ratelimit-remaining")?.to_str().ok()?;
    text.split(';').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use reqwest::header::HeaderMap;

    use super::Pace;
    use crate::registry::retry::MAX_PAUSE;

    fn quota(text: &str) -> HeaderMap {
        HeaderMap::from_iter([("ratelimit-remaining".parse().unwrap(), text.parse().unwrap())])
    }

    #[test]
    fn a_low_quota_stops_pulls_but_not_free_requests_and_ends_when_it_recovers() {
        let pace = Pace::default();
        pace.note_quota(&quota("76;w=21600"));
        assert!(pace.pending(true).is_none());
        pace.note_quota(&quota("1;w=21600"));
        assert!(pace.pending(true).is_some());
        assert!(pace.pending(false).is_none());
        pace.note_quota(&quota("nonsense"));
        assert!(pace.pending(true).is_some());
        pace.note_quota(&quota("100;w=21600"));
        assert!(pace.pending(true).is_none());
    }

    #[test]
    fn a_shorter_pause_does_not_cut_a_longer_one_and_none_exceeds_the_cap() {
        let pace = Pace::default();
        let long = pace.hold(Duration::from_secs(999_999));
        assert!(long.left() <= MAX_PAUSE && long.until <= SystemTime::now() + MAX_PAUSE);
        assert_eq!(pace.hold(Duration::from_secs(1)), long);
        assert_eq!(pace.pending(false), Some(long));
    }
}
