//! `wharf user`: accounts.

use clap::{ArgMatches, Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    base::secret::Secret,
    cli::{
        self,
        api::{Client, Outcome, given},
        connection::Connection,
        credentials::Made,
        failure::{Failure, Result},
        group, json,
        operation::{One, Operation, Set},
        password,
        reset_password::ResetPassword,
        table,
    },
};

/// Users per request.
const PAGE: usize = 100;

/// List, add, change and remove users; give them new credentials when those are lost
#[derive(Args)]
pub(crate) struct User {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List the users
    List {
        /// Only those of this domain
        #[arg(long, value_name = "DOMAIN")]
        domain: Option<String>,
        /// Only members of this group
        #[arg(long, value_name = "GROUP")]
        group: Option<String>,
        /// Only those with this status
        #[arg(long, value_name = "STATUS", value_parser = STATUS)]
        status: Option<String>,
    },
    /// Show one user, with the user's groups
    Show {
        /// The user's e-mail address
        email: String,
    },
    /// Add a user with a keypair; the secret key is shown once
    Add {
        /// The e-mail address to sign in with
        email: String,
        #[command(flatten)]
        settings: Settings,
    },
    /// Change a user; what is not given stays
    Change {
        /// The user's e-mail address
        email: String,
        #[command(flatten)]
        settings: Settings,
        /// Whether the account may be used
        #[arg(long, value_name = "STATUS", value_parser = ["active", "inactive"])]
        status: Option<String>,
    },
    /// Switch a user off, or with --purge remove the account for good
    Remove {
        /// The user's e-mail address
        email: String,
        /// Remove it for good, with its keypairs and memberships
        #[arg(long)]
        purge: bool,
    },
    ResetPassword(ResetPassword),
}

const STATUS: [&str; 4] = ["active", "inactive", "before-verification", "deleted"];

/// The settings of a user.
#[derive(Args)]
struct Settings {
    /// What the user may do [default when adding: user]
    #[arg(long, value_name = "ROLE", value_parser = ["superadmin", "admin", "user", "monitor"])]
    role: Option<String>,
    /// The domain the user belongs to [default when adding: default]
    #[arg(long, value_name = "DOMAIN")]
    domain: Option<String>,
    /// Group the user is a member of; may be repeated; replaces all earlier ones
    #[arg(long, value_name = "GROUP", value_delimiter = ',')]
    group: Vec<String>,
    /// A short name for the user [default when adding: the e-mail address]
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// The person's name
    #[arg(long, value_name = "NAME")]
    full_name: Option<String>,
    /// A note for other admins
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Read the password from stdin [default when adding: one is generated and shown once]
    #[arg(long)]
    password_stdin: bool,
}

/// A user as the API returns it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    #[serde(deserialize_with = "json::text")]
    uuid: String,
    #[serde(deserialize_with = "json::text")]
    email: String,
    username: Option<String>,
    full_name: Option<String>,
    description: Option<String>,
    #[serde(deserialize_with = "json::text")]
    role: String,
    #[serde(deserialize_with = "json::text")]
    status: String,
    #[serde(deserialize_with = "json::text")]
    domain_name: String,
    #[serde(deserialize_with = "json::list")]
    groups: Vec<Membership>,
    main_access_key: Option<String>,
    created_at: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Membership {
    #[serde(deserialize_with = "json::text")]
    id: String,
    #[serde(deserialize_with = "json::text")]
    name: String,
}

const FILE: &str = include_str!("operations/user.graphql");
pub(crate) const LIST: Operation<Listed<'_>, Page> = Operation::new(FILE, "UserList", "user_list");
pub(crate) const SHOW: Operation<One<'_>, Record> = Operation::new(FILE, "User", "user");
pub(crate) const CREATE: Operation<Set<'_>, Created> = Operation::new(FILE, "CreateUser", "create_user");
pub(crate) const MODIFY: Operation<Set<'_>, Outcome> = Operation::new(FILE, "ModifyUser", "modify_user");
pub(crate) const DELETE: Operation<One<'_>, Outcome> = Operation::new(FILE, "DeleteUser", "delete_user");
pub(crate) const PURGE: Operation<Set<'_>, Outcome> = Operation::new(FILE, "PurgeUser", "purge_user");

/// The filter and the page of the list of users.
#[derive(Default, Serialize)]
pub(crate) struct Listed<'a> {
    limit: usize,
    offset: usize,
    domain: Option<&'a str>,
    group: Option<&'a str>,
    status: Option<&'a str>,
}

#[derive(Deserialize)]
pub(crate) struct Page {
    #[serde(deserialize_with = "json::list")]
    items: Vec<Record>,
    #[serde(deserialize_with = "json::count")]
    total_count: u64,
}

/// The answer to adding a user.
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
}

impl User {
    pub(crate) fn run(&self, matches: &ArgMatches) -> Result<()> {
        if let Verb::ResetPassword(reset) = &self.verb {
            return reset.run();
        }
        let client = Client::new(&self.connection, matches)?;
        cli::block_on(self.verb.run(&client, self.connection.json))
    }
}

impl Verb {
    async fn run(&self, client: &Client, as_json: bool) -> Result<()> {
        match self {
            Self::List { domain, group, status } => {
                let group = group::ids(client, domain.as_deref(), group.as_slice()).await?.pop();
                let records = list(client, domain.as_deref(), group.as_deref(), status.as_deref()).await?;
                if as_json { json::print(&records) } else { show_all(&records) }
            }
            Self::Show { email } => {
                let user = find(client, email).await?;
                if as_json { json::print(&user) } else { cli::print(&table::fields(user.fields())) }
            }
            Self::Add { email, settings } => add(client, email, settings, as_json).await,
            Self::Change { email, settings, status } => {
                let password = if settings.password_stdin { Some(password::from_stdin()?) } else { None };
                let domain = match &settings.domain {
                    None if !settings.group.is_empty() => Some(find(client, email).await?.domain_name),
                    given => given.clone(),
                };
                let groups = group::ids(client, domain.as_deref(), &settings.group).await?;
                let props = settings.props(password.as_ref(), &groups, status.as_deref());
                let outcome = client.change(email, &MODIFY, Set { id: email, props }).await?;
                cli::done(&outcome, &format!("changed {email}"), as_json)
            }
            Self::Remove { email, purge } => remove(client, email, *purge, as_json).await,
            Self::ResetPassword(_) => Ok(()),
        }
    }
}

async fn list(
    client: &Client,
    domain: Option<&str>,
    group: Option<&str>,
    status: Option<&str>,
) -> Result<Vec<Record>> {
    let mut all: Vec<Record> = Vec::new();
    loop {
        let listed = Listed { limit: PAGE, offset: all.len(), domain, group, status };
        let page = client.ask(&LIST, listed).await?;
        let is_last = page.items.len() < PAGE;
        all.extend(page.items);
        if is_last || all.len() as u64 >= page.total_count {
            return Ok(all);
        }
    }
}

async fn find(client: &Client, email: &str) -> Result<Record> {
    let found = client.find(email, &SHOW, One { id: email }).await?;
    found.ok_or_else(|| Failure::failed(email, "no such user").remedy("see wharf user list"))
}

/// Finds a user's id by the e-mail address.
pub(crate) async fn id(client: &Client, email: &str) -> Result<String> {
    find(client, email).await.map(|user| user.uuid)
}

async fn add(client: &Client, email: &str, settings: &Settings, as_json: bool) -> Result<()> {
    let given_password = if settings.password_stdin { Some(password::from_stdin()?) } else { None };
    let generated = if given_password.is_none() { Some(password::generated()?) } else { None };
    let domain = settings.domain.as_deref().unwrap_or("default");
    let groups = group::ids(client, Some(domain), &settings.group).await?;
    let mut props = settings.props(given_password.as_ref().or(generated.as_ref()), &groups, None);
    if let Some(props) = props.as_object_mut() {
        props.insert("domain_name".into(), domain.into());
        props.entry("username").or_insert_with(|| email.into());
        props.entry("role").or_insert_with(|| "user".into());
    }
    let made = client.ask_about(email, &CREATE, Set { id: email, props }).await?;
    if !made.ok {
        return Err(Failure::failed(email, made.msg));
    }
    if as_json {
        return json::print(&json!({
            "ok": true,
            "email": email,
            "password": generated.as_ref().map(Secret::expose),
            "access_key": made.keypair.as_ref().map(|pair| &pair.access_key),
            "secret_key": made.keypair.as_ref().map(|pair| pair.secret_key.expose()),
        }));
    }
    let made = Made {
        email,
        password: generated.as_ref(),
        keypair: made.keypair.as_ref().map(|pair| (pair.access_key.as_str(), &pair.secret_key)),
        server: None,
    };
    cli::print(&format!("Added; these are not shown again.\n\n{made}"))
}

async fn remove(client: &Client, email: &str, purge: bool, as_json: bool) -> Result<()> {
    let outcome = if purge {
        client.change(email, &PURGE, Set { id: email, props: json!({}) }).await?
    } else {
        client.change(email, &DELETE, One { id: email }).await?
    };
    let said = if purge { "removed" } else { "switched off" };
    cli::done(&outcome, &format!("{said} {email}"), as_json)
}

fn show_all(records: &[Record]) -> Result<()> {
    let headers = ["E-MAIL", "ROLE", "STATUS", "DOMAIN", "GROUPS", "NAME"];
    let cells = records.iter().map(|user| {
        vec![
            user.email.clone(),
            user.role.clone(),
            user.status.clone(),
            user.domain_name.clone(),
            user.group_names(),
            user.full_name.clone().unwrap_or_default(),
        ]
    });
    cli::print(&table::rows(&headers, cells))
}

impl Record {
    fn group_names(&self) -> String {
        self.groups.iter().map(|group| group.name.as_str()).collect::<Vec<_>>().join(" ")
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        vec![
            ("e-mail", self.email.clone()),
            ("id", self.uuid.clone()),
            ("username", text(&self.username)),
            ("name", text(&self.full_name)),
            ("description", text(&self.description)),
            ("role", self.role.clone()),
            ("status", self.status.clone()),
            ("domain", self.domain_name.clone()),
            ("groups", self.group_names()),
            ("access key", text(&self.main_access_key)),
            ("created", text(&self.created_at)),
        ]
    }
}

impl Settings {
    /// The input fields for the settings that were given; the other settings stay unchanged.
    fn props(&self, password: Option<&Secret>, groups: &[String], status: Option<&str>) -> Value {
        given(json!({
            "password": password.map(Secret::expose),
            "role": self.role,
            "domain_name": self.domain,
            "username": self.username,
            "full_name": self.full_name,
            "description": self.description,
            "group_ids": (!self.group.is_empty()).then_some(groups),
            "status": status,
        }))
    }
}
