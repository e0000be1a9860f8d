//! What is told of a rule: how it stood when it was looked at last.

use jiff::Timestamp;

use crate::base::ids::TaskId;
use crate::rules::schedule::Tally;

/// How a rule stood when it was looked at last. Counts are of images on agents.
#[derive(Debug, Default)]
pub(crate) struct Status {
    /// When that was.
    pub(crate) at: Timestamp,
    /// How many images its pattern takes, by name.
    pub(crate) images: usize,
    /// Whether these are more than are looked after.
    pub(crate) is_cut: bool,
    /// How many agents its expression names.
    pub(crate) agents: usize,
    /// The same, folded.
    pub(crate) folded: String,
    /// Names in the expression that are nobody's, the first of them; and how many there are.
    pub(crate) unknown: Vec<String>,
    /// How many of those there are.
    pub(crate) unknown_count: usize,
    /// Agents that can't be given anything now, the first of them.
    pub(crate) away: Vec<Away>,
    /// How many of those there are.
    pub(crate) away_count: usize,
    /// What is there.
    pub(crate) present: usize,
    /// What is not.
    pub(crate) tally: Tally,
    /// What waits for a reason of its own, the first of it.
    pub(crate) waiting: Vec<Waiting>,
    /// What it began last.
    pub(crate) begun: Option<Begun>,
    /// Why what could begin did not.
    pub(crate) problem: Option<String>,
}

impl Status {
    /// How often an image is missing on an agent.
    pub(crate) fn missing(&self) -> usize {
        let Tally { begun, loading, due, held_back, unfit } = self.tally;
        begun + loading + due + held_back + unfit
    }
}

/// An agent that can't be given anything now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Away {
    /// The agent.
    pub(crate) agent: String,
    /// Why.
    pub(crate) reason: String,
}

/// An image that waits on an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// The agent.
    pub(crate) agent: String,
    /// The image's canonical name.
    pub(crate) image: String,
    /// Why.
    pub(crate) reason: String,
    /// When it is tried again, where that is a matter of time.
    pub(crate) until: Option<Timestamp>,
}

/// What a rule began in one round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Begun {
    /// When.
    pub(crate) at: Timestamp,
    /// The tasks.
    pub(crate) tasks: Vec<TaskId>,
    /// How many images on agents.
    pub(crate) count: usize,
}
