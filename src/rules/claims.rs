//! What the rules want on agents, for those who would make room there.

use std::sync::Arc;

use parking_lot::RwLock;

use crate::catalog::image::ImageRecord;
use crate::rules::pattern::ImagePattern;
use crate::rules::rule::Rule;
use crate::rules::service::{Index, Rules};
use crate::transfer::demand::{Claim, Claims};

/// The rules that are switched on; their windows do not count.
pub(crate) struct RuleClaims(Arc<RwLock<Index>>);

impl Rules {
    /// What the rules want, now and later.
    pub(crate) fn claims(&self) -> Arc<dyn Claims> {
        Arc::new(RuleClaims(Arc::clone(&self.index)))
    }
}

impl Claims for RuleClaims {
    fn all(&self) -> Vec<Claim> {
        let index = self.0.read();
        let enabled = index.rules.values().filter(|rule| rule.enabled);
        let claim = |rule: &Arc<Rule>| {
            let architecture = rule.architecture.clone();
            // A rule that can't be read loads nothing, but what it wants is not known to be unwanted.
            let pattern = ImagePattern::parse(&rule.images).ok();
            let wants = move |image: &ImageRecord| {
                architecture.as_ref().is_none_or(|one| *one == image.architecture)
                    && pattern
                        .as_ref()
                        .is_none_or(|pattern| pattern.ready().takes(image.canonical().as_str()))
            };
            Claim {
                by: format!("rule {}", rule.name),
                target_agents: rule.target_agents.clone(),
                wants: Box::new(wants),
            }
        };
        enabled.map(claim).collect()
    }
}
