//! The way to an agent, and what to wait for if there is none now.

use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::fleet::agent::Status;
use crate::fleet::service::Fleet;

/// An agent that can't be reached now.
#[derive(Debug, Clone)]
pub(crate) struct Away {
    /// Why.
    pub(crate) reason: String,
    /// Since when, as far as that is known.
    pub(crate) since: Instant,
    /// Cancelled when it can be reached again, or was removed.
    pub(crate) back: CancellationToken,
}

impl Fleet {
    /// The way to an agent's engine; for transfers.
    ///
    /// # Errors
    /// What to wait for if there is none now.
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
                // Its link broke a moment ago, else it were lost.
                (Status::Alive, Some(reason)) => (reason.clone(), now),
                (Status::Alive, None) => ("it is on its way".into(), now),
            };
            Away { reason, since, back: entry.back.clone() }
        })
    }
}
