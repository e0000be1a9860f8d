//! Preloads and unloads: their plans. The mutations belong to the seed's API, in `graphql::images`.

use async_graphql::{Context, Object, SimpleObject};

use crate::access::caller::Caller;
use crate::graphql::kit::fault::FieldResult;
use crate::graphql::kit::limit::LIST_COST;
use crate::graphql::kit::scalar::BigInt;
use crate::graphql::room::LeavingImage;
use crate::transfer::plan::{AgentPlan, Step};
use crate::transfer::residents::UnloadStep;
use crate::transfer::room::Stay;
use crate::transfer::service::{Order, Transfers};

/// What a preload would do.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct PreloadPlan {
    /// The agents of the preload, folded.
    folded: String,
    /// The number of agents.
    count: i32,
    /// How many agents that the expression names are left out, because their architecture is not the one asked for.
    left_out: i32,
    /// The bytes to fetch in all.
    bytes: BigInt,
    /// One row per image and agent: images in the order they were named, agents by id.
    agents: Vec<PreloadPlanAgent>,
}

/// What a preload would do with one image on one agent.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct PreloadPlanAgent {
    /// The agent.
    agent: String,
    /// The image's canonical name.
    reference: String,
    /// `already-there`, `stale`, `to-fetch`, `wrong-architecture`, `draining` or `offline`.
    step: &'static str,
    /// The most that the agent has to fetch, in bytes.
    bytes: BigInt,
    /// The agent's free room, in bytes; null if its engine does not tell.
    free_bytes: Option<BigInt>,
    /// Whether the image fits beside those listed before it; null if the server can't tell.
    fits: Option<bool>,
    /// What prevents the load, for people.
    problem: Option<&'static str>,
    /// Where it will not fit, what would go from the agent with `make_room`, unused longest first: nothing that a
    /// container uses, that a rule wants, that is pinned, that came within the last hour, or that the catalog does not
    /// know. Empty if all that may go does not suffice.
    room: Vec<LeavingImage>,
    /// Whether it fits once that is gone; null if it fits anyway, or if the server can't tell.
    fits_with_room: Option<bool>,
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
            room: plan.room.into_iter().map(Into::into).collect(),
            fits_with_room: plan.fits_with_room,
            agent: plan.agent,
            reference: plan.image,
        }
    }
}

/// What an unload would do with one image on one agent.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct UnloadPlanAgent {
    /// The agent.
    agent: String,
    /// The image's canonical name, or its digest if it was asked for by that.
    reference: String,
    /// `to-remove`, `to-untag` (it has other names), `in-use`, `not-there` or `offline`.
    step: &'static str,
    /// How many bytes come free, at most.
    frees_bytes: BigInt,
    /// Who wants the image there, or whether it is pinned, for people. An unload takes it all the same, and a rule that
    /// wants it loads it again.
    warning: Option<String>,
}

impl From<UnloadStep> for UnloadPlanAgent {
    fn from(step: UnloadStep) -> Self {
        let warning = step.stay.filter(|stay| matches!(stay, Stay::Wanted(_) | Stay::Pinned));
        Self {
            agent: step.agent,
            reference: step.image,
            step: step.step.as_str(),
            frees_bytes: BigInt(step.frees),
            warning: warning.map(|stay| stay.to_string()),
        }
    }
}

/// Returns what the arguments of the seed and those added to them ask for. The image of the seed's `reference` comes
/// before those of `references`.
pub(crate) fn order(
    reference: String,
    target_agents: String,
    references: Option<Vec<Option<String>>>,
    architecture: Option<String>,
) -> Order {
    let more = references.unwrap_or_default().into_iter().flatten();
    let references = std::iter::once(reference).chain(more).collect();
    Order { references, target_agents, architecture, make_room: false }
}

/// The queries. All are for super-admins.
#[derive(Default)]
pub(crate) struct TransferQuery;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl TransferQuery {
    /// What `preload_image` would do with the same arguments. Nothing is started.
    async fn preload_plan(
        &self,
        ctx: &Context<'_>,
        reference: String,
        target_agents: String,
        #[graphql(desc = "More images, in the same task.")] references: Option<Vec<Option<String>>>,
        #[graphql(desc = "Only this architecture, and no agent of another; each agent's own if null.")]
        architecture: Option<String>,
    ) -> FieldResult<Option<PreloadPlan>> {
        let (caller, transfers) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Transfers>());
        let order = order(reference, target_agents, references, architecture);
        let plan = transfers.plan(caller, &order).await?;
        Ok(Some(PreloadPlan {
            folded: plan.set.folded,
            count: i32::try_from(plan.set.names.len()).unwrap_or(i32::MAX),
            left_out: i32::try_from(plan.left_out).unwrap_or(i32::MAX),
            bytes: BigInt(plan.agents.iter().map(|agent| agent.bytes).sum()),
            agents: plan.agents.into_iter().map(Into::into).collect(),
        }))
    }

    /// What `unload_image` would do with the same arguments. Nothing is started.
    #[graphql(complexity = "LIST_COST + child_complexity")]
    async fn unload_plan(
        &self,
        ctx: &Context<'_>,
        reference: String,
        target_agents: String,
        #[graphql(desc = "More images, in the same task.")] references: Option<Vec<Option<String>>>,
        #[graphql(desc = "Only this architecture, and no agent of another; each agent's own if null.")]
        architecture: Option<String>,
    ) -> FieldResult<Vec<UnloadPlanAgent>> {
        let (caller, transfers) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Transfers>());
        let order = order(reference, target_agents, references, architecture);
        Ok(transfers.unload_plan(caller, &order).await?.into_iter().map(Into::into).collect())
    }
}
