//! Follows one engine for as long as the server runs: met when it answers, read when something changes on it, lost when
//! it is gone, met again when it is back.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::engine::fault::{Class, Fault};
use crate::fleet::service::Fleet;

/// The first wait before an engine that does not answer is asked again, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// Engines tell of one change in several events; they are read once it has been quiet so long.
const SETTLE: Duration = Duration::from_millis(150);
/// An engine is read so often even if it says nothing, in case an event was lost.
const FULL_READ: Duration = Duration::from_mins(1);

/// Follows the engine at this address.
pub async fn watch(fleet: Fleet, address: String, engine: Arc<dyn Engine>, shutdown: CancellationToken) {
    let mut agent: Option<String> = None;
    let mut wait = FIRST_WAIT;
    while !shutdown.is_cancelled() {
        tokio::select! {
            fault = attend(&fleet, &address, &engine, &mut agent, &mut wait) => {
                if let Some(id) = &agent {
                    tracing::warn!(agent = id, address, %fault, "an agent is lost");
                    fleet.lose(id, &fault.to_string());
                } else {
                    tracing::debug!(address, %fault, "no engine answers here yet");
                    fleet.miss(&address, &fault.to_string());
                }
            }
            () = shutdown.cancelled() => return,
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => wait = (wait * 2).min(LONGEST_WAIT),
            () = shutdown.cancelled() => {}
        }
    }
}

/// Meets the engine and keeps its agent's holdings right until it stops answering.
async fn attend(
    fleet: &Fleet,
    address: &str,
    engine: &Arc<dyn Engine>,
    agent: &mut Option<String>,
    wait: &mut Duration,
) -> Fault {
    let met = async {
        let about = engine.about().await?;
        // Listened to before it is read: what changes in between is told.
        let events = engine.events().await?;
        Ok::<_, Fault>((about, events))
    };
    let (about, mut events) = match met.await {
        Ok(met) => met,
        Err(fault) => return fault,
    };
    let version = about.version.clone();
    let id = match fleet.meet(address, Arc::clone(engine), about).await {
        Ok(id) => id,
        Err(error) => return Fault::new(Class::Other, format!("the agent could not be kept: {error}")),
    };
    tracing::info!(agent = id, address, version, "an agent is here");
    *wait = FIRST_WAIT;
    *agent = Some(id.clone());
    loop {
        if let Err(fault) = read(fleet, &id, engine.as_ref()).await {
            return fault;
        }
        let changed = tokio::select! {
            event = events.next() => event,
            () = tokio::time::sleep(FULL_READ) => continue,
        };
        match changed {
            Some(Ok(_)) => {}
            Some(Err(fault)) => return fault,
            None => return Fault::new(Class::EngineGone, "its stream of events ended"),
        }
        // One pull is several events: read once they pause, or soon if they don't.
        let settled =
            async { while let Ok(Some(Ok(_))) = tokio::time::timeout(SETTLE, events.next()).await {} };
        let _ = tokio::time::timeout(SETTLE * 10, settled).await;
    }
}

async fn read(fleet: &Fleet, id: &str, engine: &dyn Engine) -> Result<(), Fault> {
    let look = fleet.look();
    let held = engine.images().await?;
    let disk = engine.disk().await.ok();
    fleet.report(id, look, held, disk);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::read;
    use crate::access::audit::{Audit, Retention};
    use crate::access::tenants::Tenants;
    use crate::base::clock::Clock;
    use crate::engine::fake::{Fake, about, held};
    use crate::fleet::service::Fleet;
    use crate::store::Store;

    #[tokio::test]
    async fn a_look_that_takes_long_does_not_bring_back_what_a_later_one_found_gone() {
        let directory = tempfile::tempdir().unwrap();
        let (store, clock) = (Store::open(directory.path()).unwrap(), Clock::system());
        let tenants = Tenants::load(&store, clock.now()).unwrap();
        let audit = Audit::load(&store, clock.clone(), Retention::default()).unwrap();
        let fleet = Fleet::load(&store, clock, audit, tenants).unwrap();
        let engine = Arc::new(Fake::holding(&["cr.io/a:1"]));
        let id = fleet.meet("docker+unix:///gpu01", engine.clone(), about()).await.unwrap();
        let look = async { read(&fleet, &id, engine.as_ref()).await.unwrap() };
        let meanwhile = async {
            engine.disk_asked.acquire().await.unwrap().forget();
            *engine.holds.lock() = vec![held("cr.io/b:1")];
            fleet.refresh(&id).await;
            assert_eq!(*fleet.held(&id)[0], held("cr.io/b:1"));
            engine.disk_told.add_permits(2);
        };
        tokio::join!(look, meanwhile);
        assert_eq!(*fleet.held(&id)[0], held("cr.io/b:1"), "the first look was done last");
    }
}
