//! `wharf audit`: which user did what.

use clap::{ArgMatches, Args, ValueEnum};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::cli::{
    self, api::Client, connection::Connection, failure::Result, json, operation::Operation, table,
};

/// Rows per request: the most that the server gives.
const PAGE: usize = 1_000;

/// Print the audit log: every change and attempt, with who, from where, on what, and what came of it
///
/// The newest row comes first. For super-admins.
#[derive(Args)]
pub(crate) struct Audit {
    #[command(flatten)]
    connection: Connection,
    /// Only by this user: e-mail address or id
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Only this mutation, such as alias_image
    #[arg(long, value_name = "NAME")]
    action: Option<String>,
    /// Only on what contains this text
    #[arg(long, value_name = "TEXT")]
    target: Option<String>,
    /// Only with this outcome
    #[arg(long, value_name = "OUTCOME")]
    outcome: Option<Outcome>,
    /// Not before this moment, or not longer ago than this: 2026-01-31T08:00:00Z, 90m, 12h, 7d
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    since: Option<Timestamp>,
    /// Before this moment, or longer ago than this
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    until: Option<Timestamp>,
    /// At most this many rows
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    limit: usize,
}

/// The outcome of a mutation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Outcome {
    /// It was done
    Done,
    /// It was not allowed
    Denied,
    /// It could not be done
    Failed,
}

impl Outcome {
    /// The outcome's name in the API.
    fn name(self) -> &'static str {
        match self {
            Self::Done => "DONE",
            Self::Denied => "DENIED",
            Self::Failed => "FAILED",
        }
    }
}

/// Reads a moment, or how long ago it is.
pub(crate) fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(moment) = text.parse() {
        return Ok(moment);
    }
    let wrong = || {
        format!("{text:?} is neither a moment such as 2026-01-31T08:00:00Z nor an age such as 90m, 12h, 7d")
    };
    let days = text.strip_suffix('d').and_then(|days| days.parse::<i64>().ok());
    let age = match days {
        Some(days) => days.checked_mul(24).map(SignedDuration::from_hours),
        None => text.parse().ok(),
    };
    age.and_then(|age| Timestamp::now().checked_sub(age).ok()).ok_or_else(wrong)
}

/// A row of the audit log, as the API returns it.
#[derive(Debug, Serialize, Deserialize)]
struct Row {
    #[serde(deserialize_with = "json::count")]
    number: u64,
    at: String,
    #[serde(default = "once", deserialize_with = "json::count")]
    count: u64,
    #[serde(default)]
    last_at: Option<String>,
    #[serde(default)]
    other_targets: bool,
    user: Option<String>,
    #[serde(deserialize_with = "json::text")]
    email: String,
    #[serde(deserialize_with = "json::text")]
    credential: String,
    address: Option<String>,
    #[serde(deserialize_with = "json::text")]
    action: String,
    #[serde(deserialize_with = "json::text")]
    target: String,
    #[serde(deserialize_with = "json::text")]
    outcome: String,
    reason: Option<String>,
}

fn once() -> u64 {
    1
}

#[derive(Deserialize)]
pub(crate) struct Page {
    #[serde(deserialize_with = "json::list")]
    items: Vec<Row>,
    next: Option<u64>,
}

pub(crate) const LOG: Operation<Asked<'_>, Page> =
    Operation::new(include_str!("operations/audit.graphql"), "AuditLog", "audit_log");

/// The filter and the page of the rows to fetch.
#[derive(Default, Serialize)]
pub(crate) struct Asked<'a> {
    user: Option<&'a str>,
    action: Option<&'a str>,
    target: Option<&'a str>,
    outcome: Option<&'static str>,
    since: Option<String>,
    until: Option<String>,
    before: Option<u64>,
    limit: usize,
}

impl Audit {
    pub(crate) fn run(&self, matches: &ArgMatches) -> Result<()> {
        let client = Client::new(&self.connection, matches)?;
        cli::block_on(async {
            let rows = self.rows(&client).await?;
            if self.connection.json { json::print(&rows) } else { show(rows) }
        })
    }

    async fn rows(&self, client: &Client) -> Result<Vec<Row>> {
        let (mut rows, mut before) = (Vec::new(), None);
        while rows.len() < self.limit {
            let asked = Asked {
                user: self.user.as_deref(),
                action: self.action.as_deref(),
                target: self.target.as_deref(),
                outcome: self.outcome.map(Outcome::name),
                since: self.since.map(|at| at.to_string()),
                until: self.until.map(|at| at.to_string()),
                before,
                limit: PAGE.min(self.limit - rows.len()),
            };
            let page = client.ask(&LOG, asked).await?;
            rows.extend(page.items);
            before = page.next;
            if before.is_none() {
                break;
            }
        }
        Ok(rows)
    }
}

fn show(rows: Vec<Row>) -> Result<()> {
    if rows.is_empty() {
        return if cli::is_for_people() { cli::print("Nothing like that is in the log.") } else { Ok(()) };
    }
    let headers = ["AT", "USER", "FROM", "ACTION", "ON", "OUTCOME", "WHY"];
    let cells = rows.into_iter().map(|row| {
        // Seconds are enough: the row's number orders events within a second.
        let shown =
            |at: String, format: &str| at.parse().map_or(at, |at: Timestamp| at.strftime(format).to_string());
        let mut outcome = row.outcome.to_lowercase();
        if row.count > 1 {
            let last = row.last_at.map(|at| shown(at, "%H:%M:%S")).unwrap_or_default();
            outcome = format!("{outcome} {} times until {last}", row.count);
        }
        let others = if row.other_targets { " and others" } else { "" };
        let from = row.address.unwrap_or(row.credential);
        let on = format!("{}{others}", row.target);
        let why = row.reason.unwrap_or_default();
        vec![shown(row.at, "%Y-%m-%d %H:%M:%S"), row.email, from, row.action, on, outcome, why]
    });
    cli::print(&table::rows(&headers, cells))
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};

    use super::moment;

    #[test]
    fn a_moment_is_a_date_or_an_age() {
        assert_eq!(moment("2026-01-31T08:00:00Z").unwrap().to_string(), "2026-01-31T08:00:00Z");
        for (text, hours) in [("12h", 12), ("7d", 7 * 24), ("90m", 1)] {
            let then = moment(text).unwrap();
            let age = Timestamp::now().duration_since(then);
            assert_eq!(age.as_hours(), SignedDuration::from_hours(hours).as_hours(), "{text}");
        }
        for text in ["", "yesterday", "2026-01-31", "99999999999999d"] {
            assert!(moment(text).is_err(), "{text}");
        }
    }
}
