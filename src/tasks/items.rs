//! The items of a task that runs. A task may have 50,000, so what is asked with each of them is looked up, and nothing
//! goes through all.

use std::collections::BTreeSet;
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};

use crate::tasks::task::{Item, ItemState, Ledger, Page, Progress};
use crate::tasks::totals::{Tally, Totals};

/// What a task can begin next.
#[derive(Debug)]
pub(in crate::tasks) enum Next {
    /// This item.
    Item(Box<Item>),
    /// Nothing now: items are running, or wait for this time.
    Later(Option<Instant>),
    /// No item is left open.
    Nothing,
}

/// The items, and what is kept beside them.
#[derive(Debug, Default)]
pub(in crate::tasks) struct Items {
    /// By their numbers.
    all: Vec<Entry>,
    index: Index,
    /// Those that were given up while the store could keep nothing.
    unkept: BTreeSet<u32>,
}

/// An item, and what only this process knows of it.
#[derive(Debug)]
struct Entry {
    item: Item,
    /// It waits for something to happen.
    is_parked: bool,
    /// It waits for this time.
    due: Option<Instant>,
    /// When it was first begun.
    begun: Option<Instant>,
}

impl Entry {
    fn new(item: Item) -> Self {
        Self { item, is_parked: false, due: None, begun: None }
    }

    /// The item as it is shown. What it waits for is measured; the time of day at which that will be is what the clock
    /// makes of it now.
    fn shown(&self, now: Timestamp, steady: Instant) -> Item {
        let due = self.due.filter(|_| self.item.not_before.is_some());
        let at = due.map(|due| {
            let left = SignedDuration::try_from(due.saturating_duration_since(steady)).unwrap_or_default();
            now.checked_add(left).unwrap_or(now)
        });
        Item { not_before: at.or(self.item.not_before), ..self.item.clone() }
    }
}

/// What follows from the items. An entry is taken out before it changes and added again after: see [`Items::change`].
#[derive(Debug, Default, PartialEq, Eq)]
struct Index {
    /// Phase, attempts and number of the items that can be begun: an item that was tried and failed goes behind those that
    /// were not tried, so that what is broken holds nothing up.
    ready: BTreeSet<(u8, u32, u32)>,
    /// Time and number of the items that wait for a time.
    later: BTreeSet<(Instant, u32)>,
    /// The items by whether they have ended, and their numbers.
    ended: BTreeSet<(bool, u32)>,
    totals: Totals,
}

impl Index {
    fn add(&mut self, entry: &Entry) {
        let Entry { item, is_parked, due, .. } = entry;
        if item.state == ItemState::Waiting && !is_parked {
            match due {
                Some(due) => self.later.insert((*due, item.number)),
                None => self.ready.insert((item.phase, item.attempts, item.number)),
            };
        }
        self.ended.insert((item.state.is_final(), item.number));
        self.totals.add(item);
    }

    fn remove(&mut self, entry: &Entry) {
        let Entry { item, due, .. } = entry;
        if let Some(due) = due {
            self.later.remove(&(*due, item.number));
        }
        self.ready.remove(&(item.phase, item.attempts, item.number));
        self.ended.remove(&(item.state.is_final(), item.number));
        self.totals.remove(item);
    }

    /// The numbers of those that have ended, or of the others.
    fn ended(&self, is_final: bool) -> impl Iterator<Item = u32> {
        self.ended.range((is_final, 0)..=(is_final, u32::MAX)).map(|(_, number)| *number)
    }
}

impl Items {
    /// Where an item is, or would be. Numbers are given in a row, so it is at the place of its number, unless the store has
    /// lost one.
    fn place(&self, number: u32) -> Result<usize, usize> {
        let place = usize::try_from(number).unwrap_or(usize::MAX);
        match self.all.get(place) {
            Some(entry) if entry.item.number == number => Ok(place),
            _ => self.all.binary_search_by_key(&number, |entry| entry.item.number),
        }
    }

    fn entry(&self, number: u32) -> Option<&Entry> {
        self.place(number).ok().and_then(|place| self.all.get(place))
    }

    /// The only place where an item changes: what is kept beside the items follows it here.
    fn change(&mut self, number: u32, change: impl FnOnce(&mut Entry)) {
        let Ok(place) = self.place(number) else { return };
        if let Some(entry) = self.all.get_mut(place) {
            self.index.remove(entry);
            change(entry);
            self.index.add(entry);
        }
    }

    /// Adds an item, or changes it.
    pub(in crate::tasks) fn put(&mut self, item: Item) {
        match self.place(item.number) {
            Ok(_) => self.change(item.number, |entry| entry.item = item),
            Err(place) => {
                let entry = Entry::new(item);
                self.index.add(&entry);
                self.all.insert(place, entry);
            }
        }
    }

    /// Puts an item aside until [`Items::unpark`]. How far it came counts on: what remains of it is still to be done.
    pub(in crate::tasks) fn park(&mut self, item: Item) {
        self.change(item.number, |entry| {
            entry.is_parked = true;
            entry.item = Item { progress: entry.item.progress, ..item };
        });
    }

    /// An item may have its turn again.
    pub(in crate::tasks) fn unpark(&mut self, number: u32) {
        self.change(number, |entry| entry.is_parked = false);
    }

    /// An item is not to be begun before this.
    pub(in crate::tasks) fn put_off(&mut self, number: u32, until: Instant) {
        self.change(number, |entry| entry.due = Some(until));
    }

    /// An item begins; returns when it did so first.
    pub(in crate::tasks) fn begin(&mut self, item: Item, now: Instant) -> Instant {
        let mut begun = now;
        self.change(item.number, |entry| {
            begun = *entry.begun.get_or_insert(now);
            entry.due = None;
            entry.item = item;
        });
        begun
    }

    /// An item is so far.
    pub(in crate::tasks) fn report(&mut self, number: u32, progress: Progress) {
        self.change(number, |entry| entry.item.progress = progress);
    }

    /// An item waits for this.
    pub(in crate::tasks) fn waits(&mut self, number: u32, reason: Option<String>) {
        self.change(number, |entry| entry.item.reason = reason);
    }

    /// Gives an item up though the store can't keep that.
    pub(in crate::tasks) fn give_up(&mut self, number: u32, reason: String, now: Timestamp) {
        self.change(number, |entry| {
            entry.item.state = ItemState::Failed;
            entry.item.ended_at = Some(now);
            entry.item.reason = Some(reason);
        });
        self.unkept.insert(number);
    }

    /// The numbers of the items that wait for their turn, of any phase.
    pub(in crate::tasks) fn waiting(&self) -> Vec<u32> {
        let ready = self.index.ready.iter().map(|(_, _, number)| *number);
        ready.chain(self.index.later.iter().map(|(_, number)| *number)).collect()
    }

    /// The items of which the store does not know the end: those that are open, and those that were given up while it could
    /// keep nothing.
    pub(in crate::tasks) fn unkept(&self) -> Vec<Item> {
        let numbers = self.index.ended(false).chain(self.unkept.iter().copied());
        numbers.filter_map(|number| self.get(number)).cloned().collect()
    }

    /// The item of this number.
    pub(in crate::tasks) fn get(&self, number: u32) -> Option<&Item> {
        self.entry(number).map(|entry| &entry.item)
    }

    /// All of them, by their numbers.
    pub(in crate::tasks) fn iter(&self) -> impl Iterator<Item = &Item> {
        self.all.iter().map(|entry| &entry.item)
    }

    /// Those of a page, as they are shown.
    pub(in crate::tasks) fn page(&self, page: Page, now: Timestamp, steady: Instant) -> Vec<Item> {
        let Page { is_final, offset, limit } = page;
        let shown = |entry: &Entry| entry.shown(now, steady);
        match is_final {
            None => self.all.get(offset..).unwrap_or_default().iter().take(limit).map(shown).collect(),
            Some(is_final) => {
                let numbers = self.index.ended(is_final).skip(offset).take(limit);
                numbers.filter_map(|number| self.entry(number)).map(shown).collect()
            }
        }
    }

    /// Whether there are none.
    pub(in crate::tasks) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The number of the next that is added.
    pub(in crate::tasks) fn next_number(&self) -> u32 {
        self.all.last().map_or(0, |last| last.item.number + 1)
    }

    /// How many are in which state.
    pub(in crate::tasks) fn tally(&self) -> &Tally {
        &self.index.totals.tally
    }

    /// How far all of them are together.
    pub(in crate::tasks) fn progress(&self) -> Progress {
        self.index.totals.progress()
    }

    /// What came of all of them.
    pub(in crate::tasks) fn ledger(&self) -> Ledger {
        self.index.totals.ledger(|number| self.get(number))
    }

    /// Whether nothing more will happen to any.
    pub(in crate::tasks) fn are_final(&self) -> bool {
        self.tally().open_phase().is_none()
    }

    /// The next item that may begin now, or the earliest time one may. Those of a phase begin when all of the phases before
    /// have ended.
    pub(in crate::tasks) fn next(&mut self, now: Instant) -> Next {
        let Some(phase) = self.tally().open_phase() else { return Next::Nothing };
        while let Some((_, number)) = self.index.later.first().copied().filter(|(due, _)| *due <= now) {
            self.change(number, |entry| {
                entry.due = None;
                entry.item.not_before = None;
            });
        }
        let mut of_phase = self.index.ready.range((phase, 0, 0)..=(phase, u32::MAX, u32::MAX));
        match of_phase.next().and_then(|(_, _, number)| self.get(*number)) {
            Some(item) => Next::Item(Box::new(item.clone())),
            None => Next::Later(self.index.later.first().map(|(due, _)| *due)),
        }
    }

    /// Whether what is kept beside the items is what a count anew comes to.
    pub(in crate::tasks) fn agree(&self) -> bool {
        let mut anew = Index::default();
        self.all.iter().for_each(|entry| anew.add(entry));
        anew == self.index && self.all.is_sorted_by_key(|entry| entry.item.number)
    }
}

#[cfg(test)]
mod tests;
