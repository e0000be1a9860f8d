//! Why a user sees an image or does not, and why an image is on an agent or is not. Backend.AI has no such queries.

use async_graphql::{Context, Object, SimpleObject};

use crate::access::accounts::Accounts;
use crate::access::caller::Caller;
use crate::access::explain;
use crate::access::visibility::ImageFilter;
use crate::base::ids::UserId;
use crate::base::{Error, Result, arch};
use crate::catalog::service::Catalog;
use crate::fleet::presence::Presence;
use crate::fleet::service::Fleet;
use crate::graphql::kit::fault::FieldResult;
use crate::graphql::kit::limit::LIST_COST;
use crate::graphql::presence::variants;
use crate::rules::service::Rules;
use crate::transfer::explain::{self as presence, Facts};
use crate::transfer::plan::{image_for, sought};
use crate::transfer::service::{Transfers, of_one};

/// Whether a user sees an image, and why.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct ImageAccess {
    /// The image's canonical name.
    reference: String,
    /// Its architecture.
    architecture: String,
    /// The user's e-mail address.
    user: String,
    /// Whether the user sees the image under the conditions of this question.
    visible: bool,
    /// The conditions that were checked; all must hold.
    conditions: Vec<AccessCondition>,
}

/// A condition of the visibility rule.
#[derive(SimpleObject)]
pub(crate) struct AccessCondition {
    /// `registry`, `owner` or `agents`.
    name: &'static str,
    /// What the condition finds for this image.
    value: String,
    /// Whether the condition holds.
    holds: bool,
    /// What would make the condition hold; null if it holds.
    remedy: Option<String>,
}

impl From<explain::Condition> for AccessCondition {
    fn from(condition: explain::Condition) -> Self {
        let explain::Condition { name, value, holds, remedy } = condition;
        Self { name, value, holds, remedy }
    }
}

/// Whether an image is on an agent, and why.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct ImagePresenceExplanation {
    /// The image's canonical name.
    reference: String,
    /// The agent.
    agent: String,
    /// The architecture of the image that counts there; null if none is for the agent.
    architecture: Option<String>,
    /// `present`, `stale`, `absent` or `unknown`.
    state: &'static str,
    /// The state and its cause, in one sentence.
    because: String,
    /// All that is known about it, the most telling first.
    causes: Vec<PresenceCause>,
}

/// Something that the state of an image on an agent follows from, or that will change it.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct PresenceCause {
    /// About the agent: `no-agent`, `unreached`, `lost`, `away`, `not-reported`, `other-architecture` or `draining`.
    /// About the name: `other-image`. About a task: `queued`, `waiting`, `loading`, `unloading`, `failed`, `cancelled`,
    /// `unload-failed`, `loaded`, `found`, `gone`, `removed` or `came-back`. About a rule: `rule-disabled`,
    /// `rule-window`, `rule-held-back`, `rule-room` or `rule-due`. About neither: `foreign` (it is there, and no known
    /// task has loaded it), `no-rule` (nothing is going to replace another image there) or `never-asked`.
    code: &'static str,
    /// The cause in words.
    text: String,
    /// Since when it holds, or when it happened, in RFC 3339.
    at: Option<String>,
    /// When something is tried or begun next, in RFC 3339.
    next_at: Option<String>,
    /// The background task that it is about.
    task_id: Option<String>,
    /// The standing preload that it is about.
    rule: Option<String>,
}

impl From<presence::Cause> for PresenceCause {
    fn from(cause: presence::Cause) -> Self {
        let presence::Cause { code, text, at, next_at, task, rule } = cause;
        Self {
            code: code.as_str(),
            text,
            at: at.map(|at| at.to_string()),
            next_at: next_at.map(|at| at.to_string()),
            task_id: task.map(|task| task.to_string()),
            rule,
        }
    }
}

/// The queries.
#[derive(Default)]
pub(crate) struct ExplainQuery;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl ExplainQuery {
    /// Why a user sees an image, or does not: each condition, whether it holds, and what would change it.
    /// Super-admins may ask about any user. Other users may ask about themselves, and only about images they see
    /// without a group.
    async fn explain_image_access(
        &self,
        ctx: &Context<'_>,
        reference: String,
        #[graphql(desc = "E-mail address or id; the caller if null.")] user: Option<String>,
        #[graphql(desc = "As a member of this group.")] group: Option<String>,
        #[graphql(desc = "Only the agents of this scaling group count.")] scaling_group: Option<String>,
    ) -> FieldResult<ImageAccess> {
        let (caller, accounts) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Accounts>());
        let catalog = ctx.data_unchecked::<Catalog>();
        let is_self = |user: &String| *user == caller.email || *user == caller.user.to_string();
        let seer = match user.filter(|user| !is_self(user)) {
            None => caller.clone(),
            Some(_) if !caller.is_superadmin() => {
                return Err(Error::Denied("explain_image_access for another user".into()).into());
            }
            Some(user) => accounts.caller_of(&user)?,
        };
        let filter = ImageFilter { group, scaling_group, ..ImageFilter::default() };
        let (image, explanation) = catalog.explain(caller, &seer, &filter, &reference)?;
        Ok(ImageAccess {
            reference: image.record.canonical().to_string(),
            architecture: image.record.architecture.clone(),
            user: seer.email,
            visible: explanation.is_visible,
            conditions: explanation.conditions.into_iter().map(Into::into).collect(),
        })
    }

    /// Why an image is on an agent, or is not: the state in one sentence, and all causes that are known. For
    /// super-admins. What tasks did is known as far back as the newest 500 that ended within 24 hours, and 50,000 of
    /// their items; older ones are not looked at.
    #[graphql(complexity = "LIST_COST + child_complexity")]
    async fn explain_image_presence(
        &self,
        ctx: &Context<'_>,
        reference: String,
        #[graphql(desc = "The agent's id.")] agent: String,
        #[graphql(desc = "The image of this architecture; the agent's own if null.")] architecture: Option<
            String,
        >,
    ) -> FieldResult<ImagePresenceExplanation> {
        Ok(explain_presence(ctx, &reference, agent, architecture.as_deref()).await?)
    }
}

/// Collects what is known of an image on an agent, and has it explained.
async fn explain_presence(
    ctx: &Context<'_>,
    reference: &str,
    id: String,
    architecture: Option<&str>,
) -> Result<ImagePresenceExplanation> {
    let (caller, accounts) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Accounts>());
    let (catalog, fleet) = (ctx.data_unchecked::<Catalog>(), ctx.data_unchecked::<Fleet>());
    let (transfers, rules) = (ctx.data_unchecked::<Transfers>(), ctx.data_unchecked::<Rules>());
    caller.require_superadmin("explain_image_presence")?;
    let all = catalog.architectures(caller, reference)?;
    let variants = variants(&all);
    let asked = architecture.map(arch::named);
    let images = of_one(reference, all.clone(), asked.as_deref())?;
    let Some(first) = images.first() else { return Err(Error::missing("image", reference)) };
    let name = first.record.canonical().to_string();
    let agent = fleet.find(&id);
    let image = agent.as_ref().and_then(|agent| image_for(&images, agent));
    // If none is for the agent's architecture, the name may mean any of them there.
    let counted = image.map_or(images.as_slice(), std::slice::from_ref);
    // Before the state is read: what ends in between is told as under way, and never as if nobody had done it.
    let history = transfers.history(&id, &name, counted).await?;
    let states = counted.iter().map(|image| fleet.presence(&id, &sought(&image.record, &name, &variants)));
    let state = states.min().unwrap_or(Presence::Unknown);
    let (wishes, unfit) = match (image, &agent) {
        (Some(image), Some(agent)) if state != Presence::Present => {
            let wishes = rules.wishes(&image.record, agent).await;
            let unfit = if wishes.is_empty() { None } else { transfers.unfit(agent, image).await? };
            (wishes, unfit)
        }
        _ => (Vec::new(), None),
    };
    let architectures: Vec<&str> = images.iter().map(|image| image.record.architecture.as_str()).collect();
    let explanation = presence::explain(&Facts {
        image: &name,
        architectures: &architectures,
        id: &id,
        agent: agent.as_ref(),
        state,
        transfers: &history,
        wishes: &wishes,
        unfit,
        email: &|user: UserId| accounts.user(user).map(|user| user.email.clone()),
    });
    Ok(ImagePresenceExplanation {
        state: explanation.state.as_str(),
        because: explanation.because,
        causes: explanation.causes.into_iter().map(Into::into).collect(),
        architecture: image.map(|image| image.record.architecture.clone()),
        reference: name,
        agent: id,
    })
}
