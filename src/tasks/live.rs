//! A task as the running server knows it: the record, its items while it runs, and its feed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};
use tokio_util::sync::CancellationToken;

use crate::base::clock::Clock;
use crate::base::ids::TaskId;
use crate::tasks::feed::{Feed, Follower};
use crate::tasks::items::{Items, Next};
use crate::tasks::task::{Item, Ledger, NewItem, Page, Pair, Progress, State, Task, TaskKind};
use crate::tasks::totals::Tally;

/// Longest message of an event; it may contain a registry's own words.
const MAX_MESSAGE: usize = 500;

/// Shortest time between two progress events: a scan reports thousands of tags a second, and no reader is that fast.
const REPORT_EVERY: Duration = Duration::from_millis(25);

/// Longest wait accepted from the store, whatever the clock says: no worker asks for a longer one.
const LONGEST_WAIT: Duration = Duration::from_mins(15);

/// One task. Its progress and results follow from its items and are never counted anywhere else.
pub struct Live {
    id: TaskId,
    kind: TaskKind,
    created_at: Timestamp,
    clock: Clock,
    inner: RwLock<Inner>,
    feed: Feed,
    reported: Mutex<Option<Instant>>,
    /// Cancelled when a user asks for the task to stop.
    pub(in crate::tasks) cancel: CancellationToken,
}

struct Inner {
    /// The task as it is stored, without its ledger.
    task: Task,
    /// The ledger, once the task has ended.
    ledger: Arc<Ledger>,
    /// Empty once the task has ended and the store knows it; the items are in the store then.
    items: Items,
}

impl Inner {
    fn progress(&self) -> Progress {
        match self.task.state {
            State::Started => self.items.progress(),
            _ => self.task.progress,
        }
    }

    fn end(&mut self, task: Task) {
        self.task = task;
        self.ledger = Arc::new(std::mem::take(&mut self.task.ledger));
    }
}

impl Live {
    /// A task that is running, or one that has ended and has no items in memory.
    pub(in crate::tasks) fn new(mut task: Task, items: impl IntoIterator<Item = Item>, clock: Clock) -> Self {
        let (now, steady) = (clock.now(), clock.steady());
        let mut kept = Items::default();
        for item in items {
            let (number, not_before) = (item.number, item.not_before);
            kept.put(item);
            if let Some(at) = not_before {
                let left = Duration::try_from(at.duration_since(now)).unwrap_or_default();
                kept.put_off(number, steady + left.min(LONGEST_WAIT));
            }
        }
        let cancel = CancellationToken::new();
        if task.cancel_requested {
            cancel.cancel();
        }
        let ledger = Arc::new(std::mem::take(&mut task.ledger));
        let live = Self {
            id: task.id,
            kind: task.kind,
            created_at: task.created_at,
            // Event numbers start at the current time in milliseconds: higher than any number this task had before a
            // restart.
            feed: Feed::new(u64::try_from(now.as_millisecond()).unwrap_or_default()),
            inner: RwLock::new(Inner { task, ledger, items: kept }),
            clock,
            reported: Mutex::new(None),
            cancel,
        };
        live.publish();
        live
    }

    /// The task's id.
    pub(crate) fn id(&self) -> TaskId {
        self.id
    }

    /// Whether it has not ended.
    pub fn is_running(&self) -> bool {
        self.inner.read().task.state == State::Started
    }

    /// When it ended.
    pub(crate) fn ended_at(&self) -> Option<Timestamp> {
        self.inner.read().task.ended_at
    }

    /// When it was asked for.
    pub fn created_at(&self) -> Timestamp {
        self.created_at
    }

    /// What it does.
    pub(crate) fn kind(&self) -> TaskKind {
        self.kind
    }

    /// The task in its current state, with its current progress and without its ledger.
    pub fn task(&self) -> Task {
        let inner = self.inner.read();
        Task { progress: inner.progress(), ..inner.task.clone() }
    }

    /// The ledger of its items; while the task runs, the ledger up to now.
    pub fn ledger(&self) -> Arc<Ledger> {
        let inner = self.inner.read();
        match inner.task.state {
            State::Started => Arc::new(inner.items.ledger()),
            _ => Arc::clone(&inner.ledger),
        }
    }

    /// Returns the items of a page from memory; `None` if they are no longer in memory and the store has them.
    pub(crate) fn items(&self, page: Page) -> Option<Vec<Item>> {
        let (now, steady) = (self.clock.now(), self.clock.steady());
        let items = &self.inner.read().items;
        (!items.is_empty()).then(|| items.page(page, now, steady))
    }

    /// The items about an image on an agent, from memory; `None` if the items are no longer in memory and the store has
    /// them. This goes through all items.
    pub(in crate::tasks) fn items_of(&self, pair: &Pair) -> Option<Vec<Item>> {
        let (now, steady) = (self.clock.now(), self.clock.steady());
        let items = &self.inner.read().items;
        (!items.is_empty()).then(|| items.of(pair, now, steady))
    }

    /// While the task runs, the items it was made with, or some of them: none of a later phase is among them.
    pub(crate) fn first_items(&self) -> Vec<Item> {
        let items = &self.inner.read().items;
        let phase = items.iter().next().map(|item| item.phase);
        items.iter().take_while(|item| Some(item.phase) == phase).cloned().collect()
    }

    /// While the task runs, those of the items with these numbers that have ended.
    pub(crate) fn ended_of(&self, numbers: impl IntoIterator<Item = u32>) -> Vec<Item> {
        let items = &self.inner.read().items;
        let items = numbers.into_iter().filter_map(|number| items.get(number));
        items.filter(|item| item.state.is_final()).cloned().collect()
    }

    /// Follows the task's events; see [`Feed::follow`]. For a task that has ended, the end is sent again: a follower
    /// that already has it would otherwise wait for ever.
    pub(crate) fn follow(&self, after: Option<u64>) -> Follower<'_> {
        self.feed.follow(after.filter(|_| self.is_running()))
    }

    pub(in crate::tasks) fn report(&self, number: u32, progress: Progress, message: String) {
        {
            let mut inner = self.inner.write();
            inner.items.report(number, progress);
            inner.task.message = bounded(message);
        }
        let mut reported = self.reported.lock();
        if reported.is_none_or(|last| last.elapsed() >= REPORT_EVERY) {
            *reported = Some(Instant::now());
            self.publish();
        }
    }

    pub(in crate::tasks) fn waits(&self, number: u32, reason: Option<String>) {
        self.inner.write().items.waits(number, reason.clone());
        if let Some(reason) = reason {
            self.say(reason);
        }
    }

    pub(in crate::tasks) fn say(&self, message: String) {
        self.inner.write().task.message = bounded(message);
        self.publish();
    }

    /// See [`Items::next`].
    pub(in crate::tasks) fn next_waiting(&self, now: Instant) -> Next {
        self.inner.write().items.next(now)
    }

    /// The item with this number, while the task runs.
    pub(in crate::tasks) fn item(&self, number: u32) -> Option<Item> {
        self.inner.read().items.get(number).cloned()
    }

    /// The progress of the item with this number.
    pub(in crate::tasks) fn progress_of(&self, number: u32) -> Progress {
        self.inner.read().items.get(number).map(|item| item.progress).unwrap_or_default()
    }

    /// Whether all items have ended.
    pub(in crate::tasks) fn are_items_final(&self) -> bool {
        self.inner.read().items.are_final()
    }

    /// See [`Items::park`].
    pub(in crate::tasks) fn park(&self, item: Item) {
        self.inner.write().items.park(item);
    }

    pub(in crate::tasks) fn unpark(&self, number: u32) {
        self.inner.write().items.unpark(number);
    }

    pub(in crate::tasks) fn change_item(&self, item: Item) {
        self.inner.write().items.put(item);
    }

    /// Makes the items fail whose turn has not come; parked items wait for something else, so they are left alone.
    pub(in crate::tasks) fn give_up_waiting(&self, reason: &str, now: Timestamp) {
        let items = &mut self.inner.write().items;
        for number in items.waiting() {
            items.give_up(number, reason.to_owned(), now);
        }
    }

    /// See [`Items::give_up`].
    pub(in crate::tasks) fn give_up(&self, number: u32, reason: String, now: Timestamp) {
        self.inner.write().items.give_up(number, reason, now);
    }

    /// Sets the time before which an item that has just failed must not begin again.
    pub(in crate::tasks) fn put_off(&self, number: u32, until: Instant) {
        self.inner.write().items.put_off(number, until);
    }

    /// Marks an item as begun; returns when it was first begun.
    pub(in crate::tasks) fn begin(&self, item: Item, now: Instant) -> Instant {
        self.inner.write().items.begin(item, now)
    }

    /// Gives new items the numbers after the existing ones. Call it within the write that stores them, or two items
    /// that end at the same time hand out the same numbers.
    pub(in crate::tasks) fn number_items(&self, items: Vec<NewItem>) -> Vec<Item> {
        let next = self.inner.read().items.next_number();
        (next..).zip(items).map(|(number, item)| item.numbered(number)).collect()
    }

    /// See [`Items::unkept`].
    pub(in crate::tasks) fn unkept(&self) -> Vec<Item> {
        self.inner.read().items.unkept()
    }

    pub(in crate::tasks) fn tally(&self) -> Tally {
        self.inner.read().items.tally().clone()
    }

    /// Asks a question about all items. Don't use it for a question that comes up for every item: that would be slow.
    pub(in crate::tasks) fn with_items<T>(&self, ask: impl FnOnce(&Items) -> T) -> T {
        ask(&self.inner.read().items)
    }

    pub(in crate::tasks) fn request_cancel(&self) {
        self.inner.write().task.cancel_requested = true;
        self.cancel.cancel();
    }

    /// Marks the task as ended; the store knows it.
    pub(in crate::tasks) fn end(&self, task: Task) {
        {
            let mut inner = self.inner.write();
            inner.items = Items::default();
            inner.end(task);
        }
        self.publish();
    }

    /// Marks the task as ended, with these items changed. The store does not know it yet, so all items stay in
    /// memory.
    pub(in crate::tasks) fn end_unkept(&self, task: Task, items: impl IntoIterator<Item = Item>) {
        {
            let mut inner = self.inner.write();
            items.into_iter().for_each(|item| inner.items.put(item));
            inner.end(task);
        }
        self.publish();
    }

    fn publish(&self) {
        let inner = self.inner.read();
        self.feed.publish(inner.task.state, inner.progress(), inner.task.message.clone());
    }
}

fn bounded(message: String) -> String {
    if message.len() <= MAX_MESSAGE {
        return message;
    }
    let mut short: String = message.chars().take(MAX_MESSAGE / 4).collect();
    short.push_str("...");
    short
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::Live;
    use crate::base::clock::Clock;
    use crate::base::ids::{TaskId, UserId};
    use crate::tasks::feed::KEPT;
    use crate::tasks::task::{Ledger, NewItem, Progress, State, Task, TaskKind};

    fn task() -> Task {
        Task {
            id: TaskId::random(),
            kind: TaskKind::Preload,
            subject: String::new(),
            owner: UserId::random(),
            state: State::Started,
            message: String::new(),
            created_at: Timestamp::UNIX_EPOCH,
            ended_at: None,
            progress: Progress::default(),
            unfolded: false,
            ledger: Ledger::default(),
            cancel_requested: false,
            targets: None,
        }
    }

    #[tokio::test]
    async fn of_a_task_that_has_ended_only_its_end_is_kept_for_whoever_follows_it() {
        let live = Live::new(task(), [], Clock::system());
        let mut follower = live.follow(None);
        follower.next().await;
        (0..KEPT).for_each(|n| live.say(n.to_string()));
        let was = follower.next().await.number;
        live.end(Task { state: State::Done, message: "the end".into(), ..task() });
        assert_eq!(live.feed.kept(), 1);
        for mut follower in [follower, live.follow(None), live.follow(Some(was))] {
            let last = follower.next().await;
            assert_eq!((last.state, last.message.as_str()), (State::Done, "the end"));
        }
    }

    #[test]
    fn a_task_whose_last_item_was_put_aside_half_way_is_not_at_its_end() {
        let item =
            |number| NewItem { name: String::new(), pair: None, phase: 0, work: Vec::new() }.numbered(number);
        let live = Live::new(task(), [item(0), item(1)], Clock::system());
        live.report(0, Progress { current: 10, total: 10 }, String::new());
        live.report(1, Progress { current: 4, total: 10 }, String::new());
        live.park(item(1));
        assert_eq!(live.task().progress, Progress { current: 14, total: 20 });
    }
}
