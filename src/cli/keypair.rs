//! `wharf keypair`: API credentials.

use clap::{ArgMatches, Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    base::secret::Secret,
    cli::{
        self,
        api::{Client, Outcome, given},
        connection::Connection,
        credentials::Made,
        failure::{Failure, Result},
        json,
        operation::{One, Operation, Set},
        table, text,
    },
};

/// Keypairs per request.
const PAGE: usize = 100;

/// List, add, change, rotate and remove keypairs: the credentials that scripts sign requests with
#[derive(Args)]
pub(crate) struct Keypair {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List the keypairs, without their secrets
    List {
        /// Only those of this user
        #[arg(long, value_name = "EMAIL")]
        user: Option<String>,
    },
    /// Add a keypair for a user; the secret key is shown once
    Add {
        /// The user's e-mail address
        user: String,
        /// How many requests it may make in 15 minutes; 0 for any number
        #[arg(long, value_name = "COUNT", default_value_t = 5000)]
        rate_limit: u32,
    },
    /// Change a keypair; what is not given stays
    Change {
        /// The access key
        #[arg(value_name = "ACCESS_KEY")]
        key: String,
        /// How many requests it may make in 15 minutes; 0 for any number
        #[arg(long, value_name = "COUNT")]
        rate_limit: Option<u32>,
        /// Whether it may be used
        #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
        active: Option<bool>,
    },
    /// Give a keypair a new secret key, shown once; the old one stops working
    Rotate {
        /// The access key
        #[arg(value_name = "ACCESS_KEY")]
        key: String,
    },
    /// Remove a keypair; it stops working
    Remove {
        /// The access key
        #[arg(value_name = "ACCESS_KEY")]
        key: String,
    },
}

/// A keypair as the API returns it.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    #[serde(deserialize_with = "json::text")]
    access_key: String,
    #[serde(deserialize_with = "json::text")]
    user_id: String,
    is_active: Option<bool>,
    #[serde(deserialize_with = "json::count")]
    rate_limit: u64,
    created_at: Option<String>,
    last_used: Option<String>,
}

const FILE: &str = include_str!("operations/keypair.graphql");
pub(crate) const LIST: Operation<Listed<'_>, Page> = Operation::new(FILE, "KeypairList", "keypair_list");
pub(crate) const CREATE: Operation<Set<'_>, Created> =
    Operation::new(FILE, "CreateKeypair", "create_keypair");
pub(crate) const MODIFY: Operation<Set<'_>, Outcome> =
    Operation::new(FILE, "ModifyKeypair", "modify_keypair");
pub(crate) const ROTATE: Operation<One<'_>, Created> =
    Operation::new(FILE, "RotateKeypair", "rotate_keypair");
pub(crate) const DELETE: Operation<One<'_>, Outcome> =
    Operation::new(FILE, "DeleteKeypair", "delete_keypair");

/// The filter and the page of the list of keypairs.
#[derive(Default, Serialize)]
pub(crate) struct Listed<'a> {
    limit: usize,
    offset: usize,
    email: Option<&'a str>,
}

#[derive(Deserialize)]
pub(crate) struct Page {
    #[serde(deserialize_with = "json::list")]
    items: Vec<Record>,
}

/// A keypair that was just made.
#[derive(Debug, Deserialize)]
pub(crate) struct Created {
    ok: bool,
    #[serde(deserialize_with = "json::text")]
    msg: String,
    keypair: Option<Pair>,
}

#[derive(Debug, Deserialize)]
struct Pair {
    access_key: String,
    secret_key: Secret,
    #[serde(default, deserialize_with = "json::text")]
    user_id: String,
}

impl Keypair {
    pub(crate) fn run(&self, matches: &ArgMatches) -> Result<()> {
        let client = Client::new(&self.connection, matches)?;
        cli::block_on(self.verb.run(&client, self.connection.json))
    }
}

impl Verb {
    async fn run(&self, client: &Client, as_json: bool) -> Result<()> {
        match self {
            Self::List { user } => list(client, user.as_deref(), as_json).await,
            Self::Add { user, rate_limit } => {
                let props =
                    json!({ "is_active": true, "rate_limit": rate_limit, "resource_policy": "default" });
                let made = client.ask_about(user, &CREATE, Set { id: user, props }).await?;
                shown_once(user, made, as_json)
            }
            Self::Change { key, rate_limit, active } => {
                let props = given(json!({ "rate_limit": rate_limit, "is_active": active }));
                let outcome = client.change(key, &MODIFY, Set { id: key, props }).await?;
                cli::done(&outcome, &format!("changed {key}"), as_json)
            }
            Self::Rotate { key } => {
                let made = client.ask_about(key, &ROTATE, One { id: key }).await?;
                shown_once(key, made, as_json)
            }
            Self::Remove { key } => {
                let outcome = client.change(key, &DELETE, One { id: key }).await?;
                cli::done(&outcome, &format!("removed {key}"), as_json)
            }
        }
    }
}

async fn list(client: &Client, user: Option<&str>, as_json: bool) -> Result<()> {
    let mut all: Vec<Record> = Vec::new();
    loop {
        let page = client.ask(&LIST, Listed { limit: PAGE, offset: all.len(), email: user }).await?;
        let is_last = page.items.len() < PAGE;
        all.extend(page.items);
        if is_last {
            break;
        }
    }
    if as_json {
        return json::print(&all);
    }
    let cells = all.into_iter().map(|pair| {
        let limit = if pair.rate_limit == 0 { "none".into() } else { pair.rate_limit.to_string() };
        let active = cli::yes_or_no(pair.is_active);
        vec![pair.access_key, pair.user_id, active, limit, text::moment(&pair.last_used.unwrap_or_default())]
    });
    cli::print(&table::rows(&["ACCESS KEY", "USER", "ACTIVE", "RATE LIMIT", "LAST USED"], cells))
}

fn shown_once(what: &str, made: Created, as_json: bool) -> Result<()> {
    let Some(pair) = made.keypair.filter(|_| made.ok) else {
        return Err(Failure::about(what, made.msg));
    };
    if as_json {
        return json::print(&json!({
            "ok": true, "access_key": pair.access_key, "secret_key": pair.secret_key.expose(),
        }));
    }
    let keypair = Some((pair.access_key.as_str(), &pair.secret_key));
    let made = Made { email: &pair.user_id, password: None, keypair, server: None };
    cli::print(&format!("A new secret key; it is not shown again.\n\n{made}"))
}
