//! Evaluates expressions: which agents one names, in an inventory taken at one moment.
//!
//! Sets are bits over the agents ordered by name, so that unions and filters over a large lab cost next to nothing,
//! and the result is sorted.

use std::collections::{BTreeMap, HashMap};

use crate::base::agent_name::ALL;
use crate::base::bits::Bits;
use crate::base::reference::shown;
use crate::fleet::error::{ErrorCode, ExpressionError};
use crate::fleet::expression::{Atom, Expression, Operation, Set, Term};
use crate::fleet::fold;
use crate::fleet::pattern::{Matcher, Pattern};
use crate::fleet::selector::Selector;

/// How many unknown names an error message lists.
const MOST_LISTED: usize = 5;
/// How many unknown names [`Known`] lists.
const MOST_UNKNOWN: usize = 100;

/// What an expression can ask about an agent. The labels that are fields here override labels of the same names that
/// users set, so no user can disguise one node as another; a field that is `None` is absent, whatever users set.
#[derive(Debug, Clone, Copy)]
pub struct Agent<'a> {
    /// The agent's name, also the label `name`.
    pub name: &'a str,
    /// `alive`, `lost` or `draining`.
    pub status: Option<&'a str>,
    /// The kind of its engine: `docker`, `podman`, `containerd` or `oci`.
    pub engine: Option<&'a str>,
    /// The processor's architecture.
    pub arch: Option<&'a str>,
    /// The operating system.
    pub os: Option<&'a str>,
    /// The scaling group, which is also a group with this name.
    pub scaling_group: Option<&'a str>,
    /// The labels that users set.
    pub labels: &'a BTreeMap<String, String>,
}

impl<'a> Agent<'a> {
    /// An agent of which only the name and the users' labels are known.
    pub fn new(name: &'a str, labels: &'a BTreeMap<String, String>) -> Self {
        Self { name, status: None, engine: None, arch: None, os: None, scaling_group: None, labels }
    }

    /// The value of a label.
    pub(crate) fn label(&self, key: &str) -> Option<&'a str> {
        match key {
            "name" => Some(self.name),
            "status" => self.status,
            "engine" => self.engine,
            "arch" => self.arch,
            "os" => self.os,
            "scaling_group" => self.scaling_group,
            _ => self.labels.get(key).map(String::as_str),
        }
    }
}

/// The existing agents and groups.
#[derive(Debug, Clone, Default)]
pub struct Inventory<'a> {
    /// Ordered by name; each name occurs once.
    agents: Vec<Agent<'a>>,
    places: HashMap<&'a str, usize>,
    groups: BTreeMap<&'a str, Bits>,
}

impl<'a> Inventory<'a> {
    /// Takes all agents, in any order; of two with the same name the first counts. Their scaling groups become
    /// groups.
    pub fn new(agents: impl IntoIterator<Item = Agent<'a>>) -> Self {
        let mut agents: Vec<_> = agents.into_iter().collect();
        agents.sort_by_key(|agent| agent.name);
        agents.dedup_by_key(|agent| agent.name);
        let places = agents.iter().enumerate().map(|(place, agent)| (agent.name, place)).collect();
        let mut groups: BTreeMap<&str, Bits> = BTreeMap::new();
        for (place, agent) in agents.iter().enumerate() {
            if let Some(group) = agent.scaling_group {
                groups.entry(group).or_default().insert(place);
            }
        }
        Self { agents, places, groups }
    }

    /// Adds a group: one that an admin defined, or a scaling group that may have no agents. Members that are not
    /// agents are left out. Members of an existing group of this name stay, so the caller that defines groups must
    /// make sure that an admin's group does not have the name of a scaling group. So far only tests define groups.
    #[must_use]
    pub fn with_group<'m>(mut self, name: &'a str, members: impl IntoIterator<Item = &'m str>) -> Self {
        let group = self.groups.entry(name).or_default();
        for member in members {
            if let Some(place) = self.places.get(member) {
                group.insert(*place);
            }
        }
        self
    }
}

/// The agents that an expression names: at least one, sorted by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentSet<'a> {
    names: Vec<&'a str>,
}

impl<'a> AgentSet<'a> {
    /// Their names, sorted.
    pub fn names(&self) -> &[&'a str] {
        &self.names
    }

    /// Their names folded: `gpu[01-16]`.
    pub fn folded(&self) -> String {
        fold::fold(&self.names)
    }
}

/// What an expression names, as far as the names exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known<'a> {
    /// The agents, sorted by name; maybe none.
    pub names: Vec<&'a str>,
    /// The names and groups (`@name`) that do not exist, wherever they occur; the first hundred.
    pub unknown: Vec<String>,
    /// How many names and groups do not exist.
    pub unknown_count: usize,
}

/// Finds the agents that an expression names, and ignores names that do not exist yet: for an expression that is
/// evaluated again and again, while agents come and go.
pub fn evaluate_known<'a>(expression: &Expression, inventory: &Inventory<'a>) -> Known<'a> {
    let mut missed = Missed::default();
    let found = inventory.set(&expression.set, &mut missed);
    Known { names: inventory.names(&found), unknown: missed.names, unknown_count: missed.count }
}

/// The names in an expression that do not exist.
#[derive(Default)]
struct Missed {
    /// The error for the first of them.
    error: Option<ExpressionError>,
    names: Vec<String>,
    count: usize,
}

impl Missed {
    fn note(&mut self, name: impl FnOnce() -> String) {
        self.count += 1;
        if self.names.len() < MOST_UNKNOWN {
            self.names.push(name());
        }
    }
}

/// Finds the agents that an expression names.
///
/// # Errors
/// A name or a group that does not exist, wherever it occurs; or a result without agents.
pub fn evaluate<'a>(
    expression: &Expression,
    inventory: &Inventory<'a>,
) -> Result<AgentSet<'a>, ExpressionError> {
    let mut missed = Missed::default();
    let found = inventory.set(&expression.set, &mut missed);
    if let Some(error) = missed.error {
        return Err(error);
    }
    if found.is_empty() {
        let why = "no agent matches; each part is right, but together they leave none";
        return Err(ExpressionError::new(ErrorCode::NoMatch, 0, why));
    }
    Ok(AgentSet { names: inventory.names(&found) })
}

impl<'a> Inventory<'a> {
    fn names(&self, found: &Bits) -> Vec<&'a str> {
        let within = self.agents.iter().enumerate().filter(|(place, _)| found.contains(*place));
        within.map(|(_, agent)| agent.name).collect()
    }
}

impl Inventory<'_> {
    fn select(&self, mut wanted: impl FnMut(&Agent) -> bool) -> Bits {
        let mut found = Bits::default();
        for (place, agent) in self.agents.iter().enumerate() {
            if wanted(agent) {
                found.insert(place);
            }
        }
        found
    }

    /// Every part is evaluated even where it can't change the result, so that no typo goes unnoticed.
    fn set(&self, set: &Set, missed: &mut Missed) -> Bits {
        let mut found = Bits::default();
        for atom in &set.union {
            found.union_with(&self.atom(atom, missed));
        }
        for filter in &set.filters {
            let matched = self.atom(&filter.atom, missed);
            match filter.operation {
                Operation::Keep => found.intersect_with(&matched),
                Operation::Drop => found.subtract(&matched),
            }
        }
        found
    }

    fn atom(&self, atom: &Atom, missed: &mut Missed) -> Bits {
        match &atom.term {
            Term::Everyone => self.select(|_| true),
            Term::Parentheses(set) => self.set(set, missed),
            Term::Group(name) => self.groups.get(name.as_str()).cloned().unwrap_or_else(|| {
                missed.note(|| format!("@{name}"));
                missed.error.get_or_insert_with(|| self.unknown_group(name, atom.position));
                Bits::default()
            }),
            Term::Selector(selector) => self.selected(selector),
            Term::Pattern(pattern) if pattern.is_glob() => self.matched(pattern),
            Term::Pattern(pattern) => self.named(pattern, atom.position, missed),
        }
    }

    fn selected(&self, selector: &Selector) -> Bits {
        self.select(|agent| selector.requirements.iter().all(|asked| asked.allows(agent.label(&asked.key))))
    }

    fn matched(&self, pattern: &Pattern) -> Bits {
        let mut matcher = Matcher::new(pattern);
        let prefix = pattern.prefix();
        let start = self.agents.partition_point(|agent| agent.name < prefix);
        let mut found = Bits::default();
        for (place, agent) in self.agents.iter().enumerate().skip(start) {
            if !agent.name.starts_with(prefix) {
                break;
            }
            if matcher.matches(agent.name) {
                found.insert(place);
            }
        }
        found
    }

    fn named(&self, pattern: &Pattern, position: usize, missed: &mut Missed) -> Bits {
        let mut found = Bits::default();
        let (mut unknown, mut listed) = (0_usize, Vec::new());
        pattern.expand(&mut |name| {
            if let Some(place) = self.places.get(name) {
                return found.insert(*place);
            }
            unknown += 1;
            missed.note(|| name.to_owned());
            if listed.len() < MOST_LISTED {
                listed.push(name.to_owned());
            }
        });
        if unknown > 0 {
            missed.error.get_or_insert_with(|| self.unknown_agents(&listed, unknown, position));
        }
        found
    }

    fn unknown_agents(&self, listed: &[String], unknown: usize, position: usize) -> ExpressionError {
        let names: Vec<_> = listed.iter().map(|name| shown(name)).collect();
        let more = if unknown > listed.len() { format!(",... ({unknown} in all)") } else { String::new() };
        let first = listed.first().map(String::as_str).unwrap_or_default();
        let hint = hint("", first, std::iter::once(ALL).chain(self.agents.iter().map(|agent| agent.name)));
        let message = format!("no such agent: {}{more}{hint}", names.join(","));
        ExpressionError::new(ErrorCode::UnknownAgent, position, message)
    }

    fn unknown_group(&self, name: &str, position: usize) -> ExpressionError {
        let hint = hint("@", name, self.groups.keys().copied());
        let message = format!("no such group: @{}{hint}", shown(name));
        ExpressionError::new(ErrorCode::UnknownGroup, position, message)
    }
}

/// Suggests the name that differs only in upper and lower case, if there is one.
fn hint<'n>(sign: &str, name: &str, mut names: impl Iterator<Item = &'n str>) -> String {
    let meant = names.find(|known| known.eq_ignore_ascii_case(name));
    meant.map_or_else(String::new, |meant| format!("; did you mean {sign}{}?", shown(meant)))
}
