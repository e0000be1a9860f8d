//! What a task is: its items, their states, and the account it gives at the end.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::base::error::Code;
use crate::base::ids::{TaskId, UserId};

/// How many skipped and failed references an item's ledger names; the counts go on beyond it.
pub(crate) const MAX_LEDGER_ENTRIES: usize = 1_000;

/// What a task does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// Read registries into the catalog.
    Rescan,
    /// Load an image onto agents.
    Preload,
    /// Take an image off agents.
    Unload,
}

impl TaskKind {
    /// The word used in the API.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Rescan => "rescan",
            Self::Preload => "preload",
            Self::Unload => "unload",
        }
    }
}

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Accepted; it runs, or goes on after a restart.
    Started,
    /// It did what it could; its ledger says what failed on the way.
    Done,
    /// Nothing of it could be done.
    Failed,
    /// Somebody stopped it.
    Cancelled,
}

impl State {
    /// The word used in the API.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Where an item stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ItemState {
    /// Not begun, or to be begun again.
    Waiting,
    /// Being worked on.
    Running,
    /// Finished.
    Done,
    /// Given up, with a reason.
    Failed,
    /// Stopped before its end.
    Cancelled,
}

impl ItemState {
    /// The word used in the API.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more will happen to it.
    pub(crate) fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// A task, without its items.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Task {
    /// Its id, which survives restarts.
    pub(crate) id: TaskId,
    /// What it does.
    pub(crate) kind: TaskKind,
    /// What it does it to, for people: a registry, an image.
    pub(crate) subject: String,
    /// Who asked for it.
    pub(crate) owner: UserId,
    /// Where it stands.
    pub(crate) state: State,
    /// The last thing worth saying about it.
    pub(crate) message: String,
    /// When it was asked for.
    pub(crate) created_at: Timestamp,
    /// When it ended.
    #[serde(default)]
    pub(crate) ended_at: Option<Timestamp>,
    /// How far it came: the sum over its items, kept once it has ended and the items are no longer in memory.
    #[serde(default)]
    pub progress: Progress,
    /// Whether every one of its items is kept once it has ended, none folded into another: the place of an item in the
    /// list is its number then.
    #[serde(default)]
    pub(crate) unfolded: bool,
    /// The account of all its items, once it has ended.
    #[serde(default)]
    pub(crate) ledger: Ledger,
    /// Whether somebody asked for it to stop; kept so that a restart does not forget.
    #[serde(default)]
    pub(crate) cancel_requested: bool,
    /// The agents it is for.
    #[serde(default)]
    pub(crate) targets: Option<Targets>,
}

/// A set of agents, resolved once when the task was made: agents that come later are not in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Targets {
    /// As it was asked for.
    pub(crate) expression: String,
    /// As it was then, folded.
    pub(crate) folded: String,
    /// The standing rule that asked for it; none where a person did.
    #[serde(default)]
    pub(crate) rule: Option<String>,
}

/// One piece of a task: a repository to read, an image to load on one agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Item {
    /// Its place in the task, counted from 0.
    pub number: u32,
    /// What it is about, for people.
    pub(crate) name: String,
    /// The image and the agent it is about, in tasks that are about such.
    #[serde(default)]
    pub(crate) pair: Option<Pair>,
    /// Items of a phase begin when all of the phases before have ended.
    pub(crate) phase: u8,
    /// Where it stands.
    pub(crate) state: ItemState,
    /// How often it was begun.
    pub attempts: u32,
    /// Why it failed, or is waiting.
    #[serde(default)]
    pub reason: Option<String>,
    /// When it was first begun.
    #[serde(default)]
    pub(crate) started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default)]
    pub(crate) ended_at: Option<Timestamp>,
    /// Not to be begun before this time.
    #[serde(default)]
    pub(crate) not_before: Option<Timestamp>,
    /// How far it is.
    #[serde(default)]
    pub(crate) progress: Progress,
    /// What came of it.
    #[serde(default)]
    pub(crate) ledger: Ledger,
    /// What its worker needs to know, in the worker's own encoding.
    #[serde(with = "serde_bytes")]
    pub(crate) work: Vec<u8>,
}

impl Item {
    /// Whether it ended well and changed nothing: there is nothing to say of it but how much is as it was.
    pub(crate) fn is_quiet(&self) -> bool {
        let Ledger { added, updated, unchanged: _, removed, skipped, failed } = &self.ledger;
        let changed = added + updated + removed + skipped.count + failed.count;
        self.state == ItemState::Done && self.reason.is_none() && changed == 0
    }
}

/// An image on an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// The agent's id.
    pub agent: String,
    /// The image's canonical name.
    pub image: String,
}

/// Which items of a task are asked for, in the order of their numbers.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// Only those to which nothing more will happen, or only the others.
    pub is_final: Option<bool>,
    /// How many are left out at first.
    pub offset: usize,
    /// How many there are at most.
    pub limit: usize,
}

impl Page {
    /// All items.
    pub(crate) const ALL: Self = Self { is_final: None, offset: 0, limit: usize::MAX };
}

/// An item to be added to a task.
#[derive(Debug, Clone)]
pub struct NewItem {
    /// What it is about, for people.
    pub name: String,
    /// See [`Item::pair`].
    pub pair: Option<Pair>,
    /// See [`Item::phase`].
    pub phase: u8,
    /// See [`Item::work`].
    pub work: Vec<u8>,
}

impl NewItem {
    /// The item with this place in its task, not begun.
    pub(crate) fn numbered(self, number: u32) -> Item {
        Item {
            number,
            name: self.name,
            pair: self.pair,
            phase: self.phase,
            state: ItemState::Waiting,
            attempts: 0,
            reason: None,
            started_at: None,
            ended_at: None,
            not_before: None,
            progress: Progress::default(),
            ledger: Ledger::default(),
            work: self.work,
        }
    }
}

/// How much of it is done, in the worker's own unit (tags, bytes). A total of 0 is "not known yet".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Done so far.
    pub current: u64,
    /// All there is to do.
    pub total: u64,
}

impl std::iter::Sum for Progress {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), |sum, part| Self {
            current: sum.current.saturating_add(part.current),
            total: sum.total.saturating_add(part.total),
        })
    }
}

/// What a task changed, passed over and could not do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ledger {
    /// New in the catalog.
    pub added: u64,
    /// Changed in the catalog.
    pub updated: u64,
    /// Seen, and as it was.
    pub unchanged: u64,
    /// Taken out of the catalog.
    pub removed: u64,
    /// Passed over, each with its reason.
    pub skipped: Remarks,
    /// Not done, each with its reason.
    pub failed: Remarks,
}

impl Ledger {
    /// The account in one line, in the words of what was done.
    pub(crate) fn summary(&self, kind: TaskKind) -> String {
        let (skipped, failed) = (self.skipped.count, self.failed.count);
        match kind {
            TaskKind::Rescan => format!(
                "{} added, {} updated, {} unchanged, {} removed, {skipped} skipped, {failed} failed",
                self.added, self.updated, self.unchanged, self.removed
            ),
            TaskKind::Preload => {
                format!("{} loaded, {} already there, {failed} failed", self.added, self.unchanged)
            }
            TaskKind::Unload => format!("{} removed, {skipped} not there, {failed} failed", self.removed),
        }
    }
}

/// References with a reason each: all counted, the first [`MAX_LEDGER_ENTRIES`] named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remarks {
    /// How many there are.
    pub(crate) count: u64,
    /// Those that are named.
    pub(crate) named: Vec<Remark>,
}

impl Remarks {
    /// Adds one.
    pub(crate) fn push(&mut self, reference: impl Into<String>, reason: impl Into<String>) {
        self.add(Remark { reference: reference.into(), reason: reason.into(), code: None });
    }

    /// Adds one that a program may go by.
    pub(crate) fn push_coded(&mut self, reference: impl Into<String>, reason: impl Into<String>, code: Code) {
        self.add(Remark { reference: reference.into(), reason: reason.into(), code: Some(code) });
    }

    fn add(&mut self, remark: Remark) {
        self.count += 1;
        if self.named.len() < MAX_LEDGER_ENTRIES {
            self.named.push(remark);
        }
    }

    /// Counts more of them that have no name here.
    pub(crate) fn add_unnamed(&mut self, count: u64) {
        self.count += count;
    }
}

/// One reference and why it is in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Remark {
    /// What it is about.
    pub(crate) reference: String,
    /// Why.
    pub(crate) reason: String,
    /// What kind of failure it is, where a program may go by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<Code>,
}

#[cfg(test)]
mod tests {
    use super::{Ledger, MAX_LEDGER_ENTRIES};

    #[test]
    fn a_ledger_names_a_bounded_number_and_counts_them_all() {
        let mut one = Ledger::default();
        for n in 0..2 * MAX_LEDGER_ENTRIES {
            one.skipped.push(format!("a:{n}"), "why");
        }
        assert_eq!(one.skipped.count, 2 * MAX_LEDGER_ENTRIES as u64);
        assert_eq!(one.skipped.named.len(), MAX_LEDGER_ENTRIES);
    }
}
