//! Follows one engine: met when it answers, read when something changes on it, lost when it is gone, met again when it
//! is back.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::base::backoff::{Backoff, Waits};
use crate::engine::fault::{Class, Fault};
use crate::engine::{About, Engine};

/// The waits before an engine that does not answer is asked again.
const WAITS: Backoff = Backoff::doubling(Duration::from_millis(500), Duration::from_secs(15));
/// Engines tell of one change in several events; they are read once it has been quiet so long.
const SETTLE: Duration = Duration::from_millis(150);
/// An engine is read so often even if it says nothing, in case an event was lost.
const FULL_READ: Duration = Duration::from_mins(1);

/// Who is told of an engine that is followed.
#[async_trait]
pub(crate) trait Follower: Send {
    /// It answers, and this is what it is.
    ///
    /// # Errors
    /// What keeps it from being followed; it is met again after a while.
    async fn met(&mut self, about: About) -> Result<(), Fault>;

    /// Something has changed on it, or may have: it is to be read.
    ///
    /// # Errors
    /// It does not answer.
    async fn read(&mut self) -> Result<(), Fault>;

    /// It does not answer, or no more.
    fn lost(&mut self, fault: Fault);
}

/// Follows an engine until told to stop.
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

/// Meets the engine and has it read until it stops answering.
async fn attend(engine: &dyn Engine, follower: &mut dyn Follower, waits: &mut Waits) -> Fault {
    let met = async {
        let about = engine.about().await?;
        // Listened to before it is read: what changes in between is told.
        let events = engine.events().await?;
        follower.met(about).await?;
        Ok::<_, Fault>(events)
    };
    let mut events = match met.await {
        Ok(events) => events,
        Err(fault) => return fault,
    };
    waits.reset();
    loop {
        if let Err(fault) = follower.read().await {
            return fault;
        }
        let changed = tokio::select! {
            event = events.next() => event,
            () = sleep(FULL_READ) => continue,
        };
        match changed {
            Some(Ok(())) => {}
            Some(Err(fault)) => return fault,
            None => return Fault::new(Class::EngineGone, "its stream of events ended"),
        }
        // One pull is several events: read once they pause, or soon if they don't.
        let settled = async { while let Ok(Some(Ok(()))) = timeout(SETTLE, events.next()).await {} };
        let _ = timeout(SETTLE * 10, settled).await;
    }
}
