//! What a retention rule would take from its agents at one moment.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;

use crate::base::Result;
use crate::base::digest::Digest;
use crate::fleet::agent::{Agent, Status};
use crate::fleet::evaluate::{Inventory, evaluate_known};
use crate::fleet::fold::fold;
use crate::fleet::usage::Moment;
use crate::retention::rule::RetentionRule;
use crate::rules::pattern::ImagePattern;
use crate::rules::rule::parsed;
use crate::rules::status::Away;
use crate::transfer::room::{Going, Resident, Terms, going};
use crate::transfer::rooms::Survey;

/// What a rule would take from all its agents.
#[derive(Debug, Default)]
pub(crate) struct RulePlan {
    /// The agents that could be looked at, by id.
    pub(crate) agents: Vec<AgentPlan>,
    /// The agents that could not.
    pub(crate) away: Vec<Away>,
    /// Names in the expression that no agent has, the first of them.
    pub(crate) unknown: Vec<String>,
    /// How many names no agent has.
    pub(crate) unknown_count: usize,
    /// Why nothing may go anywhere at the moment.
    pub(crate) problem: Option<String>,
}

/// What a rule would take from one agent.
#[derive(Debug)]
pub(crate) struct AgentPlan {
    /// The agent's id.
    pub(crate) agent: String,
    /// What would go, that which was unused longest first.
    pub(crate) going: Vec<Going>,
    /// How many images the agent has.
    pub(crate) images: usize,
    /// How many bytes its images take, as far as its engine tells.
    pub(crate) images_bytes: u64,
    /// Its free room in bytes, if its engine tells.
    pub(crate) free_bytes: Option<u64>,
    /// Why it is left alone, or keeps more than the rule wants.
    pub(crate) note: Option<&'static str>,
}

impl AgentPlan {
    /// How many bytes would come free, at most.
    pub(crate) fn frees(&self) -> u64 {
        self.going.iter().map(|going| going.frees).fold(0, u64::saturating_add)
    }

    /// Whether that is more than half of what the agent has.
    pub(crate) fn is_most(&self) -> bool {
        let is_most_bytes = self.images_bytes > 0 && self.frees() > self.images_bytes / 2;
        self.going.len() > self.images / 2 || (is_most_bytes && !self.going.is_empty())
    }
}

impl RulePlan {
    /// The agents that can be looked at, folded.
    pub(crate) fn folded(&self) -> String {
        fold(self.agents.iter().map(|plan| plan.agent.as_str()).collect::<Vec<_>>())
    }

    /// The agents that would lose more than half of what they have.
    pub(crate) fn most(&self) -> Vec<&str> {
        let most = self.agents.iter().filter(|plan| plan.is_most());
        most.map(|plan| plan.agent.as_str()).collect()
    }
}

/// What rounds have begun to take lately: the images of each agent. One that is there all the same is on its way, or could
/// not be removed.
pub(in crate::retention) type LeftOut = HashMap<String, HashSet<Digest>>;

/// Plans a rule. Without a moment to judge by nothing goes. What was begun lately is left out.
///
/// # Errors
/// Those of the store, and a rule that can't be read.
pub(in crate::retention) async fn plan(
    rule: &RetentionRule,
    roster: &[Agent],
    survey: &mut Survey<'_>,
    now: Option<Moment>,
    left_out: &LeftOut,
) -> Result<RulePlan> {
    let pattern = ImagePattern::parse(&rule.images)?;
    let inventory = Inventory::new(roster.iter().map(Agent::view));
    let known = evaluate_known(&parsed(&rule.target_agents)?, &inventory);
    let mut plan =
        RulePlan { unknown: known.unknown, unknown_count: known.unknown_count, ..RulePlan::default() };
    let named: HashSet<&str> = known.names.into_iter().collect();
    if now.is_none() {
        plan.problem =
            Some("the server's clock jumped; nothing goes until it has run evenly for a while".into());
    }
    for agent in roster.iter().filter(|agent| named.contains(agent.record.id.as_str())) {
        if let Some(reason) = away(agent) {
            plan.away.push(Away { agent: agent.record.id.clone(), reason });
            continue;
        }
        let residents = survey.residents(agent, &[]).await?;
        let mut meant = HashSet::new();
        let mut ready = pattern.ready();
        let left_out = left_out.get(&agent.record.id);
        let is_left_out =
            |resident: &Resident| left_out.is_some_and(|digests| digests.contains(&resident.held.digest));
        for resident in &residents {
            if takes(rule, resident, &mut |name| ready.takes(name)) && !is_left_out(resident) {
                meant.insert(resident.held.digest.clone());
            }
        }
        let (goal, note) = goal(rule, agent);
        let is_untold = rule.unused_for.is_some() && residents.iter().any(|resident| !resident.usage.is_told);
        let begun =
            residents.iter().any(is_left_out).then_some("what was begun within the last hour is left out");
        let untold = is_untold.then_some("its engine does not tell what containers use");
        // What is on its way comes free without more.
        let leaving = residents.iter().filter(|resident| is_left_out(resident));
        let leaving = leaving.fold(0_u64, |sum, resident| sum.saturating_add(resident.held.size_bytes));
        let goal = goal.map(|goal| goal.saturating_sub(leaving));
        let rule_terms = rule.terms();
        let terms = Terms {
            takes: &|resident| meant.contains(&resident.held.digest),
            keep_last: rule_terms.kept(),
            unused_for: rule_terms.idle_time(),
            goal,
        };
        let going = now.map(|now| going(&residents, &terms, now)).unwrap_or_default();
        let is_short = goal
            .is_some_and(|goal| goal > going.iter().map(|going| going.frees).fold(0, u64::saturating_add));
        plan.agents.push(AgentPlan {
            agent: agent.record.id.clone(),
            images: residents.len(),
            images_bytes: agent.disk.as_ref().map_or(0, |disk| disk.images_bytes),
            free_bytes: agent.free_bytes(),
            note: note.or(untold).or(begun).or(is_short.then_some("all that may go does not suffice")),
            going,
        });
    }
    Ok(plan)
}

/// Whether a rule is about an image: all its names match the pattern, so that it is gone when they are.
fn takes(rule: &RetentionRule, resident: &Resident, matches: &mut dyn FnMut(&str) -> bool) -> bool {
    let names = &resident.held.names;
    let is_meant = if names.is_empty() { matches("") } else { names.iter().all(|name| matches(name)) };
    is_meant && (resident.is_known || rule.unknown_images)
}

/// How many bytes are to come free on an agent, `None` if that does not matter; and why nothing, if so.
fn goal(rule: &RetentionRule, agent: &Agent) -> (Option<u64>, Option<&'static str>) {
    let Some(room) = &rule.room else { return (None, None) };
    match agent.free_bytes() {
        None => (Some(0), Some("its engine does not tell what is free")),
        Some(free) if free >= room.when_below => (Some(0), None),
        Some(free) => (Some(room.until.saturating_sub(free)), None),
    }
}

/// Why an agent can't be looked at; `None` if it can.
fn away(agent: &Agent) -> Option<String> {
    match (&agent.status, &agent.away) {
        (Status::Lost { reason, .. }, _) => Some(format!("lost: {reason}")),
        (Status::Alive, Some(reason)) => Some(format!("not reached: {reason}")),
        (Status::Alive, None) if !agent.has_reported => Some("has not said yet what it holds".into()),
        (Status::Alive, None) => None,
    }
}

/// What the last round found out about a rule.
#[derive(Debug, Clone)]
pub(crate) struct RetentionStatus {
    /// When the round was.
    pub(crate) at: Timestamp,
    /// How many agents could be looked at.
    pub(crate) agents: usize,
    /// These agents, folded.
    pub(crate) folded: String,
    /// Agents that could not be looked at, the first of them.
    pub(crate) away: Vec<Away>,
    /// How many agents could not be looked at.
    pub(crate) away_count: usize,
    /// Names in the expression that no agent has, the first of them.
    pub(crate) unknown: Vec<String>,
    /// How many names no agent has.
    pub(crate) unknown_count: usize,
    /// How many images were to go, and how many bytes with them.
    pub(crate) due: (usize, u64),
    /// The agents that would lose more than half of what they have, which nobody has confirmed.
    pub(crate) held_back: Vec<String>,
    /// The last task of the rule.
    pub(crate) begun: Option<Begun>,
    /// Why nothing began although something was to go.
    pub(crate) problem: Option<String>,
}

/// What a rule last began.
#[derive(Debug, Clone)]
pub(crate) struct Begun {
    /// When it was.
    pub(crate) at: Timestamp,
    /// Its task.
    pub(crate) task: crate::base::ids::TaskId,
    /// How many images were to go.
    pub(crate) count: usize,
}
