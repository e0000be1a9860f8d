//! `wharf retention`: rules that take images off agents.

use std::time::Duration;

use clap::{ArgMatches, Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cli::{
    self,
    api::{Client, Outcome, given},
    bytes,
    connection::Connection,
    duration,
    failure::{Failure, Result},
    json,
    operation::{One, Operation, Set},
    room::Leaving,
    table,
    text::{moment, one_line, size},
};

/// Take images off agents: rules remove what is old, unused or in the way
///
/// A rule never takes what a container uses (running or not), what a preload rule or a running preload wants, what is
/// pinned (wharf image pin), and what came within the last hour. What it takes is removed by a task like any other, and
/// comes back by loading it again.
#[derive(Args)]
pub(crate) struct Retention {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List the rules and the state of each
    List,
    /// Show one rule, and how it stood at its last check
    Show {
        /// The rule
        name: String,
    },
    /// Show what a rule would take now from each agent; nothing is removed
    Plan {
        /// The rule
        name: String,
    },
    /// Add a rule
    ///
    /// IMAGES is a pattern for registry/name:tag, in which * stands for any characters, also / and :, and ? for exactly
    /// one; an image is meant if all its names match. AGENTS is an expression, evaluated again each time. Quote both. At
    /// least one of --keep-last, --unused-for and --when-below is needed; of several, an image goes if all of them let it.
    Add {
        /// The rule's name: one word
        name: String,
        /// Pattern for the images: 'cr.example.org/*', '*' for all
        images: String,
        /// The agents: 'gpu[01-16]!gpu03', '*' for all
        agents: String,
        #[command(flatten)]
        terms: Terms,
        /// Add it switched off
        #[arg(long, conflicts_with = "plan")]
        disabled: bool,
        /// Only show what it would take now
        #[arg(long)]
        plan: bool,
        /// Let it take more than half of what an agent has
        #[arg(long, conflicts_with = "plan")]
        confirm: bool,
    },
    /// Change a rule; what is not given stays
    Change {
        /// The rule
        name: String,
        /// Pattern for the images
        #[arg(long, value_name = "PATTERN")]
        images: Option<String>,
        /// The agents
        #[arg(long, value_name = "AGENTS")]
        agents: Option<String>,
        #[command(flatten)]
        terms: Terms,
        /// Remove the window: let it start removing at any time
        #[arg(long, conflicts_with_all = ["window", "time_zone"])]
        always: bool,
        /// Let it take more than half of what an agent has; any other change takes that back
        #[arg(long)]
        confirm: bool,
    },
    /// Remove a rule; what it took is not loaded again
    Remove {
        /// The rule
        name: String,
    },
    /// Switch a rule on
    Enable {
        /// The rule
        name: String,
    },
    /// Switch a rule off; what it has begun goes on
    Disable {
        /// The rule
        name: String,
    },
}

/// What a rule takes, and when.
#[derive(Args)]
struct Terms {
    /// Keep so many images of each repository on each agent, those made last; 0 for no matter how many
    #[arg(long, value_name = "N")]
    keep_last: Option<u32>,
    /// Take only what no container used for so long: 30d; a day at least, 0 for no matter how long
    #[arg(long, value_name = "TIME", value_parser = idle_time)]
    unused_for: Option<u32>,
    /// Take something only where less than this is free: 50GiB; 0 for everywhere
    #[arg(long, value_name = "BYTES", value_parser = bytes::parse)]
    when_below: Option<u64>,
    /// Take until this is free: 80GiB [default: as much as --when-below]
    #[arg(long, value_name = "BYTES", value_parser = bytes::parse)]
    until: Option<u64>,
    /// Take images that the catalog does not know, too: they can't be loaded again
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    unknown_images: Option<bool>,
    /// Part of the day in which it may start removing, also over midnight: 22:00-06:00 [default: always]
    #[arg(long, value_name = "HH:MM-HH:MM")]
    window: Option<String>,
    /// Time zone of the window: Asia/Seoul; '' for the server's own [default: the server's own]
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
}

fn idle_time(text: &str) -> Result<u32, String> {
    let time = if text == "0" { Duration::ZERO } else { duration::parse(text)? };
    u32::try_from(time.as_secs()).map_err(|_| format!("{text:?} is too long"))
}

impl Terms {
    /// The terms in the form of the API, with what else is given.
    fn props(&self, more: &Value) -> Value {
        let mut props = json!({
            "keep_last": self.keep_last, "unused_for": self.unused_for, "when_below": self.when_below,
            "until": self.until, "unknown_images": self.unknown_images, "window": self.window,
            "time_zone": self.time_zone,
        });
        if let (Some(props), Some(more)) = (props.as_object_mut(), more.as_object()) {
            props.extend(more.clone());
        }
        given(props)
    }
}

/// A rule as the API returns it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    #[serde(deserialize_with = "json::text")]
    name: String,
    #[serde(deserialize_with = "json::text")]
    state: String,
    #[serde(deserialize_with = "json::text")]
    images: String,
    #[serde(deserialize_with = "json::text")]
    target_agents: String,
    keep_last: Option<u32>,
    unused_for: Option<u32>,
    when_below: Option<u64>,
    until: Option<u64>,
    unknown_images: Option<bool>,
    window: Option<String>,
    time_zone: Option<String>,
    effective_time_zone: Option<String>,
    enabled: Option<bool>,
    confirmed: Option<bool>,
    opens_at: Option<String>,
    created_at: Option<String>,
    created_by: Option<String>,
    modified_at: Option<String>,
    modified_by: Option<String>,
    status: Option<Status>,
}

/// The state of a rule at its last check.
#[derive(Debug, Serialize, Deserialize)]
struct Status {
    at: Option<String>,
    #[serde(deserialize_with = "json::count")]
    agents: u64,
    #[serde(deserialize_with = "json::text")]
    folded: String,
    #[serde(deserialize_with = "json::list")]
    away: Vec<Away>,
    #[serde(deserialize_with = "json::count")]
    away_count: u64,
    #[serde(deserialize_with = "json::list")]
    unknown: Vec<String>,
    #[serde(deserialize_with = "json::count")]
    unknown_count: u64,
    #[serde(deserialize_with = "json::count")]
    due: u64,
    #[serde(deserialize_with = "json::count")]
    due_bytes: u64,
    #[serde(deserialize_with = "json::list")]
    held_back: Vec<String>,
    begun_at: Option<String>,
    #[serde(deserialize_with = "json::count")]
    begun: u64,
    task_id: Option<String>,
    problem: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Away {
    #[serde(deserialize_with = "json::text")]
    agent: String,
    #[serde(deserialize_with = "json::text")]
    reason: String,
}

/// What a rule would take.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    #[serde(deserialize_with = "json::text")]
    folded: String,
    #[serde(deserialize_with = "json::list")]
    agents: Vec<AgentPlan>,
    #[serde(deserialize_with = "json::count")]
    count: u64,
    #[serde(deserialize_with = "json::count")]
    frees_bytes: u64,
    #[serde(deserialize_with = "json::list")]
    away: Vec<Away>,
    #[serde(deserialize_with = "json::count")]
    away_count: u64,
    #[serde(deserialize_with = "json::list")]
    unknown: Vec<String>,
    #[serde(deserialize_with = "json::count")]
    unknown_count: u64,
    #[serde(deserialize_with = "json::list")]
    most: Vec<String>,
    problem: Option<String>,
}

/// What a rule would take from one agent.
#[derive(Debug, Serialize, Deserialize)]
struct AgentPlan {
    #[serde(deserialize_with = "json::text")]
    agent: String,
    #[serde(deserialize_with = "json::list")]
    images: Vec<Leaving>,
    #[serde(deserialize_with = "json::count")]
    frees_bytes: u64,
    #[serde(deserialize_with = "json::count")]
    has: u64,
    free_bytes: Option<u64>,
    note: Option<String>,
}

const FILE: &str = include_str!("operations/retention.graphql");
pub(crate) const LIST: Operation<(), json::List<Record>> =
    Operation::new(FILE, "RetentionRules", "retention_rules");
pub(crate) const SHOW: Operation<One<'_>, Option<Record>> =
    Operation::new(FILE, "RetentionRule", "retention_rule");
pub(crate) const PLAN: Operation<One<'_>, Option<Plan>> =
    Operation::new(FILE, "RetentionPlan", "retention_plan");
pub(crate) const PREVIEW: Operation<Draft, Option<Plan>> =
    Operation::new(FILE, "RetentionPreview", "retention_preview");
pub(crate) const CREATE: Operation<Set<'_>, Outcome> =
    Operation::new(FILE, "CreateRetentionRule", "create_retention_rule");
pub(crate) const MODIFY: Operation<Set<'_>, Outcome> =
    Operation::new(FILE, "ModifyRetentionRule", "modify_retention_rule");
pub(crate) const DELETE: Operation<One<'_>, Outcome> =
    Operation::new(FILE, "DeleteRetentionRule", "delete_retention_rule");

/// A rule that does not exist yet.
#[derive(Default, Serialize)]
pub(crate) struct Draft {
    props: Value,
}

impl Retention {
    pub(crate) fn run(&self, matches: &ArgMatches) -> Result<()> {
        let client = Client::new(&self.connection, matches)?;
        cli::block_on(self.verb.run(&client, self.connection.json))
    }
}

impl Verb {
    async fn run(&self, client: &Client, as_json: bool) -> Result<()> {
        match self {
            Self::List => list(client, as_json).await,
            Self::Show { name } => {
                let rule = client.ask_about(name, &SHOW, One { id: name }).await?;
                let rule = rule.ok_or_else(|| missing(name))?;
                if as_json { json::print(&rule) } else { cli::print(&rule.page()) }
            }
            Self::Plan { name } => {
                let plan = client.ask_about(name, &PLAN, One { id: name }).await?;
                let plan = plan.ok_or_else(|| missing(name))?;
                if as_json { json::print(&plan) } else { cli::print(&plan.page()) }
            }
            Self::Add { name, images, agents, terms, plan: true, .. } => {
                let props = terms.props(&json!({ "images": images, "target_agents": agents }));
                let plan = client.ask_about(name, &PREVIEW, Draft { props }).await?;
                let plan = plan.ok_or_else(|| missing(name))?;
                if as_json { json::print(&plan) } else { cli::print(&plan.page()) }
            }
            Self::Add { name, images, agents, terms, disabled, confirm, .. } => {
                let props = terms.props(&json!({
                    "images": images, "target_agents": agents, "enabled": disabled.then_some(false),
                    "confirm": confirm.then_some(true),
                }));
                changed(client, name, &CREATE, props, "added", as_json).await
            }
            Self::Change { name, images, agents, terms, always, confirm } => {
                let window = if *always { Some("") } else { terms.window.as_deref() };
                let props = terms.props(&json!({
                    "images": images, "target_agents": agents, "window": window,
                    "confirm": confirm.then_some(true),
                }));
                changed(client, name, &MODIFY, props, "changed", as_json).await
            }
            Self::Remove { name } => {
                let outcome = client.change(name, &DELETE, One { id: name }).await?;
                cli::done(&outcome, &format!("removed {name}; what it took is not loaded again"), as_json)
            }
            Self::Enable { name } => {
                changed(client, name, &MODIFY, json!({ "enabled": true }), "enabled", as_json).await
            }
            Self::Disable { name } => {
                changed(client, name, &MODIFY, json!({ "enabled": false }), "disabled", as_json).await
            }
        }
    }
}

fn missing(name: &str) -> Failure {
    Failure::failed(name, "no such rule").remedy("see wharf retention list")
}

async fn changed(
    client: &Client,
    name: &str,
    operation: &Operation<Set<'_>, Outcome>,
    props: Value,
    verb: &str,
    as_json: bool,
) -> Result<()> {
    let outcome = client.change(name, operation, Set { id: name, props }).await?;
    cli::done(&outcome, &format!("{verb} {name}"), as_json)
}

async fn list(client: &Client, as_json: bool) -> Result<()> {
    let rules = client.ask(&LIST, ()).await?.0;
    if as_json {
        return json::print(&rules);
    }
    if rules.is_empty() && cli::is_for_people() {
        return cli::print("No rule; add one: wharf retention add old '*' '*' --unused-for 30d --plan");
    }
    let headers = ["RULE", "STATE", "TO GO", "TAKES", "WINDOW", "AGENTS", "IMAGES"];
    cli::print(&table::rows(&headers, rules.iter().map(Record::cells)))
}

impl Record {
    fn cells(&self) -> Vec<String> {
        vec![
            one_line(&self.name),
            one_line(&self.state),
            self.status.as_ref().map(|status| status.due.to_string()).unwrap_or_default(),
            self.terms(),
            self.times(),
            one_line(&self.target_agents),
            one_line(&self.images),
        ]
    }

    /// What the rule takes, for people: `unused for 30d, all but the last 2, below 53.7 GB`.
    fn terms(&self) -> String {
        let unused = self.unused_for.map(|seconds| match (seconds % 86_400, seconds % 3_600) {
            (0, _) => format!("unused for {}d", seconds / 86_400),
            (_, 0) => format!("unused for {}h", seconds / 3_600),
            _ => format!("unused for {seconds}s"),
        });
        let last = self.keep_last.map(|count| format!("all but the last {count}"));
        let room = self.when_below.map(|below| match self.until.filter(|until| *until != below) {
            Some(until) => format!("below {} until {}", size(below), size(until)),
            None => format!("below {}", size(below)),
        });
        let unknown = (self.unknown_images == Some(true)).then(|| "also unknown".to_owned());
        [unused, last, room, unknown].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    fn times(&self) -> String {
        let Some(window) = &self.window else { return "always".into() };
        one_line(&format!("{window} {}", self.effective_time_zone.as_deref().unwrap_or_default()))
    }

    fn page(&self) -> String {
        let line = |text: &Option<String>| text.as_deref().map(one_line).unwrap_or_default();
        let by = |at: &Option<String>, by: &Option<String>| {
            one_line(&format!("{} by {}", when(at.as_deref()), line(by)))
        };
        let window = match &self.opens_at {
            Some(opens) => format!("{}; closed until {}", self.times(), when(Some(opens))),
            None => self.times(),
        };
        let confirmed = if self.confirmed == Some(true) { "may take more than half" } else { "" };
        let mut fields = vec![
            ("rule", one_line(&self.name)),
            ("state", one_line(&self.state)),
            ("images", one_line(&self.images)),
            ("agents", one_line(&self.target_agents)),
            ("takes", self.terms()),
            ("confirmed", confirmed.into()),
            ("window", window),
            ("created", by(&self.created_at, &self.created_by)),
            ("changed", by(&self.modified_at, &self.modified_by)),
        ];
        fields.extend(self.status.iter().flat_map(Status::fields));
        table::fields(fields)
    }
}

impl Status {
    fn fields(&self) -> Vec<(&'static str, String)> {
        let begun = self.begun_at.as_deref().map(|at| format!("{} at {}", self.begun, when(Some(at))));
        let held = match self.held_back.as_slice() {
            [] => String::new(),
            held => one_line(&format!("more than half of what they have: {}", held.join(", "))),
        };
        vec![
            ("looked at", when(self.at.as_deref())),
            ("names", one_line(&format!("{} {}", self.agents, self.folded))),
            ("unknown", unknown(&self.unknown, self.unknown_count)),
            ("away", away(&self.away, self.away_count)),
            ("to go", format!("{}, {}", self.due, size(self.due_bytes))),
            ("held back", held),
            ("problem", one_line(self.problem.as_deref().unwrap_or_default())),
            ("last begun", begun.unwrap_or_default()),
            ("task", one_line(self.task_id.as_deref().unwrap_or_default())),
        ]
    }
}

impl Plan {
    fn page(&self) -> String {
        let rows = self.agents.iter().flat_map(|plan| {
            plan.images.iter().map(|image| {
                let mut cells = vec![one_line(&plan.agent)];
                cells.extend(image.cells());
                cells
            })
        });
        let headers = ["AGENT", "COMES FREE", "LAST USE", "IMAGE"];
        let table = (self.count > 0).then(|| [table::rows(&headers, rows), String::new()].join("\n"));
        let notes = self.agents.iter().filter_map(|plan| {
            let free = plan.free_bytes.map(|bytes| format!(" ({} free)", size(bytes))).unwrap_or_default();
            Some(one_line(&format!("{}: {}{free}", plan.agent, plan.note.as_deref()?)))
        });
        let has: u64 = self.agents.iter().map(|plan| plan.has).sum();
        let most = match self.most.as_slice() {
            [] => String::new(),
            most => one_line(&format!("more than half of {}: --confirm is needed", most.join(", "))),
        };
        let fields = table::fields([
            ("to go", format!("{} of {has} images, {} at most", self.count, size(self.frees_bytes))),
            ("from", one_line(&self.folded)),
            ("", notes.collect::<Vec<_>>().join("\n")),
            ("unknown", unknown(&self.unknown, self.unknown_count)),
            ("away", away(&self.away, self.away_count)),
            ("that is", most),
            ("problem", one_line(self.problem.as_deref().unwrap_or_default())),
        ]);
        table
            .into_iter()
            .chain([fields, String::new(), "Nothing was removed.".into()])
            .collect::<Vec<_>>()
            .join("\n")
    }
}

fn unknown(names: &[String], count: u64) -> String {
    if count == 0 {
        return String::new();
    }
    let more = count.saturating_sub(u64::try_from(names.len()).unwrap_or_default());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    one_line(&format!("{}{more}: no agent or group is called so yet", names.join(", ")))
}

fn away(away: &[Away], count: u64) -> String {
    let mut lines: Vec<String> =
        away.iter().map(|away| one_line(&format!("{}: {}", away.agent, away.reason))).collect();
    let more = count.saturating_sub(u64::try_from(lines.len()).unwrap_or_default());
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines.join("\n")
}

fn when(at: Option<&str>) -> String {
    one_line(&moment(at.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Plan, Record};

    #[test]
    fn a_plan_has_what_goes_from_each_agent_and_what_it_comes_to() {
        let image = json!({
            "digest": "sha256:12", "names": ["cr.lab/a:1"], "size_bytes": 9_000, "frees_bytes": 5_000, "known": true,
            "usage": {"in_use": false, "last_used_at": null, "unused_since": "2026-05-04T12:00:00Z", "came_at": null},
        });
        let plan: Plan = serde_json::from_value(json!({
            "folded": "gpu[1-2]", "count": 1, "frees_bytes": 5_000, "away": [], "away_count": 0, "unknown": ["gpu9"],
            "unknown_count": 1, "most": ["gpu1"], "problem": null,
            "agents": [
                {"agent": "gpu1", "images": [image], "frees_bytes": 5_000, "has": 1, "free_bytes": 7, "note": null},
                {"agent": "gpu2", "images": [], "frees_bytes": 0, "has": 3, "free_bytes": 7, "note": "too little"},
            ],
        }))
        .unwrap();
        let page = plan.page();
        for words in [
            "gpu1   5.0 kB      not since 2026-05-04 12:00:00 UTC  cr.lab/a:1",
            "1 of 4 images, 5.0 kB at most",
            "gpu2: too little (7 B free)",
            "more than half of gpu1: --confirm",
            "gpu9: no agent",
        ] {
            assert!(page.contains(words), "{words}\n{page}");
        }
    }

    #[test]
    fn a_rule_says_what_it_takes() {
        let rule: Record = serde_json::from_value(json!({
            "name": "old", "state": "kept", "images": "*", "target_agents": "*", "keep_last": 2,
            "unused_for": 2_592_000, "when_below": 50_000_000_000_u64, "until": 80_000_000_000_u64,
            "unknown_images": true, "window": null, "time_zone": null, "effective_time_zone": null, "enabled": true,
            "confirmed": false, "opens_at": null, "created_at": null, "created_by": null, "modified_at": null,
            "modified_by": null, "status": null,
        }))
        .unwrap();
        let terms = "unused for 30d, all but the last 2, below 50.0 GB until 80.0 GB, also unknown";
        assert_eq!(rule.cells()[3], terms);
    }
}
