//! How agents on other machines get in and out: join tokens, and removal.

use async_graphql::{Context, InputObject, Object, SimpleObject};
use jiff::SignedDuration;

use crate::access::caller::Caller;
use crate::access::joins::{JoinToken, Joins, NewToken};
use crate::base::secret::Secret;
use crate::fleet::links::Links;
use crate::graphql::kit::fault::FieldResult;
use crate::graphql::kit::limit::LIST_COST;
use crate::graphql::kit::outcome::outcome;

/// A token that lets an agent in, without its secret.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct AgentToken {
    /// Names it; not secret.
    id: String,
    /// `good`, `used`, `expired` or `revoked`.
    state: &'static str,
    /// The one agent it is for.
    agent: Option<String>,
    /// The scaling group that agents who join by it are in.
    scaling_group: Option<String>,
    /// How many joins it is still good for.
    uses_left: i32,
    /// The agent that joined by it last.
    used_by: Option<String>,
    /// Who made it: an e-mail address.
    created_by: String,
    /// When it was made, in RFC 3339.
    created_at: String,
    /// When it ends, in RFC 3339.
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

/// What a token is to be good for.
#[derive(InputObject, Default)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct CreateAgentTokenInput {
    /// This agent only; any otherwise.
    id: Option<String>,
    /// The scaling group of the agents that join by it; what they ask for otherwise, or `default`.
    scaling_group: Option<String>,
    /// How many seconds it is good; an hour otherwise, 30 days at most.
    expires_in: Option<i32>,
    /// How many joins it is good for; one otherwise.
    uses: Option<u32>,
}

outcome!(
    /// What came of `create_agent_token`.
    CreateAgentToken,
    /// The token itself, told here and never again.
    token: String,
    /// All else about it.
    agent_token: AgentToken
);
outcome!(
    /// What came of `revoke_agent_token` and `remove_agent`.
    AgentChangeResult
);

/// The queries. All are for super-admins.
#[derive(Default)]
pub(crate) struct JoinQuery;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl JoinQuery {
    /// The join tokens, the newest first; those that ended are told of for a week.
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
    /// Makes a token that lets an agent on another machine in: `wharf agent --manager URL --token TOKEN`.
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

    /// Takes a token back. Agents that joined by it stay.
    async fn revoke_agent_token(&self, ctx: &Context<'_>, id: String) -> Option<AgentChangeResult> {
        let (caller, joins) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Joins>());
        Some(joins.revoke(caller, &id).await.into())
    }

    /// Takes an agent out: it is cut off at once, its credential is forgotten, and what it holds counts no more.
    async fn remove_agent(&self, ctx: &Context<'_>, id: String) -> Option<AgentChangeResult> {
        let (caller, links) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Links>());
        Some(links.remove(caller, &id).await.into())
    }
}
