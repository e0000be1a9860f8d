//! Finds what is nearer than the registry, the caches of the agent's site and peers that have the image, makes grants
//! with them, and builds the source for the pull. Carries out "seed first".

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use crate::base::loopback;
use crate::base::secret::Secret;
use crate::catalog::image::ImageRecord;
use crate::engine::Engine;
use crate::engine::export::{Export, SiteCache};
use crate::engine::fault::{Class, Fault};
use crate::engine::pull::Pull;
use crate::engine::source::{self, Source};
use crate::fleet::agent::AgentRecord;
use crate::fleet::presence::Presence;
use crate::fleet::service::Fleet;
use crate::sources::cache::Cache;
use crate::sources::chain::{Chain, Peer};
use crate::sources::grants::{Grants, LIFE, random};
use crate::sources::peer::{Beside, held_parts, over_http};
use crate::sources::relay::parts_of;
use crate::transfer::plan::sought;
use crate::transfer::seeding::{Busy, Holder, Part, SITE, Seeds, Way, gets_to, way};
use crate::transfer::source::Catalogued;

/// How long an agent may take to accept a grant.
const ADMIT: Duration = Duration::from_secs(5);
/// How long a cache may take: it reads the image's manifest, maybe from the registry.
const CACHE_ADMIT: Duration = Duration::from_secs(30);
/// Most caches named to an agent. Each that does not answer costs time.
const MOST_CACHES: usize = 2;
/// How often a seed whose link broke is checked.
const LOOK: Duration = Duration::from_secs(1);
/// How many such checks a seed that is back may take to continue.
const RESUME: u32 = 10;

/// The manager's own cache.
#[derive(Clone)]
pub(crate) struct OwnCache {
    /// The cache.
    pub(crate) cache: Arc<Cache>,
    /// The site that it serves; empty for the agents without one.
    pub(crate) site: String,
}

/// What is near the agents. Clones share it.
#[derive(Clone)]
pub(crate) struct Peers {
    fleet: Fleet,
    /// Whether one agent of a site fetches for all.
    seed_first: bool,
    cache: Option<OwnCache>,
    grants: Arc<Grants>,
    seeds: Seeds,
    guests: Arc<Mutex<HashMap<String, usize>>>,
    tracker: TaskTracker,
    shutdown: CancellationToken,
}

/// The decision for one pull.
#[derive(Default)]
pub(in crate::transfer) struct Sources {
    /// The caches of the agent's site.
    caches: Vec<(String, Lender)>,
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
    /// Starts without seeds. `grants` admit peers to the images of engines on this machine, and of its cache.
    pub(crate) fn new(
        fleet: &Fleet,
        seed_first: bool,
        cache: Option<OwnCache>,
        grants: &Arc<Grants>,
        tracker: &TaskTracker,
        shutdown: &CancellationToken,
    ) -> Self {
        Self {
            fleet: fleet.clone(),
            seed_first,
            cache,
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
        if !engine.reach().takes_sources {
            return Ok(Sources::default());
        }
        let (is_here, is_remote) = (is_here(&found.record), found.record.remote);
        let caches = self.caches(&found.record, is_here);
        // A cache fetches once for all that ask it, so nobody has to wait for a seed.
        if !caches.is_empty() {
            return Ok(Sources { caches, is_remote, ..Sources::default() });
        }
        let Some(site) = site.filter(|_| self.seed_first) else { return Ok(Sources::default()) };
        let name = image.canonical();
        if self.fleet.presence(agent, &sought(image, name.as_str(), &[])) == Presence::Present {
            return Ok(Sources::default());
        }
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
                let from = from.iter().filter_map(engine_of).collect();
                Ok(Sources { from, is_remote, ..Sources::default() })
            }
            Way::Seed => match self.seeds.begin(site, &image.digest, agent, own.flatten()) {
                Ok(part) => Ok(Sources { part: Some(part), is_remote, ..Sources::default() }),
                Err(busy) => Err(busy),
            },
            Way::Wait { .. } => busy.map_or_else(|| Ok(Sources::default()), Err),
        }
    }

    /// The caches of other machines that serve this agent's site, and that it can reach.
    fn caches(&self, of: &AgentRecord, is_here: bool) -> Vec<(String, Lender)> {
        let site = of.labels.get(SITE).map(String::as_str).unwrap_or_default();
        // An engine of the manager has the manager's cache in front of it already.
        let own = self.cache.as_ref().filter(|own| own.site == site && of.remote);
        let own = own.map(|own| ("the manager".to_owned(), Lender::OwnCache(Arc::clone(&own.cache))));
        let of_site =
            |record: &AgentRecord| record.labels.get(SITE).map(String::as_str).unwrap_or_default() == site;
        let others = self.fleet.caches().into_iter().filter(|(record, cache)| {
            of_site(record) && record.id != of.id && gets_to(is_here, Some(cache.url()))
        });
        let others = others.map(|(record, cache)| (record.id, Lender::Cache(cache)));
        own.into_iter().chain(others).take(MOST_CACHES).collect()
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

    /// Asks the caches, and the agents that have the image, to hand it out for this pull; those that do not are left
    /// out.
    pub(in crate::transfer) async fn lend(&self, sources: &Sources, pull: &Pull) -> Lent {
        let mut lent = Lent {
            pull: pull.clone(),
            by: Vec::new(),
            remarks: Vec::new(),
            grants: Arc::clone(&self.grants),
            is_remote: sources.is_remote,
        };
        let caches = sources.caches.iter().map(|(agent, lender)| (agent, lender.clone()));
        let holders = sources
            .from
            .iter()
            .filter_map(|(agent, engine)| Some((agent, Lender::Holder(Arc::new(engine.export()?)))));
        for (agent, lender) in caches.chain(holders) {
            let Ok(grant) = random() else { continue };
            let by = By { guest: Guest::of(&self.guests, agent), agent: agent.clone(), lender, grant };
            match lent.admit(&by).await {
                Ok(()) => lent.by.push(by),
                Err(fault) => {
                    tracing::warn!(agent, %fault, "an agent does not hand out an image");
                    lent.remarks.push(format!("{agent} does not hand it out: {fault}"));
                }
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

/// Who hands out an image.
#[derive(Clone)]
enum Lender {
    /// An agent whose engine holds it.
    Holder(Arc<Export>),
    /// An agent whose cache has it, or fetches it.
    Cache(Arc<dyn SiteCache>),
    /// The manager's own cache.
    OwnCache(Arc<Cache>),
}

/// The images that caches and agents hand out for one pull.
pub(in crate::transfer) struct Lent {
    /// The pull, with the registry as its source.
    pull: Pull,
    by: Vec<By>,
    remarks: Vec<String>,
    grants: Arc<Grants>,
    is_remote: bool,
}

struct By {
    agent: String,
    lender: Lender,
    grant: Secret,
    #[expect(dead_code, reason = "it counts for as long as it is there")]
    guest: Guest,
}

impl Lent {
    async fn admit(&self, by: &By) -> Result<(), Fault> {
        let (image, grant) = (&self.pull.config, &by.grant);
        let asked = async {
            match &by.lender {
                Lender::OwnCache(cache) => self.admit_to(cache, grant).await,
                Lender::Cache(cache) => cache.admit(grant, &self.pull, LIFE).await,
                Lender::Holder(export) => match export.as_ref() {
                    Export::Local(place) => {
                        let held = held_parts(Arc::clone(place), image).await?;
                        self.grants.admit(grant, held, LIFE, Instant::now())
                    }
                    Export::Remote(remote) => remote.admit(grant, image, LIFE).await,
                },
            }
        };
        let most = if matches!(by.lender, Lender::Holder(_)) { ADMIT } else { CACHE_ADMIT };
        let admitted = timeout(most, asked).await;
        admitted.unwrap_or_else(|_| Err(Fault::new(Class::Network, "it does not answer")))
    }

    async fn admit_to(&self, cache: &Arc<Cache>, grant: &Secret) -> Result<(), Fault> {
        let Pull { config, manifest: Some(manifest), source: Some(source), repository, .. } = &self.pull
        else {
            return Err(Fault::new(Class::Other, "where the image comes from is not known"));
        };
        if self.grants.extend(grant, config, LIFE, Instant::now()) {
            return Ok(());
        }
        let held = parts_of(manifest, config, cache.before(repository, source)).await?;
        self.grants.admit(grant, held, LIFE, Instant::now())
    }

    /// Who did not hand out the image, for people.
    pub(in crate::transfer) fn remarks(&self) -> &[String] {
        &self.remarks
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
            let over = |url: &Url| over_http(&by.agent, url, None, &by.grant, name).ok();
            let source: Arc<dyn Source> = match &by.lender {
                Lender::OwnCache(cache) => cache.before(&self.pull.repository, self.pull.source.as_ref()?),
                Lender::Cache(cache) => over(cache.url())?,
                Lender::Holder(export) => match export.as_ref() {
                    Export::Local(place) => Arc::new(Beside(Arc::clone(place))),
                    Export::Remote(remote) => over(remote.url())?,
                },
            };
            Some(Peer { name: by.agent.clone(), source, is_cache: by.is_cache() })
        };
        Arc::new(Chain::new(self.by.iter().filter_map(way).collect(), Arc::new(registry)))
    }

    /// Where the image is to be had, as described to an agent on another machine.
    fn told(&self) -> Vec<source::Peer> {
        let told = |by: &By| source::Peer {
            agent: by.agent.clone(),
            url: by.url(),
            grant: by.grant.clone(),
            is_cache: by.is_cache(),
        };
        self.by.iter().map(told).collect()
    }
}

impl By {
    fn is_cache(&self) -> bool {
        !matches!(self.lender, Lender::Holder(_))
    }

    /// Its address, if it is not the manager's.
    fn url(&self) -> Option<Url> {
        match &self.lender {
            Lender::OwnCache(_) => None,
            Lender::Cache(cache) => Some(cache.url().clone()),
            Lender::Holder(export) => match export.as_ref() {
                Export::Local(_) => None,
                Export::Remote(remote) => Some(remote.url().clone()),
            },
        }
    }
}
