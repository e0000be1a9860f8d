//! Random histories of items: after each step the index is compared with the result of a search through all items.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{Items, Next};
use crate::tasks::task::{Item, ItemState, Ledger, NewItem, Page, Progress, Remarks};

const SEEDS: [u64; 3] = [1, 2, 3];
const STEPS: usize = 500;

fn item(number: u32, phase: u8) -> Item {
    NewItem { name: format!("item {number}"), pair: None, phase, work: Vec::new() }.numbered(number)
}

/// What comes next, in a form that can be compared.
fn next(items: &mut Items, now: Instant) -> Option<Result<u32, Option<Instant>>> {
    match items.next(now) {
        Next::Item(item) => Some(Ok(item.number)),
        Next::Later(at) => Some(Err(at)),
        Next::Nothing => None,
    }
}

/// What comes next, found by a search through all items.
fn searched(items: &Items, now: Instant) -> Option<Result<u32, Option<Instant>>> {
    let phase = items.iter().filter(|item| !item.state.is_final()).map(|item| item.phase).min()?;
    let waiting = || items.all.iter().filter(|e| e.item.state == ItemState::Waiting && !e.is_parked);
    let ready = waiting().filter(|e| e.item.phase == phase && e.due.is_none_or(|due| due <= now));
    let first = ready.min_by_key(|e| (e.item.attempts, e.item.number));
    let later = waiting().filter_map(|e| e.due.filter(|due| *due > now));
    Some(first.map(|e| e.item.number).ok_or(later.min()))
}

/// The account of all items, added up one after another.
fn added_up(items: &Items) -> Ledger {
    fn absorb(sum: &mut Remarks, part: &Remarks) {
        part.named.iter().for_each(|remark| sum.push(&*remark.reference, &*remark.reason));
        sum.add_unnamed(part.count - part.named.len() as u64);
    }
    let mut sum = Ledger::default();
    for item in items.iter() {
        let Ledger { added, updated, unchanged, removed, skipped, failed } = &item.ledger;
        sum.added += added;
        sum.updated += updated;
        sum.unchanged += unchanged;
        sum.removed += removed;
        absorb(&mut sum.skipped, skipped);
        absorb(&mut sum.failed, failed);
        if let (ItemState::Failed, Some(reason)) = (item.state, &item.reason) {
            sum.failed.push(&item.name, reason);
        }
    }
    sum
}

fn check(items: &Items, page: Page) {
    assert!(items.agree());
    assert_eq!(items.progress(), items.iter().map(|item| item.progress).sum());
    assert_eq!(items.ledger(), added_up(items));
    assert_eq!(items.are_final(), items.iter().all(|item| item.state.is_final()));
    for (state, phase) in [(ItemState::Done, 1), (ItemState::Failed, 0), (ItemState::Waiting, 2)] {
        let of_state = || items.iter().filter(|item| item.state == state);
        assert_eq!(items.tally().of(state), of_state().count());
        assert_eq!(
            items.tally().of_phase(phase, state),
            of_state().filter(|item| item.phase == phase).count()
        );
    }
    let found = items.page(page, Timestamp::UNIX_EPOCH, Instant::now());
    let meant = items.iter().filter(|item| page.is_final.is_none_or(|is| is == item.state.is_final()));
    let meant = meant.skip(page.offset).take(page.limit).map(|item| item.number);
    assert!(found.iter().map(|item| item.number).eq(meant), "{page:?}");
}

/// Pseudo-random numbers, the same in each run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    fn remarks(&mut self) -> Remarks {
        let mut remarks = Remarks::default();
        let most = if self.below(25) == 0 { 600 } else { 3 };
        for n in 0..self.below(most) {
            remarks.push(n.to_string(), "why");
        }
        remarks.add_unnamed(self.below(2) as u64);
        remarks
    }

    fn progress(&mut self) -> Progress {
        let largest = [1_000, u64::MAX][usize::from(self.below(50) == 0)];
        Progress { current: self.below(1_000) as u64, total: largest }
    }

    fn one_of(&mut self, items: &Items, is_meant: impl Fn(&super::Entry) -> bool) -> Option<Item> {
        let all: Vec<&super::Entry> = items.all.iter().filter(|entry| is_meant(entry)).collect();
        (!all.is_empty()).then(|| all[self.below(all.len())].item.clone())
    }

    fn running(&mut self, items: &Items) -> Option<Item> {
        self.one_of(items, |entry| entry.item.state == ItemState::Running)
    }
}

/// Makes one random change to the items.
fn step(items: &mut Items, chance: &mut Chance, now: &mut Instant) {
    let today = Timestamp::UNIX_EPOCH;
    match chance.below(12) {
        0 | 1 => items.put(item(items.next_number(), u8::try_from(chance.below(3)).unwrap())),
        2..=4 => {
            let expected = searched(items, *now);
            assert_eq!(next(items, *now), expected);
            if let Some(Ok(number)) = expected {
                let item = items.get(number).unwrap().clone();
                let begun =
                    Item { state: ItemState::Running, attempts: item.attempts + 1, not_before: None, ..item };
                items.begin(begun, *now);
            }
        }
        5 => *now += Duration::from_millis(chance.below(3_000) as u64),
        6 => {
            if let Some(parked) = chance.one_of(items, |entry| entry.is_parked) {
                items.unpark(parked.number);
            }
        }
        7 if chance.below(40) == 0 => {
            for number in items.waiting() {
                items.give_up(number, "no room".into(), today);
            }
        }
        what => {
            let Some(item) = chance.running(items) else { return };
            match what {
                8 => items.report(item.number, chance.progress()),
                9 => {
                    let ledger = Ledger {
                        added: 1,
                        unchanged: chance.below(9) as u64,
                        skipped: chance.remarks(),
                        failed: chance.remarks(),
                        ..Ledger::default()
                    };
                    items.put(Item { state: ItemState::Done, ended_at: Some(today), ledger, ..item });
                }
                10 => {
                    let reason = Some("broken".to_owned());
                    match chance.below(3) {
                        0 => items.put(Item { state: ItemState::Failed, reason, ..item }),
                        1 => items.put(Item {
                            state: ItemState::Waiting,
                            progress: Progress::default(),
                            reason,
                            ..item
                        }),
                        _ => {
                            items.put_off(
                                item.number,
                                *now + Duration::from_millis(chance.below(9_000) as u64),
                            );
                            let (state, not_before) = (ItemState::Waiting, Some(today));
                            items.put(Item { state, reason, not_before, ..item });
                        }
                    }
                }
                11 => items.park(Item { state: ItemState::Waiting, attempts: item.attempts - 1, ..item }),
                _ => items.waits(item.number, Some("its turn".into())),
            }
        }
    }
}

#[test]
fn sums_and_index_follow_each_change_of_an_item() {
    const STATES: [ItemState; 3] = [ItemState::Waiting, ItemState::Done, ItemState::Failed];
    let mut counts = STATES.map(|_| 0);
    for seed in SEEDS {
        let (mut items, mut chance, mut now) = (Items::default(), Chance(seed), Instant::now());
        for _ in 0..STEPS {
            step(&mut items, &mut chance, &mut now);
            let is_final = [None, Some(false), Some(true)][chance.below(3)];
            check(&items, Page { is_final, offset: chance.below(40), limit: chance.below(40) });
        }
        for (count, state) in counts.iter_mut().zip(STATES) {
            *count += items.tally().of(state);
        }
    }
    assert!(
        counts.iter().all(|count| *count > 10),
        "a history in which nothing happens shows nothing: {counts:?}"
    );
}

#[test]
fn items_have_their_turn_by_phase_tries_and_number() {
    let now = Instant::now();
    let later = now + Duration::from_secs(9);
    let mut items = Items::default();
    for item in [item(2, 0), item(0, 1), item(1, 0)] {
        items.put(item);
    }
    assert_eq!((next(&mut items, now), items.next_number()), (Some(Ok(1)), 3));
    items.put(Item { attempts: 1, ..item(1, 0) });
    assert_eq!(next(&mut items, now), Some(Ok(2)), "who was tried goes behind");
    items.put(Item { state: ItemState::Running, ..item(2, 0) });
    assert_eq!(next(&mut items, now), Some(Ok(1)));
    items.put(Item { attempts: 2, ..item(1, 0) });
    items.put_off(1, later);
    assert_eq!(next(&mut items, now), Some(Err(Some(later))), "the phase has not ended");
    assert_eq!(next(&mut items, later), Some(Ok(1)));
    items.park(item(1, 0));
    assert_eq!(next(&mut items, now), Some(Err(None)));
    items.unpark(1);
    assert_eq!(items.waiting(), [1, 0]);
    let first = items.begin(item(1, 0), now);
    assert_eq!((next(&mut items, now), items.begin(item(1, 0), later)), (Some(Ok(1)), first));
    for n in [1, 2] {
        items.put(Item { state: ItemState::Done, ..item(n, 0) });
    }
    assert_eq!(next(&mut items, now), Some(Ok(0)));
    items.put(Item { state: ItemState::Failed, ..item(0, 1) });
    assert!(items.are_final() && next(&mut items, now).is_none());
}

#[test]
fn an_item_is_found_though_the_store_has_lost_one_before_it() {
    let mut items = Items::default();
    for number in [0, 1, 3, 4] {
        items.put(item(number, 0));
    }
    items.report(4, Progress { current: 4, total: 4 });
    let found = |number| items.get(number).map(|item| (item.number, item.progress.current));
    assert_eq!([1, 2, 3, 4, 5].map(found), [Some((1, 0)), None, Some((3, 0)), Some((4, 4)), None]);
    assert_eq!(items.next_number(), 5);
}
