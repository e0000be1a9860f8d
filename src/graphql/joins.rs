//! How agents on other machines join and leave: join tokens, and removal.

use async_graphql::{Context, InputObject, Object, SimpleObject};
use jiff::SignedDuration;

use crate::access::caller::Caller;
use crate::access::joins::{JoinToken, Joins, NewToken};
use crate::base::secret::Secret;
use crate::fleet::links::Links;
use crate::graphql::kit::fault::FieldResult;
use crate::graphql::kit::limit::LIST_COST;
use crate::graphql::kit::outcome::outcome;

/// A token with which an agent may join, without its secret.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct AgentToken {
    /// The token's id; not secret.
    id: String,
    /// `good`, `used`, `expired` or `revoked`.
    state: &'static str,
    /// The only agent that may use it; null if any agent may.
    agent: Option<String>,
    /// The scaling group of the agents that join with it.
    scaling_group: Option<String>,
    /// How many more joins it allows.
    uses_left: i32,
    /// The agent that joined with it last.
    used_by: Option<String>,
    /// The e-mail address of the user who created it.
    created_by: String,
    /// When it was created, in RFC 3339.
    created_at: String,
    /// When it expires, in RFC 3339.
    expires_at: String,
}

impl AgentToken {
    fn new(token: JoinToken, joins: &Joins) -> Self {
        Self {
            state: joins.state(&token),
            id: token.id,
            agent: token.agent,
            scaling_group: token.scaling_group,
            uses_left: i32::try_from(token.uses_left).unwrap_or(i32::MAX),
            used_by: token.used_by,
            created_by: token.created_by,
            created_at: token.created_at.to_string(),
            expires_at: token.expires_at.to_string(),
        }
    }
}

/// What a new join token allows.
#[derive(InputObject, Default)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct CreateAgentTokenInput {
    /// The only agent that may use it; any agent if not given.
    id: Option<String>,
    /// The scaling group of the agents that join with it. If not given, the group that the agent asks for, or
    /// `default`.
    scaling_group: Option<String>,
    /// How many seconds it is valid: 3,600 if not given, 30 days at most.
    expires_in: Option<i32>,
    /// How many joins it allows; one if not given.
    uses: Option<u32>,
}

outcome!(
    /// The result of `create_agent_token`.
    CreateAgentToken,
    /// The token itself, which is shown only here.
    token: String,
    /// The token's properties.
    agent_token: AgentToken
);
outcome!(
    /// The result of `revoke_agent_token` and `remove_agent`.
    AgentChangeResult
);

/// The queries. All are for super-admins.
#[derive(Default)]
pub(crate) struct JoinQuery;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl JoinQuery {
    /// The join tokens, newest first. Tokens that ended are listed for a week.
    #[graphql(complexity = "LIST_COST + child_complexity")]
    async fn agent_tokens(&self, ctx: &Context<'_>) -> FieldResult<Vec<AgentToken>> {
        let (caller, joins) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Joins>());
        Ok(joins.list(caller).await?.into_iter().map(|token| AgentToken::new(token, joins)).collect())
    }
}

/// The mutations. All are for super-admins.
#[derive(Default)]
pub(crate) struct JoinMutation;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl JoinMutation {
    /// Creates a token with which an agent on another machine may join: `wharf agent --manager URL --token TOKEN`.
    async fn create_agent_token(
        &self,
        ctx: &Context<'_>,
        props: Option<CreateAgentTokenInput>,
    ) -> Option<CreateAgentToken> {
        let (caller, joins) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Joins>());
        let props = props.unwrap_or_default();
        let wanted = NewToken {
            agent: props.id,
            scaling_group: props.scaling_group,
            lifetime: props.expires_in.map(|seconds| SignedDuration::from_secs(seconds.into())),
            uses: props.uses,
        };
        let made = joins.create(caller, wanted).await;
        let shown =
            |(token, text): (JoinToken, Secret)| (text.expose().to_owned(), AgentToken::new(token, joins));
        Some(made.map(shown).into())
    }

    /// Revokes a token. Agents that joined with it stay.
    async fn revoke_agent_token(&self, ctx: &Context<'_>, id: String) -> Option<AgentChangeResult> {
        let (caller, joins) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Joins>());
        Some(joins.revoke(caller, &id).await.into())
    }

    /// Removes an agent: its link is cut at once, its credential is deleted, and its images no longer count.
    async fn remove_agent(&self, ctx: &Context<'_>, id: String) -> Option<AgentChangeResult> {
        let (caller, links) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Links>());
        Some(links.remove(caller, &id).await.into())
    }
}
