//! What is told of a rule: how it stood when it was looked at last.

use jiff::Timestamp;

use crate::base::ids::TaskId;
use crate::rules::schedule::Tally;

/// How a rule stood when it was looked at last. Counts are of images on agents.
#[derive(Debug, Default)]
pub struct Status {
    /// When that was.
    pub at: Timestamp,
    /// How many images its pattern takes, by name.
    pub images: usize,
    /// Whether these are more than are looked after.
    pub is_cut: bool,
    /// How many agents its expression names.
    pub agents: usize,
    /// The same, folded.
    pub folded: String,
    /// Names in the expression that are nobody's, the first of them; and how many there are.
    pub unknown: Vec<String>,
    /// How many of those there are.
    pub unknown_count: usize,
    /// Agents that can't be given anything now, the first of them.
    pub away: Vec<Away>,
    /// How many of those there are.
    pub away_count: usize,
    /// What is there.
    pub present: usize,
    /// What is not.
    pub tally: Tally,
    /// What waits for a reason of its own, the first of it.
    pub waiting: Vec<Waiting>,
    /// What it began last.
    pub begun: Option<Begun>,
    /// Why what could begin did not.
    pub problem: Option<String>,
}

impl Status {
    /// How often an image is missing on an agent.
    pub fn missing(&self) -> usize {
        let Tally { begun, loading, due, held_back, unfit } = self.tally;
        begun + loading + due + held_back + unfit
    }
}

/// An agent that can't be given anything now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Away {
    /// The agent.
    pub agent: String,
    /// Why.
    pub reason: String,
}

/// An image that waits on an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The agent.
    pub agent: String,
    /// The image's canonical name.
    pub image: String,
    /// Why.
    pub reason: String,
    /// When it is tried again, where that is a matter of time.
    pub until: Option<Timestamp>,
}

/// What a rule began in one round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// When.
    pub at: Timestamp,
    /// The tasks.
    pub tasks: Vec<TaskId>,
    /// How many images on agents.
    pub count: usize,
}
