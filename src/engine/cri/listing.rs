//! Listings of what an engine holds, and events from the differences between them.
//!
//! CRI has no events for images, so the engine is read again and again, and the listings are compared.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt as _};
use tokio::time::Instant;

use crate::base::digest::Digest;
use crate::engine::{Engine as _, cri::Cri, fault::Fault, image::Held};

/// The longest wait between two reads, however long a read takes.
const LONGEST: Duration = Duration::from_mins(1);
/// How many times longer than a read the wait for the next one is, so that reads do not keep a busy engine busy.
const REST: u32 = 20;

/// The names of each image.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing(BTreeMap<Digest, BTreeSet<String>>);

impl Listing {
    pub(crate) fn new(held: Vec<Held>) -> Self {
        Self(held.into_iter().map(|held| (held.digest, held.names.into_iter().collect())).collect())
    }
}

/// Reads the engine at intervals and sends an event after each change, until a read fails.
pub(crate) fn follow(engine: Cri, seen: Listing, every: Duration) -> BoxStream<'static, Result<(), Fault>> {
    let looks = stream::unfold(Some((engine, seen, every)), move |state| async move {
        let (engine, seen, wait) = state?;
        tokio::time::sleep(wait).await;
        let began = Instant::now();
        match engine.images().await {
            Ok(held) => {
                let wait = (began.elapsed() * REST).clamp(every, LONGEST.max(every));
                let now = Listing::new(held);
                let event = (now != seen).then_some(Ok(()));
                Some((event, Some((engine, now, wait))))
            }
            Err(fault) => Some((Some(Err(fault)), None)),
        }
    });
    looks.flat_map(stream::iter).boxed()
}
