//! Does the items of preloads and unloads.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::base::backoff::Backoff;
use crate::base::clock::Clock;
use crate::catalog::clients::Clients;
use crate::catalog::image::ImageRecord;
use crate::catalog::registry::Registry;
use crate::catalog::service::Catalog;
use crate::engine::Engine;
use crate::engine::fault::{Class, Fault};
use crate::engine::pull::{self, Credentials, Pull};
use crate::fleet::service::{Away, Fleet};
use crate::tasks::task::{Item, Ledger, Progress, TaskKind};
use crate::tasks::worker::{Again, ItemFailure, Outcome, Worker, Workplace};
use crate::transfer::limits::TransferLimits;
use crate::transfer::peers::{Peers, Sources};
use crate::transfer::removal::{Departure, departed, remove_replaced, take_off, unload};
use crate::transfer::rooms::Rooms;
use crate::transfer::source::Catalogued;
use crate::transfer::work::{Leaving, Work};

/// How many items of one task are worked on at once.
const AT_ONCE: usize = 16;
/// How long a pull may make no progress before it is begun anew. A limit on its whole length would be wrong for 12 GB
/// on a slow line.
const STALLED: Duration = Duration::from_mins(5);
/// How many times an item is begun before it fails for good, where another try may help: an engine may restart, a
/// network may come back; what the registry answers twice it will answer again.
const TRIES_ENGINE: u32 = 20;
const TRIES_NETWORK: u32 = 6;
const TRIES_OTHER: u32 = 2;
/// The waits before an item is begun again.
const WAITS: Backoff = Backoff::doubling(Duration::from_secs(1), Duration::from_mins(1));

/// How often an item that waits for another agent is checked even though that agent has not ended.
const LOOK_AGAIN: Duration = Duration::from_mins(10);

/// The worker of preloads or of unloads.
pub(crate) struct TransferWorker {
    kind: TaskKind,
    pub(in crate::transfer) catalog: Catalog,
    pub(in crate::transfer) fleet: Fleet,
    clients: Clients,
    clock: Clock,
    pub(in crate::transfer) limits: Arc<TransferLimits>,
    pub(in crate::transfer) rooms: Rooms,
    wait: Duration,
    peers: Peers,
}

/// Makes the workers of both kinds, which share their limits. Their items wait this long for an agent that is away.
pub(crate) fn workers(
    catalog: &Catalog,
    fleet: &Fleet,
    clients: &Clients,
    clock: &Clock,
    rooms: &Rooms,
    wait: Duration,
    peers: &Peers,
) -> [Arc<dyn Worker>; 2] {
    let limits = Arc::new(TransferLimits::default());
    [TaskKind::Preload, TaskKind::Unload].map(|kind| -> Arc<dyn Worker> {
        Arc::new(TransferWorker {
            kind,
            catalog: catalog.clone(),
            fleet: fleet.clone(),
            clients: clients.clone(),
            clock: clock.clone(),
            limits: Arc::clone(&limits),
            rooms: rooms.clone(),
            wait,
            peers: peers.clone(),
        })
    })
}

#[async_trait]
impl Worker for TransferWorker {
    fn kind(&self) -> TaskKind {
        self.kind
    }

    fn parallel(&self) -> usize {
        AT_ONCE
    }

    async fn work(&self, item: &Item, place: &Workplace) -> Result<Outcome, ItemFailure> {
        let work = Work::of(&item.work).map_err(|error| ItemFailure::giving_up(error.to_string()))?;
        if let Some(leaving) = &work.leaving {
            return self.take_off(item, &work.agent, leaving, place).await;
        }
        if work.image.is_none() {
            let architecture = work.wrong_architecture.as_deref().unwrap_or("unknown");
            return Err(lacks(architecture));
        }
        // Before the item waits for its turn: an agent that is away, or waits for another one, holds no place in the
        // line.
        let engine = self.reach(place, &work.agent)?;
        let image = match self.image(&work) {
            Ok(image) => image,
            Err(architecture) => {
                return work.asked.as_deref().map_or_else(
                    || Err(lacks(&architecture)),
                    |asked| Ok(left_out(&item.name, &architecture, asked)),
                );
            }
        };
        let mut sources = self.sources(&work.agent, engine.as_ref(), image)?;
        let waits = async {
            place.waits(Some("waiting for its turn".into()));
            place.report(item.progress, format!("{}: waiting for its turn", item.name));
            place.stop.cancelled().await;
        };
        let name = image.canonical();
        let turn = tokio::select! {
            biased;
            turn = self.limits.turn(&work.agent, name.as_str(), &image.digest, &image.registry) => turn,
            () = waits => return Err(ItemFailure::giving_up("stopped")),
        };
        place.waits(None);
        let engine = self.reach(place, &work.agent)?;
        if !sources.is_seed() {
            // The wait may have been long, and agents that had the image then may not have it now.
            sources = self.sources(&work.agent, engine.as_ref(), image)?;
        }
        let done = match self.kind {
            TaskKind::Unload => {
                let variants = self.catalog.variants(name.as_str());
                unload(engine.as_ref(), image, &variants).await
            }
            _ if work.make_room => {
                self.preload_into_room(&work.agent, &item.name, engine.as_ref(), image, &sources, place).await
            }
            _ => self.preload(&work.agent, &item.name, engine.as_ref(), image, &sources, place).await,
        };
        self.fleet.refresh(&work.agent).await;
        drop(turn);
        // If an agent's engine or link went away during the work, the item waits for the agent, and then asks how far
        // it came.
        let done = done.map_err(|fault| match (fault.class, self.reach(place, &work.agent)) {
            (Class::EngineGone, Err(away)) => away,
            _ => setback(item, &fault),
        });
        let is_away = matches!(done, Err(ItemFailure { again: Again::When { .. }, .. }));
        self.peers.end(&work.agent, sources, is_away, &place.stop);
        done
    }
}

impl TransferWorker {
    /// Returns the image for an agent that was reached, or the agent's architecture if there is none for it. An agent
    /// that was away when the task was made may turn out to have any architecture.
    fn image<'a>(&self, work: &'a Work) -> Result<&'a ImageRecord, String> {
        let about = self.fleet.find(&work.agent).and_then(|agent| agent.about);
        let architecture = about.map(|about| about.architecture).unwrap_or_default();
        work.image_for(&architecture).ok_or(architecture)
    }

    /// Takes an image off an agent by what the agent holds.
    async fn take_off(
        &self,
        item: &Item,
        agent: &str,
        leaving: &Leaving,
        place: &Workplace,
    ) -> Result<Outcome, ItemFailure> {
        self.reach(place, agent)?;
        let name = leaving.names.first().map_or(leaving.digest.as_str(), String::as_str);
        let held = self.fleet.held(agent).into_iter().find(|held| held.digest == leaving.digest);
        let content = held.map_or_else(|| leaving.digest.clone(), |held| self.catalog.content_of(&held));
        let turn = tokio::select! {
            biased;
            // Nothing is asked of a registry, so the line for it is the agent's own.
            turn = self.limits.turn(agent, name, &content, agent) => turn,
            () = place.stop.cancelled() => return Err(ItemFailure::giving_up("stopped")),
        };
        let engine = self.reach(place, agent)?;
        let departed = async {
            // The agent may be just back, or what is known of it old; a server that was just started knows nothing.
            if leaving.is_careful {
                self.fleet.look(agent).await?;
            }
            let stay = match self.fleet.find(agent) {
                _ if !leaving.is_careful => None,
                Some(found) => self.rooms.stay(&found, &leaving.digest, leaving.terms.as_ref()).await,
                None => Some(Departure::Absent),
            };
            let departure = match stay {
                Some(departure) => departure,
                None => take_off(engine.as_ref(), leaving).await?,
            };
            departed(&item.name, departure, leaving.is_careful)
        };
        let done = departed.await;
        self.fleet.refresh(agent).await;
        drop(turn);
        done.map_err(|fault| match (fault.class, self.reach(place, agent)) {
            (Class::EngineGone, Err(away)) => away,
            _ => setback(item, &fault),
        })
    }

    /// Loads an image, after making room for it if it does not fit. Only one image of an agent does so at a time, since
    /// the room that is made for one must not be used by another.
    async fn preload_into_room(
        &self,
        agent: &str,
        item: &str,
        engine: &dyn Engine,
        image: &ImageRecord,
        sources: &Sources,
        place: &Workplace,
    ) -> Result<Outcome, Fault> {
        let _room = tokio::select! {
            biased;
            room = self.limits.room(agent) => room,
            () = place.stop.cancelled() => return Err(Fault::stopped()),
        };
        let gone = self.make_room(agent, engine, image, place).await?;
        let mut outcome =
            self.preload(agent, item, engine, image, sources, place).await.map_err(|fault| {
                let before = match gone.as_slice() {
                    [] => String::new(),
                    gone => format!("; to make room, {} went before", gone.join(", ")),
                };
                Fault::new(fault.class, format!("{}{before}", fault.message))
            })?;
        if !gone.is_empty() {
            outcome.ledger.removed += u64::try_from(gone.len()).unwrap_or_default();
            let note = outcome.note.take().unwrap_or_default();
            outcome.note = Some(format!("{note}; to make room, {} went", gone.join(", ")));
        }
        Ok(outcome)
    }

    /// Returns the engine of an agent; if the agent is away the item waits for it, as long as the operator allows.
    fn reach(&self, place: &Workplace, agent: &str) -> Result<Arc<dyn Engine>, ItemFailure> {
        let found = self.fleet.find(agent).ok_or_else(|| ItemFailure::giving_up("the agent was removed"))?;
        if found.record.draining && self.kind == TaskKind::Preload {
            let remedy = format!("wharf agent drain {agent} --undo");
            return Err(ItemFailure::giving_up(format!(
                "the agent is draining and takes no images; see {remedy}"
            )));
        }
        self.fleet.reach(agent).map_err(|away| self.waiting(place, away))
    }

    fn waiting(&self, place: &Workplace, away: Away) -> ItemFailure {
        let now = self.clock.steady();
        let since = away.since.max(place.begun);
        let waited = now.saturating_duration_since(since);
        let Some(left) = self.wait.checked_sub(waited).filter(|left| !left.is_zero()) else {
            let waited = waited.as_secs();
            return ItemFailure::giving_up(format!("the agent was away for {waited} s: {}", away.reason));
        };
        let at_last = now.checked_add(left).unwrap_or(now + LOOK_AGAIN);
        let reason = format!("waiting for the agent: {}", away.reason);
        ItemFailure { reason, again: Again::When { back: away.back, at_last } }
    }

    async fn preload(
        &self,
        agent: &str,
        item: &str,
        engine: &dyn Engine,
        image: &ImageRecord,
        sources: &Sources,
        place: &Workplace,
    ) -> Result<Outcome, Fault> {
        let canonical = image.canonical();
        // Asked rather than assumed: a pull that a restart interrupted may be complete, and another task may have
        // been faster.
        let before = engine.find(canonical.as_str()).await?;
        let was_there = before.as_ref().is_some_and(|held| held.is(&image.identity()));
        // Only containerd needs more in that case: an image that another program pulled must be pinned from now on.
        if let Some(held) = before.as_ref().filter(|_| was_there) {
            self.fleet.note_wanted(agent, &held.digest);
        }
        if was_there && !self.pins(agent) {
            let ledger = Ledger { unchanged: 1, ..Ledger::default() };
            return Ok(Outcome { note: Some("already there".into()), ..Outcome::new(ledger) });
        }
        let inside = |error: crate::base::Error| Fault::new(Class::Other, error.to_string());
        let registry = self.catalog.find_registry(&image.registry).map_err(inside)?;
        let source = Catalogued::new(&self.clients, Arc::clone(&registry), &image.name);
        let mut pull = Pull {
            repository: format!("{}/{}", image.registry, image.name),
            tag: image.tag.clone(),
            manifest: Some(image.manifest.clone()),
            index: image.identity().index.cloned(),
            config: image.digest.clone(),
            architecture: image.architecture.clone(),
            // The manifest is for one platform already.
            platform: None,
            layers: Vec::new(),
            via: None,
            credentials: self.credentials(&registry).map_err(inside)?,
            source: Some(Arc::new(source.clone())),
        };
        let lent = self.peers.lend(sources, &pull).await;
        pull.source = Some(lent.source(&image.name, source));
        let stop = place.stop.child_token();
        let last_heard = Arc::new(Mutex::new(Instant::now()));
        let heard = Arc::clone(&last_heard);
        let report = move |progress: pull::Progress| {
            let told = Progress {
                current: progress.bytes_done,
                total: progress.bytes_total.max(progress.bytes_done),
            };
            *heard.lock() = Instant::now();
            place.report(told, format!("{item}: {}", progress.message));
        };
        let mut pulling = engine.pull(&pull, &report, &stop);
        let pulled = tokio::select! {
            pulled = &mut pulling => pulled?,
            () = lent.keep() => return Err(Fault::new(Class::Other, "the grants ended")),
            () = stalled(&last_heard) => {
                stop.cancel();
                // The engine is told to stop; its own answer is awaited only briefly.
                let _ = tokio::time::timeout(Duration::from_secs(5), pulling).await;
                return Err(Fault::new(Class::Network, format!("no progress for {} s", STALLED.as_secs())));
            }
        };
        self.fleet.note_wanted(agent, &pulled.held.digest);
        let (ledger, mut note) = if pulled.fetched {
            (Ledger { added: 1, ..Ledger::default() }, "loaded".to_owned())
        } else {
            let note = if was_there { "already there" } else { "was there under another name" };
            (Ledger { unchanged: 1, ..Ledger::default() }, note.to_owned())
        };
        if let Some(replaced) = before.filter(|_| !was_there) {
            note.push_str("; the image that had the name before ");
            // Another item may be giving this image another name at this moment, and must not lose it.
            let registry = Catalogued::new(&self.clients, registry, &image.name);
            let fate = match self.limits.try_image(agent, &self.catalog.content_of(&replaced)) {
                Some(_alone) => tokio::select! {
                    fate = remove_replaced(engine, &replaced, &registry) => fate,
                    () = place.stop.cancelled() => "stays: the task was stopped".into(),
                },
                None => "stays: it is being loaded under another name".into(),
            };
            note.push_str(&fate);
        }
        for remark in lent.remarks().iter().chain(&pulled.remarks) {
            tracing::warn!(
                agent,
                image = canonical.as_str(),
                remark,
                "not all sources of an image served it"
            );
            note.push_str("; ");
            note.push_str(remark);
        }
        Ok(Outcome { note: Some(note), ..Outcome::new(ledger) })
    }

    /// What is nearer to this agent than the registry.
    fn sources(&self, agent: &str, engine: &dyn Engine, image: &ImageRecord) -> Result<Sources, ItemFailure> {
        if self.kind != TaskKind::Preload {
            return Ok(Sources::default());
        }
        self.peers.sources(agent, engine, image).map_err(|busy| {
            let at_last = self.clock.steady() + LOOK_AGAIN;
            let reason = format!("waits for {} to have fetched it", busy.agent);
            ItemFailure { reason, again: Again::When { back: busy.over, at_last } }
        })
    }

    /// Whether the agent's engine pins the images it pulls.
    fn pins(&self, agent: &str) -> bool {
        let about = self.fleet.find(agent).and_then(|agent| agent.about);
        about.is_some_and(|about| about.kind.pins())
    }

    fn credentials(&self, registry: &Registry) -> crate::base::Result<Option<Credentials>> {
        let account = self.catalog.registry_account(registry)?;
        Ok(account.map(|account| Credentials { username: account.username, password: account.password }))
    }
}

/// The failure of an item whose image does not exist for this architecture.
fn lacks(architecture: &str) -> ItemFailure {
    ItemFailure::giving_up(format!("the agent's architecture is {architecture}, which the image has not"))
}

/// The end of an item on an agent that turned out to have another architecture than the task is for.
fn left_out(item: &str, architecture: &str, asked: &str) -> Outcome {
    let why = format!("left out: the agent's architecture is {architecture}, and the task is for {asked}");
    let mut ledger = Ledger::default();
    ledger.skipped.push(item, why.as_str());
    Outcome { note: Some(why), ..Outcome::new(ledger) }
}

/// When to try an item again that failed with this fault.
fn setback(item: &Item, fault: &Fault) -> ItemFailure {
    let tries = match fault.class {
        Class::EngineGone => TRIES_ENGINE,
        Class::Network => TRIES_NETWORK,
        Class::Other => TRIES_OTHER,
        _ => 0,
    };
    let wait = WAITS.after(item.attempts);
    ItemFailure { reason: fault.to_string(), again: (item.attempts < tries).then_some(wait).into() }
}

/// Ends when there was no progress for [`STALLED`].
async fn stalled(last_heard: &Mutex<Instant>) {
    loop {
        let until = *last_heard.lock() + STALLED;
        if until <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(until).await;
    }
}
