//! What callers ask about preloads and unloads.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::access::audit::{Audit, Deed};
use crate::access::caller::Caller;
use crate::base::arch;
use crate::base::digest::Digest;
use crate::base::ids::TaskId;
use crate::base::reference::shown;
use crate::base::{Error, Result};
use crate::catalog::image::Image;
use crate::catalog::service::Catalog;
use crate::fleet::agent::Agent;
use crate::fleet::error::ExpressionError;
use crate::fleet::expression::Expression;
use crate::fleet::fold::fold;
use crate::fleet::index::Selection;
use crate::fleet::presence::Presence;
use crate::fleet::service::Fleet;
use crate::tasks::queue::Queue;
use crate::tasks::task::{Item, NewItem, Targets, TaskKind};
use crate::transfer::plan::{AgentPlan, Planner, Unfit, image_for, sought, taken};
use crate::transfer::room::{Terms, going};
use crate::transfer::rooms::Rooms;
use crate::transfer::work::Work;

/// Most images of one task: more than a class needs, and still a list that people can read.
const MAX_IMAGES: usize = 100;
/// Most items of one task: 50 images on 1,000 agents. Each takes about a kilobyte of memory while the task runs.
pub(crate) const MAX_ITEMS: usize = 50_000;

/// Loads and unloads images. Clones share the queue.
#[derive(Clone)]
pub(crate) struct Transfers {
    pub(in crate::transfer) catalog: Catalog,
    pub(in crate::transfer) fleet: Fleet,
    pub(in crate::transfer) queue: Queue,
    pub(in crate::transfer) audit: Audit,
    rooms: Rooms,
}

/// What a preload or an unload is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    /// The images, by any references.
    pub(crate) references: Vec<String>,
    /// The expression for the agents.
    pub(crate) target_agents: String,
    /// The one architecture of the images to act on, in any common spelling; agents of other architectures are left
    /// out. `None` for each agent's own.
    pub(crate) architecture: Option<String>,
    /// Whether other images may go where one does not fit.
    pub(crate) make_room: bool,
}

/// A plan for some images and a set of agents.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The agents of the plan.
    pub(crate) set: Selection,
    /// How many agents that the expression names are left out, because theirs is another architecture.
    pub(crate) left_out: usize,
    /// The plans for each image in turn and each agent, ordered by id.
    pub(crate) agents: Vec<AgentPlan>,
}

/// The images of one name that a rule found missing.
#[derive(Debug, Clone)]
pub(crate) struct Filling {
    /// The rule's name.
    pub(crate) rule: String,
    /// The rule's expression for its agents.
    pub(crate) expression: String,
    /// The images with that name.
    pub(crate) images: Vec<Arc<Image>>,
    /// The one architecture that the rule is for.
    pub(crate) architecture: Option<String>,
    /// The agents that lack them, sorted.
    pub(crate) agents: Vec<String>,
}

/// One image and one agent in a task.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    /// The agent's id.
    pub(crate) agent: String,
    /// The image's digest.
    pub(crate) digest: Digest,
    /// Its size, in bytes.
    pub(crate) size_bytes: u64,
}

impl Attempt {
    /// Returns the image and agent of an item of a preload or an unload; `None` if there is no image for the agent.
    pub(crate) fn of(item: &Item) -> Option<Self> {
        let work = Work::of(&item.work).ok()?;
        let image = work.image?;
        Some(Self { agent: work.agent, digest: image.digest, size_bytes: image.size_bytes })
    }

    /// Whether the agent of an item has the image of it, by its last report.
    pub(crate) fn is_there(item: &Item, fleet: &Fleet) -> bool {
        let Ok(Work { agent, image: Some(image), .. }) = Work::of(&item.work) else { return false };
        let name = image.canonical();
        fleet.presence(&agent, &sought(&image, name.as_str(), &[])) == Presence::Present
    }
}

impl Transfers {
    /// Makes transfers whose tasks go to this queue.
    pub(crate) fn new(catalog: Catalog, fleet: Fleet, queue: Queue, audit: Audit, rooms: Rooms) -> Self {
        Self { catalog, fleet, queue, audit, rooms }
    }

    /// What may go from agents.
    pub(crate) fn rooms(&self) -> &Rooms {
        &self.rooms
    }

    /// Starts loading images onto the agents that an expression names, in one task.
    ///
    /// # Errors
    /// [`Error::Missing`] for an unknown image, [`Error::Invalid`] for no image or too many, for an expression that
    /// can't be parsed or names no agent, or for an architecture that an image or every agent has not,
    /// [`Error::Conflict`] when there are no agents at all. In each case nothing is started.
    pub(crate) async fn preload(&self, caller: &Caller, order: &Order) -> Result<TaskId> {
        self.start(caller, TaskKind::Preload, order).await
    }

    /// Starts removing images from the agents that an expression names, in one task.
    ///
    /// # Errors
    /// Those of [`Transfers::preload`].
    pub(crate) async fn unload(&self, caller: &Caller, order: &Order) -> Result<TaskId> {
        self.start(caller, TaskKind::Unload, order).await
    }

    async fn start(&self, caller: &Caller, kind: TaskKind, order: &Order) -> Result<TaskId> {
        let action = format!("{}_image", kind.as_str());
        let architecture = order.architecture.as_deref().map(arch::named);
        let images = of_architecture(&first_of(&order.references), architecture.as_deref());
        let target = format!("{images} on {}", order.target_agents);
        self.audit
            .superadmin(caller, &action, &target, |deed| async move {
                self.submit(&deed, caller, kind, order, architecture).await
            })
            .await
    }

    async fn submit(
        &self,
        deed: &Deed,
        caller: &Caller,
        kind: TaskKind,
        order: &Order,
        architecture: Option<String>,
    ) -> Result<TaskId> {
        let asked = architecture.as_deref();
        let (known, unknown) = match kind {
            TaskKind::Unload => self.sorted(caller, &order.references),
            _ => (order.references.clone(), Vec::new()),
        };
        let wanted = match known.as_slice() {
            [] if !unknown.is_empty() => Vec::new(),
            known => self.wanted(caller, known, asked)?,
        };
        // Before the agents: a name that no catalog and no agent knows is a mistake in the name.
        let everywhere: Vec<String> =
            self.fleet.roster().into_iter().map(|(_, agent)| agent.record.id).collect();
        unknown.iter().try_for_each(|reference| self.require_held(reference, &everywhere))?;
        let (set, left_out) = self.resolve(caller, &order.target_agents, asked)?;
        let mut items = self.items(&wanted, &set.names, asked, order.make_room)?;
        let mut names: Vec<String> = wanted.into_iter().map(|wanted| wanted.name).collect();
        for reference in unknown {
            self.require_held(&reference, &set.names)?;
            items.extend(self.unknown_items(&reference, &set.names)?);
            names.push(reference);
        }
        let subject = format!("{} on {}", of_architecture(&first_of(&names), asked), set.folded);
        let expression = order.target_agents.clone();
        let folded = set.folded;
        let targets = Targets { expression, folded, rule: None, retention: None, architecture, left_out };
        self.queue.submit_for(deed, kind, subject, caller.user, items, Some(targets)).await
    }

    /// The references to images of the catalog, and those that the catalog does not know.
    pub(in crate::transfer) fn sorted(
        &self,
        caller: &Caller,
        references: &[String],
    ) -> (Vec<String>, Vec<String>) {
        let is_unknown = |reference: &&String| {
            matches!(self.catalog.architectures(caller, reference), Err(Error::Missing { .. }))
        };
        let (unknown, known) = references.iter().partition::<Vec<_>, _>(is_unknown);
        let owned = |references: Vec<&String>| references.into_iter().cloned().collect();
        (owned(known), owned(unknown))
    }

    /// Refuses a reference that neither the catalog nor one of these agents knows.
    pub(in crate::transfer) fn require_held(&self, reference: &str, agents: &[String]) -> Result<()> {
        let reference = reference.trim();
        let is_held = |agent: &String| {
            let held = self.fleet.held(agent);
            held.iter().any(|held| {
                held.digest.as_str() == reference || held.names.iter().any(|name| name == reference)
            })
        };
        if agents.iter().any(is_held) { Ok(()) } else { Err(Error::missing("image", shown(reference))) }
    }

    /// The images that these references name, each once; of one architecture, if one is asked for.
    pub(in crate::transfer) fn wanted(
        &self,
        caller: &Caller,
        references: &[String],
        architecture: Option<&str>,
    ) -> Result<Vec<Wanted>> {
        if references.len() > MAX_IMAGES {
            return Err(Error::invalid("references", format!("{MAX_IMAGES} images at most in one task")));
        }
        let mut wanted: Vec<Wanted> = Vec::with_capacity(references.len());
        for reference in references {
            let images = of_one(reference, self.catalog.architectures(caller, reference)?, architecture)?;
            let Some(first) = images.first() else { continue };
            let name = first.record.canonical().to_string();
            match wanted.iter_mut().find(|known| known.name == name) {
                Some(known) => known.add(images),
                None => wanted.push(Wanted { name, images }),
            }
        }
        if wanted.is_empty() {
            return Err(Error::invalid("reference", "give an image"));
        }
        Ok(wanted)
    }

    /// Makes one item for each image on each agent. The first image comes first on all agents, so that no agent gets
    /// several while others have nothing to do.
    fn items(
        &self,
        wanted: &[Wanted],
        agents: &[String],
        architecture: Option<&str>,
        make_room: bool,
    ) -> Result<Vec<NewItem>> {
        let count = wanted.len().saturating_mul(agents.len());
        if count > MAX_ITEMS {
            let why = format!(
                "{} images on {} agents are {count} transfers, and a task has {MAX_ITEMS} at most; name less at once",
                wanted.len(),
                agents.len()
            );
            return Err(Error::invalid("references", why));
        }
        let mut items = Vec::with_capacity(count);
        for Wanted { name, images } in wanted {
            for agent in agents {
                let work = Work { make_room, ..self.work(agent, images, architecture) };
                items.push(work.item(name, wanted.len() > 1)?);
            }
        }
        Ok(items)
    }

    /// Starts loading what a rule found missing, in the name of the user responsible for the rule.
    ///
    /// # Errors
    /// Those of [`Queue::submit`].
    pub(crate) async fn fill(&self, caller: &Caller, filling: Filling) -> Result<TaskId> {
        let Filling { rule, expression, images, architecture, agents } = filling;
        let folded = fold(&agents);
        let name = images.first().map(|image| image.record.canonical().to_string()).unwrap_or_default();
        let what = format!("{} on {folded}", of_architecture(&name, architecture.as_deref()));
        let subject = format!("{what} by rule {rule}");
        self.audit
            .superadmin(caller, "preload_image", &what, |deed| async move {
                let work = |agent: &String| self.work(agent, &images, architecture.as_deref());
                let items: Result<Vec<_>> =
                    agents.iter().map(|agent| work(agent).item(&name, false)).collect();
                let (rule, retention) = (Some(rule), None);
                let targets = Targets { expression, folded, rule, retention, architecture, left_out: 0 };
                self.queue
                    .submit_for(&deed, TaskKind::Preload, subject, caller.user, items?, Some(targets))
                    .await
            })
            .await
    }

    fn work(&self, id: &str, images: &[Arc<Image>], asked: Option<&str>) -> Work {
        let agent = self.fleet.find(id);
        let image = agent.as_ref().and_then(|agent| image_for(images, agent));
        let is_known = agent.as_ref().is_some_and(|agent| agent.about.is_some());
        let others = if is_known { &[] } else { images.get(1..).unwrap_or_default() };
        let wrong_architecture = match image {
            Some(_) => None,
            None => agent.and_then(|agent| agent.about).map(|about| about.architecture),
        };
        Work {
            agent: id.into(),
            image: image.map(|image| image.record.clone()),
            others: others.iter().map(|image| image.record.clone()).collect(),
            asked: asked.map(Into::into),
            wrong_architecture,
            make_room: false,
            leaving: None,
        }
    }

    /// What a preload would do.
    ///
    /// # Errors
    /// Those of [`Transfers::preload`].
    pub(crate) async fn plan(&self, caller: &Caller, order: &Order) -> Result<Plan> {
        caller.require_superadmin("preload_plan")?;
        let architecture = order.architecture.as_deref().map(arch::named);
        let asked = architecture.as_deref();
        let wanted = self.wanted(caller, &order.references, asked)?;
        let (set, left_out) = self.resolve(caller, &order.target_agents, asked)?;
        let mut planner = Planner::new(&self.catalog, &self.fleet);
        let mut agents = Vec::with_capacity(set.names.len().saturating_mul(wanted.len()));
        for Wanted { name, images } in &wanted {
            for agent in set.names.iter().filter_map(|id| self.fleet.find(id)) {
                agents.push(planner.plan(&agent, name, images).await?);
            }
        }
        self.find_room(&wanted, &mut agents).await?;
        Ok(Plan { set, left_out, agents })
    }

    /// Adds to the plans of images that do not fit what could go so that they do.
    async fn find_room(&self, wanted: &[Wanted], plans: &mut [AgentPlan]) -> Result<()> {
        let Some(now) = self.rooms.now() else { return Ok(()) };
        let names: Vec<String> = wanted.iter().map(|wanted| wanted.name.clone()).collect();
        let full = plans.iter().filter(|plan| plan.fits == Some(false)).map(|plan| plan.agent.as_str());
        let full: BTreeSet<&str> = full.collect();
        let full: Vec<Agent> = full.into_iter().filter_map(|id| self.fleet.find(id)).collect();
        let mut survey = self.rooms.survey(&full).await;
        // What goes for images that were planned before, by agent, and how many bytes come free with it.
        let mut gone: HashMap<String, (HashSet<Digest>, u64)> = HashMap::new();
        for plan in plans.iter_mut().filter(|plan| plan.fits == Some(false)) {
            let Some(agent) = full.iter().find(|agent| agent.record.id == plan.agent) else { continue };
            let (digests, before) = gone.entry(plan.agent.clone()).or_default();
            let lacks = plan.lacks.saturating_sub(*before);
            let mut residents = survey.residents(agent, &names).await?;
            residents.retain(|resident| !digests.contains(&resident.held.digest));
            let image = wanted.iter().find(|wanted| wanted.name == plan.image);
            if let Some(image) = image.and_then(|wanted| image_for(&wanted.images, agent)) {
                residents.push(survey.newcomer(&image.record).await?);
            }
            let terms = Terms {
                takes: &|resident| resident.is_known,
                keep_last: None,
                unused_for: None,
                goal: Some(lacks),
            };
            let going = going(&residents, &terms, now);
            let frees = going.iter().map(|going| going.frees).fold(0, u64::saturating_add);
            plan.fits_with_room = Some(frees >= lacks);
            if frees >= lacks {
                digests.extend(going.iter().map(|going| going.resident.held.digest.clone()));
                *before = before.saturating_add(frees);
                plan.room = going;
            }
        }
        Ok(())
    }

    /// Whether an image fits on an agent, if it does not.
    pub(crate) async fn unfit(&self, agent: &Agent, image: &Arc<Image>) -> Result<Option<Unfit>> {
        let name = image.record.canonical().to_string();
        let mut planner = Planner::new(&self.catalog, &self.fleet);
        let plan = planner.plan(agent, &name, std::slice::from_ref(image)).await?;
        let free = plan.free_bytes.filter(|_| plan.fits == Some(false));
        Ok(free.map(|free| Unfit { need: taken(plan.bytes, agent), free }))
    }

    /// The agents that an expression names; without those of another architecture than the one asked for, if one is,
    /// and how many these are. An agent that was not met since the start stays: it decides when it is.
    pub(in crate::transfer) fn resolve(
        &self,
        caller: &Caller,
        expression: &str,
        architecture: Option<&str>,
    ) -> Result<(Selection, usize)> {
        let set = self.select(caller, expression)?;
        let Some(asked) = architecture else { return Ok((set, 0)) };
        let mut other_architectures = BTreeSet::new();
        let mut names = Vec::new();
        for id in &set.names {
            let agent = self.fleet.find(id);
            match agent.as_ref().and_then(|agent| agent.architecture_other_than(asked)) {
                Some(other) => {
                    other_architectures.insert(other.to_owned());
                }
                None => names.push(id.clone()),
            }
        }
        if names.is_empty() {
            let others = other_architectures.into_iter().collect::<Vec<_>>().join(", ");
            let why = format!("no agent of {} is {asked}; they are {others}", shown(&set.folded));
            return Err(Error::invalid("architecture", why));
        }
        let left_out = set.names.len() - names.len();
        Ok((Selection { folded: fold(&names), names }, left_out))
    }

    pub(in crate::transfer) fn select(&self, caller: &Caller, expression: &str) -> Result<Selection> {
        let refusal = |error: ExpressionError| error.refusal(expression);
        // An expression that can't be parsed is reported as such, even where there are no agents to name.
        Expression::parse(expression).map_err(refusal)?;
        if self.fleet.is_empty() {
            return Err(Error::Conflict(
                "no agent is registered with this server; start it on a machine with Docker, or with --engine".into(),
            ));
        }
        self.fleet.select(caller, expression)?.map_err(refusal)
    }
}

/// The images with one name, one for each architecture.
pub(in crate::transfer) struct Wanted {
    name: String,
    images: Vec<Arc<Image>>,
}

impl Wanted {
    /// The canonical name.
    pub(in crate::transfer) fn name(&self) -> &str {
        &self.name
    }

    /// Adds the images that another reference to the same name found.
    fn add(&mut self, more: Vec<Arc<Image>>) {
        for image in more {
            if self.images.iter().all(|known| known.id != image.id) {
                self.images.push(image);
            }
        }
    }
}

/// The image of the architecture asked for, of those that a reference means; all of them if none is asked for.
///
/// # Errors
/// [`Error::Invalid`] if there is none of it.
pub(crate) fn of_one(
    reference: &str,
    images: Vec<Arc<Image>>,
    architecture: Option<&str>,
) -> Result<Vec<Arc<Image>>> {
    let Some(asked) = architecture else { return Ok(images) };
    let (found, others): (Vec<_>, Vec<_>) =
        images.into_iter().partition(|image| image.record.architecture == asked);
    if !found.is_empty() {
        return Ok(found);
    }
    let has: Vec<_> = others.iter().map(|image| image.record.architecture.as_str()).collect();
    let (reference, has) = (shown(reference.trim()), has.join(", "));
    let why = match asked {
        "" => format!("it is empty; give one of those of {reference} ({has}), or leave it out"),
        asked => format!("{reference} has no image for {}; it has {has}", shown(asked)),
    };
    Err(Error::invalid("architecture", why))
}

/// What a task or a row of the audit log calls images: with their architecture, if the task is for one only.
fn of_architecture(images: &str, architecture: Option<&str>) -> String {
    architecture
        .map_or_else(|| images.to_owned(), |architecture| format!("{images} ({})", shown(architecture)))
}

/// The first of some names, and how many more there are.
fn first_of(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [first, more @ ..] => format!("{first} and {} more", more.len()),
    }
}
