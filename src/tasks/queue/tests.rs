//! The queue with workers made up for it.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Barrier;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::audit::{Audit, Retention};
use crate::access::caller::Caller;
use crate::base::clock::Clock;
use crate::store::Store;
use crate::store::held::Held;
use crate::tasks::queue::Queue;
use crate::tasks::task::{Item, Kind, Ledger, NewItem, State};
use crate::tasks::worker::{Outcome, Setback, Worker, Workplace};

/// Finds more to do in each item it is given at first, all at the same moment.
struct Lister(Arc<Barrier>);

#[async_trait]
impl Worker for Lister {
    fn kind(&self) -> Kind {
        Kind::Rescan
    }

    fn parallel(&self) -> usize {
        2
    }

    async fn work(&self, item: &Item, _place: &Workplace) -> Result<Outcome, Setback> {
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

#[tokio::test]
async fn items_that_end_at_once_and_find_more_to_do_each_get_it_done() {
    let directory = tempfile::tempdir().unwrap();
    let (store, clock) = (Store::open(directory.path()).unwrap(), Clock::system());
    let audit = Audit::load(&store, clock.clone(), Retention::default()).unwrap();
    let barrier = Arc::new(Barrier::new(3));
    let workers: Vec<Arc<dyn Worker>> = vec![Arc::new(Lister(Arc::clone(&barrier)))];
    let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
    let queue = Queue::load(store.clone(), clock, audit.clone(), workers, tracker, shutdown).unwrap();
    let caller = Caller::superadmin();
    let items = ["a", "b"].map(|name| new_item(name.into(), 0)).to_vec();
    let id = audit
        .superadmin(&caller, "rescan", "all", async |deed| {
            queue.submit(&deed, Kind::Rescan, "all".into(), caller.user, items).await
        })
        .await
        .unwrap();
    let mut ends = queue.ends();

    // Both come to their end while somebody else writes, so that both wait for their turn.
    let held = Held::begin(&store).await;
    barrier.wait().await;
    held.gather().await;
    held.end().await;

    let live = queue.find(id).unwrap();
    while live.task().state == State::Started {
        ends.changed().await;
    }
    let names: BTreeSet<String> =
        queue.items(&live).await.unwrap().into_iter().map(|item| item.name).collect();
    let expected = ["a", "a1", "a2", "a3", "b", "b1", "b2", "b3"].map(String::from);
    assert_eq!(names, BTreeSet::from(expected));
}
