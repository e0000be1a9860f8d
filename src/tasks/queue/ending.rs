//! How a task ends: what is written about it then, and which of its items are worth keeping.

use std::sync::Arc;

use crate::base::{Error, Result};
use crate::tasks::items::Items;
use crate::tasks::live::Live;
use crate::tasks::queue::keeping::LOOK;
use crate::tasks::queue::{ITEMS, Queue, TASKS, item_key};
use crate::tasks::task::{Item, ItemState, Ledger, State, Task};
use crate::tasks::worker::Worker;

/// What is written when a task has ended.
struct End {
    task: Task,
    /// The items that are removed because another one stands for them.
    gone: Vec<u32>,
    /// The items that end with the task, those whose end the store does not know, and the one that stands for others.
    items: Vec<Item>,
}

impl Queue {
    /// Ends a task none of whose items is running: open items become cancelled.
    pub(super) async fn end(&self, live: &Arc<Live>, worker: &dyn Worker) -> Result<()> {
        debug_assert!(
            live.with_items(Items::agree),
            "the sums and the index of {} are not their items'",
            live.id()
        );
        let now = self.shared.clock.stamp();
        let state = if live.are_items_final() { worker.verdict(&live.tally()) } else { State::Cancelled };
        let mut items = live.unkept();
        for item in items.iter_mut().filter(|item| !item.state.is_final()) {
            (item.state, item.ended_at) = (ItemState::Cancelled, Some(now));
        }
        let (gone, standing) = live.with_items(|items| folded(items, worker));
        items.extend(standing);
        let mut task = Task {
            state,
            ended_at: Some(now),
            ledger: Arc::unwrap_or_clone(live.ledger()),
            unfolded: gone.is_empty(),
            ..live.task()
        };
        task.message = closing_words(&task);
        tracing::info!(task = %task.id, state = task.state.as_str(), message = task.message, "a task ended");
        self.keep_end_at_last(live, &Arc::new(End { task, gone, items })).await
    }

    /// Stores the end of a task. If the disk can't take it, those who wait for the end still learn of it, and the
    /// store gets it as soon as the disk can.
    async fn keep_end_at_last(&self, live: &Arc<Live>, end: &Arc<End>) -> Result<()> {
        match self.keep_end(live, end).await {
            Err(Error::Unavailable(why)) => {
                tracing::error!(task = %live.id(), why, "the end of a task can't be kept yet");
                live.end_unkept(end.task.clone(), end.items.iter().cloned());
                self.shared.ends.raise();
            }
            kept => return kept,
        }
        while tokio::time::timeout(LOOK, self.shared.shutdown.cancelled()).await.is_err() {
            match self.keep_end(live, end).await {
                Err(Error::Unavailable(_)) => {}
                kept => return kept,
            }
        }
        Ok(())
    }

    async fn keep_end(&self, live: &Arc<Live>, end: &Arc<End>) -> Result<()> {
        let (live, end, ends) = (Arc::clone(live), Arc::clone(end), self.shared.ends.clone());
        self.shared
            .store
            .write(move |w| {
                for number in &end.gone {
                    w.remove(&ITEMS, item_key(end.task.id, *number))?;
                }
                for item in &end.items {
                    w.put(&ITEMS, item_key(end.task.id, item.number), item)?;
                }
                w.put(&TASKS, end.task.id.as_bytes(), &end.task)?;
                w.on_commit(move || {
                    live.end(end.task.clone());
                    ends.raise();
                });
                Ok(())
            })
            .await
    }
}

/// Picks one item to stand for all quiet items. Returns the numbers of the others, and that one. A rescan of a
/// thousand repositories of which none has changed should not leave a thousand records. This goes through all items,
/// once in the life of a task.
fn folded(items: &Items, worker: &dyn Worker) -> (Vec<u32>, Option<Item>) {
    let is_quiet = |item: &&Item| item.is_quiet() && worker.folded_as(item).is_some();
    let quiet: Vec<&Item> = items.iter().filter(is_quiet).collect();
    let [first, _, ..] = quiet[..] else { return (Vec::new(), None) };
    let unchanged = quiet.iter().map(|item| item.ledger.unchanged).sum();
    let standing = Item {
        name: format!("{} {} as they were", quiet.len(), worker.folded_as(first).unwrap_or("items")),
        started_at: quiet.iter().filter_map(|item| item.started_at).min(),
        ended_at: quiet.iter().filter_map(|item| item.ended_at).max(),
        progress: quiet.iter().map(|item| item.progress).sum(),
        ledger: Ledger { unchanged, ..Ledger::default() },
        ..first.clone()
    };
    (quiet.iter().skip(1).map(|item| item.number).collect(), Some(standing))
}

fn closing_words(task: &Task) -> String {
    let cause =
        task.ledger.failed.named.first().map(|remark| format!("{}: {}", remark.reference, remark.reason));
    let summary = task.ledger.summary(task.kind);
    match (task.state, cause) {
        (State::Cancelled, _) => format!("cancelled: {summary}"),
        (State::Failed, Some(cause)) => cause,
        (_, Some(cause)) => format!("{summary}; {cause}"),
        (_, None) => summary,
    }
}
