//! Tests of the queue with workers made for them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::Barrier;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::audit::{Audit, Retention};
use crate::access::caller::Caller;
use crate::base::clock::Clock;
use crate::base::ids::TaskId;
use crate::store::Store;
use crate::store::held::{Held, fill_disk};
use crate::tasks::live::Live;
use crate::tasks::queue::{ITEMS, Queue};
use crate::tasks::task::{Item, ItemState, Ledger, NewItem, Page, Progress, TaskKind};
use crate::tasks::worker::{Again, ItemFailure, Outcome, Worker, Workplace};

/// A worker that finds more work in each of its first items, all at the same moment.
struct Lister(Arc<Barrier>);

#[async_trait]
impl Worker for Lister {
    fn kind(&self) -> TaskKind {
        TaskKind::Rescan
    }

    fn parallel(&self) -> usize {
        2
    }

    async fn work(&self, item: &Item, _place: &Workplace) -> Result<Outcome, ItemFailure> {
        let mut outcome = Outcome::new(Ledger::default());
        if item.phase == 0 {
            self.0.wait().await;
            outcome.more = (1..=3).map(|n| new_item(format!("{}{n}", item.name), 1)).collect();
        }
        Ok(outcome)
    }
}

fn new_item(name: String, phase: u8) -> NewItem {
    NewItem { name, pair: None, phase, work: Vec::new() }
}

/// A queue on its own store, and what is needed to submit tasks to it.
struct Scene {
    store: Store,
    audit: Audit,
    queue: Queue,
    _directory: tempfile::TempDir,
}

impl Scene {
    fn set(clock: Clock, worker: impl Worker + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let audit = Audit::load(&store, clock.clone(), Retention::default()).unwrap();
        let workers: Vec<Arc<dyn Worker>> = vec![Arc::new(worker)];
        let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let queue = Queue::load(store.clone(), clock, audit.clone(), workers, tracker, shutdown).unwrap();
        Self { store, audit, queue, _directory: directory }
    }

    async fn submit(&self, items: Vec<NewItem>) -> TaskId {
        let caller = Caller::superadmin();
        let submitted = self.audit.superadmin(&caller, "rescan", "all", async |deed| {
            self.queue.submit(&deed, TaskKind::Rescan, "all".into(), caller.user, items).await
        });
        submitted.await.unwrap()
    }

    async fn end_of(&self, id: TaskId) -> Arc<Live> {
        let (live, mut ends) = (self.queue.find(id).unwrap(), self.queue.ends());
        while live.is_running() {
            ends.changed().await;
        }
        live
    }
}

#[tokio::test]
async fn items_that_end_at_once_and_find_more_to_do_each_get_it_done() {
    let barrier = Arc::new(Barrier::new(3));
    let scene = Scene::set(Clock::system(), Lister(Arc::clone(&barrier)));
    let id = scene.submit(["a", "b"].map(|name| new_item(name.into(), 0)).to_vec()).await;

    // Both items end while another write runs, so both wait for their turn.
    let held = Held::begin(&scene.store).await;
    barrier.wait().await;
    held.gather().await;
    held.end().await;

    let live = scene.end_of(id).await;
    let names: BTreeSet<String> =
        scene.queue.items(&live, Page::ALL).await.unwrap().into_iter().map(|item| item.name).collect();
    let expected = ["a", "a1", "a2", "a3", "b", "b1", "b2", "b3"].map(String::from);
    assert_eq!(names, BTreeSet::from(expected));
}

#[tokio::test]
async fn the_oldest_tasks_go_when_all_take_too_many_bytes() {
    let scene = Scene::set(Clock::system(), Lister(Arc::new(Barrier::new(1))));
    let mut ids = Vec::new();
    for _ in 0..3 {
        let items = (0..10).map(|n| new_item(format!("{n}{}", "x".repeat(1_000)), 1)).collect();
        ids.push(scene.submit(items).await);
        scene.end_of(*ids.last().unwrap()).await;
    }
    let there = || ids.iter().map(|id| scene.queue.find(*id).is_some()).collect::<Vec<_>>();
    scene.queue.forget_old().await.unwrap();
    assert_eq!(there(), [true, true, true]);
    scene.queue.forget_beyond(35_000).await.unwrap();
    assert_eq!(there(), [false, true, true], "each takes some 14 kB");
    scene.queue.forget_beyond(20_000).await.unwrap();
    assert_eq!(there(), [false, false, true]);
    let (items, _) = scene.store.read_now(|r| r.extent(&ITEMS)).unwrap();
    assert_eq!(items, 10, "with a task its items go");
}

/// A worker that fails once and asks for another try a moment later; meanwhile the clock goes back by a day.
struct Twice {
    tries: AtomicU32,
    day: Arc<AtomicI64>,
}

#[async_trait]
impl Worker for Twice {
    fn kind(&self) -> TaskKind {
        TaskKind::Rescan
    }

    fn parallel(&self) -> usize {
        1
    }

    async fn work(&self, _item: &Item, _place: &Workplace) -> Result<Outcome, ItemFailure> {
        if self.tries.fetch_add(1, Ordering::SeqCst) > 0 {
            return Ok(Outcome::new(Ledger::default()));
        }
        let day = Arc::clone(&self.day);
        tokio::spawn(async move { day.fetch_sub(86_400, Ordering::SeqCst) });
        Err(ItemFailure { reason: "not now".into(), again: Again::After(Duration::from_millis(50)) })
    }
}

/// A queue whose clock shows these seconds, with one task that has ended.
async fn ended_once(day: &Arc<AtomicI64>) -> (Scene, TaskId) {
    let shown = Arc::clone(day);
    let clock = Clock::new(move || Timestamp::from_second(shown.load(Ordering::SeqCst)).unwrap());
    let scene = Scene::set(clock, Twice { tries: AtomicU32::new(0), day: Arc::clone(day) });
    let id = scene.submit(vec![new_item("a".into(), 0)]).await;
    let end = tokio::time::timeout(Duration::from_mins(1), scene.end_of(id));
    end.await.expect("the wait is no longer than it was");
    (scene, id)
}

#[tokio::test]
async fn a_clock_that_is_set_back_delays_no_retry() {
    let (scene, id) = ended_once(&Arc::new(AtomicI64::new(1_700_000_000))).await;
    let items = scene.queue.items(&scene.queue.find(id).unwrap(), Page::ALL).await.unwrap();
    assert_eq!(items[0].attempts, 2);
}

#[tokio::test]
async fn a_moment_years_ahead_empties_no_archive() {
    let day = Arc::new(AtomicI64::new(1_700_000_000));
    let (scene, id) = ended_once(&day).await;
    for jump in [3_650 * 86_400, -3_650 * 86_400] {
        day.fetch_add(jump, Ordering::SeqCst);
        scene.queue.forget_old().await.unwrap();
        assert!(scene.queue.find(id).is_some(), "{jump}");
    }
}

#[tokio::test]
async fn a_task_that_ended_while_the_clock_was_years_behind_is_not_forgotten_once_it_is_right() {
    let day = Arc::new(AtomicI64::new(1_700_000_000));
    let clock = || {
        let day = Arc::clone(&day);
        Clock::new(move || Timestamp::from_second(day.load(Ordering::SeqCst)).unwrap())
    };
    let scene = Scene::set(clock(), Lister(Arc::new(Barrier::new(1))));
    day.fetch_sub(3_650 * 86_400, Ordering::SeqCst);
    let id = scene.submit(vec![new_item("a".into(), 1)]).await;
    scene.end_of(id).await;

    day.fetch_add(3_650 * 86_400, Ordering::SeqCst);
    let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
    let later = Queue::load(scene.store.clone(), clock(), scene.audit.clone(), Vec::new(), tracker, shutdown)
        .unwrap();
    later.forget_old().await.unwrap();
    assert!(later.find(id).is_some());
}

/// A worker whose items begin and end when the test does.
struct Gate(Arc<Barrier>);

#[async_trait]
impl Worker for Gate {
    fn kind(&self) -> TaskKind {
        TaskKind::Rescan
    }

    fn parallel(&self) -> usize {
        1
    }

    async fn work(&self, _item: &Item, _place: &Workplace) -> Result<Outcome, ItemFailure> {
        self.0.wait().await;
        self.0.wait().await;
        Ok(Outcome::new(Ledger::default()))
    }
}

#[tokio::test]
async fn items_that_are_given_up_on_a_full_disk_have_failed_at_once_and_for_good() {
    let (barrier, minutes) = (Arc::new(Barrier::new(2)), Arc::new(AtomicU64::new(0)));
    let (begun, passed) = (Instant::now(), Arc::clone(&minutes));
    let clock = Clock::system()
        .with_steady(move || begun + Duration::from_mins(passed.load(Ordering::SeqCst)) + begun.elapsed());
    let scene = Scene::set(clock, Gate(Arc::clone(&barrier)));
    let names = ["a", "b", "c"];
    let id = scene.submit(names.map(|name| new_item(name.into(), 0)).to_vec()).await;
    let live = scene.queue.find(id).unwrap();
    let said = |words: &'static str| {
        let live = Arc::clone(&live);
        let heard = async move {
            let mut follower = live.follow(None);
            while !follower.next().await.message.contains(words) {}
        };
        tokio::time::timeout(Duration::from_mins(1), heard)
    };

    barrier.wait().await;
    fill_disk(&scene.store, true);
    barrier.wait().await;
    said("waiting: ").await.expect("the task says that it waits");
    // More than once: the task may not have begun to wait the first time.
    let end = async {
        let mut ends = scene.queue.ends();
        while live.is_running() {
            minutes.fetch_add(2, Ordering::SeqCst);
            let _ = tokio::time::timeout(Duration::from_secs(1), ends.changed()).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), end).await.expect("an end without the disk");
    let states = async || {
        let items = scene.queue.items(&live, Page::ALL).await.unwrap();
        items.into_iter().map(|item| item.state).collect::<Vec<_>>()
    };
    assert_eq!(states().await, [ItemState::Failed; 3]);

    fill_disk(&scene.store, false);
    let mut ends = scene.queue.ends();
    let kept = async {
        while live.items(Page::ALL).is_some() {
            ends.changed().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), kept).await.expect("the end is kept");
    assert_eq!(states().await, [ItemState::Failed; 3], "in the store as well");
}

/// A worker that ends each item in one of the possible ways, chosen by its name; some only at a second try.
struct Mixed;

#[async_trait]
impl Worker for Mixed {
    fn kind(&self) -> TaskKind {
        TaskKind::Rescan
    }

    fn parallel(&self) -> usize {
        4
    }

    async fn work(&self, item: &Item, place: &Workplace) -> Result<Outcome, ItemFailure> {
        place.report(Progress { current: 1, total: 3 }, "half way");
        let (soon, at_last) = (Duration::from_millis(1), Instant::now() + Duration::from_millis(1));
        let again = match item.number % 7 {
            1 if item.attempts < 3 => Again::After(soon),
            2 if item.reason.is_none() => Again::When { back: CancellationToken::new(), at_last },
            3 => Again::Never,
            _ => {
                let mut outcome = Outcome::new(Ledger { unchanged: 1, ..Ledger::default() });
                if item.number % 7 == 4 {
                    outcome.ledger.skipped.push(&*item.name, "not wanted");
                }
                if item.phase == 0 {
                    outcome.more = vec![new_item(format!("{} more", item.name), 1)];
                }
                return Ok(outcome);
            }
        };
        Err(ItemFailure { reason: "not now".into(), again })
    }

    fn folded_as(&self, item: &Item) -> Option<&'static str> {
        (item.phase == 1).then_some("items")
    }
}

#[tokio::test]
async fn what_a_task_says_at_its_end_is_what_its_items_in_the_store_come_to() {
    let scene = Scene::set(Clock::system(), Mixed);
    let id = scene.submit((0..60).map(|n| new_item(n.to_string(), 0)).collect()).await;
    let live = scene.end_of(id).await;
    let items = scene.queue.items(&live, Page::ALL).await.unwrap();
    let (task, ledger) = (live.task(), live.ledger());
    assert_eq!(task.progress, items.iter().map(|item| item.progress).sum());
    assert_eq!(ledger.unchanged, items.iter().map(|item| item.ledger.unchanged).sum::<u64>());
    let failed: Vec<&str> = ledger.failed.named.iter().map(|remark| remark.reference.as_str()).collect();
    let expected = items.iter().filter(|item| item.state == ItemState::Failed);
    assert_eq!(failed, expected.map(|item| item.name.as_str()).collect::<Vec<_>>());
    assert!(failed.len() > 8 && ledger.skipped.count > 8, "{ledger:?}");
    // The pages give the same items, though some were folded into one.
    for size in [1, 7, 1_000] {
        let mut paged = Vec::new();
        loop {
            let page = Page { is_final: Some(true), offset: paged.len(), limit: size };
            let some = scene.queue.items(&live, page).await.unwrap();
            if some.is_empty() {
                break;
            }
            assert!(some.len() <= size);
            paged.extend(some.into_iter().map(|item| item.number));
        }
        assert_eq!(paged, items.iter().map(|item| item.number).collect::<Vec<_>>());
    }
    let open = Page { is_final: Some(false), ..Page::ALL };
    assert!(scene.queue.items(&live, open).await.unwrap().is_empty());
}
