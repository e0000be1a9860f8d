//! The fleet's answers to other modules that decide who may see or remove an image.

use std::collections::BTreeSet;

use crate::access::directory::AgentDirectory;
use crate::access::visibility::PresenceIndex;
use crate::base::bits::Bits;
use crate::base::identity::Identity;
use crate::fleet::index::{Entry, Index};
use crate::fleet::service::Fleet;

impl PresenceIndex for Fleet {
    fn number(&self, name: &str, image: &Identity<'_>) -> u32 {
        let mut index = self.index.write();
        let Index { holdings, alive_groups, .. } = &mut *index;
        let number = holdings.number(name, image);
        alive_groups.renumber(number, holdings);
        number
    }

    fn forget(&self, image: u32) {
        let mut index = self.index.write();
        let Index { holdings, alive_groups, .. } = &mut *index;
        holdings.forget(image);
        alive_groups.renumber(image, holdings);
    }

    fn held(&self, scaling_groups: Option<&BTreeSet<String>>) -> Bits {
        let index = self.index.read();
        index.alive_groups.held(scaling_groups, &index.holdings)
    }

    fn scaling_groups(&self, image: u32) -> Vec<String> {
        let index = self.index.read();
        let Some(holders) = index.holdings.holders(image) else { return Vec::new() };
        let mut groups: Vec<String> =
            index.alive_groups.among(holders).map(|(group, _)| group.into()).collect();
        groups.sort();
        groups
    }

    fn agents(&self, image: u32) -> Vec<String> {
        let index = self.index.read();
        let Some(holders) = index.holdings.holders(image) else { return Vec::new() };
        let numbers =
            index.alive_groups.among(holders).flat_map(|(_, agents)| agents.iter().collect::<Vec<_>>());
        let named = numbers.filter_map(|number| index.by_number(number));
        let mut agents: Vec<String> = named.map(|entry| entry.agent.record.id.clone()).collect();
        agents.sort();
        agents
    }

    fn is_stale(&self, name: &str, image: &Identity<'_>) -> bool {
        let index = self.index.read();
        let is_of = |entry: &Entry| entry.agent.is_alive() && entry.agent.is_of(image.architecture);
        let stale = index.holdings.stale(name, image);
        stale.iter().any(|number| index.by_number(number).is_some_and(is_of))
    }
}

impl AgentDirectory for Fleet {
    fn agents_in(&self, scaling_group: &str) -> Vec<String> {
        let index = self.index.read();
        let agents = index.sorted().map(|entry| &entry.agent.record);
        agents
            .filter(|record| record.scaling_group == scaling_group)
            .map(|record| record.id.clone())
            .collect()
    }
}
