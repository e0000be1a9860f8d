//! `wharf scaling-group`: sets of agents, and who may use them.

use clap::{ArgMatches, Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cli::{
    self,
    api::{Client, given},
    connection::Connection,
    failure::Result,
    group, json, table,
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
        /// Whether it counts
        #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
        active: Option<bool>,
    },
    /// Remove a scaling group that nobody uses
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

/// Who may use a scaling group.
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

/// A scaling group as the API has it.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    #[serde(deserialize_with = "json::text")]
    name: String,
    #[serde(deserialize_with = "json::text")]
    description: String,
    is_active: Option<bool>,
    created_at: Option<String>,
}

const FIELDS: &str = "name description is_active created_at";

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
                let query = "mutation($name: String!, $props: CreateScalingGroupInput!) \
                    { create_scaling_group(name: $name, props: $props) { ok msg code } }";
                let props = given(json!({
                    "description": description, "driver": "static", "scheduler": "fifo",
                }));
                let variables = json!({ "name": name, "props": props });
                let outcome = client.change(name, "create_scaling_group", query, variables).await?;
                cli::done(&outcome, &format!("added {name}"), as_json)
            }
            Self::Change { name, description, active } => {
                let query = "mutation($name: String!, $props: ModifyScalingGroupInput!) \
                    { modify_scaling_group(name: $name, props: $props) { ok msg code } }";
                let props = given(json!({ "description": description, "is_active": active }));
                let variables = json!({ "name": name, "props": props });
                let outcome = client.change(name, "modify_scaling_group", query, variables).await?;
                cli::done(&outcome, &format!("changed {name}"), as_json)
            }
            Self::Remove { name } => {
                let query = "mutation($name: String!) { delete_scaling_group(name: $name) { ok msg code } }";
                let outcome =
                    client.change(name, "delete_scaling_group", query, json!({ "name": name })).await?;
                cli::done(&outcome, &format!("removed {name}"), as_json)
            }
            Self::Allow { name, whom } => whom.set(client, name, "associate", "allowed", as_json).await,
            Self::Disallow { name, whom } => {
                whom.set(client, name, "disassociate", "no longer allowed", as_json).await
            }
        }
    }
}

async fn list(client: &Client, as_json: bool) -> Result<()> {
    let query = format!("query {{ scaling_groups {{ {FIELDS} }} }}");
    let found: Option<Vec<Option<Record>>> = client.ask("scaling_groups", &query, json!({})).await?;
    let records: Vec<_> = found.unwrap_or_default().into_iter().flatten().collect();
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
    async fn set(&self, client: &Client, name: &str, verb: &str, said: &str, as_json: bool) -> Result<()> {
        let (kind, argument, ty, whom, shown) = self.argument(client).await?;
        let field = format!("{verb}_scaling_group_with_{kind}");
        let query = format!(
            "mutation($name: String!, $whom: {ty}!) {{ {field}(scaling_group: $name, {argument}: $whom) {{ ok msg code }} }}"
        );
        let outcome = client.change(name, &field, &query, json!({ "name": name, "whom": whom })).await?;
        cli::done(&outcome, &format!("{shown}: {said} to use {name}"), as_json)
    }

    /// The mutation's ending, its argument with its type and value, and how to name it to people.
    async fn argument(
        &self,
        client: &Client,
    ) -> Result<(&'static str, &'static str, &'static str, Value, String)> {
        if let Some(group) = &self.group {
            let wanted = std::slice::from_ref(group);
            let id = group::ids(client, self.domain.as_deref(), wanted).await?.pop();
            return Ok(("user_group", "user_group", "UUID", json!(id), format!("group {group}")));
        }
        if let Some(access_key) = &self.keypair {
            return Ok((
                "keypair",
                "access_key",
                "String",
                json!(access_key),
                format!("keypair {access_key}"),
            ));
        }
        let domain = self.domain.as_deref().unwrap_or_default();
        Ok(("domain", "domain", "String", json!(domain), format!("domain {domain}")))
    }
}
