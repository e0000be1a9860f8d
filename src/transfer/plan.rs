//! Plans a preload: what it would do on each agent.

use std::collections::HashMap;
use std::sync::Arc;

use crate::base::Result;
use crate::base::digest::Digest;
use crate::base::identity::Identity;
use crate::catalog::image::{Image, ImageRecord, Layer};
use crate::catalog::service::Catalog;
use crate::fleet::agent::Agent;
use crate::fleet::presence::{Presence, Sought};
use crate::fleet::service::Fleet;
use crate::transfer::room::Going;

/// The room that this many bytes to fetch take on an agent.
///
/// Unpacked, an image takes more room than its compressed layers; how much is known only afterwards. Common images
/// take at least twice as much, so an agent with less room than that is said not to fit. An image layout unpacks
/// nothing.
pub(crate) fn taken(bytes: u64, agent: &Agent) -> u64 {
    let unpacks = agent.about.as_ref().is_none_or(|about| about.kind.unpacks());
    if unpacks { bytes.saturating_mul(2) } else { bytes }
}

/// The room that an agent's engine leaves free whatever comes, in bytes.
fn reserve(agent: &Agent) -> u64 {
    agent.about.as_ref().map_or(0, |about| about.kind.reserve())
}

/// What a preload would do on one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing: the agent has the image.
    AlreadyThere,
    /// Fetch it in place of another image with that name.
    Replace,
    /// Fetch it.
    Fetch,
    /// Nothing: there is no image for the agent's architecture.
    WrongArchitecture,
    /// Wait for the agent, which does not answer.
    Offline,
    /// Nothing: the agent takes no new images.
    Draining,
}

impl Step {
    /// The word for it in the API.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::AlreadyThere => "already-there",
            Self::Replace => "stale",
            Self::Fetch => "to-fetch",
            Self::WrongArchitecture => "wrong-architecture",
            Self::Offline => "offline",
            Self::Draining => "draining",
        }
    }
}

/// The plan for one image on one agent.
#[derive(Debug, Clone)]
pub(crate) struct AgentPlan {
    /// The agent's id.
    pub(crate) agent: String,
    /// The image's canonical name.
    pub(crate) image: String,
    /// What would be done.
    pub(crate) step: Step,
    /// How many bytes the agent must fetch: the layers that no image it holds begins with.
    pub(crate) bytes: u64,
    /// The free room of the agent, in bytes, if its engine reports it.
    pub(crate) free_bytes: Option<u64>,
    /// False if the image will not fit beside those planned before it; `None` if that is unknown.
    pub(crate) fits: Option<bool>,
    /// How many bytes are missing for it and those planned before it.
    pub(crate) lacks: u64,
    /// What could go from the agent so that it fits, beside what goes for those planned before it; empty if it fits, or
    /// if all that may go does not suffice.
    pub(crate) room: Vec<Going>,
    /// Whether it fits once that is gone; `None` if it fits anyway, or if that is unknown.
    pub(crate) fits_with_room: Option<bool>,
}

/// An image that does not fit on an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unfit {
    /// The most room that it takes, in bytes.
    pub(crate) need: u64,
    /// The room that is left, in bytes.
    pub(crate) free: u64,
}

/// The image for an agent, among those a reference names: the one for its architecture.
pub(crate) fn image_for<'a>(images: &'a [Arc<Image>], agent: &Agent) -> Option<&'a Arc<Image>> {
    match &agent.about {
        Some(about) => images.iter().find(|image| image.record.architecture == about.architecture),
        // The agent was not met since the start; its architecture will be known when it is.
        None => images.first(),
    }
}

/// Makes plans; what it looks up for one agent is reused for the next.
pub(crate) struct Planner<'a> {
    catalog: &'a Catalog,
    fleet: &'a Fleet,
    by_digest: Arc<HashMap<Digest, Arc<Image>>>,
    /// The room that the plans so far take, by agent's id.
    planned: HashMap<String, u64>,
    layers: HashMap<Digest, Vec<Layer>>,
}

/// An image by its canonical name, in the form in which the fleet looks for it; see [`Sought`] for the variants,
/// which may be empty if the image is the one for the agent's architecture.
pub(crate) fn sought<'a>(image: &'a ImageRecord, name: &'a str, variants: &'a [Identity<'a>]) -> Sought<'a> {
    Sought { name, identity: image.identity(), variants }
}

impl<'a> Planner<'a> {
    /// A planner over this catalog and fleet.
    pub(crate) fn new(catalog: &'a Catalog, fleet: &'a Fleet) -> Self {
        let by_digest = catalog.image_by_digest();
        Self { catalog, fleet, by_digest, planned: HashMap::new(), layers: HashMap::new() }
    }

    /// Plans the image of this name, among `images` for several architectures, on one agent.
    pub(crate) async fn plan(
        &mut self,
        agent: &Agent,
        name: &str,
        images: &[Arc<Image>],
    ) -> Result<AgentPlan> {
        let id = agent.record.id.clone();
        let free_bytes = agent.free_bytes();
        let before = self.planned.get(&id).copied().unwrap_or_default();
        let plan = |step, bytes: u64| {
            let needed = before.saturating_add(taken(bytes, agent)).saturating_add(reserve(agent));
            let lacks = free_bytes.filter(|_| bytes > 0).map(|free| needed.saturating_sub(free));
            AgentPlan {
                agent: id.clone(),
                image: name.into(),
                step,
                bytes,
                free_bytes,
                fits: lacks.map(|lacks| lacks == 0),
                lacks: lacks.unwrap_or_default(),
                room: Vec::new(),
                fits_with_room: None,
            }
        };
        let Some(image) = image_for(images, agent) else { return Ok(plan(Step::WrongArchitecture, 0)) };
        if agent.record.draining {
            return Ok(plan(Step::Draining, 0));
        }
        if !agent.is_alive() {
            return Ok(plan(Step::Offline, image.record.size_bytes));
        }
        let canonical = image.record.canonical();
        let step = match self.fleet.presence(&id, &sought(&image.record, canonical.as_str(), &[])) {
            Presence::Present => return Ok(plan(Step::AlreadyThere, 0)),
            Presence::Stale => Step::Replace,
            Presence::Absent | Presence::Unknown => Step::Fetch,
        };
        let bytes = self.missing_bytes(&id, &image.record).await?;
        let planned = plan(step, bytes);
        self.planned.insert(id, before.saturating_add(taken(bytes, agent)));
        Ok(planned)
    }

    /// The room that an image takes on an agent, in bytes, with what its engine leaves free.
    pub(crate) async fn need(&mut self, agent: &Agent, image: &ImageRecord) -> Result<u64> {
        let bytes = self.missing_bytes(&agent.record.id, image).await?;
        Ok(if bytes == 0 { 0 } else { taken(bytes, agent).saturating_add(reserve(agent)) })
    }

    /// How many bytes an agent must fetch. Engines share layers only from the base up, so the missing part begins
    /// where the longest common start ends.
    async fn missing_bytes(&mut self, agent: &str, image: &ImageRecord) -> Result<u64> {
        let wanted = self.layers_of(image).await?;
        if wanted.is_empty() {
            return Ok(image.size_bytes);
        }
        let mut shared = 0;
        for held in self.fleet.held(agent) {
            // The layers of images that the catalog does not know are unknown too: the plan then counts too much
            // rather than too little.
            let known = held.digests().find_map(|digest| self.by_digest.get(digest));
            let Some(known) = known.cloned() else { continue };
            let layers = self.layers_of(&known.record).await?;
            let common = wanted.iter().zip(&layers).take_while(|(a, b)| a.diff_id == b.diff_id).count();
            shared = shared.max(common);
        }
        Ok(wanted.iter().skip(shared).map(|layer| layer.size).sum())
    }

    async fn layers_of(&mut self, image: &ImageRecord) -> Result<Vec<Layer>> {
        if let Some(layers) = self.layers.get(&image.manifest) {
            return Ok(layers.clone());
        }
        let layers = self.catalog.layers(image).await?;
        self.layers.insert(image.manifest.clone(), layers.clone());
        Ok(layers)
    }
}
