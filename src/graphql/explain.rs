//! Why a user sees an image or does not. Backend.AI has no such query.

use async_graphql::{Context, Object, SimpleObject};

use crate::access::accounts::Accounts;
use crate::access::caller::Caller;
use crate::access::explain;
use crate::access::visibility::ImageFilter;
use crate::base::Error;
use crate::catalog::service::Catalog;
use crate::graphql::kit::fault::FieldResult;

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

/// The query.
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
}
