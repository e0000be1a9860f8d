//! Follows the engines that this server reaches itself, each for as long as the server runs.

use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::engine::fault::{Class, Fault};
use crate::engine::follow::{Follower, follow};
use crate::engine::image::Held;
use crate::engine::{About, Change, Engine};
use crate::fleet::service::Fleet;

/// Follows the engine at this address.
pub(crate) async fn watch(
    fleet: Fleet,
    address: String,
    engine: Arc<dyn Engine>,
    shutdown: CancellationToken,
) {
    let mut watched = Watched { fleet, address, engine: Arc::clone(&engine), agent: None };
    follow(engine.as_ref(), &mut watched, &shutdown).await;
}

/// An engine, and the agent it became once the server met it.
struct Watched {
    fleet: Fleet,
    address: String,
    engine: Arc<dyn Engine>,
    agent: Option<String>,
}

#[async_trait]
impl Follower for Watched {
    async fn met(&mut self, about: About) -> Result<(), Fault> {
        let (address, version) = (&self.address, about.version.clone());
        let met = self.fleet.meet(address, Arc::clone(&self.engine), about).await;
        let id =
            met.map_err(|error| Fault::new(Class::Other, format!("the agent could not be kept: {error}")))?;
        tracing::info!(agent = id, address, version, "an agent is here");
        self.agent = Some(id);
        Ok(())
    }

    async fn read(&mut self, what: Change) -> Result<(), Fault> {
        let Some(id) = &self.agent else { return Ok(()) };
        if what == Change::Images {
            read(&self.fleet, id, self.engine.as_ref()).await?;
        }
        read_uses(&self.fleet, id, self.engine.as_ref()).await;
        Ok(())
    }

    fn lost(&mut self, fault: Fault) {
        let address = &self.address;
        if let Some(id) = &self.agent {
            tracing::warn!(agent = id, address, %fault, "an agent is lost");
            self.fleet.lose(id, &fault.to_string());
        } else {
            tracing::debug!(address, %fault, "no engine answers here yet");
            self.fleet.miss(address, &fault.to_string());
        }
    }
}

async fn read(fleet: &Fleet, id: &str, engine: &dyn Engine) -> Result<(), Fault> {
    let epoch = fleet.begin_read();
    let held = engine.images().await?;
    let disk = engine.disk().await.ok();
    fleet.report(id, epoch, held, disk);
    Ok(())
}

/// Reads which images containers use. If that can't be read now, what was in use may be still.
async fn read_uses(fleet: &Fleet, id: &str, engine: &dyn Engine) {
    let held: Vec<Held> = fleet.held(id).iter().map(|held| held.as_ref().clone()).collect();
    match engine.uses(&held).await {
        Ok(Some(uses)) => fleet.note_uses(id, &uses),
        Ok(None) => fleet.note_untold(id),
        Err(fault) => {
            tracing::warn!(agent = id, %fault, "which images are in use could not be read");
            fleet.note_untold(id);
        }
    }
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
    async fn a_read_that_takes_long_does_not_bring_back_what_a_later_one_found_gone() {
        let directory = tempfile::tempdir().unwrap();
        let (store, clock) = (Store::open(directory.path()).unwrap(), Clock::system());
        let tenants = Tenants::load(&store, clock.now()).unwrap();
        let audit = Audit::load(&store, clock.clone(), Retention::default()).unwrap();
        let fleet = Fleet::load(&store, clock, audit, tenants).unwrap();
        let engine = Arc::new(Fake::holding(&["cr.io/a:1"]));
        let id = fleet.meet("docker+unix:///gpu01", engine.clone(), about()).await.unwrap();
        let first = async { read(&fleet, &id, engine.as_ref()).await.unwrap() };
        let meanwhile = async {
            engine.disk_asked.acquire().await.unwrap().forget();
            *engine.holds.lock() = vec![held("cr.io/b:1")];
            fleet.refresh(&id).await;
            assert_eq!(*fleet.held(&id)[0], held("cr.io/b:1"));
            engine.disk_told.add_permits(2);
        };
        tokio::join!(first, meanwhile);
        assert_eq!(*fleet.held(&id)[0], held("cr.io/b:1"), "the first read was done last");
    }
}
