//! Finds what tasks do and did with one image on one agent.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::base::Result;
use crate::base::bits::Bits;
use crate::store::table::Reader;
use crate::tasks::queue::{Queue, WeakQueue, items_of};
use crate::tasks::task::{Item, ItemState, Page, Pair, Task, TaskKind};

/// How many of the newest ended tasks are searched, and how many of their items in all: the items of fifty images on a
/// thousand agents, which take a fraction of a second. Older ones are not looked at.
const MAX_TASKS: usize = 500;
const MAX_ITEMS: usize = 50_000;
/// How many items are read at once.
const PAGE: usize = 1_000;

impl Queue {
    /// The items about an image on an agent, each with its task. Those that have not ended come first, then those that
    /// ended last. An item that ended well and skipped nothing says how things stood after it, so ended tasks are
    /// searched no further back than that.
    pub(crate) async fn about(&self, pair: &Pair) -> Result<Vec<(Task, Item)>> {
        let (mut found, mut ended) = (Vec::new(), Vec::new());
        for live in self.list(0, usize::MAX) {
            if live.kind() == TaskKind::Rescan {
                continue;
            }
            match live.items_of(pair) {
                Some(items) => found.extend(items.into_iter().map(|item| (live.task(), item))),
                None if ended.len() < MAX_TASKS => ended.push(live.task()),
                None => {}
            }
        }
        let pair = pair.clone();
        found.extend(self.shared.store.read(move |r| search(r, ended, &pair, MAX_ITEMS)).await?);
        found.sort_by_key(|(_, item)| Reverse(item.ended_at.unwrap_or(Timestamp::MAX)));
        Ok(found)
    }
}

impl Queue {
    /// The same queue, not kept alive.
    pub(crate) fn downgrade(&self) -> WeakQueue {
        WeakQueue(Arc::downgrade(&self.shared))
    }
}

impl WeakQueue {
    /// The canonical names that running preloads load on these agents, or are about to, each with the agents, by their
    /// numbers. This goes through all items of the preloads.
    pub(crate) fn loading_on(&self, numbers: &HashMap<String, usize>) -> HashMap<String, Bits> {
        let Some(shared) = self.0.upgrade() else { return HashMap::new() };
        let mut names: HashMap<String, Bits> = HashMap::new();
        for live in (Queue { shared }).running().into_iter().filter(|live| live.kind() == TaskKind::Preload) {
            live.with_items(|items| {
                let open = items.iter().filter(|item| !item.state.is_final());
                for pair in open.filter_map(|item| item.pair.as_ref()) {
                    let Some(number) = numbers.get(&pair.agent) else { continue };
                    match names.get_mut(&pair.image) {
                        Some(agents) => agents.insert(*number),
                        None => names.entry(pair.image.clone()).or_default().insert(*number),
                    }
                }
            });
        }
        names
    }
}

/// Searches these tasks, which have ended, and at most so many of their items.
fn search(reader: &Reader, tasks: Vec<Task>, pair: &Pair, mut left: usize) -> Result<Vec<(Task, Item)>> {
    let mut found = Vec::new();
    let mut settled: Option<Timestamp> = None;
    for task in tasks {
        let is_older = settled.zip(task.ended_at).is_some_and(|(settled, ended_at)| ended_at < settled);
        let mut offset = 0;
        while left > 0 && !is_older {
            let items = items_of(reader, &task, Page { offset, limit: PAGE.min(left), ..Page::ALL })?;
            let count = items.len();
            for item in items.into_iter().filter(|item| item.pair.as_ref() == Some(pair)) {
                let is_kept = task.kind == TaskKind::Unload && item.ledger.unchanged > 0;
                if item.state == ItemState::Done && item.ledger.skipped.count == 0 && !is_kept {
                    settled = settled.max(item.ended_at);
                }
                found.push((task.clone(), item));
            }
            (offset, left) = (offset + count, left - count);
            if count < PAGE {
                break;
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::{MAX_ITEMS, search};
    use crate::base::ids::{TaskId, UserId};
    use crate::store::Store;
    use crate::tasks::queue::{ITEMS, item_key};
    use crate::tasks::task::{Item, ItemState, Ledger, NewItem, Pair, Progress, State, Task, TaskKind};

    fn pair(agent: &str) -> Pair {
        Pair { agent: agent.into(), image: "cr.lab/a:1".into() }
    }

    /// A task that ended at this second.
    fn task(second: i64) -> Task {
        Task {
            id: TaskId::random(),
            kind: TaskKind::Preload,
            subject: String::new(),
            owner: UserId::random(),
            state: State::Done,
            message: String::new(),
            created_at: Timestamp::UNIX_EPOCH,
            ended_at: Some(Timestamp::from_second(second).unwrap()),
            progress: Progress::default(),
            unfolded: true,
            ledger: Ledger::default(),
            cancel_requested: false,
            targets: None,
        }
    }

    /// The first item of a task is about one agent, the second about another, which also ended at this second.
    fn items(second: i64, state: ItemState, skipped: u64) -> [Item; 2] {
        let item = |number: u32, agent: &str| {
            let new = NewItem { name: agent.into(), pair: Some(pair(agent)), phase: 0, work: Vec::new() };
            let ended_at = Some(Timestamp::from_second(second).unwrap());
            let mut item = Item { state, ended_at, ..new.numbered(number) };
            item.ledger.skipped.add_unnamed(skipped);
            item
        };
        [item(0, "gpu01"), item(1, "gpu02")]
    }

    #[test]
    fn the_search_goes_back_to_the_last_item_that_ended_well_and_reads_so_many_at_most() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let of = [
            (50, ItemState::Cancelled, 0),
            (40, ItemState::Done, 1),
            (30, ItemState::Failed, 0),
            (20, ItemState::Done, 0),
            // Begun earlier, but ended later than the one before.
            (25, ItemState::Failed, 0),
            (10, ItemState::Done, 0),
        ];
        let tasks: Vec<Task> = of.iter().map(|(second, _, _)| task(*second)).collect();
        let kept = tasks.clone();
        store
            .write_now(move |w| {
                for (task, (second, state, skipped)) in kept.iter().zip(of) {
                    for item in items(second, state, skipped) {
                        w.put(&ITEMS, item_key(task.id, item.number), &item)?;
                    }
                }
                Ok(())
            })
            .unwrap();
        let found = |agent: &str, left: usize| {
            let found = store.read_now(|r| search(r, tasks.clone(), &pair(agent), left)).unwrap();
            found.iter().map(|(_, item)| item.ended_at.unwrap().as_second()).collect::<Vec<_>>()
        };
        assert_eq!(found("gpu02", MAX_ITEMS), [50, 40, 30, 20, 25], "and nothing of what it says is older");
        assert_eq!(found("gpu02", 5), [50, 40], "the sixth is not read");
        assert_eq!(found("gpu03", MAX_ITEMS), [0; 0]);
    }
}
