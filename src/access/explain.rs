//! Why somebody sees an image or does not: the verdict of the one rule in words, with what would change it.

use std::collections::BTreeSet;

use crate::access::caller::Caller;
use crate::access::tenants::Tenancy;
use crate::access::visibility::{Filter, Owner, Verdict, Viewpoint};

/// The verdict, and the conditions it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Whether the image is visible.
    pub is_visible: bool,
    /// Each condition that was asked, in the rule's order.
    pub conditions: Vec<Condition>,
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// `registry`, `owner` or `agents`.
    pub name: &'static str,
    /// What it says of this image.
    pub value: String,
    /// Whether it lets the image be seen.
    pub holds: bool,
    /// What would make it hold, if it does not.
    pub remedy: Option<String>,
}

/// What is told of the image.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The registry it comes from.
    pub registry: &'a str,
    /// Whom it is for, if it is customized.
    pub owner: Option<Owner>,
    /// The scaling groups with an agent that has it.
    pub found_in: &'a [String],
}

/// Puts a verdict into words. `asker` reads it; `seer` is whom it is about. Only a super-admin is told of tenants that
/// the seer has no part in.
pub fn explain(
    asker: &Caller,
    seer: &Caller,
    filter: &Filter,
    tenancy: &Tenancy,
    viewpoint: &Viewpoint,
    verdict: Verdict,
    facts: &Facts<'_>,
) -> Explanation {
    let question = Question { asker, seer, filter, tenancy, facts };
    let registry = Some(question.registry(verdict.registry));
    let owner = facts.owner.map(|owner| question.owner(owner, verdict.owner));
    let agents = viewpoint.scaling_groups().map(|reach| question.agents(reach, verdict.agents));
    let conditions = [registry, owner, agents].into_iter().flatten().collect();
    Explanation { is_visible: verdict.is_visible(), conditions }
}

struct Question<'a> {
    asker: &'a Caller,
    seer: &'a Caller,
    filter: &'a Filter,
    tenancy: &'a Tenancy,
    facts: &'a Facts<'a>,
}

impl Question<'_> {
    fn domain(&self) -> &str {
        self.filter.domain.as_deref().unwrap_or(&self.seer.domain)
    }

    fn registry(&self, held: Option<bool>) -> Condition {
        let (registry, domain) = (self.facts.registry, self.domain());
        let (value, remedy) = match (held, self.tenancy.domains.get(domain)) {
            (None, _) => (format!("{registry}; a super-admin sees every registry"), None),
            (Some(true), _) => (format!("{registry} is allowed in domain {domain}"), None),
            (Some(false), None) => (
                format!("domain {domain} does not exist"),
                Some(format!("move {} to a domain that exists", self.seer.email)),
            ),
            (Some(false), Some(known)) if !known.is_active => {
                (format!("domain {domain} is not active"), Some(format!("activate domain {domain}")))
            }
            (Some(false), Some(_)) => (
                format!("{registry} is not allowed in domain {domain}"),
                Some(format!("add {registry} to allowed_docker_registries of domain {domain}")),
            ),
        };
        condition("registry", value, held, remedy)
    }

    fn owner(&self, owner: Owner, held: Option<bool>) -> Condition {
        let value = match (owner, held) {
            (Owner::User(id), _) if id == self.seer.user => {
                format!("customized by {} themselves", self.seer.email)
            }
            (Owner::User(id), None) => format!("customized by user {id}; a super-admin sees everybody's"),
            (Owner::User(id), Some(_)) => format!("customized by user {id}"),
            (Owner::Nobody, _) => "customized, and its label names no user".into(),
        };
        let remedy = "a customized image is for its owner and super-admins; push it again without the label \
                      ai.backend.customized-image.owner to share it";
        condition("owner", value, held, Some(remedy.into()))
    }

    fn agents(&self, reach: &BTreeSet<String>, held: Option<bool>) -> Condition {
        let is_shown = |group: &&String| self.asker.is_superadmin() || reach.contains(*group);
        let found = listed(self.facts.found_in.iter().filter(is_shown));
        let value = format!(
            "agents that count are those of {}; it is on agents of {}",
            listed(reach.iter()).unwrap_or_else(|| "no scaling group".into()),
            found.unwrap_or_else(|| "none".into())
        );
        condition("agents", value, held, Some(self.agents_remedy(reach)))
    }

    fn agents_remedy(&self, reach: &BTreeSet<String>) -> String {
        if let Some(countable) = listed(reach.iter()) {
            return format!("load the image onto an agent of {countable} with preload_image");
        }
        let (email, domain) = (&self.seer.email, self.domain());
        let Some(name) = &self.filter.group else {
            return self.scaling_group_remedy(&format!("domain {domain} or the keypair of {email}"));
        };
        let group = self.tenancy.group(domain, name);
        let is_member = group.is_some_and(|group| group.members.contains(&self.seer.user));
        match group {
            // Whether a group of others exists is not for everybody.
            _ if !is_member && !self.asker.is_superadmin() => {
                format!("{email} must be a member of group {name} in domain {domain}")
            }
            None => format!("there is no group {name} in domain {domain}; name one that exists"),
            Some(_) if !is_member && !self.seer.is_superadmin() => {
                format!("make {email} a member of group {name}")
            }
            Some(group) if !group.is_active => format!("activate group {name}"),
            Some(_) => {
                self.scaling_group_remedy(&format!("group {name}, domain {domain} or the keypair of {email}"))
            }
        }
    }

    fn scaling_group_remedy(&self, holders: &str) -> String {
        let Some(name) = &self.filter.scaling_group else {
            return format!("allow a scaling group to {holders}");
        };
        match self.tenancy.scaling_groups.get(name).filter(|_| self.asker.is_superadmin()) {
            None if self.asker.is_superadmin() => {
                format!("there is no scaling group {name}; name one that exists")
            }
            Some(known) if !known.is_active => format!("activate scaling group {name}"),
            _ => format!("allow scaling group {name} to {holders}"),
        }
    }
}

fn condition(name: &'static str, value: String, held: Option<bool>, remedy: Option<String>) -> Condition {
    let holds = held != Some(false);
    Condition { name, value, holds, remedy: remedy.filter(|_| !holds) }
}

fn listed<'n>(names: impl Iterator<Item = &'n String>) -> Option<String> {
    let names: Vec<&str> = names.map(String::as_str).collect();
    (!names.is_empty()).then(|| names.join(", "))
}
