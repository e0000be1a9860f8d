//! Looks at agents for what may go from them: brings together what each holds, who wants it and how it was used.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;

use crate::access::audit::Audit;
use crate::base::Result;
use crate::base::clock::Clock;
use crate::base::digest::Digest;
use crate::base::reference::as_told;
use crate::catalog::image::{Image, ImageRecord, Layer};
use crate::catalog::service::Catalog;
use crate::engine::image::Held;
use crate::fleet::agent::Agent;
use crate::fleet::service::Fleet;
use crate::fleet::usage::{ImageUse, Moment};
use crate::store::Store;
use crate::tasks::queue::WeakQueue;
use crate::transfer::demand::{Claims, Demand, Wants};
use crate::transfer::pins::Pins;
use crate::transfer::removal::Departure;
use crate::transfer::room::{Resident, RuleTerms, Stay};

/// Knows what may go from agents. Clones share it.
#[derive(Clone)]
pub(crate) struct Rooms {
    catalog: Catalog,
    fleet: Fleet,
    clock: Clock,
    pins: Pins,
    wants: Arc<OnceLock<Wants>>,
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

    /// Begins to look at these agents. What is looked up for one is used for the next.
    pub(crate) async fn survey(&self, agents: &[Agent]) -> Survey<'_> {
        Survey {
            rooms: self,
            by_digest: self.catalog.image_by_digest(),
            layers: HashMap::new(),
            demand: Demand::on(agents, &self.pins.all(), self.wants.get()).await,
        }
    }

    /// Why an image that is about to go from an agent stays there after all, by the terms of a rule too if one takes it;
    /// `None` if it may go, and absent if it is not there.
    pub(in crate::transfer) async fn stay(
        &self,
        agent: &Agent,
        digest: &Digest,
        terms: Option<&RuleTerms>,
    ) -> Option<Departure> {
        let Some(now) = self.now() else { return Some(Departure::Stays(Stay::Doubt.to_string())) };
        let residents = self.survey(std::slice::from_ref(agent)).await.without_layers(agent, &[]);
        let Some(resident) = residents.iter().find(|resident| resident.held.digest == *digest) else {
            return Some(Departure::Absent);
        };
        let by_terms = || terms?.keep(&residents, resident, agent.free_bytes(), now);
        resident.stay(now).map(|stay| stay.to_string()).or_else(by_terms).map(Departure::Stays)
    }
}

/// A look at some agents.
pub(crate) struct Survey<'a> {
    rooms: &'a Rooms,
    by_digest: Arc<HashMap<Digest, Arc<Image>>>,
    layers: HashMap<Digest, Arc<[Layer]>>,
    demand: Demand,
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

    /// The images on one of the agents. The caller wants these names to stay.
    pub(crate) async fn residents(&mut self, agent: &Agent, wanted: &[String]) -> Result<Vec<Resident>> {
        // Looking at thousands of agents leaves room for others.
        tokio::task::yield_now().await;
        let mut residents = self.without_layers(agent, wanted);
        for resident in &mut residents {
            if let Some(image) = self.content(&resident.held).cloned() {
                resident.layers = self.layers_of(&image.record).await?;
            }
        }
        Ok(residents)
    }

    /// The same without their layers.
    fn without_layers(&mut self, agent: &Agent, wanted: &[String]) -> Vec<Resident> {
        let (rooms, id) = (self.rooms, agent.record.id.as_str());
        let variants = |name: &str| rooms.catalog.variants(name);
        let resident = |(held, usage): (Arc<Held>, ImageUse)| Resident {
            wanted_by: if held.names.iter().any(|name| wanted.iter().any(|wanted| as_told(wanted) == *name)) {
                Some("a preload".to_owned())
            } else {
                self.demand.wanted_by(id, &held, variants)
            },
            is_pinned: self.demand.is_pinned(id, &held),
            made: self.content(&held).and_then(|image| image.config.created_at),
            is_known: self.knows(&held),
            held,
            usage,
            layers: Arc::default(),
        };
        rooms.fleet.held_and_used(id).into_iter().map(resident).collect()
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
