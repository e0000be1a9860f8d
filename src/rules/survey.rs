//! Which agents the rules name at one moment, and what these agents lack.

use std::collections::{BTreeMap, HashMap};

use crate::access::caller::Caller;
use crate::access::visibility::ImageFilter;
use crate::base::bits::Bits;
use crate::base::digest::Digest;
use crate::base::{Error, Result};
use crate::catalog::image::Image;
use crate::catalog::service::Catalog;
use crate::fleet::agent::{Agent, Status as AgentStatus};
use crate::fleet::evaluate::{Inventory, evaluate_known};
use crate::fleet::expression::Expression;
use crate::fleet::fold::fold;
use crate::fleet::service::Fleet;
use crate::rules::diff::{Diff, Lacking, Scene, diff};
use crate::rules::pattern::ImagePattern;
use crate::rules::status::Away;

/// The agents that a rule's expression names.
#[derive(Debug, Default)]
pub(crate) struct Agents {
    /// The agents by number.
    bits: Bits,
    /// The agents' ids, sorted.
    pub(crate) names: Vec<String>,
    /// How many agents that the expression names are left out, because their architecture is not the rule's.
    pub(crate) left_out: usize,
    /// Those of the agents that can't receive images now.
    pub(crate) away: Vec<Away>,
    /// Names in the expression that no agent has, the first of them.
    pub(crate) unknown: Vec<String>,
    /// How many names no agent has.
    pub(crate) unknown_count: usize,
}

impl Agents {
    /// The agents' ids folded.
    pub(crate) fn folded(&self) -> String {
        fold(&self.names)
    }
}

/// The result of one survey.
pub(in crate::rules) struct Seen {
    /// The diff and the agents of each rule.
    pub(in crate::rules) rules: Vec<(Diff, Agents)>,
    /// The agents that can receive images now.
    ready: Bits,
}

impl Seen {
    /// For each digest, the agents that a rule lacks it on.
    fn lacking(&self) -> HashMap<&Digest, Bits> {
        let mut lacking: HashMap<&Digest, Bits> = HashMap::new();
        let parts = self.rules.iter().flat_map(|(diff, _)| &diff.lacking).flat_map(Lacking::parts);
        for (image, agents) in parts {
            lacking.entry(&image.record.digest).or_default().union_with(agents);
        }
        lacking
    }

    /// Whether it is unsettled that a digest is missing on an agent: a rule lacks it there, or the agent is away.
    pub(in crate::rules) fn unsettled(&self) -> impl Fn(usize, &Digest) -> bool {
        let lacking = self.lacking();
        move |agent, digest| {
            !self.ready.contains(agent) || lacking.get(digest).is_some_and(|agents| agents.contains(agent))
        }
    }
}

/// A rule, parsed.
pub(in crate::rules) struct Parsed {
    /// The pattern for its images.
    pub(in crate::rules) images: ImagePattern,
    /// The one architecture it is for.
    pub(in crate::rules) architecture: Option<String>,
    /// The expression for its agents.
    pub(in crate::rules) agents: Expression,
}

/// Surveys these rules, off the threads that answer requests.
pub(in crate::rules) async fn look_at(
    catalog: &Catalog,
    fleet: &Fleet,
    caller: &Caller,
    rules: Vec<Parsed>,
) -> Result<Seen> {
    let images = catalog.images(caller, &ImageFilter::default())?;
    let (fleet, roster) = (fleet.clone(), fleet.roster());
    let looking = tokio::task::spawn_blocking(move || {
        let mut ready: BTreeMap<String, Bits> = BTreeMap::new();
        for (number, agent) in &roster {
            if let (None, Some(about)) = (away(agent), &agent.about) {
                ready.entry(about.architecture.clone()).or_default().insert(*number);
            }
        }
        let inventory = Inventory::new(roster.iter().map(|(_, agent)| agent.view()));
        let by_name: HashMap<&str, &(usize, Agent)> =
            roster.iter().map(|entry| (entry.1.record.id.as_str(), entry)).collect();
        let held_by =
            |image: &Image| fleet.held_by(image.record.canonical().as_str(), &image.record.identity());
        let scene = Scene { images: &images, ready: &ready, held_by: &held_by };
        let one = |rule: Parsed| {
            let architecture = rule.architecture.as_deref();
            let agents = named(&rule.agents, architecture, &inventory, &by_name);
            (diff(&rule.images, architecture, &agents.bits, &scene), agents)
        };
        let rules = rules.into_iter().map(one).collect();
        let mut everywhere = Bits::default();
        for agents in ready.values() {
            everywhere.union_with(agents);
        }
        Seen { rules, ready: everywhere }
    });
    looking.await.map_err(Error::internal)
}

/// The agents that an expression names. Those that are known to have another architecture than the rule's are left out.
fn named(
    expression: &Expression,
    architecture: Option<&str>,
    inventory: &Inventory,
    by_name: &HashMap<&str, &(usize, Agent)>,
) -> Agents {
    let known = evaluate_known(expression, inventory);
    let mut agents =
        Agents { unknown: known.unknown, unknown_count: known.unknown_count, ..Agents::default() };
    for (number, agent) in known.names.iter().filter_map(|name| by_name.get(name)) {
        if architecture.is_some_and(|asked| agent.architecture_other_than(asked).is_some()) {
            agents.left_out += 1;
            continue;
        }
        agents.bits.insert(*number);
        agents.names.push(agent.record.id.clone());
        if let Some(reason) = away(agent) {
            agents.away.push(Away { agent: agent.record.id.clone(), reason });
        }
    }
    agents
}

/// Why an agent can't receive images now; `None` if it can.
fn away(agent: &Agent) -> Option<String> {
    match (&agent.status, &agent.away) {
        (AgentStatus::Lost { reason, .. }, _) => Some(format!("lost: {reason}")),
        (AgentStatus::Alive, Some(reason)) => Some(format!("not reached: {reason}")),
        (AgentStatus::Alive, None) if agent.record.draining => Some("draining".into()),
        (AgentStatus::Alive, None) if !agent.has_reported => Some("has not said yet what it holds".into()),
        (AgentStatus::Alive, None) => None,
    }
}
