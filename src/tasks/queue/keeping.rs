//! What a task does while the disk can't keep what comes of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::clock::Clock;
use crate::base::{Error, Result};
use crate::store::Store;
use crate::tasks::live::Live;
use crate::tasks::queue::{ITEMS, MAX_ATTEMPTS, Queue, TASKS, item_key};
use crate::tasks::task::{Item, ItemState, Progress, Task};

/// How long a task waits for the disk before it ends with that reason.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often it looks whether the disk can again.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// What is written of a task that has ended.
pub(super) struct End {
    pub(super) task: Task,
    /// The items that others stand for.
    pub(super) gone: Vec<u32>,
    pub(super) items: Vec<Item>,
}

impl Queue {
    /// Keeps the end of a task. If the disk can't, who waits for the end is told all the same, and the file when it can.
    pub(super) async fn keep_end_at_last(&self, live: &Arc<Live>, end: &Arc<End>) -> Result<()> {
        match self.keep_end(live, end).await {
            Err(Error::Unavailable(why)) => {
                tracing::error!(task = %live.id(), why, "the end of a task can't be kept yet");
                live.end(end.task.clone());
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

/// Since when nothing that comes of a task can be kept.
#[derive(Default)]
pub(super) struct Unkept {
    since: Option<Instant>,
}

impl Unkept {
    /// Whether what comes of the task can be kept. Where it could not for too long, the open items fail with the reason.
    pub(super) fn look(&mut self, store: &Store, live: &Live, clock: &Clock) -> bool {
        let Err(why) = store.check_writable() else {
            self.since = None;
            return true;
        };
        let Some(since) = self.since else {
            live.say(format!("waiting: {why}"));
            self.since = Some(clock.steady());
            return false;
        };
        if clock.steady().saturating_duration_since(since) < PATIENCE {
            return false;
        }
        live.fail_waiting(&why.to_string(), clock.now());
        true
    }
}

/// Has an item done again once its result can be kept, where the disk was the reason that it was not; false after too many
/// tries.
pub(super) fn put_back(live: &Live, number: u32, error: &Error) -> bool {
    let Some(item) = live.item(number) else { return false };
    // It was kept after all, or somebody else has said what came of it.
    if item.state.is_final() {
        return true;
    }
    if !matches!(error, Error::Unavailable(_)) || item.attempts >= MAX_ATTEMPTS {
        return false;
    }
    live.say(format!("waiting: {error}"));
    live.change_item(Item {
        state: ItemState::Waiting,
        progress: Progress::default(),
        reason: Some(error.to_string()),
        ..item
    });
    true
}
