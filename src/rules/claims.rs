//! What the rules want on agents, for those who would make room there.

use std::sync::Arc;

use crate::catalog::image::ImageRecord;
use crate::rules::book::Book;
use crate::rules::pattern::ImagePattern;
use crate::rules::rule::Rule;
use crate::rules::service::Rules;
use crate::rules::status::Status;
use crate::transfer::demand::{Claim, Claims};

/// The rules that are switched on; their windows do not count.
pub(crate) struct RuleClaims(Book<Rule, Status>);

impl Rules {
    /// What the rules want, now and later.
    pub(crate) fn claims(&self) -> Arc<dyn Claims> {
        Arc::new(RuleClaims(self.book.clone()))
    }
}

impl Claims for RuleClaims {
    fn all(&self) -> Vec<Claim> {
        let claim = |rule: Arc<Rule>| {
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
        self.0.enabled().into_iter().map(claim).collect()
    }
}
