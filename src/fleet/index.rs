//! The agents in memory: their records, how each is reached, what each holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use crate::access::tenants;
use crate::base::agent_name;
use crate::base::clock::Clock;
use crate::base::signal::Signal;
use crate::engine::{About, Disk, Engine};
use crate::fleet::agent::{Agent, AgentRecord, Status};
use crate::fleet::alive_groups::AliveGroups;
use crate::fleet::error::ExpressionError;
use crate::fleet::evaluate::{Inventory, evaluate};
use crate::fleet::expression::Expression;
use crate::fleet::presence::{AgentPresence, Holdings, HoldingsChange, Presence, Sought};
use crate::fleet::usage::{Moment, Usage};

#[derive(Default)]
pub(in crate::fleet) struct Index {
    /// The agents by number. An agent keeps its number while the server runs, and no other agent gets the number
    /// later.
    pub(in crate::fleet) agents: Vec<Option<Entry>>,
    pub(in crate::fleet) numbers: BTreeMap<String, usize>,
    /// The addresses of all agents, each with the agent's number.
    addresses: BTreeSet<(String, usize)>,
    /// The agents whose machines have a cache for others, or had one when they were last reached.
    pub(in crate::fleet) caches: BTreeSet<usize>,
    pub(in crate::fleet) holdings: Holdings,
    pub(in crate::fleet) alive_groups: AliveGroups,
    pub(in crate::fleet) changes: Signal,
}

pub(in crate::fleet) struct Entry {
    pub(in crate::fleet) agent: Agent,
    pub(in crate::fleet) engine: Option<Arc<dyn Engine>>,
    /// When the agent was lost, if it is lost.
    pub(in crate::fleet) lost_at: Instant,
    /// The read from which the agent's holdings are known.
    pub(in crate::fleet) epoch: ReadEpoch,
    /// Cancelled when the agent can be reached again, or was removed.
    pub(in crate::fleet) back: CancellationToken,
    /// What is known about the use of its images.
    pub(in crate::fleet) usage: Usage,
}

/// When a read of an engine began, among all reads of this fleet. Two reads may be under way at once; the one that
/// began later knows more, whichever ends first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct ReadEpoch(pub(in crate::fleet) u64);

/// The agents that an expression named at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// The agents' ids, sorted; at least one.
    pub names: Vec<String>,
    /// The ids folded: `gpu[01-04]`.
    pub(crate) folded: String,
}

impl Index {
    pub(in crate::fleet) fn put(&mut self, agent: Agent) {
        let number = self.agents.len();
        self.numbers.insert(agent.record.id.clone(), number);
        self.addresses.insert((agent.record.address.clone(), number));
        self.agents.push(Some(Entry {
            agent,
            engine: None,
            lost_at: Instant::now(),
            epoch: ReadEpoch::default(),
            back: CancellationToken::new(),
            usage: Usage::default(),
        }));
    }

    pub(in crate::fleet) fn remove(&mut self, id: &str) {
        let Some(number) = self.numbers.remove(id) else { return };
        self.holdings.remove(number);
        let Some(entry) = self.agents.get_mut(number).and_then(Option::take) else { return };
        entry.back.cancel();
        self.alive_groups.change(&entry.agent.record.scaling_group).remove(number);
        self.addresses.remove(&(entry.agent.record.address, number));
        self.changes.raise();
    }

    pub(in crate::fleet) fn put_record(&mut self, record: AgentRecord) {
        let id = record.id.clone();
        if let Some(number) = self.numbers.get(&id).copied() {
            let mut address = record.address.clone();
            self.addresses.insert((address.clone(), number));
            self.update(&id, |entry| {
                address = std::mem::replace(&mut entry.agent.record, record).address;
            });
            if self.by_number(number).is_some_and(|entry| entry.agent.record.address != address) {
                self.addresses.remove(&(address, number));
            }
        } else {
            let status = Status::Lost { since: record.first_contact, reason: "not reached yet".into() };
            self.put(Agent { record, status, away: None, about: None, disk: None, has_reported: false });
        }
        self.changes.raise();
    }

    pub(in crate::fleet) fn entry(&self, id: &str) -> Option<&Entry> {
        self.numbers.get(id).and_then(|number| self.by_number(*number))
    }

    pub(in crate::fleet) fn by_number(&self, number: usize) -> Option<&Entry> {
        self.agents.get(number).and_then(Option::as_ref)
    }

    pub(in crate::fleet) fn sorted(&self) -> impl Iterator<Item = &Entry> {
        self.numbers.values().filter_map(|number| self.by_number(*number))
    }

    /// Does what [`Index::update`] does, and notifies followers.
    pub(in crate::fleet) fn change(&mut self, id: &str, change: impl FnOnce(&mut Entry)) {
        self.update(id, change);
        self.changes.raise();
    }

    /// Changes an agent, and keeps the alive groups right.
    pub(in crate::fleet) fn update(&mut self, id: &str, change: impl FnOnce(&mut Entry)) {
        let Some(number) = self.numbers.get(id).copied() else { return };
        let Some(entry) = self.agents.get_mut(number).and_then(Option::as_mut) else { return };
        self.alive_groups.change(&entry.agent.record.scaling_group).remove(number);
        change(entry);
        if entry.agent.is_alive() {
            self.alive_groups.change(&entry.agent.record.scaling_group).insert(number);
        }
    }

    /// Whether this read is newer than the one the holdings are known from. If so, it becomes that one.
    pub(in crate::fleet) fn takes(&mut self, number: usize, epoch: ReadEpoch) -> bool {
        let Some(entry) = self.agents.get_mut(number).and_then(Option::as_mut) else { return false };
        let is_newer = epoch > entry.epoch;
        entry.epoch = entry.epoch.max(epoch);
        is_newer
    }

    /// Takes a change of an agent's holdings, and perhaps of its disk's room.
    pub(in crate::fleet) fn hear(&mut self, number: usize, news: &HoldingsChange, disk: Option<Disk>) {
        let Some(entry) = self.agents.get_mut(number).and_then(Option::as_mut) else { return };
        entry.agent.disk = disk.or(entry.agent.disk.take());
        if entry.agent.is_alive() {
            self.alive_groups.hear(&entry.agent.record.scaling_group, &news.images, &self.holdings);
        }
    }

    /// Notes which images came to an agent and which went, by its last report.
    pub(in crate::fleet) fn observe(&mut self, number: usize, news: &HoldingsChange, at: Moment) {
        let Some(entry) = self.agents.get_mut(number).and_then(Option::as_mut) else { return };
        let now = self.holdings.of_agent(number);
        entry.usage.hear(if news.is_any { &news.before } else { now }, now, at);
    }

    /// The presence of an image on one agent.
    pub(in crate::fleet) fn presence(&self, number: usize, image: &Sought<'_>) -> Presence {
        self.presence_as(number, image, || self.holdings.on(number, image))
    }

    /// The presence of an image on each agent.
    pub(in crate::fleet) fn presences(&self, image: &Sought<'_>) -> Vec<AgentPresence> {
        let standing = self.holdings.standing(image);
        let presence = |(id, number): (&String, &usize)| AgentPresence {
            agent: id.clone(),
            presence: self.presence_as(*number, image, || standing.on(*number)),
        };
        self.numbers.iter().map(presence).collect()
    }

    /// The presence of an image on an agent whose engine said this of it.
    fn presence_as(&self, number: usize, image: &Sought<'_>, said: impl Fn() -> Presence) -> Presence {
        match self.by_number(number) {
            Some(entry) if entry.agent.is_alive() && entry.agent.has_reported => match said() {
                // The image the agent has under this name is a stale one for its own architecture, not for this one.
                Presence::Stale if !entry.agent.is_of(image.identity.architecture) => Presence::Absent,
                presence => presence,
            },
            _ => Presence::Unknown,
        }
    }

    pub(in crate::fleet) fn select(&self, expression: &str) -> Result<Selection, ExpressionError> {
        let parsed = Expression::parse(expression)?;
        let inventory = Inventory::new(self.sorted().map(|entry| entry.agent.view()));
        let set = evaluate(&parsed, &inventory)?;
        Ok(Selection { names: set.names().iter().map(|&name| name.into()).collect(), folded: set.folded() })
    }

    /// Finds the agent this engine was before; returns a new record if it was none. The address is the surest sign;
    /// an engine's own id counts only if that agent is not alive elsewhere, because machines cloned from one copy
    /// share it.
    pub(in crate::fleet) fn recognize(
        &self,
        address: &str,
        about: &About,
        clock: &Clock,
    ) -> (AgentRecord, bool) {
        // Agents that dial in are identified by their credentials and by nothing else.
        let reached = || self.agents.iter().flatten().filter(|entry| !entry.agent.record.remote);
        let of_address = (address.to_owned(), 0)..=(address.to_owned(), usize::MAX);
        let here = self.addresses.range(of_address).filter_map(|(_, number)| self.by_number(*number));
        let here = here.into_iter().find(|entry| !entry.agent.record.remote);
        let moved = || {
            let same = |entry: &&Entry| about.id.is_some() && entry.agent.record.engine_id == about.id;
            reached().filter(|entry| !entry.agent.is_alive()).find(same)
        };
        let known = here.or_else(moved).map(|entry| &entry.agent.record);
        if let Some(known) = known {
            let engine_id = about.id.clone().or_else(|| known.engine_id.clone());
            let record = AgentRecord { address: address.into(), engine_id, ..known.clone() };
            let is_changed = record != *known;
            return (record, is_changed);
        }
        let record = AgentRecord {
            id: self.free_id(&about.hostname),
            address: address.into(),
            engine_id: about.id.clone(),
            scaling_group: tenants::DEFAULT.into(),
            labels: BTreeMap::new(),
            first_contact: clock.now(),
            remote: false,
            draining: false,
        };
        (record, true)
    }

    /// Makes an id that no agent has; a host may have several engines.
    pub(in crate::fleet) fn free_id(&self, hostname: &str) -> String {
        agent_name::of_host(hostname, |id| self.numbers.contains_key(id))
    }
}

impl Entry {
    pub(in crate::fleet) fn connect(&mut self, engine: Arc<dyn Engine>, about: About) {
        self.agent.status = Status::Alive;
        self.agent.away = None;
        self.agent.about = Some(about);
        self.engine = Some(engine);
        self.back.cancel();
    }

    pub(in crate::fleet) fn disconnect(&mut self) {
        self.agent.away = None;
        if self.engine.take().is_some() {
            self.back = CancellationToken::new();
        }
    }
}
