//! `wharf rule`: standing preload rules.

use clap::{ArgMatches, Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cli::{
    self,
    api::{Client, Outcome, Payload, given},
    connection::Connection,
    failure::{Failure, Result},
    json,
    operation::{One, Operation, Set},
    table,
    text::{self, moment, one_line},
};

/// Keep images on agents: rules load missing images when agents join and tags move
///
/// A rule loads the images that match its pattern onto the agents that its expression names, whenever an image is
/// missing or stale there: when an agent joins or comes back empty, when a rescan finds that a tag moved, when the
/// rule's window opens. It removes nothing from an agent, and loads that have begun go on when the window closes or the
/// rule is removed.
#[derive(Args)]
pub(crate) struct Rule {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List the rules and the state of each
    List,
    /// Show one rule: which images are present, which are missing, and which wait and why
    Show {
        /// The rule
        name: String,
    },
    /// Add a rule
    ///
    /// IMAGES is a pattern for registry/name:tag, in which * stands for any characters, also / and :, and ? for exactly
    /// one: 'cr.example.org/stable/*', '*/python:3.?'. AGENTS is an expression, evaluated again each time:
    /// 'gpu[01-16]', '*!{zone=b}'. It may use names that no agent or group has yet. Quote both.
    Add {
        /// The rule's name: one word
        name: String,
        /// Pattern for the images: 'cr.example.org/stable/*'
        images: String,
        /// The agents: 'gpu[01-16]!gpu03', '*' for all
        agents: String,
        /// Only the images of this architecture, on agents of it: aarch64 [default: each agent's own]
        #[arg(long, value_name = "NAME")]
        architecture: Option<String>,
        #[command(flatten)]
        window: Window,
        /// Add it switched off
        #[arg(long, conflicts_with = "plan")]
        disabled: bool,
        /// Only show what it would load now
        #[arg(long)]
        plan: bool,
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
        /// Only the images of this architecture, on agents of it: aarch64; '' for each agent's own
        #[arg(long, value_name = "NAME")]
        architecture: Option<String>,
        #[command(flatten)]
        window: Window,
        /// Remove the window: let it start loading at any time
        #[arg(long, conflicts_with_all = ["window", "time_zone"])]
        always: bool,
    },
    /// Remove a rule; the images stay where they are
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

/// The times at which a rule may start loading.
#[derive(Args)]
struct Window {
    /// Part of the day in which it may start loading, also over midnight: 22:00-06:00 [default: always]
    #[arg(long, value_name = "HH:MM-HH:MM")]
    window: Option<String>,
    /// Time zone of the window: Asia/Seoul; '' for the server's own [default: the server's own]
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
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
    architecture: Option<String>,
    window: Option<String>,
    time_zone: Option<String>,
    effective_time_zone: Option<String>,
    enabled: Option<bool>,
    is_open: Option<bool>,
    opens_at: Option<String>,
    closes_at: Option<String>,
    created_at: Option<String>,
    created_by: Option<String>,
    modified_at: Option<String>,
    modified_by: Option<String>,
    status: Option<Status>,
}

/// The state of a rule at its last evaluation.
#[derive(Debug, Serialize, Deserialize)]
struct Status {
    at: Option<String>,
    #[serde(deserialize_with = "json::count")]
    images: u64,
    is_cut: Option<bool>,
    #[serde(deserialize_with = "json::count")]
    agents: u64,
    #[serde(deserialize_with = "json::text")]
    folded: String,
    #[serde(deserialize_with = "json::count")]
    left_out: u64,
    #[serde(deserialize_with = "json::list")]
    unknown: Vec<String>,
    #[serde(deserialize_with = "json::count")]
    unknown_count: u64,
    #[serde(deserialize_with = "json::list")]
    away: Vec<Away>,
    #[serde(deserialize_with = "json::count")]
    away_count: u64,
    #[serde(deserialize_with = "json::count")]
    present: u64,
    #[serde(deserialize_with = "json::count")]
    missing: u64,
    #[serde(deserialize_with = "json::count")]
    loading: u64,
    #[serde(deserialize_with = "json::count")]
    due: u64,
    #[serde(deserialize_with = "json::count")]
    held_back: u64,
    #[serde(deserialize_with = "json::count")]
    unfit: u64,
    #[serde(deserialize_with = "json::list")]
    waiting: Vec<Waiting>,
    begun_at: Option<String>,
    #[serde(deserialize_with = "json::count")]
    begun: u64,
    #[serde(deserialize_with = "json::list")]
    task_ids: Vec<String>,
    problem: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Away {
    #[serde(deserialize_with = "json::text")]
    agent: String,
    #[serde(deserialize_with = "json::text")]
    reason: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Waiting {
    #[serde(deserialize_with = "json::text")]
    agent: String,
    #[serde(deserialize_with = "json::text")]
    image: String,
    #[serde(deserialize_with = "json::text")]
    reason: String,
    until: Option<String>,
}

/// What a rule would load.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Preview {
    #[serde(deserialize_with = "json::list")]
    problems: Vec<Problem>,
    #[serde(deserialize_with = "json::count")]
    images: u64,
    #[serde(deserialize_with = "json::list")]
    image_names: Vec<String>,
    is_cut: Option<bool>,
    #[serde(deserialize_with = "json::count")]
    agents: u64,
    #[serde(deserialize_with = "json::text")]
    folded: String,
    #[serde(deserialize_with = "json::count")]
    left_out: u64,
    #[serde(deserialize_with = "json::list")]
    unknown: Vec<String>,
    #[serde(deserialize_with = "json::count")]
    unknown_count: u64,
    #[serde(deserialize_with = "json::count")]
    away_count: u64,
    #[serde(deserialize_with = "json::count")]
    present: u64,
    #[serde(deserialize_with = "json::count")]
    missing: u64,
    #[serde(deserialize_with = "json::count")]
    bytes: u64,
    is_open: Option<bool>,
    opens_at: Option<String>,
    effective_time_zone: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Problem {
    #[serde(deserialize_with = "json::text")]
    field: String,
    #[serde(deserialize_with = "json::text")]
    message: String,
}

const FILE: &str = include_str!("operations/rule.graphql");
pub(crate) const LIST: Operation<(), json::List<Record>> =
    Operation::new(FILE, "PreloadRules", "preload_rules");
pub(crate) const SHOW: Operation<One<'_>, Option<Record>> =
    Operation::new(FILE, "PreloadRule", "preload_rule");
pub(crate) const PREVIEW: Operation<Draft<'_>, Preview> =
    Operation::new(FILE, "PreloadRulePreview", "preload_rule_preview");
pub(crate) const CREATE: Operation<Set<'_>, Changed> =
    Operation::new(FILE, "CreatePreloadRule", "create_preload_rule");
pub(crate) const MODIFY: Operation<Set<'_>, Changed> =
    Operation::new(FILE, "ModifyPreloadRule", "modify_preload_rule");
pub(crate) const DELETE: Operation<One<'_>, Outcome> =
    Operation::new(FILE, "DeletePreloadRule", "delete_preload_rule");

/// A rule that does not exist yet.
#[derive(Default, Serialize)]
pub(crate) struct Draft<'a> {
    images: &'a str,
    target_agents: &'a str,
    architecture: Option<&'a str>,
    window: Option<&'a str>,
    time_zone: Option<&'a str>,
}

/// The answer to a change of a rule.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Changed {
    ok: bool,
    #[serde(default)]
    msg: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    /// Names in the expression that no agent or group has yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unknown: Option<Vec<String>>,
}

impl Payload for Changed {
    fn outcome(&self) -> (bool, Option<&str>, Option<&str>) {
        (self.ok, self.msg.as_deref(), self.code.as_deref())
    }
}

impl Rule {
    pub(crate) fn run(&self, matches: &ArgMatches) -> Result<()> {
        let client = Client::new(&self.connection, matches)?;
        cli::block_on(self.verb.run(&client, self.connection.json))
    }
}

impl Verb {
    async fn run(&self, client: &Client, as_json: bool) -> Result<()> {
        match self {
            Self::List => list(client, as_json).await,
            Self::Show { name } => show(client, name, as_json).await,
            Self::Add { images, agents, architecture, window, plan: true, .. } => {
                let draft = Draft {
                    images,
                    target_agents: agents,
                    architecture: architecture.as_deref(),
                    window: window.window.as_deref(),
                    time_zone: window.time_zone.as_deref(),
                };
                preview(client, draft, as_json).await
            }
            Self::Add { name, images, agents, architecture, window, disabled, .. } => {
                let props = given(json!({
                    "images": images, "target_agents": agents, "architecture": architecture,
                    "window": window.window, "time_zone": window.time_zone,
                    "enabled": disabled.then_some(false),
                }));
                changed(client, name, &CREATE, props, "added", as_json).await
            }
            Self::Change { name, images, agents, architecture, window, always } => {
                let times = if *always { Some(String::new()) } else { window.window.clone() };
                let props = given(json!({
                    "images": images, "target_agents": agents, "architecture": architecture,
                    "window": times, "time_zone": window.time_zone,
                }));
                changed(client, name, &MODIFY, props, "changed", as_json).await
            }
            Self::Remove { name } => {
                let outcome = client.change(name, &DELETE, One { id: name }).await?;
                cli::done(&outcome, &format!("removed {name}; the images stay where they are"), as_json)
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

async fn changed(
    client: &Client,
    name: &str,
    operation: &Operation<Set<'_>, Changed>,
    props: Value,
    verb: &str,
    as_json: bool,
) -> Result<()> {
    let outcome = client.change(name, operation, Set { id: name, props }).await?;
    cli::done(&outcome, &format!("{verb} {name}"), as_json)?;
    match outcome.unknown.as_deref().unwrap_or_default() {
        [] => Ok(()),
        _ if as_json => Ok(()),
        unknown => cli::print(&one_line(&nobodys(unknown, unknown.len()))),
    }
}

async fn list(client: &Client, as_json: bool) -> Result<()> {
    let rules = client.ask(&LIST, ()).await?.0;
    if as_json {
        return json::print(&rules);
    }
    if rules.is_empty() && cli::is_for_people() {
        return cli::print(
            "No rule; add one: wharf rule add nightly 'cr.example.org/stable/*' '*' --window 22:00-06:00",
        );
    }
    let headers = ["RULE", "STATE", "THERE", "MISSING", "WINDOW", "AGENTS", "IMAGES"];
    cli::print(&table::rows(&headers, rules.iter().map(Record::cells)))
}

async fn show(client: &Client, name: &str, as_json: bool) -> Result<()> {
    let rule = client.ask_about(name, &SHOW, One { id: name }).await?;
    let rule = rule.ok_or_else(|| Failure::failed(name, "no such rule").remedy("see wharf rule list"))?;
    if as_json { json::print(&rule) } else { cli::print(&rule.page()) }
}

async fn preview(client: &Client, draft: Draft<'_>, as_json: bool) -> Result<()> {
    let preview = client.ask(&PREVIEW, draft).await?;
    if let Some(Problem { field, message }) = preview.problems.first() {
        // A complaint about an expression is followed by the lines that show the place.
        let (why, below) = message.split_once('\n').unwrap_or((message, ""));
        return Err(Failure::failed(field, why).below(below));
    }
    if as_json { json::print(&preview) } else { cli::print(&preview.page()) }
}

impl Record {
    fn cells(&self) -> Vec<String> {
        let counted = |count: fn(&Status) -> u64| {
            self.status.as_ref().map(|status| count(status).to_string()).unwrap_or_default()
        };
        vec![
            one_line(&self.name),
            one_line(&self.state),
            counted(|status| status.present),
            counted(|status| status.missing),
            self.times(),
            one_line(&self.target_agents),
            self.wanted(),
        ]
    }

    /// The pattern for the images, with the architecture if the rule is for one: `cr.example.org/* (aarch64)`.
    fn wanted(&self) -> String {
        let images = self.images.as_str();
        match self.architecture.as_deref() {
            Some(architecture) => one_line(&format!("{images} ({architecture})")),
            None => one_line(images),
        }
    }

    /// The rule's window for people: `22:00-06:00 Asia/Seoul`.
    fn times(&self) -> String {
        let Some(window) = &self.window else { return "always".into() };
        one_line(&format!("{window} {}", self.effective_time_zone.as_deref().unwrap_or_default()))
    }

    fn page(&self) -> String {
        let line = |text: &Option<String>| text.as_deref().map(one_line).unwrap_or_default();
        let by = |at: &Option<String>, by: &Option<String>| {
            one_line(&format!("{} by {}", when(at.as_deref()), line(by)))
        };
        let window = match (&self.opens_at, &self.closes_at) {
            (Some(opens), _) => format!("{}; closed until {}", self.times(), when(Some(opens))),
            (_, Some(closes)) => format!("{}; open until {}", self.times(), when(Some(closes))),
            _ => self.times(),
        };
        let mut fields = vec![
            ("rule", one_line(&self.name)),
            ("state", one_line(&self.state)),
            ("images", one_line(&self.images)),
            ("agents", one_line(&self.target_agents)),
            ("architecture", line(&self.architecture)),
            ("window", window),
            ("created", by(&self.created_at, &self.created_by)),
            ("changed", by(&self.modified_at, &self.modified_by)),
        ];
        let Some(status) = &self.status else { return table::fields(fields) };
        fields.extend(status.fields());
        let mut page = table::fields(fields);
        if !status.waiting.is_empty() {
            let headers = ["AGENT", "IMAGE", "NEXT TRY", "REASON"];
            let rows = table::rows(&headers, status.waiting.iter().map(Waiting::cells));
            page = [page, String::new(), rows].join("\n");
        }
        page
    }
}

impl Status {
    fn fields(&self) -> Vec<(&'static str, String)> {
        let parts = [
            ("loading", self.loading),
            ("to come", self.due),
            ("held back", self.held_back),
            ("will not fit", self.unfit),
        ];
        let parts: Vec<String> = parts
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(what, count)| format!("{count} {what}"))
            .collect();
        let missing = match parts.as_slice() {
            [] => self.missing.to_string(),
            parts => format!("{}: {}", self.missing, parts.join(", ")),
        };
        let cut = if self.is_cut == Some(true) { "; too many, narrow the pattern" } else { "" };
        let unknown = if self.unknown_count == 0 {
            String::new()
        } else {
            one_line(&nobodys(&self.unknown, usize::try_from(self.unknown_count).unwrap_or(usize::MAX)))
        };
        let away = self.away.iter().map(|away| one_line(&format!("{}: {}", away.agent, away.reason)));
        let mut away: Vec<String> = away.collect();
        let more = self.away_count.saturating_sub(u64::try_from(away.len()).unwrap_or_default());
        if more > 0 {
            away.push(format!("and {more} more"));
        }
        let begun = self.begun_at.as_deref().map(|at| format!("{} at {}", self.begun, when(Some(at))));
        vec![
            ("looked at", when(self.at.as_deref())),
            ("takes", format!("{} {}{cut}", self.images, plural(self.images, "image"))),
            ("names", one_line(&format!("{} {} {}", self.agents, plural(self.agents, "agent"), self.folded))),
            ("left out", text::others(self.left_out).unwrap_or_default()),
            ("unknown", unknown),
            ("away", away.join("\n")),
            ("there", self.present.to_string()),
            ("missing", missing),
            ("problem", one_line(self.problem.as_deref().unwrap_or_default())),
            ("last begun", begun.unwrap_or_default()),
            ("tasks", self.task_ids.iter().map(|id| one_line(id)).collect::<Vec<_>>().join("\n")),
        ]
    }
}

impl Waiting {
    fn cells(&self) -> Vec<String> {
        vec![
            one_line(&self.agent),
            one_line(&self.image),
            when(self.until.as_deref()),
            one_line(&self.reason),
        ]
    }
}

impl Preview {
    fn page(&self) -> String {
        let more = self.images.saturating_sub(u64::try_from(self.image_names.len()).unwrap_or_default());
        let mut names: Vec<String> = self.image_names.iter().map(|name| one_line(name)).collect();
        if more > 0 {
            names.push(format!("and {more} more"));
        }
        let away = if self.away_count > 0 {
            format!("; {} can't be given anything now", self.away_count)
        } else {
            String::new()
        };
        let unknown = if self.unknown_count == 0 {
            String::new()
        } else {
            one_line(&nobodys(&self.unknown, usize::try_from(self.unknown_count).unwrap_or(usize::MAX)))
        };
        let window = self.opens_at.as_deref().filter(|_| self.is_open == Some(false));
        let cut = if self.is_cut == Some(true) { "; too many, narrow the pattern" } else { "" };
        let fields = table::fields([
            ("images", format!("{}{cut}", self.images)),
            ("", names.join("\n")),
            ("agents", one_line(&format!("{} {}{away}", self.agents, self.folded))),
            ("left out", text::others(self.left_out).unwrap_or_default()),
            ("unknown", unknown),
            ("there", self.present.to_string()),
            ("missing", format!("{}, {} to fetch at most", self.missing, text::size(self.bytes))),
            ("window", window.map(|opens| format!("closed until {}", when(Some(opens)))).unwrap_or_default()),
        ]);
        [fields, String::new(), "Nothing was added; leave out --plan to add the rule.".into()].join("\n")
    }
}

/// The names in an expression that no agent or group has yet, for people: `gpu07, @lab2: no agent or group is …`.
fn nobodys(names: &[String], count: usize) -> String {
    let listed = names.iter().take(20).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = count.saturating_sub(20.min(names.len()));
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{listed}{more}: no agent or group is called so yet; counted once one is")
}

fn when(at: Option<&str>) -> String {
    one_line(&moment(at.unwrap_or_default()))
}

fn plural(count: u64, word: &str) -> String {
    if count == 1 { word.into() } else { format!("{word}s") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::cli::rule::{Record, nobodys};

    #[test]
    fn a_rule_is_shown_with_what_waits_and_why() {
        let rule: Record = serde_json::from_value(json!({
            "name": "nightly", "state": "waiting", "images": "cr.lab/*", "target_agents": "gpu[01-03]",
            "architecture": "aarch64",
            "window": "22:00-06:00", "time_zone": null, "effective_time_zone": "Asia/Seoul", "enabled": true,
            "is_open": false, "opens_at": "2026-05-04T13:00:00Z", "closes_at": null,
            "created_at": "2026-05-01T00:00:00Z", "created_by": "ann@lab",
            "modified_at": "2026-05-01T00:00:00Z", "modified_by": "ann@lab",
            "status": {
                "at": "2026-05-04T12:00:00Z", "images": 2, "is_cut": false, "agents": 2, "folded": "gpu[01-02]",
                "left_out": 1,
                "unknown": ["gpu03"], "unknown_count": 1, "away": [{"agent": "gpu02", "reason": "draining"}],
                "away_count": 1, "present": 1, "missing": 1, "loading": 0, "due": 0, "held_back": 1, "unfit": 0,
                "waiting": [{
                    "agent": "gpu01", "image": "cr.lab/a:1", "reason": "came to nothing once: broken",
                    "until": "2026-05-04T12:01:00Z",
                }],
                "begun_at": null, "begun": 0, "task_ids": [], "problem": null,
            },
        }))
        .unwrap();
        assert_eq!(rule.cells()[..5], ["nightly", "waiting", "1", "1", "22:00-06:00 Asia/Seoul"]);
        assert_eq!(rule.cells()[6], "cr.lab/* (aarch64)");
        let page = rule.page();
        for words in [
            "closed until 2026-05-04 13:00:00 UTC",
            "gpu03: no agent or group is called so yet",
            "gpu02: draining",
            "left out      1 agent of another architecture",
            "1: 1 held back",
            "gpu01  cr.lab/a:1  2026-05-04 12:01:00 UTC  came to nothing once: broken",
        ] {
            assert!(page.contains(words), "{words}\n{page}");
        }
    }

    #[test]
    fn many_names_are_not_all_listed() {
        let names: Vec<String> = (0..30).map(|number| format!("n{number}")).collect();
        assert!(nobodys(&names, 200).contains("n19 and 180 more: "));
        assert!(nobodys(&names[..2], 2).starts_with("n0, n1: "));
    }
}
