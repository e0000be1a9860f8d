//! The feed that followers of a task read: numbered events, the last few of them kept for replay. Once the task has
//! ended, only its last event is kept.
//!
//! A follower holds a position in the feed and nothing else, so a slow one costs no memory: when its next event is no
//! longer kept, it gets the latest event instead.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::tasks::task::{Progress, State};

/// How many events are kept for followers that reconnect (`Last-Event-ID`).
pub(in crate::tasks) const KEPT: usize = 256;

/// In how many dialects an event can be sent.
pub(crate) const DIALECTS: usize = 2;

/// An event of a task.
#[derive(Debug)]
pub(crate) struct Event {
    /// The event's number; later events have higher numbers, even after a restart.
    pub(crate) number: u64,
    /// The task's state after it.
    pub(crate) state: State,
    /// The task's progress after it.
    pub(crate) progress: Progress,
    /// What happened, for people.
    pub(crate) message: String,
    told: [OnceLock<Bytes>; DIALECTS],
}

impl Event {
    /// Returns the event in this dialect. The first follower that needs it has it written; all others share it.
    pub(crate) fn told(&self, dialect: usize, write: impl FnOnce() -> String) -> Bytes {
        match self.told.get(dialect) {
            Some(told) => told.get_or_init(|| write().into()).clone(),
            None => write().into(),
        }
    }
}

/// The events of one task.
pub(crate) struct Feed {
    kept: Mutex<VecDeque<Arc<Event>>>,
    latest: watch::Sender<u64>,
}

impl Feed {
    /// A feed whose first event has the number after `start`.
    pub(crate) fn new(start: u64) -> Self {
        Self { kept: Mutex::new(VecDeque::new()), latest: watch::Sender::new(start) }
    }

    /// Publishes an event to all followers.
    pub(crate) fn publish(&self, state: State, progress: Progress, message: String) {
        let mut kept = self.kept.lock();
        let number = *self.latest.borrow() + 1;
        if state != State::Started {
            // The last event: no follower needs an earlier one, and there are many ended tasks.
            *kept = VecDeque::with_capacity(1);
        } else if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(Arc::new(Event { number, state, progress, message, told: Default::default() }));
        self.latest.send_replace(number);
    }

    /// Follows the feed: from after the event `after` if that is still kept, otherwise from the latest event on.
    pub(crate) fn follow(&self, after: Option<u64>) -> Follower<'_> {
        let latest = self.latest.subscribe();
        let last = *latest.borrow();
        let resumable = after.filter(|&after| after <= last && self.keeps(after + 1));
        Follower { feed: self, latest, after: resumable.unwrap_or(last.saturating_sub(1)) }
    }

    /// How many events are kept.
    #[cfg(test)]
    pub(in crate::tasks) fn kept(&self) -> usize {
        self.kept.lock().len()
    }

    fn keeps(&self, number: u64) -> bool {
        let kept = self.kept.lock();
        number > *self.latest.borrow() || kept.front().is_some_and(|oldest| oldest.number <= number)
    }

    fn next_after(&self, after: u64) -> Option<Arc<Event>> {
        let kept = self.kept.lock();
        let oldest = kept.front()?.number;
        if after + 1 < oldest {
            return kept.back().cloned();
        }
        usize::try_from(after + 1 - oldest).ok().and_then(|place| kept.get(place)).cloned()
    }
}

/// A position in a feed.
pub(crate) struct Follower<'a> {
    feed: &'a Feed,
    latest: watch::Receiver<u64>,
    after: u64,
}

impl Follower<'_> {
    /// Returns the next event, and waits for it if necessary.
    pub(crate) async fn next(&mut self) -> Arc<Event> {
        loop {
            self.latest.borrow_and_update();
            if let Some(event) = self.feed.next_after(self.after) {
                self.after = event.number;
                return event;
            }
            // The feed owns the sender and outlives this follower, so the wait ends only with a new event.
            let _ = self.latest.changed().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Feed, KEPT};
    use crate::tasks::task::{Progress, State};

    fn say(feed: &Feed, count: usize) {
        for n in 0..count {
            feed.publish(State::Started, Progress::default(), n.to_string());
        }
    }

    #[tokio::test]
    async fn a_new_follower_starts_at_the_latest_event() {
        let feed = Feed::new(100);
        say(&feed, 3);
        assert_eq!(feed.follow(None).next().await.number, 103);
    }

    #[tokio::test]
    async fn a_returning_follower_gets_what_it_missed() {
        let feed = Feed::new(0);
        say(&feed, 5);
        let mut follower = feed.follow(Some(3));
        assert_eq!(follower.next().await.number, 4);
        assert_eq!(follower.next().await.number, 5);
    }

    #[tokio::test]
    async fn a_follower_that_is_too_late_gets_the_latest_event_only() {
        let feed = Feed::new(0);
        say(&feed, 1);
        let mut slow = feed.follow(None);
        assert_eq!(slow.next().await.number, 1);
        say(&feed, KEPT + 50);
        assert_eq!(slow.next().await.number, KEPT as u64 + 51);
        for stale in [0, 10, 9_999_999] {
            assert_eq!(feed.follow(Some(stale)).next().await.number, KEPT as u64 + 51);
        }
    }

    #[tokio::test]
    async fn a_waiting_follower_wakes_with_the_next_event() {
        let feed = Feed::new(0);
        say(&feed, 1);
        let mut follower = feed.follow(None);
        follower.next().await;
        let (event, ()) = tokio::join!(follower.next(), async { say(&feed, 1) });
        assert_eq!(event.number, 2);
    }
}
