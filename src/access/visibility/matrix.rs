//! The rule against its text: every combination of caller, question and image, judged by the code and by a restatement
//! that shares nothing with it.
//!
//! The restatement below follows the seed's paragraph and has the facts of one small world built in. It looks things up
//! in tables of words, where the code follows references between tenants.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;

use super::{CompiledView, ImageFilter, Owner, PresenceIndex, Subject, Viewpoint};
use crate::access::caller::{Caller, Origin, Role};
use crate::access::tenants::{Domain, Group, ScalingGroup, Tenancy};
use crate::base::bits::Bits;
use crate::base::identity::Identity;
use crate::base::ids::{GroupId, UserId};

const ANN: &str = "0e9c2b34-0000-4000-8000-000000000001";
const BOB: &str = "0e9c2b34-0000-4000-8000-000000000002";

const ROLES: [Role; 4] = [Role::Superadmin, Role::Admin, Role::User, Role::Monitor];
const DOMAINS: [Option<&str>; 4] = [None, Some("lab"), Some("other"), Some("unheard-of")];
const GROUPS: [Option<&str>; 6] =
    [None, Some("vision"), Some("speech"), Some("closed"), Some("away"), Some("unheard-of")];
const SCALING_GROUPS: [Option<&str>; 8] = [
    None,
    Some("gpu"),
    Some("cpu"),
    Some("asr"),
    Some("mine"),
    Some("foreign"),
    Some("off"),
    Some("unheard-of"),
];
const REGISTRIES: [&str; 3] = ["cr.io", "other.io", "nobodys.io"];
const FOUND_IN: [&[&str]; 8] =
    [&[], &["gpu"], &["cpu"], &["asr"], &["mine"], &["foreign"], &["off"], &["foreign", "cpu"]];
const EITHER: [Option<bool>; 3] = [None, Some(true), Some(false)];

/// The owner of an image.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Whose {
    Everybodys,
    Anns,
    Bobs,
    Unclear,
}

/// Ann's question, in words.
#[derive(Debug, Clone, Copy)]
struct Asked {
    role: Role,
    is_lab_active: bool,
    domain: Option<&'static str>,
    group: Option<&'static str>,
    scaling_group: Option<&'static str>,
    is_installed: Option<bool>,
    is_operation: Option<bool>,
}

/// The image, in words.
#[derive(Debug, Clone, Copy)]
struct Shown {
    registry: &'static str,
    found_in: &'static [&'static str],
    is_operation: bool,
    whose: Whose,
}

/// The rule as its text has it; `None` where the question itself is refused.
fn by_the_text(asked: Asked, image: Shown) -> Option<bool> {
    let is_super = matches!(asked.role, Role::Superadmin);
    // "domain: String, # only settable by super-admins"
    if asked.domain.is_some() && !is_super {
        return None;
    }
    let home = asked.domain.unwrap_or("lab");
    // "the allowed docker registries of the current user's domain"; a super-admin who sets none sees all registries.
    let is_registry_fine = match (home, asked.domain.is_none() && is_super) {
        (_, true) => true,
        ("lab", _) => asked.is_lab_active && image.registry == "cr.io",
        ("other", _) => image.registry == "other.io",
        _ => false,
    };
    // "at least one agent in the union of all agents from the allowed scaling groups for the current user's group",
    // "only when the value of group is given explicitly"; "if scaling_group is not null, then only the agents in the
    // given scaling group".
    let is_place_fine = match (asked.group, asked.scaling_group) {
        (None, None) => true,
        (_, None) => image.found_in.iter().any(|place| allowed(asked, home).contains(place)),
        (_, Some(only)) => image.found_in.contains(&only) && allowed(asked, home).contains(&only),
    };
    // Not from the seed: an image that a user made for himself is his.
    let is_owner_fine = is_super || matches!(image.whose, Whose::Everybodys | Whose::Anns);
    let is_installed_fine = match asked.is_installed {
        None => true,
        Some(true) => !image.found_in.is_empty(),
        Some(false) => image.found_in.is_empty(),
    };
    let is_operation_fine = asked.is_operation.is_none() || asked.is_operation == Some(image.is_operation);
    Some(is_registry_fine && is_place_fine && is_owner_fine && is_installed_fine && is_operation_fine)
}

/// The scaling groups whose agents count. Ann is in vision and closed, not in speech; away belongs to another domain.
/// The scaling group `off` is switched off, and so is the group `closed`.
fn allowed(asked: Asked, home: &str) -> &'static [&'static str] {
    let is_super = matches!(asked.role, Role::Superadmin);
    let is_lab_on = asked.is_lab_active;
    match (asked.group, home) {
        // No group: all scaling groups that the caller may use; for a super-admin in no domain, all active ones.
        (None, _) if is_super && asked.domain.is_none() => {
            &["gpu", "cpu", "asr", "mine", "foreign", "tpu", "shut"]
        }
        (None, "lab") if is_super && is_lab_on => &["gpu", "asr", "cpu", "mine"],
        (None | Some("vision"), "lab") if is_lab_on => &["gpu", "cpu", "mine"],
        (None, "other") => &["tpu", "foreign", "mine"],
        (None, _) => &["mine"],
        (Some("speech"), "lab") if is_lab_on && is_super => &["asr", "cpu", "mine"],
        (Some("away"), "other") if is_super => &["foreign", "tpu", "mine"],
        _ => &[],
    }
}

/// The tenants of that world as the code has them.
fn world(is_lab_active: bool) -> Tenancy {
    let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>();
    let domain = |name: &str, is_active, registries: &[&str], scaling_groups: &[&str]| {
        let domain = Domain {
            name: name.into(),
            is_active,
            allowed_docker_registries: set(registries),
            scaling_groups: set(scaling_groups),
            ..Domain::default()
        };
        (name.to_owned(), Arc::new(domain))
    };
    let group = |name: &str, domain: &str, is_active, has_ann: bool, scaling_groups: &[&str]| Group {
        id: GroupId::random(),
        name: name.into(),
        domain: domain.into(),
        is_active,
        members: if has_ann { [ann()].into() } else { BTreeSet::new() },
        scaling_groups: set(scaling_groups),
        ..Group::default()
    };
    let scaling_group = |name: &str| {
        let keypairs = if name == "mine" { set(&["AK"]) } else { BTreeSet::new() };
        let is_active = name != "off";
        let group = ScalingGroup { name: name.into(), is_active, keypairs, ..ScalingGroup::default() };
        (name.to_owned(), Arc::new(group))
    };
    Tenancy {
        domains: [
            domain("lab", is_lab_active, &["cr.io"], &["cpu", "off"]),
            domain("other", true, &["other.io"], &["tpu"]),
        ]
        .into(),
        groups: [
            group("vision", "lab", true, true, &["gpu"]),
            group("speech", "lab", true, false, &["asr"]),
            group("closed", "lab", false, true, &["shut", "gpu"]),
            group("away", "other", true, true, &["foreign"]),
        ]
        .map(|group| (group.id, Arc::new(group)))
        .into(),
        scaling_groups: ["gpu", "cpu", "asr", "mine", "foreign", "off", "tpu", "shut"]
            .map(scaling_group)
            .into(),
    }
}

fn ann() -> UserId {
    ANN.parse().expect("an id")
}

/// Where images are: for each image's number, the scaling groups with an agent that has it.
pub(in crate::access) struct Places<'a>(pub(in crate::access) &'a [&'a [&'a str]]);

impl PresenceIndex for Places<'_> {
    fn number(&self, _name: &str, _image: &Identity<'_>) -> u32 {
        unreachable!("the images here have numbers")
    }

    fn forget(&self, _image: u32) {}

    fn held(&self, scaling_groups: Option<&BTreeSet<String>>) -> Bits {
        let counts = |place: &&str| scaling_groups.is_none_or(|names| names.contains(*place));
        let held = self.0.iter().enumerate().filter(|(_, places)| places.iter().any(counts));
        held.map(|(number, _)| number).collect()
    }

    fn scaling_groups(&self, _image: u32) -> Vec<String> {
        Vec::new()
    }

    fn agents(&self, _image: u32) -> Vec<String> {
        Vec::new()
    }

    fn is_stale(&self, _name: &str, _image: &Identity<'_>) -> bool {
        false
    }
}

/// The number that the catalog gives a thing by its position among others.
fn number_in<T: PartialEq>(all: &[T], one: &T) -> Option<u32> {
    all.iter().position(|known| known == one).and_then(|place| u32::try_from(place).ok())
}

/// The number that the catalog gives an owner by its position among others.
pub(in crate::access) fn owner_in(all: &[Owner], one: &Owner) -> Option<NonZeroU32> {
    number_in(all, one).and_then(|number| NonZeroU32::MIN.checked_add(number))
}

fn owners() -> [Owner; 3] {
    [Owner::User(ann()), Owner::User(BOB.parse().expect("an id")), Owner::Nobody]
}

fn ask(asked: Asked, tenancy: &Tenancy) -> Option<CompiledView> {
    let caller = Caller {
        user: ann(),
        email: "ann@lab.invalid".into(),
        role: asked.role,
        domain: "lab".into(),
        access_key: "AK".into(),
        origin: Origin::default(),
    };
    let filter = ImageFilter {
        is_installed: asked.is_installed,
        is_operation: asked.is_operation,
        kinds: None,
        domain: asked.domain.map(Into::into),
        group: asked.group.map(Into::into),
        scaling_group: asked.scaling_group.map(Into::into),
    };
    let viewpoint = Viewpoint::new(&caller, &filter, tenancy).ok()?;
    Some(viewpoint.compile(
        |host| number_in(&REGISTRIES, &host),
        |owner| owner_in(&owners(), owner),
        &Places(&FOUND_IN),
    ))
}

fn by_the_code(view: &CompiledView, image: Shown) -> bool {
    let [ann, bob, nobody] = owners();
    let owner = match image.whose {
        Whose::Everybodys => None,
        Whose::Anns => Some(ann),
        Whose::Bobs => Some(bob),
        Whose::Unclear => Some(nobody),
    };
    let subject = Subject {
        registry: number_in(&REGISTRIES, &image.registry).expect("a number"),
        number: number_in(&FOUND_IN, &image.found_in).expect("a number"),
        is_operation: image.is_operation,
        owner: owner.and_then(|owner| owner_in(&owners(), &owner)),
    };
    let is_visible = view.judge(&subject).is_visible();
    assert_eq!(view.see(&subject), is_visible, "the short form is the long one");
    is_visible
}

/// Every possible image.
fn images() -> Vec<Shown> {
    let mut images = Vec::new();
    for registry in REGISTRIES {
        for found_in in FOUND_IN {
            for is_operation in [false, true] {
                for whose in [Whose::Everybodys, Whose::Anns, Whose::Bobs, Whose::Unclear] {
                    images.push(Shown { registry, found_in, is_operation, whose });
                }
            }
        }
    }
    images
}

/// Every possible question.
fn questions() -> Vec<Asked> {
    let mut questions = Vec::new();
    for role in ROLES {
        for is_lab_active in [true, false] {
            for domain in DOMAINS {
                for group in GROUPS {
                    for scaling_group in SCALING_GROUPS {
                        for is_installed in EITHER {
                            for is_operation in EITHER {
                                questions.push(Asked {
                                    role,
                                    is_lab_active,
                                    domain,
                                    group,
                                    scaling_group,
                                    is_installed,
                                    is_operation,
                                });
                            }
                        }
                    }
                }
            }
        }
    }
    questions
}

#[test]
fn the_rule_is_what_its_text_says_in_every_combination() {
    let worlds = [world(false), world(true)];
    let images = images();
    let (mut refused, mut seen, mut hidden) = (0, 0, 0);
    for asked in questions() {
        let view = ask(asked, &worlds[usize::from(asked.is_lab_active)]);
        for &image in &images {
            let judged = view.as_ref().map(|view| by_the_code(view, image));
            assert_eq!(judged, by_the_text(asked, image), "{asked:?}\n{image:?}");
            match judged {
                None => refused += 1,
                Some(true) => seen += 1,
                Some(false) => hidden += 1,
            }
        }
    }
    // Each kind of outcome is frequent enough that the comparison says something about it.
    assert!(
        refused > 1_000_000 && seen > 5_000 && hidden > 1_000_000,
        "{refused} refused, {seen} seen, {hidden} hidden"
    );
}
