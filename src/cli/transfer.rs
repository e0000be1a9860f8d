//! `wharf preload` and `wharf unload`: images onto agents and off them.

use clap::{ArgMatches, Args};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::cli::{
    self,
    api::Client,
    connection::Connection,
    failure::{Failure, Result},
    image, json, table, text,
};

/// Load an image onto agents and follow that to its end
///
/// AGENTS is an expression; quote it, since shells read brackets and exclamation marks their own way:
/// wharf preload py 'gpu[01-16]!gpu03'. What it names, wharf agent set tells.
#[derive(Args)]
pub(crate) struct Preload {
    #[command(flatten)]
    connection: Connection,
    /// Canonical name, alias or digest
    reference: String,
    /// The agents: 'gpu[01-16]!gpu03', '*' for all
    agents: String,
    /// Only show what would be done on each agent
    #[arg(long, conflicts_with = "no_follow")]
    plan: bool,
    /// Return as soon as the task is started
    #[arg(long)]
    no_follow: bool,
}

/// Take an image off agents and follow that to its end
///
/// AGENTS is an expression; quote it, since shells read brackets and exclamation marks their own way:
/// wharf unload py 'gpu[01-16]!gpu03'. An image that containers use stays.
#[derive(Args)]
pub(crate) struct Unload {
    #[command(flatten)]
    connection: Connection,
    /// Canonical name, alias or digest
    reference: String,
    /// The agents: 'gpu[01-16]!gpu03', '*' for all
    agents: String,
    /// Return as soon as the task is started
    #[arg(long)]
    no_follow: bool,
}

/// What a preload would do.
#[derive(Serialize, Deserialize)]
struct Plan {
    #[serde(deserialize_with = "json::text")]
    folded: String,
    #[serde(deserialize_with = "json::count")]
    count: u64,
    #[serde(deserialize_with = "json::count")]
    bytes: u64,
    #[serde(deserialize_with = "json::list")]
    agents: Vec<AgentPlan>,
}

/// What it would do on one agent.
#[derive(Serialize, Deserialize)]
struct AgentPlan {
    #[serde(deserialize_with = "json::text")]
    agent: String,
    #[serde(deserialize_with = "json::text")]
    step: String,
    #[serde(deserialize_with = "json::count")]
    bytes: u64,
    free_bytes: Option<u64>,
    fits: Option<bool>,
    problem: Option<String>,
}

impl Preload {
    pub(crate) fn run(&self, matches: &ArgMatches) -> Result<()> {
        let client = Client::new(&self.connection, matches)?;
        let as_json = self.connection.json;
        if self.plan {
            return cli::block_on(plan(&client, &self.reference, &self.agents, as_json));
        }
        let started = start(&client, "preload_image", &self.reference, &self.agents, self.no_follow, as_json);
        cli::block_on(started)
    }
}

impl Unload {
    pub(crate) fn run(&self, matches: &ArgMatches) -> Result<()> {
        let client = Client::new(&self.connection, matches)?;
        let as_json = self.connection.json;
        let started = start(&client, "unload_image", &self.reference, &self.agents, self.no_follow, as_json);
        cli::block_on(started)
    }
}

async fn start(
    client: &Client,
    field: &str,
    reference: &str,
    agents: &str,
    no_follow: bool,
    as_json: bool,
) -> Result<()> {
    let query = format!(
        "mutation($reference: String!, $target_agents: String!) \
         {{ {field}(reference: $reference, target_agents: $target_agents) {{ ok msg task_id }} }}"
    );
    let variables = json!({ "reference": reference, "target_agents": agents });
    image::start(client, reference, field, &query, variables, no_follow, as_json).await
}

async fn plan(client: &Client, reference: &str, agents: &str, as_json: bool) -> Result<()> {
    let query = "query($reference: String!, $target_agents: String!) \
        { preload_plan(reference: $reference, target_agents: $target_agents) \
        { folded count bytes agents { agent step bytes free_bytes fits problem } } }";
    let variables = json!({ "reference": reference, "target_agents": agents });
    let plan: Option<Plan> = client.ask_about(reference, "preload_plan", query, variables).await?;
    let plan = plan.ok_or_else(|| Failure::failed(reference, "the server gives no plan"))?;
    if as_json { json::print(&plan) } else { cli::print(&plan.page()) }
}

impl Plan {
    fn page(&self) -> String {
        let headers = ["AGENT", "STEP", "TO FETCH", "FREE", "PROBLEM"];
        let table = table::rows(&headers, self.agents.iter().map(AgentPlan::cells));
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
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::cli::transfer::Plan;

    #[test]
    fn a_plan_is_a_table_and_its_totals() {
        let step = |agent: &str, step: &str, problem: Option<&str>| {
            json!({
                "agent": agent, "step": step, "bytes": 2_000_000, "free_bytes": null, "fits": null,
                "problem": problem,
            })
        };
        let plan: Plan = serde_json::from_value(json!({
            "folded": "gpu[1-2]", "count": 2, "bytes": 4_000_000,
            "agents": [step("gpu1", "to-fetch", None), step("gpu2", "offline", Some("offline"))],
        }))
        .unwrap();
        assert_eq!(
            plan.page(),
            "AGENT  STEP      TO FETCH  FREE  PROBLEM\n\
             gpu1   to-fetch  2.0 MB    -\n\
             gpu2   offline   2.0 MB    -     offline\n\n\
             2 agents, 4.0 MB to fetch: gpu[1-2]; 1 with a problem"
        );
    }
}
