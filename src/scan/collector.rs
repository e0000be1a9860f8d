//! Decides when contents that nothing names any more are collected: once after the start, and whenever images have
//! changed.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::base::Result;
use crate::base::ids::TaskId;
use crate::catalog::service::Catalog;
use crate::scan::work::Work;
use crate::tasks::queue::Queue;
use crate::tasks::task::TaskKind;

/// The shortest rest between two collections, and how many times as long as a collection it must be: collecting takes
/// only a small part of a processor, however large the catalog is and however often it changes.
const REST: (Duration, u32) = (Duration::from_secs(1), 20);
/// The rest after a collection that failed.
const AFTER_FAULT: Duration = Duration::from_mins(1);
/// How long a scan that does not end can delay the next collection.
const LONGEST_WAIT: Duration = Duration::from_mins(10);

/// The scans the queue knows.
struct Scans {
    /// The ids of all scans.
    known: Arc<HashSet<TaskId>>,
    /// The ids of the scans that have not ended.
    running: Vec<TaskId>,
    /// The registries that the running scans read.
    registries: BTreeSet<String>,
}

impl Scans {
    fn of(queue: &Queue) -> Self {
        let all = queue.of_kind(TaskKind::Rescan);
        let running: Vec<_> = all.iter().filter(|live| live.is_running()).collect();
        // All items that a scan adds are about the registries it was made for.
        let works = running.iter().flat_map(|live| live.first_items());
        let registries =
            works.filter_map(|item| Some(Work::of(&item.work).ok()?.registry().to_owned())).collect();
        let running = running.iter().map(|live| live.id()).collect();
        Self { known: Arc::new(all.iter().map(|live| live.id()).collect()), running, registries }
    }

    /// Waits until one of the running scans ends.
    async fn one_ends(&self, queue: &Queue) {
        let mut ends = queue.ends();
        while self.running.iter().all(|id| queue.find(*id).is_some_and(|live| live.is_running())) {
            ends.changed().await;
        }
    }
}

/// Collects again and again until the server stops.
pub(crate) async fn collect(catalog: Catalog, queue: Queue, stop: CancellationToken) {
    let work = async {
        let (mut changes, (shortest, times)) = (catalog.changes(), REST);
        let mut rest = shortest;
        loop {
            tokio::time::sleep(rest).await;
            let (begun, scans) = (Instant::now(), Scans::of(&queue));
            let looked = look(&catalog, &queue, &scans).await;
            rest = (begun.elapsed() * times).max(shortest);
            match looked {
                Err(error) => {
                    tracing::warn!(
                        ?error,
                        "contents that nothing names could not be removed; it is tried again"
                    );
                    rest = rest.max(AFTER_FAULT);
                }
                Ok(is_cut) if is_cut => {}
                Ok(_) if scans.running.is_empty() => changes.changed().await,
                Ok(_) => {
                    let _ = tokio::time::timeout(LONGEST_WAIT, scans.one_ends(&queue)).await;
                }
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
}

/// Collects once; returns whether there may be more.
async fn look(catalog: &Catalog, queue: &Queue, scans: &Scans) -> Result<bool> {
    let (queue, known) = (queue.clone(), Arc::clone(&scans.known));
    // A new scan might read content that is about to be removed.
    let may_go_on = move || queue.of_kind(TaskKind::Rescan).iter().all(|live| known.contains(&live.id()));
    let collected = catalog.collect(scans.registries.clone(), may_go_on).await?;
    let records = collected.records;
    if records > 0 {
        tracing::info!(records, "contents that no image has any more were removed");
    } else if !collected.is_cut {
        tracing::debug!("all contents are some image's");
    }
    Ok(collected.is_cut)
}
