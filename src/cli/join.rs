//! `wharf agent token` and `wharf agent remove`: how agents on other machines join and are removed.

use clap::Subcommand;
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cli::{
    self,
    api::{Client, Outcome, given},
    failure::{Failure, Result},
    json,
    operation::{One, Operation},
    table, text,
};

#[derive(Subcommand)]
pub(crate) enum Token {
    /// Make a token with which an agent on another machine can join, and print it: it is shown only once
    Create {
        /// This agent only [default: any]
        #[arg(long, value_name = "ID")]
        id: Option<String>,
        /// Scaling group of the agents that join with it [default: what they ask for, or default]
        #[arg(long, value_name = "GROUP")]
        scaling_group: Option<String>,
        /// How long it is valid, 30 days at most: 1h, 7d
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = lifetime)]
        expires: SignedDuration,
        /// How many agents may join with it
        #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        uses: u32,
    },
    /// List the tokens and what became of them; the secret part is not kept
    List,
    /// Revoke a token; agents that joined with it stay
    Revoke {
        /// The token's id, as the list shows it
        token: String,
    },
}

fn lifetime(text: &str) -> Result<SignedDuration, String> {
    // jiff accepts no days in a duration; here, a day is 24 hours.
    let days = text.strip_suffix('d').and_then(|days| days.trim().parse::<i64>().ok());
    let hours = days.and_then(|days| days.checked_mul(24)).filter(|hours| *hours <= 24 * 366);
    if let Some(hours) = hours {
        return Ok(SignedDuration::from_hours(hours));
    }
    text.parse().map_err(|_| "expected a time such as 30m, 1h or 7d".into())
}

/// A token as the API returns it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    #[serde(deserialize_with = "json::text")]
    id: String,
    #[serde(deserialize_with = "json::text")]
    state: String,
    agent: Option<String>,
    scaling_group: Option<String>,
    #[serde(deserialize_with = "json::count")]
    uses_left: u64,
    used_by: Option<String>,
    created_by: Option<String>,
    created_at: Option<String>,
    expires_at: Option<String>,
}

/// The answer to making a token.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Made {
    ok: Option<bool>,
    msg: Option<String>,
    token: Option<String>,
    agent_token: Option<Record>,
}

const FILE: &str = include_str!("operations/agent.graphql");
pub(crate) const LIST: Operation<(), json::List<Record>> =
    Operation::new(FILE, "AgentTokens", "agent_tokens");
pub(crate) const CREATE: Operation<New, Made> =
    Operation::new(FILE, "CreateAgentToken", "create_agent_token");
pub(crate) const REVOKE: Operation<One<'_>, Outcome> =
    Operation::new(FILE, "RevokeAgentToken", "revoke_agent_token");
pub(crate) const REMOVE: Operation<One<'_>, Outcome> = Operation::new(FILE, "RemoveAgent", "remove_agent");

/// The properties of a new token.
#[derive(Default, Serialize)]
pub(crate) struct New {
    props: Value,
}

impl Token {
    pub(crate) async fn run(&self, client: &Client, as_json: bool) -> Result<()> {
        match self {
            Self::Create { id, scaling_group, expires, uses } => {
                let props = given(json!({
                    "id": id, "scaling_group": scaling_group, "expires_in": expires.as_secs(), "uses": uses,
                }));
                create(client, props, as_json).await
            }
            Self::List => list(client, as_json).await,
            Self::Revoke { token } => {
                let outcome = client.change(token, &REVOKE, One { id: token }).await?;
                cli::done(&outcome, &format!("revoked {token}"), as_json)
            }
        }
    }
}

async fn create(client: &Client, props: Value, as_json: bool) -> Result<()> {
    let made = client.ask(&CREATE, New { props }).await?;
    let (Some(true), Some(token)) = (made.ok, &made.token) else {
        return Err(Failure::failed("token", made.msg.unwrap_or_else(|| "the server says nothing".into())));
    };
    if as_json {
        return json::print(&made);
    }
    cli::print(&text::one_line(token))?;
    if cli::is_for_people() {
        let until = made.agent_token.and_then(|token| token.expires_at).unwrap_or_default();
        let server = client.name();
        cli::print(&format!(
            "\nIt is not shown again, and is good until {}. On the node:\n  \
             WHARF_TOKEN={} wharf agent --manager {server}",
            text::one_line(&text::moment(&until)),
            text::one_line(token),
        ))?;
    }
    Ok(())
}

async fn list(client: &Client, as_json: bool) -> Result<()> {
    let tokens = client.ask(&LIST, ()).await?.0;
    if as_json {
        return json::print(&tokens);
    }
    if tokens.is_empty() && cli::is_for_people() {
        return cli::print("No token; make one: wharf agent token create");
    }
    let headers = ["TOKEN", "STATE", "FOR", "GROUP", "LEFT", "USED BY", "EXPIRES", "MADE BY"];
    cli::print(&table::rows(&headers, tokens.iter().map(Record::cells)))
}

impl Record {
    fn cells(&self) -> Vec<String> {
        let line = |text: &Option<String>, none: &str| text::one_line(text.as_deref().unwrap_or(none));
        vec![
            text::one_line(&self.id),
            text::one_line(&self.state),
            line(&self.agent, "any"),
            line(&self.scaling_group, "any"),
            self.uses_left.to_string(),
            line(&self.used_by, "-"),
            text::one_line(&text::moment(self.expires_at.as_deref().unwrap_or_default())),
            line(&self.created_by, ""),
        ]
    }
}

/// Removes an agent.
pub(crate) async fn remove(client: &Client, id: &str, as_json: bool) -> Result<()> {
    let outcome = client.change(id, &REMOVE, One { id }).await?;
    cli::done(&outcome, &format!("removed {id}; its credential is good no more"), as_json)
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use crate::cli::join::lifetime;

    #[test]
    fn a_lifetime_is_written_as_people_do() {
        assert_eq!(lifetime("1h"), Ok(SignedDuration::from_hours(1)));
        assert_eq!(lifetime("90m"), Ok(SignedDuration::from_mins(90)));
        assert_eq!(lifetime("7d"), Ok(SignedDuration::from_hours(168)));
        for text in ["", "soon", "1", "9999999999999d"] {
            assert!(lifetime(text).is_err(), "{text}");
        }
    }
}
