//! The items of a task that runs. A task may have 50,000, so what is asked with each one of them is not found by going
//! through all.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::tasks::task::{Item, ItemState, Progress};

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

/// The items, by their numbers.
#[derive(Debug, Default)]
pub(in crate::tasks) struct Items {
    all: BTreeMap<u32, Item>,
    /// Those that wait for something to happen.
    parked: BTreeSet<u32>,
    /// Phase and number of those that have not ended.
    open: BTreeSet<(u8, u32)>,
    /// Phase, attempts and number of those that wait for their turn: who was tried and failed goes behind those that were
    /// not, so that what is broken holds nobody up.
    waiting: BTreeSet<(u8, u32, u32)>,
    /// When those that wait for a time may begin.
    due: BTreeMap<u32, Instant>,
    /// When each was first begun in this process.
    begun: BTreeMap<u32, Instant>,
}

impl Items {
    /// Adds an item, or changes it.
    pub(in crate::tasks) fn put(&mut self, item: Item) {
        if let Some(old) = self.all.get(&item.number) {
            self.open.remove(&(old.phase, old.number));
            self.waiting.remove(&(old.phase, old.attempts, old.number));
        }
        if !item.state.is_final() {
            self.open.insert((item.phase, item.number));
        }
        if item.state == ItemState::Waiting && !self.parked.contains(&item.number) {
            self.waiting.insert((item.phase, item.attempts, item.number));
        }
        self.all.insert(item.number, item);
    }

    /// Puts an item aside until [`Items::unpark`].
    pub(in crate::tasks) fn park(&mut self, item: Item) {
        self.parked.insert(item.number);
        self.put(item);
    }

    /// An item may have its turn again.
    pub(in crate::tasks) fn unpark(&mut self, number: u32) {
        self.parked.remove(&number);
        if let Some(item) = self.all.get(&number).cloned() {
            self.put(item);
        }
    }

    /// An item is not to be begun before this.
    pub(in crate::tasks) fn put_off(&mut self, number: u32, until: Instant) {
        self.due.insert(number, until);
    }

    /// When an item that was put off may begin.
    pub(in crate::tasks) fn due(&self, number: u32) -> Option<Instant> {
        self.due.get(&number).copied()
    }

    /// An item begins; returns when it did so first.
    pub(in crate::tasks) fn begin(&mut self, item: Item, now: Instant) -> Instant {
        self.due.remove(&item.number);
        let begun = *self.begun.entry(item.number).or_insert(now);
        self.put(item);
        begun
    }

    /// The numbers of those that wait for their turn, of whatever phase.
    pub(in crate::tasks) fn waiting(&self) -> Vec<u32> {
        self.waiting.iter().map(|(_, _, number)| *number).collect()
    }

    /// The item of this number.
    pub(in crate::tasks) fn get(&self, number: u32) -> Option<&Item> {
        self.all.get(&number)
    }

    /// The same, for changes of its progress.
    pub(in crate::tasks) fn progress_of(&mut self, number: u32) -> Option<&mut Progress> {
        self.all.get_mut(&number).map(|item| &mut item.progress)
    }

    /// The same, for changes of the reason it waits for.
    pub(in crate::tasks) fn reason_of(&mut self, number: u32) -> Option<&mut Option<String>> {
        self.all.get_mut(&number).map(|item| &mut item.reason)
    }

    /// All of them, by their numbers.
    pub(in crate::tasks) fn iter(&self) -> impl Iterator<Item = &Item> {
        self.all.values()
    }

    /// The number of the next that is added.
    pub(in crate::tasks) fn next_number(&self) -> u32 {
        self.all.keys().next_back().map_or(0, |last| last + 1)
    }

    /// Whether nothing more will happen to any.
    pub(in crate::tasks) fn are_final(&self) -> bool {
        self.open.is_empty()
    }

    /// The next item that may begin now, or the earliest time one may. Those of a phase begin when all of the phases before
    /// have ended.
    pub(in crate::tasks) fn next(&self, now: Instant) -> Next {
        let Some(&(phase, _)) = self.open.first() else { return Next::Nothing };
        let of_phase = self.waiting.range((phase, 0, 0)..=(phase, u32::MAX, u32::MAX));
        let mut earliest = None;
        for item in of_phase.filter_map(|(_, _, number)| self.all.get(number)) {
            match self.due(item.number).filter(|at| *at > now) {
                None => return Next::Item(Box::new(item.clone())),
                Some(at) => earliest = Some(earliest.map_or(at, |before: Instant| before.min(at))),
            }
        }
        Next::Later(earliest)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Items, Next};
    use crate::tasks::task::{Item, ItemState, NewItem};

    fn item(number: u32, phase: u8) -> Item {
        NewItem { name: String::new(), pair: None, phase, work: Vec::new() }.numbered(number)
    }

    fn next(items: &Items, now: Instant) -> Result<u32, Option<Instant>> {
        match items.next(now) {
            Next::Item(item) => Ok(item.number),
            Next::Later(at) => Err(at),
            Next::Nothing => panic!("nothing is left"),
        }
    }

    #[test]
    fn items_have_their_turn_by_phase_tries_and_number() {
        let now = Instant::now();
        let later = now + Duration::from_secs(9);
        let mut items = Items::default();
        for item in [item(2, 0), item(0, 1), item(1, 0)] {
            items.put(item);
        }
        assert_eq!((next(&items, now), items.next_number()), (Ok(1), 3));
        items.put(Item { attempts: 1, ..item(1, 0) });
        assert_eq!(next(&items, now), Ok(2), "who was tried goes behind");
        items.put(Item { state: ItemState::Running, ..item(2, 0) });
        assert_eq!(next(&items, now), Ok(1));
        items.put(Item { attempts: 2, ..item(1, 0) });
        items.put_off(1, later);
        assert_eq!(next(&items, now), Err(Some(later)), "the phase has not ended");
        assert_eq!(next(&items, later), Ok(1));
        items.park(item(1, 0));
        assert_eq!(next(&items, now), Err(None));
        items.unpark(1);
        assert_eq!(items.waiting(), [1, 0]);
        let first = items.begin(item(1, 0), now);
        assert_eq!((next(&items, now), items.begin(item(1, 0), later)), (Ok(1), first));
        for n in [1, 2] {
            items.put(Item { state: ItemState::Done, ..item(n, 0) });
        }
        assert_eq!(next(&items, now), Ok(0));
        items.put(Item { state: ItemState::Failed, ..item(0, 1) });
        assert!(items.are_final() && matches!(items.next(now), Next::Nothing));
    }
}
