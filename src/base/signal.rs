//! A signal that something has changed. Several changes between two waits count as one.

use tokio::sync::watch;

/// Something that changes. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Signal(watch::Sender<()>);

/// A follower of a `Signal`.
#[derive(Debug)]
pub struct Follower(watch::Receiver<()>);

impl Signal {
    /// Tells all followers.
    pub(crate) fn raise(&self) {
        self.0.send_replace(());
    }

    /// Creates a follower that is told of changes from now on.
    pub(crate) fn follow(&self) -> Follower {
        Follower(self.0.subscribe())
    }
}

impl Follower {
    /// Waits for a change, unless there was one since the last wait.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            // No sender is left, so there will be no more changes.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Signal;

    #[tokio::test]
    async fn many_changes_are_one() {
        let signal = Signal::default();
        let mut follower = signal.follow();
        signal.raise();
        signal.clone().raise();
        follower.changed().await;
        let mut waiting = Box::pin(follower.changed());
        assert!(futures_util::poll!(&mut waiting).is_pending());
        signal.raise();
        waiting.await;
    }
}
