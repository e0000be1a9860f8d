//! A throttle: limits transfers to the bytes a second that the operator allows.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// A limit that all transfers of an engine share.
pub(crate) struct Throttle {
    /// The limit in bytes a second; 0 for no limit.
    per_second: AtomicU64,
    /// When all bytes taken so far will be within the limit.
    paid_at: Mutex<Instant>,
}

impl Throttle {
    /// A limit in bytes a second, or none.
    pub(crate) fn new(per_second: Option<NonZeroU64>) -> Self {
        let throttle = Self { per_second: AtomicU64::new(0), paid_at: Mutex::new(Instant::now()) };
        throttle.set(per_second);
        throttle
    }

    /// Sets another limit, which holds from the next bytes on.
    pub(crate) fn set(&self, per_second: Option<NonZeroU64>) {
        self.per_second.store(per_second.map_or(0, NonZeroU64::get), Ordering::Relaxed);
    }

    /// Takes this many bytes, and waits until they and all bytes before them are within the limit.
    pub(crate) async fn take(&self, bytes: usize) {
        let Some(limit) = NonZeroU64::new(self.per_second.load(Ordering::Relaxed)) else { return };
        let nanoseconds = u128::try_from(bytes).unwrap_or(u128::MAX).saturating_mul(1_000_000_000);
        let cost = Duration::from_nanos(
            u64::try_from(nanoseconds / u128::from(limit.get())).unwrap_or(u64::MAX / 1_000_000_000),
        );
        let until = {
            let mut paid_at = self.paid_at.lock();
            *paid_at = (*paid_at).max(Instant::now()) + cost;
            *paid_at
        };
        sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;
    use std::time::Duration;

    use tokio::time::Instant;

    use super::Throttle;

    #[tokio::test]
    async fn all_who_take_share_one_limit() {
        let throttle = Throttle::new(NonZeroU64::new(1_000_000));
        let started = Instant::now();
        tokio::join!(throttle.take(150_000), throttle.take(50_000), async { throttle.take(100_000).await });
        assert!(started.elapsed() >= Duration::from_millis(300), "{:?}", started.elapsed());
        throttle.set(None);
        throttle.take(usize::MAX).await;
    }
}
