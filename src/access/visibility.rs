//! Which images a caller may see: the one rule, as a pure function over plain data.
//!
//! From the seed: the list is filtered by (1) the allowed registries of the caller's domain and (2), only when a group
//! is given, whether at least one agent in the union of all agents of the scaling groups allowed for that group has
//! the image; with a scaling group given, only its agents count. A super-admin sets the conditions as they want, and
//! with none set sees every registered image. From Backend.AI: an image that a user made for himself is for him alone,
//! and for super-admins.
//!
//! Most of the work is done once per question: [`Viewpoint::new`] turns caller, filter and tenants into conditions in
//! names, and [`Viewpoint::compile`] turns the names into bits: one per registry, and one per image that an agent
//! has. Each image then takes only [`CompiledView::judge`], a few lookups of bits, or [`CompiledView::see`], its short
//! form for lists. The list, the page, the single lookup and the explanation all call these.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use crate::access::caller::Caller;
use crate::access::tenants::{Domain, Group, Tenancy};
use crate::base::bits::Bits;
use crate::base::identity::Identity;
use crate::base::ids::UserId;
use crate::base::{Error, Result};

/// The filter that the caller of `images` sets on the list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageFilter {
    /// Only images that some agent has (`true`) or that no agent has (`false`).
    pub is_installed: Option<bool>,
    /// Only operation images (`true`) or only others (`false`).
    pub is_operation: Option<bool>,
    /// Only images of these kinds.
    pub kinds: Option<Kinds>,
    /// See the list as this domain does; super-admins only.
    pub domain: Option<String>,
    /// See the list as a member of this group.
    pub group: Option<String>,
    /// Count only the agents of this scaling group.
    pub scaling_group: Option<String>,
}

/// The kinds of images that the caller wants (Backend.AI's `load_filters`). An image that is both operational and
/// customized is shown only if both kinds are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kinds {
    /// Images of neither other kind.
    pub(crate) general: bool,
    /// Images for operation.
    pub(crate) operational: bool,
    /// Images that a user made for himself.
    pub(crate) customized: bool,
}

impl Kinds {
    fn have(self, image: &Subject) -> bool {
        let is_customized = image.owner.is_some();
        (self.operational || !image.is_operation)
            && (self.customized || !is_customized)
            && (self.general || image.is_operation || is_customized)
    }
}

/// The user a customized image is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Owner {
    /// This user.
    User(UserId),
    /// No user: the image's label names none that we know.
    Nobody,
}

/// The facts about one image that the rule needs, as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subject {
    /// The number that the catalog gave its registry.
    pub(crate) registry: u32,
    /// The number that [`PresenceIndex::number`] gave it.
    pub(crate) number: u32,
    /// If it is customized, the number that the catalog gave its [`Owner`].
    pub(crate) owner: Option<NonZeroU32>,
    /// Whether it is labelled as an operation image.
    pub(crate) is_operation: bool,
}

/// Knows which agents have an image.
pub trait PresenceIndex: Send + Sync {
    /// Takes in an image of the catalog by its canonical name, and returns its number, as [`PresenceIndex::held`] uses
    /// it. The number stays valid until [`PresenceIndex::forget`].
    fn number(&self, name: &str, image: &Identity<'_>) -> u32;

    /// Gives up this number, so that another image may get it: its image left the catalog, or is another now.
    fn forget(&self, image: u32);

    /// The numbers of the images that at least one agent has. Counts agents that answer now: those of these scaling
    /// groups, or all agents.
    fn held(&self, scaling_groups: Option<&BTreeSet<String>>) -> Bits;

    /// The names of the scaling groups with an agent that has the image with this number.
    fn scaling_groups(&self, image: u32) -> Vec<String>;

    /// The agents that have the image with this number, sorted.
    fn agents(&self, image: u32) -> Vec<String>;

    /// Whether the name means another image on an agent of this image's architecture.
    fn is_stale(&self, name: &str, image: &Identity<'_>) -> bool;
}

/// The conditions that follow from one question, in names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Viewpoint {
    registries: Registries,
    /// `None` for a super-admin, who sees all users' images.
    owner: Option<UserId>,
    agents: Agents,
    is_installed: Option<bool>,
    is_operation: Option<bool>,
    kinds: Option<Kinds>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Registries {
    Any,
    Allowed(BTreeSet<String>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Agents {
    /// The question names no group, so it does not matter where the image is.
    Unasked,
    /// At least one agent of one of these scaling groups must have the image. Empty for a caller outside the group.
    In(BTreeSet<String>),
}

/// The result of each condition for one image; `None` for a condition that the question does not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// 1: the registry is allowed in the domain.
    pub(crate) registry: Option<bool>,
    /// The image belongs to no user, or to the caller.
    pub(crate) owner: Option<bool>,
    /// 2 and 3: an agent that counts has the image.
    pub(crate) agents: Option<bool>,
    /// 4: some agent has it, or none has, as asked.
    pub(crate) installed: Option<bool>,
    /// 4: it is an operation image, or not, as asked.
    pub(crate) operation: Option<bool>,
    /// 4: it is of one of the kinds asked for.
    pub(crate) kind: Option<bool>,
}

impl Verdict {
    /// Whether the image may be seen: no condition fails.
    pub(crate) fn is_visible(self) -> bool {
        [self.registry, self.owner, self.agents, self.installed, self.operation, self.kind]
            .into_iter()
            .all(|held| held != Some(false))
    }
}

impl Viewpoint {
    /// The conditions for this caller and filter.
    ///
    /// # Errors
    /// [`Error::Denied`] if anyone but a super-admin sets `domain`: an error, not an empty list.
    pub(crate) fn new(caller: &Caller, filter: &ImageFilter, tenancy: &Tenancy) -> Result<Self> {
        if filter.domain.is_some() && !caller.is_superadmin() {
            return Err(Error::Denied("images with the domain filter; only super-admins may set it".into()));
        }
        let domain = filter.domain.as_deref().unwrap_or(&caller.domain);
        // A super-admin who names no tenant sees all registered images; naming a tenant means seeing what it sees.
        let as_tenant = !caller.is_superadmin() || filter.domain.is_some();
        let registries = if as_tenant {
            let domain = active_domain(tenancy, domain);
            Registries::Allowed(domain.map(|d| d.allowed_docker_registries.clone()).unwrap_or_default())
        } else {
            Registries::Any
        };
        Ok(Self {
            registries,
            owner: (!caller.is_superadmin()).then_some(caller.user),
            agents: agents(caller, filter, domain, tenancy),
            is_installed: filter.is_installed,
            is_operation: filter.is_operation,
            kinds: filter.kinds,
        })
    }

    /// The scaling groups whose agents count; `None` if it does not matter where an image is.
    pub(crate) fn scaling_groups(&self) -> Option<&BTreeSet<String>> {
        match &self.agents {
            Agents::Unasked => None,
            Agents::In(groups) => Some(groups),
        }
    }

    /// Turns the conditions into bits, from the agents that answer now. `registry` and `owner` return the numbers of
    /// registries and owners that have images.
    pub(crate) fn compile(
        &self,
        registry: impl Fn(&str) -> Option<u32>,
        owner: impl Fn(&Owner) -> Option<NonZeroU32>,
        presence: &dyn PresenceIndex,
    ) -> CompiledView {
        let registries = match &self.registries {
            Registries::Any => None,
            Registries::Allowed(allowed) => {
                Some(allowed.iter().filter_map(|host| registry(host)).map(|number| number as usize).collect())
            }
        };
        let caller = self.owner.map(Owner::User);
        CompiledView {
            registries,
            owners: caller.map(|caller| owner(&caller).into_iter().map(place).collect()),
            in_reach: self.scaling_groups().map(|groups| presence.held(Some(groups))),
            installed: self.is_installed.map(|wanted| (wanted, presence.held(None))),
            is_operation: self.is_operation,
            kinds: self.kinds,
        }
    }
}

/// The conditions in bits, ready to judge many images.
#[derive(Debug, Clone)]
pub(crate) struct CompiledView {
    /// The numbers of the allowed registries.
    registries: Option<Bits>,
    /// The numbers of the owners whose images the caller sees.
    owners: Option<Bits>,
    /// The numbers of the images that an agent that counts has.
    in_reach: Option<Bits>,
    /// The numbers of the images that any agent has, and whether the caller wants these or the others.
    installed: Option<(bool, Bits)>,
    is_operation: Option<bool>,
    kinds: Option<Kinds>,
}

impl CompiledView {
    /// Checks one image against each condition.
    pub(crate) fn judge(&self, image: &Subject) -> Verdict {
        Verdict {
            registry: self.registry(image),
            owner: self.owner(image),
            agents: self.agents(image),
            installed: self.installed(image),
            operation: self.operation(image),
            kind: self.kind(image),
        }
    }

    /// Whether the image may be seen: the same answer as [`CompiledView::judge`], but it stops at the first condition
    /// that fails, for long lists. The conditions that fail most images come first.
    #[inline]
    pub(crate) fn see(&self, image: &Subject) -> bool {
        let holds = |condition: Option<bool>| condition != Some(false);
        holds(self.agents(image))
            && holds(self.registry(image))
            && holds(self.owner(image))
            && holds(self.installed(image))
            && holds(self.operation(image))
            && holds(self.kind(image))
    }

    #[inline]
    fn registry(&self, image: &Subject) -> Option<bool> {
        self.registries.as_ref().map(|allowed| allowed.contains(image.registry as usize))
    }

    #[inline]
    fn owner(&self, image: &Subject) -> Option<bool> {
        let owners = self.owners.as_ref()?;
        image.owner.map(|owner| owners.contains(place(owner)))
    }

    #[inline]
    fn agents(&self, image: &Subject) -> Option<bool> {
        self.in_reach.as_ref().map(|held| held.contains(image.number as usize))
    }

    #[inline]
    fn installed(&self, image: &Subject) -> Option<bool> {
        let installed = self.installed.as_ref();
        installed.map(|(wanted, anywhere)| *wanted == anywhere.contains(image.number as usize))
    }

    #[inline]
    fn operation(&self, image: &Subject) -> Option<bool> {
        self.is_operation.map(|wanted| wanted == image.is_operation)
    }

    #[inline]
    fn kind(&self, image: &Subject) -> Option<bool> {
        self.kinds.map(|kinds| kinds.have(image))
    }
}

/// The index of an owner in a set of owners.
fn place(owner: NonZeroU32) -> usize {
    owner.get() as usize
}

fn agents(caller: &Caller, filter: &ImageFilter, domain: &str, tenancy: &Tenancy) -> Agents {
    let allowed = match &filter.group {
        None if filter.scaling_group.is_none() => return Agents::Unasked,
        None if caller.is_superadmin() && filter.domain.is_none() => active_scaling_groups(tenancy),
        None => {
            let groups = groups_in(tenancy, domain).filter(|group| is_member(caller, group));
            let names: BTreeSet<String> =
                groups.flat_map(|group| allowed_for(caller, Some(group), domain, tenancy)).collect();
            names.into_iter().chain(allowed_for(caller, None, domain, tenancy)).collect()
        }
        Some(name) => match find_group(tenancy, domain, name).filter(|group| is_member(caller, group)) {
            Some(group) => allowed_for(caller, Some(group), domain, tenancy),
            None => BTreeSet::new(),
        },
    };
    match &filter.scaling_group {
        None => Agents::In(allowed),
        Some(only) => Agents::In(allowed.into_iter().filter(|name| name == only).collect()),
    }
}

/// The scaling groups that the caller may use as a member of a group of their domain, given by name or id. `None` if
/// there is no such group or the caller is no member.
pub(crate) fn usable_scaling_groups(
    caller: &Caller,
    group: &str,
    tenancy: &Tenancy,
) -> Option<BTreeSet<String>> {
    let group = find_group(tenancy, &caller.domain, group).filter(|group| is_member(caller, group))?;
    Some(allowed_for(caller, Some(group), &caller.domain, tenancy))
}

/// The domain, if it is active: users of an inactive one may do nothing.
fn active_domain<'a>(tenancy: &'a Tenancy, domain: &str) -> Option<&'a Domain> {
    tenancy.domains.get(domain).map(AsRef::as_ref).filter(|domain| domain.is_active)
}

/// The group of this name or id, if it and its domain are active.
fn find_group<'a>(tenancy: &'a Tenancy, domain: &str, name: &str) -> Option<&'a Group> {
    active_domain(tenancy, domain)?;
    tenancy.group(domain, name).filter(|group| group.is_active)
}

fn groups_in<'a>(tenancy: &'a Tenancy, domain: &str) -> impl Iterator<Item = &'a Group> {
    let is_active = active_domain(tenancy, domain).is_some();
    let groups = tenancy.groups.values().map(AsRef::as_ref);
    groups.filter(move |group| is_active && group.domain == domain && group.is_active)
}

fn is_member(caller: &Caller, group: &Group) -> bool {
    caller.is_superadmin() || group.members.contains(&caller.user)
}

fn active_scaling_groups(tenancy: &Tenancy) -> BTreeSet<String> {
    tenancy.scaling_groups.values().filter(|group| group.is_active).map(|group| group.name.clone()).collect()
}

/// The active scaling groups that the group, its domain or the caller's keypair may use.
fn allowed_for(caller: &Caller, group: Option<&Group>, domain: &str, tenancy: &Tenancy) -> BTreeSet<String> {
    let of_domain = active_domain(tenancy, domain).map(|domain| &domain.scaling_groups);
    let named = |scaling_group: &str| {
        group.is_some_and(|group| group.scaling_groups.contains(scaling_group))
            || of_domain.is_some_and(|names| names.contains(scaling_group))
    };
    tenancy
        .scaling_groups
        .values()
        .filter(|scaling_group| scaling_group.is_active)
        .filter(|scaling_group| {
            named(&scaling_group.name) || scaling_group.keypairs.contains(&caller.access_key)
        })
        .map(|scaling_group| scaling_group.name.clone())
        .collect()
}

#[cfg(test)]
pub(in crate::access) mod matrix;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::num::NonZeroU32;
    use std::sync::Arc;

    use super::matrix::{self, Places};
    use super::{ImageFilter, Kinds, Owner, Registries, Subject, Viewpoint};
    use crate::access::caller::{Caller, Origin, Role};
    use crate::access::tenants::{Domain, Group, ScalingGroup, Tenancy};
    use crate::base::ids::{GroupId, UserId};

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.into()).collect()
    }

    fn scaling_group(name: &str, is_active: bool, keypairs: &[&str]) -> (String, Arc<ScalingGroup>) {
        let scaling_group =
            ScalingGroup { name: name.into(), is_active, keypairs: set(keypairs), ..Default::default() };
        (name.into(), Arc::new(scaling_group))
    }

    /// A domain `lab` that may see `cr.io` and use `cpu`; `user` is in its group `vision`, which may use `gpu`.
    fn tenancy(user: UserId) -> Tenancy {
        let lab = Domain {
            name: "lab".into(),
            is_active: true,
            allowed_docker_registries: set(&["cr.io"]),
            scaling_groups: set(&["cpu", "off"]),
            ..Default::default()
        };
        let group = |name: &str, members: BTreeSet<UserId>| Group {
            id: GroupId::random(),
            name: name.into(),
            domain: "lab".into(),
            is_active: true,
            members,
            scaling_groups: set(&["gpu"]),
            ..Default::default()
        };
        Tenancy {
            domains: [("lab".into(), Arc::new(lab))].into(),
            groups: [group("vision", [user].into()), group("speech", BTreeSet::new())]
                .map(|group| (group.id, Arc::new(group)))
                .into(),
            scaling_groups: [
                scaling_group("cpu", true, &[]),
                scaling_group("gpu", true, &[]),
                scaling_group("off", false, &[]),
                scaling_group("mine", true, &["AK"]),
                scaling_group("foreign", true, &[]),
            ]
            .into(),
        }
    }

    fn caller(role: Role, user: UserId) -> Caller {
        Caller {
            user,
            email: "u@lab".into(),
            role,
            domain: "lab".into(),
            access_key: "AK".into(),
            origin: Origin::default(),
        }
    }

    fn sees(role: Role, filter: &ImageFilter, registry: &str, found_in: &[&str]) -> bool {
        let user = UserId::random();
        let viewpoint = Viewpoint::new(&caller(role, user), filter, &tenancy(user)).unwrap();
        let view = viewpoint.compile(|host| (host == registry).then_some(0), |_| None, &Places(&[found_in]));
        view.see(&Subject { registry: 0, number: 0, is_operation: false, owner: None })
    }

    #[test]
    fn without_a_group_the_domains_registries_decide() {
        let filter = ImageFilter::default();
        assert!(sees(Role::User, &filter, "cr.io", &[]));
        assert!(!sees(Role::User, &filter, "other.io", &["cpu"]));
        assert!(!sees(Role::Admin, &filter, "other.io", &["cpu"]));
        assert!(sees(Role::Superadmin, &filter, "other.io", &[]));
    }

    #[test]
    fn with_a_group_an_agent_it_may_use_must_have_the_image() {
        let filter = ImageFilter { group: Some("vision".into()), ..Default::default() };
        for (found_in, expected) in
            [("gpu", true), ("cpu", true), ("mine", true), ("foreign", false), ("off", false)]
        {
            assert_eq!(sees(Role::User, &filter, "cr.io", &[found_in]), expected, "{found_in}");
        }
        assert!(!sees(Role::User, &filter, "cr.io", &[]));
        assert!(!sees(Role::User, &filter, "other.io", &["gpu"]));
    }

    #[test]
    fn a_group_the_caller_is_not_in_shows_nothing() {
        for group in ["speech", "unheard-of"] {
            let filter = ImageFilter { group: Some(group.into()), ..Default::default() };
            assert!(!sees(Role::User, &filter, "cr.io", &["gpu", "cpu", "mine"]), "{group}");
        }
    }

    #[test]
    fn a_scaling_group_narrows_to_its_own_agents_and_must_be_allowed() {
        for group in [None, Some("vision".to_owned())] {
            let filter = ImageFilter { group, scaling_group: Some("gpu".into()), ..Default::default() };
            assert!(sees(Role::User, &filter, "cr.io", &["gpu"]));
            assert!(!sees(Role::User, &filter, "cr.io", &["cpu"]));
            let foreign = ImageFilter { scaling_group: Some("foreign".into()), ..filter };
            assert!(!sees(Role::User, &foreign, "cr.io", &["foreign"]));
        }
    }

    #[test]
    fn only_a_super_admin_may_name_a_domain() {
        let user = UserId::random();
        let filter = ImageFilter { domain: Some("lab".into()), ..Default::default() };
        for role in [Role::Admin, Role::User, Role::Monitor] {
            assert!(Viewpoint::new(&caller(role, user), &filter, &tenancy(user)).is_err());
        }
        assert!(sees(Role::Superadmin, &filter, "cr.io", &[]));
        assert!(!sees(Role::Superadmin, &filter, "other.io", &[]));
    }

    #[test]
    fn installed_and_operation_narrow_when_given() {
        let installed = |wanted| ImageFilter { is_installed: Some(wanted), ..Default::default() };
        assert!(sees(Role::User, &installed(true), "cr.io", &["cpu"]));
        assert!(!sees(Role::User, &installed(true), "cr.io", &[]));
        assert!(sees(Role::User, &installed(false), "cr.io", &[]));
        let operation = |wanted| ImageFilter { is_operation: Some(wanted), ..Default::default() };
        assert!(sees(Role::User, &operation(false), "cr.io", &[]));
        assert!(!sees(Role::User, &operation(true), "cr.io", &[]));
    }

    #[test]
    fn a_customized_image_is_for_its_owner_and_super_admins() {
        let (ann, bob) = (UserId::random(), UserId::random());
        let owners = [Owner::User(ann), Owner::Nobody];
        let sees = |role, user, owner| {
            let viewpoint =
                Viewpoint::new(&caller(role, user), &ImageFilter::default(), &tenancy(ann)).unwrap();
            let view =
                viewpoint.compile(|_| Some(0), |owner| matrix::owner_in(&owners, owner), &Places(&[&[]]));
            let owner = matrix::owner_in(&owners, &owner);
            view.see(&Subject { registry: 0, number: 0, is_operation: false, owner })
        };
        assert!(sees(Role::User, ann, Owner::User(ann)) && sees(Role::Superadmin, bob, Owner::User(ann)));
        assert!(!sees(Role::User, bob, Owner::User(ann)) && !sees(Role::Admin, bob, Owner::User(ann)));
        assert!(!sees(Role::User, ann, Owner::Nobody) && sees(Role::Superadmin, ann, Owner::Nobody));
    }

    #[test]
    fn kinds_are_those_of_backend_ai() {
        let (general, operational, customized) = (true, true, true);
        let image = |is_operation, is_customized: bool| Subject {
            registry: 0,
            number: 0,
            is_operation,
            owner: is_customized.then_some(NonZeroU32::MIN),
        };
        let all = [image(false, false), image(true, false), image(false, true), image(true, true)];
        for (kinds, expected) in [
            (Kinds { general, ..Kinds::default() }, [true, false, false, false]),
            (Kinds { operational, ..Kinds::default() }, [false, true, false, false]),
            (Kinds { customized, ..Kinds::default() }, [false, false, true, false]),
            (Kinds { operational, customized, ..Kinds::default() }, [false, true, true, true]),
            (Kinds { general, operational, customized }, [true; 4]),
        ] {
            assert_eq!(all.each_ref().map(|image| kinds.have(image)), expected, "{kinds:?}");
        }
    }

    #[test]
    fn an_inactive_domain_allows_nothing() {
        let user = UserId::random();
        let mut tenancy = tenancy(user);
        Arc::make_mut(tenancy.domains.get_mut("lab").unwrap()).is_active = false;
        for filter in [
            ImageFilter::default(),
            ImageFilter { group: Some("vision".into()), ..Default::default() },
            ImageFilter { scaling_group: Some("gpu".into()), ..Default::default() },
        ] {
            let viewpoint = Viewpoint::new(&caller(Role::User, user), &filter, &tenancy).unwrap();
            assert_eq!(viewpoint.registries, Registries::Allowed(BTreeSet::new()));
            assert!(viewpoint.scaling_groups().is_none_or(|reach| reach.iter().all(|name| name == "mine")));
        }
    }
}
