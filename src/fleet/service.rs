//! The fleet: the agents, what each holds, and how each is reached.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::{Mutex, RwLock};
use tokio_util::sync::CancellationToken;

use crate::access::audit::Audit;
use crate::access::caller::Caller;
use crate::access::joins;
use crate::access::tenants::{self, Tenants};
use crate::base::agent_name;
use crate::base::clock::Clock;
use crate::base::digest::Digest;
use crate::base::reference::shown;
use crate::base::signal::Signal;
use crate::base::{Error, Result};
use crate::engine::image::Held;
use crate::engine::{About, Disk, Engine};
use crate::fleet::agent::{Agent, AgentRecord, Status};
use crate::fleet::alive_groups::AliveGroups;
use crate::fleet::error::ExpressionError;
use crate::fleet::evaluate::{Inventory, evaluate};
use crate::fleet::expression::Expression;
use crate::fleet::labels::set_labels;
use crate::fleet::presence::{Holdings, HoldingsChange, Presence, Sought};
use crate::store::table::Writer;
use crate::store::{Store, Table};

mod presence_index;
mod reach;
mod roster;
#[cfg(test)]
mod tests;
mod unreached;

pub(crate) use crate::fleet::service::reach::Away;

const AGENTS: Table<AgentRecord> = Table::new("AGENT_ID_TO_AGENT");

/// The fleet. Clones share it.
#[derive(Clone)]
pub struct Fleet {
    store: Store,
    clock: Clock,
    audit: Audit,
    tenants: Tenants,
    index: Arc<RwLock<Index>>,
    /// How many reads of engines have begun.
    read_epochs: Arc<AtomicU64>,
    /// Held while an engine is recognized and kept, so that two met at once don't become one agent.
    pub(in crate::fleet) meeting: Arc<tokio::sync::Mutex<()>>,
    /// Addresses where no engine has answered yet, with the reason; as many as the operator named at most.
    unreached: Arc<Mutex<BTreeMap<String, String>>>,
}

#[derive(Default)]
struct Index {
    /// By number; an agent keeps its number while the server runs, and nobody else gets it afterwards.
    agents: Vec<Option<Entry>>,
    numbers: BTreeMap<String, usize>,
    holdings: Holdings,
    alive_groups: AliveGroups,
    changes: Signal,
}

struct Entry {
    agent: Agent,
    engine: Option<Arc<dyn Engine>>,
    /// When it was lost, if it is.
    lost_at: Instant,
    /// The read that what it holds is known from.
    epoch: ReadEpoch,
    /// Cancelled when it can be reached again, or was removed.
    back: CancellationToken,
}

/// When a read of an engine began, among all reads of this fleet. Two may be under way at once, and the one that began
/// later knows more, whichever is done first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct ReadEpoch(u64);

/// What an admin may change of an agent; what is `None` stays as it is.
#[derive(Debug, Clone, Default)]
pub struct AgentChange {
    /// Labels to set; an empty value removes one.
    pub labels: Option<BTreeMap<String, String>>,
    /// The scaling group it is in.
    pub scaling_group: Option<String>,
    /// Whether it is to get no new images.
    pub draining: Option<bool>,
}

/// An agent that joined by a token.
#[derive(Debug, Clone)]
pub(in crate::fleet) struct Joined {
    pub(in crate::fleet) id: String,
    pub(in crate::fleet) address: String,
    pub(in crate::fleet) scaling_group: Option<String>,
    pub(in crate::fleet) labels: BTreeMap<String, String>,
}

/// An image on one agent.
#[derive(Debug, Clone)]
pub struct AgentPresence {
    /// The agent.
    pub(crate) agent: String,
    /// How the image stands there.
    pub(crate) presence: Presence,
}

/// The agents an expression named at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Their ids, in order; at least one.
    pub names: Vec<String>,
    /// The same, folded: `gpu[01-04]`.
    pub(crate) folded: String,
}

impl Fleet {
    /// Reads the agents from the store; none is reached yet.
    pub fn load(store: &Store, clock: Clock, audit: Audit, tenants: Tenants) -> Result<Self> {
        rename_reserved(store)?;
        let mut index = Index::default();
        let now = clock.now();
        store.read_now(|r| {
            r.scan(&AGENTS, [], |_, record: AgentRecord| {
                let status =
                    Status::Lost { since: now, reason: "not reached since the server started".into() };
                index.put(Agent { record, status, away: None, about: None, disk: None, has_reported: false });
                Ok(())
            })
        })?;
        let index = Arc::new(RwLock::new(index));
        let (meeting, unreached) = (Arc::default(), Arc::default());
        Ok(Self {
            store: store.clone(),
            clock,
            audit,
            tenants,
            index,
            read_epochs: Arc::default(),
            meeting,
            unreached,
        })
    }

    /// All agents, by id. For super-admins.
    pub(crate) fn agents(&self, caller: &Caller) -> Result<Vec<Agent>> {
        caller.require_superadmin("agents")?;
        let index = self.index.read();
        Ok(index.sorted().map(|entry| entry.agent.clone()).collect())
    }

    /// One agent. For super-admins.
    pub(crate) fn agent(&self, caller: &Caller, id: &str) -> Result<Agent> {
        caller.require_superadmin("agent")?;
        self.require(id)
    }

    fn require(&self, id: &str) -> Result<Agent> {
        self.find(id).ok_or_else(|| Error::missing("agent", shown(id)))
    }

    /// One agent, whoever asks; for transfers.
    pub(crate) fn find(&self, id: &str) -> Option<Agent> {
        let index = self.index.read();
        index.entry(id).map(|entry| entry.agent.clone())
    }

    /// Whether there is no agent at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.index.read().numbers.is_empty()
    }

    /// Changes what an admin may change of an agent.
    ///
    /// # Errors
    /// [`Error::Missing`] for an agent or a scaling group that there is not.
    pub async fn change(&self, caller: &Caller, id: &str, change: AgentChange) -> Result<Agent> {
        self.audit
            .superadmin(caller, "modify_agent", id, |deed| async move {
                let (fleet, id) = (self.clone(), id.to_owned());
                deed.write(move |w| {
                    let mut moves_to = change.scaling_group.iter();
                    moves_to.try_for_each(|group| fleet.tenants.require_scaling_group(group))?;
                    // Decided inside the write, so that of two changes at once neither takes the other back.
                    let agent = fleet.changed(&id, change)?;
                    put_agent(w, fleet.index, agent.record.clone())?;
                    Ok(agent)
                })
                .await
            })
            .await
    }

    fn changed(&self, id: &str, change: AgentChange) -> Result<Agent> {
        let mut agent = self.require(id)?;
        set_labels(&mut agent.record.labels, change.labels)?;
        agent.record.scaling_group = change.scaling_group.unwrap_or(agent.record.scaling_group);
        agent.record.draining = change.draining.unwrap_or(agent.record.draining);
        Ok(agent)
    }

    /// Keeps where an agent is and by what engine it is known. What an admin says of it stays as it is by then.
    async fn locate(&self, found: AgentRecord) -> Result<()> {
        let fleet = self.clone();
        let write = move |w: &mut Writer| {
            let record = match fleet.find(&found.id) {
                Some(known) => {
                    AgentRecord { address: found.address, engine_id: found.engine_id, ..known.record }
                }
                // One that dials in is put here when it joins; if it is not, it was removed.
                None if found.remote => return Err(Error::missing("agent", shown(&found.id))),
                None => found,
            };
            put_agent(w, fleet.index, record)
        };
        self.store.write(write).await
    }

    /// The agents an expression names now. For super-admins.
    pub fn select(&self, caller: &Caller, expression: &str) -> Result<Result<Selection, ExpressionError>> {
        caller.require_superadmin("agent_set")?;
        let index = self.index.read();
        Ok(index.select(expression))
    }

    /// How an image stands on every agent, by id. For super-admins.
    pub fn image_presence(&self, caller: &Caller, image: &Sought<'_>) -> Result<Vec<AgentPresence>> {
        caller.require_superadmin("image_presence")?;
        let index = self.index.read();
        let standing = |(id, number): (&String, &usize)| AgentPresence {
            agent: id.clone(),
            presence: index.presence(*number, image),
        };
        Ok(index.numbers.iter().map(standing).collect())
    }

    /// How an image stands on one agent, whoever asks.
    pub(crate) fn presence(&self, id: &str, image: &Sought<'_>) -> Presence {
        let index = self.index.read();
        let number = index.numbers.get(id);
        number.map_or(Presence::Unknown, |number| index.presence(*number, image))
    }

    /// What an agent holds, by its last report.
    pub(crate) fn held(&self, id: &str) -> Vec<Arc<Held>> {
        let index = self.index.read();
        index.numbers.get(id).map(|number| index.holdings.of_agent(*number).to_vec()).unwrap_or_default()
    }

    /// An engine answers at this address. It becomes the agent it was before, or a new one.
    pub async fn meet(&self, address: &str, engine: Arc<dyn Engine>, about: About) -> Result<String> {
        let _alone = self.meeting.lock().await;
        let (record, is_changed) = self.index.read().recognize(address, &about, &self.clock);
        let id = record.id.clone();
        if is_changed {
            self.locate(record).await?;
        }
        self.index.write().change(&id, |entry| {
            entry.agent.has_reported = false;
            entry.connect(engine, about);
        });
        self.unreached.lock().remove(address);
        Ok(id)
    }

    /// An agent that dialled in says that its engine answers; until it has reported, what it held before stands.
    /// Nothing happens if `closed` is cancelled: then this link is not the agent's any more.
    ///
    /// # Errors
    /// [`Error::Missing`] for one that was removed.
    pub(crate) async fn arrive(
        &self,
        id: &str,
        address: &str,
        engine: Arc<dyn Engine>,
        about: About,
        closed: &CancellationToken,
    ) -> Result<()> {
        let found = self.require(id)?;
        let record = AgentRecord {
            address: address.into(),
            engine_id: about.id.clone().or_else(|| found.record.engine_id.clone()),
            ..found.record.clone()
        };
        if record != found.record {
            self.locate(record).await?;
        }
        let mut index = self.index.write();
        if !closed.is_cancelled() {
            index.change(id, |entry| entry.connect(engine, about));
        }
        Ok(())
    }

    /// An agent's link is gone. It counts as alive for a while, for links come back; but nothing is asked of it.
    /// Returns what is cancelled when it is back.
    pub(crate) fn unlink(&self, id: &str, reason: &str) -> CancellationToken {
        let mut index = self.index.write();
        index.change(id, |entry| {
            entry.disconnect();
            entry.agent.away = Some(reason.into());
        });
        index.entry(id).map(|entry| entry.back.clone()).unwrap_or_default()
    }

    /// An agent tells what changed on its engine: what is there now by these digests, and which digests are gone.
    pub fn revise(&self, id: &str, changed: Vec<Held>, gone: &[Digest], disk: Option<Disk>) {
        let mut index = self.index.write();
        let Some(number) = index.numbers.get(id).copied() else { return };
        index.takes(number, self.begin_read());
        let news = index.holdings.revise(number, changed, gone);
        index.hear(number, &news, disk);
        index.changes.raise();
    }

    /// A read of an agent's engine begins, which [`Fleet::report`] is told of when it is done.
    pub fn begin_read(&self) -> ReadEpoch {
        ReadEpoch(self.read_epochs.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// An agent's engine was read by this read. What is known from a later one stays.
    pub fn report(&self, id: &str, epoch: ReadEpoch, held: Vec<Held>, disk: Option<Disk>) {
        let mut index = self.index.write();
        let Some(number) = index.numbers.get(id).copied() else { return };
        if !index.takes(number, epoch) {
            return index.hear(number, &HoldingsChange::default(), disk);
        }
        let news = index.holdings.report(number, held);
        index.hear(number, &news, disk);
        let Some(entry) = index.agents.get_mut(number).and_then(Option::as_mut) else { return };
        let is_first = !std::mem::replace(&mut entry.agent.has_reported, true);
        if news.is_any || is_first {
            index.changes.raise();
        }
    }

    /// An agent's engine does not answer any more.
    pub(crate) fn lose(&self, id: &str, reason: &str) {
        let (now, steady) = (self.clock.now(), self.clock.steady());
        self.index.write().change(id, |entry| {
            let since = match entry.agent.status {
                Status::Lost { since, .. } => since,
                Status::Alive => {
                    entry.lost_at = steady;
                    now
                }
            };
            entry.agent.status = Status::Lost { since, reason: reason.into() };
            entry.agent.has_reported = false;
            entry.disconnect();
        });
    }

    /// Adds an agent that joined, within the transaction that takes its token.
    pub(in crate::fleet) fn put_joined(&self, writer: &mut Writer, joined: Joined) -> Result<()> {
        let known = self.find(&joined.id).map(|agent| agent.record);
        let record = AgentRecord {
            address: joined.address,
            remote: true,
            ..known.unwrap_or_else(|| AgentRecord {
                id: joined.id,
                address: String::new(),
                engine_id: None,
                scaling_group: joined.scaling_group.unwrap_or_else(|| tenants::DEFAULT.into()),
                labels: joined.labels,
                first_contact: self.clock.now(),
                remote: true,
                draining: false,
            })
        };
        put_agent(writer, Arc::clone(&self.index), record)
    }

    /// Whether there is a scaling group of this name for an agent to be in.
    pub(in crate::fleet) fn has_scaling_group(&self, name: &str) -> bool {
        self.tenants.require_scaling_group(name).is_ok()
    }

    /// An id that no agent has, made from the name of a host.
    pub(in crate::fleet) fn free_id(&self, hostname: &str) -> String {
        self.index.read().free_id(hostname)
    }

    /// Takes an agent out; what it holds counts no more once the transaction is committed.
    pub(in crate::fleet) fn take_out(&self, writer: &mut Writer, id: &str) -> Result<()> {
        writer.remove(&AGENTS, id)?;
        let (index, id) = (Arc::clone(&self.index), id.to_owned());
        writer.on_commit(move || index.write().remove(&id));
        Ok(())
    }

    /// Reads an agent's engine anew, after something was done on it. How full its disk is, which some engines take their
    /// time to add up, is told afterwards.
    pub(crate) async fn refresh(&self, id: &str) {
        let Ok(engine) = self.reach(id) else { return };
        let epoch = self.begin_read();
        match engine.images().await {
            Ok(held) => self.report(id, epoch, held, None),
            Err(fault) => return tracing::warn!(agent = id, %fault, "an agent could not be read"),
        }
        let (fleet, id) = (self.clone(), id.to_owned());
        tokio::spawn(async move {
            let disk = engine.disk().await.ok();
            let mut index = fleet.index.write();
            if let Some(number) = index.numbers.get(&id).copied() {
                index.hear(number, &HoldingsChange::default(), disk);
                index.changes.raise();
            }
        });
    }
}

impl Index {
    fn put(&mut self, agent: Agent) {
        let number = self.agents.len();
        self.numbers.insert(agent.record.id.clone(), number);
        self.agents.push(Some(Entry {
            agent,
            engine: None,
            lost_at: Instant::now(),
            epoch: ReadEpoch::default(),
            back: CancellationToken::new(),
        }));
    }

    fn remove(&mut self, id: &str) {
        let Some(number) = self.numbers.remove(id) else { return };
        self.holdings.remove(number);
        let Some(entry) = self.agents.get_mut(number).and_then(Option::take) else { return };
        entry.back.cancel();
        self.alive_groups.change(&entry.agent.record.scaling_group).remove(number);
        self.changes.raise();
    }

    fn put_record(&mut self, record: AgentRecord) {
        let id = record.id.clone();
        if self.numbers.contains_key(&id) {
            self.update(&id, |entry| entry.agent.record = record);
        } else {
            let status = Status::Lost { since: record.first_contact, reason: "not reached yet".into() };
            self.put(Agent { record, status, away: None, about: None, disk: None, has_reported: false });
        }
        self.changes.raise();
    }

    fn entry(&self, id: &str) -> Option<&Entry> {
        self.numbers.get(id).and_then(|number| self.by_number(*number))
    }

    fn by_number(&self, number: usize) -> Option<&Entry> {
        self.agents.get(number).and_then(Option::as_ref)
    }

    fn sorted(&self) -> impl Iterator<Item = &Entry> {
        self.numbers.values().filter_map(|number| self.by_number(*number))
    }

    /// [`Index::update`], of which followers are told.
    fn change(&mut self, id: &str, change: impl FnOnce(&mut Entry)) {
        self.update(id, change);
        self.changes.raise();
    }

    /// Changes an agent, and keeps the sets of the living right.
    fn update(&mut self, id: &str, change: impl FnOnce(&mut Entry)) {
        let Some(number) = self.numbers.get(id).copied() else { return };
        let Some(entry) = self.agents.get_mut(number).and_then(Option::as_mut) else { return };
        self.alive_groups.change(&entry.agent.record.scaling_group).remove(number);
        change(entry);
        if entry.agent.is_alive() {
            self.alive_groups.change(&entry.agent.record.scaling_group).insert(number);
        }
    }

    /// Whether what this read found is newer than what is known; then it is what is known.
    fn takes(&mut self, number: usize, epoch: ReadEpoch) -> bool {
        let Some(entry) = self.agents.get_mut(number).and_then(Option::as_mut) else { return false };
        let is_newer = epoch > entry.epoch;
        entry.epoch = entry.epoch.max(epoch);
        is_newer
    }

    /// What an agent holds has changed, and perhaps what its disk has left.
    fn hear(&mut self, number: usize, news: &HoldingsChange, disk: Option<Disk>) {
        let Some(entry) = self.agents.get_mut(number).and_then(Option::as_mut) else { return };
        entry.agent.disk = disk.or(entry.agent.disk.take());
        if entry.agent.is_alive() {
            self.alive_groups.hear(&entry.agent.record.scaling_group, &news.contents, &self.holdings);
        }
    }

    fn presence(&self, number: usize, image: &Sought<'_>) -> Presence {
        match self.by_number(number) {
            Some(entry) if entry.agent.is_alive() && entry.agent.has_reported => {
                match self.holdings.on(number, image.name, image.digest, image.variants) {
                    // What it has under the name is behind with the image for its own architecture.
                    Presence::Stale if !entry.agent.is_of(image.architecture) => Presence::Absent,
                    presence => presence,
                }
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
        // Those that dial in are known by their credentials, and by nothing else.
        let reached = || self.agents.iter().flatten().filter(|entry| !entry.agent.record.remote);
        let here = reached().find(|entry| entry.agent.record.address == address);
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

    /// An id that no agent has; a host may have several engines.
    fn free_id(&self, hostname: &str) -> String {
        agent_name::of_host(hostname, |id| self.numbers.contains_key(id))
    }
}

impl Entry {
    fn connect(&mut self, engine: Arc<dyn Engine>, about: About) {
        self.agent.status = Status::Alive;
        self.agent.away = None;
        self.agent.about = Some(about);
        self.engine = Some(engine);
        self.back.cancel();
    }

    fn disconnect(&mut self) {
        self.agent.away = None;
        if self.engine.take().is_some() {
            self.back = CancellationToken::new();
        }
    }
}

/// Gives each agent another id that was let in under a word which means something else in expressions: by its own id
/// nobody could name it, and `unload IMAGE all` would mean the fleet. Its machine hears of it when it says hello.
fn rename_reserved(store: &Store) -> Result<()> {
    for word in agent_name::RESERVED {
        let Some(record) = store.read_now(|r| r.find(&AGENTS, word))? else { continue };
        let renamed = store.write_now(|w| {
            let taken = w.keys(&AGENTS, [])?;
            let id = agent_name::of_host(word, |id| taken.iter().any(|known| known == id.as_bytes()));
            w.remove(&AGENTS, word)?;
            w.put(&AGENTS, &id, &AgentRecord { id: id.clone(), ..record })?;
            joins::rename(w, word, &id)?;
            Ok(id)
        });
        match renamed {
            Ok(id) => tracing::warn!(
                was = word,
                id,
                "an agent has another id from now on: its own means every agent where agents are named"
            ),
            Err(error) => tracing::warn!(
                agent = word,
                ?error,
                "this agent's id means every agent where agents are named, and it could not be given another; name it \
                 by {{name={word}}}"
            ),
        }
    }
    Ok(())
}

fn put_agent(writer: &mut Writer, index: Arc<RwLock<Index>>, record: AgentRecord) -> Result<()> {
    writer.put(&AGENTS, &record.id, &record)?;
    writer.on_commit(move || index.write().put_record(record));
    Ok(())
}
