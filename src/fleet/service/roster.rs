//! The fleet as rules look at it: all agents at once, by number.

use crate::base::bits::Bits;
use crate::base::digest::Digest;
use crate::base::signal::Follower;
use crate::fleet::agent::Agent;
use crate::fleet::service::Fleet;

impl Fleet {
    /// Whether every agent was reached since the server started, be it lost again by now.
    pub(crate) fn is_complete(&self) -> bool {
        self.index.read().agents.iter().flatten().all(|entry| entry.agent.about.is_some())
    }

    /// All agents by id, whoever asks, each with the number that [`Fleet::held_by`] knows it by.
    pub(crate) fn roster(&self) -> Vec<(usize, Agent)> {
        let index = self.index.read();
        let numbered = index.numbers.values().filter_map(|number| Some((*number, index.by_number(*number)?)));
        numbered.map(|(number, entry)| (number, entry.agent.clone())).collect()
    }

    /// The numbers of the agents that hold this digest, by their last reports.
    pub(crate) fn held_by(&self, digest: &Digest) -> Bits {
        self.index.read().holdings.holders(digest).cloned().unwrap_or_default()
    }

    /// Tells of every change of the agents and of what they hold.
    pub(crate) fn changes(&self) -> Follower {
        self.index.read().changes.follow()
    }
}
