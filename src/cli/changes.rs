//! `wharf image changes`: what changed in the catalog, by registry and day.

use clap::Args;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::cli::{
    self, api::Client, audit::moment, failure::Result, json, operation::Operation, registry, table,
};

/// Show which images are new, which tags moved to another digest, and which images are gone, newest first
#[derive(Args)]
pub(crate) struct Changes {
    /// Not before this moment, or not longer ago than this: 2026-01-31T08:00:00Z, 90m, 12h, 7d
    #[arg(long, value_name = "WHEN", default_value = "1d", value_parser = moment)]
    since: Timestamp,
    /// Before this moment, or longer ago than this
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    until: Option<Timestamp>,
    /// Only of this registry
    #[arg(long, value_name = "HOST", value_parser = registry::host)]
    registry: Option<String>,
    /// At most this many, up to 10000
    #[arg(long, value_name = "COUNT", default_value_t = 1_000)]
    limit: u32,
}

/// A change, as the API returns it.
#[derive(Debug, Serialize, Deserialize)]
struct Row {
    at: String,
    #[serde(deserialize_with = "json::text")]
    kind: String,
    #[serde(deserialize_with = "json::text")]
    registry: String,
    #[serde(deserialize_with = "json::text")]
    name: String,
    #[serde(deserialize_with = "json::text")]
    tag: String,
    #[serde(deserialize_with = "json::text")]
    architecture: String,
    before: Option<String>,
    after: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Page {
    #[serde(deserialize_with = "json::list")]
    items: Vec<Row>,
    is_cut: bool,
}

/// Which changes are asked for.
#[derive(Default, Serialize)]
pub(crate) struct Asked<'a> {
    since: Option<String>,
    until: Option<String>,
    registry: Option<&'a str>,
    limit: u32,
}

pub(crate) const CHANGES: Operation<Asked<'_>, Page> =
    Operation::new(include_str!("operations/changes.graphql"), "ImageChanges", "image_changes");

impl Changes {
    pub(crate) async fn run(&self, client: &Client, as_json: bool) -> Result<()> {
        let asked = Asked {
            since: Some(self.since.to_string()),
            until: self.until.map(|at| at.to_string()),
            registry: self.registry.as_deref(),
            limit: self.limit,
        };
        let page = client.ask(&CHANGES, asked).await?;
        if as_json { json::print(&page) } else { show(&page) }
    }
}

fn show(page: &Page) -> Result<()> {
    if page.items.is_empty() {
        return if cli::is_for_people() { cli::print("Nothing changed.") } else { Ok(()) };
    }
    // By day, and within a day by registry; each group keeps the order in which it came.
    let mut rows: Vec<(&str, &Row)> =
        page.items.iter().map(|row| (row.at.get(..10).unwrap_or(&row.at), row)).collect();
    rows.sort_by(|(a, x), (b, y)| b.cmp(a).then_with(|| x.registry.cmp(&y.registry)));
    let headers = ["DAY", "REGISTRY", "CHANGE", "IMAGE", "ARCHITECTURE", "BEFORE", "AFTER"];
    let cells = rows.iter().map(|(day, row)| {
        vec![
            (*day).to_owned(),
            row.registry.clone(),
            row.kind.clone(),
            format!("{}:{}", row.name, row.tag),
            row.architecture.clone(),
            short(row.before.as_deref()),
            short(row.after.as_deref()),
        ]
    });
    cli::print(&table::rows(&headers, cells))?;
    if page.is_cut && cli::is_for_people() {
        cli::print("There are more; give --limit, --registry or a later --since.")?;
    }
    Ok(())
}

/// As many letters of a digest as people compare.
fn short(digest: Option<&str>) -> String {
    digest.map(|digest| digest.chars().take(19).collect()).unwrap_or_default()
}
