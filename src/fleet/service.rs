//! The fleet: the agents, what each holds, and how each is reached.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio_util::sync::CancellationToken;

use crate::access::audit::Audit;
use crate::access::caller::Caller;
use crate::access::joins;
use crate::access::tenants::{self, Tenants};
use crate::base::agent_name;
use crate::base::bits::Bits;
use crate::base::clock::Clock;
use crate::base::digest::Digest;
use crate::base::identity::Identity;
use crate::base::reference::shown;
use crate::base::signal::Follower;
use crate::base::{Error, Result};
use crate::engine::image::Held;
use crate::engine::{About, Disk, Engine};
use crate::fleet::agent::{Agent, AgentRecord, Status};
use crate::fleet::error::ExpressionError;
use crate::fleet::index::{Index, ReadEpoch, Selection};
use crate::fleet::labels::set_labels;
use crate::fleet::presence::{AgentPresence, HoldingsChange, Presence, Sought};
use crate::store::table::Writer;
use crate::store::{Store, Table};

mod presence_index;
mod reach;
#[cfg(test)]
mod tests;
mod usage;

pub(crate) use crate::fleet::service::reach::Away;

const AGENTS: Table<AgentRecord> = Table::new("AGENT_ID_TO_AGENT");

/// The agents of the lab. Clones share them.
#[derive(Clone)]
pub struct Fleet {
    store: Store,
    clock: Clock,
    audit: Audit,
    tenants: Tenants,
    index: Arc<RwLock<Index>>,
    /// How many reads of engines have begun.
    read_epochs: Arc<AtomicU64>,
    /// Held while an engine is recognized and stored, so that two engines met at the same time don't become one
    /// agent.
    pub(in crate::fleet) meeting: Arc<tokio::sync::Mutex<()>>,
    /// Addresses where no engine has answered yet, with the reason; at most as many as the operator named.
    unreached: Arc<Mutex<BTreeMap<String, String>>>,
}

/// The properties of an agent that an admin may change; `None` leaves one as it is.
#[derive(Debug, Clone, Default)]
pub struct AgentChange {
    /// Labels to set; an empty value removes one.
    pub labels: Option<BTreeMap<String, String>>,
    /// The scaling group to put it in.
    pub scaling_group: Option<String>,
    /// Whether it takes no new images.
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

impl Fleet {
    /// Loads the agents from the store; none is reached yet.
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
            })?;
            usage::load(r, &mut index)
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

    /// Returns one agent without asking who the caller is; for transfers.
    pub(crate) fn find(&self, id: &str) -> Option<Agent> {
        let index = self.index.read();
        index.entry(id).map(|entry| entry.agent.clone())
    }

    /// Whether there are no agents.
    pub(crate) fn is_empty(&self) -> bool {
        self.index.read().numbers.is_empty()
    }

    /// Changes the properties of an agent that an admin may change.
    ///
    /// # Errors
    /// [`Error::Missing`] for an unknown agent or scaling group.
    pub async fn change(&self, caller: &Caller, id: &str, change: AgentChange) -> Result<Agent> {
        self.audit
            .superadmin(caller, "modify_agent", id, |deed| async move {
                let (fleet, id) = (self.clone(), id.to_owned());
                deed.write(move |w| {
                    let mut moves_to = change.scaling_group.iter();
                    moves_to.try_for_each(|group| fleet.tenants.require_scaling_group(group))?;
                    // Decided inside the write, so that of two concurrent changes neither undoes the other.
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

    /// Stores where an agent is and which engine identifies it. The properties that an admin set stay as they are at
    /// that time.
    async fn locate(&self, found: AgentRecord) -> Result<()> {
        let fleet = self.clone();
        let write = move |w: &mut Writer| {
            let record = match fleet.find(&found.id) {
                Some(known) => {
                    AgentRecord { address: found.address, engine_id: found.engine_id, ..known.record }
                }
                // An agent that dials in is stored when it joins; if it is not stored, it was removed.
                None if found.remote => return Err(Error::missing("agent", shown(&found.id))),
                None => found,
            };
            put_agent(w, fleet.index, record)
        };
        self.store.write(write).await
    }

    /// Resolves an expression to the agents it names now. For super-admins.
    pub fn select(&self, caller: &Caller, expression: &str) -> Result<Result<Selection, ExpressionError>> {
        caller.require_superadmin("agent_set")?;
        let index = self.index.read();
        Ok(index.select(expression))
    }

    /// The presence of an image on every agent, ordered by id. For super-admins.
    pub fn image_presence(&self, caller: &Caller, image: &Sought<'_>) -> Result<Vec<AgentPresence>> {
        caller.require_superadmin("image_presence")?;
        Ok(self.index.read().presences(image))
    }

    /// The presence of an image on one agent, without asking who the caller is.
    pub(crate) fn presence(&self, id: &str, image: &Sought<'_>) -> Presence {
        let index = self.index.read();
        let number = index.numbers.get(id);
        number.map_or(Presence::Unknown, |number| index.presence(*number, image))
    }

    /// The images an agent holds, according to its last report.
    pub(crate) fn held(&self, id: &str) -> Vec<Arc<Held>> {
        let index = self.index.read();
        index.numbers.get(id).map(|number| index.holdings.of_agent(*number).to_vec()).unwrap_or_default()
    }

    /// Takes in an engine that answers at this address. It becomes the agent it was before, or a new one.
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

    /// Takes note that the engine of an agent that dialled in answers; until its next report, its last one stands.
    /// Nothing happens if `closed` is cancelled: in that case this link is no longer the agent's.
    ///
    /// # Errors
    /// [`Error::Missing`] for an agent that was removed.
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
            if let Some(number) = index.numbers.get(id).copied()
                && engine.site_cache().is_some()
            {
                index.caches.insert(number);
            }
            index.change(id, |entry| entry.connect(engine, about));
        }
        Ok(())
    }

    /// Takes note that an agent's link is gone. The agent counts as alive for a while, because links come back, but
    /// nothing is asked of it. Returns a token that is cancelled when it is back.
    pub(crate) fn unlink(&self, id: &str, reason: &str) -> CancellationToken {
        let (mut index, day) = (self.index.write(), self.clock.stamp());
        index.change(id, |entry| {
            entry.disconnect();
            entry.usage.lose_sight(day);
            entry.agent.away = Some(reason.into());
        });
        index.entry(id).map(|entry| entry.back.clone()).unwrap_or_default()
    }

    /// Applies a change that an agent reported: the images it now holds with these digests, and the digests it no
    /// longer holds.
    pub fn revise(&self, id: &str, changed: Vec<Held>, gone: &[Digest], disk: Option<Disk>) {
        let mut index = self.index.write();
        let Some(number) = index.numbers.get(id).copied() else { return };
        index.takes(number, self.begin_read());
        let news = index.holdings.revise(number, changed, gone);
        index.observe(number, &news, self.moment());
        index.hear(number, &news, disk);
        index.changes.raise();
    }

    /// Begins a read of an agent's engine; pass the result to [`Fleet::report`] when the read is done.
    pub fn begin_read(&self) -> ReadEpoch {
        ReadEpoch(self.read_epochs.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Stores what a read of an agent's engine found. A result known from a later read stays.
    pub fn report(&self, id: &str, epoch: ReadEpoch, held: Vec<Held>, disk: Option<Disk>) {
        let mut index = self.index.write();
        let Some(number) = index.numbers.get(id).copied() else { return };
        if !index.takes(number, epoch) {
            return index.hear(number, &HoldingsChange::default(), disk);
        }
        let news = index.holdings.report(number, held);
        index.observe(number, &news, self.moment());
        index.hear(number, &news, disk);
        let Some(entry) = index.agents.get_mut(number).and_then(Option::as_mut) else { return };
        let is_first = !std::mem::replace(&mut entry.agent.has_reported, true);
        if news.is_any || is_first {
            index.changes.raise();
        }
    }

    /// Marks an agent as lost: its engine no longer answers.
    pub(crate) fn lose(&self, id: &str, reason: &str) {
        let (now, steady, day) = (self.clock.now(), self.clock.steady(), self.clock.stamp());
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
            entry.usage.lose_sight(day);
            entry.disconnect();
        });
    }

    /// Adds an agent that joined, within the transaction that uses up its token.
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

    /// Whether there is a scaling group of this name that an agent can be in.
    pub(in crate::fleet) fn has_scaling_group(&self, name: &str) -> bool {
        self.tenants.require_scaling_group(name).is_ok()
    }

    /// Makes an id that no agent has from the name of a host.
    pub(in crate::fleet) fn free_id(&self, hostname: &str) -> String {
        self.index.read().free_id(hostname)
    }

    /// Removes an agent; its images no longer count once the transaction is committed.
    pub(in crate::fleet) fn take_out(&self, writer: &mut Writer, id: &str) -> Result<()> {
        writer.remove(&AGENTS, id)?;
        usage::remove(writer, id)?;
        let (index, id) = (Arc::clone(&self.index), id.to_owned());
        writer.on_commit(move || index.write().remove(&id));
        Ok(())
    }

    /// Reads an agent's engine again after something was done on it. Some engines take a while to add up how full
    /// their disk is, so that is reported afterwards.
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

    /// Whether every agent was reached since the server started, even if it has been lost since.
    pub(crate) fn is_complete(&self) -> bool {
        self.index.read().agents.iter().flatten().all(|entry| entry.agent.about.is_some())
    }

    /// All agents ordered by id, without asking who the caller is, each with its number in [`Fleet::held_by`].
    pub(crate) fn roster(&self) -> Vec<(usize, Agent)> {
        let index = self.index.read();
        let numbered = index.numbers.values().filter_map(|number| Some((*number, index.by_number(*number)?)));
        numbered.map(|(number, entry)| (number, entry.agent.clone())).collect()
    }

    /// The numbers of the agents where this name means this image, according to their last reports.
    pub(crate) fn held_by(&self, name: &str, image: &Identity<'_>) -> Bits {
        self.index.read().holdings.present(name, image)
    }

    /// The ids of those of the wanted agents that have this content, under whatever name, according to their last
    /// reports.
    pub(crate) fn holders(&self, image: &Identity<'_>, wanted: impl Fn(&AgentRecord) -> bool) -> Vec<String> {
        let index = self.index.read();
        let has = |number: usize| index.holdings.of_agent(number).iter().any(|held| held.is(image));
        let agents = index.numbers.values().filter_map(|number| Some((*number, index.by_number(*number)?)));
        let holders = agents.filter(|(number, entry)| wanted(&entry.agent.record) && has(*number));
        holders.map(|(_, entry)| entry.agent.record.id.clone()).collect()
    }

    /// Follows the changes of the agents and of what they hold.
    pub(crate) fn changes(&self) -> Follower {
        self.index.read().changes.follow()
    }

    /// The addresses of the engines that have not answered since the server started, each with the reason. For
    /// super-admins.
    pub(crate) fn unreached(&self, caller: &Caller) -> Result<Vec<(String, String)>> {
        caller.require_superadmin("server_health")?;
        let unreached = self.unreached.lock();
        Ok(unreached.iter().map(|(address, reason)| (address.clone(), reason.clone())).collect())
    }

    /// Notes that no engine answers at this address.
    pub(in crate::fleet) fn miss(&self, address: &str, reason: &str) {
        self.unreached.lock().insert(address.into(), reason.into());
    }
}

/// Renames agents whose id means something else in expressions. No one could name such an agent by its id, and
/// `unload IMAGE all` would mean the whole fleet. The agent's machine learns its new id at the next hello.
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
