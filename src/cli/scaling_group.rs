//! `wharf scaling-group`: sets of agents, and the domains, groups and keypairs that may use them.

use clap::{ArgMatches, Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::cli::{
    self,
    api::{Client, Outcome, given},
    connection::Connection,
    failure::Result,
    group, json,
    operation::{One, Operation, Set},
    table,
};

/// List, add, change and remove scaling groups, and choose who may use them
#[derive(Args)]
pub(crate) struct ScalingGroup {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List the scaling groups
    List,
    /// Add a scaling group
    Add {
        /// Its name
        name: String,
        /// What it is for
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// Change a scaling group; what is not given stays
    Change {
        /// The scaling group
        name: String,
        /// What it is for
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        /// Whether the scaling group is active
        #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
        active: Option<bool>,
    },
    /// Remove a scaling group that is not in use
    Remove {
        /// The scaling group
        name: String,
    },
    /// Let a domain, a group or a keypair use a scaling group
    Allow {
        /// The scaling group
        name: String,
        #[command(flatten)]
        whom: Whom,
    },
    /// No longer let a domain, a group or a keypair use a scaling group
    Disallow {
        /// The scaling group
        name: String,
        #[command(flatten)]
        whom: Whom,
    },
}

/// The domain, group or keypair that may use a scaling group.
#[derive(Args)]
struct Whom {
    /// All groups of this domain; with --group, the group's domain
    #[arg(long, value_name = "DOMAIN", required_unless_present_any = ["group", "keypair"])]
    domain: Option<String>,
    /// This group, by its name or id
    #[arg(long, value_name = "GROUP", conflicts_with = "keypair")]
    group: Option<String>,
    /// This access key
    #[arg(long, value_name = "ACCESS_KEY", conflicts_with = "domain")]
    keypair: Option<String>,
}

/// A scaling group as the API returns it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    #[serde(deserialize_with = "json::text")]
    name: String,
    #[serde(deserialize_with = "json::text")]
    description: String,
    is_active: Option<bool>,
    created_at: Option<String>,
}

const FILE: &str = include_str!("operations/scaling_group.graphql");
pub(crate) const LIST: Operation<(), json::List<Record>> =
    Operation::new(FILE, "ScalingGroups", "scaling_groups");
pub(crate) const CREATE: Operation<Set<'_>, Outcome> =
    Operation::new(FILE, "CreateScalingGroup", "create_scaling_group");
pub(crate) const MODIFY: Operation<Set<'_>, Outcome> =
    Operation::new(FILE, "ModifyScalingGroup", "modify_scaling_group");
pub(crate) const DELETE: Operation<One<'_>, Outcome> =
    Operation::new(FILE, "DeleteScalingGroup", "delete_scaling_group");
pub(crate) const ALLOW_DOMAIN: Operation<Use<'_>, Outcome> =
    Operation::new(FILE, "AllowDomain", "associate_scaling_group_with_domain");
pub(crate) const ALLOW_GROUP: Operation<Use<'_>, Outcome> =
    Operation::new(FILE, "AllowGroup", "associate_scaling_group_with_user_group");
pub(crate) const ALLOW_KEYPAIR: Operation<Use<'_>, Outcome> =
    Operation::new(FILE, "AllowKeypair", "associate_scaling_group_with_keypair");
pub(crate) const DISALLOW_DOMAIN: Operation<Use<'_>, Outcome> =
    Operation::new(FILE, "DisallowDomain", "disassociate_scaling_group_with_domain");
pub(crate) const DISALLOW_GROUP: Operation<Use<'_>, Outcome> =
    Operation::new(FILE, "DisallowGroup", "disassociate_scaling_group_with_user_group");
pub(crate) const DISALLOW_KEYPAIR: Operation<Use<'_>, Outcome> =
    Operation::new(FILE, "DisallowKeypair", "disassociate_scaling_group_with_keypair");

/// The variables that allow or disallow the use of a scaling group.
#[derive(Default, Serialize)]
pub(crate) struct Use<'a> {
    pub(crate) id: &'a str,
    pub(crate) whom: &'a str,
}

impl ScalingGroup {
    pub(crate) fn run(&self, matches: &ArgMatches) -> Result<()> {
        let client = Client::new(&self.connection, matches)?;
        cli::block_on(self.verb.run(&client, self.connection.json))
    }
}

impl Verb {
    async fn run(&self, client: &Client, as_json: bool) -> Result<()> {
        match self {
            Self::List => list(client, as_json).await,
            Self::Add { name, description } => {
                let props = given(json!({
                    "description": description, "driver": "static", "scheduler": "fifo",
                }));
                let outcome = client.change(name, &CREATE, Set { id: name, props }).await?;
                cli::done(&outcome, &format!("added {name}"), as_json)
            }
            Self::Change { name, description, active } => {
                let props = given(json!({ "description": description, "is_active": active }));
                let outcome = client.change(name, &MODIFY, Set { id: name, props }).await?;
                cli::done(&outcome, &format!("changed {name}"), as_json)
            }
            Self::Remove { name } => {
                let outcome = client.change(name, &DELETE, One { id: name }).await?;
                cli::done(&outcome, &format!("removed {name}"), as_json)
            }
            Self::Allow { name, whom } => whom.set(client, name, true, as_json).await,
            Self::Disallow { name, whom } => whom.set(client, name, false, as_json).await,
        }
    }
}

async fn list(client: &Client, as_json: bool) -> Result<()> {
    let records = client.ask(&LIST, ()).await?.0;
    if as_json {
        return json::print(&records);
    }
    let cells = records.into_iter().map(|record| {
        let active = cli::yes_or_no(record.is_active);
        vec![record.name, active, record.description]
    });
    cli::print(&table::rows(&["SCALING GROUP", "ACTIVE", "DESCRIPTION"], cells))
}

impl Whom {
    async fn set(&self, client: &Client, name: &str, is_allowed: bool, as_json: bool) -> Result<()> {
        let (allow, disallow, whom, shown) = if let Some(group) = &self.group {
            let wanted = std::slice::from_ref(group);
            let id = group::ids(client, self.domain.as_deref(), wanted).await?.pop().unwrap_or_default();
            (ALLOW_GROUP, DISALLOW_GROUP, id, format!("group {group}"))
        } else if let Some(access_key) = &self.keypair {
            (ALLOW_KEYPAIR, DISALLOW_KEYPAIR, access_key.clone(), format!("keypair {access_key}"))
        } else {
            let domain = self.domain.clone().unwrap_or_default();
            let shown = format!("domain {domain}");
            (ALLOW_DOMAIN, DISALLOW_DOMAIN, domain, shown)
        };
        let (operation, said) = if is_allowed { (allow, "allowed") } else { (disallow, "no longer allowed") };
        let outcome = client.change(name, &operation, Use { id: name, whom: &whom }).await?;
        cli::done(&outcome, &format!("{shown}: {said} to use {name}"), as_json)
    }
}
