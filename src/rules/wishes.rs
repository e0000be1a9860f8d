//! What the rules want of one image on one agent.

use crate::catalog::image::ImageRecord;
use crate::fleet::agent::Agent;
use crate::fleet::evaluate::{Inventory, evaluate_known};
use crate::rules::backoff::{Backoffs, Moment};
use crate::rules::pattern::ImagePattern;
use crate::rules::rule::{Rule, parsed};
use crate::rules::service::{Rules, Told};
use crate::rules::window::WindowState;
use crate::transfer::explain::{Hindrance, Wish};

impl Rules {
    /// What each rule that names an image and an agent is about to do there, by the rules' names.
    pub(crate) async fn wishes(&self, image: &ImageRecord, agent: &Agent) -> Vec<Wish> {
        let named: Vec<Told> = self.book.told(self.now(), |rule| names(rule, image, agent));
        if named.is_empty() {
            return Vec::new();
        }
        let memory = self.memory.lock().await;
        let held_back = self.held_back(&memory.backoffs, image, agent);
        let wish = |told: Told| Wish {
            hindrance: hindrance(&told, held_back.clone()),
            rule: told.rule.name.clone(),
        };
        named.into_iter().map(wish).collect()
    }

    fn held_back(&self, backoffs: &Backoffs, image: &ImageRecord, agent: &Agent) -> Option<Hindrance> {
        let (id, digest) = (&agent.record.id, &image.digest);
        let now = Moment { day: self.now(), steady: self.clock.steady() };
        let (backoff, until) = backoffs.standing(id, digest, now)?;
        let reason = backoff.reason.clone();
        Some(Hindrance::HeldBack { until, failures: backoff.failures, reason })
    }
}

/// Whether a rule wants an image on an agent. Each part of an expression says of an agent by itself whether it is
/// meant, so the other agents need not be looked at.
fn names(rule: &Rule, image: &ImageRecord, agent: &Agent) -> bool {
    let name = image.canonical();
    rule.architecture.as_deref().is_none_or(|one| one == image.architecture)
        && ImagePattern::parse(&rule.images).is_ok_and(|pattern| pattern.ready().takes(name.as_str()))
        && parsed(&rule.target_agents)
            .is_ok_and(|agents| !evaluate_known(&agents, &Inventory::new([agent.view()])).names.is_empty())
}

/// What keeps a rule from loading an image; of a window and a failure, what lasts longer.
fn hindrance(told: &Told, held_back: Option<Hindrance>) -> Hindrance {
    if !told.rule.enabled {
        return Hindrance::Disabled;
    }
    let opens = match told.standing {
        Some(WindowState::Closed(opens)) => Some(opens),
        _ => None,
    };
    match (opens, held_back) {
        (Some(Some(opens)), Some(Hindrance::HeldBack { until, failures, reason })) if until > opens => {
            Hindrance::HeldBack { until, failures, reason }
        }
        (Some(opens), _) => Hindrance::Window(opens),
        (None, Some(held_back)) => held_back,
        (None, None) => Hindrance::None(told.status.as_ref().and_then(|status| status.problem.clone())),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use jiff::Timestamp;

    use super::{hindrance, names};
    use crate::access::caller::Caller;
    use crate::fleet::agent::{Agent, AgentRecord, Status};
    use crate::rules::rule::{Rule, RuleChange};
    use crate::rules::service::Told;
    use crate::rules::tests::image;
    use crate::rules::window::WindowState;
    use crate::transfer::explain::Hindrance;

    fn rule(images: &str, agents: &str, architecture: &str) -> Rule {
        let wanted = RuleChange {
            images: Some(images.into()),
            target_agents: Some(agents.into()),
            architecture: Some(architecture.into()),
            ..RuleChange::default()
        };
        Rule::new("nightly", wanted, &Caller::superadmin(), Timestamp::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn a_rule_names_an_image_on_an_agent_by_its_pattern_its_expression_and_its_architecture() {
        let record = AgentRecord {
            id: "gpu02".into(),
            address: String::new(),
            engine_id: None,
            scaling_group: "lab".into(),
            labels: BTreeMap::from([("zone".into(), "a".into())]),
            first_contact: Timestamp::UNIX_EPOCH,
            remote: false,
            draining: false,
        };
        let status = Status::Alive;
        let agent = Agent { record, status, away: None, about: None, disk: None, has_reported: true };
        for (images, agents, architecture, expected) in [
            ("cr.lab/a:*", "gpu[01-03]", "", true),
            ("cr.lab/a:*", "*", "x86_64", true),
            ("cr.lab/a:*", "*", "aarch64", false),
            ("cr.lab/b:*", "*", "", false),
            ("*", "gpu[01-03]!gpu02", "", false),
            ("*", "gpu[03-04]", "", false),
            ("*", "@lab", "", true),
            ("*", "@other", "", false),
            ("*", "*&{zone=a}", "", true),
            ("*", "*!{zone=a}", "", false),
        ] {
            let rule = rule(images, agents, architecture);
            let image = image("a:1", "x86_64");
            assert_eq!(names(&rule, &image.record, &agent), expected, "{images} {agents} {architecture}");
        }
    }

    #[test]
    fn of_a_window_and_a_failure_the_one_that_lasts_longer_is_told() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let held = |until| Hindrance::HeldBack { until: at(until), failures: 1, reason: "x".into() };
        let told = |enabled, standing| {
            let rule = Arc::new(Rule { enabled, ..rule("*", "*", "") });
            Told { rule, status: None, standing }
        };
        let closed = Some(WindowState::Closed(Some(at(5))));
        let open = Some(WindowState::Open(at(5)));
        assert_eq!(hindrance(&told(false, closed), Some(held(9))), Hindrance::Disabled);
        assert_eq!(hindrance(&told(true, closed), None), Hindrance::Window(Some(at(5))));
        assert_eq!(hindrance(&told(true, closed), Some(held(4))), Hindrance::Window(Some(at(5))));
        assert_eq!(hindrance(&told(true, closed), Some(held(9))), held(9));
        assert_eq!(hindrance(&told(true, open), Some(held(4))), held(4));
        assert_eq!(hindrance(&told(true, open), None), Hindrance::None(None));
    }
}
