//! Loading and unloading: what a preload would do. The mutations are the seed's, in `graphql::images`.

use async_graphql::{Context, Object, SimpleObject};

use crate::access::caller::Caller;
use crate::graphql::kit::fault::FieldResult;
use crate::graphql::kit::scalar::BigInt;
use crate::transfer::plan::{AgentPlan, Step};
use crate::transfer::service::Transfers;

/// What a preload would do.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct PreloadPlan {
    /// The set of agents, folded.
    folded: String,
    /// How many agents are in it.
    count: i32,
    /// What would be fetched in all, in bytes.
    bytes: BigInt,
    /// Image by image, in the order they were named, and agent by agent, by id.
    agents: Vec<PreloadPlanAgent>,
}

/// What a preload would do with an image on an agent.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct PreloadPlanAgent {
    /// The agent.
    agent: String,
    /// The image's canonical name.
    reference: String,
    /// `already-there`, `stale`, `to-fetch`, `wrong-architecture`, `draining` or `offline`.
    step: &'static str,
    /// What it has to fetch, in bytes, at most.
    bytes: BigInt,
    /// The room it has, in bytes, if its engine says.
    free_bytes: Option<BigInt>,
    /// False if the image will not fit beside those before it; null when that can't be told.
    fits: Option<bool>,
    /// What stands in the way, for people.
    problem: Option<&'static str>,
}

impl From<AgentPlan> for PreloadPlanAgent {
    fn from(plan: AgentPlan) -> Self {
        let problem = match (&plan.step, plan.fits) {
            (Step::WrongArchitecture, _) => Some("wrong architecture"),
            (Step::Offline, _) => Some("offline"),
            (Step::Draining, _) => Some("takes no new images"),
            (_, Some(false)) => Some("will not fit"),
            _ => None,
        };
        Self {
            step: plan.step.as_str(),
            bytes: BigInt(plan.bytes),
            free_bytes: plan.free_bytes.map(BigInt),
            fits: plan.fits,
            problem,
            agent: plan.agent,
            reference: plan.image,
        }
    }
}

/// The image of the seed's argument, and those of the other.
pub(crate) fn all_of(reference: String, references: Option<Vec<Option<String>>>) -> Vec<String> {
    std::iter::once(reference).chain(references.unwrap_or_default().into_iter().flatten()).collect()
}

/// The queries. All are for super-admins.
#[derive(Default)]
pub(crate) struct TransferQuery;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl TransferQuery {
    /// What `preload_image` would do with the same arguments; nothing is started.
    async fn preload_plan(
        &self,
        ctx: &Context<'_>,
        reference: String,
        target_agents: String,
        #[graphql(desc = "More images, in the same task.")] references: Option<Vec<Option<String>>>,
    ) -> FieldResult<Option<PreloadPlan>> {
        let (caller, transfers) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Transfers>());
        let plan = transfers.plan(caller, &all_of(reference, references), &target_agents).await?;
        Ok(Some(PreloadPlan {
            folded: plan.set.folded,
            count: i32::try_from(plan.set.names.len()).unwrap_or(i32::MAX),
            bytes: BigInt(plan.agents.iter().map(|agent| agent.bytes).sum()),
            agents: plan.agents.into_iter().map(Into::into).collect(),
        }))
    }
}
