//! Standing preloads: which images are to be on which agents, again and again.

use async_graphql::{Context, InputObject, Object, SimpleObject};
use jiff::Timestamp;

use crate::access::caller::Caller;
use crate::base::Error;
use crate::graphql::kit::fault::FieldResult;
use crate::graphql::kit::limit::LIST_COST;
use crate::graphql::kit::outcome::outcome;
use crate::graphql::kit::scalar::BigInt;
use crate::rules::rule::RuleChange;
use crate::rules::service::{Rules, Told};
use crate::rules::status::Status;
use crate::rules::window::{Window, WindowState};

/// The most agents that a preview names.
const MAX_NAMES: usize = 1_000;

/// A standing preload: it loads the images that its pattern takes onto the agents that its expression names, whenever
/// one is missing or stale there. It takes nothing off an agent.
pub(crate) struct PreloadRule(Told);

#[Object(rename_fields = "snake_case")]
impl PreloadRule {
    /// Its name.
    async fn name(&self) -> &str {
        &self.0.rule.name
    }

    /// The images: a pattern for `registry/name:tag`, in which `*` stands for any characters, also `/` and `:`, and `?`
    /// for any one.
    async fn images(&self) -> &str {
        &self.0.rule.images
    }

    /// The agents: an expression as `preload_image` takes it, evaluated anew each time.
    async fn target_agents(&self) -> &str {
        &self.0.rule.target_agents
    }

    /// The part of the day in which it may begin something, `HH:MM-HH:MM`; null for always.
    async fn window(&self) -> Option<String> {
        self.0.rule.window.as_ref().map(Window::to_string)
    }

    /// The time zone of the window; null for the server's own, or without a window.
    async fn time_zone(&self) -> Option<&str> {
        self.0.rule.window.as_ref().and_then(Window::zone)
    }

    /// The time zone that the window is read in, by name.
    async fn effective_time_zone(&self) -> Option<String> {
        self.0.rule.window.as_ref().map(Window::zone_name)
    }

    /// Whether it does anything.
    async fn enabled(&self) -> bool {
        self.0.rule.enabled
    }

    /// `filled`, `loading`, `closed` (something is missing, and its window is closed), `waiting` (something is missing
    /// that can't be loaded now; `status` says why), `new` (yet to be looked at) or `disabled`.
    async fn state(&self) -> &str {
        self.0.state().as_str()
    }

    /// Whether it may begin something now.
    async fn is_open(&self) -> bool {
        self.0.rule.enabled && !matches!(self.0.standing, Some(WindowState::Closed(_)))
    }

    /// When its window opens next, in RFC 3339; null while it is open.
    async fn opens_at(&self) -> Option<String> {
        match self.0.standing {
            Some(WindowState::Closed(opens)) => opens.map(text),
            _ => None,
        }
    }

    /// When its window closes, in RFC 3339; null while it is closed. What has begun goes on then.
    async fn closes_at(&self) -> Option<String> {
        match self.0.standing {
            Some(WindowState::Open(until)) => Some(text(until)),
            _ => None,
        }
    }

    /// When it was made, in RFC 3339.
    async fn created_at(&self) -> String {
        text(self.0.rule.created_at)
    }

    /// Who made it: an e-mail address.
    async fn created_by(&self) -> &str {
        &self.0.rule.created_by
    }

    /// When it was changed last, in RFC 3339.
    async fn modified_at(&self) -> String {
        text(self.0.rule.modified_at)
    }

    /// Who changed it last, and so answers for what it does: an e-mail address.
    async fn modified_by(&self) -> &str {
        &self.0.rule.modified_by
    }

    /// How it stood when it was looked at last; null if that is yet to come, or it is disabled.
    async fn status(&self) -> Option<PreloadRuleStatus> {
        let is_known = self.0.status.as_deref().filter(|_| self.0.rule.enabled);
        is_known.map(PreloadRuleStatus::from)
    }
}

/// How a rule stood when it was looked at last. Counts are of images on agents: two images on three agents are six.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct PreloadRuleStatus {
    /// When that was, in RFC 3339.
    at: String,
    /// How many images the pattern takes, by name.
    images: i32,
    /// Whether these are more than are looked after, 5,000: narrow the pattern.
    is_cut: bool,
    /// How many agents the expression names.
    agents: i32,
    /// The same, folded: `gpu[01-04]`.
    folded: String,
    /// Names and groups in the expression that are nobody's now, the first hundred. They count once they are there.
    unknown: Vec<String>,
    /// How many of those there are.
    unknown_count: i32,
    /// Agents that can't be given anything now; the first hundred. They are looked at again once they can.
    away: Vec<PreloadRuleAway>,
    /// How many of those there are.
    away_count: i32,
    /// What is there.
    present: i32,
    /// What is not, on agents that can be given something.
    missing: i32,
    /// Of what is missing: is being loaded, by this rule or for others.
    loading: i32,
    /// Of what is missing: waits for the window to open, or for other tasks of rules to end.
    due: i32,
    /// Of what is missing: came to nothing lately, and is tried again later.
    held_back: i32,
    /// Of what is missing: will not fit.
    unfit: i32,
    /// What is held back or will not fit, and why; the first hundred.
    waiting: Vec<PreloadRuleWaiting>,
    /// When it began something last, in RFC 3339.
    begun_at: Option<String>,
    /// How much that was.
    begun: i32,
    /// The background tasks that were made of it.
    task_ids: Vec<String>,
    /// Why what could begin did not.
    problem: Option<String>,
}

/// An agent that can't be given anything now.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct PreloadRuleAway {
    /// The agent.
    agent: String,
    /// Why.
    reason: String,
}

/// An image that waits on one agent.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct PreloadRuleWaiting {
    /// The agent.
    agent: String,
    /// The image.
    image: String,
    /// Why.
    reason: String,
    /// When it is tried again, in RFC 3339, where that is a matter of time.
    until: Option<String>,
}

impl From<&Status> for PreloadRuleStatus {
    fn from(status: &Status) -> Self {
        let tally = &status.tally;
        let begun = status.begun.as_ref();
        Self {
            at: text(status.at),
            images: count(status.images),
            is_cut: status.is_cut,
            agents: count(status.agents),
            folded: status.folded.clone(),
            unknown: status.unknown.clone(),
            unknown_count: count(status.unknown_count),
            away: status
                .away
                .iter()
                .map(|away| PreloadRuleAway { agent: away.agent.clone(), reason: away.reason.clone() })
                .collect(),
            away_count: count(status.away_count),
            present: count(status.present),
            missing: count(status.missing()),
            loading: count(tally.begun + tally.loading),
            due: count(tally.due),
            held_back: count(tally.held_back),
            unfit: count(tally.unfit),
            waiting: status
                .waiting
                .iter()
                .map(|waiting| PreloadRuleWaiting {
                    agent: waiting.agent.clone(),
                    image: waiting.image.clone(),
                    reason: waiting.reason.clone(),
                    until: waiting.until.map(text),
                })
                .collect(),
            begun_at: begun.map(|begun| text(begun.at)),
            begun: begun.map_or(0, |begun| count(begun.count)),
            task_ids: begun.iter().flat_map(|begun| begun.tasks.iter().map(ToString::to_string)).collect(),
            problem: status.problem.clone(),
        }
    }
}

/// What a rule would find now; nothing is started.
#[derive(SimpleObject, Default)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct PreloadRulePreview {
    /// Whether a rule can be made of it.
    ok: bool,
    /// What is wrong, field by field.
    problems: Vec<PreloadRuleProblem>,
    /// How many images the pattern takes, by name.
    images: i32,
    /// The first twenty of them.
    image_names: Vec<String>,
    /// Whether these are more than are looked after.
    is_cut: bool,
    /// How many agents the expression names.
    agents: i32,
    /// The same, folded.
    folded: String,
    /// They by name; the first 1,000.
    agent_names: Vec<String>,
    /// Names and groups that are nobody's now: a typo, or to come. The first hundred.
    unknown: Vec<String>,
    /// How many of those there are.
    unknown_count: i32,
    /// How many of the agents can't be given anything now.
    away_count: i32,
    /// How often an image is on an agent already.
    present: i32,
    /// How often one is missing.
    missing: i32,
    /// What would be fetched in all, in bytes, at most.
    bytes: BigInt,
    /// Whether the window is open now; true without one.
    is_open: bool,
    /// When it opens next, in RFC 3339; null while it is open.
    opens_at: Option<String>,
    /// The time zone that the window is read in, by name.
    effective_time_zone: Option<String>,
}

/// What is wrong with a field of a rule.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct PreloadRuleProblem {
    /// `images`, `target_agents`, `window` or `time_zone`.
    field: &'static str,
    /// What is wrong and what would be right. For an expression, two lines follow: itself, and a caret at the place.
    message: String,
}

/// A new rule.
#[derive(InputObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct CreatePreloadRuleInput {
    /// The images: a pattern for `registry/name:tag`; `*` stands for any characters, `?` for any one.
    images: String,
    /// The agents: an expression. Names that nobody has yet are taken, and told of.
    target_agents: String,
    /// When it may begin something, `HH:MM-HH:MM`; always otherwise. May go over midnight.
    window: Option<String>,
    /// The window's time zone, by its IANA name; the server's own otherwise.
    time_zone: Option<String>,
    /// Whether it does anything; yes otherwise.
    enabled: Option<bool>,
}

/// Changes to a rule; what is null stays as it is.
#[derive(InputObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct ModifyPreloadRuleInput {
    /// The images.
    images: Option<String>,
    /// The agents.
    target_agents: Option<String>,
    /// When it may begin something; empty for always.
    window: Option<String>,
    /// The window's time zone; empty for the server's own.
    time_zone: Option<String>,
    /// Whether it does anything.
    enabled: Option<bool>,
}

outcome!(
    /// What came of `create_preload_rule` and `modify_preload_rule`.
    PreloadRuleOutcome,
    /// As it is now; null if it was not done.
    preload_rule: PreloadRule,
    /// Names and groups in the expression that are nobody's now: a typo, or to come. The first hundred.
    unknown: Vec<String>
);

/// A rule that was made or changed, with the names in it that are nobody's.
fn with_unknown(told: Told, caller: &Caller, rules: &Rules) -> (PreloadRule, Vec<String>) {
    // A rule's expression was read when it was kept, so that there is nothing that could fail.
    let unknown = rules.unknown_names(caller, &told.rule.target_agents).unwrap_or_default();
    (PreloadRule(told), unknown)
}

outcome!(
    /// What came of `delete_preload_rule`.
    DeletePreloadRule
);

/// The queries. All are for super-admins.
#[derive(Default)]
pub(crate) struct RuleQuery;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl RuleQuery {
    /// The standing preloads, by name.
    #[graphql(complexity = "LIST_COST + child_complexity")]
    async fn preload_rules(&self, ctx: &Context<'_>) -> FieldResult<Vec<PreloadRule>> {
        let (caller, rules) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Rules>());
        Ok(rules.list(caller)?.into_iter().map(PreloadRule).collect())
    }

    /// One of them.
    async fn preload_rule(&self, ctx: &Context<'_>, name: String) -> FieldResult<Option<PreloadRule>> {
        let (caller, rules) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Rules>());
        Ok(Some(PreloadRule(rules.find(caller, &name)?)))
    }

    /// What a rule would find now; nothing is started, and what is wrong with it is told field by field.
    #[graphql(complexity = "LIST_COST + child_complexity")]
    async fn preload_rule_preview(
        &self,
        ctx: &Context<'_>,
        images: String,
        target_agents: String,
        window: Option<String>,
        time_zone: Option<String>,
    ) -> FieldResult<PreloadRulePreview> {
        let (caller, rules) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Rules>());
        let window = window.filter(|window| !window.trim().is_empty());
        let window = window.map(|window| Window::parse(&window, time_zone.as_deref()));
        let mut problems = Vec::new();
        let mut preview = PreloadRulePreview { is_open: true, ..PreloadRulePreview::default() };
        match window.transpose() {
            Ok(window) => preview.read(window.as_ref(), rules.now()),
            Err(error) => problems.push(problem(error)?),
        }
        match rules.preview(caller, &images, &target_agents).await {
            Ok(found) => preview.find(&found),
            Err(error) => {
                problems.push(problem(error)?);
                // Of two mistakes both are told.
                if let Err(error) = Rules::check_agents(&target_agents) {
                    let other = problem(error)?;
                    if problems.iter().all(|known| known.field != other.field) {
                        problems.push(other);
                    }
                }
            }
        }
        Ok(PreloadRulePreview { ok: problems.is_empty(), problems, ..preview })
    }
}

impl PreloadRulePreview {
    fn read(&mut self, window: Option<&Window>, now: Timestamp) {
        self.effective_time_zone = window.map(Window::zone_name);
        if let Some(Ok(WindowState::Closed(opens))) = window.map(|window| window.standing(now)) {
            self.is_open = false;
            self.opens_at = opens.map(text);
        }
    }

    fn find(&mut self, found: &crate::rules::service::Preview) {
        let (diff, agents) = (&found.diff, &found.agents);
        self.images = count(diff.images);
        self.image_names.clone_from(&diff.names);
        self.is_cut = diff.is_cut();
        self.agents = count(agents.names.len());
        self.folded = agents.folded();
        self.agent_names = agents.names.iter().take(MAX_NAMES).cloned().collect();
        self.unknown.clone_from(&agents.unknown);
        self.unknown_count = count(agents.unknown_count);
        self.away_count = count(agents.away.len());
        self.present = count(diff.present);
        self.missing = count(diff.missing());
        self.bytes = BigInt(diff.bytes());
    }
}

/// The mutations. All are for super-admins.
#[derive(Default)]
pub(crate) struct RuleMutation;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl RuleMutation {
    /// Adds a standing preload. It is looked at within seconds, and whenever agents, images or it change.
    async fn create_preload_rule(
        &self,
        ctx: &Context<'_>,
        name: String,
        props: CreatePreloadRuleInput,
    ) -> Option<PreloadRuleOutcome> {
        let (caller, rules) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Rules>());
        let wanted = RuleChange {
            images: Some(props.images),
            target_agents: Some(props.target_agents),
            window: props.window,
            time_zone: props.time_zone,
            enabled: props.enabled,
        };
        Some(rules.add(caller, &name, wanted).await.map(|told| with_unknown(told, caller, rules)).into())
    }

    /// Changes a standing preload. What it has begun goes on.
    async fn modify_preload_rule(
        &self,
        ctx: &Context<'_>,
        name: String,
        props: ModifyPreloadRuleInput,
    ) -> Option<PreloadRuleOutcome> {
        let (caller, rules) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Rules>());
        let change = RuleChange {
            images: props.images,
            target_agents: props.target_agents,
            window: props.window,
            time_zone: props.time_zone,
            enabled: props.enabled,
        };
        Some(rules.change(caller, &name, change).await.map(|told| with_unknown(told, caller, rules)).into())
    }

    /// Takes a standing preload out. What it has begun goes on, and nothing is taken off an agent.
    async fn delete_preload_rule(&self, ctx: &Context<'_>, name: String) -> Option<DeletePreloadRule> {
        let (caller, rules) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Rules>());
        Some(rules.remove(caller, &name).await.into())
    }
}

/// What is wrong with one field; any other error stays one.
fn problem(error: Error) -> FieldResult<PreloadRuleProblem> {
    match error {
        Error::Invalid { field, why } => Ok(PreloadRuleProblem { field, message: why }),
        other => Err(other.into()),
    }
}

fn text(at: Timestamp) -> String {
    at.to_string()
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
