//! Listings of what an engine holds, and events from the differences between them.
//!
//! CRI has no events for images, so the engine is read again and again, and the listings are compared; of containers too,
//! since its events of these are the kubelet's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt as _};
use tokio::time::Instant;

use crate::base::digest::Digest;
use crate::engine::{Change, Engine as _, cri::Cri, fault::Fault};

/// The longest wait between two reads, however long a read takes.
const LONGEST: Duration = Duration::from_mins(1);
/// How many times longer than a read the wait for the next one is, so that reads do not keep a busy engine busy.
const REST: u32 = 20;

/// The names of each image, and the IDs of the containers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing {
    images: BTreeMap<Digest, BTreeSet<String>>,
    containers: BTreeSet<String>,
}

impl Listing {
    /// Reads the engine.
    pub(crate) async fn of(engine: &Cri) -> Result<Self, Fault> {
        let held = engine.images().await?;
        let containers = engine.containers().await?;
        Ok(Self {
            images: held.into_iter().map(|held| (held.digest, held.names.into_iter().collect())).collect(),
            containers: containers.into_iter().map(|container| container.id).collect(),
        })
    }

    /// What has changed since this listing.
    fn change(&self, now: &Self) -> Option<Change> {
        if self.images != now.images {
            return Some(Change::Images);
        }
        (self.containers != now.containers).then_some(Change::Containers)
    }
}

/// Reads the engine at intervals and sends an event after each change, until a read fails.
pub(crate) fn follow(
    engine: Cri,
    seen: Listing,
    every: Duration,
) -> BoxStream<'static, Result<Change, Fault>> {
    let looks = stream::unfold(Some((engine, seen, every)), move |state| async move {
        let (engine, seen, wait) = state?;
        tokio::time::sleep(wait).await;
        let began = Instant::now();
        match Listing::of(&engine).await {
            Ok(now) => {
                let wait = (began.elapsed() * REST).clamp(every, LONGEST.max(every));
                Some((seen.change(&now).map(Ok), Some((engine, now, wait))))
            }
            Err(fault) => Some((Some(Err(fault)), None)),
        }
    });
    looks.flat_map(stream::iter).boxed()
}
