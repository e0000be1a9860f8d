//! What a round remembers about the items of a task, so that the next round reads only what is new.

use std::collections::BTreeMap;

use crate::tasks::live::Live;
use crate::tasks::task::{Item, Page};
use crate::transfer::service::Attempt;

/// A task whose end is not yet noted. Each of its items is read twice: when it is new, and when it has ended.
#[derive(Default)]
pub(in crate::rules) struct Watched {
    /// How many of its items have been read.
    read: usize,
    /// The attempts of those read items whose end is not yet noted, by item number.
    pub(in crate::rules) open: BTreeMap<u32, Attempt>,
}

impl Watched {
    /// Reads the new items while the task runs. Returns the items that have ended since, each once and with its
    /// attempt.
    pub(in crate::rules) fn look(&mut self, live: &Live) -> Vec<(Item, Attempt)> {
        let items = live.items(Page { offset: self.read, ..Page::ALL }).unwrap_or_default();
        self.read += items.len();
        self.open.extend(items.iter().filter_map(|item| Some((item.number, Attempt::of(item)?))));
        let ended = live.ended_of(self.open.keys().copied());
        let with_attempt = |item: Item| {
            let attempt = self.open.remove(&item.number)?;
            Some((item, attempt))
        };
        ended.into_iter().filter_map(with_attempt).collect()
    }

    /// Returns the attempt of an item of a task that has ended; `None` if its end was noted before.
    pub(in crate::rules) fn take(&mut self, item: &Item) -> Option<Attempt> {
        if usize::try_from(item.number).is_ok_and(|number| number < self.read) {
            return self.open.remove(&item.number);
        }
        Attempt::of(item)
    }
}
