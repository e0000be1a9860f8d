//! The interface between the queue and the workers that do the items.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::base::Result;
use crate::store::table::Writer;
use crate::tasks::live::Live;
use crate::tasks::task::{Item, ItemState, Ledger, NewItem, Progress, State, TaskKind};
use crate::tasks::totals::Tally;

/// Does the items of one kind of task.
#[async_trait]
pub trait Worker: Send + Sync {
    /// The kind of task it works on.
    fn kind(&self) -> TaskKind;

    /// How many items of one task it takes at once.
    fn parallel(&self) -> usize;

    /// Works on one item. The queue may call it again for the same item: after a crash, or when the worker asked for
    /// another try. It should return soon after [`Workplace::stop`] is cancelled.
    async fn work(&self, item: &Item, place: &Workplace) -> Result<Outcome, ItemFailure>;

    /// The name for items like this one, if a single item may stand for all the quiet ones once the task has ended.
    fn folded_as(&self, _item: &Item) -> Option<&'static str> {
        None
    }

    /// The final state of a task that was not cancelled, given how many of its items ended in each state.
    fn verdict(&self, items: &Tally) -> State {
        let any = |state| items.of(state) > 0;
        if any(ItemState::Failed) && !any(ItemState::Done) { State::Failed } else { State::Done }
    }
}

/// Where an item is worked on: the worker reports progress here and learns that it should stop.
pub struct Workplace {
    pub(in crate::tasks) live: std::sync::Arc<Live>,
    pub(in crate::tasks) number: u32,
    /// When the item was first begun since the server started.
    pub(crate) begun: Instant,
    /// Cancelled when the task is cancelled or the server stops.
    pub(crate) stop: CancellationToken,
}

impl Workplace {
    /// The task's id.
    pub(crate) fn task(&self) -> crate::base::ids::TaskId {
        self.live.id()
    }

    /// Tells those who follow the task this item's progress and what just happened.
    pub fn report(&self, progress: Progress, message: impl Into<String>) {
        self.live.report(self.number, progress, message.into());
    }

    /// Says what this item waits for while it is being worked on; `None` once it continues.
    pub(crate) fn waits(&self, reason: Option<String>) {
        self.live.waits(self.number, reason);
    }
}

/// Changes to the store that belong to the end of an item.
pub(crate) type Changes = Box<dyn FnOnce(&mut Writer) -> Result<()> + Send>;

/// The result of an item. The queue commits `changes`, the item's new state and `more` in one transaction.
pub struct Outcome {
    /// The item's ledger.
    pub(crate) ledger: Ledger,
    /// How the item ended, for people, where the ledger does not say everything.
    pub(crate) note: Option<String>,
    /// Items that this one turned out to need.
    pub(crate) more: Vec<NewItem>,
    /// The changes to write to the store.
    pub(crate) changes: Changes,
}

impl Outcome {
    /// An outcome that writes nothing.
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger, note: None, more: Vec::new(), changes: Box::new(|_| Ok(())) }
    }
}

/// Why an attempt at an item failed.
#[derive(Debug, Clone)]
pub struct ItemFailure {
    /// The reason, for people.
    pub reason: String,
    /// When to try again.
    pub again: Again,
}

/// When to try an item again.
#[derive(Debug, Clone)]
pub enum Again {
    /// Never: the item fails for good.
    Never,
    /// After this long. The number of such tries is limited.
    After(Duration),
    /// When `back` is cancelled, or at the latest at `at_last`. It does not count as a try, and other items take its
    /// place meanwhile.
    When {
        /// Cancelled when what the item waits for has happened.
        back: CancellationToken,
        /// When to try again in any case.
        at_last: Instant,
    },
}

impl From<Option<Duration>> for Again {
    fn from(wait: Option<Duration>) -> Self {
        wait.map_or(Self::Never, Self::After)
    }
}

impl ItemFailure {
    /// A failure that is final.
    pub(crate) fn giving_up(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), again: Again::Never }
    }
}
