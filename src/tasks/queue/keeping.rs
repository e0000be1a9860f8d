//! What a task does while the disk can't keep what comes of it.

use std::time::{Duration, Instant};

use crate::base::Error;
use crate::base::clock::Clock;
use crate::store::Store;
use crate::tasks::live::Live;
use crate::tasks::task::{Item, ItemState, Progress};

/// How often an item is begun before it is given up.
pub(super) const MAX_ATTEMPTS: u32 = 20;
/// How long a task waits for the disk before it ends with that reason.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often it looks whether the disk can again.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// Since when nothing that comes of a task can be kept.
#[derive(Default)]
pub(super) struct Unkept {
    since: Option<Instant>,
}

impl Unkept {
    /// Whether what comes of the task can be kept. Where it could not for too long, the open items fail with the reason.
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

/// Has an item done again once its result can be kept, where the disk was the reason that it was not; false after too many
/// tries.
pub(super) fn put_back(live: &Live, number: u32, error: &Error) -> bool {
    let Some(item) = live.item(number) else { return false };
    // It was kept after all, or somebody else has said what came of it.
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
