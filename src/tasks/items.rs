//! The items of a running task. A task may have 50,000, so any question that comes up for every item is answered from
//! an index; nothing walks through all items.

use std::collections::BTreeSet;
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};

use crate::tasks::task::{Item, ItemState, Ledger, Page, Pair, Progress};
use crate::tasks::totals::{Tally, Totals};

/// The next thing a task can do.
#[derive(Debug)]
pub(in crate::tasks) enum Next {
    /// This item.
    Item(Box<Item>),
    /// No item can begin now: items are running, or wait until this time.
    Later(Option<Instant>),
    /// All items have ended.
    Nothing,
}

/// The items, and the index over them.
#[derive(Debug, Default)]
pub(in crate::tasks) struct Items {
    /// All items, ordered by number.
    all: Vec<Entry>,
    index: Index,
    /// The numbers of the items that were given up while the store could not be written.
    unkept: BTreeSet<u32>,
}

/// An item, with the facts that only this process knows.
#[derive(Debug)]
struct Entry {
    item: Item,
    /// Whether the item waits for something to happen.
    is_parked: bool,
    /// The time before which the item does not begin.
    due: Option<Instant>,
    /// When it was first begun.
    begun: Option<Instant>,
}

impl Entry {
    fn new(item: Item) -> Self {
        Self { item, is_parked: false, due: None, begun: None }
    }

    /// The item as callers see it. Its wait is kept on the steady clock; the time of day at which it ends is worked
    /// out from the current time.
    fn shown(&self, now: Timestamp, steady: Instant) -> Item {
        let due = self.due.filter(|_| self.item.not_before.is_some());
        let at = due.map(|due| {
            let left = SignedDuration::try_from(due.saturating_duration_since(steady)).unwrap_or_default();
            now.checked_add(left).unwrap_or(now)
        });
        Item { not_before: at.or(self.item.not_before), ..self.item.clone() }
    }
}

/// An index derived from the items. An entry is removed before its item changes and added again afterwards: see
/// [`Items::change`].
#[derive(Debug, Default, PartialEq, Eq)]
struct Index {
    /// Phase, attempts and number of the items that can begin. An item that failed comes after those not yet tried,
    /// so that a broken item holds nothing up.
    ready: BTreeSet<(u8, u32, u32)>,
    /// Time and number of the items that wait until a time.
    later: BTreeSet<(Instant, u32)>,
    /// Whether each item has ended, and its number.
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

    /// The numbers of the items that have ended, or of those that have not.
    fn ended(&self, is_final: bool) -> impl Iterator<Item = u32> {
        self.ended.range((is_final, 0)..=(is_final, u32::MAX)).map(|(_, number)| *number)
    }
}

impl Items {
    /// The position of an item, or where it would be. Numbers are consecutive, so the position equals the number,
    /// unless the store has lost an item.
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

    /// Changes an item and keeps the index right. This is the only place where an item changes.
    fn change(&mut self, number: u32, change: impl FnOnce(&mut Entry)) {
        let Ok(place) = self.place(number) else { return };
        if let Some(entry) = self.all.get_mut(place) {
            self.index.remove(entry);
            change(entry);
            self.index.add(entry);
        }
    }

    /// Adds an item, or replaces it.
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

    /// Parks an item until [`Items::unpark`]. Its progress still counts, because the rest of its work is still to be
    /// done.
    pub(in crate::tasks) fn park(&mut self, item: Item) {
        self.change(item.number, |entry| {
            entry.is_parked = true;
            entry.item = Item { progress: entry.item.progress, ..item };
        });
    }

    /// Makes a parked item ready again.
    pub(in crate::tasks) fn unpark(&mut self, number: u32) {
        self.change(number, |entry| entry.is_parked = false);
    }

    /// Sets the time before which an item must not begin.
    pub(in crate::tasks) fn put_off(&mut self, number: u32, until: Instant) {
        self.change(number, |entry| entry.due = Some(until));
    }

    /// Marks an item as begun; returns when it was first begun.
    pub(in crate::tasks) fn begin(&mut self, item: Item, now: Instant) -> Instant {
        let mut begun = now;
        self.change(item.number, |entry| {
            begun = *entry.begun.get_or_insert(now);
            entry.due = None;
            entry.item = item;
        });
        begun
    }

    /// Sets the progress of an item.
    pub(in crate::tasks) fn report(&mut self, number: u32, progress: Progress) {
        self.change(number, |entry| entry.item.progress = progress);
    }

    /// Sets what an item waits for.
    pub(in crate::tasks) fn waits(&mut self, number: u32, reason: Option<String>) {
        self.change(number, |entry| entry.item.reason = reason);
    }

    /// Marks an item as failed although the store can't be written.
    pub(in crate::tasks) fn give_up(&mut self, number: u32, reason: String, now: Timestamp) {
        self.change(number, |entry| {
            entry.item.state = ItemState::Failed;
            entry.item.ended_at = Some(now);
            entry.item.reason = Some(reason);
        });
        self.unkept.insert(number);
    }

    /// The numbers of the items that are ready or wait until a time, of any phase.
    pub(in crate::tasks) fn waiting(&self) -> Vec<u32> {
        let ready = self.index.ready.iter().map(|(_, _, number)| *number);
        ready.chain(self.index.later.iter().map(|(_, number)| *number)).collect()
    }

    /// The items whose end the store does not know: open ones, and those that were given up while the store could not
    /// be written.
    pub(in crate::tasks) fn unkept(&self) -> Vec<Item> {
        let numbers = self.index.ended(false).chain(self.unkept.iter().copied());
        numbers.filter_map(|number| self.get(number)).cloned().collect()
    }

    /// The item with this number.
    pub(in crate::tasks) fn get(&self, number: u32) -> Option<&Item> {
        self.entry(number).map(|entry| &entry.item)
    }

    /// All items, ordered by number.
    pub(in crate::tasks) fn iter(&self) -> impl Iterator<Item = &Item> {
        self.all.iter().map(|entry| &entry.item)
    }

    /// The items of a page, as callers see them.
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

    /// The items about an image on an agent, as callers see them. This goes through all items, so it is not for a
    /// question that comes up for every item.
    pub(in crate::tasks) fn of(&self, pair: &Pair, now: Timestamp, steady: Instant) -> Vec<Item> {
        let of_pair = self.all.iter().filter(|entry| entry.item.pair.as_ref() == Some(pair));
        of_pair.map(|entry| entry.shown(now, steady)).collect()
    }

    /// Whether there are no items.
    pub(in crate::tasks) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The number of the next item that is added.
    pub(in crate::tasks) fn next_number(&self) -> u32 {
        self.all.last().map_or(0, |last| last.item.number + 1)
    }

    /// How many items are in each state.
    pub(in crate::tasks) fn tally(&self) -> &Tally {
        &self.index.totals.tally
    }

    /// The progress of all items together.
    pub(in crate::tasks) fn progress(&self) -> Progress {
        self.index.totals.progress()
    }

    /// The ledger of all items together.
    pub(in crate::tasks) fn ledger(&self) -> Ledger {
        self.index.totals.ledger(|number| self.get(number))
    }

    /// Whether all items have ended.
    pub(in crate::tasks) fn are_final(&self) -> bool {
        self.tally().open_phase().is_none()
    }

    /// The next item that can begin now, or the earliest time at which one can. Items of a phase begin when all
    /// earlier phases have ended.
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

    /// Whether the index is the same as one built anew from the items.
    pub(in crate::tasks) fn agree(&self) -> bool {
        let mut anew = Index::default();
        self.all.iter().for_each(|entry| anew.add(entry));
        anew == self.index && self.all.is_sorted_by_key(|entry| entry.item.number)
    }
}

#[cfg(test)]
mod tests;
