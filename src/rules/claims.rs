//! What the rules want on an agent, for those who would make room there.

use std::sync::Arc;

use parking_lot::RwLock;

use crate::fleet::agent::Agent;
use crate::fleet::evaluate::{Inventory, evaluate_known};
use crate::rules::pattern::ImagePattern;
use crate::rules::rule::parsed;
use crate::rules::service::{Index, Rules};
use crate::transfer::rooms::{Claim, Claims};

/// The rules that are switched on; their windows do not count.
pub(crate) struct RuleClaims(Arc<RwLock<Index>>);

impl Rules {
    /// What the rules want, now and later.
    pub(crate) fn claims(&self) -> Arc<dyn Claims> {
        Arc::new(RuleClaims(Arc::clone(&self.index)))
    }
}

impl Claims for RuleClaims {
    fn on(&self, agent: &Agent) -> Claim {
        let inventory = Inventory::new([agent.view()]);
        let index = self.0.read();
        let enabled = index.rules.values().filter(|rule| rule.enabled);
        // A rule that can't be read loads nothing, but what it wants is not known to be unwanted.
        let meant = enabled.filter(|rule| {
            parsed(&rule.target_agents)
                .map_or(true, |agents| !evaluate_known(&agents, &inventory).names.is_empty())
        });
        let wishes: Vec<_> = meant
            .map(|rule| {
                let pattern = ImagePattern::parse(&rule.images).ok();
                (rule.name.clone(), rule.architecture.clone(), pattern)
            })
            .collect();
        Box::new(move |image| {
            let name = image.canonical();
            let wish = wishes.iter().find(|(_, architecture, pattern)| {
                architecture.as_ref().is_none_or(|one| *one == image.architecture)
                    && pattern.as_ref().is_none_or(|pattern| pattern.ready().takes(name.as_str()))
            });
            wish.map(|(rule, ..)| format!("rule {rule}"))
        })
    }
}
