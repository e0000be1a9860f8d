//! Pulls, which go on whether there is a link or not.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::engine::Engine;
use crate::engine::fault::Fault;
use crate::engine::pull::{Progress, Pull, Pulled};
use crate::wire::MAX_AT_ONCE;

/// How long after a link came up a pull goes on that the manager has not asked about on it: its task was cancelled
/// while we were away. A manager that was restarted asks within seconds.
pub const UNASKED: Duration = Duration::from_mins(2);

/// What is known of a pull.
#[derive(Debug, Clone, Default)]
pub struct News {
    /// How far it is.
    pub progress: Option<Progress>,
    /// How it ended.
    pub end: Option<Result<Pulled, Fault>>,
}

struct Entry {
    news: watch::Receiver<News>,
    stop: CancellationToken,
    /// The last link on which it was asked about.
    asked_on: u64,
}

/// The pulls of an agent.
pub struct Pulls {
    engine: Arc<dyn Engine>,
    entries: Mutex<HashMap<String, Entry>>,
    tracker: TaskTracker,
    shutdown: CancellationToken,
}

impl Pulls {
    /// None yet. They stop when `shutdown` is cancelled.
    pub fn new(engine: Arc<dyn Engine>, tracker: TaskTracker, shutdown: CancellationToken) -> Self {
        Self { engine, entries: Mutex::default(), tracker, shutdown }
    }

    /// Finds the pull of this id that runs or has ended untold, or begins it, as `what` says then. Nothing if there are
    /// too many.
    pub fn ask(
        &self,
        id: &str,
        link: u64,
        what: impl FnOnce() -> Result<Pull, Fault>,
    ) -> Option<watch::Receiver<News>> {
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.get_mut(id) {
            entry.asked_on = link;
            return Some(entry.news.clone());
        }
        if entries.len() >= MAX_AT_ONCE {
            entries.retain(|_, entry| entry.news.borrow().end.is_none());
        }
        if entries.len() >= MAX_AT_ONCE {
            return None;
        }
        let (sender, news) = watch::channel(News::default());
        let stop = self.shutdown.child_token();
        entries.insert(id.into(), Entry { news: news.clone(), stop: stop.clone(), asked_on: link });
        let what = match what() {
            Ok(what) => what,
            Err(fault) => {
                sender.send_replace(News { progress: None, end: Some(Err(fault)) });
                return Some(news);
            }
        };
        let (engine, name) = (Arc::clone(&self.engine), what.name());
        self.tracker.spawn(async move {
            tracing::info!(image = name, "pulling");
            let report = |progress| sender.send_modify(|news| news.progress = Some(progress));
            let end = engine.pull(&what, &report, &stop).await;
            match &end {
                Ok(pulled) => tracing::info!(image = name, fetched = pulled.fetched, "pulled"),
                Err(fault) => tracing::warn!(image = name, %fault, "not pulled"),
            }
            sender.send_modify(|news| news.end = Some(end));
        });
        Some(news)
    }

    /// Gives a pull up.
    pub fn stop(&self, id: &str) {
        if let Some(entry) = self.entries.lock().get(id) {
            entry.stop.cancel();
        }
    }

    /// Forgets a pull whose end was told.
    pub fn forget(&self, id: &str) {
        self.entries.lock().retain(|known, entry| known != id || entry.news.borrow().end.is_none());
    }

    /// Gives up what the manager has not asked about on this link.
    pub fn stop_unasked(&self, link: u64) {
        for (id, entry) in self.entries.lock().iter().filter(|(_, entry)| entry.asked_on < link) {
            tracing::info!(pull = id, "giving up a pull that the manager does not ask about any more");
            entry.stop.cancel();
        }
    }
}
