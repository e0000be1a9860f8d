//! What the rounds remember of each other.

use std::collections::{HashMap, HashSet};

use crate::base::ids::TaskId;
use crate::rules::backoff::Backoffs;
use crate::rules::watched::Watched;

/// What the rounds remember.
pub(in crate::rules) struct Memory {
    /// What came to nothing lately.
    pub(in crate::rules) setbacks: Backoffs,
    /// The tasks whose end is yet to be taken note of.
    pub(in crate::rules) watched: HashMap<TaskId, Watched>,
    /// Whether nothing was taken note of yet since the server started.
    pub(in crate::rules) is_new: bool,
    /// Those of them that were cancelled because their agents were lost: that is nobody's wish.
    pub(in crate::rules) withdrawn: HashSet<TaskId>,
}

impl Memory {
    /// Nothing but what the store has.
    pub(in crate::rules) fn new(setbacks: Backoffs) -> Self {
        Self { setbacks, watched: HashMap::new(), is_new: true, withdrawn: HashSet::new() }
    }
}
