//! Personal API tokens.

use async_graphql::{Context, Object};

use crate::access::caller::Caller;
use crate::access::tokens::{Token, Tokens, Wanted};
use crate::graphql::kit::fault::FieldResult;
use crate::graphql::kit::outcome::outcome;

/// A personal API token, without its secret.
pub(crate) struct ApiToken(Token);

#[Object(rename_fields = "snake_case")]
impl ApiToken {
    /// Its id, for revoking it.
    async fn id(&self) -> String {
        self.0.id.to_string()
    }

    /// The name that its owner gave it.
    async fn name(&self) -> &str {
        &self.0.name
    }

    /// What it allows: `read` or `full`.
    async fn scope(&self) -> &str {
        if self.0.read_only { "read" } else { "full" }
    }

    /// When it was created.
    async fn created_at(&self) -> String {
        self.0.created_at.to_string()
    }

    /// When it expires.
    async fn expires_at(&self) -> String {
        self.0.expires_at.to_string()
    }

    /// When it was last used.
    async fn last_used(&self) -> Option<String> {
        self.0.last_used.map(|at| at.to_string())
    }
}

outcome!(
    /// The result of `create_api_token`.
    CreateApiToken,
    /// The token itself, for `Authorization: Bearer`. It is shown only here.
    token: String,
    /// The token's properties.
    api_token: ApiToken
);
outcome!(
    /// The result of `revoke_api_token`.
    RevokeApiToken
);

/// The queries.
#[derive(Default)]
pub(crate) struct TokenQuery;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl TokenQuery {
    /// The caller's API tokens, newest first. For super-admins also those of the user with this e-mail address.
    async fn api_tokens(&self, ctx: &Context<'_>, user: Option<String>) -> FieldResult<Vec<ApiToken>> {
        let (caller, tokens) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Tokens>());
        Ok(tokens.list(caller, user.as_deref())?.into_iter().map(ApiToken).collect())
    }
}

/// The mutations.
#[derive(Default)]
pub(crate) struct TokenMutation;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl TokenMutation {
    /// Creates an API token for the caller: `read` for reading only, or `full`. It lasts 90 days unless a number of
    /// days or a time in RFC 3339 is given, and a year at most. A request that uses a token can't create one.
    async fn create_api_token(
        &self,
        ctx: &Context<'_>,
        name: String,
        scope: String,
        expires_in_days: Option<i32>,
        expires_at: Option<String>,
    ) -> CreateApiToken {
        let (caller, tokens) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Tokens>());
        let wanted = Wanted { scope: &scope, days: expires_in_days, until: expires_at.as_deref() };
        let made = tokens.create(caller, &name, wanted).await;
        made.map(|(token, text)| (text.expose().to_owned(), ApiToken(token))).into()
    }

    /// Revokes an API token: one of the caller's, or for super-admins any user's.
    async fn revoke_api_token(&self, ctx: &Context<'_>, id: String) -> RevokeApiToken {
        let (caller, tokens) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Tokens>());
        tokens.revoke(caller, &id).await.into()
    }
}
