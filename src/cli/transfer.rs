//! `wharf preload` and `wharf unload`: load images onto agents and remove them.

use clap::{ArgMatches, Args};
use serde::{Deserialize, Serialize};

use crate::cli::{
    self,
    api::{Client, Started},
    connection::Connection,
    failure::{Failure, Result},
    image, json,
    operation::Operation,
    table, text,
};

/// Load images onto agents and follow the task to its end
///
/// AGENTS, the last word, is an expression; quote it, since shells read brackets and exclamation marks their own way:
/// wharf preload py torch 'gpu[01-16]!gpu03'. wharf agent set shows which agents it names. Several images are one task.
/// Each agent gets the image of its own architecture; with --architecture, agents of another are left out.
#[derive(Args)]
pub(crate) struct Preload {
    #[command(flatten)]
    connection: Connection,
    /// Canonical names, aliases or digests
    #[arg(value_name = "REFERENCE", required = true)]
    references: Vec<String>,
    /// The agents: 'gpu[01-16]!gpu03', '*' for all
    agents: String,
    /// Only the images of this architecture, on agents of it: aarch64 [default: each agent's own]
    #[arg(long, value_name = "NAME")]
    architecture: Option<String>,
    /// Only show what would be done on each agent
    #[arg(long, conflicts_with = "no_follow")]
    plan: bool,
    /// Return as soon as the task is started
    #[arg(long)]
    no_follow: bool,
}

/// Take images off agents and follow the task to its end
///
/// AGENTS, the last word, is an expression; quote it, since shells read brackets and exclamation marks their own way:
/// wharf unload py torch 'gpu[01-16]!gpu03'. An image that containers use stays. Several images are one task. Each
/// agent loses the image of its own architecture; with --architecture, agents of another are left out.
#[derive(Args)]
pub(crate) struct Unload {
    #[command(flatten)]
    connection: Connection,
    /// Canonical names, aliases or digests
    #[arg(value_name = "REFERENCE", required = true)]
    references: Vec<String>,
    /// The agents: 'gpu[01-16]!gpu03', '*' for all
    agents: String,
    /// Only the images of this architecture, on agents of it: aarch64 [default: each agent's own]
    #[arg(long, value_name = "NAME")]
    architecture: Option<String>,
    /// Return as soon as the task is started
    #[arg(long)]
    no_follow: bool,
}

/// What a preload would do.
#[derive(Serialize, Deserialize)]
pub(crate) struct Plan {
    #[serde(deserialize_with = "json::text")]
    folded: String,
    #[serde(deserialize_with = "json::count")]
    count: u64,
    #[serde(deserialize_with = "json::count")]
    left_out: u64,
    #[serde(deserialize_with = "json::count")]
    bytes: u64,
    #[serde(deserialize_with = "json::list")]
    agents: Vec<AgentPlan>,
}

/// What a preload would do with one image on one agent.
#[derive(Serialize, Deserialize)]
struct AgentPlan {
    #[serde(deserialize_with = "json::text")]
    agent: String,
    #[serde(deserialize_with = "json::text")]
    reference: String,
    #[serde(deserialize_with = "json::text")]
    step: String,
    #[serde(deserialize_with = "json::count")]
    bytes: u64,
    free_bytes: Option<u64>,
    fits: Option<bool>,
    problem: Option<String>,
}

const FILE: &str = include_str!("operations/transfer.graphql");
pub(crate) const PLAN: Operation<Asked<'_>, Option<Plan>> =
    Operation::new(FILE, "PreloadPlan", "preload_plan");
pub(crate) const PRELOAD: Operation<Asked<'_>, Started> =
    Operation::new(FILE, "PreloadImage", "preload_image");
pub(crate) const UNLOAD: Operation<Asked<'_>, Started> = Operation::new(FILE, "UnloadImage", "unload_image");

/// The images and the agents of a preload or unload.
#[derive(Default, Serialize)]
pub(crate) struct Asked<'a> {
    reference: &'a str,
    target_agents: &'a str,
    references: Option<&'a [String]>,
    architecture: Option<&'a str>,
}

impl Preload {
    pub(crate) fn run(&self, matches: &ArgMatches) -> Result<()> {
        let client = Client::new(&self.connection, matches)?;
        let as_json = self.connection.json;
        let asked = asked(&self.references, &self.agents, self.architecture.as_deref());
        let what = self.references.join(" ");
        if self.plan {
            return cli::block_on(plan(&client, &what, asked, as_json));
        }
        cli::block_on(image::start(&client, &what, &PRELOAD, asked, self.no_follow, as_json))
    }
}

impl Unload {
    pub(crate) fn run(&self, matches: &ArgMatches) -> Result<()> {
        let client = Client::new(&self.connection, matches)?;
        let as_json = self.connection.json;
        let asked = asked(&self.references, &self.agents, self.architecture.as_deref());
        let what = self.references.join(" ");
        cli::block_on(image::start(&client, &what, &UNLOAD, asked, self.no_follow, as_json))
    }
}

/// The variables for these images. A request about one image has the form that every server understands.
pub(crate) fn asked<'a>(
    references: &'a [String],
    agents: &'a str,
    architecture: Option<&'a str>,
) -> Asked<'a> {
    let (first, more) =
        references.split_first().map_or(("", references), |(first, more)| (first.as_str(), more));
    let references = (!more.is_empty()).then_some(more);
    Asked { reference: first, target_agents: agents, references, architecture }
}

async fn plan(client: &Client, what: &str, asked: Asked<'_>, as_json: bool) -> Result<()> {
    let plan = client.ask_about(what, &PLAN, asked).await?;
    let plan = plan.ok_or_else(|| Failure::failed(what, "the server gives no plan"))?;
    if as_json { json::print(&plan) } else { cli::print(&plan.page()) }
}

impl Plan {
    fn page(&self) -> String {
        let headers = ["AGENT", "STEP", "TO FETCH", "FREE", "PROBLEM", "IMAGE"];
        // If there is only one image, its name in every row tells nothing new.
        let first = self.agents.first().map(|agent| &agent.reference);
        let columns = if self.agents.iter().all(|agent| Some(&agent.reference) == first) { 5 } else { 6 };
        let cells = self.agents.iter().map(|agent| agent.cells().into_iter().take(columns).collect());
        let headers: Vec<&str> = headers.into_iter().take(columns).collect();
        let table = table::rows(&headers, cells);
        let mut total = format!(
            "{} agent{}, {} to fetch: {}",
            self.count,
            if self.count == 1 { "" } else { "s" },
            text::size(self.bytes),
            text::one_line(&self.folded)
        );
        let problems = self.agents.iter().filter(|agent| agent.problem.is_some()).count();
        if problems > 0 {
            total = format!("{total}; {problems} with a problem");
        }
        if let Some(others) = text::others(self.left_out) {
            total = format!("{total}; left out: {others}");
        }
        [table, String::new(), total].join("\n")
    }
}

impl AgentPlan {
    fn cells(&self) -> Vec<String> {
        vec![
            self.agent.clone(),
            self.step.clone(),
            text::size(self.bytes),
            self.free_bytes.map(text::size).unwrap_or_default(),
            self.problem.clone().unwrap_or_default(),
            self.reference.clone(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::cli::transfer::{Plan, asked};

    fn plan(steps: &[(&str, &str, &str, Option<&str>)]) -> Plan {
        let step = |(agent, reference, step, problem): &(&str, &str, &str, Option<&str>)| {
            json!({
                "agent": agent, "reference": reference, "step": step, "bytes": 2_000_000, "free_bytes": null,
                "fits": null, "problem": problem,
            })
        };
        serde_json::from_value(json!({
            "folded": "gpu[1-2]", "count": 2, "left_out": 0, "bytes": 4_000_000,
            "agents": steps.iter().map(step).collect::<Vec<_>>(),
        }))
        .unwrap()
    }

    #[test]
    fn a_plan_is_a_table_and_its_totals() {
        let plan = plan(&[("gpu1", "a:1", "to-fetch", None), ("gpu2", "a:1", "offline", Some("offline"))]);
        assert_eq!(
            plan.page(),
            "AGENT  STEP      TO FETCH  FREE  PROBLEM\n\
             gpu1   to-fetch  2.0 MB    -\n\
             gpu2   offline   2.0 MB    -     offline\n\n\
             2 agents, 4.0 MB to fetch: gpu[1-2]; 1 with a problem"
        );
        let some = Plan { left_out: 1, ..plan };
        assert!(some.page().ends_with("1 with a problem; left out: 1 agent of another architecture"));
    }

    #[test]
    fn a_plan_for_several_images_names_them() {
        let plan = plan(&[("gpu1", "a:1", "to-fetch", None), ("gpu1", "b:1", "to-fetch", None)]);
        assert_eq!(
            plan.page(),
            "AGENT  STEP      TO FETCH  FREE  PROBLEM  IMAGE\n\
             gpu1   to-fetch  2.0 MB    -     -        a:1\n\
             gpu1   to-fetch  2.0 MB    -     -        b:1\n\n\
             2 agents, 4.0 MB to fetch: gpu[1-2]"
        );
    }

    #[test]
    fn the_first_image_is_asked_for_as_the_only_one_would_be() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        for (given, more) in [(["a"].as_slice(), json!(null)), (&["a", "b"], json!(["b"]))] {
            let expected =
                json!({"reference": "a", "target_agents": "*", "references": more, "architecture": null});
            assert_eq!(json!(asked(&names(given), "*", None)), expected);
        }
    }
}
