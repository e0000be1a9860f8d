//! Takes images off agents by what the agents hold: for retention rules, and where the catalog does not know an image.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::access::caller::Caller;
use crate::base::Result;
use crate::base::digest::Digest;
use crate::base::ids::TaskId;
use crate::catalog::image::ImageRecord;
use crate::engine::image::Held;
use crate::engine::name;
use crate::fleet::fold::fold;
use crate::tasks::task::{NewItem, Targets, TaskKind};
use crate::transfer::room::RuleTerms;
use crate::transfer::service::Transfers;
use crate::transfer::work::{Leaving, Work};

/// What a retention rule takes.
#[derive(Debug, Clone)]
pub(crate) struct Retirement {
    /// The rule's name.
    pub(crate) rule: String,
    /// The rule's expression for its agents.
    pub(crate) expression: String,
    /// What it asks of an image.
    pub(crate) terms: RuleTerms,
    /// The images, each with the id of its agent.
    pub(crate) leaving: Vec<(String, Arc<Held>)>,
}

impl Transfers {
    /// Starts removing what a retention rule takes, in the name of the user responsible for the rule. What somebody
    /// wants, or a container uses, by the time its turn comes, stays, and so does what the rule would not take any more.
    ///
    /// # Errors
    /// Those of [`Queue::submit`](crate::tasks::queue::Queue::submit).
    pub(crate) async fn retire(&self, caller: &Caller, retirement: Retirement) -> Result<TaskId> {
        let Retirement { rule, expression, terms, leaving } = retirement;
        let agents: Vec<&str> =
            leaving.iter().map(|(agent, _)| agent.as_str()).collect::<BTreeSet<_>>().into_iter().collect();
        let (folded, count) = (fold(&agents), leaving.len());
        let what = format!("{count} image{} on {folded}", if count == 1 { "" } else { "s" });
        let subject = format!("{what} by retention {rule}");
        self.audit
            .superadmin(caller, "unload_image", &what, |deed| async move {
                let items: Result<Vec<NewItem>> = leaving
                    .iter()
                    .map(|(agent, held)| {
                        self.leaving_item(agent, held, held.names.clone(), Some(terms.clone()))
                    })
                    .collect();
                let targets = Targets {
                    expression,
                    folded,
                    rule: None,
                    retention: Some(rule),
                    architecture: None,
                    left_out: 0,
                };
                self.queue
                    .submit_for(&deed, TaskKind::Unload, subject, caller.user, items?, Some(targets))
                    .await
            })
            .await
    }

    /// The items that take what the catalog does not know off these agents: what a full name or a digest means there.
    /// None if no agent has it.
    pub(in crate::transfer) fn unknown_items(
        &self,
        reference: &str,
        agents: &[String],
    ) -> Result<Vec<NewItem>> {
        let reference = reference.trim();
        let digest: Option<Digest> = reference.parse().ok();
        let name = name::canonical(reference).filter(|canonical| canonical == reference);
        let mut items = Vec::new();
        for agent in agents {
            for held in self.fleet.held(agent) {
                let names = match (&digest, &name) {
                    (Some(digest), _) if held.digest == *digest => held.names.clone(),
                    (_, Some(name)) if held.names.contains(name) => vec![name.clone()],
                    _ => continue,
                };
                items.push(self.leaving_item(agent, &held, names, None)?);
            }
        }
        Ok(items)
    }

    fn leaving_item(
        &self,
        agent: &str,
        held: &Held,
        names: Vec<String>,
        terms: Option<RuleTerms>,
    ) -> Result<NewItem> {
        let shown = names.first().cloned().unwrap_or_else(|| held.digest.to_string());
        let work = Work {
            agent: agent.into(),
            image: self.catalogued(held),
            others: Vec::new(),
            asked: None,
            wrong_architecture: None,
            make_room: false,
            leaving: Some(Leaving { digest: held.digest.clone(), names, is_careful: terms.is_some(), terms }),
        };
        work.item(&shown, true)
    }

    /// The image of the catalog that an agent holds under one of its names.
    fn catalogued(&self, held: &Held) -> Option<ImageRecord> {
        let variants = held.names.iter().flat_map(|name| self.catalog.variants(name));
        variants.map(|image| image.record.clone()).find(|record| held.is(&record.identity()))
    }
}
