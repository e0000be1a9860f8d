//! What one round remembers for the next.

use std::collections::{HashMap, HashSet};

use crate::base::ids::TaskId;
use crate::rules::backoff::Backoffs;
use crate::rules::watched::Watched;

/// What the rounds remember.
pub(in crate::rules) struct Memory {
    /// The pairs that failed lately.
    pub(in crate::rules) backoffs: Backoffs,
    /// The tasks whose end is not yet noted.
    pub(in crate::rules) watched: HashMap<TaskId, Watched>,
    /// Whether no round has noted anything since the server started.
    pub(in crate::rules) is_new: bool,
    /// Those of the tasks that were cancelled because their agents were lost: no user wanted that, so it does not
    /// count as cancelled.
    pub(in crate::rules) withdrawn: HashSet<TaskId>,
}

impl Memory {
    /// Starts with only the backoffs from the store.
    pub(in crate::rules) fn new(backoffs: Backoffs) -> Self {
        Self { backoffs, watched: HashMap::new(), is_new: true, withdrawn: HashSet::new() }
    }
}
