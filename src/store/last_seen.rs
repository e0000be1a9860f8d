//! The time of day that was last believed, kept so that the next start can tell whether the clock jumped meanwhile.

use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::base::Result;
use crate::base::clock::Clock;
use crate::store::table::Reader;
use crate::store::{Store, Table};

const LAST_SEEN: Table<Timestamp> = Table::new("CLOCK_TO_LAST_SEEN");
const SYSTEM: &[u8] = b"system";

/// How often it is written: only a jump of a day or more counts, and an idle server must leave the disk alone.
const EVERY: Duration = Duration::from_mins(5);
/// How often to check the clock, so that the log soon reports a jump.
const LOOK: Duration = Duration::from_secs(5);

/// The time of day that the last server on this database believed; `None` before the first one ran.
pub(crate) fn last_seen(reader: &Reader) -> Result<Option<Timestamp>> {
    reader.find(&LAST_SEEN, SYSTEM)
}

/// Tells the clock what time it was when a server last ran. Call this before any record is judged by the clock.
pub(crate) fn recall(store: &Store, clock: &Clock) -> Result<()> {
    if let Some(last) = store.read_now(last_seen)? {
        clock.go_on_from(last);
    }
    Ok(())
}

/// Watches the clock and stores its time while that is believed, until shutdown.
pub(crate) async fn keep(store: Store, clock: Clock, shutdown: CancellationToken) {
    let (mut saved, mut doubted) = (None, None);
    loop {
        let doubt = clock.doubt();
        let by = doubt.map(|doubt| doubt.by);
        if by != doubted {
            if let Some(doubt) = doubt {
                tracing::warn!(clock = %clock.now(), "{doubt}");
            } else {
                tracing::info!(clock = %clock.now(), "the clock is believed again");
            }
            doubted = by;
        }
        let is_due = saved.is_none_or(|at| clock.steady().saturating_duration_since(at) >= EVERY);
        if is_due && let Some(today) = clock.calendar() {
            // Set even if the write fails, so that a full disk is not tried every few seconds.
            saved = Some(clock.steady());
            if let Err(why) = store.write(move |w| w.put(&LAST_SEEN, SYSTEM, &today)).await {
                tracing::warn!(%why, "what time it is could not be written; it is tried again");
            }
        }
        if tokio::time::timeout(LOOK, shutdown.cancelled()).await.is_ok() {
            // Once more: what was watched until now is not to look as if it had been left alone since the last time.
            if let Some(today) = clock.calendar()
                && let Err(why) = store.write(move |w| w.put(&LAST_SEEN, SYSTEM, &today)).await
            {
                tracing::warn!(%why, "what time it is could not be written");
            }
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use jiff::{SignedDuration, Timestamp};
    use tokio_util::sync::CancellationToken;

    use super::{keep, last_seen, recall};
    use crate::base::clock::Clock;
    use crate::store::Store;

    #[tokio::test]
    async fn what_is_kept_is_what_was_believed_last() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let day = Arc::new(AtomicI64::new(1_700_000_000));
        // The clock after a restart.
        let clock = || {
            let day = Arc::clone(&day);
            let clock = Clock::new(move || Timestamp::from_second(day.load(Ordering::Relaxed)).unwrap());
            recall(&store, &clock).unwrap();
            clock
        };
        let kept = async |clock: Clock| {
            let stop = CancellationToken::new();
            stop.cancel();
            keep(store.clone(), clock, stop).await;
            store.read_now(last_seen).unwrap().map(Timestamp::as_second)
        };
        assert!(clock().calendar().is_some(), "the first start has nothing to compare with");
        assert_eq!(kept(clock()).await, Some(1_700_000_000));
        day.fetch_add(SignedDuration::from_hours(24 * 365).as_secs(), Ordering::Relaxed);
        let late = clock();
        assert!(late.calendar().is_none());
        assert_eq!(kept(late).await, Some(1_700_000_000), "it is not believed yet");
        day.store(1_700_000_060, Ordering::Relaxed);
        assert_eq!(kept(clock()).await, Some(1_700_000_060), "it is right again");
    }
}
