//! Says that something has changed, to whoever follows. Many changes between two looks are one.

use tokio::sync::watch;

/// Something that changes. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Signal(watch::Sender<()>);

/// One who is told.
#[derive(Debug)]
pub struct Follower(watch::Receiver<()>);

impl Signal {
    /// Tells all followers.
    pub(crate) fn raise(&self) {
        self.0.send_replace(());
    }

    /// Follows it from now on.
    pub(crate) fn follow(&self) -> Follower {
        Follower(self.0.subscribe())
    }
}

impl Follower {
    /// Waits for a change, if there was none since the last time.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            // Whoever could change it is gone.
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
