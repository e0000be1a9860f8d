//! Pulls, which go on whether or not there is a link.
//!
//! The manager that asked for a pull is told how it ended. If it asks later, because a link broke before that or
//! because it wants the image anew, it is told the state at that time: much may have happened to the image meanwhile.

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

/// How long after a link came up a pull goes on if the manager has not asked about it on that link. Such a pull's
/// task was cancelled while the agent was away. A manager that was restarted asks within seconds.
pub(crate) const UNASKED: Duration = Duration::from_mins(2);

/// What is known about a pull.
#[derive(Debug, Clone, Default)]
pub(crate) struct PullState {
    /// Its progress.
    pub(crate) progress: Option<Progress>,
    /// How it ended.
    pub(crate) end: Option<Result<Pulled, Fault>>,
}

struct Entry {
    state: watch::Receiver<PullState>,
    stop: CancellationToken,
    /// The number of the last link on which the manager asked about it.
    asked_on: u64,
}

/// The pulls of an agent.
pub(crate) struct Pulls {
    engine: Arc<dyn Engine>,
    entries: Mutex<HashMap<String, Entry>>,
    tracker: TaskTracker,
    shutdown: CancellationToken,
}

impl Pulls {
    /// Starts without pulls. All pulls stop when `shutdown` is cancelled.
    pub(crate) fn new(engine: Arc<dyn Engine>, tracker: TaskTracker, shutdown: CancellationToken) -> Self {
        Self { engine, entries: Mutex::default(), tracker, shutdown }
    }

    /// Finds the running pull with this id, or begins it with what `what` returns. Returns `None` if there are too
    /// many. A pull that was given up or failed is not found: a manager that asks now wants the image. If a pull
    /// ended well and the manager was not told, its end is the result, provided the engine still shows the image.
    pub(crate) fn ask(
        &self,
        id: &str,
        link: u64,
        what: impl FnOnce() -> Result<Pull, Fault>,
    ) -> Option<watch::Receiver<PullState>> {
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.get_mut(id).filter(|entry| entry.is_under_way()) {
            entry.asked_on = link;
            return Some(entry.state.clone());
        }
        let ended = entries.remove(id).filter(|entry| !entry.stop.is_cancelled());
        let ended = ended.map(|entry| entry.state.borrow().clone());
        if entries.len() >= MAX_AT_ONCE {
            entries.retain(|_, entry| entry.state.borrow().end.is_none());
        }
        if entries.len() >= MAX_AT_ONCE {
            return None;
        }
        let (sender, state) = watch::channel(PullState::default());
        let stop = self.shutdown.child_token();
        entries.insert(id.into(), Entry { state: state.clone(), stop: stop.clone(), asked_on: link });
        let what = match what() {
            Ok(what) => what,
            Err(fault) => {
                sender.send_replace(PullState { progress: None, end: Some(Err(fault)) });
                return Some(state);
            }
        };
        let (engine, name) = (Arc::clone(&self.engine), what.name());
        self.tracker.spawn(async move {
            if let Some(state) = still_so(engine.as_ref(), &what, ended).await {
                tracing::info!(image = name, "was pulled before, and is still there");
                sender.send_replace(state);
                return;
            }
            tracing::info!(image = name, "pulling");
            let report = |progress| sender.send_modify(|state| state.progress = Some(progress));
            let end = engine.pull(&what, &report, &stop).await;
            match &end {
                Ok(pulled) => tracing::info!(image = name, fetched = pulled.fetched, "pulled"),
                Err(fault) => tracing::warn!(image = name, %fault, "not pulled"),
            }
            sender.send_modify(|state| state.end = Some(end));
        });
        Some(state)
    }

    /// Gives a pull up.
    pub(crate) fn stop(&self, id: &str) {
        if let Some(entry) = self.entries.lock().get(id) {
            entry.stop.cancel();
        }
    }

    /// Forgets the pull that `state` belongs to, whose end was told.
    pub(crate) fn forget(&self, id: &str, state: &watch::Receiver<PullState>) {
        self.entries.lock().retain(|known, entry| known != id || !entry.state.same_channel(state));
    }

    /// Gives up the pulls that the manager has not asked about on this link, and forgets how they ended: by the time
    /// the manager asks again that is out of date.
    pub(crate) fn stop_unasked(&self, link: u64) {
        self.entries.lock().retain(|id, entry| {
            let is_asked = entry.asked_on >= link;
            if !is_asked {
                tracing::info!(pull = id, "giving up a pull that the manager does not ask about any more");
                entry.stop.cancel();
            }
            is_asked
        });
    }
}

impl Entry {
    /// Whether the pull is still in progress.
    fn is_under_way(&self) -> bool {
        !self.stop.is_cancelled() && self.state.has_changed().is_ok() && self.state.borrow().end.is_none()
    }
}

/// Returns how a pull ended, if it ended well and the engine still shows its image.
async fn still_so(engine: &dyn Engine, what: &Pull, ended: Option<PullState>) -> Option<PullState> {
    let PullState { progress, end } = ended?;
    let before = end?.ok()?;
    let shown = engine.find(&what.canonical().ok()?).await.ok()?;
    let held = what.proven(shown).ok()?;
    Some(PullState { progress, end: Some(Ok(Pulled { held, ..before })) })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use super::Pulls;
    use crate::base::digest::Digest;
    use crate::engine::fake::{Fake, pull};
    use crate::engine::fault::{Class, Fault};
    use crate::engine::image::Held;
    use crate::engine::pull::{Pull, Pulled};

    struct Scene {
        pulls: Pulls,
        engine: Arc<Fake>,
    }

    impl Scene {
        fn set() -> Self {
            let engine = Arc::new(Fake::holding(&[]));
            let pulls = Pulls::new(engine.clone(), TaskTracker::new(), CancellationToken::new());
            Self { pulls, engine }
        }

        /// Asks on this link and waits for the end, which is not told because the link is cut.
        async fn end(&self, link: u64) -> Result<Pulled, Fault> {
            self.end_of(link, || Ok(pull("cr.io/a"))).await
        }

        async fn end_of(
            &self,
            link: u64,
            what: impl FnOnce() -> Result<Pull, Fault>,
        ) -> Result<Pulled, Fault> {
            let mut state = self.pulls.ask("p", link, what).expect("a place");
            let ended = state.wait_for(|state| state.end.is_some()).await.expect("an end");
            ended.end.clone().expect("an end")
        }

        fn begun(&self) -> usize {
            self.engine.pulls_begun.load(Ordering::SeqCst)
        }
    }

    #[tokio::test]
    async fn how_a_pull_ended_while_the_link_was_away_is_told_on_the_next_one() {
        let scene = Scene::set();
        scene.engine.pulls_end.add_permits(1);
        assert!(scene.end(1).await.unwrap().fetched);
        assert!(scene.end(2).await.unwrap().fetched);
        assert_eq!(scene.begun(), 1);
    }

    #[tokio::test]
    async fn what_was_removed_after_its_pull_ended_untold_is_pulled_again_and_not_called_loaded() {
        let scene = Scene::set();
        scene.engine.pulls_end.add_permits(1);
        scene.end(1).await.unwrap();
        scene.engine.holds.lock().clear();
        scene.engine.pulls_end.add_permits(1);
        let again = scene.end(2).await.unwrap();
        assert!(again.fetched && scene.begun() == 2);
        // Another image now has the name.
        *scene.engine.holds.lock() = vec![Held { digest: Digest::sha256_of(b"other"), ..again.held }];
        scene.engine.pulls_end.add_permits(1);
        scene.end(3).await.unwrap();
        assert_eq!(scene.begun(), 3);
    }

    #[tokio::test]
    async fn a_pull_that_failed_untold_answers_nobody_who_asks_later() {
        let scene = Scene::set();
        let why = || Err(Fault::new(Class::NotFound, "no such registry yet"));
        scene.end_of(1, why).await.unwrap_err();
        scene.engine.pulls_end.add_permits(1);
        assert!(scene.end(1).await.unwrap().fetched, "on the same link");
        scene.engine.holds.lock().clear();
        scene.end_of(2, why).await.unwrap_err();
        scene.engine.pulls_end.add_permits(1);
        assert!(scene.end(3).await.is_ok(), "and on the next");
    }

    #[tokio::test]
    async fn whoever_asks_for_what_nobody_asked_about_any_more_gets_a_pull_of_their_own() {
        let scene = Scene::set();
        // The pull ended well, and much may have happened to the image since.
        scene.engine.pulls_end.add_permits(1);
        scene.end(1).await.unwrap();
        scene.pulls.stop_unasked(2);
        scene.engine.pulls_end.add_permits(1);
        scene.end(2).await.unwrap();
        assert_eq!(scene.begun(), 2);

        // The pull was in progress and is given up, so its end does not answer a new request.
        scene.pulls.stop_unasked(3);
        let first = scene.pulls.ask("p", 3, || Ok(pull("cr.io/a"))).unwrap();
        scene.pulls.stop_unasked(4);
        scene.engine.pulls_end.add_permits(1);
        assert!(scene.end(4).await.is_ok());
        // The pull that was given up may still be ending; telling its end must not remove the new one.
        scene.pulls.forget("p", &first);
        assert!(scene.pulls.entries.lock().contains_key("p"));
        scene.pulls.stop("p");
        scene.engine.pulls_end.add_permits(1);
        assert!(scene.end(4).await.is_ok(), "whoever asks after a stop wants the image");
    }
}
