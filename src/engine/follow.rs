//! Follows one engine: met when it answers, read when something changes on it, lost when it stops answering, met again
//! when it is back.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::base::backoff::{Backoff, Waits};
use crate::engine::fault::{Class, Fault};
use crate::engine::{About, Change, Engine};

/// The waits before an engine that does not answer is asked again.
const WAITS: Backoff = Backoff::doubling(Duration::from_millis(500), Duration::from_secs(15));
/// How long an engine must be quiet before it is read: it reports one change in several events.
const SETTLE: Duration = Duration::from_millis(150);
/// How often an engine is read even if it reports no events, in case one was lost.
const FULL_READ: Duration = Duration::from_mins(1);

/// The receiver of news about an engine that is followed.
#[async_trait]
pub(crate) trait Follower: Send {
    /// Called when the engine answers, with its identity.
    ///
    /// # Errors
    /// A reason not to follow it; it is met again after a while.
    async fn met(&mut self, about: About) -> Result<(), Fault>;

    /// Called when something on the engine has changed, or may have: reads that.
    ///
    /// # Errors
    /// The engine does not answer.
    async fn read(&mut self, what: Change) -> Result<(), Fault>;

    /// Called when the engine does not answer, or no longer.
    fn lost(&mut self, fault: Fault);
}

/// Follows an engine until shutdown.
pub(crate) async fn follow(engine: &dyn Engine, follower: &mut dyn Follower, shutdown: &CancellationToken) {
    let mut waits = Waits::new(WAITS);
    loop {
        let fault = tokio::select! {
            fault = attend(engine, follower, &mut waits) => fault,
            () = shutdown.cancelled() => return,
        };
        follower.lost(fault);
        tokio::select! {
            () = sleep(waits.longer()) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Meets the engine and has it read on every change, until it stops answering.
async fn attend(engine: &dyn Engine, follower: &mut dyn Follower, waits: &mut Waits) -> Fault {
    let met = async {
        let about = engine.about().await?;
        // Subscribed before the first read, so that changes in between are reported.
        let events = engine.events().await?;
        follower.met(about).await?;
        Ok::<_, Fault>(events)
    };
    let mut events = match met.await {
        Ok(events) => events,
        Err(fault) => return fault,
    };
    waits.reset();
    let (mut what, mut full_read) = (Change::Images, Instant::now() + FULL_READ);
    loop {
        if let Err(fault) = follower.read(what).await {
            return fault;
        }
        if what == Change::Images {
            full_read = Instant::now() + FULL_READ;
        }
        let changed = tokio::select! {
            event = events.next() => event,
            () = sleep_until(full_read) => {
                what = Change::Images;
                continue;
            }
        };
        what = match changed {
            Some(Ok(what)) => what,
            Some(Err(fault)) => return fault,
            None => return Fault::new(Class::EngineGone, "its stream of events ended"),
        };
        // One pull causes several events: read once they pause, or soon if they don't.
        let settled = async {
            while let Ok(Some(Ok(more))) = timeout(SETTLE, events.next()).await {
                what = what.max(more);
            }
        };
        let _ = timeout(SETTLE * 10, settled).await;
    }
}
