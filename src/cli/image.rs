//! `wharf image`: the catalog.

use clap::{ArgMatches, Args, Subcommand};
use serde::{Deserialize, Serialize};

use crate::cli::{
    self,
    api::{Client, Outcome, Started},
    changes,
    connection::Connection,
    failure::{Failure, Result},
    follow, json,
    operation::{One, Operation},
    presence, registry, room, table, text, why,
};

/// List, scan, name and forget images
#[derive(Args)]
pub(crate) struct Image {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List the images you may see
    List(List),
    /// Show one image with its labels, limits and aliases
    Show {
        /// Canonical name, alias or digest
        reference: String,
        /// Processor architecture, if the name exists for several
        #[arg(long, value_name = "ARCHITECTURE")]
        architecture: Option<String>,
    },
    /// Read registries again and follow the task to its end
    Rescan {
        /// One registry, by its host; all if left out
        #[arg(value_parser = registry::host)]
        registry: Option<String>,
        /// Only this project of the registry
        #[arg(long, value_name = "PROJECT")]
        project: Option<String>,
        /// Remove vanished images even if they are most of a registry's: an earlier rescan held them back
        #[arg(long)]
        confirm_removals: bool,
        /// Return as soon as the task is started
        #[arg(long)]
        no_follow: bool,
    },
    /// Read one image from its registry, for registries that have no catalog to read
    Scan {
        /// Canonical name: REGISTRY/NAME:TAG
        reference: String,
        /// Return as soon as the task is started
        #[arg(long)]
        no_follow: bool,
    },
    Changes(changes::Changes),
    Presence(presence::Presence),
    Why(why::Why),
    Unknown(room::Unknown),
    /// Pin an image on agents: neither retention nor a preload that makes room takes it there
    Pin {
        /// Canonical name, alias or digest; the full name of an image that the catalog does not know
        reference: String,
        /// The agents, also those to come: 'gpu[01-16]!gpu03' [default: all]
        agents: Option<String>,
    },
    /// Remove a pin; the image stays until somebody needs its room
    Unpin {
        /// Canonical name, alias or digest
        reference: String,
    },
    /// List the pins
    Pins,
    /// Take an image out of the catalog; the registry and the nodes keep it
    Forget {
        /// Canonical name, alias or digest
        reference: String,
        /// Processor architecture, if the name exists for several
        #[arg(long, value_name = "ARCHITECTURE")]
        architecture: Option<String>,
    },
    /// Give an image another name
    Alias {
        /// The new name
        alias: String,
        /// The image: canonical name or digest
        target: String,
        /// Processor architecture, if the name exists for several
        #[arg(long, value_name = "ARCHITECTURE")]
        architecture: Option<String>,
    },
    /// Remove an alias
    Dealias {
        /// The alias
        alias: String,
    },
}

#[derive(Args)]
struct List {
    /// Only images of this registry
    #[arg(long, value_name = "HOST")]
    registry: Option<String>,
    /// Only images that are on at least one node
    #[arg(long)]
    installed: bool,
    /// Only images with this in their name, description or an alias, in any case
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
}

/// An image as the API returns it.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    id: Option<String>,
    #[serde(deserialize_with = "json::text")]
    registry: String,
    #[serde(deserialize_with = "json::text")]
    name: String,
    #[serde(deserialize_with = "json::text")]
    tag: String,
    #[serde(deserialize_with = "json::text")]
    architecture: String,
    #[serde(deserialize_with = "json::text")]
    humanized_name: String,
    #[serde(deserialize_with = "json::text")]
    digest: String,
    #[serde(deserialize_with = "json::count")]
    size_bytes: u64,
    #[serde(deserialize_with = "json::list")]
    aliases: Vec<String>,
    #[serde(deserialize_with = "json::list")]
    labels: Vec<Label>,
    #[serde(deserialize_with = "json::list")]
    resource_limits: Vec<Limit>,
    #[serde(deserialize_with = "json::list")]
    supported_accelerators: Vec<String>,
    installed: Option<bool>,
    installed_agents: Option<Vec<Option<String>>>,
    created_at: Option<String>,
    first_seen_at: Option<String>,
    changed_at: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Label {
    #[serde(deserialize_with = "json::text")]
    key: String,
    #[serde(deserialize_with = "json::text")]
    value: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Limit {
    #[serde(deserialize_with = "json::text")]
    key: String,
    min: Option<String>,
    max: Option<String>,
}

const FILE: &str = include_str!("operations/image.graphql");
pub(crate) const LIST: Operation<Listed, json::List<Record>> = Operation::new(FILE, "Images", "images");
pub(crate) const SHOW: Operation<Named<'_>, Record> = Operation::new(FILE, "Image", "image");
pub(crate) const RESCAN: Operation<Scope<'_>, Started> =
    Operation::new(FILE, "RescanImages", "rescan_images");
pub(crate) const SCAN: Operation<One<'_>, Started> = Operation::new(FILE, "ScanImage", "scan_image");
pub(crate) const FORGET: Operation<Named<'_>, Outcome> = Operation::new(FILE, "ForgetImage", "forget_image");
pub(crate) const ALIAS: Operation<Meaning<'_>, Outcome> = Operation::new(FILE, "AliasImage", "alias_image");
pub(crate) const DEALIAS: Operation<One<'_>, Outcome> = Operation::new(FILE, "DealiasImage", "dealias_image");

/// The filter of the list of images, and how much of each is fetched.
#[derive(Default, Serialize)]
pub(crate) struct Listed {
    installed: Option<bool>,
    whole: bool,
}

/// The variables that name an image: what the user types.
#[derive(Default, Serialize)]
pub(crate) struct Named<'a> {
    reference: &'a str,
    architecture: Option<&'a str>,
}

/// The part of the registries that is read again.
#[derive(Default, Serialize)]
pub(crate) struct Scope<'a> {
    pub(crate) registry: Option<&'a str>,
    pub(crate) project: Option<&'a str>,
    pub(crate) confirm_removals: Option<bool>,
}

/// An alias, and the image that it is to name.
#[derive(Default, Serialize)]
pub(crate) struct Meaning<'a> {
    alias: &'a str,
    target: &'a str,
    architecture: Option<&'a str>,
}

impl Image {
    pub(crate) fn run(&self, matches: &ArgMatches) -> Result<()> {
        let client = Client::new(&self.connection, matches)?;
        cli::block_on(self.verb.run(&client, self.connection.json))
    }
}

impl Verb {
    async fn run(&self, client: &Client, as_json: bool) -> Result<()> {
        match self {
            Self::List(list) => list.run(client, as_json).await,
            Self::Show { reference, architecture } => {
                show(client, reference, architecture.as_deref(), as_json).await
            }
            Self::Rescan { registry, project, confirm_removals, no_follow } => {
                let scope = Scope {
                    registry: registry.as_deref(),
                    project: project.as_deref(),
                    confirm_removals: confirm_removals.then_some(true),
                };
                let what = registry.as_deref().unwrap_or("every registry");
                start(client, what, &RESCAN, scope, *no_follow, as_json).await
            }
            Self::Scan { reference, no_follow } => {
                start(client, reference, &SCAN, One { id: reference }, *no_follow, as_json).await
            }
            Self::Changes(changes) => changes.run(client, as_json).await,
            Self::Presence(presence) => presence.run(client, as_json).await,
            Self::Why(why) => why.run(client, as_json).await,
            Self::Unknown(unknown) => unknown.run(client, as_json).await,
            Self::Pin { reference, agents } => room::pin(client, reference, agents.as_deref(), as_json).await,
            Self::Unpin { reference } => room::unpin(client, reference, as_json).await,
            Self::Pins => room::pins(client, as_json).await,
            Self::Forget { reference, architecture } => {
                let named = Named { reference, architecture: architecture.as_deref() };
                let outcome = client.change(reference, &FORGET, named).await?;
                cli::done(&outcome, &format!("forgot {reference}"), as_json)
            }
            Self::Alias { alias, target, architecture } => {
                let meaning = Meaning { alias, target, architecture: architecture.as_deref() };
                let outcome = client.change(alias, &ALIAS, meaning).await?;
                cli::done(&outcome, &format!("{alias} now means {target}"), as_json)
            }
            Self::Dealias { alias } => {
                let outcome = client.change(alias, &DEALIAS, One { id: alias }).await?;
                cli::done(&outcome, &format!("{alias} means no image any more"), as_json)
            }
        }
    }
}

impl List {
    async fn run(&self, client: &Client, as_json: bool) -> Result<()> {
        let listed = Listed { installed: self.installed.then_some(true), whole: as_json };
        let images = client.ask(&LIST, listed).await?.0;
        let mut images: Vec<_> = images.into_iter().filter(|image| self.wants(image)).collect();
        images.sort_by_cached_key(|image| (image.canonical(), image.architecture.clone()));
        if as_json {
            return json::print(&images);
        }
        if images.is_empty() && cli::is_for_people() {
            return cli::print(self.nothing());
        }
        let headers = ["IMAGE", "ARCHITECTURE", "SIZE", "INSTALLED", "ALIASES", "DESCRIPTION"];
        cli::print(&table::rows(&headers, images.iter().map(Record::cells)))
    }

    fn nothing(&self) -> &'static str {
        if self.registry.is_some() || self.installed || self.name.is_some() {
            "No image like that; wharf image list without flags has them all"
        } else {
            "No images that you may see; a super-admin reads them from the registries with: wharf image rescan"
        }
    }

    fn wants(&self, image: &Record) -> bool {
        let registry = self.registry.as_deref().is_none_or(|host| host.eq_ignore_ascii_case(&image.registry));
        let name = self.name.as_deref().map(str::to_lowercase).is_none_or(|part| {
            let has = |text: &str| text.to_lowercase().contains(&part);
            has(&image.canonical())
                || has(&image.humanized_name)
                || image.aliases.iter().any(|alias| has(alias))
        });
        registry && name
    }
}

async fn show(client: &Client, reference: &str, architecture: Option<&str>, as_json: bool) -> Result<()> {
    let image = client.find(reference, &SHOW, Named { reference, architecture }).await?;
    let image = image.ok_or_else(|| {
        Failure::failed(reference, "no such image, or none that you may see").remedy("see wharf image list")
    })?;
    if as_json { json::print(&image) } else { cli::print(&table::fields(image.fields())) }
}

/// Sends a mutation that starts a task, and follows the task unless told not to.
pub(crate) async fn start<V: Serialize>(
    client: &Client,
    what: &str,
    operation: &Operation<V, Started>,
    variables: V,
    no_follow: bool,
    as_json: bool,
) -> Result<()> {
    let started = client.change(what, operation, variables).await?;
    match started.task_id {
        Some(id) if !no_follow => follow::follow(client, id, as_json).await,
        _ if as_json => json::print(&started),
        Some(id) => cli::print(&format!("started task {id}; follow it with: wharf task follow {id}")),
        None => cli::print(&text::one_line(started.msg.as_deref().unwrap_or("nothing to do"))),
    }
}

impl Record {
    fn canonical(&self) -> String {
        format!("{}/{}:{}", self.registry, self.name, self.tag)
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.canonical(),
            self.architecture.clone(),
            text::size(self.size_bytes),
            yes_or_no(self.installed),
            self.aliases.join(" "),
            self.humanized_name.clone(),
        ]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let agents = self.installed_agents.iter().flatten().flatten();
        vec![
            ("image", text::one_line(&self.canonical())),
            ("description", text::one_line(&self.humanized_name)),
            ("architecture", text::one_line(&self.architecture)),
            ("digest", text::one_line(&self.digest)),
            ("size", format!("{} ({} bytes)", text::size(self.size_bytes), self.size_bytes)),
            ("made", text::one_line(self.created_at.as_deref().unwrap_or_default())),
            ("first seen", text::one_line(self.first_seen_at.as_deref().unwrap_or_default())),
            ("changed", text::one_line(self.changed_at.as_deref().unwrap_or_default())),
            ("aliases", lines(self.aliases.iter().map(|alias| text::one_line(alias)))),
            ("accelerators", text::one_line(&self.supported_accelerators.join(" "))),
            ("limits", lines(self.resource_limits.iter().map(Limit::line))),
            ("installed", yes_or_no(self.installed)),
            ("on agents", lines(agents.map(|agent| text::one_line(agent)))),
            ("labels", lines(self.labels.iter().map(Label::line))),
            ("id", text::one_line(self.id.as_deref().unwrap_or_default())),
        ]
    }
}

impl Label {
    fn line(&self) -> String {
        format!("{}={}", text::one_line(&self.key), text::one_line(&self.value))
    }
}

impl Limit {
    fn line(&self) -> String {
        // The API sends these values if the image sets no limit.
        let min = self.min.as_deref().filter(|min| *min != "0");
        let max = self.max.as_deref().filter(|max| *max != "Infinity");
        let bounds = match (min, max) {
            (Some(min), Some(max)) => format!("{min} to {max}"),
            (Some(min), None) => format!("at least {min}"),
            (None, Some(max)) => format!("at most {max}"),
            (None, None) => "any".into(),
        };
        text::one_line(&format!("{} {bounds}", self.key))
    }
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.collect::<Vec<_>>().join("\n")
}

fn yes_or_no(value: Option<bool>) -> String {
    value.map_or("", |yes| if yes { "yes" } else { "no" }).into()
}

#[cfg(test)]
mod tests {
    use crate::cli::image::{Limit, List, Record};

    fn image() -> Record {
        Record {
            registry: "cr.example.org".into(),
            name: "stable/python".into(),
            tag: "3.9".into(),
            humanized_name: "Python 3.9, Ubuntu 20.04".into(),
            aliases: vec!["Py".into()],
            ..Record::default()
        }
    }

    #[test]
    fn a_list_has_what_was_asked_for() {
        let wants = |registry: Option<&str>, name: Option<&str>| {
            let list =
                List { registry: registry.map(Into::into), installed: false, name: name.map(Into::into) };
            list.wants(&image())
        };
        assert!(wants(None, None));
        assert!(wants(Some("CR.example.org"), None));
        assert!(!wants(Some("example.org"), None));
        for part in ["python:3", "UBUNTU", "py", "example.org/stable"] {
            assert!(wants(None, Some(part)), "{part}");
        }
        assert!(!wants(None, Some("torch")));
        assert!(!wants(Some("other"), Some("py")));
    }

    #[test]
    fn a_record_is_read_whatever_is_null_or_left_out() {
        let json =
            r#"{"name": "a", "tag": null, "size_bytes": "12", "labels": [null], "installed_agents": null}"#;
        let record: Record = serde_json::from_str(json).unwrap();
        assert_eq!((record.name.as_str(), record.tag.as_str(), record.size_bytes), ("a", "", 12));
        assert!(record.labels.is_empty());
        assert!(!record.fields().is_empty());
    }

    #[test]
    fn limits_read_as_bounds() {
        let limit = |min: Option<&str>, max: Option<&str>| {
            Limit { key: "cpu".into(), min: min.map(Into::into), max: max.map(Into::into) }.line()
        };
        assert_eq!(limit(Some("1"), None), "cpu at least 1");
        assert_eq!(limit(Some("1"), Some("Infinity")), "cpu at least 1");
        assert_eq!(limit(Some("0"), Some("Infinity")), "cpu any");
        assert_eq!(limit(Some("1"), Some("4")), "cpu 1 to 4");
        assert_eq!(limit(None, Some("4")), "cpu at most 4");
    }
}
