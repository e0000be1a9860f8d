//! `wharf token`: personal API tokens.

use clap::{ArgMatches, Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    base::secret::Secret,
    cli::{
        self,
        api::{Client, Outcome},
        connection::Connection,
        failure::{Failure, Result},
        json,
        operation::{One, Operation},
        table, text,
    },
};

/// List, create and revoke your API tokens: credentials for one program, sent as Authorization: Bearer
#[derive(Args)]
pub(crate) struct Token {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List the tokens, without their secrets
    List {
        /// The tokens of another user; for super-admins
        #[arg(long, value_name = "EMAIL")]
        user: Option<String>,
    },
    /// Create a token; it is shown once
    Create {
        /// What it is for, so that you recognize it later
        name: String,
        /// What it may do
        #[arg(long, value_name = "SCOPE", value_parser = ["read", "full"], default_value = "read")]
        scope: String,
        /// Number of days after which it stops working
        #[arg(long, value_name = "DAYS", default_value_t = 90)]
        expires_in_days: u32,
    },
    /// Revoke a token; it stops working
    Revoke {
        /// The token's id, as wharf token list shows it
        id: String,
    },
}

/// A token as the API returns it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    #[serde(deserialize_with = "json::text")]
    id: String,
    #[serde(deserialize_with = "json::text")]
    name: String,
    #[serde(deserialize_with = "json::text")]
    scope: String,
    created_at: Option<String>,
    expires_at: Option<String>,
    last_used: Option<String>,
}

const FILE: &str = include_str!("operations/token.graphql");
pub(crate) const LIST: Operation<Whose<'_>, json::List<Record>> =
    Operation::new(FILE, "ApiTokens", "api_tokens");
pub(crate) const CREATE: Operation<New<'_>, Created> =
    Operation::new(FILE, "CreateApiToken", "create_api_token");
pub(crate) const REVOKE: Operation<One<'_>, Outcome> =
    Operation::new(FILE, "RevokeApiToken", "revoke_api_token");

/// The user whose tokens are listed.
#[derive(Default, Serialize)]
pub(crate) struct Whose<'a> {
    user: Option<&'a str>,
}

/// The properties of a new token.
#[derive(Default, Serialize)]
pub(crate) struct New<'a> {
    name: &'a str,
    scope: &'a str,
    days: u32,
}

/// The answer to creating a token.
#[derive(Deserialize)]
pub(crate) struct Created {
    ok: bool,
    #[serde(deserialize_with = "json::text")]
    msg: String,
    token: Option<Secret>,
}

impl Token {
    pub(crate) fn run(&self, matches: &ArgMatches) -> Result<()> {
        let client = Client::new(&self.connection, matches)?;
        let as_json = self.connection.json;
        cli::block_on(async {
            match &self.verb {
                Verb::List { user } => list(&client, user.as_deref(), as_json).await,
                Verb::Create { name, scope, expires_in_days } => {
                    create(&client, name, scope, *expires_in_days, as_json).await
                }
                Verb::Revoke { id } => {
                    let outcome = client.change(id, &REVOKE, One { id }).await?;
                    cli::done(&outcome, &format!("revoked {id}"), as_json)
                }
            }
        })
    }
}

async fn list(client: &Client, user: Option<&str>, as_json: bool) -> Result<()> {
    let records = client.ask(&LIST, Whose { user }).await?.0;
    if as_json {
        return json::print(&records);
    }
    if records.is_empty() && cli::is_for_people() {
        return cli::print("No token yet; create one with: wharf token create NAME");
    }
    let cells = records.into_iter().map(|token| {
        let moment = |at: Option<String>| text::moment(&at.unwrap_or_default());
        vec![token.name, token.scope, moment(token.expires_at), moment(token.last_used), token.id]
    });
    cli::print(&table::rows(&["NAME", "SCOPE", "EXPIRES", "LAST USED", "ID"], cells))
}

async fn create(client: &Client, name: &str, scope: &str, days: u32, as_json: bool) -> Result<()> {
    let made = client.ask_about(name, &CREATE, New { name, scope, days }).await?;
    let Some(token) = made.token.filter(|_| made.ok) else {
        return Err(Failure::failed(name, made.msg));
    };
    if as_json {
        return json::print(&json!({ "ok": true, "name": name, "token": token.expose() }));
    }
    cli::note("Send it as \"Authorization: Bearer …\"; it is not shown again.");
    cli::print(token.expose())
}
