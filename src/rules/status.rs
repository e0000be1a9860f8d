//! The status of a rule, as the last round found it.

use jiff::Timestamp;

use crate::base::ids::TaskId;
use crate::rules::schedule::Tally;

/// The status of a rule, as the last round found it. Counts are of pairs of image and agent.
#[derive(Debug, Default)]
pub(crate) struct Status {
    /// The time of that round.
    pub(crate) at: Timestamp,
    /// How many images match its pattern, counted by name.
    pub(crate) images: usize,
    /// Whether more images match than are considered.
    pub(crate) is_cut: bool,
    /// How many agents its expression names, without those that are left out.
    pub(crate) agents: usize,
    /// How many agents that its expression names are left out, because their architecture is not the rule's.
    pub(crate) left_out: usize,
    /// The agents' ids folded.
    pub(crate) folded: String,
    /// Names in the expression that no agent has, the first of them.
    pub(crate) unknown: Vec<String>,
    /// How many names no agent has.
    pub(crate) unknown_count: usize,
    /// Agents that can't receive images now, the first of them.
    pub(crate) away: Vec<Away>,
    /// How many agents can't receive images now.
    pub(crate) away_count: usize,
    /// How many pairs are present.
    pub(crate) present: usize,
    /// The pairs that are missing, counted by reason.
    pub(crate) tally: Tally,
    /// Images that wait for a reason of their own, the first of them.
    pub(crate) waiting: Vec<Waiting>,
    /// What the rule last began.
    pub(crate) begun: Option<Begun>,
    /// Why what could begin did not.
    pub(crate) problem: Option<String>,
}

impl Status {
    /// How many pairs of image and agent are missing.
    pub(crate) fn missing(&self) -> usize {
        let Tally { begun, loading, due, held_back, unfit } = self.tally;
        begun + loading + due + held_back + unfit
    }
}

/// An agent that can't receive images now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Away {
    /// The agent's id.
    pub(crate) agent: String,
    /// Why it can't.
    pub(crate) reason: String,
}

/// An image that waits on an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// The agent's id.
    pub(crate) agent: String,
    /// The image's canonical name.
    pub(crate) image: String,
    /// Why it waits.
    pub(crate) reason: String,
    /// When it is tried again, if it waits for a time.
    pub(crate) until: Option<Timestamp>,
}

/// What a rule began in one round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Begun {
    /// When it began.
    pub(crate) at: Timestamp,
    /// The tasks that were started.
    pub(crate) tasks: Vec<TaskId>,
    /// How many pairs of image and agent they cover.
    pub(crate) count: usize,
}
