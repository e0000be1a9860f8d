//! What a task does while the disk can't store its results.

use std::time::{Duration, Instant};

use crate::base::Error;
use crate::base::clock::Clock;
use crate::store::Store;
use crate::tasks::live::Live;
use crate::tasks::task::{Item, ItemState, Progress};

/// How many times an item is begun before it fails for good.
pub(super) const MAX_ATTEMPTS: u32 = 20;
/// How long a task waits for the disk before it ends with that as the reason.
const PATIENCE: Duration = Duration::from_mins(1);
/// The interval at which it checks whether the disk works again.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// Since when a task's results can't be stored.
#[derive(Default)]
pub(super) struct Unkept {
    since: Option<Instant>,
}

impl Unkept {
    /// Whether the task's results can be stored. If they could not for too long, the open items fail with the reason.
    pub(super) fn look(&mut self, store: &Store, live: &Live, clock: &Clock) -> bool {
        let Err(why) = store.check_writable() else {
            self.since = None;
            return true;
        };
        let Some(since) = self.since else {
            live.say(format!("waiting: {why}"));
            self.since = Some(clock.steady());
            return false;
        };
        if clock.steady().saturating_duration_since(since) < PATIENCE {
            return false;
        }
        live.give_up_waiting(&why.to_string(), clock.now());
        true
    }
}

/// Has an item done again once its result can be stored, if the disk was the reason why it could not. Returns false
/// after too many tries.
pub(super) fn put_back(live: &Live, number: u32, error: &Error) -> bool {
    let Some(item) = live.item(number) else { return false };
    // The item was stored after all, or its end was set elsewhere.
    if item.state.is_final() {
        return true;
    }
    if !matches!(error, Error::Unavailable(_)) || item.attempts >= MAX_ATTEMPTS {
        return false;
    }
    live.say(format!("waiting: {error}"));
    live.change_item(Item {
        state: ItemState::Waiting,
        progress: Progress::default(),
        reason: Some(error.to_string()),
        ..item
    });
    true
}
