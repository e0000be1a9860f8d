//! Expressions for sets of agents: the test vectors that define them, the laws they obey, and a comparison with
//! ClusterShell.

mod clustershell;
mod laws;
mod vectors;

use std::collections::{BTreeMap, BTreeSet};

use wharf::fleet::error::ExpressionError;
use wharf::fleet::evaluate::{Agent, Inventory, evaluate};
use wharf::fleet::expression::Expression;

/// A lab from which inventories borrow.
#[derive(Default)]
struct Lab {
    /// Labels by agent; `arch` is the built-in label.
    agents: BTreeMap<String, BTreeMap<String, String>>,
    groups: BTreeMap<String, BTreeSet<String>>,
}

impl Lab {
    fn inventory(&self) -> Inventory<'_> {
        let agents = self.agents.iter().map(|(name, labels)| Agent {
            arch: labels.get("arch").map(String::as_str),
            ..Agent::new(name, labels)
        });
        self.groups.iter().fold(Inventory::new(agents), |inventory, (name, members)| {
            inventory.with_group(name, members.iter().map(String::as_str))
        })
    }

    fn add(&mut self, name: impl Into<String>, labels: &[(&str, &str)]) {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.agents.insert(name.into(), labels);
    }

    fn find(&self, text: &str) -> Result<BTreeSet<String>, ExpressionError> {
        let expression = Expression::parse(text)?;
        let inventory = self.inventory();
        let found = evaluate(&expression, &inventory)?;
        Ok(found.names().iter().map(|name| (*name).to_owned()).collect())
    }
}

/// Numbers that look random and are the same every time (`SplitMix64`).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % sides as u64).expect("less than a usize")
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.roll(from.len())]
    }
}
