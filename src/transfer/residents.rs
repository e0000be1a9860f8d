//! What callers ask about the images that agents have: of one agent, those that nobody ordered, and what an unload would
//! take.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;

use crate::access::caller::Caller;
use crate::base::arch;
use crate::base::digest::Digest;
use crate::base::reference::shown;
use crate::base::{Error, Result};
use crate::engine::image::Held;
use crate::fleet::agent::Agent;
use crate::transfer::room::{Resident, Stay, frees};
use crate::transfer::service::{Order, Transfers, Wanted};

/// An image on agents that the catalog does not know.
#[derive(Debug, Clone)]
pub(crate) struct UnknownImage {
    /// The engines' ID of it.
    pub(crate) digest: Digest,
    /// Its names; maybe none.
    pub(crate) names: Vec<String>,
    /// Its size on the agent where it is largest, in bytes.
    pub(crate) size_bytes: u64,
    /// The agents that have it, in order.
    pub(crate) agents: Vec<String>,
    /// On how many of them a container uses it, as far as they tell.
    pub(crate) in_use: usize,
    /// When a container last used it, on any of them, as far as that was seen.
    pub(crate) last_used: Option<Timestamp>,
    /// Since when no container was seen to use it on any of them; `None` if one of them does not tell.
    pub(crate) idle_since: Option<Timestamp>,
}

/// What an unload would do with one image on one agent.
#[derive(Debug, Clone)]
pub(crate) struct UnloadStep {
    /// The agent's id.
    pub(crate) agent: String,
    /// The image's canonical name, or the digest that was asked for.
    pub(crate) image: String,
    /// What would be done.
    pub(crate) step: Removing,
    /// How many bytes would come free, at most.
    pub(crate) frees: u64,
    /// Why it would stay if it were not asked for: who wants it, or whether it is pinned.
    pub(crate) stay: Option<Stay>,
}

/// The steps of an unload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removing {
    /// It would be removed.
    Remove,
    /// Its name would be removed; the image has others.
    Untag,
    /// A container uses it, so it stays.
    InUse,
    /// The agent does not have it.
    NotThere,
    /// The agent does not answer; the task would wait for it.
    Offline,
}

impl Removing {
    /// The word for it in the API.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Remove => "to-remove",
            Self::Untag => "to-untag",
            Self::InUse => "in-use",
            Self::NotThere => "not-there",
            Self::Offline => "offline",
        }
    }
}

impl Transfers {
    /// All images on an agent by its last report, each with the reason why it stays when room is made. For super-admins.
    ///
    /// # Errors
    /// [`Error::Missing`] for an unknown agent.
    pub(crate) async fn images_on(&self, caller: &Caller, id: &str) -> Result<Vec<(Resident, Option<Stay>)>> {
        caller.require_superadmin("agent_images")?;
        let agent = self.fleet.find(id).ok_or_else(|| Error::missing("agent", shown(id)))?;
        let mut survey = self.rooms().survey(std::slice::from_ref(&agent)).await;
        let (residents, now) = (survey.residents(&agent, &[]).await?, self.rooms().moment());
        let mut images: Vec<_> = residents
            .into_iter()
            .map(|resident| {
                let stay = resident.stay(now);
                (resident, stay)
            })
            .collect();
        images
            .sort_by(|(a, _), (b, _)| (&a.held.names, &a.held.digest).cmp(&(&b.held.names, &b.held.digest)));
        Ok(images)
    }

    /// The images on these agents that the catalog does not know, the largest first. For super-admins.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an expression that names no agents.
    pub(crate) async fn unknown_images(
        &self,
        caller: &Caller,
        expression: &str,
    ) -> Result<Vec<UnknownImage>> {
        caller.require_superadmin("unknown_images")?;
        if self.fleet.is_empty() {
            return Ok(Vec::new());
        }
        let set = self.select(caller, expression)?;
        let survey = self.rooms().survey(&[]).await;
        // Equal images of all agents are kept once, so each is looked up once.
        let mut known: HashMap<*const Held, bool> = HashMap::new();
        let mut found: BTreeMap<(Digest, Vec<String>), UnknownImage> = BTreeMap::new();
        let mut alive: Vec<Arc<Held>> = Vec::new();
        for agent in set.names {
            for (held, usage) in self.fleet.held_and_used(&agent) {
                let is_known = *known.entry(Arc::as_ptr(&held)).or_insert_with(|| {
                    // Kept until the end, so that no other image gets its address.
                    alive.push(Arc::clone(&held));
                    survey.knows(&held)
                });
                if is_known {
                    continue;
                }
                let image =
                    found.entry((held.digest.clone(), held.names.clone())).or_insert_with(|| UnknownImage {
                        digest: held.digest.clone(),
                        names: held.names.clone(),
                        size_bytes: 0,
                        agents: Vec::new(),
                        in_use: 0,
                        last_used: None,
                        idle_since: Some(usage.idle_since),
                    });
                image.size_bytes = image.size_bytes.max(held.size_bytes);
                image.agents.push(agent.clone());
                image.in_use += usize::from(usage.is_in_use && usage.is_told);
                image.last_used = image.last_used.max(usage.last_used);
                let is_told = image.idle_since.is_some() && usage.is_told;
                image.idle_since = is_told.then_some(image.idle_since.max(Some(usage.idle_since))).flatten();
            }
        }
        let mut images: Vec<UnknownImage> = found.into_values().collect();
        images.sort_by_key(|image| std::cmp::Reverse(image.size_bytes));
        Ok(images)
    }

    /// What an unload would do. For super-admins.
    ///
    /// # Errors
    /// Those of [`Transfers::unload`].
    pub(crate) async fn unload_plan(&self, caller: &Caller, order: &Order) -> Result<Vec<UnloadStep>> {
        caller.require_superadmin("unload_plan")?;
        let architecture = order.architecture.as_deref().map(arch::named);
        let asked = architecture.as_deref();
        let (known, unknown) = self.sorted(caller, &order.references);
        let wanted = if known.is_empty() { Vec::new() } else { self.wanted(caller, &known, asked)? };
        let (set, _) = self.resolve(caller, &order.target_agents, asked)?;
        for reference in &unknown {
            self.require_held(reference, &set.names)?;
        }
        let agents: Vec<Agent> = set.names.iter().filter_map(|id| self.fleet.find(id)).collect();
        let mut survey = self.rooms().survey(&agents).await;
        let mut steps = Vec::new();
        for agent in &agents {
            let id = &agent.record.id;
            let residents = survey.residents(agent, &[]).await?;
            let now = self.rooms().moment();
            let mut going: Vec<usize> = Vec::new();
            let names = wanted.iter().map(Wanted::name).chain(unknown.iter().map(String::as_str));
            let first = steps.len();
            for name in names {
                let is_it = |resident: &Resident| {
                    resident.held.digest.as_str() == name
                        || resident.held.names.iter().any(|held| held == name)
                };
                let place = residents.iter().position(is_it);
                let found = place.and_then(|place| Some((place, residents.get(place)?)));
                let is_last = |resident: &Resident| resident.held.names.iter().all(|held| held == name);
                let step = match found {
                    _ if !agent.is_alive() => Removing::Offline,
                    None => Removing::NotThere,
                    Some((_, resident)) if resident.held.digest.as_str() != name && !is_last(resident) => {
                        Removing::Untag
                    }
                    Some((_, resident)) if resident.usage.is_in_use => Removing::InUse,
                    Some((place, _)) => {
                        going.push(place);
                        Removing::Remove
                    }
                };
                steps.push(UnloadStep {
                    agent: id.clone(),
                    image: name.into(),
                    step,
                    frees: 0,
                    stay: found.and_then(|(_, resident)| resident.stay(now)),
                });
            }
            let freed = frees(&residents, &going);
            let removed = steps.iter_mut().skip(first).filter(|step| step.step == Removing::Remove);
            for (step, bytes) in removed.zip(freed) {
                step.frees = bytes;
            }
        }
        Ok(steps)
    }
}
