//! The sums over the items of a task. They are kept up to date: before an item changes its part is subtracted, and
//! after the change it is added again, so that no answer has to go through all items.

use std::collections::{BTreeMap, BTreeSet};

use crate::tasks::task::{Item, ItemState, Ledger, MAX_LEDGER_ENTRIES, Progress, Remark, Remarks};

/// How many items of each phase are in each state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally(BTreeMap<(u8, ItemState), usize>);

impl Tally {
    /// How many items are in this state.
    pub(crate) fn of(&self, state: ItemState) -> usize {
        self.0.iter().filter(|((_, of), _)| *of == state).map(|(_, count)| count).sum()
    }

    /// How many items of this phase are in this state.
    pub(crate) fn of_phase(&self, phase: u8, state: ItemState) -> usize {
        self.0.get(&(phase, state)).copied().unwrap_or_default()
    }

    /// The first phase that has not ended.
    pub(in crate::tasks) fn open_phase(&self) -> Option<u8> {
        self.0.keys().find(|(_, state)| !state.is_final()).map(|(phase, _)| *phase)
    }

    fn add(&mut self, item: &Item) {
        *self.0.entry((item.phase, item.state)).or_default() += 1;
    }

    fn remove(&mut self, item: &Item) {
        let key = (item.phase, item.state);
        if let Some(count) = self.0.get_mut(&key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.0.remove(&key);
            }
        }
    }
}

/// The sums over the items of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::tasks) struct Totals {
    /// How many items are in which state.
    pub(in crate::tasks) tally: Tally,
    /// The sums of [`parts`]. They are wider than the parts, because a sum that overflowed could not be subtracted
    /// from.
    sums: [u128; 8],
    /// The items that name something that was skipped.
    skipping: BTreeSet<u32>,
    /// The items that name something that failed, or failed as a whole.
    failing: BTreeSet<u32>,
}

impl Totals {
    /// Adds an item's part.
    pub(in crate::tasks) fn add(&mut self, item: &Item) {
        self.tally.add(item);
        for (sum, part) in self.sums.iter_mut().zip(parts(item)) {
            *sum += u128::from(part);
        }
        if !item.ledger.skipped.named.is_empty() {
            self.skipping.insert(item.number);
        }
        if !item.ledger.failed.named.is_empty() || failure(item).is_some() {
            self.failing.insert(item.number);
        }
    }

    /// Subtracts an item's part. The item must be as it was when it was added.
    pub(in crate::tasks) fn remove(&mut self, item: &Item) {
        self.tally.remove(item);
        for (sum, part) in self.sums.iter_mut().zip(parts(item)) {
            *sum -= u128::from(part);
        }
        self.skipping.remove(&item.number);
        self.failing.remove(&item.number);
    }

    /// The progress of all items together.
    pub(in crate::tasks) fn progress(&self) -> Progress {
        let [current, total, ..] = self.sums.map(bounded);
        Progress { current, total }
    }

    /// The ledger of all items: the remarks of each, and one line for each item that failed as a whole. It looks up
    /// only the items that name something, and no more of them than a ledger has lines.
    pub(in crate::tasks) fn ledger<'a>(&self, find: impl Fn(u32) -> Option<&'a Item>) -> Ledger {
        let [_, _, added, updated, unchanged, removed, skips, failures] = self.sums.map(bounded);
        let find = |number: &u32| find(*number);
        let skips_named = self.skipping.iter().filter_map(find).flat_map(skipped).take(MAX_LEDGER_ENTRIES);
        let failures_named = self.failing.iter().filter_map(find).flat_map(failed).take(MAX_LEDGER_ENTRIES);
        Ledger {
            added,
            updated,
            unchanged,
            removed,
            skipped: Remarks { count: skips, named: skips_named.collect() },
            failed: Remarks { count: failures, named: failures_named.collect() },
        }
    }
}

/// The numbers that are summed for an item: its progress, then the counts of its ledger in their order.
fn parts(item: &Item) -> [u64; 8] {
    let Item { progress, ledger, .. } = item;
    let failures = ledger.failed.count.saturating_add(u64::from(failure(item).is_some()));
    let Ledger { added, updated, unchanged, removed, skipped, failed: _ } = ledger;
    [progress.current, progress.total, *added, *updated, *unchanged, *removed, skipped.count, failures]
}

/// The skipped references that an item names.
fn skipped(item: &Item) -> impl Iterator<Item = Remark> {
    item.ledger.skipped.named.iter().cloned()
}

/// The failed references that an item names; the item itself comes last, if it failed as a whole.
fn failed(item: &Item) -> impl Iterator<Item = Remark> {
    let whole = failure(item).map(|reason| Remark {
        reference: item.name.clone(),
        reason: reason.to_owned(),
        code: None,
    });
    item.ledger.failed.named.iter().cloned().chain(whole)
}

/// Why an item failed as a whole, if it did.
fn failure(item: &Item) -> Option<&str> {
    item.reason.as_deref().filter(|_| item.state == ItemState::Failed)
}

fn bounded(sum: u128) -> u64 {
    u64::try_from(sum).unwrap_or(u64::MAX)
}
