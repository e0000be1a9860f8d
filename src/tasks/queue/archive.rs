//! The tasks that have ended, and when they are forgotten.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;

use crate::base::Result;
use crate::base::ids::TaskId;
use crate::tasks::queue::{ITEMS, Queue, TASKS};
use crate::tasks::task::Task;

/// How long a task that has ended can still be asked about (Backend.AI's `MAX_BGTASK_ARCHIVE_PERIOD`).
const ARCHIVE: SignedDuration = SignedDuration::from_hours(24);
/// How often old tasks are looked for.
const ARCHIVE_SWEEP: Duration = Duration::from_mins(10);
/// How many ended tasks are kept within the 24 hours, so that a script in a loop can't fill the disk.
const MAX_ENDED: usize = 2_000;

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

    /// Removes the tasks that ended more than 24 hours ago, and the oldest of too many.
    pub async fn forget_old(&self) -> Result<()> {
        let oldest = self.shared.clock.now() - ARCHIVE;
        let ended: Vec<Task> =
            self.list().iter().map(|live| live.task()).filter(|t| t.ended_at.is_some()).collect();
        let old: Vec<TaskId> = ended
            .iter()
            .enumerate()
            .filter(|(place, task)| *place >= MAX_ENDED || task.ended_at.is_some_and(|at| at < oldest))
            .map(|(_, task)| task.id)
            .collect();
        if old.is_empty() {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        self.shared
            .store
            .write(move |w| {
                for id in &old {
                    w.remove(&TASKS, id.as_bytes())?;
                    for key in w.keys(&ITEMS, id.as_bytes())? {
                        w.remove(&ITEMS, key)?;
                    }
                }
                w.on_commit(move || shared.tasks.write().retain(|id, _| !old.contains(id)));
                Ok(())
            })
            .await
    }
}
