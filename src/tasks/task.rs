//! What a task is: its items, their states, and the ledger it has at the end.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::base::error::Code;
use crate::base::ids::{TaskId, UserId};

/// How many skipped and how many failed references a ledger names; any further ones are only counted.
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
    /// The word for it in the API.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Rescan => "rescan",
            Self::Preload => "preload",
            Self::Unload => "unload",
        }
    }
}

/// The state of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Accepted: the task is running, or continues after a restart.
    Started,
    /// The task did what it could; its ledger says what failed.
    Done,
    /// The task could do nothing.
    Failed,
    /// A user cancelled it.
    Cancelled,
}

impl State {
    /// The word for it in the API.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The state of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ItemState {
    /// Not begun, or due to be begun again.
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
    /// The word for it in the API.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the item has ended and will not change again.
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
    /// What it acts on, for people: a registry, an image.
    pub(crate) subject: String,
    /// The user who asked for it.
    pub(crate) owner: UserId,
    /// Its state.
    pub(crate) state: State,
    /// The latest message about it.
    pub(crate) message: String,
    /// When it was asked for.
    pub(crate) created_at: Timestamp,
    /// When it ended.
    #[serde(default)]
    pub(crate) ended_at: Option<Timestamp>,
    /// Its progress: the sum over its items, stored because an ended task has no items in memory.
    #[serde(default)]
    pub progress: Progress,
    /// Whether every item is kept after the task has ended, with none folded into another. If so, an item's place in
    /// the list is its number.
    #[serde(default)]
    pub(crate) unfolded: bool,
    /// The ledger of all its items, once it has ended.
    #[serde(default)]
    pub(crate) ledger: Ledger,
    /// Whether a user asked for it to stop; stored, so that a restart does not forget it.
    #[serde(default)]
    pub(crate) cancel_requested: bool,
    /// The agents it acts on.
    #[serde(default)]
    pub(crate) targets: Option<Targets>,
}

/// A set of agents. It is resolved once, when the task is made: agents that join later are not in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Targets {
    /// The expression as the caller wrote it.
    pub(crate) expression: String,
    /// The agents that it acts on, of those that the expression meant at that time, folded into a short form.
    pub(crate) folded: String,
    /// The id of the standing rule that asked for it; none if a person did.
    #[serde(default)]
    pub(crate) rule: Option<String>,
    /// The retention rule that asked for it; none if another did.
    #[serde(default)]
    pub(crate) retention: Option<String>,
    /// The one architecture of images that it acts on; none if it acts on each agent's own.
    #[serde(default)]
    pub(crate) architecture: Option<String>,
    /// How many agents that the expression meant were left out, because theirs is another architecture.
    #[serde(default)]
    pub(crate) left_out: usize,
}

/// One unit of a task: a repository to read, an image to load on one agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Item {
    /// Its place in the task, counted from 0.
    pub number: u32,
    /// What it works on, for people.
    pub(crate) name: String,
    /// The image and the agent it works on, in tasks whose items have these.
    #[serde(default)]
    pub(crate) pair: Option<Pair>,
    /// The item's phase. Items of a phase begin when all earlier phases have ended.
    pub(crate) phase: u8,
    /// Its state.
    pub(crate) state: ItemState,
    /// How many times it was begun.
    pub attempts: u32,
    /// Why it failed, or what it waits for.
    #[serde(default)]
    pub reason: Option<String>,
    /// When it was first begun.
    #[serde(default)]
    pub(crate) started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default)]
    pub(crate) ended_at: Option<Timestamp>,
    /// The time before which it must not begin again.
    #[serde(default)]
    pub(crate) not_before: Option<Timestamp>,
    /// Its progress.
    #[serde(default)]
    pub(crate) progress: Progress,
    /// Its results.
    #[serde(default)]
    pub(crate) ledger: Ledger,
    /// What its worker needs to know, in the worker's own encoding.
    #[serde(with = "serde_bytes")]
    pub(crate) work: Vec<u8>,
}

impl Item {
    /// Whether it ended well and changed nothing, so that the number of unchanged things is all there is to say.
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

/// Which items of a task a caller asks for, in the order of their numbers.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// `true` for only those that have ended, `false` for only those that have not.
    pub is_final: Option<bool>,
    /// How many matching items to skip.
    pub offset: usize,
    /// How many items to return at most.
    pub limit: usize,
}

impl Page {
    /// All items.
    pub(crate) const ALL: Self = Self { is_final: None, offset: 0, limit: usize::MAX };
}

/// An item to be added to a task.
#[derive(Debug, Clone)]
pub struct NewItem {
    /// What it works on, for people.
    pub name: String,
    /// See [`Item::pair`].
    pub pair: Option<Pair>,
    /// See [`Item::phase`].
    pub phase: u8,
    /// See [`Item::work`].
    pub work: Vec<u8>,
}

impl NewItem {
    /// The item with this number in its task, not begun.
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

/// How much is done, in the worker's own unit (tags, bytes). A total of 0 means "not known yet".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Done so far.
    pub current: u64,
    /// The amount to do in all.
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

/// What a task changed, skipped and failed to do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ledger {
    /// Entries new in the catalog.
    pub added: u64,
    /// Entries changed in the catalog.
    pub updated: u64,
    /// Entries found unchanged.
    pub unchanged: u64,
    /// Entries removed from the catalog.
    pub removed: u64,
    /// What was skipped, each with its reason.
    pub skipped: Remarks,
    /// What failed, each with its reason.
    pub failed: Remarks,
}

impl Ledger {
    /// The ledger in one line, in words that fit the kind of task.
    pub(crate) fn summary(&self, kind: TaskKind) -> String {
        let (skipped, failed) = (self.skipped.count, self.failed.count);
        match kind {
            TaskKind::Rescan => format!(
                "{} added, {} updated, {} unchanged, {} removed, {skipped} skipped, {failed} failed",
                self.added, self.updated, self.unchanged, self.removed
            ),
            TaskKind::Preload => {
                let gone = match self.removed {
                    0 => String::new(),
                    removed => format!(", {removed} removed to make room"),
                };
                format!("{} loaded, {} already there, {failed} failed{gone}", self.added, self.unchanged)
            }
            TaskKind::Unload => {
                let kept = match self.unchanged {
                    0 => String::new(),
                    kept => format!(", {kept} kept"),
                };
                format!("{} removed, {skipped} not there, {failed} failed{kept}", self.removed)
            }
        }
    }
}

/// References with a reason each: all counted, the first [`MAX_LEDGER_ENTRIES`] named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remarks {
    /// How many there are.
    pub(crate) count: u64,
    /// The references that are named.
    pub(crate) named: Vec<Remark>,
}

impl Remarks {
    /// Adds a reference with its reason.
    pub(crate) fn push(&mut self, reference: impl Into<String>, reason: impl Into<String>) {
        self.add(Remark { reference: reference.into(), reason: reason.into(), code: None });
    }

    /// Adds a reference with its reason and a code that programs can rely on.
    pub(crate) fn push_coded(&mut self, reference: impl Into<String>, reason: impl Into<String>, code: Code) {
        self.add(Remark { reference: reference.into(), reason: reason.into(), code: Some(code) });
    }

    fn add(&mut self, remark: Remark) {
        self.count += 1;
        if self.named.len() < MAX_LEDGER_ENTRIES {
            self.named.push(remark);
        }
    }

    /// Counts further references without naming them.
    pub(crate) fn add_unnamed(&mut self, count: u64) {
        self.count += count;
    }
}

/// One reference and why it is in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Remark {
    /// The reference.
    pub(crate) reference: String,
    /// Why it is in the ledger.
    pub(crate) reason: String,
    /// The kind of failure, where programs can rely on it.
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
