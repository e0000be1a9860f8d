//! What the queue asks of those who know how the work is done.

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

    /// Works on one item. It may be called again for the same item: after a crash, or when it asked to be.
    /// It should return soon after [`Workplace::stop`] is cancelled.
    async fn work(&self, item: &Item, place: &Workplace) -> Result<Outcome, ItemFailure>;

    /// What items like this one are called, if one may stand for all of those of which there is nothing to say once the
    /// task has ended.
    fn folded_as(&self, _item: &Item) -> Option<&'static str> {
        None
    }

    /// How a task that was not cancelled ended, given how many of its items ended how.
    fn verdict(&self, items: &Tally) -> State {
        let any = |state| items.of(state) > 0;
        if any(ItemState::Failed) && !any(ItemState::Done) { State::Failed } else { State::Done }
    }
}

/// Where an item is worked on: how it says how far it is, and hears that it should stop.
pub struct Workplace {
    pub(in crate::tasks) live: std::sync::Arc<Live>,
    pub(in crate::tasks) number: u32,
    /// When the item was first begun since the server started.
    pub(crate) begun: Instant,
    /// Cancelled when the task is, or when the server stops.
    pub(crate) stop: CancellationToken,
}

impl Workplace {
    /// The task's id.
    pub(crate) fn task(&self) -> crate::base::ids::TaskId {
        self.live.id()
    }

    /// Tells those who follow the task how far this item is, and what just happened.
    pub fn report(&self, progress: Progress, message: impl Into<String>) {
        self.live.report(self.number, progress, message.into());
    }

    /// Tells what this item waits for, while it is being worked on; nothing once it goes on.
    pub(crate) fn waits(&self, reason: Option<String>) {
        self.live.waits(self.number, reason);
    }
}

/// Changes to the store that belong to the end of an item.
pub(crate) type Changes = Box<dyn FnOnce(&mut Writer) -> Result<()> + Send>;

/// What came of an item. The queue commits `changes`, the item's new state and `more` in one transaction.
pub struct Outcome {
    /// The account.
    pub(crate) ledger: Ledger,
    /// How it ended, for people, where the ledger does not say it all.
    pub(crate) note: Option<String>,
    /// Items that this one turned out to need.
    pub(crate) more: Vec<NewItem>,
    /// What is to be written.
    pub(crate) changes: Changes,
}

impl Outcome {
    /// An outcome that writes nothing.
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger, note: None, more: Vec::new(), changes: Box::new(|_| Ok(())) }
    }
}

/// Why an item came to nothing this time.
#[derive(Debug, Clone)]
pub struct ItemFailure {
    /// For people.
    pub reason: String,
    /// When it is worth another try.
    pub again: Again,
}

/// When an item is worth another try.
#[derive(Debug, Clone)]
pub enum Again {
    /// Never: it is given up.
    Never,
    /// After this long. So many tries are made at most.
    After(Duration),
    /// When `back` is cancelled, or at the latest at this time. It does not count as a try, and others have its place
    /// meanwhile.
    When {
        /// What it waits for.
        back: CancellationToken,
        /// When it is to be looked at again in any case.
        at_last: Instant,
    },
}

impl From<Option<Duration>> for Again {
    fn from(wait: Option<Duration>) -> Self {
        wait.map_or(Self::Never, Self::After)
    }
}

impl ItemFailure {
    /// A setback that is final.
    pub(crate) fn giving_up(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), again: Again::Never }
    }
}
