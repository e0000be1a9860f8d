//! Looks at agents for what may go from them: brings together what each holds, who wants it and how it was used.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;

use crate::access::audit::Audit;
use crate::base::Result;
use crate::base::clock::Clock;
use crate::base::digest::Digest;
use crate::catalog::image::{Image, ImageRecord, Layer};
use crate::catalog::service::Catalog;
use crate::engine::image::Held;
use crate::fleet::agent::Agent;
use crate::fleet::service::Fleet;
use crate::fleet::usage::{ImageUse, Moment};
use crate::store::Store;
use crate::tasks::queue::WeakQueue;
use crate::transfer::pins::Pins;
use crate::transfer::room::{Resident, Stay};

/// Who wants an image of the catalog on one agent.
pub(crate) type Claim = Box<dyn Fn(&ImageRecord) -> Option<String> + Send + Sync>;

/// Those who want images on agents, again and again.
pub(crate) trait Claims: Send + Sync {
    /// What is wanted on this agent.
    fn on(&self, agent: &Agent) -> Claim;
}

/// Knows what may go from agents. Clones share it.
#[derive(Clone)]
pub(crate) struct Rooms {
    catalog: Catalog,
    fleet: Fleet,
    clock: Clock,
    pins: Pins,
    wants: Arc<OnceLock<Wants>>,
}

struct Wants {
    claims: Arc<dyn Claims>,
    queue: WeakQueue,
}

impl Rooms {
    /// Loads the pins. Nothing may go before [`Rooms::bind`]: nobody knows what is wanted.
    pub(crate) fn load(
        store: &Store,
        catalog: &Catalog,
        fleet: &Fleet,
        clock: &Clock,
        audit: &Audit,
    ) -> Result<Self> {
        Ok(Self {
            catalog: catalog.clone(),
            fleet: fleet.clone(),
            clock: clock.clone(),
            pins: Pins::load(store, catalog, audit, clock)?,
            wants: Arc::default(),
        })
    }

    /// What people pinned.
    pub(crate) fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Says who wants images: these claims, and the preloads of this queue.
    pub(crate) fn bind(&self, claims: Arc<dyn Claims>, queue: WeakQueue) {
        let _ = self.wants.set(Wants { claims, queue });
    }

    /// The moment to judge by; `None` while the time of day is not believed, for then nothing may go.
    pub(crate) fn now(&self) -> Option<Moment> {
        Some(Moment { day: self.clock.calendar()?, steady: self.clock.steady() })
    }

    /// The moment for telling why images stay: by whatever time of day it seems to be.
    pub(crate) fn moment(&self) -> Moment {
        Moment { day: self.clock.now(), steady: self.clock.steady() }
    }

    /// Begins to look at agents. What is looked up for one is used for the next.
    pub(crate) fn survey(&self) -> Survey<'_> {
        Survey { rooms: self, by_digest: self.catalog.image_by_digest(), layers: HashMap::new() }
    }

    /// Why an image stays on an agent; `None` if it may go.
    pub(in crate::transfer) fn stay(&self, agent: &Agent, digest: &Digest) -> Option<Stay> {
        let Some(now) = self.now() else { return Some(Stay::Doubt) };
        let mut found = self.fleet.held_and_used(&agent.record.id).into_iter();
        let (held, usage) = found.find(|(held, _)| held.digest == *digest)?;
        let wanted_by = self.wanted_on(agent, &[])(&held);
        let is_pinned = self.pins.on(agent).iter().any(|pinned| held.names.contains(pinned));
        let (is_known, made, layers) = (true, None, Arc::default());
        Resident { held, usage, is_known, made, wanted_by, is_pinned, layers }.stay(now)
    }

    /// The returned function says who wants an image on this agent: those who are bound, or the caller, who wants these
    /// names.
    fn wanted_on<'a>(
        &'a self,
        agent: &Agent,
        also: &'a [String],
    ) -> impl Fn(&Held) -> Option<String> + use<'a> {
        let wants = self.wants.get();
        let claimed = wants.map(|wants| wants.claims.on(agent));
        let loading = wants.map(|wants| wants.queue.loading_on(&agent.record.id)).unwrap_or_default();
        move |held| {
            let Some(claimed) = &claimed else { return Some("the server, which is starting,".into()) };
            held.names.iter().find_map(|name| {
                if also.contains(name) || loading.contains(name) {
                    return Some("a preload".to_owned());
                }
                self.catalog.variants(name).iter().find_map(|image| claimed(&image.record))
            })
        }
    }
}

/// A look at some agents.
pub(crate) struct Survey<'a> {
    rooms: &'a Rooms,
    by_digest: HashMap<Digest, Arc<Image>>,
    layers: HashMap<Digest, Arc<[Layer]>>,
}

impl Survey<'_> {
    /// Whether the catalog knows an image: its content, or one of its names.
    pub(crate) fn knows(&self, held: &Held) -> bool {
        let is_named = |name: &String| !self.rooms.catalog.variants(name).is_empty();
        self.content(held).is_some() || held.names.iter().any(is_named)
    }

    fn content(&self, held: &Held) -> Option<&Arc<Image>> {
        held.digests().find_map(|digest| self.by_digest.get(digest))
    }

    /// The images on an agent. The caller wants these names to stay.
    pub(crate) async fn residents(&mut self, agent: &Agent, wanted: &[String]) -> Result<Vec<Resident>> {
        let rooms = self.rooms;
        let wanted_by = rooms.wanted_on(agent, wanted);
        let pinned: HashSet<String> = rooms.pins.on(agent).into_iter().collect();
        let mut residents = Vec::new();
        for (held, usage) in rooms.fleet.held_and_used(&agent.record.id) {
            let content = self.content(&held).cloned();
            let is_known = self.knows(&held);
            let layers = match &content {
                Some(image) => self.layers_of(&image.record).await?,
                None => Arc::default(),
            };
            residents.push(Resident {
                wanted_by: wanted_by(&held),
                is_pinned: held.names.iter().any(|name| pinned.contains(name)),
                made: content.and_then(|image| image.config.created_at),
                held,
                usage,
                is_known,
                layers,
            });
        }
        Ok(residents)
    }

    /// An image that is about to come, as if it were there: a layer that it shares with another does not come free.
    pub(crate) async fn newcomer(&mut self, image: &ImageRecord) -> Result<Resident> {
        let held = Held {
            digest: image.digest.clone(),
            parts: Vec::new(),
            names: Vec::new(),
            manifests: Vec::new(),
            size_bytes: 0,
        };
        let usage = ImageUse {
            is_in_use: true,
            is_told: true,
            last_used: None,
            idle_since: Timestamp::MAX,
            came: None,
            came_steady: None,
            watched: None,
            watched_steady: None,
        };
        let layers = self.layers_of(image).await?;
        let (wanted_by, is_known) = (Some("a preload".to_owned()), true);
        Ok(Resident {
            held: Arc::new(held),
            usage,
            is_known,
            made: None,
            wanted_by,
            is_pinned: false,
            layers,
        })
    }

    async fn layers_of(&mut self, image: &ImageRecord) -> Result<Arc<[Layer]>> {
        if let Some(known) = self.layers.get(&image.manifest) {
            return Ok(Arc::clone(known));
        }
        let layers: Arc<[Layer]> = self.rooms.catalog.layers(image).await?.into();
        self.layers.insert(image.manifest.clone(), Arc::clone(&layers));
        Ok(layers)
    }
}
