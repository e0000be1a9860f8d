//! The cost of an item in tasks of 1,000 to 50,000 items, through the real queue and its store, with a worker that has
//! nothing to do. Half way, the task pauses and answers the requests that clients make.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wharf::base::clock::Clock;
use wharf::store::Store;
use wharf::tasks::live::Live;
use wharf::tasks::queue::Queue;
use wharf::tasks::task::{Item, Ledger, NewItem, Page, Pair, Progress, TaskKind};
use wharf::tasks::worker::{Again, ItemFailure, Outcome, Worker, Workplace};

use super::report::{check, heading, median, note};
use super::stock;

const SIZES: [usize; 3] = [1_000, 8_000, 50_000];
/// Tasks of each size, run in turn, so that all sizes meet the machine in the same state.
const RUNS: usize = 3;
const ROUNDS: usize = 51;
/// Largest ratio of the costs per item in a large task and in the smallest.
const FLAT: f64 = 1.3;
const AT_ONCE: usize = 16;
/// Items in a page that a client requests.
const PAGE: usize = 100;
/// Bytes in an item: about as many as a preload's items have.
const WORK: usize = 700;
const SOON: Duration = Duration::from_millis(1);

/// The measurements of one task.
const MEASURED: [&str; 6] = [
    "an item, from its turn to its commit",
    "its state, progress and account",
    "a page of 100 items in the middle",
    "a page of 100 items that are open",
    "an item read at a start",
    "the last page of a task that has ended",
];

pub async fn measure() {
    heading(
        "queue: tasks of 1,000, 8,000 and 50,000 items; one in seven fails once, one in eleven waits once",
    );
    let mut times: Vec<Vec<[Duration; MEASURED.len()]>> = vec![Vec::new(); SIZES.len()];
    for _ in 0..RUNS {
        for (size, times) in SIZES.into_iter().zip(&mut times) {
            times.push(one_task(size).await);
        }
    }
    for (place, what) in MEASURED.into_iter().enumerate() {
        let of_size = times.iter().map(|runs| {
            median(&runs.iter().map(|measured| measured[place]).collect::<Vec<_>>()).as_secs_f64() * 1e6
        });
        let micros: Vec<f64> = of_size.collect();
        let all: Vec<String> = micros.iter().map(|micros| format!("{micros:.1}")).collect();
        note(&format!("{what}, µs"), &all.join(" / "));
        let most = micros.iter().copied().fold(0.0, f64::max);
        check(&format!("{what}, most over 1,000"), most / micros[0], FLAT, "x");
    }
}

/// A worker with nothing to do; it pauses before the second half of the items.
struct Idle {
    half: usize,
    go_on: watch::Receiver<bool>,
    at_gate: AtomicUsize,
    all_at_gate: Notify,
}

#[async_trait]
impl Worker for Idle {
    fn kind(&self) -> TaskKind {
        TaskKind::Preload
    }

    fn parallel(&self) -> usize {
        AT_ONCE
    }

    async fn work(&self, item: &Item, place: &Workplace) -> Result<Outcome, ItemFailure> {
        let number = item.number as usize;
        if number >= self.half && !*self.go_on.borrow() {
            if self.at_gate.fetch_add(1, Ordering::SeqCst) + 1 == AT_ONCE {
                self.all_at_gate.notify_one();
            }
            self.go_on.clone().wait_for(|may| *may).await.expect("the gate");
        }
        place.report(Progress { current: 1, total: 2 }, "half of it");
        let again = if number % 7 == 3 && item.attempts == 1 {
            Again::After(SOON)
        } else if number % 11 == 3 && item.reason.is_none() {
            Again::When { back: CancellationToken::new(), at_last: Instant::now() + SOON }
        } else {
            place.report(Progress { current: 2, total: 2 }, "all of it");
            return Ok(Outcome::new(Ledger { added: 1, ..Ledger::default() }));
        };
        Err(ItemFailure { reason: "not now".into(), again })
    }
}

async fn one_task(size: usize) -> [Duration; MEASURED.len()] {
    // The store is in memory, because the time that a disk takes for a commit is not measured here.
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory");
    let store = Store::open(directory.path()).expect("a store");
    let audit = stock::audit(&store);
    let (open_gate, go_on) = watch::channel(false);
    let (at_gate, all_at_gate) = (AtomicUsize::default(), Notify::new());
    let worker = Arc::new(Idle { half: size / 2, go_on, at_gate, all_at_gate });
    let load = |store: &Store| {
        let workers: Vec<Arc<dyn Worker>> = vec![worker.clone()];
        let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
        Queue::load(store.clone(), Clock::system(), audit.clone(), workers, tracker, shutdown)
            .expect("a queue")
    };
    let queue = load(&store);
    let caller = stock::superadmin();
    let items = (0..size).map(|number| {
        let agent = format!("i-gpu{number:05}");
        let pair = Some(Pair { agent: agent.clone(), image: "cr.lab.invalid/stable/image:1".into() });
        NewItem { name: agent, pair, phase: 0, work: vec![b'w'; WORK] }
    });
    let items = items.collect();
    let submitted = audit.superadmin(&caller, "preload_image", "all", async |deed| {
        queue.submit(&deed, TaskKind::Preload, "all".into(), caller.user, items).await
    });
    let live = queue.find(submitted.await.expect("a task")).expect("the task");

    let started = Instant::now();
    worker.all_at_gate.notified().await;
    let mut ran = started.elapsed();
    let account = timed(|| {
        black_box((live.is_running(), live.created_at(), live.task(), live.ledger()));
    });
    let middle =
        pages(&queue, &live, Page { is_final: None, offset: size / 2 - PAGE / 2, limit: PAGE }).await;
    let open = pages(&queue, &live, Page { is_final: Some(false), offset: 0, limit: PAGE }).await;
    let started = Instant::now();
    drop(load(&store));
    let read = started.elapsed() / u32::try_from(size).expect("a size");

    let started = Instant::now();
    let mut ends = queue.ends();
    open_gate.send(true).expect("the worker");
    while live.is_running() {
        ends.changed().await;
    }
    ran += started.elapsed();
    assert_eq!((live.ledger().added, live.task().progress.total), (size as u64, 2 * size as u64));
    let last = pages(&queue, &live, Page { is_final: None, offset: size - PAGE, limit: PAGE }).await;
    [ran / u32::try_from(size).expect("a size"), account, middle, open, read, last]
}

async fn pages(queue: &Queue, live: &Live, page: Page) -> Duration {
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let items = queue.items(live, page).await.expect("items");
        times.push(started.elapsed());
        assert_eq!(items.len(), PAGE);
    }
    median(&times)
}

fn timed(ask: impl Fn()) -> Duration {
    let times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let started = Instant::now();
            ask();
            started.elapsed()
        })
        .collect();
    median(&times)
}
