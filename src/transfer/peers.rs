//! Carries out "seed first": finds near peers, makes grants with them, and builds the source for the pull.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use crate::base::digest::Digest;
use crate::base::loopback;
use crate::base::secret::Secret;
use crate::catalog::image::ImageRecord;
use crate::engine::Engine;
use crate::engine::export::Export;
use crate::engine::fault::{Class, Fault};
use crate::engine::source::{self, Source};
use crate::fleet::agent::AgentRecord;
use crate::fleet::presence::Presence;
use crate::fleet::service::Fleet;
use crate::sources::chain::{Chain, Peer};
use crate::sources::grants::{Grants, LIFE, random};
use crate::sources::peer::{Beside, over_http};
use crate::transfer::plan::sought;
use crate::transfer::seeding::{Busy, Holder, Part, SITE, Seeds, Way, gets_to, way};
use crate::transfer::source::Catalogued;

/// How long an agent may take to accept a grant.
const ADMIT: Duration = Duration::from_secs(5);
/// How often a seed whose link broke is checked.
const LOOK: Duration = Duration::from_secs(1);
/// How many such checks a seed that is back may take to continue.
const RESUME: u32 = 10;

/// What the seeding of sites needs. Clones share it.
#[derive(Clone)]
pub(crate) struct Peers {
    fleet: Fleet,
    grants: Arc<Grants>,
    seeds: Seeds,
    guests: Arc<Mutex<HashMap<String, usize>>>,
    tracker: TaskTracker,
    shutdown: CancellationToken,
}

/// The decision for one pull.
#[derive(Default)]
pub(in crate::transfer) struct Sources {
    /// The agents that have the image, with their engines.
    from: Vec<(String, Arc<dyn Engine>)>,
    /// The part in the fetch, if this agent is the seed.
    part: Option<Part>,
    /// Whether the agent that gets the image is one that dialled in.
    is_remote: bool,
}

impl Sources {
    /// Whether other agents wait for this pull.
    pub(in crate::transfer) fn is_seed(&self) -> bool {
        self.part.is_some()
    }
}

impl Peers {
    /// Starts without seeds. `grants` admit peers to the images of engines on this machine.
    pub(crate) fn new(
        fleet: &Fleet,
        grants: &Arc<Grants>,
        tracker: &TaskTracker,
        shutdown: &CancellationToken,
    ) -> Self {
        Self {
            fleet: fleet.clone(),
            grants: Arc::clone(grants),
            seeds: Seeds::default(),
            guests: Arc::default(),
            tracker: tracker.clone(),
            shutdown: shutdown.clone(),
        }
    }

    /// Decides how this agent gets the image.
    ///
    /// # Errors
    /// The agent that it must wait for.
    pub(in crate::transfer) fn sources(
        &self,
        agent: &str,
        engine: &dyn Engine,
        image: &ImageRecord,
    ) -> Result<Sources, Busy> {
        let Some(found) = self.fleet.find(agent) else { return Ok(Sources::default()) };
        let site = found.record.labels.get(SITE);
        let is_able = found.about.as_ref().is_some_and(|about| !about.kind.fetches_itself());
        let (Some(site), true) = (site, is_able) else { return Ok(Sources::default()) };
        let name = image.canonical();
        if self.fleet.presence(agent, &sought(image, name.as_str(), &[])) == Presence::Present {
            return Ok(Sources::default());
        }
        let (is_here, is_remote) = (is_here(&found.record), found.record.remote);
        let near = self.near(site, image);
        let holders = near.iter().filter_map(|(name, engine)| {
            let url = url_of(engine.as_ref())?;
            Some(Holder {
                agent: name.clone(),
                is_near: gets_to(is_here, url.as_ref()),
                guests: self.guests.lock().get(name).copied().unwrap_or_default(),
            })
        });
        let own = url_of(engine);
        let busy = self.seeds.busy(site, &image.digest);
        let seed = busy.as_ref().map(|busy| Holder {
            agent: busy.agent.clone(),
            is_near: gets_to(is_here, busy.url.as_ref()),
            guests: 0,
        });
        match way(agent, own.is_some(), holders.collect(), seed.as_ref()) {
            Way::Fetch { from } => {
                let engine_of = |name: &String| near.iter().find(|(near, _)| near == name).cloned();
                Ok(Sources { from: from.iter().filter_map(engine_of).collect(), part: None, is_remote })
            }
            Way::Seed => match self.seeds.begin(site, &image.digest, agent, own.flatten()) {
                Ok(part) => Ok(Sources { from: Vec::new(), part: Some(part), is_remote }),
                Err(busy) => Err(busy),
            },
            Way::Wait { .. } => busy.map_or_else(|| Ok(Sources::default()), Err),
        }
    }

    /// The agents of a site that hold an image and can be asked for it now.
    fn near(&self, site: &str, image: &ImageRecord) -> Vec<(String, Arc<dyn Engine>)> {
        let is_near = |agent: &AgentRecord| agent.labels.get(SITE).is_some_and(|of| of == site);
        let holders = self.fleet.holders(&image.identity(), is_near);
        let holders = holders.into_iter().filter_map(|id| {
            let found = self
                .fleet
                .find(&id)
                .filter(|agent| agent.record.labels.get(SITE).is_some_and(|of| of == site));
            Some((found?.record.id, self.fleet.reach(&id).ok()?))
        });
        holders.collect()
    }

    /// Gives up the decision once the pull is over. A seed that is away for a moment continues by itself and will be
    /// back: the others go on waiting until it is lost or continues, or the task is cancelled.
    pub(in crate::transfer) fn end(
        &self,
        agent: &str,
        sources: Sources,
        is_away: bool,
        stop: &CancellationToken,
    ) {
        let Some(part) = sources.part.filter(|_| is_away) else { return };
        let (fleet, agent, stop) = (self.fleet.clone(), agent.to_owned(), stop.clone());
        let shutdown = self.shutdown.clone();
        self.tracker.spawn(async move {
            let mut back = 0;
            while part.is_current() && back < RESUME {
                if !fleet.find(&agent).is_some_and(|agent| agent.is_schedulable()) {
                    return;
                }
                back += u32::from(fleet.reach(&agent).is_ok());
                tokio::select! {
                    () = tokio::time::sleep(LOOK) => {}
                    () = stop.cancelled() => return,
                    () = shutdown.cancelled() => return,
                }
            }
        });
    }

    /// Asks the agents that have the image to hand it out; agents that do not answer are left out.
    pub(in crate::transfer) async fn lend(&self, sources: &Sources, image: &Digest) -> Lent {
        let mut lent = Lent {
            image: image.clone(),
            by: Vec::new(),
            grants: Arc::clone(&self.grants),
            is_remote: sources.is_remote,
        };
        for (agent, engine) in &sources.from {
            let (Some(export), Ok(grant)) = (engine.export(), random()) else { continue };
            let by = By { guest: Guest::of(&self.guests, agent), agent: agent.clone(), export, grant };
            match lent.admit(&by).await {
                Ok(()) => lent.by.push(by),
                Err(fault) => tracing::warn!(agent, %fault, "an agent does not hand out an image"),
            }
        }
        lent
    }
}

/// Whether the agent is on the manager's own machine.
fn is_here(record: &AgentRecord) -> bool {
    let address = record.address.strip_prefix("link:").and_then(|address| address.parse::<IpAddr>().ok());
    !record.remote || address.is_some_and(loopback::is_address)
}

/// Where peers can fetch an engine's images: `None` if nowhere, and no address if the manager hands them out.
#[expect(clippy::option_option, reason = "the inner one is an address that is known to those who ask")]
fn url_of(engine: &dyn Engine) -> Option<Option<Url>> {
    engine.export().map(|export| match export {
        Export::Local(_) => None,
        Export::Remote(remote) => Some(remote.url().clone()),
    })
}

/// Counts an agent that takes something from another.
struct Guest {
    guests: Arc<Mutex<HashMap<String, usize>>>,
    agent: String,
}

impl Guest {
    fn of(guests: &Arc<Mutex<HashMap<String, usize>>>, agent: &str) -> Self {
        *guests.lock().entry(agent.to_owned()).or_default() += 1;
        Self { guests: Arc::clone(guests), agent: agent.into() }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut guests = self.guests.lock();
        if let Some(count) = guests.get_mut(&self.agent) {
            *count -= 1;
            if *count == 0 {
                guests.remove(&self.agent);
            }
        }
    }
}

/// The images that agents hand out for one pull.
pub(in crate::transfer) struct Lent {
    image: Digest,
    by: Vec<By>,
    grants: Arc<Grants>,
    is_remote: bool,
}

struct By {
    agent: String,
    export: Export,
    grant: Secret,
    #[expect(dead_code, reason = "it counts for as long as it is there")]
    guest: Guest,
}

impl Lent {
    async fn admit(&self, by: &By) -> Result<(), Fault> {
        match &by.export {
            Export::Local(place) => {
                self.grants.admit(&by.grant, &self.image, Arc::clone(place), LIFE, Instant::now()).await
            }
            Export::Remote(remote) => {
                let admitted = timeout(ADMIT, remote.admit(&by.grant, &self.image, LIFE)).await;
                admitted.unwrap_or_else(|_| Err(Fault::new(Class::Network, "it does not answer")))
            }
        }
    }

    /// Keeps the grants valid for as long as this is polled.
    pub(in crate::transfer) async fn keep(&self) {
        loop {
            tokio::time::sleep(LIFE / 3).await;
            for by in &self.by {
                if let Err(fault) = self.admit(by).await {
                    tracing::debug!(agent = by.agent, %fault, "a grant could not be renewed");
                }
            }
        }
    }

    /// The source of the image: the description for an agent that dialled in, or a chain for an engine on this
    /// machine.
    pub(in crate::transfer) fn source(&self, name: &str, registry: Catalogued) -> Arc<dyn Source> {
        if self.is_remote {
            return Arc::new(registry.with_peers(self.told()));
        }
        let way = |by: &By| {
            let source: Arc<dyn Source> = match &by.export {
                Export::Local(place) => Arc::new(Beside(Arc::clone(place))),
                Export::Remote(remote) => over_http(&by.agent, remote.url(), None, &by.grant, name).ok()?,
            };
            Some(Peer { name: by.agent.clone(), source })
        };
        Arc::new(Chain::new(self.by.iter().filter_map(way).collect(), Arc::new(registry)))
    }

    /// The peers that have the image, as described to an agent on another machine.
    fn told(&self) -> Vec<source::Peer> {
        let told = |by: &By| source::Peer {
            agent: by.agent.clone(),
            url: match &by.export {
                Export::Local(_) => None,
                Export::Remote(remote) => Some(remote.url().clone()),
            },
            grant: by.grant.clone(),
        };
        self.by.iter().map(told).collect()
    }
}
