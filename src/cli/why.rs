//! `wharf image why`: why an image is on an agent or is not.

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::cli::{
    self,
    api::Client,
    failure::Result,
    json,
    operation::Operation,
    table,
    text::{moment, one_line},
};

/// Say why an image is on an agent, or why it is not
///
/// The first line is the answer; below it is all that is known, the most telling first. What tasks did is known for a
/// day.
#[derive(Args)]
pub(crate) struct Why {
    /// Canonical name, alias or digest
    reference: String,
    /// The agent's id
    agent: String,
    /// Processor architecture of the image; the agent's own if left out
    #[arg(long, value_name = "ARCHITECTURE")]
    architecture: Option<String>,
}

/// The answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    #[serde(deserialize_with = "json::text")]
    reference: String,
    #[serde(deserialize_with = "json::text")]
    agent: String,
    architecture: Option<String>,
    #[serde(deserialize_with = "json::text")]
    state: String,
    #[serde(deserialize_with = "json::text")]
    because: String,
    #[serde(deserialize_with = "json::list")]
    causes: Vec<Cause>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Cause {
    #[serde(deserialize_with = "json::text")]
    code: String,
    #[serde(deserialize_with = "json::text")]
    text: String,
    at: Option<String>,
    next_at: Option<String>,
    task_id: Option<String>,
    rule: Option<String>,
}

pub(crate) const WHY: Operation<Asked<'_>, Answer> =
    Operation::new(include_str!("operations/image.graphql"), "ImageWhy", "explain_image_presence");

/// The image and the agent.
#[derive(Default, Serialize)]
pub(crate) struct Asked<'a> {
    reference: &'a str,
    agent: &'a str,
    architecture: Option<&'a str>,
}

impl Why {
    pub(crate) async fn run(&self, client: &Client, as_json: bool) -> Result<()> {
        let Self { reference, agent, architecture } = self;
        let asked = Asked { reference, agent, architecture: architecture.as_deref() };
        let answer = client.ask_about(reference, &WHY, asked).await?;
        if as_json { json::print(&answer) } else { cli::print(&answer.page()) }
    }
}

impl Answer {
    fn page(self) -> String {
        let headers = ["CAUSE", "AT", "NEXT", "TASK", "WHY"];
        let when = |at: Option<String>| at.as_deref().map(moment).unwrap_or_default();
        let cells = |cause: Cause| {
            let task = cause.task_id.unwrap_or_default();
            vec![cause.code, when(cause.at), when(cause.next_at), task, cause.text]
        };
        let rows = table::rows(&headers, self.causes.into_iter().map(cells));
        [one_line(&self.because), String::new(), rows].join("\n")
    }
}
