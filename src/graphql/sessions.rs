//! The caller's own sessions.

use async_graphql::{Context, Object};

use crate::access::caller::Caller;
use crate::access::sessions::Shown;
use crate::access::sign_in::SignIn;
use crate::graphql::kit::outcome::{Done, outcome};

/// A session that was opened with a password.
pub(crate) struct LoginSession(Shown);

#[Object(rename_fields = "snake_case")]
impl LoginSession {
    /// When the user signed in.
    async fn created_at(&self) -> String {
        self.0.created_at.to_string()
    }

    /// When it was last used.
    async fn last_seen(&self) -> String {
        self.0.last_seen.to_string()
    }

    /// The address that the user signed in from.
    async fn address(&self) -> Option<String> {
        self.0.address.map(|address| address.to_string())
    }

    /// Whether this request uses the session.
    async fn current(&self) -> bool {
        self.0.current
    }
}

outcome!(
    /// The result of `sign_out_everywhere`; `msg` says how many sessions ended.
    SignOutEverywhere
);

/// The queries.
#[derive(Default)]
pub(crate) struct SessionQuery;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl SessionQuery {
    /// The caller's sessions, newest first.
    async fn sessions(&self, ctx: &Context<'_>) -> Vec<LoginSession> {
        let (caller, sign_in) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<SignIn>());
        sign_in.sessions().list(caller).into_iter().map(LoginSession).collect()
    }
}

/// The mutations.
#[derive(Default)]
pub(crate) struct SessionMutation;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl SessionMutation {
    /// Ends all sessions of the caller, including this one unless it is to be kept. Keypairs and tokens stay.
    async fn sign_out_everywhere(
        &self,
        ctx: &Context<'_>,
        #[graphql(default)] keep_current: bool,
    ) -> SignOutEverywhere {
        let (caller, sign_in) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<SignIn>());
        let ended = sign_in.sign_out_everywhere(caller, keep_current).await;
        ended.map(|ended| Done::saying(format!("{ended} sessions ended"))).into()
    }
}
