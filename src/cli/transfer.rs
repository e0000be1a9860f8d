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
    room::Leaving,
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
    /// Where an image does not fit, let others go first: those unused longest, no more than needed, and nothing that a
    /// container uses, that a rule wants, that is pinned or new; see --plan
    #[arg(long)]
    make_room: bool,
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
/// agent loses the image of its own architecture; with --architecture, agents of another are left out. An image that the
/// catalog does not know is named by its full name or its digest, as wharf image unknown lists it.
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
    /// Only show what would be done on each agent
    #[arg(long, conflicts_with = "no_follow")]
    plan: bool,
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
    #[serde(deserialize_with = "json::list")]
    room: Vec<Leaving>,
    fits_with_room: Option<bool>,
}

/// What an unload would do with one image on one agent.
#[derive(Serialize, Deserialize)]
pub(crate) struct Removing {
    #[serde(deserialize_with = "json::text")]
    agent: String,
    #[serde(deserialize_with = "json::text")]
    reference: String,
    #[serde(deserialize_with = "json::text")]
    step: String,
    #[serde(deserialize_with = "json::count")]
    frees_bytes: u64,
    warning: Option<String>,
}

const FILE: &str = include_str!("operations/transfer.graphql");
pub(crate) const PLAN: Operation<Asked<'_>, Option<Plan>> =
    Operation::new(FILE, "PreloadPlan", "preload_plan");
pub(crate) const PRELOAD: Operation<Asked<'_>, Started> =
    Operation::new(FILE, "PreloadImage", "preload_image");
pub(crate) const PRELOAD_MAKING_ROOM: Operation<Asked<'_>, Started> =
    Operation::new(FILE, "PreloadMakingRoom", "preload_image");
pub(crate) const UNLOAD_PLAN: Operation<Asked<'_>, json::List<Removing>> =
    Operation::new(FILE, "UnloadPlan", "unload_plan");
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
        let operation = if self.make_room { &PRELOAD_MAKING_ROOM } else { &PRELOAD };
        cli::block_on(image::start(&client, &what, operation, asked, self.no_follow, as_json))
    }
}

impl Unload {
    pub(crate) fn run(&self, matches: &ArgMatches) -> Result<()> {
        let client = Client::new(&self.connection, matches)?;
        let as_json = self.connection.json;
        let asked = asked(&self.references, &self.agents, self.architecture.as_deref());
        let what = self.references.join(" ");
        if self.plan {
            return cli::block_on(unload_plan(&client, &what, asked, as_json));
        }
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

async fn unload_plan(client: &Client, what: &str, asked: Asked<'_>, as_json: bool) -> Result<()> {
    let steps = client.ask_about(what, &UNLOAD_PLAN, asked).await?.0;
    if as_json {
        return json::print(&steps);
    }
    let cells = |step: &Removing| {
        let warning = step.warning.as_deref().unwrap_or_default();
        vec![
            step.agent.clone(),
            step.step.clone(),
            text::size(step.frees_bytes),
            warning.into(),
            step.reference.clone(),
        ]
    };
    let table = table::rows(&["AGENT", "STEP", "COMES FREE", "BUT", "IMAGE"], steps.iter().map(cells));
    let frees = steps.iter().map(|step| step.frees_bytes).fold(0, u64::saturating_add);
    let total = format!("{} at most come free", text::size(frees));
    cli::print(&[table, String::new(), total].join("\n"))
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
        let room = self.agents.iter().filter_map(AgentPlan::room_line);
        [table, String::new(), total].into_iter().chain(room).collect::<Vec<_>>().join("\n")
    }
}

impl AgentPlan {
    /// What would go so that it fits, for people.
    fn room_line(&self) -> Option<String> {
        let line = if self.fits_with_room? {
            let names = self.room.iter().map(Leaving::name).collect::<Vec<_>>().join(", ");
            format!("{}: with --make-room, {names} would go", self.agent)
        } else {
            format!("{}: all that may go does not suffice", self.agent)
        };
        Some(text::one_line(&line))
    }

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
                "fits": null, "problem": problem, "room": [], "fits_with_room": null,
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
    fn a_plan_says_what_would_go_where_an_image_does_not_fit() {
        let mut plan = plan(&[("gpu1", "a:1", "to-fetch", Some("will not fit"))]);
        plan.agents[0].fits_with_room = Some(false);
        assert!(plan.page().ends_with("gpu1: all that may go does not suffice"));
        plan.agents[0].fits_with_room = Some(true);
        let image = |names: &[&str]| json!({"digest": "sha256:12", "names": names, "size_bytes": 1, "frees_bytes": 1, "known": true, "usage": null});
        plan.agents[0].room =
            [image(&["b:1", "b:2"]), image(&[])].map(|image| serde_json::from_value(image).unwrap()).into();
        assert!(plan.page().ends_with("gpu1: with --make-room, b:1, sha256:12 would go"), "{}", plan.page());
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
