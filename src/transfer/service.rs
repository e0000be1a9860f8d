//! What callers ask of transfers.

use std::sync::Arc;

use crate::access::audit::{Audit, Deed};
use crate::access::caller::Caller;
use crate::base::ids::TaskId;
use crate::base::{Error, Result};
use crate::catalog::image::Image;
use crate::catalog::service::Catalog;
use crate::fleet::error::ExpressionError;
use crate::fleet::expression::Expression;
use crate::fleet::service::{Fleet, Selection};
use crate::tasks::queue::Queue;
use crate::tasks::task::{Kind, Targets};
use crate::transfer::plan::{AgentPlan, Planner, image_for};
use crate::transfer::work::Work;

/// Loads and unloads images. Clones share the queue.
#[derive(Clone)]
pub struct Transfers {
    catalog: Catalog,
    fleet: Fleet,
    queue: Queue,
    audit: Audit,
}

/// A plan for a set of agents.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The set.
    pub set: Selection,
    /// For each agent, in the order of their ids.
    pub agents: Vec<AgentPlan>,
}

impl Transfers {
    /// Transfers whose tasks go to this queue.
    pub fn new(catalog: Catalog, fleet: Fleet, queue: Queue, audit: Audit) -> Self {
        Self { catalog, fleet, queue, audit }
    }

    /// Starts loading an image onto the agents an expression names.
    ///
    /// # Errors
    /// [`Error::Missing`] for an unknown image, [`Error::Invalid`] for an expression that can't be read or names
    /// nobody, [`Error::Conflict`] when there is no agent at all. Nothing is started then.
    pub async fn preload(&self, caller: &Caller, reference: &str, target_agents: &str) -> Result<TaskId> {
        self.start(caller, Kind::Preload, reference, target_agents).await
    }

    /// Starts taking an image off the agents an expression names.
    ///
    /// # Errors
    /// Those of [`Transfers::preload`].
    pub async fn unload(&self, caller: &Caller, reference: &str, target_agents: &str) -> Result<TaskId> {
        self.start(caller, Kind::Unload, reference, target_agents).await
    }

    async fn start(&self, caller: &Caller, kind: Kind, reference: &str, expression: &str) -> Result<TaskId> {
        let action = format!("{}_image", kind.as_str());
        let target = format!("{reference} on {expression}");
        self.audit
            .superadmin(caller, &action, &target, |deed| async move {
                self.submit(&deed, caller, kind, reference, expression).await
            })
            .await
    }

    async fn submit(
        &self,
        deed: &Deed,
        caller: &Caller,
        kind: Kind,
        reference: &str,
        expression: &str,
    ) -> Result<TaskId> {
        let images = self.catalog.architectures(caller, reference)?;
        let set = self.resolve(caller, expression)?;
        let name = images.first().map(|image| image.record.canonical().to_string()).unwrap_or_default();
        let mut items = Vec::with_capacity(set.names.len());
        for agent in &set.names {
            items.push(self.work(agent, &images).item()?);
        }
        let subject = format!("{name} on {}", set.folded);
        let targets = Targets { expression: expression.into(), folded: set.folded };
        self.queue.submit_for(deed, kind, subject, caller.user, items, Some(targets)).await
    }

    fn work(&self, id: &str, images: &[Arc<Image>]) -> Work {
        let agent = self.fleet.find(id);
        let image = agent.as_ref().and_then(|agent| image_for(images, agent));
        let wrong_architecture = match image {
            Some(_) => None,
            None => agent.and_then(|agent| agent.about).map(|about| about.architecture),
        };
        Work { agent: id.into(), image: image.map(|image| image.record.clone()), wrong_architecture }
    }

    /// What a preload would do.
    ///
    /// # Errors
    /// Those of [`Transfers::preload`].
    pub async fn plan(&self, caller: &Caller, reference: &str, target_agents: &str) -> Result<Plan> {
        caller.require_superadmin("preload_plan")?;
        let images = self.catalog.architectures(caller, reference)?;
        let set = self.resolve(caller, target_agents)?;
        let mut planner = Planner::new(&self.catalog, &self.fleet);
        let mut agents = Vec::with_capacity(set.names.len());
        for agent in set.names.iter().filter_map(|id| self.fleet.find(id)) {
            agents.push(planner.plan(&agent, &images).await?);
        }
        Ok(Plan { set, agents })
    }

    fn resolve(&self, caller: &Caller, expression: &str) -> Result<Selection> {
        let refusal = |error: ExpressionError| {
            let caret = error.caret(expression);
            Error::invalid(
                "target_agents",
                format!("{} at {}: {}\n{caret}", error.code, error.position, error.message),
            )
        };
        // What can't be read is told as such, also where there is nobody to name.
        Expression::parse(expression).map_err(refusal)?;
        if self.fleet.is_empty() {
            return Err(Error::Conflict(
                "no agent is registered with this server; start it on a machine with Docker, or with --engine".into(),
            ));
        }
        self.fleet.select(caller, expression)?.map_err(refusal)
    }
}
