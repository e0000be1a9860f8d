//! The tasks that have ended, and when the server forgets them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;

use crate::base::Result;
use crate::base::ids::TaskId;
use crate::store::table::{Reader, Writer};
use crate::tasks::queue::{ITEMS, Queue, TASKS};

/// How long a caller can still ask about a task that has ended (Backend.AI's `MAX_BGTASK_ARCHIVE_PERIOD`).
const ARCHIVE: SignedDuration = SignedDuration::from_hours(24);
/// The interval at which old tasks are removed.
const ARCHIVE_SWEEP: Duration = Duration::from_mins(10);
/// Most ended tasks kept within the 24 hours, and most bytes that they and their items may take, so that a script in
/// a loop can't fill the disk.
const MAX_ENDED: usize = 2_000;
const MAX_BYTES: usize = 32 << 20;
/// How many items one transaction removes. A larger one would make other writers wait too long.
const BATCH: usize = 1_000;

impl Queue {
    pub(in crate::tasks) async fn sweep_archive(&self) {
        loop {
            if let Err(error) = self.forget_old().await {
                tracing::warn!(?error, "old tasks could not be removed");
            }
            tokio::select! {
                () = tokio::time::sleep(ARCHIVE_SWEEP) => {}
                () = self.shared.shutdown.cancelled() => return,
            }
        }
    }

    /// Removes the tasks that ended more than 24 hours ago, once the time of day can be trusted, and the oldest tasks
    /// if there are too many or they are too large.
    pub(crate) async fn forget_old(&self) -> Result<()> {
        self.forget_beyond(MAX_BYTES).await
    }

    pub(in crate::tasks::queue) async fn forget_beyond(&self, bytes: usize) -> Result<()> {
        let oldest = self.shared.clock.calendar().map(|today| today - ARCHIVE);
        let sizes = self.shared.store.read(sizes).await?;
        let mut taken: usize = 0;
        let mut old = Vec::new();
        let ended =
            self.list(0, usize::MAX).into_iter().filter_map(|live| Some((live.id(), live.ended_at()?)));
        for (place, (id, ended_at)) in ended.enumerate() {
            taken += sizes.get(&id).copied().unwrap_or_default();
            if place >= MAX_ENDED || taken > bytes || oldest.is_some_and(|oldest| ended_at < oldest) {
                old.push(id);
            }
        }
        for id in old {
            while !self.forget_some(id).await? {}
        }
        Ok(())
    }

    /// Removes some of a task's items. With the last of them it removes the task, and returns true.
    async fn forget_some(&self, id: TaskId) -> Result<bool> {
        let shared = Arc::clone(&self.shared);
        let forget = move |w: &mut Writer| {
            let keys = w.some_keys(&ITEMS, id.as_bytes(), BATCH)?;
            for key in &keys {
                w.remove(&ITEMS, key)?;
            }
            let is_done = keys.len() < BATCH;
            if is_done {
                w.remove(&TASKS, id.as_bytes())?;
                w.on_commit(move || {
                    shared.tasks.write().remove(id);
                });
            }
            Ok(is_done)
        };
        self.shared.store.write(forget).await
    }
}

/// The size of each task with its items, in bytes.
fn sizes(reader: &Reader) -> Result<HashMap<TaskId, usize>> {
    let mut sizes: HashMap<TaskId, usize> = HashMap::new();
    let mut add = |key: &[u8], size: usize| {
        if let Some(id) = key.first_chunk() {
            *sizes.entry(TaskId::from_bytes(*id)).or_default() += key.len() + size;
        }
    };
    reader.scan_keys(&TASKS, [], &mut add)?;
    reader.scan_keys(&ITEMS, [], &mut add)?;
    Ok(sizes)
}
