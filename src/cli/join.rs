//! `wharf agent token`, `remove` and `drain`: how agents on other machines get in and out.

use clap::Subcommand;
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::cli::{
    self,
    api::{Client, given},
    failure::{Failure, Result},
    json, table, text,
};

#[derive(Subcommand)]
pub(crate) enum Token {
    /// Make a token that lets an agent on another machine join, and print it: it is shown this once
    Create {
        /// This agent only [default: any]
        #[arg(long, value_name = "ID")]
        id: Option<String>,
        /// Scaling group of the agents that join by it [default: what they ask for, or default]
        #[arg(long, value_name = "GROUP")]
        scaling_group: Option<String>,
        /// How long it is good, 30 days at most: 1h, 7d
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = lifetime)]
        expires: SignedDuration,
        /// How many agents may join by it
        #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        uses: u32,
    },
    /// List the tokens and what became of them; the secret part is not kept
    List,
    /// Take a token back; agents that joined by it stay
    Revoke {
        /// The token's id, as the list has it
        token: String,
    },
}

fn lifetime(text: &str) -> Result<SignedDuration, String> {
    // jiff has no days of 24 hours in a duration, and people mean nothing else by them.
    let days = text.strip_suffix('d').and_then(|days| days.trim().parse::<i64>().ok());
    let hours = days.and_then(|days| days.checked_mul(24)).filter(|hours| *hours <= 24 * 366);
    if let Some(hours) = hours {
        return Ok(SignedDuration::from_hours(hours));
    }
    text.parse().map_err(|_| "expected a time such as 30m, 1h or 7d".into())
}

/// A token as the API has it.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
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

/// What making one came to.
#[derive(Debug, Serialize, Deserialize)]
struct Made {
    ok: Option<bool>,
    msg: Option<String>,
    token: Option<String>,
    agent_token: Option<Record>,
}

const FIELDS: &str = "id state agent scaling_group uses_left used_by created_by created_at expires_at";

impl Token {
    pub(crate) async fn run(&self, client: &Client, as_json: bool) -> Result<()> {
        match self {
            Self::Create { id, scaling_group, expires, uses } => {
                let props = given(json!({
                    "id": id, "scaling_group": scaling_group, "expires_in": expires.as_secs(), "uses": uses,
                }));
                create(client, json!({ "props": props }), as_json).await
            }
            Self::List => list(client, as_json).await,
            Self::Revoke { token } => {
                let done = format!("revoked {token}");
                change(client, token, "revoke_agent_token", &done, as_json).await
            }
        }
    }
}

async fn create(client: &Client, variables: serde_json::Value, as_json: bool) -> Result<()> {
    let query = format!(
        "mutation($props: CreateAgentTokenInput) \
         {{ create_agent_token(props: $props) {{ ok msg code token agent_token {{ {FIELDS} }} }} }}"
    );
    let made: Made = client.ask("create_agent_token", &query, variables).await?;
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
            text::one_line(&until),
            text::one_line(token),
        ))?;
    }
    Ok(())
}

async fn list(client: &Client, as_json: bool) -> Result<()> {
    let query = format!("{{ agent_tokens {{ {FIELDS} }} }}");
    let tokens: Vec<Record> = client.ask("agent_tokens", &query, json!({})).await?;
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
            line(&self.expires_at, ""),
            line(&self.created_by, ""),
        ]
    }
}

/// Takes an agent out of the fleet.
pub(crate) async fn remove(client: &Client, id: &str, as_json: bool) -> Result<()> {
    change(client, id, "remove_agent", &format!("removed {id}; its credential is good no more"), as_json)
        .await
}

/// Lets an agent get no new images, or lets it get some again.
pub(crate) async fn drain(client: &Client, id: &str, undo: bool, as_json: bool) -> Result<()> {
    let query = "mutation($id: String!, $props: ModifyAgentInput!) \
        { modify_agent(id: $id, props: $props) { ok msg code } }";
    let variables = json!({ "id": id, "props": { "schedulable": undo } });
    let outcome = client.change(id, "modify_agent", query, variables).await?;
    if as_json {
        return json::print(&outcome);
    }
    let done = if undo { "takes new images again" } else { "gets no new images; what it has stays" };
    cli::print(&text::one_line(&format!("{id} {done}")))
}

async fn change(client: &Client, what: &str, field: &str, done: &str, as_json: bool) -> Result<()> {
    let query = format!("mutation($id: String!) {{ {field}(id: $id) {{ ok msg code }} }}");
    let outcome = client.change(what, field, &query, json!({ "id": what })).await?;
    if as_json { json::print(&outcome) } else { cli::print(&text::one_line(done)) }
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
