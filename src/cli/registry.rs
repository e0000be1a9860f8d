//! `wharf registry`: the registries that images are read from.

use std::path::PathBuf;

use clap::{ArgMatches, Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use url::Url;

use crate::{
    base::{
        reference::{self, TypedRegistry},
        secret::Secret,
    },
    cli::{
        self,
        api::{Client, Outcome},
        connection::{self, Connection},
        failure::Result,
        json,
        operation::{One, Operation, Set},
        password, table, text,
    },
};

/// List, add, change, remove and test the registries that images are read from
#[derive(Args)]
pub(crate) struct Registry {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List the registries
    List,
    /// Add a registry; wharf image rescan HOST then reads it
    Add {
        /// Its host, as image names begin with it: HOST or HOST:PORT; or its URL
        #[arg(value_parser = typed)]
        host: TypedRegistry,
        #[command(flatten)]
        settings: Settings,
    },
    /// Change a registry's settings; what is not given stays
    ///
    /// A --url with another scheme, host or port removes the password, --ca-file and --trusted-host, unless they are
    /// given again: they belong to the old address. Another --proxy removes the password likewise.
    Change {
        /// The registry, by its host
        #[arg(value_parser = host)]
        host: String,
        #[command(flatten)]
        settings: Settings,
        /// Forget the user name and the password
        #[arg(long, conflicts_with_all = ["username", "password_stdin", "password_file", "password_env", "auth_file"])]
        anonymous: bool,
        /// Forget the certificate authorities
        #[arg(long, conflicts_with = "ca_file")]
        no_ca_file: bool,
    },
    /// Remove a registry and its images from the catalog; nothing is deleted in the registry itself
    Remove {
        /// The registry, by its host
        #[arg(value_parser = host)]
        host: String,
    },
    /// Connect to a registry and log in, as a rescan would
    Test {
        /// The registry, by its host
        #[arg(value_parser = host)]
        host: String,
    },
}

/// The settings of a registry.
#[derive(Args, Default)]
struct Settings {
    /// URL of the registry [default when adding: https://HOST, or http://HOST for this machine]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Type of the registry [default when adding: docker]
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// User to log in as; the password is asked for
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// Read the password from stdin instead of asking for it
    #[arg(long)]
    password_stdin: bool,
    /// File with the password on the server, below its --credentials-dir; it is read at each use
    #[arg(long, value_name = "PATH", conflicts_with = "password_stdin")]
    password_file: Option<String>,
    /// Variable of the server's environment that has the password; its name begins with WHARF_REGISTRY_
    #[arg(long, value_name = "NAME", conflicts_with_all = ["password_stdin", "password_file"])]
    password_env: Option<String>,
    /// File with user and password on the server, below its --credentials-dir: Docker's config.json or Podman's
    /// auth.json; it is read at each use
    #[arg(long, value_name = "PATH", conflicts_with_all = ["username", "password_stdin", "password_file", "password_env"])]
    auth_file: Option<String>,
    /// Project (name prefix) to read, if the registry has projects; may be repeated; '' for none
    #[arg(long, value_name = "PROJECT", value_delimiter = ',')]
    project: Vec<String>,
    /// Accept any certificate
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    insecure: Option<bool>,
    /// PEM file of the certificate authorities that sign the registry's certificate
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Catalog only images that carry the label ai.backend.kernelspec
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    kernelspec_only: Option<bool>,
    /// Host, besides the registry's own, that its credentials may be sent to, such as a token server; may be repeated;
    /// '' for none
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    trusted_host: Vec<String>,
    /// Proxy through which the server reaches the registry: http://HOST:PORT, or direct for none; '' for those that the
    /// server's environment names. With a user as in http://USER@HOST:PORT, the password is asked for
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
}

/// Reads a registry's host.
pub(crate) fn host(text: &str) -> Result<String, String> {
    typed(text).map(|typed| typed.name)
}

fn typed(text: &str) -> Result<TypedRegistry, String> {
    reference::typed_registry(text).ok_or_else(|| "expected HOST or HOST:PORT, or a URL of one".into())
}

/// A registry as the API returns it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    id: Option<String>,
    #[serde(deserialize_with = "json::text")]
    pub(crate) hostname: String,
    pub(crate) config: Option<Config>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Config {
    #[serde(deserialize_with = "json::text")]
    pub(crate) url: String,
    #[serde(rename = "type", deserialize_with = "json::text")]
    kind: String,
    #[serde(deserialize_with = "json::list")]
    project: Vec<String>,
    username: Option<String>,
    password_file: Option<String>,
    password_env: Option<String>,
    auth_file: Option<String>,
    proxy: Option<String>,
    ssl_verify: Option<bool>,
    is_global: Option<bool>,
    kernelspec_only: Option<bool>,
    #[serde(deserialize_with = "json::list")]
    trusted_hosts: Vec<String>,
    ca_pem: Option<String>,
}

const FILE: &str = include_str!("operations/registry.graphql");
pub(crate) const LIST: Operation<(), json::List<Record>> =
    Operation::new(FILE, "ContainerRegistries", "container_registries");
pub(crate) const CREATE: Operation<Set<'_>, Value> =
    Operation::new(FILE, "CreateContainerRegistry", "create_container_registry");
pub(crate) const MODIFY: Operation<Set<'_>, Modified> =
    Operation::new(FILE, "ModifyContainerRegistry", "modify_container_registry");
pub(crate) const DELETE: Operation<One<'_>, Value> =
    Operation::new(FILE, "DeleteContainerRegistry", "delete_container_registry");
pub(crate) const TEST: Operation<One<'_>, Outcome> =
    Operation::new(FILE, "TestContainerRegistry", "test_container_registry");

/// The answer to changing a registry.
#[derive(Deserialize)]
pub(crate) struct Modified {
    /// The settings that were removed because they belonged to the registry's old address.
    msg: Option<String>,
}

impl Registry {
    pub(crate) fn run(&self, matches: &ArgMatches) -> Result<()> {
        let client = Client::new(&self.connection, matches)?;
        cli::block_on(self.verb.run(&client, self.connection.json))
    }
}

impl Verb {
    async fn run(&self, client: &Client, as_json: bool) -> Result<()> {
        match self {
            Self::List => list(client, as_json).await,
            Self::Add { host, settings } => add(client, host, settings, as_json).await,
            Self::Change { host, settings, anonymous, no_ca_file } => {
                let mut props = settings.props(settings.password(host)?.as_ref())?;
                if *anonymous {
                    // In a request, null means "unchanged", as for Backend.AI's clients; an empty text means "none".
                    props.insert("username".into(), "".into());
                    props.insert("password".into(), "".into());
                }
                if *no_ca_file {
                    props.insert("ca_pem".into(), "".into());
                }
                let set = Set { id: host, props: props.into() };
                let modified = client.ask_about(host, &MODIFY, set).await?;
                changed(host, "changed", modified.msg, as_json)
            }
            Self::Remove { host } => {
                client.ask_about(host, &DELETE, One { id: host }).await?;
                changed(host, "removed", None, as_json)
            }
            Self::Test { host } => test(client, host, as_json).await,
        }
    }
}

/// Fetches all registries.
pub(crate) async fn all(client: &Client) -> Result<Vec<Record>> {
    client.ask(&LIST, ()).await.map(|records| records.0)
}

async fn list(client: &Client, as_json: bool) -> Result<()> {
    let records = all(client).await?;
    if as_json {
        return json::print(&records);
    }
    if records.is_empty() && cli::is_for_people() {
        return cli::print("No registry yet; add one with: wharf registry add HOST");
    }
    let headers = ["REGISTRY", "TYPE", "USER", "PROJECTS", "TLS", "URL"];
    cli::print(&table::rows(&headers, records.iter().map(Record::cells)))
}

async fn add(client: &Client, typed: &TypedRegistry, settings: &Settings, as_json: bool) -> Result<()> {
    let TypedRegistry { name: host, url } = typed;
    let mut props = settings.props(settings.password(host)?.as_ref())?;
    let address = || url.as_ref().map_or_else(|| reference::registry_url(host), Url::to_string);
    props.entry("url").or_insert_with(|| address().into());
    props.entry("type").or_insert_with(|| "docker".into());
    client.ask_about(host, &CREATE, Set { id: host, props: props.into() }).await?;
    changed(host, "added", None, as_json)?;
    if as_json { Ok(()) } else { cli::print(&format!("read it with: wharf image rescan {host}")) }
}

async fn test(client: &Client, host: &str, as_json: bool) -> Result<()> {
    let outcome = tried(client, host).await?;
    if as_json {
        return json::print(&outcome);
    }
    cli::print(&text::one_line(&format!("{host}: {}", said(&outcome))))
}

/// Has the server connect to a registry and log in.
pub(crate) async fn tried(client: &Client, host: &str) -> Result<Outcome> {
    client.change(host, &TEST, One { id: host }).await
}

/// The server's remark on a [`tried`] that went well.
pub(crate) fn said(outcome: &Outcome) -> &str {
    outcome.msg.as_deref().filter(|msg| !msg.is_empty()).unwrap_or("it answers")
}

/// Prints what was done to a registry. The mutations on registries answer without `ok`, or with an error.
fn changed(host: &str, verb: &str, note: Option<String>, as_json: bool) -> Result<()> {
    if as_json {
        return json::print(&json!({ "ok": true, "hostname": host, "msg": note }));
    }
    let note = note.map(|note| format!("\n{}", text::one_line(&note))).unwrap_or_default();
    cli::print(&format!("{verb} {host}{note}"))
}

impl Settings {
    fn password(&self, host: &str) -> Result<Option<Secret>> {
        match &self.username {
            _ if self.password_stdin => password::from_stdin().map(Some),
            Some(_) if self.password_file.is_some() || self.password_env.is_some() => Ok(None),
            Some(username) => password::from_prompt(username, host).map(Some),
            None => Ok(None),
        }
    }

    /// The proxy, with the password of its user: in a flag, others on the machine could see it.
    fn proxy(&self) -> Result<Option<Secret>> {
        let Some(text) = &self.proxy else { return Ok(None) };
        let whole = if text.contains("://") { text.clone() } else { format!("http://{text}") };
        let url =
            Url::parse(&whole).ok().filter(|url| !url.username().is_empty() && url.password().is_none());
        let Some(mut url) = url else { return Ok(Some(Secret::new(text))) };
        let (user, host) = (url.username().to_owned(), url.host_str().unwrap_or_default().to_owned());
        let password = password::from_prompt(&user, &host)?;
        // A URL with a user takes a password; a `%` in it would begin an encoded byte.
        let _ = url.set_password(Some(&password.expose().replace('%', "%25")));
        Ok(Some(Secret::new(url)))
    }

    /// The input fields for the settings that were given; the other settings stay unchanged.
    fn props(&self, password: Option<&Secret>) -> Result<Map<String, Value>> {
        let ca_pem = self.ca_file.as_deref().map(connection::read_file).transpose()?;
        let list = |values: &[String]| {
            let named: Vec<_> = values.iter().filter(|value| !value.is_empty()).collect();
            (!values.is_empty()).then(|| json!(named))
        };
        let props = [
            ("url", self.url.as_ref().map(|url| json!(url))),
            ("type", self.kind.as_ref().map(|kind| json!(kind))),
            ("username", self.username.as_ref().map(|username| json!(username))),
            ("password", password.map(|password| json!(password.expose()))),
            ("password_file", self.password_file.as_ref().map(|name| json!(name))),
            ("password_env", self.password_env.as_ref().map(|name| json!(name))),
            ("auth_file", self.auth_file.as_ref().map(|name| json!(name))),
            ("project", list(&self.project)),
            ("ssl_verify", self.insecure.map(|insecure| json!(!insecure))),
            ("ca_pem", ca_pem.map(|pem| json!(pem))),
            ("kernelspec_only", self.kernelspec_only.map(|only| json!(only))),
            ("trusted_hosts", list(&self.trusted_host)),
            ("proxy", self.proxy()?.map(|proxy| json!(proxy.expose()))),
        ];
        Ok(props.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect())
    }
}

impl Record {
    fn cells(&self) -> Vec<String> {
        let Some(config) = &self.config else { return vec![self.hostname.clone()] };
        vec![
            self.hostname.clone(),
            config.kind.clone(),
            config.username.clone().unwrap_or_default(),
            config.project.join(" "),
            config.tls().into(),
            config.url.clone(),
        ]
    }
}

impl Config {
    fn tls(&self) -> &'static str {
        match (self.is_verified(), self.url.starts_with("http:"), &self.ca_pem) {
            (false, true, _) => "none",
            (false, false, _) => "not verified",
            (true, _, Some(pem)) if !pem.is_empty() => "own authority",
            _ => "verified",
        }
    }

    /// Whether the connection to the registry is safe from reading and changes on the way.
    pub(crate) fn is_verified(&self) -> bool {
        !self.url.starts_with("http:") && self.ssl_verify != Some(false)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::{base::secret::Secret, cli::registry::Settings};

    #[test]
    fn only_what_was_given_is_changed() {
        let props =
            |settings: Settings, password: Option<&Secret>| Value::Object(settings.props(password).unwrap());
        assert_eq!(props(Settings::default(), None), json!({}));
        let settings = Settings {
            username: Some("u".into()),
            insecure: Some(true),
            project: vec!["a".into(), "b".into()],
            trusted_host: vec![String::new()],
            ..Settings::default()
        };
        let password = Secret::new("p");
        assert_eq!(
            props(settings, Some(&password)),
            json!({"username": "u", "password": "p", "ssl_verify": false, "project": ["a", "b"], "trusted_hosts": []})
        );
    }
}
