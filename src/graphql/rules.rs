//! Standing preloads: rules that keep images on agents.

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
use crate::rules::status::{Away, Status};
use crate::rules::window::{Window, WindowState};

/// The most agents that a preview names.
const MAX_NAMES: usize = 1_000;

/// A standing preload: it loads the images that its pattern matches onto the agents that its expression names,
/// whenever an image is missing or stale there. It removes nothing from an agent.
pub(crate) struct PreloadRule(Told);

#[Object(rename_fields = "snake_case")]
impl PreloadRule {
    /// Its name.
    async fn name(&self) -> &str {
        &self.0.rule.name
    }

    /// A pattern for `registry/name:tag`, which selects the images. `*` stands for any characters, including `/` and
    /// `:`; `?` stands for any single character.
    async fn images(&self) -> &str {
        &self.0.rule.images
    }

    /// The expression that selects the agents, as in `preload_image`; it is evaluated anew each time.
    async fn target_agents(&self) -> &str {
        &self.0.rule.target_agents
    }

    /// The one architecture whose images it loads, onto agents of it; null for each agent's own.
    async fn architecture(&self) -> Option<&str> {
        self.0.rule.architecture.as_deref()
    }

    /// The part of the day in which it may begin to load, `HH:MM-HH:MM`; null for always.
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

    /// `filled`, `loading`, `closed` (images are missing, and the window is closed), `waiting` (images are missing
    /// and can't be loaded now; `status` says why), `new` (not checked yet) or `disabled`.
    async fn state(&self) -> &str {
        self.0.state().as_str()
    }

    /// Whether it may begin to load now.
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

    /// When its window closes, in RFC 3339; null while it is closed. Loading that has begun continues after that.
    async fn closes_at(&self) -> Option<String> {
        match self.0.standing {
            Some(WindowState::Open(until)) => Some(text(until)),
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
    async fn status(&self) -> Option<PreloadRuleStatus> {
        let is_known = self.0.status.as_deref().filter(|_| self.0.rule.enabled);
        is_known.map(PreloadRuleStatus::from)
    }
}

/// The findings of the last check of a rule. Counts are of images on agents: two images on three agents count as six.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct PreloadRuleStatus {
    /// When the check ran, in RFC 3339.
    at: String,
    /// How many images the pattern matches, by name.
    images: i32,
    /// Whether the pattern matches more than 5,000 images. The rule handles only 5,000 of them: narrow the pattern.
    is_cut: bool,
    /// How many agents the expression names, without those that are left out.
    agents: i32,
    /// These agents, folded: `gpu[01-04]`.
    folded: String,
    /// How many agents that the expression names are left out, because their architecture is not the rule's.
    left_out: i32,
    /// Names and groups in the expression that do not exist now; the first hundred. They count once they exist.
    unknown: Vec<String>,
    /// The number of all names and groups in the expression that do not exist now.
    unknown_count: i32,
    /// Agents that can't load images now; the first hundred. The rule checks them again once they can.
    away: Vec<PreloadRuleAway>,
    /// The number of all agents that can't load images now.
    away_count: i32,
    /// Images that are present.
    present: i32,
    /// Images that are missing from agents that can load them.
    missing: i32,
    /// Missing images that are being loaded, by this rule or for another request.
    loading: i32,
    /// Missing images that wait for the window to open, or for other tasks of rules to end.
    due: i32,
    /// Missing images that recently failed to load and are tried again later.
    held_back: i32,
    /// Missing images that do not fit.
    unfit: i32,
    /// Images that are held back or do not fit, and why; the first hundred.
    waiting: Vec<PreloadRuleWaiting>,
    /// When it last began to load, in RFC 3339.
    begun_at: Option<String>,
    /// How many images on agents it began to load then.
    begun: i32,
    /// The background tasks of that.
    task_ids: Vec<String>,
    /// Why nothing began although something was due.
    problem: Option<String>,
}

/// An agent that can't load images now.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct PreloadRuleAway {
    /// The agent.
    agent: String,
    /// Why it can't.
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
    /// Why it waits.
    reason: String,
    /// When it is tried again, in RFC 3339; null if it does not wait for a time.
    until: Option<String>,
}

impl From<&Away> for PreloadRuleAway {
    fn from(away: &Away) -> Self {
        Self { agent: away.agent.clone(), reason: away.reason.clone() }
    }
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
            left_out: count(status.left_out),
            unknown: status.unknown.clone(),
            unknown_count: count(status.unknown_count),
            away: status.away.iter().map(Into::into).collect(),
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

/// What a rule would find now. Nothing is started.
#[derive(SimpleObject, Default)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct PreloadRulePreview {
    /// Whether these arguments make a valid rule.
    ok: bool,
    /// What is wrong, for each field.
    problems: Vec<PreloadRuleProblem>,
    /// How many images the pattern matches, by name.
    images: i32,
    /// The names of the first twenty images.
    image_names: Vec<String>,
    /// Whether the pattern matches more images than a rule handles.
    is_cut: bool,
    /// How many agents the expression names, without those that are left out.
    agents: i32,
    /// These agents, folded.
    folded: String,
    /// How many agents that the expression names are left out, because their architecture is not the rule's.
    left_out: i32,
    /// The names of the agents; the first 1,000.
    agent_names: Vec<String>,
    /// Names and groups that do not exist now: typing errors, or agents yet to come. The first hundred.
    unknown: Vec<String>,
    /// The number of all names and groups that do not exist now.
    unknown_count: i32,
    /// How many of the agents can't load images now.
    away_count: i32,
    /// How many images on agents are present.
    present: i32,
    /// How many images on agents are missing.
    missing: i32,
    /// The most that would be fetched in all, in bytes.
    bytes: BigInt,
    /// Whether the window is open now; true if there is no window.
    is_open: bool,
    /// When the window opens next, in RFC 3339; null while it is open.
    opens_at: Option<String>,
    /// The name of the time zone in which the window is read.
    effective_time_zone: Option<String>,
}

/// What is wrong with a field of a rule.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct PreloadRuleProblem {
    /// `images`, `target_agents`, `architecture`, `window` or `time_zone`.
    field: &'static str,
    /// What is wrong and what would be right. For an expression, two lines follow: the expression, and a caret at the
    /// mistake.
    message: String,
}

/// A new rule.
#[derive(InputObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct CreatePreloadRuleInput {
    /// A pattern for `registry/name:tag`, which selects the images; `*` stands for any characters, `?` for any single
    /// one.
    images: String,
    /// The expression that selects the agents. Names that do not exist yet are accepted and reported.
    target_agents: String,
    /// The one architecture whose images it loads; each agent's own if not given.
    architecture: Option<String>,
    /// When it may begin to load, `HH:MM-HH:MM`; always if not given. The window may extend over midnight.
    window: Option<String>,
    /// The IANA name of the window's time zone; the server's own if not given.
    time_zone: Option<String>,
    /// Whether the rule is in effect; true if not given.
    enabled: Option<bool>,
}

/// Changes to a rule. A field that is null keeps its value.
#[derive(InputObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct ModifyPreloadRuleInput {
    /// The pattern that selects the images.
    images: Option<String>,
    /// The expression that selects the agents.
    target_agents: Option<String>,
    /// The one architecture whose images it loads; an empty text for each agent's own.
    architecture: Option<String>,
    /// When it may begin to load; an empty text for always.
    window: Option<String>,
    /// The window's time zone; an empty text for the server's own.
    time_zone: Option<String>,
    /// Whether the rule is in effect.
    enabled: Option<bool>,
}

outcome!(
    /// The result of `create_preload_rule` and `modify_preload_rule`.
    PreloadRuleOutcome,
    /// The rule after the change; null if nothing was changed.
    preload_rule: PreloadRule,
    /// Names and groups in the expression that do not exist now: typing errors, or agents yet to come. The first
    /// hundred.
    unknown: Vec<String>
);

/// Returns a rule that was created or changed, with the names in it that do not exist.
fn with_unknown(told: Told, caller: &Caller, rules: &Rules) -> (PreloadRule, Vec<String>) {
    // The expression was parsed when the rule was stored, so this can't fail.
    let unknown = rules.unknown_names(caller, &told.rule.target_agents).unwrap_or_default();
    (PreloadRule(told), unknown)
}

outcome!(
    /// The result of `delete_preload_rule`.
    DeletePreloadRule
);

/// The queries. All are for super-admins.
#[derive(Default)]
pub(crate) struct RuleQuery;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl RuleQuery {
    /// All standing preloads, by name.
    #[graphql(complexity = "LIST_COST + child_complexity")]
    async fn preload_rules(&self, ctx: &Context<'_>) -> FieldResult<Vec<PreloadRule>> {
        let (caller, rules) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Rules>());
        Ok(rules.list(caller)?.into_iter().map(PreloadRule).collect())
    }

    /// One standing preload.
    async fn preload_rule(&self, ctx: &Context<'_>, name: String) -> FieldResult<Option<PreloadRule>> {
        let (caller, rules) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Rules>());
        Ok(Some(PreloadRule(rules.find(caller, &name)?)))
    }

    /// What a rule would find now. Nothing is started; mistakes are reported for each field.
    #[graphql(complexity = "LIST_COST + child_complexity")]
    async fn preload_rule_preview(
        &self,
        ctx: &Context<'_>,
        images: String,
        target_agents: String,
        window: Option<String>,
        time_zone: Option<String>,
        architecture: Option<String>,
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
        match rules.preview(caller, &images, &target_agents, architecture.as_deref()).await {
            Ok(found) => preview.find(&found),
            Err(error) => {
                problems.push(problem(error)?);
                // Of several mistakes, all are reported.
                let others =
                    [Rules::check_agents(&target_agents), Rules::check_architecture(architecture.as_deref())];
                for error in others.into_iter().filter_map(Result::err) {
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
        self.left_out = count(agents.left_out);
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
    /// Adds a standing preload. It is checked within seconds, and whenever agents, images or the rule itself change.
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
            architecture: props.architecture,
            window: props.window,
            time_zone: props.time_zone,
            enabled: props.enabled,
        };
        Some(rules.add(caller, &name, wanted).await.map(|told| with_unknown(told, caller, rules)).into())
    }

    /// Changes a standing preload. Loading that has begun continues.
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
            architecture: props.architecture,
            window: props.window,
            time_zone: props.time_zone,
            enabled: props.enabled,
        };
        Some(rules.change(caller, &name, change).await.map(|told| with_unknown(told, caller, rules)).into())
    }

    /// Deletes a standing preload. Loading that has begun continues, and nothing is removed from an agent.
    async fn delete_preload_rule(&self, ctx: &Context<'_>, name: String) -> Option<DeletePreloadRule> {
        let (caller, rules) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Rules>());
        Some(rules.remove(caller, &name).await.into())
    }
}

/// Returns what is wrong with one field; any other error stays an error.
fn problem(error: Error) -> FieldResult<PreloadRuleProblem> {
    match error {
        Error::Invalid { field, why } => Ok(PreloadRuleProblem { field, message: why }),
        other => Err(other.into()),
    }
}

fn text(at: Timestamp) -> String {
    at.to_string()
}

pub(in crate::graphql) fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
