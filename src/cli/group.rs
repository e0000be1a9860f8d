//! `wharf group`: projects and their members.

use clap::{ArgMatches, Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cli::{
    self,
    api::{Client, Outcome, given},
    connection::Connection,
    failure::{Failure, Result},
    json,
    operation::{One, Operation, Set},
    table,
};

/// List, add, change and remove groups (projects), and choose their members
#[derive(Args)]
pub(crate) struct Group {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List the groups
    List {
        /// Only those of this domain
        #[arg(long, value_name = "DOMAIN")]
        domain: Option<String>,
    },
    /// Add a group to a domain
    Add {
        /// Its name, unique in its domain
        name: String,
        /// The domain it belongs to
        #[arg(long, value_name = "DOMAIN", default_value = "default")]
        domain: String,
        /// What it is for
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// Change a group; what is not given stays
    Change {
        #[command(flatten)]
        which: Which,
        /// Another name
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// What it is for
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        /// Whether the group is active
        #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
        active: Option<bool>,
    },
    /// Make users members of a group
    Join {
        #[command(flatten)]
        which: Which,
        /// The users, by e-mail address
        #[arg(required = true, value_name = "EMAIL")]
        users: Vec<String>,
    },
    /// Take users out of a group
    Leave {
        #[command(flatten)]
        which: Which,
        /// The users, by e-mail address
        #[arg(required = true, value_name = "EMAIL")]
        users: Vec<String>,
    },
    /// Switch a group off, or with --purge remove it for good
    Remove {
        #[command(flatten)]
        which: Which,
        /// Remove it for good
        #[arg(long)]
        purge: bool,
    },
}

/// A group that exists.
#[derive(Args)]
struct Which {
    /// The group, by its name or id
    group: String,
    /// Its domain, if several domains have a group of this name
    #[arg(long, value_name = "DOMAIN")]
    domain: Option<String>,
}

/// A group as the API returns it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    #[serde(deserialize_with = "json::text")]
    id: String,
    #[serde(deserialize_with = "json::text")]
    name: String,
    #[serde(deserialize_with = "json::text")]
    description: String,
    is_active: Option<bool>,
    #[serde(deserialize_with = "json::text")]
    domain_name: String,
    #[serde(deserialize_with = "json::list")]
    scaling_groups: Vec<String>,
    created_at: Option<String>,
}

const FILE: &str = include_str!("operations/group.graphql");
pub(crate) const LIST: Operation<Within<'_>, json::List<Record>> = Operation::new(FILE, "Groups", "groups");
pub(crate) const CREATE: Operation<Set<'_>, Outcome> = Operation::new(FILE, "CreateGroup", "create_group");
pub(crate) const MODIFY: Operation<Set<'_>, Outcome> = Operation::new(FILE, "ModifyGroup", "modify_group");
pub(crate) const DELETE: Operation<One<'_>, Outcome> = Operation::new(FILE, "DeleteGroup", "delete_group");
pub(crate) const PURGE: Operation<One<'_>, Outcome> = Operation::new(FILE, "PurgeGroup", "purge_group");

/// The filter of the list of groups.
#[derive(Default, Serialize)]
pub(crate) struct Within<'a> {
    domain: Option<&'a str>,
}

impl Group {
    pub(crate) fn run(&self, matches: &ArgMatches) -> Result<()> {
        let client = Client::new(&self.connection, matches)?;
        cli::block_on(self.verb.run(&client, self.connection.json))
    }
}

impl Verb {
    async fn run(&self, client: &Client, as_json: bool) -> Result<()> {
        match self {
            Self::List { domain } => list(client, domain.as_deref(), as_json).await,
            Self::Add { name, domain, description } => {
                let props = given(json!({ "domain_name": domain, "description": description }));
                let outcome = client.change(name, &CREATE, Set { id: name, props }).await?;
                cli::done(&outcome, &format!("added {name} to {domain}"), as_json)
            }
            Self::Change { which, name, description, active } => {
                let props = given(json!({ "name": name, "description": description, "is_active": active }));
                which.modify(client, props, "changed", as_json).await
            }
            Self::Join { which, users } => which.members(client, "add", users, as_json).await,
            Self::Leave { which, users } => which.members(client, "remove", users, as_json).await,
            Self::Remove { which, purge } => which.remove(client, *purge, as_json).await,
        }
    }
}

async fn list(client: &Client, domain: Option<&str>, as_json: bool) -> Result<()> {
    let records = all(client, domain).await?;
    if as_json {
        return json::print(&records);
    }
    let headers = ["GROUP", "DOMAIN", "ACTIVE", "SCALING GROUPS", "ID", "DESCRIPTION"];
    let cells = records.into_iter().map(|group| {
        let active = cli::yes_or_no(group.is_active);
        vec![
            group.name,
            group.domain_name,
            active,
            group.scaling_groups.join(" "),
            group.id,
            group.description,
        ]
    });
    cli::print(&table::rows(&headers, cells))
}

async fn all(client: &Client, domain: Option<&str>) -> Result<Vec<Record>> {
    client.ask(&LIST, Within { domain }).await.map(|groups| groups.0)
}

/// The ids of the groups with these names in a domain.
pub(crate) async fn ids(client: &Client, domain: Option<&str>, names: &[String]) -> Result<Vec<String>> {
    let groups = if names.is_empty() { Vec::new() } else { all(client, domain).await? };
    names.iter().map(|name| one(&groups, name).map(|group| group.id.clone())).collect()
}

/// Finds the only group with this name or id.
fn one<'a>(groups: &'a [Record], wanted: &str) -> Result<&'a Record> {
    let mut found = groups.iter().filter(|group| group.name == wanted || group.id == wanted);
    match (found.next(), found.next()) {
        (Some(group), None) => Ok(group),
        (Some(_), Some(_)) => Err(Failure::failed(wanted, "several domains have a group of this name")
            .remedy("name the domain with --domain")),
        (None, _) => Err(Failure::failed(wanted, "no such group").remedy("see wharf group list")),
    }
}

impl Which {
    async fn id(&self, client: &Client) -> Result<String> {
        let groups = all(client, self.domain.as_deref()).await?;
        one(&groups, &self.group).map(|group| group.id.clone())
    }

    async fn modify(&self, client: &Client, props: Value, verb: &str, as_json: bool) -> Result<()> {
        let id = self.id(client).await?;
        let outcome = client.change(&self.group, &MODIFY, Set { id: &id, props }).await?;
        cli::done(&outcome, &format!("{verb} {}", self.group), as_json)
    }

    async fn members(&self, client: &Client, mode: &str, emails: &[String], as_json: bool) -> Result<()> {
        let mut ids = Vec::with_capacity(emails.len());
        for email in emails {
            ids.push(cli::user::id(client, email).await?);
        }
        let props = json!({ "user_update_mode": mode, "user_uuids": ids });
        self.modify(client, props, "changed the members of", as_json).await
    }

    async fn remove(&self, client: &Client, purge: bool, as_json: bool) -> Result<()> {
        let (operation, verb) = if purge { (&PURGE, "removed") } else { (&DELETE, "switched off") };
        let id = self.id(client).await?;
        let outcome = client.change(&self.group, operation, One { id: &id }).await?;
        cli::done(&outcome, &format!("{verb} {}", self.group), as_json)
    }
}
