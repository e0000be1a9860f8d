//! The caller's own sessions.

use async_graphql::{Context, Object};

use crate::access::caller::Caller;
use crate::access::sessions::Shown;
use crate::access::sign_in::SignIn;
use crate::graphql::kit::outcome::{Done, outcome};

/// A session that a password opened.
pub(crate) struct LoginSession(Shown);

#[Object(rename_fields = "snake_case")]
impl LoginSession {
    /// When its owner signed in.
    async fn created_at(&self) -> String {
        self.0.created_at.to_string()
    }

    /// When it was last used.
    async fn last_seen(&self) -> String {
        self.0.last_seen.to_string()
    }

    /// Where its owner signed in from.
    async fn address(&self) -> Option<String> {
        self.0.address.map(|address| address.to_string())
    }

    /// Whether it is the one that asks.
    async fn current(&self) -> bool {
        self.0.current
    }
}

outcome!(
    /// What came of `sign_out_everywhere`; `msg` says how many sessions ended.
    SignOutEverywhere
);

/// The queries.
#[derive(Default)]
pub(crate) struct SessionQuery;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl SessionQuery {
    /// Where the caller is signed in, the latest first.
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
    /// Ends all sessions of the caller's, this one too unless it is to be kept. Keypairs and tokens stay.
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
