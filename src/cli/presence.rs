//! `wharf image presence`: which agents have an image, and which images an agent has.

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

/// Rows per request: the most that the server gives.
const PAGE: usize = 10_000;

/// Show on which agents an image is, or the state of every image on one agent
///
/// States: present; stale, if the name means another image there; absent; unknown, if the agent could not
/// be asked. The last use is when a container made from the image was last there, running or not; it is not known
/// where an engine does not tell.
#[derive(Args)]
pub(crate) struct Presence {
    /// Canonical name, alias or digest
    #[arg(required_unless_present = "agent")]
    reference: Option<String>,
    /// Only this agent; without an image, all images of the catalog
    #[arg(long, value_name = "ID")]
    agent: Option<String>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Row {
    #[serde(deserialize_with = "json::text")]
    agent: String,
    #[serde(deserialize_with = "json::text")]
    reference: String,
    #[serde(deserialize_with = "json::text")]
    architecture: String,
    #[serde(deserialize_with = "json::text")]
    digest: String,
    #[serde(deserialize_with = "json::text")]
    state: String,
    usage: Option<Usage>,
}

/// How an image on an agent is used.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Usage {
    in_use: Option<bool>,
    last_used_at: Option<String>,
    unused_since: Option<String>,
    came_at: Option<String>,
}

impl Usage {
    /// Whether it is known when the image came.
    pub(crate) fn came_is_known(&self) -> bool {
        self.came_at.is_some()
    }

    /// For people: `in use`, or the last use.
    pub(crate) fn line(&self) -> String {
        if self.in_use == Some(true) {
            return "in use".into();
        }
        last_use(self.last_used_at.as_deref(), self.unused_since.as_deref())
    }
}

/// The last use of an image that is not in use, for people: a time, or since when no container was seen to use it. Without
/// that nobody looks.
pub(crate) fn last_use(last_used_at: Option<&str>, unused_since: Option<&str>) -> String {
    match (last_used_at, unused_since) {
        (_, None) => "not known".into(),
        (Some(at), _) => one_line(&moment(at)),
        (None, Some(since)) => format!("not since {}", one_line(&moment(since))),
    }
}

pub(crate) const PRESENCE: Operation<Asked<'_>, json::List<Row>> =
    Operation::new(include_str!("operations/image.graphql"), "ImagePresence", "image_presence");

/// The filter and the page of the rows to fetch.
#[derive(Default, Serialize)]
pub(crate) struct Asked<'a> {
    reference: Option<&'a str>,
    agent: Option<&'a str>,
    offset: usize,
}

impl Presence {
    pub(crate) async fn run(&self, client: &Client, as_json: bool) -> Result<()> {
        let rows = self.rows(client).await?;
        if as_json {
            return json::print(&rows);
        }
        if rows.is_empty() && cli::is_for_people() {
            return cli::print(self.nothing());
        }
        let headers = ["AGENT", "ARCHITECTURE", "STATE", "LAST USE", "IMAGE"];
        let cells = |row: Row| {
            let used = row.usage.as_ref().map(Usage::line).unwrap_or_default();
            vec![row.agent, row.architecture, row.state, used, row.reference]
        };
        cli::print(&table::rows(&headers, rows.into_iter().map(cells)))
    }

    async fn rows(&self, client: &Client) -> Result<Vec<Row>> {
        let what = self.reference.as_deref().or(self.agent.as_deref()).unwrap_or_default();
        let mut rows: Vec<Row> = Vec::new();
        loop {
            let asked = Asked {
                reference: self.reference.as_deref(),
                agent: self.agent.as_deref(),
                offset: rows.len(),
            };
            let page = client.ask_about(what, &PRESENCE, asked).await?.0;
            let is_last = page.len() < PAGE;
            rows.extend(page);
            if is_last {
                return Ok(rows);
            }
        }
    }

    fn nothing(&self) -> &'static str {
        if self.reference.is_some() {
            "No agent yet; the server finds engines by itself or by: wharf serve --engine URL"
        } else {
            "No image in the catalog yet; read them from the registries with: wharf image rescan"
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::cli::{
        presence::{PAGE, Presence, Usage, last_use},
        scripted::{Answer, Server, client},
    };

    #[test]
    fn where_nobody_looks_the_last_use_is_not_known() {
        let (day, other) = (Some("2026-12-01T00:00:00Z"), Some("2026-12-02T00:00:00Z"));
        assert_eq!(last_use(None, None), "not known");
        assert_eq!(last_use(day, None), "not known", "it may have been used since");
        assert!(last_use(day, other).starts_with("2026-12-01"));
        assert!(last_use(None, other).starts_with("not since 2026-12-02"));
        let untold = Usage { in_use: None, last_used_at: None, unused_since: None, came_at: None };
        assert_eq!(untold.line(), "not known");
        assert_eq!(Usage { in_use: Some(true), ..untold }.line(), "in use");
    }

    #[tokio::test]
    async fn a_full_page_is_not_the_last() {
        let row = json!({"agent": "a", "reference": "r", "architecture": "x86_64", "digest": "d", "state": "absent"});
        let page = |rows| {
            Answer::json(200, &json!({"data": {"image_presence": vec![row.clone(); rows]}}).to_string())
        };
        let server = Server::start(vec![page(PAGE), page(1)]).await;
        let presence = Presence { reference: Some("py".into()), agent: None };
        assert_eq!(presence.rows(&client(&server)).await.unwrap().len(), PAGE + 1);
        let asked: Value = serde_json::from_str(&server.asked()[1].body).unwrap();
        assert_eq!(asked["variables"], json!({"reference": "py", "offset": PAGE}));
    }
}
