//! A task as the running server knows it: the record, its items while it runs, and its feed.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use parking_lot::{Mutex, RwLock};
use tokio_util::sync::CancellationToken;

use crate::base::clock::Clock;
use crate::base::ids::TaskId;
use crate::tasks::feed::{Feed, Follower};
use crate::tasks::items::{Items, Next};
use crate::tasks::task::{Item, ItemState, Kind, Ledger, NewItem, Progress, State, Task};

/// Longest message an event carries; a registry's words may be in it.
const MAX_MESSAGE: usize = 500;

/// Progress is told no more often than this: a scan reports thousands of tags a second, and nobody reads that fast.
const REPORT_EVERY: Duration = Duration::from_millis(25);

/// A wait that is found in the store is no longer than this, whatever the clock says: nobody asks for more.
const LONGEST_WAIT: Duration = Duration::from_mins(15);

/// One task. What it says of progress and results is derived from its items, never counted beside them.
pub struct Live {
    id: TaskId,
    clock: Clock,
    inner: RwLock<Inner>,
    feed: Feed,
    reported: Mutex<Option<Instant>>,
    /// Cancelled when somebody asks for the task to stop.
    pub(in crate::tasks) cancel: CancellationToken,
}

struct Inner {
    task: Task,
    /// Empty once the task has ended; the store has them then.
    items: Items,
}

impl Inner {
    fn progress(&self) -> Progress {
        match self.task.state {
            State::Started => self.items.iter().map(|item| item.progress).sum(),
            _ => self.task.progress,
        }
    }
}

impl Live {
    /// A task that runs, or has ended and has no items in memory.
    pub(in crate::tasks) fn new(task: Task, items: impl IntoIterator<Item = Item>, clock: Clock) -> Self {
        let (now, steady) = (clock.now(), clock.steady());
        let mut kept = Items::default();
        for item in items {
            if let Some(at) = item.not_before {
                let left = Duration::try_from(at.duration_since(now)).unwrap_or_default();
                kept.put_off(item.number, steady + left.min(LONGEST_WAIT));
            }
            kept.put(item);
        }
        let live = Self {
            id: task.id,
            // Event numbers start at the present in milliseconds: higher than any this task had before a restart.
            feed: Feed::new(u64::try_from(now.as_millisecond()).unwrap_or_default()),
            inner: RwLock::new(Inner { task, items: kept }),
            clock,
            reported: Mutex::new(None),
            cancel: CancellationToken::new(),
        };
        if live.task().cancel_requested {
            live.cancel.cancel();
        }
        live.publish();
        live
    }

    /// The task's id.
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// Whether it has not ended.
    pub fn is_running(&self) -> bool {
        self.inner.read().task.state == State::Started
    }

    /// When it ended.
    pub fn ended_at(&self) -> Option<Timestamp> {
        self.inner.read().task.ended_at
    }

    /// When it was asked for.
    pub fn created_at(&self) -> Timestamp {
        self.inner.read().task.created_at
    }

    /// What it does.
    pub fn kind(&self) -> Kind {
        self.inner.read().task.kind
    }

    /// The task as it stands, with progress and ledger of this moment.
    pub fn task(&self) -> Task {
        let inner = self.inner.read();
        let mut task = inner.task.clone();
        task.progress = inner.progress();
        if task.state == State::Started {
            task.ledger = ledger_of(inner.items.iter());
        }
        task
    }

    /// The items in memory: all while the task runs, none once it has ended.
    pub fn items(&self) -> Vec<Item> {
        let (now, steady) = (self.clock.now(), self.clock.steady());
        let inner = self.inner.read();
        // What is waited for is measured; the time of day at which that will be is what the clock makes of it now.
        let shown = |item: &Item| {
            let due = inner.items.due(item.number).filter(|_| item.not_before.is_some());
            let at = due.map(|due| {
                let left =
                    SignedDuration::try_from(due.saturating_duration_since(steady)).unwrap_or_default();
                now.checked_add(left).unwrap_or(now)
            });
            Item { not_before: at.or(item.not_before), ..item.clone() }
        };
        inner.items.iter().map(shown).collect()
    }

    /// Follows what happens to it; see [`Feed::follow`]. Of a task that has ended its end is told once more: whoever has
    /// heard it would wait for ever.
    pub fn follow(&self, after: Option<u64>) -> Follower<'_> {
        self.feed.follow(after.filter(|_| self.is_running()))
    }

    pub(in crate::tasks) fn report(&self, number: u32, progress: Progress, message: String) {
        {
            let mut inner = self.inner.write();
            if let Some(known) = inner.items.progress_of(number) {
                *known = progress;
            }
            inner.task.message = bounded(message);
        }
        let mut reported = self.reported.lock();
        if reported.is_none_or(|last| last.elapsed() >= REPORT_EVERY) {
            *reported = Some(Instant::now());
            self.publish();
        }
    }

    pub(in crate::tasks) fn waits(&self, number: u32, reason: Option<String>) {
        if let Some(known) = self.inner.write().items.reason_of(number) {
            known.clone_from(&reason);
        }
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
        self.inner.read().items.next(now)
    }

    /// The item of this number, while the task runs.
    pub(in crate::tasks) fn item(&self, number: u32) -> Option<Item> {
        self.inner.read().items.get(number).cloned()
    }

    /// Whether nothing more will happen to any item.
    pub(in crate::tasks) fn are_items_final(&self) -> bool {
        self.inner.read().items.are_final()
    }

    /// Puts an item aside until [`Live::unpark`]. How far it came counts on: what remains of it is still to be done.
    pub(in crate::tasks) fn park(&self, item: Item) {
        let mut inner = self.inner.write();
        let progress = inner.items.get(item.number).map_or(item.progress, |running| running.progress);
        inner.items.park(Item { progress, ..item });
    }

    pub(in crate::tasks) fn unpark(&self, number: u32) {
        self.inner.write().items.unpark(number);
    }

    pub(in crate::tasks) fn change_item(&self, item: Item) {
        self.inner.write().items.put(item);
    }

    /// Gives up the items whose turn has not come; those that were put aside wait for something else.
    pub(in crate::tasks) fn fail_waiting(&self, reason: &str, now: Timestamp) {
        let mut inner = self.inner.write();
        for number in inner.items.waiting() {
            let Some(item) = inner.items.get(number).cloned() else { continue };
            let (state, reason) = (ItemState::Failed, Some(reason.to_owned()));
            inner.items.put(Item { state, ended_at: Some(now), reason, ..item });
        }
    }

    /// An item that has just failed is not to be begun again before this.
    pub(in crate::tasks) fn put_off(&self, number: u32, until: Instant) {
        self.inner.write().items.put_off(number, until);
    }

    /// An item begins; returns when it did so first.
    pub(in crate::tasks) fn begin(&self, item: Item, now: Instant) -> Instant {
        self.inner.write().items.begin(item, now)
    }

    /// Gives new items their places behind those that are there. To be asked within the write that keeps them, or two
    /// items that end at once give the same places.
    pub(in crate::tasks) fn number_items(&self, items: Vec<NewItem>) -> Vec<Item> {
        let next = self.inner.read().items.next_number();
        (next..).zip(items).map(|(number, item)| item.numbered(number)).collect()
    }

    pub(in crate::tasks) fn with_items<T>(&self, ask: impl FnOnce(&[&Item]) -> T) -> T {
        let inner = self.inner.read();
        ask(&inner.items.iter().collect::<Vec<_>>())
    }

    pub(in crate::tasks) fn request_cancel(&self) {
        self.inner.write().task.cancel_requested = true;
        self.cancel.cancel();
    }

    pub(in crate::tasks) fn end(&self, task: Task) {
        {
            let mut inner = self.inner.write();
            inner.items = Items::default();
            inner.task = task;
        }
        self.publish();
    }

    fn publish(&self) {
        let inner = self.inner.read();
        self.feed.publish(inner.task.state, inner.progress(), inner.task.message.clone());
    }
}

/// The account of these items: what each says, and one line for each that failed as a whole.
pub fn ledger_of<'a>(items: impl Iterator<Item = &'a Item>) -> Ledger {
    let mut sum = Ledger::default();
    for item in items {
        sum.absorb(&item.ledger);
        if let (ItemState::Failed, Some(reason)) = (item.state, &item.reason) {
            sum.failed.push(&item.name, reason);
        }
    }
    sum
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
    use crate::tasks::task::{Kind, Ledger, NewItem, Progress, State, Task};

    fn task() -> Task {
        Task {
            id: TaskId::random(),
            kind: Kind::Preload,
            subject: String::new(),
            owner: UserId::random(),
            state: State::Started,
            message: String::new(),
            created_at: Timestamp::UNIX_EPOCH,
            ended_at: None,
            progress: Progress::default(),
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
