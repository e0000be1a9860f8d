//! The images that agents have: `wharf agent images`, `wharf image unknown` and the pins.

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::cli::{
    self,
    api::{Client, Outcome},
    failure::Result,
    json,
    operation::{One, Operation},
    presence::{Usage, last_use},
    table,
    text::{moment, one_line, size},
};

/// An image that goes from an agent, or would.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Leaving {
    #[serde(deserialize_with = "json::text")]
    digest: String,
    #[serde(deserialize_with = "json::list")]
    names: Vec<String>,
    #[serde(deserialize_with = "json::count")]
    size_bytes: u64,
    #[serde(deserialize_with = "json::count")]
    frees_bytes: u64,
    known: Option<bool>,
    usage: Option<Usage>,
}

impl Leaving {
    /// What comes free, the last use, and the image.
    pub(crate) fn cells(&self) -> Vec<String> {
        vec![
            size(self.frees_bytes),
            self.usage.as_ref().map(Usage::line).unwrap_or_default(),
            called(&self.names, &self.digest),
        ]
    }

    /// Its first name, or its digest.
    pub(crate) fn name(&self) -> &str {
        self.names.first().unwrap_or(&self.digest)
    }
}

/// The names of an image, or its digest.
fn called(names: &[String], digest: &str) -> String {
    one_line(&if names.is_empty() { digest.to_owned() } else { names.join(" ") })
}

/// An image on an agent.
#[derive(Serialize, Deserialize)]
pub(crate) struct AgentImage {
    #[serde(deserialize_with = "json::text")]
    digest: String,
    #[serde(deserialize_with = "json::list")]
    names: Vec<String>,
    #[serde(deserialize_with = "json::count")]
    size_bytes: u64,
    known: Option<bool>,
    usage: Option<Usage>,
    wanted_by: Option<String>,
    pinned: Option<bool>,
    stays: Option<String>,
}

/// An image on agents that the catalog does not know.
#[derive(Serialize, Deserialize)]
pub(crate) struct UnknownImage {
    #[serde(deserialize_with = "json::text")]
    digest: String,
    #[serde(deserialize_with = "json::list")]
    names: Vec<String>,
    #[serde(deserialize_with = "json::count")]
    size_bytes: u64,
    #[serde(deserialize_with = "json::text")]
    folded: String,
    #[serde(deserialize_with = "json::count")]
    count: u64,
    #[serde(deserialize_with = "json::count")]
    in_use: u64,
    last_used_at: Option<String>,
    unused_since: Option<String>,
}

/// An image that stays on agents.
#[derive(Serialize, Deserialize)]
pub(crate) struct Pin {
    #[serde(deserialize_with = "json::text")]
    reference: String,
    #[serde(deserialize_with = "json::text")]
    target_agents: String,
    created_at: Option<String>,
    created_by: Option<String>,
}

const FILE: &str = include_str!("operations/room.graphql");
pub(crate) const AGENT_IMAGES: Operation<One<'_>, json::List<AgentImage>> =
    Operation::new(FILE, "AgentImages", "agent_images");
pub(crate) const UNKNOWN: Operation<Where<'_>, json::List<UnknownImage>> =
    Operation::new(FILE, "UnknownImages", "unknown_images");
pub(crate) const PINS: Operation<(), json::List<Pin>> = Operation::new(FILE, "ImagePins", "image_pins");
pub(crate) const PIN: Operation<Pinned<'_>, Outcome> = Operation::new(FILE, "PinImage", "pin_image");
pub(crate) const UNPIN: Operation<One<'_>, Outcome> = Operation::new(FILE, "UnpinImage", "unpin_image");

/// The agents to look at.
#[derive(Default, Serialize)]
pub(crate) struct Where<'a> {
    agents: Option<&'a str>,
}

/// An image, and the agents on which it is to stay.
#[derive(Default, Serialize)]
pub(crate) struct Pinned<'a> {
    id: &'a str,
    agents: Option<&'a str>,
}

/// Prints what is pinned.
pub(crate) async fn pins(client: &Client, as_json: bool) -> Result<()> {
    let pins = client.ask(&PINS, ()).await?.0;
    if as_json {
        return json::print(&pins);
    }
    if pins.is_empty() && cli::is_for_people() {
        return cli::print("Nothing is pinned; pin an image: wharf image pin REFERENCE");
    }
    let cells = |pin: Pin| {
        let at = moment(pin.created_at.as_deref().unwrap_or_default());
        vec![pin.reference, pin.target_agents, at, pin.created_by.unwrap_or_default()]
    };
    cli::print(&table::rows(&["IMAGE", "AGENTS", "SINCE", "BY"], pins.into_iter().map(cells)))
}

/// Pins an image on agents, or on all.
pub(crate) async fn pin(client: &Client, reference: &str, agents: Option<&str>, as_json: bool) -> Result<()> {
    let outcome = client.change(reference, &PIN, Pinned { id: reference, agents }).await?;
    let on = agents.unwrap_or("all agents");
    cli::done(&outcome, &format!("pinned {reference} on {on}"), as_json)
}

/// Removes a pin.
pub(crate) async fn unpin(client: &Client, reference: &str, as_json: bool) -> Result<()> {
    let outcome = client.change(reference, &UNPIN, One { id: reference }).await?;
    cli::done(&outcome, &format!("{reference} is pinned no more"), as_json)
}

/// List the images on agents that the catalog does not know, the largest first
///
/// They came by other ways than wharf, or left the catalog. wharf unload takes them by a name or by the digest; they can't
/// be loaded again.
#[derive(Args)]
pub(crate) struct Unknown {
    /// The agents: 'gpu[01-16]!gpu03' [default: all]
    agents: Option<String>,
}

impl Unknown {
    pub(crate) async fn run(&self, client: &Client, as_json: bool) -> Result<()> {
        let images = client.ask(&UNKNOWN, Where { agents: self.agents.as_deref() }).await?.0;
        if as_json {
            return json::print(&images);
        }
        if images.is_empty() && cli::is_for_people() {
            return cli::print("The catalog knows every image on these agents");
        }
        let cells = |image: &UnknownImage| {
            let used = match image.in_use {
                0 => last_use(image.last_used_at.as_deref(), image.unused_since.as_deref()),
                count => format!("in use on {count}"),
            };
            vec![
                size(image.size_bytes),
                used,
                one_line(&format!("{} {}", image.count, image.folded)),
                called(&image.names, &image.digest),
            ]
        };
        cli::print(&table::rows(&["SIZE", "LAST USE", "AGENTS", "IMAGE"], images.iter().map(cells)))
    }
}

/// Prints all images on an agent.
pub(crate) async fn on_agent(client: &Client, id: &str, as_json: bool) -> Result<()> {
    let images = client.ask_about(id, &AGENT_IMAGES, One { id }).await?.0;
    if as_json {
        return json::print(&images);
    }
    if images.is_empty() && cli::is_for_people() {
        return cli::print("No image there");
    }
    let cells = |image: &AgentImage| {
        let mut notes: Vec<String> = image.wanted_by.iter().cloned().collect();
        if image.pinned == Some(true) {
            notes.push("pinned".into());
        }
        if image.known == Some(false) {
            notes.push("not in the catalog".into());
        }
        if image.stays.as_deref() == Some("fresh") {
            let came = image.usage.as_ref().is_some_and(Usage::came_is_known);
            notes.push(if came { "came within the hour" } else { "first seen within the hour" }.into());
        }
        vec![
            size(image.size_bytes),
            image.usage.as_ref().map(Usage::line).unwrap_or_default(),
            one_line(&notes.join(", ")),
            called(&image.names, &image.digest),
        ]
    };
    cli::print(&table::rows(&["SIZE", "LAST USE", "NOTES", "IMAGE"], images.iter().map(cells)))
}
