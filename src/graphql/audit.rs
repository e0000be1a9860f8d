//! The audit log, for super-admins.

use std::str::FromStr;

use async_graphql::{Context, Enum, Object};
use jiff::Timestamp;

use crate::access::audit::{self, Audit, Entry, MAX_PAGE, Search};
use crate::access::caller::Caller;
use crate::base::Error;
use crate::base::reference::shown;
use crate::graphql::kit::fault::FieldResult;
use crate::graphql::kit::limit::LIST_COST;
use crate::graphql::kit::listing::stretch;
use crate::graphql::kit::scalar::BigInt;

/// The number of rows of a page if the request does not say.
const PAGE: usize = 100;

/// The outcome of a mutation.
#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "audit::Outcome")]
pub(crate) enum AuditOutcome {
    /// The change was made, or accepted as a task.
    Done,
    /// The caller has no right to do it.
    Denied,
    /// The change failed; nothing was changed.
    Failed,
}

/// A row of the audit log.
pub(crate) struct AuditEntry(Entry);

#[Object(rename_fields = "snake_case")]
impl AuditEntry {
    /// The row's number. Each row has a higher number than the rows before it.
    async fn number(&self) -> BigInt {
        BigInt(self.0.number)
    }

    /// When it happened, in RFC 3339; for several, the first time.
    async fn at(&self) -> String {
        self.0.at.to_string()
    }

    /// How many times it happened. Like refusals of one caller share a row for an hour.
    async fn count(&self) -> BigInt {
        BigInt(self.0.count)
    }

    /// When it happened last, in RFC 3339.
    async fn last_at(&self) -> String {
        self.0.last_at().to_string()
    }

    /// Whether other targets than the named one were refused too.
    async fn other_targets(&self) -> bool {
        self.0.other_targets
    }

    /// The id of the caller's account; null for a caller who proved no account.
    async fn user(&self) -> Option<String> {
        self.0.user.map(|id| id.to_string())
    }

    /// The account's e-mail address at that time, or the one that the caller tried.
    async fn email(&self) -> &str {
        &self.0.email
    }

    /// The credential that the caller used: `keypair AKIA...`, `session`, `token ci`, `console`.
    async fn credential(&self) -> &str {
        &self.0.credential
    }

    /// The address that the request came from.
    async fn address(&self) -> Option<String> {
        self.0.address.map(|address| address.to_string())
    }

    /// The mutation's name.
    async fn action(&self) -> &str {
        &self.0.action
    }

    /// The target: a reference, a name, an e-mail address. For several, the first one.
    async fn target(&self) -> &str {
        &self.0.target
    }

    /// The outcome.
    async fn outcome(&self) -> AuditOutcome {
        self.0.outcome.into()
    }

    /// Why it was not done; for several, the reason of the first.
    async fn reason(&self) -> Option<&str> {
        self.0.reason.as_deref()
    }
}

/// A page of the audit log, newest row first.
pub(crate) struct AuditPage {
    rows: Vec<Entry>,
    more: bool,
}

#[Object(rename_fields = "snake_case")]
impl AuditPage {
    /// The rows.
    async fn items(&self) -> Vec<AuditEntry> {
        self.rows.iter().cloned().map(AuditEntry).collect()
    }

    /// The value of `before` for the next page; null on the last page.
    async fn next(&self) -> Option<BigInt> {
        self.rows.last().filter(|_| self.more).map(|entry| BigInt(entry.number))
    }
}

/// The queries.
#[derive(Default)]
pub(crate) struct AuditQuery;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl AuditQuery {
    /// Who did what, newest first. For super-admins. Arguments that are null filter nothing.
    #[expect(clippy::too_many_arguments, reason = "each is one thing to look for")]
    #[graphql(complexity = "LIST_COST + child_complexity")]
    async fn audit_log(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "By this e-mail address or user id.")] user: Option<String>,
        #[graphql(desc = "This mutation.")] action: Option<String>,
        #[graphql(desc = "On what contains this.")] target: Option<String>,
        #[graphql(desc = "With this outcome.")] outcome: Option<AuditOutcome>,
        #[graphql(desc = "Not before this moment, as in 2026-01-31T08:00:00Z.")] since: Option<String>,
        #[graphql(desc = "Before this moment.")] until: Option<String>,
        #[graphql(desc = "Only rows with a lower number: the `next` of the page before.")] before: Option<
            BigInt,
        >,
        #[graphql(desc = "How many; 100 if not given, 1000 at most.")] limit: Option<i32>,
    ) -> FieldResult<Option<AuditPage>> {
        let (caller, audit) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Audit>());
        let search = Search {
            user,
            action,
            target,
            outcome: outcome.map(Into::into),
            since: moment("since", since)?,
            until: moment("until", until)?,
            before: before.map(|number| number.0),
        };
        let (_, limit) = stretch(None, limit, PAGE, MAX_PAGE)?;
        let (rows, more) = audit.search(caller, search, limit).await?;
        Ok(Some(AuditPage { rows, more }))
    }
}

fn moment(field: &'static str, text: Option<String>) -> Result<Option<Timestamp>, Error> {
    let Some(text) = text else { return Ok(None) };
    let why = || format!("{:?} is no moment such as 2026-01-31T08:00:00Z", shown(&text));
    Timestamp::from_str(text.trim()).map(Some).map_err(|_| Error::invalid(field, why()))
}
