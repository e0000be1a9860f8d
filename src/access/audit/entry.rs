//! A row of the audit log, and the search for rows.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::base::Error;
use crate::base::ids::UserId;

/// Longest reason that is kept, in characters: enough for the sentence, not for a list.
const MAX_REASON: usize = 500;
/// How long similar refusals are counted in one row.
pub(super) const RUN: SignedDuration = SignedDuration::from_hours(1);

/// The outcome of a mutation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// It was done, or accepted as a task.
    Done,
    /// The caller may not do it.
    Denied,
    /// It could not be done; nothing was changed.
    Failed,
}

/// A row of the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Its number, higher than that of every earlier row.
    pub(crate) number: u64,
    /// When it happened, the first time.
    pub(crate) at: Timestamp,
    /// The account that did it; `None` for a client that proved no identity.
    pub(crate) user: Option<UserId>,
    /// The account's e-mail address at that time, or the one that was tried.
    pub(crate) email: String,
    /// What proved the identity: `keypair AKIA…`, `session`, `token ci`, `console`.
    pub(crate) credential: String,
    /// Where the request came from.
    pub(crate) address: Option<IpAddr>,
    /// The mutation's name.
    pub(crate) action: String,
    /// What the mutation was for, the first time: a reference, a name, an e-mail address.
    pub(crate) target: String,
    /// The mutation's outcome.
    pub(crate) outcome: Outcome,
    /// Why it was not done, the first time.
    pub(crate) reason: Option<String>,
    /// How many times it happened: similar refusals share a row.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub(crate) count: u64,
    /// When it happened the last time, if it happened several times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last: Option<Timestamp>,
    /// Whether some of the times were for other targets.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) other_targets: bool,
}

fn once() -> u64 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_once(count: &u64) -> bool {
    *count == 1
}

impl Entry {
    /// When it happened the last time.
    pub(crate) fn last_at(&self) -> Timestamp {
        self.last.unwrap_or(self.at)
    }

    /// This row with its outcome: the error, or done.
    pub(super) fn ended(self, error: Option<&Error>) -> Self {
        let outcome = match error {
            None => Outcome::Done,
            Some(Error::Denied(_) | Error::Unauthenticated) => Outcome::Denied,
            Some(_) => Outcome::Failed,
        };
        let reason = error.map(|error| error.to_string().chars().take(MAX_REASON).collect());
        Self { outcome, reason, ..self }
    }

    /// This row, with the times of `more` counted in.
    pub(super) fn and(self, more: &Self) -> Self {
        Self {
            count: self.count.saturating_add(more.count),
            last: Some(self.last_at().max(more.last_at())),
            other_targets: self.other_targets || more.other_targets || self.target != more.target,
            ..self
        }
    }
}

/// A search in the log; a field that is `None` does not restrict it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Search {
    /// Rows of this e-mail address or user id.
    pub(crate) user: Option<String>,
    /// Rows of this mutation.
    pub(crate) action: Option<String>,
    /// Rows whose target contains this text.
    pub(crate) target: Option<String>,
    /// Rows with this outcome.
    pub(crate) outcome: Option<Outcome>,
    /// Rows at this time or later.
    pub(crate) since: Option<Timestamp>,
    /// Rows before this time.
    pub(crate) until: Option<Timestamp>,
    /// Rows with a lower number, for the next page.
    pub(crate) before: Option<u64>,
}

impl Search {
    pub(super) fn takes(&self, entry: &Entry) -> bool {
        let is =
            |wanted: &Option<String>, given: &str| wanted.as_deref().is_none_or(|wanted| wanted == given);
        let by = |wanted: &str| {
            entry.email.eq_ignore_ascii_case(wanted)
                || entry.user.is_some_and(|id| id.to_string().eq_ignore_ascii_case(wanted))
        };
        self.user.as_deref().is_none_or(by)
            && is(&self.action, &entry.action)
            && self.target.as_deref().is_none_or(|part| entry.target.contains(part))
            && self.outcome.is_none_or(|outcome| outcome == entry.outcome)
            && self.since.is_none_or(|since| entry.last_at() >= since)
            && self.until.is_none_or(|until| entry.at < until)
    }

    /// Whether this row and all earlier ones are from before the searched time.
    pub(super) fn is_past(&self, entry: &Entry) -> bool {
        let earliest = self.since.and_then(|since| since.checked_sub(RUN).ok());
        earliest.is_some_and(|earliest| entry.at < earliest)
    }
}
