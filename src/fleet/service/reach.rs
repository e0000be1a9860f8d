//! The connection to an agent's engine, and what to wait for if the agent is away.

use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::engine::export::SiteCache;
use crate::fleet::agent::{AgentRecord, Status};
use crate::fleet::service::Fleet;

/// An agent that can't be reached now.
#[derive(Debug, Clone)]
pub(crate) struct Away {
    /// Why it can't be reached.
    pub(crate) reason: String,
    /// When that began, as far as it is known.
    pub(crate) since: Instant,
    /// Cancelled when it can be reached again, or was removed.
    pub(crate) back: CancellationToken,
}

impl Fleet {
    /// Returns the engine of an agent; for transfers.
    ///
    /// # Errors
    /// [`Away`] if it can't be reached now, with what to wait for.
    pub(crate) fn reach(&self, id: &str) -> Result<Arc<dyn Engine>, Away> {
        let index = self.index.read();
        let Some(entry) = index.entry(id) else {
            let back = CancellationToken::new();
            back.cancel();
            return Err(Away { reason: "it was removed".into(), since: self.clock.steady(), back });
        };
        entry.engine.clone().ok_or_else(|| {
            let now = self.clock.steady();
            let (reason, since) = match (&entry.agent.status, &entry.agent.away) {
                (Status::Lost { reason, .. }, _) => (reason.clone(), entry.lost_at),
                // The link broke a moment ago; otherwise the agent would be lost.
                (Status::Alive, Some(reason)) => (reason.clone(), now),
                (Status::Alive, None) => ("it is on its way".into(), now),
            };
            Away { reason, since, back: entry.back.clone() }
        })
    }

    /// Returns the caches that can be asked now, each with its agent.
    pub(crate) fn caches(&self) -> Vec<(AgentRecord, Arc<dyn SiteCache>)> {
        let index = self.index.read();
        let entries = index.caches.iter().filter_map(|number| index.agents.get(*number)?.as_ref());
        let there = entries
            .filter_map(|entry| Some((entry.agent.record.clone(), entry.engine.as_ref()?.site_cache()?)));
        there.collect()
    }
}
