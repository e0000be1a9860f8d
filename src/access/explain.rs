//! Why a user sees an image or does not: the verdict of the visibility rule in words, with what would change it.

use std::collections::BTreeSet;

use crate::access::caller::Caller;
use crate::access::tenants::Tenancy;
use crate::access::visibility::{ImageFilter, Owner, Verdict, Viewpoint};

/// The verdict, and the conditions that it follows from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Explanation {
    /// Whether the image is visible.
    pub(crate) is_visible: bool,
    /// Each condition that the question sets, in the rule's order.
    pub(crate) conditions: Vec<Condition>,
}

/// One condition of the rule, for one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    /// `registry`, `owner` or `agents`.
    pub(crate) name: &'static str,
    /// What the condition finds for this image.
    pub(crate) value: String,
    /// Whether the image passes it.
    pub(crate) holds: bool,
    /// What would make the image pass, if it does not.
    pub(crate) remedy: Option<String>,
}

/// The facts about the image that the words need.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    /// The registry it comes from.
    pub(crate) registry: &'a str,
    /// The user it is for, if it is customized.
    pub(crate) owner: Option<Owner>,
    /// The scaling groups with an agent that has it.
    pub(crate) found_in: &'a [String],
}

/// Puts a verdict into words. `asker` reads them; `seer` is the user they are about. Only a super-admin is told of
/// tenants that the seer does not belong to.
pub(crate) fn explain(
    asker: &Caller,
    seer: &Caller,
    filter: &ImageFilter,
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
    filter: &'a ImageFilter,
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
            // Only super-admins may learn whether a group of other users exists.
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::{Facts, explain};
    use crate::access::caller::{Caller, Origin, Role};
    use crate::access::tenants::{Domain, Group, ScalingGroup, Tenancy};
    use crate::access::visibility::matrix::{self, Places};
    use crate::access::visibility::{ImageFilter, Owner, Subject, Viewpoint};
    use crate::base::ids::{GroupId, UserId};

    /// Ann, and everything that keeps her from the image.
    struct World {
        ann: Caller,
        root: Caller,
        lab: Domain,
        vision: Group,
        gpu: ScalingGroup,
        found_in: Vec<String>,
        owner: Option<Owner>,
    }

    impl World {
        fn where_nothing_is_right() -> Self {
            let caller = |email: &str, role| Caller {
                user: UserId::random(),
                email: email.into(),
                role,
                domain: "lab".into(),
                access_key: "AK".into(),
                origin: Origin::default(),
            };
            Self {
                ann: caller("ann@lab", Role::User),
                root: caller("root@lab", Role::Superadmin),
                lab: Domain { name: "lab".into(), is_active: false, ..Domain::default() },
                vision: Group {
                    id: GroupId::random(),
                    name: "vision".into(),
                    domain: "lab".into(),
                    is_active: false,
                    ..Group::default()
                },
                gpu: ScalingGroup { name: "gpu".into(), is_active: false, ..ScalingGroup::default() },
                found_in: Vec::new(),
                owner: None,
            }
        }

        /// Whether ann sees the image, and what the first condition that fails says would change it.
        fn remedy(&self) -> Option<String> {
            let tenancy = Tenancy {
                domains: [("lab".into(), Arc::new(self.lab.clone()))].into(),
                groups: [(self.vision.id, Arc::new(self.vision.clone()))].into(),
                scaling_groups: [("gpu".into(), Arc::new(self.gpu.clone()))].into(),
            };
            let filter = ImageFilter {
                group: Some("vision".into()),
                scaling_group: Some("gpu".into()),
                ..ImageFilter::default()
            };
            let viewpoint = Viewpoint::new(&self.ann, &filter, &tenancy).unwrap();
            let found_in: Vec<&str> = self.found_in.iter().map(String::as_str).collect();
            let owners = [self.owner.unwrap_or(Owner::Nobody)];
            let number = |owner: &Owner| matrix::owner_in(&owners, owner);
            let view = viewpoint.compile(|_| Some(0), number, &Places(&[&found_in]));
            let owner = self.owner.as_ref().and_then(number);
            let verdict = view.judge(&Subject { registry: 0, number: 0, is_operation: false, owner });
            let facts = Facts { registry: "cr.io", owner: self.owner, found_in: &self.found_in };
            let said = explain(&self.root, &self.ann, &filter, &tenancy, &viewpoint, verdict, &facts);
            assert_eq!(said.is_visible, said.conditions.iter().all(|condition| condition.holds), "{said:?}");
            let failing = said.conditions.into_iter().find(|condition| !condition.holds);
            failing.map(|condition| condition.remedy.expect("what would change it"))
        }
    }

    /// A remedy as it is worded, and a function that applies it.
    type Step = (&'static str, fn(&mut World));

    #[test]
    fn whoever_follows_the_remedies_one_by_one_sees_the_image_in_the_end() {
        let set = |name: &str| BTreeSet::from([name.to_owned()]);
        let steps: [Step; 8] = [
            ("activate domain lab", |world| world.lab.is_active = true),
            ("add cr.io to allowed_docker_registries of domain lab", |world| {
                world.lab.allowed_docker_registries.insert("cr.io".into());
            }),
            (
                "a customized image is for its owner and super-admins; push it again without the label \
                 ai.backend.customized-image.owner to share it",
                |world| world.owner = None,
            ),
            ("make ann@lab a member of group vision", |world| {
                world.vision.members.insert(world.ann.user);
            }),
            ("activate group vision", |world| world.vision.is_active = true),
            ("activate scaling group gpu", |world| world.gpu.is_active = true),
            ("allow scaling group gpu to group vision, domain lab or the keypair of ann@lab", |world| {
                world.vision.scaling_groups.insert("gpu".into());
            }),
            ("load the image onto an agent of gpu with preload_image", |world| {
                world.found_in.push("gpu".into());
            }),
        ];
        let mut world = World { owner: Some(Owner::Nobody), ..World::where_nothing_is_right() };
        for (said, follow) in steps {
            assert_eq!(world.remedy().as_deref(), Some(said));
            follow(&mut world);
        }
        assert_eq!(world.remedy(), None);
        // The last remedy but one names other ways; each of them works as well.
        let others: [fn(&mut World, BTreeSet<String>); 2] = [
            |world, names| world.lab.scaling_groups = names,
            |world, _| world.gpu.keypairs = BTreeSet::from([world.ann.access_key.clone()]),
        ];
        for allow in others {
            world.vision.scaling_groups.clear();
            world.lab.scaling_groups.clear();
            assert!(world.remedy().is_some());
            allow(&mut world, set("gpu"));
            assert_eq!(world.remedy(), None);
        }
    }
}
