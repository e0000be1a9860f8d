//! The queue: accepts tasks, has their items worked on, commits the results, and continues after a restart.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use parking_lot::RwLock;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::audit::{Audit, Deed};
use crate::access::caller::Caller;
use crate::base::clock::Clock;
use crate::base::ids::{TaskId, UserId};
use crate::base::reference::shown;
use crate::base::signal::{Follower, Signal};
use crate::base::{Error, Result};
use crate::store::table::Reader;
use crate::store::{Store, Table};
use crate::tasks::items::Next;
use crate::tasks::live::Live;
use crate::tasks::queue::keeping::{LOOK, MAX_ATTEMPTS, Unkept, put_back};
use crate::tasks::task::{Item, ItemState, Ledger, NewItem, Page, Progress, State, Targets, Task, TaskKind};
use crate::tasks::worker::{Again, ItemFailure, Outcome, Worker, Workplace};

mod about;
mod archive;
mod ending;
mod keeping;
#[cfg(test)]
mod tests;

const TASKS: Table<Task> = Table::new("TASK_ID_TO_TASK");
const ITEMS: Table<Item> = Table::new("TASK_ID_AND_NUMBER_TO_ITEM");

/// Most tasks that may run at once; one more is refused rather than put into a hidden queue.
const MAX_RUNNING: usize = 64;
/// How long an item may continue after it was told to stop, before it is dropped.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// The tasks of this server. Clones share them.
#[derive(Clone)]
pub struct Queue {
    shared: Arc<Shared>,
}

/// The tasks of a server, for those that must not keep them alive: the workers belong to the queue.
#[derive(Clone, Default)]
pub(crate) struct WeakQueue(Weak<Shared>);

struct Shared {
    store: Store,
    clock: Clock,
    audit: Audit,
    workers: HashMap<TaskKind, Arc<dyn Worker>>,
    tasks: RwLock<Tasks>,
    tracker: TaskTracker,
    shutdown: CancellationToken,
    /// Raised when an item or a task has ended.
    ends: Signal,
}

/// All tasks the server knows, running or ended.
#[derive(Default)]
struct Tasks {
    by_id: HashMap<TaskId, Arc<Live>>,
    by_age: BTreeMap<(Timestamp, TaskId), Arc<Live>>,
}

impl Tasks {
    fn insert(&mut self, live: Arc<Live>) {
        self.by_age.insert((live.created_at(), live.id()), Arc::clone(&live));
        self.by_id.insert(live.id(), live);
    }

    fn remove(&mut self, id: TaskId) {
        if let Some(live) = self.by_id.remove(&id) {
            self.by_age.remove(&(live.created_at(), id));
        }
    }
}

impl Queue {
    /// Loads the tasks from the store. Nothing runs before [`Queue::resume`].
    pub fn load(
        store: Store,
        clock: Clock,
        audit: Audit,
        workers: Vec<Arc<dyn Worker>>,
        tracker: TaskTracker,
        shutdown: CancellationToken,
    ) -> Result<Self> {
        let mut tasks = Tasks::default();
        store.read_now(|r| {
            r.scan(&TASKS, [], |_, task: Task| {
                let is_open = task.state == State::Started;
                let items = if is_open { items_of(r, &task, Page::ALL)? } else { Vec::new() };
                tasks.insert(Arc::new(Live::new(task, items, clock.clone())));
                Ok(())
            })
        })?;
        let workers = workers.into_iter().map(|worker| (worker.kind(), worker)).collect();
        let (tasks, ends) = (RwLock::new(tasks), Signal::default());
        let shared = Shared { store, clock, audit, workers, tasks, tracker, shutdown, ends };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Resumes the tasks that had not ended, and starts removing those that ended long ago.
    pub(crate) fn resume(&self) {
        for live in self.running() {
            tracing::info!(task = %live.id(), "going on with a task");
            self.run(live);
        }
        let queue = self.clone();
        self.shared.tracker.spawn(async move { queue.sweep_archive().await });
    }

    /// Accepts a task as the deed `deed`. The task is durable when this returns, and runs from then on.
    ///
    /// # Errors
    /// [`Error::Busy`] when too many tasks run already.
    pub async fn submit(
        &self,
        deed: &Deed,
        kind: TaskKind,
        subject: String,
        owner: UserId,
        items: Vec<NewItem>,
    ) -> Result<TaskId> {
        self.submit_for(deed, kind, subject, owner, items, None).await
    }

    /// Does what [`Queue::submit`] does, for a task on a set of agents. The set is stored with the task, both as it
    /// was written and as it was resolved.
    ///
    /// # Errors
    /// Those of [`Queue::submit`].
    pub(crate) async fn submit_for(
        &self,
        deed: &Deed,
        kind: TaskKind,
        subject: String,
        owner: UserId,
        items: Vec<NewItem>,
        targets: Option<Targets>,
    ) -> Result<TaskId> {
        if self.room() == 0 {
            return Err(Error::Busy(format!(
                "{MAX_RUNNING} tasks are running already; wait for one to end, or cancel one"
            )));
        }
        let now = self.shared.clock.stamp();
        let task = Task {
            id: TaskId::random(),
            kind,
            message: format!("{} of {subject} is about to begin", kind.as_str()),
            subject,
            owner,
            state: State::Started,
            created_at: now,
            ended_at: None,
            progress: Progress::default(),
            unfolded: false,
            ledger: Ledger::default(),
            cancel_requested: false,
            targets,
        };
        let items: Vec<Item> = (0..).zip(items).map(|(number, item)| item.numbered(number)).collect();
        let live = Arc::new(Live::new(task.clone(), items.clone(), self.shared.clock.clone()));
        let (queue, id) = (self.clone(), live.id());
        deed.write(move |w| {
            w.put(&TASKS, task.id.as_bytes(), &task)?;
            for item in &items {
                w.put(&ITEMS, item_key(task.id, item.number), item)?;
            }
            // Inside the write rather than after it: the write completes even if the caller is gone.
            w.on_commit(move || {
                queue.shared.tasks.write().insert(Arc::clone(&live));
                queue.run(live);
            });
            Ok(())
        })
        .await?;
        Ok(id)
    }

    /// The known tasks, newest first: at most `limit` of them after the first `offset`.
    pub(crate) fn list(&self, offset: usize, limit: usize) -> Vec<Arc<Live>> {
        self.shared.tasks.read().by_age.values().rev().skip(offset).take(limit).cloned().collect()
    }

    /// The tasks that have not ended.
    pub(crate) fn running(&self) -> Vec<Arc<Live>> {
        self.filtered(Live::is_running)
    }

    /// The tasks of a kind, running or ended.
    pub(crate) fn of_kind(&self, kind: TaskKind) -> Vec<Arc<Live>> {
        self.filtered(|live| live.kind() == kind)
    }

    fn filtered(&self, is_meant: impl Fn(&Live) -> bool) -> Vec<Arc<Live>> {
        self.shared.tasks.read().by_age.values().filter(|live| is_meant(live)).cloned().collect()
    }

    /// How many more tasks may run.
    pub(crate) fn room(&self) -> usize {
        MAX_RUNNING.saturating_sub(self.running().len())
    }

    /// Follows the ends of items and tasks.
    pub fn ends(&self) -> Follower {
        self.shared.ends.follow()
    }

    /// The task with this id, unless it is unknown or forgotten.
    pub fn find(&self, id: TaskId) -> Option<Arc<Live>> {
        self.shared.tasks.read().by_id.get(&id).cloned()
    }

    /// Returns the items of a page, whether the task runs or has ended.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn items(&self, live: &Live, page: Page) -> Result<Vec<Item>> {
        if let Some(items) = live.items(page) {
            return Ok(items);
        }
        let task = live.task();
        self.shared.store.read(move |r| items_of(r, &task, page)).await
    }

    /// Returns the task with this id, if the caller may know of it. Every kind of task names images of any registry,
    /// so only super-admins see tasks, even their own: a caller who is no longer a super-admin no longer sees them.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is no such task, or the caller may not see it.
    pub(crate) fn task_of(&self, caller: &Caller, id: &str) -> Result<Arc<Live>> {
        let found = id.parse().ok().and_then(|id| self.find(id));
        found.filter(|_| caller.is_superadmin()).ok_or_else(|| Error::missing("background task", shown(id)))
    }

    /// Asks a task to stop. What it has committed stays; its open items become cancelled.
    ///
    /// # Errors
    /// [`Error::Missing`] for a task that the caller may not know of, [`Error::Conflict`] when it has already ended.
    pub(crate) async fn cancel(&self, caller: &Caller, id: &str) -> Result<()> {
        self.shared
            .audit
            .perform(caller, "cancel_task", id, |deed| async move {
                self.request_cancel(&deed, &self.task_of(caller, id)?).await
            })
            .await
    }

    /// Stores that a task is to stop, and stops it. If the store can't be written, the task is told to stop all the
    /// same.
    async fn request_cancel(&self, deed: &Deed, live: &Arc<Live>) -> Result<()> {
        match self.keep_cancel(deed, live).await {
            Err(Error::Unavailable(why)) => {
                live.request_cancel();
                Err(Error::Unavailable(format!("{why}; the task was told to stop all the same")))
            }
            kept => kept,
        }
    }

    async fn keep_cancel(&self, deed: &Deed, live: &Arc<Live>) -> Result<()> {
        let mut task = live.task();
        if task.state != State::Started {
            return Err(Error::Conflict(format!(
                "task {} has ended already: {}",
                task.id,
                task.state.as_str()
            )));
        }
        task.cancel_requested = true;
        let live = Arc::clone(live);
        deed.write(move |w| {
            // The task may have ended while this write waited for its turn; in that case its end stands.
            let ended = w.find(&TASKS, task.id.as_bytes())?.is_none_or(|stored| stored.ended_at.is_some());
            if !ended {
                w.put(&TASKS, task.id.as_bytes(), &task)?;
                w.on_commit(move || live.request_cancel());
            }
            Ok(())
        })
        .await
    }

    fn run(&self, live: Arc<Live>) {
        let queue = self.clone();
        self.shared.tracker.spawn(async move {
            if let Err(error) = queue.drive(&live).await {
                tracing::error!(task = %live.id(), ?error, "a task is stuck until the next start");
            }
        });
    }

    /// Has the items of a task worked on until none is open, or the server stops.
    async fn drive(&self, live: &Arc<Live>) -> Result<()> {
        let worker = self
            .shared
            .workers
            .get(&live.kind())
            .ok_or_else(|| Error::internal("no worker for this kind of task"))?;
        let (mut running, mut parked) = (JoinSet::new(), JoinSet::new());
        let stopping = || live.cancel.is_cancelled() || self.shared.shutdown.is_cancelled();
        let mut unkept = Unkept::default();
        loop {
            let mut wake_at = None;
            let keeps = unkept.look(&self.shared.store, live, &self.shared.clock);
            while keeps && !stopping() && running.len() < worker.parallel() {
                match live.next_waiting(self.shared.clock.steady()) {
                    Next::Item(item) => self.begin(&mut running, live, worker, *item),
                    Next::Later(at) => {
                        wake_at = at;
                        break;
                    }
                    Next::Nothing => break,
                }
            }
            if running.is_empty() && (stopping() || (keeps && wake_at.is_none() && parked.is_empty())) {
                break;
            }
            tokio::select! {
                Some(ended) = running.join_next() => {
                    if let Ok(Some(Parked { number, back, at_last })) = ended {
                        let queue = self.clone();
                        parked.spawn(async move {
                            tokio::select! {
                                () = back.cancelled_owned() => {}
                                () = queue.wait_until(Some(at_last)) => {}
                            }
                            number
                        });
                    }
                }
                Some(woken) = parked.join_next() => {
                    if let Ok(number) = woken {
                        live.unpark(number);
                    }
                }
                () = self.wait_until(wake_at) => {}
                () = tokio::time::sleep(LOOK), if !keeps => {}
                () = live.cancel.cancelled(), if !stopping() => {}
                () = self.shared.shutdown.cancelled(), if !stopping() => {}
            }
        }
        if self.shared.shutdown.is_cancelled() && !live.are_items_final() {
            return Ok(());
        }
        self.end(live, worker.as_ref()).await
    }

    async fn wait_until(&self, at: Option<Instant>) {
        match at {
            None => std::future::pending().await,
            Some(at) => {
                tokio::time::sleep(at.saturating_duration_since(self.shared.clock.steady())).await;
            }
        }
    }

    fn begin(
        &self,
        running: &mut JoinSet<Option<Parked>>,
        live: &Arc<Live>,
        worker: &Arc<dyn Worker>,
        mut item: Item,
    ) {
        item.state = ItemState::Running;
        item.attempts += 1;
        item.not_before = None;
        item.started_at = item.started_at.or_else(|| Some(self.shared.clock.now()));
        let begun = live.begin(item.clone(), self.shared.clock.steady());
        let (queue, live, worker) = (self.clone(), Arc::clone(live), Arc::clone(worker));
        running.spawn(async move { queue.attempt(live, worker, item, begun).await });
    }

    /// Works on an item once and commits the result, or parks the item.
    async fn attempt(
        &self,
        live: Arc<Live>,
        worker: Arc<dyn Worker>,
        item: Item,
        begun: Instant,
    ) -> Option<Parked> {
        let stop = live.cancel.child_token();
        let place = Workplace { live: Arc::clone(&live), number: item.number, begun, stop: stop.clone() };
        let given = item.clone();
        // In a separate Tokio task, so that a panic in it also counts as a result.
        let mut work = JoinSet::new();
        work.spawn(async move { worker.work(&given, &place).await });
        let shutdown = self.shared.shutdown.clone();
        let told_to_stop = async {
            tokio::select! {
                () = shutdown.cancelled() => stop.cancel(),
                () = stop.cancelled() => {}
            }
            tokio::time::sleep(STOP_GRACE).await;
        };
        let result = tokio::select! {
            Some(joined) = work.join_next() => joined.unwrap_or_else(|error| {
                tracing::error!(task = %live.id(), item = %item.name, %error, "a worker broke down");
                Err(ItemFailure::giving_up("internal error; the server's log has the cause"))
            }),
            () = told_to_stop => Err(ItemFailure::giving_up("stopped")),
        };
        let number = item.number;
        if let Err(ItemFailure { reason, again: Again::When { back, at_last } }) = &result
            && !stop.is_cancelled()
        {
            park(&live, item, reason.clone());
            return Some(Parked { number, back: back.clone(), at_last: *at_last });
        }
        if let Err(error) = self.settle(&live, item, result, stop.is_cancelled()).await {
            tracing::warn!(task = %live.id(), number, ?error, "the result of an item could not be kept");
            if !put_back(&live, number, &error) {
                self.fail(&live, number, &error).await;
            }
        }
        self.shared.ends.raise();
        None
    }

    /// Commits the end of an attempt: the changes, the item's state and the new items, all or none.
    async fn settle(
        &self,
        live: &Arc<Live>,
        mut item: Item,
        result: Result<Outcome, ItemFailure>,
        stopped: bool,
    ) -> Result<()> {
        let now = self.shared.clock.now();
        item.progress = live.progress_of(item.number);
        let mut message = None;
        let (changes, more) = match result {
            Ok(outcome) => {
                item.state = ItemState::Done;
                item.ended_at = Some(now);
                item.reason = outcome.note;
                item.progress.current = item.progress.total;
                item.ledger = outcome.ledger;
                (Some(outcome.changes), outcome.more)
            }
            Err(_) if stopped => {
                item.state = ItemState::Waiting;
                item.progress = Progress::default();
                live.change_item(item);
                return Ok(());
            }
            Err(failure) => {
                let wait = match failure.again {
                    Again::After(wait) if item.attempts < MAX_ATTEMPTS => Some(wait),
                    _ => None,
                };
                if let Some(wait) = wait {
                    live.put_off(item.number, self.shared.clock.steady() + wait);
                }
                let again_at = wait.map(|wait| {
                    let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
                    now.checked_add(wait).unwrap_or(Timestamp::MAX)
                });
                item.state = if again_at.is_some() { ItemState::Waiting } else { ItemState::Failed };
                item.ended_at = if again_at.is_some() { None } else { Some(now) };
                item.not_before = again_at;
                message = Some(format!("{}: {}", item.name, failure.reason));
                item.reason = Some(failure.reason);
                (None, Vec::new())
            }
        };
        self.commit_item(live, item, more, changes).await?;
        if let Some(message) = message {
            live.say(message);
        }
        Ok(())
    }

    async fn commit_item(
        &self,
        live: &Arc<Live>,
        item: Item,
        more: Vec<NewItem>,
        changes: Option<crate::tasks::worker::Changes>,
    ) -> Result<()> {
        let live = Arc::clone(live);
        self.shared
            .store
            .write(move |w| {
                if let Some(changes) = changes {
                    changes(w)?;
                }
                let more = live.number_items(more);
                for item in more.iter().chain([&item]) {
                    w.put(&ITEMS, item_key(live.id(), item.number), item)?;
                }
                w.on_commit(move || more.into_iter().chain([item]).for_each(|item| live.change_item(item)));
                Ok(())
            })
            .await
    }

    /// Marks an item as failed whose result could not be stored: what it was about is gone, or the disk is full.
    async fn fail(&self, live: &Arc<Live>, number: u32, error: &Error) {
        // If the item has ended, its result was stored after all.
        let Some(item) = live.item(number).filter(|item| !item.state.is_final()) else { return };
        let (now, reason) = (self.shared.clock.now(), error.to_string());
        let failed =
            Item { state: ItemState::Failed, ended_at: Some(now), reason: Some(reason.clone()), ..item };
        if let Err(why) = self.commit_item(live, failed, Vec::new(), None).await {
            // The running task must come to an end even so.
            tracing::error!(task = %live.id(), number, ?why, "the failure of an item could not be kept");
            live.give_up(number, reason, now);
        }
    }
}

/// An item that waits for something to happen.
struct Parked {
    number: u32,
    back: CancellationToken,
    at_last: Instant,
}

/// Parks an item. This is in memory only: after a restart the item is simply tried again.
fn park(live: &Live, mut item: Item, reason: String) {
    item.state = ItemState::Waiting;
    item.attempts = item.attempts.saturating_sub(1);
    let message = format!("{}: {reason}", item.name);
    item.reason = Some(reason);
    live.park(item);
    live.say(message);
}

fn item_key(task: TaskId, number: u32) -> Vec<u8> {
    [task.as_bytes().as_slice(), &number.to_be_bytes()].concat()
}

/// Reads the items of a page from the store.
fn items_of(reader: &Reader, task: &Task, page: Page) -> Result<Vec<Item>> {
    let Page { is_final, offset, limit } = page;
    // A task that has ended has no open items.
    if task.state != State::Started && is_final == Some(false) {
        return Ok(Vec::new());
    }
    let (first, skip) =
        if task.unfolded { (u32::try_from(offset).unwrap_or(u32::MAX), 0) } else { (0, offset) };
    reader.page(&ITEMS, task.id.as_bytes(), item_key(task.id, first), skip, limit)
}
