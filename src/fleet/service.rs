//! The fleet: the agents, what each holds, and how each is reached.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::RwLock;

use crate::access::audit::Audit;
use crate::access::caller::Caller;
use crate::access::directory::Stations;
use crate::access::tenants;
use crate::access::visibility::{Holders, Whereabouts};
use crate::base::clock::Clock;
use crate::base::digest::Digest;
use crate::base::reference::shown;
use crate::base::{Error, Result};
use crate::engine::image::Held;
use crate::engine::{About, Disk, Engine};
use crate::fleet::agent::{Agent, AgentRecord, Status};
use crate::fleet::bits::Bits;
use crate::fleet::error::ExpressionError;
use crate::fleet::evaluate::{Inventory, evaluate};
use crate::fleet::expression::Expression;
use crate::fleet::presence::{Holdings, Presence};
use crate::store::table::Writer;
use crate::store::{Store, Table};

const AGENTS: Table<AgentRecord> = Table::new("AGENT_ID_TO_AGENT");

/// How many labels an admin may give an agent.
const MAX_LABELS: usize = 64;

/// The fleet. Clones share it.
#[derive(Clone)]
pub struct Fleet {
    store: Store,
    clock: Clock,
    audit: Audit,
    index: Arc<RwLock<Index>>,
    /// Held while an engine is recognized and kept, so that two met at once don't become one agent.
    meeting: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct Index {
    /// By number; an agent keeps its number while the server runs.
    agents: Vec<Entry>,
    numbers: BTreeMap<String, usize>,
    holdings: Holdings,
    /// The agents of each scaling group that are alive.
    alive_in: HashMap<String, Bits>,
}

struct Entry {
    agent: Agent,
    engine: Option<Arc<dyn Engine>>,
}

/// An image on one agent.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The agent.
    pub agent: String,
    /// How the image stands there.
    pub presence: Presence,
}

/// The agents an expression named at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Their ids, in order; at least one.
    pub names: Vec<String>,
    /// The same, folded: `gpu[01-04]`.
    pub folded: String,
}

impl Fleet {
    /// Reads the agents from the store; none is reached yet.
    pub fn load(store: &Store, clock: Clock, audit: Audit) -> Result<Self> {
        let mut index = Index::default();
        let now = clock.now();
        store.read_now(|r| {
            r.scan(&AGENTS, [], |_, record: AgentRecord| {
                let status =
                    Status::Lost { since: now, reason: "not reached since the server started".into() };
                index.put(Agent { record, status, about: None, disk: None, has_reported: false }, None);
                Ok(())
            })
        })?;
        let index = Arc::new(RwLock::new(index));
        Ok(Self { store: store.clone(), clock, audit, index, meeting: Arc::default() })
    }

    /// All agents, by id. For super-admins.
    pub fn agents(&self, caller: &Caller) -> Result<Vec<Agent>> {
        caller.require_superadmin("agents")?;
        let index = self.index.read();
        Ok(index.sorted().map(|entry| entry.agent.clone()).collect())
    }

    /// One agent. For super-admins.
    pub fn agent(&self, caller: &Caller, id: &str) -> Result<Agent> {
        caller.require_superadmin("agent")?;
        self.find(id).ok_or_else(|| Error::missing("agent", shown(id)))
    }

    /// One agent, whoever asks; for transfers.
    pub fn find(&self, id: &str) -> Option<Agent> {
        let index = self.index.read();
        index.entry(id).map(|entry| entry.agent.clone())
    }

    /// The way to an agent's engine, if it is alive; for transfers.
    pub fn engine(&self, id: &str) -> Option<Arc<dyn Engine>> {
        let index = self.index.read();
        index.entry(id).filter(|entry| entry.agent.is_alive()).and_then(|entry| entry.engine.clone())
    }

    /// Whether there is no agent at all.
    pub fn is_empty(&self) -> bool {
        self.index.read().agents.is_empty()
    }

    /// Gives an agent labels and a scaling group; `None` leaves as it is, an empty value removes a label.
    pub async fn change(
        &self,
        caller: &Caller,
        id: &str,
        labels: Option<BTreeMap<String, String>>,
        scaling_group: Option<String>,
    ) -> Result<Agent> {
        self.audit
            .superadmin(caller, "modify_agent", id, |deed| async move {
                let agent = self.changed(caller, id, labels, scaling_group)?;
                let (index, record) = (Arc::clone(&self.index), agent.record.clone());
                deed.write(move |w| put_agent(w, index, record)).await?;
                Ok(agent)
            })
            .await
    }

    fn changed(
        &self,
        caller: &Caller,
        id: &str,
        labels: Option<BTreeMap<String, String>>,
        scaling_group: Option<String>,
    ) -> Result<Agent> {
        let mut agent = self.agent(caller, id)?;
        for (key, value) in labels.unwrap_or_default() {
            check_label(&key, &value)?;
            if value.is_empty() {
                agent.record.labels.remove(&key);
            } else {
                agent.record.labels.insert(key, value);
            }
        }
        if agent.record.labels.len() > MAX_LABELS {
            return Err(Error::invalid("labels", format!("an agent may have {MAX_LABELS} at most")));
        }
        agent.record.scaling_group = scaling_group.unwrap_or(agent.record.scaling_group);
        Ok(agent)
    }

    async fn save(&self, record: AgentRecord) -> Result<()> {
        let index = Arc::clone(&self.index);
        self.store.write(move |w| put_agent(w, index, record)).await
    }

    /// The agents an expression names now. For super-admins.
    pub fn select(&self, caller: &Caller, expression: &str) -> Result<Result<Selection, ExpressionError>> {
        caller.require_superadmin("agent_set")?;
        let index = self.index.read();
        Ok(index.select(expression))
    }

    /// How an image stands on every agent, by id. For super-admins.
    pub fn image_presence(&self, caller: &Caller, canonical: &str, digest: &Digest) -> Result<Vec<Standing>> {
        caller.require_superadmin("image_presence")?;
        let index = self.index.read();
        let standing = |(id, number): (&String, &usize)| Standing {
            agent: id.clone(),
            presence: index.presence(*number, canonical, digest),
        };
        Ok(index.numbers.iter().map(standing).collect())
    }

    /// How an image stands on one agent; for transfers.
    pub fn presence(&self, id: &str, canonical: &str, digest: &Digest) -> Presence {
        let index = self.index.read();
        index.numbers.get(id).map_or(Presence::Unknown, |number| index.presence(*number, canonical, digest))
    }

    /// What an agent holds, by its last report.
    pub fn held(&self, id: &str) -> Vec<Arc<Held>> {
        let index = self.index.read();
        index.numbers.get(id).map(|number| index.holdings.of_agent(*number).to_vec()).unwrap_or_default()
    }

    /// An engine answers at this address. It becomes the agent it was before, or a new one.
    pub async fn meet(&self, address: &str, engine: Arc<dyn Engine>, about: About) -> Result<String> {
        let _alone = self.meeting.lock().await;
        let (record, is_changed) = self.index.read().recognize(address, &about, &self.clock);
        let id = record.id.clone();
        if is_changed {
            self.save(record).await?;
        }
        let mut index = self.index.write();
        index.update(&id, |entry| {
            entry.agent.status = Status::Alive;
            entry.agent.about = Some(about);
            entry.agent.has_reported = false;
            entry.engine = Some(engine);
        });
        Ok(id)
    }

    /// An agent's engine was read.
    pub fn report(&self, id: &str, held: Vec<Held>, disk: Option<Disk>) {
        let mut index = self.index.write();
        let Some(number) = index.numbers.get(id).copied() else { return };
        index.holdings.report(number, held);
        index.update(id, |entry| {
            entry.agent.has_reported = true;
            if disk.is_some() {
                entry.agent.disk = disk;
            }
        });
    }

    /// An agent's engine does not answer any more.
    pub fn lose(&self, id: &str, reason: &str) {
        let now = self.clock.now();
        self.index.write().update(id, |entry| {
            let since = match entry.agent.status {
                Status::Lost { since, .. } => since,
                Status::Alive => now,
            };
            entry.agent.status = Status::Lost { since, reason: reason.into() };
            entry.agent.has_reported = false;
            entry.engine = None;
        });
    }

    /// Reads an agent's engine anew, after something was done on it.
    pub async fn refresh(&self, id: &str) {
        let Some(engine) = self.engine(id) else { return };
        match engine.images().await {
            Ok(held) => self.report(id, held, engine.disk().await.ok()),
            Err(fault) => tracing::warn!(agent = id, %fault, "an agent could not be read"),
        }
    }
}

impl Index {
    fn put(&mut self, agent: Agent, engine: Option<Arc<dyn Engine>>) {
        let number = self.agents.len();
        self.numbers.insert(agent.record.id.clone(), number);
        self.agents.push(Entry { agent, engine });
    }

    fn put_record(&mut self, record: AgentRecord) {
        let id = record.id.clone();
        if self.numbers.contains_key(&id) {
            self.update(&id, |entry| entry.agent.record = record);
        } else {
            let status = Status::Lost { since: record.first_contact, reason: "not reached yet".into() };
            self.put(Agent { record, status, about: None, disk: None, has_reported: false }, None);
        }
    }

    fn entry(&self, id: &str) -> Option<&Entry> {
        self.numbers.get(id).and_then(|number| self.agents.get(*number))
    }

    fn sorted(&self) -> impl Iterator<Item = &Entry> {
        self.numbers.values().filter_map(|number| self.agents.get(*number))
    }

    /// Changes an agent and keeps the sets of the living right.
    fn update(&mut self, id: &str, change: impl FnOnce(&mut Entry)) {
        let Some(number) = self.numbers.get(id).copied() else { return };
        let Some(entry) = self.agents.get_mut(number) else { return };
        if let Some(alive) = self.alive_in.get_mut(&entry.agent.record.scaling_group) {
            alive.remove(number);
        }
        change(entry);
        if entry.agent.is_alive() {
            self.alive_in.entry(entry.agent.record.scaling_group.clone()).or_default().insert(number);
        }
    }

    fn presence(&self, number: usize, canonical: &str, digest: &Digest) -> Presence {
        match self.agents.get(number) {
            Some(entry) if entry.agent.is_alive() && entry.agent.has_reported => {
                self.holdings.on(number, canonical, digest)
            }
            _ => Presence::Unknown,
        }
    }

    fn select(&self, expression: &str) -> Result<Selection, ExpressionError> {
        let parsed = Expression::parse(expression)?;
        let inventory = Inventory::new(self.sorted().map(|entry| entry.agent.view()));
        let set = evaluate(&parsed, &inventory)?;
        Ok(Selection { names: set.names().iter().map(|&name| name.into()).collect(), folded: set.folded() })
    }

    /// The agent this engine was before; a new record if it was none. An address says it surest; an engine's own id
    /// only where that agent is not alive elsewhere, since machines made from one copy share it.
    fn recognize(&self, address: &str, about: &About, clock: &Clock) -> (AgentRecord, bool) {
        let here = self.agents.iter().find(|entry| entry.agent.record.address == address);
        let moved = || {
            let same = |entry: &&Entry| about.id.is_some() && entry.agent.record.engine_id == about.id;
            self.agents.iter().filter(|entry| !entry.agent.is_alive()).find(same)
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
        };
        (record, true)
    }

    /// `i-` and the host's name, with a number behind it where a host has several engines.
    fn free_id(&self, hostname: &str) -> String {
        let is_sound = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let name: String = hostname.chars().filter(is_sound).take(60).collect();
        let base =
            if name.is_empty() { "i-node".to_owned() } else { format!("i-{}", name.to_ascii_lowercase()) };
        let numbered = (2..).map(|number| format!("{base}-{number}"));
        std::iter::once(base.clone())
            .chain(numbered)
            .find(|id| !self.numbers.contains_key(id))
            .unwrap_or(base)
    }

    fn holders_alive(&self, digest: &Digest) -> impl Iterator<Item = (&String, Bits)> {
        let holders = self.holdings.holders(digest);
        self.alive_in.iter().filter_map(move |(group, alive)| {
            let mut both = holders?.clone();
            both.intersect_with(alive);
            (!both.is_empty()).then_some((group, both))
        })
    }
}

/// Agents that answered at one moment.
struct Answering {
    index: Arc<RwLock<Index>>,
    agents: Bits,
}

impl Holders for Answering {
    fn have(&self, digest: &Digest) -> bool {
        self.index.read().holdings.holders(digest).is_some_and(|holders| holders.meets(&self.agents))
    }
}

impl Whereabouts for Fleet {
    fn holders(&self, scaling_groups: Option<&BTreeSet<String>>) -> Box<dyn Holders> {
        let mut agents = Bits::default();
        for (group, alive) in &self.index.read().alive_in {
            if scaling_groups.is_none_or(|wanted| wanted.contains(group)) {
                agents.union_with(alive);
            }
        }
        Box::new(Answering { index: Arc::clone(&self.index), agents })
    }

    fn scaling_groups(&self, digest: &Digest) -> Vec<String> {
        let index = self.index.read();
        let Some(holders) = index.holdings.holders(digest) else { return Vec::new() };
        let meeting = index.alive_in.iter().filter(|(_, alive)| alive.meets(holders));
        let mut groups: Vec<String> = meeting.map(|(group, _)| group.clone()).collect();
        groups.sort();
        groups
    }

    fn agents(&self, digest: &Digest) -> Vec<String> {
        let index = self.index.read();
        let numbers = index.holders_alive(digest).flat_map(|(_, agents)| agents.iter().collect::<Vec<_>>());
        let named = numbers.filter_map(|number| index.agents.get(number));
        let mut agents: Vec<String> = named.map(|entry| entry.agent.record.id.clone()).collect();
        agents.sort();
        agents
    }

    fn is_stale(&self, canonical: &str, architecture: &str, digest: &Digest) -> bool {
        let index = self.index.read();
        let is_of = |entry: &Entry| {
            let about = entry.agent.about.as_ref();
            entry.agent.is_alive() && about.is_some_and(|about| about.architecture == architecture)
        };
        index
            .holdings
            .stale(canonical, digest)
            .iter()
            .any(|number| index.agents.get(number).is_some_and(is_of))
    }
}

impl Stations for Fleet {
    fn agents_in(&self, scaling_group: &str) -> Vec<String> {
        let index = self.index.read();
        let agents = index.sorted().map(|entry| &entry.agent.record);
        agents
            .filter(|record| record.scaling_group == scaling_group)
            .map(|record| record.id.clone())
            .collect()
    }
}

fn put_agent(writer: &mut Writer, index: Arc<RwLock<Index>>, record: AgentRecord) -> Result<()> {
    writer.put(&AGENTS, &record.id, &record)?;
    writer.on_commit(move || index.write().put_record(record));
    Ok(())
}

/// Kubernetes' label syntax, as the selectors have it; the built-in keys are ours.
fn check_label(key: &str, value: &str) -> Result<()> {
    const BUILT_IN: [&str; 6] = ["name", "status", "engine", "arch", "os", "scaling_group"];
    if BUILT_IN.contains(&key) {
        return Err(Error::invalid(
            "labels",
            format!("{key} is built in; choose another key, such as lab.example/{key}"),
        ));
    }
    let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let is_domain = |text: &str| {
        text.len() <= 253 && text.split('.').all(|part| is_label_name(part) && !part.contains(['_', '.']))
    };
    if !is_label_name(name) || !prefix.is_none_or(is_domain) {
        return Err(Error::invalid(
            "labels",
            format!("{:?} is no label key, such as lab.example/rack", shown(key)),
        ));
    }
    if !(value.is_empty() || is_label_name(value)) {
        let why = "a value may have 63 letters, digits, '-', '_' and '.', and begins and ends with one of the first two";
        return Err(Error::invalid("labels", format!("{key}: {why}")));
    }
    Ok(())
}

fn is_label_name(text: &str) -> bool {
    let ends_well = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    text.len() <= 63
        && ends_well(text.bytes().next())
        && ends_well(text.bytes().next_back())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}
