//! Retention rules, which take images off agents.

use async_graphql::{Context, InputObject, Object, SimpleObject};
use jiff::Timestamp;

use crate::access::caller::Caller;
use crate::graphql::kit::fault::FieldResult;
use crate::graphql::kit::limit::LIST_COST;
use crate::graphql::kit::outcome::outcome;
use crate::graphql::kit::scalar::BigInt;
use crate::graphql::room::LeavingImage;
use crate::graphql::rules::{PreloadRuleAway, count};
use crate::retention::plan::{AgentPlan, RetentionStatus, RulePlan};
use crate::retention::rule::RetentionChange;
use crate::retention::service::{Retention, Told};
use crate::rules::window::{Window, WindowState};

/// The most agents that a status or a plan names as away.
const MAX_AWAY: usize = 100;

/// A rule that takes images off agents. It never takes what a container uses (running or not), what a preload rule or a
/// running preload wants, what is pinned, and what came within the last hour.
pub(crate) struct RetentionRule(Told);

#[Object(rename_fields = "snake_case")]
impl RetentionRule {
    /// Its name.
    async fn name(&self) -> &str {
        &self.0.rule.name
    }

    /// A pattern for `registry/name:tag`: the images that it may take, if all their names match. `*` stands for any
    /// characters, `?` for any single one.
    async fn images(&self) -> &str {
        &self.0.rule.images
    }

    /// The expression that selects the agents; it is evaluated anew each time.
    async fn target_agents(&self) -> &str {
        &self.0.rule.target_agents
    }

    /// How many images of each repository stay on each agent: those that were made last.
    async fn keep_last(&self) -> Option<u32> {
        self.0.rule.keep_last
    }

    /// How long no container may have been seen to use an image, in seconds.
    async fn unused_for(&self) -> Option<u32> {
        self.0.rule.unused_for
    }

    /// It takes something only where less than this is free, in bytes; null for everywhere.
    async fn when_below(&self) -> Option<BigInt> {
        self.0.rule.room.map(|room| BigInt(room.when_below))
    }

    /// It takes until this is free, in bytes, and no more than needed for that.
    async fn until(&self) -> Option<BigInt> {
        self.0.rule.room.map(|room| BigInt(room.until))
    }

    /// Whether it also takes images that the catalog does not know.
    async fn unknown_images(&self) -> bool {
        self.0.rule.unknown_images
    }

    /// The part of the day in which it may begin, `HH:MM-HH:MM`; null for always.
    async fn window(&self) -> Option<String> {
        self.0.rule.window.as_ref().map(Window::to_string)
    }

    /// The time zone of the window; null for the server's own, or if there is no window.
    async fn time_zone(&self) -> Option<&str> {
        self.0.rule.window.as_ref().and_then(Window::zone)
    }

    /// The name of the time zone in which the window is read.
    async fn effective_time_zone(&self) -> Option<String> {
        self.0.rule.window.as_ref().map(Window::zone_name)
    }

    /// Whether the rule is in effect.
    async fn enabled(&self) -> bool {
        self.0.rule.enabled
    }

    /// Whether a person confirmed that it may take more than half of what an agent has.
    async fn confirmed(&self) -> bool {
        self.0.rule.confirmed
    }

    /// `kept` (nothing is to go), `removing`, `closed` (something is to go, and the window is closed), `held` (it would
    /// take more than half of what an agent has, which nobody has confirmed), `new` (not checked yet) or `disabled`.
    async fn state(&self) -> &'static str {
        self.0.state()
    }

    /// When its window opens next, in RFC 3339; null while it is open.
    async fn opens_at(&self) -> Option<String> {
        match self.0.standing {
            Some(WindowState::Closed(opens)) => opens.map(text),
            _ => None,
        }
    }

    /// When it was created, in RFC 3339.
    async fn created_at(&self) -> String {
        text(self.0.rule.created_at)
    }

    /// The e-mail address of the user who created it.
    async fn created_by(&self) -> &str {
        &self.0.rule.created_by
    }

    /// When it was last changed, in RFC 3339.
    async fn modified_at(&self) -> String {
        text(self.0.rule.modified_at)
    }

    /// The e-mail address of the user who last changed it; the rule acts on that user's authority.
    async fn modified_by(&self) -> &str {
        &self.0.rule.modified_by
    }

    /// The findings of the last check; null before the first check, or if the rule is disabled.
    async fn status(&self) -> Option<RetentionRuleStatus> {
        self.0.status.as_deref().filter(|_| self.0.rule.enabled).map(Into::into)
    }
}

/// The findings of the last check of a retention rule.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct RetentionRuleStatus {
    /// When the check ran, in RFC 3339.
    at: String,
    /// How many agents the expression names that could be looked at.
    agents: i32,
    /// These agents, folded.
    folded: String,
    /// Agents that could not be looked at; the first hundred.
    away: Vec<PreloadRuleAway>,
    /// The number of all agents that could not be looked at.
    away_count: i32,
    /// Names and groups in the expression that do not exist now; the first hundred.
    unknown: Vec<String>,
    /// The number of all names and groups that do not exist now.
    unknown_count: i32,
    /// How many images were to go, on all agents.
    due: i32,
    /// How many bytes come free with them, at most.
    due_bytes: BigInt,
    /// The agents that would lose more than half of what they have, and lose nothing before a person confirms that.
    held_back: Vec<String>,
    /// When it last began to remove, in RFC 3339.
    begun_at: Option<String>,
    /// How many images it began to remove then.
    begun: i32,
    /// The background task of that.
    task_id: Option<String>,
    /// Why nothing began although something was to go.
    problem: Option<String>,
}

impl From<&RetentionStatus> for RetentionRuleStatus {
    fn from(status: &RetentionStatus) -> Self {
        let begun = status.begun.as_ref();
        Self {
            at: text(status.at),
            agents: count(status.agents),
            folded: status.folded.clone(),
            away: status.away.iter().map(Into::into).collect(),
            away_count: count(status.away_count),
            unknown: status.unknown.clone(),
            unknown_count: count(status.unknown_count),
            due: count(status.due.0),
            due_bytes: BigInt(status.due.1),
            held_back: status.held_back.clone(),
            begun_at: begun.map(|begun| text(begun.at)),
            begun: begun.map_or(0, |begun| count(begun.count)),
            task_id: begun.map(|begun| begun.task.to_string()),
            problem: status.problem.clone(),
        }
    }
}

/// What a retention rule would take now. Nothing is started, and windows do not count.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct RetentionPlan {
    /// The agents that can be looked at, folded.
    folded: String,
    /// One row for each of them, by id.
    agents: Vec<RetentionPlanAgent>,
    /// How many images would go, on all agents.
    count: i32,
    /// How many bytes would come free, at most.
    frees_bytes: BigInt,
    /// Agents that can't be looked at; the first hundred.
    away: Vec<PreloadRuleAway>,
    /// The number of all agents that can't be looked at.
    away_count: i32,
    /// Names and groups in the expression that do not exist now; the first hundred.
    unknown: Vec<String>,
    /// The number of all names and groups that do not exist now.
    unknown_count: i32,
    /// The agents that would lose more than half of what they have: a rule needs `confirm` for that.
    most: Vec<String>,
    /// Why nothing may go anywhere at the moment.
    problem: Option<String>,
}

/// What a retention rule would take from one agent.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct RetentionPlanAgent {
    /// The agent.
    agent: String,
    /// What would go, that which was unused longest first.
    images: Vec<LeavingImage>,
    /// How many bytes would come free, at most.
    frees_bytes: BigInt,
    /// How many images the agent has.
    has: i32,
    /// Its free room in bytes; null if its engine does not tell.
    free_bytes: Option<BigInt>,
    /// Why it is left alone, or keeps more than the rule wants, for people.
    note: Option<&'static str>,
}

impl From<AgentPlan> for RetentionPlanAgent {
    fn from(plan: AgentPlan) -> Self {
        Self {
            frees_bytes: BigInt(plan.frees()),
            agent: plan.agent,
            images: plan.going.into_iter().map(Into::into).collect(),
            has: count(plan.images),
            free_bytes: plan.free_bytes.map(BigInt),
            note: plan.note,
        }
    }
}

impl From<RulePlan> for RetentionPlan {
    fn from(plan: RulePlan) -> Self {
        Self {
            folded: plan.folded(),
            count: count(plan.agents.iter().map(|agent| agent.going.len()).sum()),
            frees_bytes: BigInt(plan.agents.iter().map(AgentPlan::frees).fold(0, u64::saturating_add)),
            most: plan.most().into_iter().map(Into::into).collect(),
            away_count: count(plan.away.len()),
            away: plan.away.iter().take(MAX_AWAY).map(Into::into).collect(),
            unknown: plan.unknown,
            unknown_count: count(plan.unknown_count),
            problem: plan.problem,
            agents: plan.agents.into_iter().map(Into::into).collect(),
        }
    }
}

/// A new retention rule. One of `keep_last`, `unused_for` and `when_below` is needed.
#[derive(InputObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct CreateRetentionRuleInput {
    /// A pattern for `registry/name:tag`: the images that it may take.
    images: String,
    /// The expression that selects the agents. Names that do not exist yet are accepted and reported.
    target_agents: String,
    /// How many images of each repository stay on each agent: those that were made last.
    keep_last: Option<u32>,
    /// How long no container may have been seen to use an image, in seconds; a day at least.
    unused_for: Option<u32>,
    /// Take something only where less than this is free, in bytes.
    when_below: Option<BigInt>,
    /// Take until this is free, in bytes; as much as `when_below` if not given.
    until: Option<BigInt>,
    /// Whether to take images that the catalog does not know, too.
    unknown_images: Option<bool>,
    /// When it may begin, `HH:MM-HH:MM`; always if not given.
    window: Option<String>,
    /// The IANA name of the window's time zone; the server's own if not given.
    time_zone: Option<String>,
    /// Whether the rule is in effect; true if not given.
    enabled: Option<bool>,
    /// Whether it may take more than half of what an agent has.
    confirm: Option<bool>,
}

impl From<CreateRetentionRuleInput> for RetentionChange {
    fn from(props: CreateRetentionRuleInput) -> Self {
        Self {
            images: Some(props.images),
            target_agents: Some(props.target_agents),
            keep_last: props.keep_last,
            unused_for: props.unused_for,
            when_below: props.when_below.map(|bytes| bytes.0),
            until: props.until.map(|bytes| bytes.0),
            unknown_images: props.unknown_images,
            window: props.window,
            time_zone: props.time_zone,
            enabled: props.enabled,
            confirm: props.confirm.unwrap_or_default(),
        }
    }
}

/// Changes to a retention rule. A field that is null keeps its value; any change but of `enabled` takes a confirmation
/// back.
#[derive(InputObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct ModifyRetentionRuleInput {
    /// The pattern for the images that it may take.
    images: Option<String>,
    /// The expression that selects the agents.
    target_agents: Option<String>,
    /// How many images of each repository stay; 0 for none.
    keep_last: Option<u32>,
    /// How long an image must be unused, in seconds; 0 for no matter how long.
    unused_for: Option<u32>,
    /// Take something only where less than this is free, in bytes; 0 for everywhere.
    when_below: Option<BigInt>,
    /// Take until this is free, in bytes.
    until: Option<BigInt>,
    /// Whether to take images that the catalog does not know, too.
    unknown_images: Option<bool>,
    /// When it may begin; an empty text for always.
    window: Option<String>,
    /// The window's time zone; an empty text for the server's own.
    time_zone: Option<String>,
    /// Whether the rule is in effect.
    enabled: Option<bool>,
    /// Whether it may take more than half of what an agent has.
    confirm: Option<bool>,
}

impl From<ModifyRetentionRuleInput> for RetentionChange {
    fn from(props: ModifyRetentionRuleInput) -> Self {
        Self {
            images: props.images,
            target_agents: props.target_agents,
            keep_last: props.keep_last,
            unused_for: props.unused_for,
            when_below: props.when_below.map(|bytes| bytes.0),
            until: props.until.map(|bytes| bytes.0),
            unknown_images: props.unknown_images,
            window: props.window,
            time_zone: props.time_zone,
            enabled: props.enabled,
            confirm: props.confirm.unwrap_or_default(),
        }
    }
}

outcome!(
    /// The result of `create_retention_rule` and `modify_retention_rule`.
    RetentionRuleOutcome,
    /// The rule after the change; null if nothing was changed.
    retention_rule: RetentionRule
);
outcome!(
    /// The result of `delete_retention_rule`.
    DeleteRetentionRule
);

/// The queries. All are for super-admins.
#[derive(Default)]
pub(crate) struct RetentionQuery;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl RetentionQuery {
    /// All retention rules, by name.
    #[graphql(complexity = "LIST_COST + child_complexity")]
    async fn retention_rules(&self, ctx: &Context<'_>) -> FieldResult<Vec<RetentionRule>> {
        let (caller, retention) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Retention>());
        Ok(retention.list(caller)?.into_iter().map(RetentionRule).collect())
    }

    /// One retention rule.
    async fn retention_rule(&self, ctx: &Context<'_>, name: String) -> FieldResult<Option<RetentionRule>> {
        let (caller, retention) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Retention>());
        Ok(Some(RetentionRule(retention.find(caller, &name)?)))
    }

    /// What a retention rule would take now. Nothing is started.
    #[graphql(complexity = "LIST_COST + child_complexity")]
    async fn retention_plan(&self, ctx: &Context<'_>, name: String) -> FieldResult<Option<RetentionPlan>> {
        let (caller, retention) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Retention>());
        Ok(Some(retention.plan(caller, &name).await?.into()))
    }

    /// What a retention rule with these values would take now. Nothing is added or started.
    #[graphql(complexity = "LIST_COST + child_complexity")]
    async fn retention_preview(
        &self,
        ctx: &Context<'_>,
        props: CreateRetentionRuleInput,
    ) -> FieldResult<Option<RetentionPlan>> {
        let (caller, retention) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Retention>());
        Ok(Some(retention.preview(caller, props.into()).await?.into()))
    }
}

/// The mutations. All are for super-admins.
#[derive(Default)]
pub(crate) struct RetentionMutation;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl RetentionMutation {
    /// Adds a retention rule. It is checked at once, and then every minute.
    async fn create_retention_rule(
        &self,
        ctx: &Context<'_>,
        name: String,
        props: CreateRetentionRuleInput,
    ) -> Option<RetentionRuleOutcome> {
        let (caller, retention) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Retention>());
        Some(retention.add(caller, &name, props.into()).await.map(RetentionRule).into())
    }

    /// Changes a retention rule. Removals that have begun continue.
    async fn modify_retention_rule(
        &self,
        ctx: &Context<'_>,
        name: String,
        props: ModifyRetentionRuleInput,
    ) -> Option<RetentionRuleOutcome> {
        let (caller, retention) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Retention>());
        Some(retention.change(caller, &name, props.into()).await.map(RetentionRule).into())
    }

    /// Deletes a retention rule. Removals that have begun continue.
    async fn delete_retention_rule(&self, ctx: &Context<'_>, name: String) -> Option<DeleteRetentionRule> {
        let (caller, retention) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Retention>());
        Some(retention.remove(caller, &name).await.into())
    }
}

fn text(at: Timestamp) -> String {
    at.to_string()
}
