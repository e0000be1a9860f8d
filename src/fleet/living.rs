//! The agents that answer now, by scaling group, and what they hold together.

use std::collections::{BTreeSet, HashMap};
use std::sync::OnceLock;

use crate::base::bits::Bits;
use crate::fleet::presence::Holdings;

/// The agents of each scaling group that are alive, by their numbers.
#[derive(Default)]
pub struct Living(HashMap<String, Group>);

#[derive(Default)]
struct Group {
    agents: Bits,
    /// What they hold, since somebody asked and nothing changed; see [`Holdings::held_by`].
    held: OnceLock<Bits>,
}

impl Living {
    /// The agents of a scaling group, to be changed, or because one of them holds something else: what they hold is found
    /// out anew when somebody asks.
    pub fn change(&mut self, scaling_group: &str) -> &mut Bits {
        let group = self.0.entry(scaling_group.into()).or_default();
        group.held = OnceLock::new();
        &mut group.agents
    }

    /// What at least one agent of these scaling groups, or of all, holds, by number.
    pub fn held(&self, scaling_groups: Option<&BTreeSet<String>>, holdings: &Holdings) -> Bits {
        let mut held = Bits::default();
        for (name, group) in &self.0 {
            if scaling_groups.is_none_or(|wanted| wanted.contains(name)) {
                held.union_with(group.held.get_or_init(|| holdings.held_by(&group.agents)));
            }
        }
        held
    }

    /// Which of these agents are alive, by scaling group; none that has none of them.
    pub fn among<'a>(&'a self, agents: &'a Bits) -> impl Iterator<Item = (&'a str, Bits)> {
        self.0.iter().filter(|(_, group)| group.agents.meets(agents)).map(|(name, group)| {
            let mut both = agents.clone();
            both.intersect_with(&group.agents);
            (name.as_str(), both)
        })
    }
}
