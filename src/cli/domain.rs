//! `wharf domain`: tenants, and the registries whose images they may see.

use clap::{ArgMatches, Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::cli::{
    self,
    api::{Client, Outcome, given},
    connection::Connection,
    failure::{Failure, Result},
    json,
    operation::{One, Operation, Set},
    registry, table,
};

/// List, add, change and remove domains, and choose the registries whose images they may see
#[derive(Args)]
pub(crate) struct Domain {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List the domains
    List,
    /// Add a domain
    Add {
        /// Its name
        name: String,
        #[command(flatten)]
        settings: Settings,
    },
    /// Change a domain; what is not given stays
    Change {
        /// The domain
        name: String,
        #[command(flatten)]
        settings: Settings,
        /// Registry whose images its users may no longer see; may be repeated
        #[arg(long, value_name = "HOST", value_delimiter = ',', value_parser = registry::host)]
        disallow: Vec<String>,
        /// Whether its users see any image
        #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
        active: Option<bool>,
    },
    /// Switch a domain off, or with --purge remove it for good
    Remove {
        /// The domain
        name: String,
        /// Remove it for good
        #[arg(long)]
        purge: bool,
    },
}

/// The settings of a domain.
#[derive(Args)]
struct Settings {
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Registry whose images its users may see, besides those allowed already; may be repeated
    #[arg(long, value_name = "HOST", value_delimiter = ',', value_parser = registry::host)]
    allow: Vec<String>,
}

/// A domain as the API returns it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    #[serde(deserialize_with = "json::text")]
    name: String,
    #[serde(deserialize_with = "json::text")]
    description: String,
    is_active: Option<bool>,
    #[serde(deserialize_with = "json::list")]
    allowed_docker_registries: Vec<String>,
    #[serde(deserialize_with = "json::list")]
    scaling_groups: Vec<String>,
    created_at: Option<String>,
}

const FILE: &str = include_str!("operations/domain.graphql");
pub(crate) const LIST: Operation<(), json::List<Record>> = Operation::new(FILE, "Domains", "domains");
pub(crate) const SHOW: Operation<One<'_>, Record> = Operation::new(FILE, "Domain", "domain");
pub(crate) const CREATE: Operation<Set<'_>, Outcome> = Operation::new(FILE, "CreateDomain", "create_domain");
pub(crate) const MODIFY: Operation<Set<'_>, Outcome> = Operation::new(FILE, "ModifyDomain", "modify_domain");
pub(crate) const DELETE: Operation<One<'_>, Outcome> = Operation::new(FILE, "DeleteDomain", "delete_domain");
pub(crate) const PURGE: Operation<One<'_>, Outcome> = Operation::new(FILE, "PurgeDomain", "purge_domain");

impl Domain {
    pub(crate) fn run(&self, matches: &ArgMatches) -> Result<()> {
        let client = Client::new(&self.connection, matches)?;
        cli::block_on(self.verb.run(&client, self.connection.json))
    }
}

impl Verb {
    async fn run(&self, client: &Client, as_json: bool) -> Result<()> {
        match self {
            Self::List => list(client, as_json).await,
            Self::Add { name, settings } => {
                let props = json!({
                    "description": settings.description, "allowed_docker_registries": settings.allow,
                });
                let outcome = client.change(name, &CREATE, Set { id: name, props: given(props) }).await?;
                cli::done(&outcome, &format!("added {name}"), as_json)
            }
            Self::Change { name, settings, disallow, active } => {
                let registries = match (settings.allow.as_slice(), disallow.as_slice()) {
                    ([], []) => None,
                    (allow, disallow) => Some(registries(client, name, allow, disallow).await?),
                };
                let props = json!({
                    "description": settings.description, "is_active": active,
                    "allowed_docker_registries": registries,
                });
                let outcome = client.change(name, &MODIFY, Set { id: name, props: given(props) }).await?;
                cli::done(&outcome, &format!("changed {name}"), as_json)
            }
            Self::Remove { name, purge } => {
                let (operation, verb) = if *purge { (&PURGE, "removed") } else { (&DELETE, "switched off") };
                let outcome = client.change(name, operation, One { id: name }).await?;
                cli::done(&outcome, &format!("{verb} {name}"), as_json)
            }
        }
    }
}

async fn list(client: &Client, as_json: bool) -> Result<()> {
    let records = client.ask(&LIST, ()).await?.0;
    if as_json {
        return json::print(&records);
    }
    let headers = ["DOMAIN", "ACTIVE", "REGISTRIES", "SCALING GROUPS", "DESCRIPTION"];
    let cells = records.into_iter().map(|domain| {
        let registries = domain.allowed_docker_registries.join(" ");
        let active = cli::yes_or_no(domain.is_active);
        vec![domain.name, active, registries, domain.scaling_groups.join(" "), domain.description]
    });
    cli::print(&table::rows(&headers, cells))
}

/// The registries that a domain may see after these changes. The API takes the whole list; `[""]` empties it, because
/// old clients send an empty list to leave it unchanged.
async fn registries(
    client: &Client,
    name: &str,
    allow: &[String],
    disallow: &[String],
) -> Result<Vec<String>> {
    let found = client.find(name, &SHOW, One { id: name }).await?;
    let domain =
        found.ok_or_else(|| Failure::failed(name, "no such domain").remedy("see wharf domain list"))?;
    let mut all = domain.allowed_docker_registries;
    all.extend(allow.iter().filter(|host| !disallow.contains(host)).cloned());
    all.retain(|host| !disallow.contains(host));
    all.sort_unstable();
    all.dedup();
    Ok(if all.is_empty() { vec![String::new()] } else { all })
}
