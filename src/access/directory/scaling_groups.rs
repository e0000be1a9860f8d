//! Scaling groups: who sees them, and what super-admins may do with them.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::access::caller::Caller;
use crate::access::directory::{Directory, named, sees_group, sees_user};
use crate::access::names::{checked_name, checked_text};
use crate::access::tenants::{ScalingGroup, Tenancy};
use crate::base::reference::shown;
use crate::base::{Error, Result};

/// The fields of a scaling group to set; `None` leaves a field as it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct ScalingGroupChange {
    /// A description for people.
    pub(crate) description: Option<String>,
    /// Whether it is active.
    pub(crate) is_active: Option<bool>,
}

impl ScalingGroupChange {
    fn apply(self, group: ScalingGroup) -> Result<ScalingGroup> {
        Ok(ScalingGroup {
            description: self
                .description
                .map_or(Ok(group.description), |text| checked_text("description", &text))?,
            is_active: self.is_active.unwrap_or(group.is_active),
            ..group
        })
    }
}

impl Directory {
    /// The scaling groups that the caller may see, sorted by name.
    pub(crate) fn scaling_groups(
        &self,
        caller: &Caller,
        name: Option<&str>,
        is_active: Option<bool>,
    ) -> Vec<Arc<ScalingGroup>> {
        let tenancy = self.tenants.now();
        let groups = tenancy.scaling_groups.values().filter(|group| {
            name.is_none_or(|name| name == group.name)
                && is_active.is_none_or(|is| is == group.is_active)
                && self.sees_scaling_group(caller, &tenancy, group)
        });
        groups.cloned().collect()
    }

    /// One scaling group.
    ///
    /// # Errors
    /// [`Error::Missing`] for a scaling group that the caller may not see.
    pub(crate) fn scaling_group(&self, caller: &Caller, name: &str) -> Result<Arc<ScalingGroup>> {
        let tenancy = self.tenants.now();
        let group = tenancy.scaling_groups.get(name);
        group
            .filter(|group| self.sees_scaling_group(caller, &tenancy, group))
            .cloned()
            .ok_or_else(|| missing(name))
    }

    /// Adds a scaling group.
    ///
    /// # Errors
    /// [`Error::Conflict`] when there is a scaling group of this name.
    pub(crate) async fn add_scaling_group(
        &self,
        caller: &Caller,
        name: &str,
        change: ScalingGroupChange,
    ) -> Result<Arc<ScalingGroup>> {
        let new_name = name.to_owned();
        self.as_superadmin(caller, "create_scaling_group", name, move |directory, w| {
            let name = checked_name("name", &new_name)?;
            if directory.tenants.now().scaling_groups.contains_key(&name) {
                return Err(Error::Exists(format!(
                    "there is a scaling group {name} already; choose another name"
                )));
            }
            let created_at = directory.clock.now();
            let group = change.apply(ScalingGroup {
                name,
                is_active: true,
                created_at,
                ..ScalingGroup::default()
            })?;
            directory.tenants.put_scaling_group(w, group.clone())?;
            Ok(Arc::new(group))
        })
        .await
    }

    /// Changes a scaling group.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is no such scaling group.
    pub(crate) async fn change_scaling_group(
        &self,
        caller: &Caller,
        name: &str,
        change: ScalingGroupChange,
    ) -> Result<()> {
        let (own, name) = (caller.clone(), name.to_owned());
        self.as_superadmin(caller, "modify_scaling_group", &name.clone(), move |directory, w| {
            let group = directory.scaling_group(&own, &name)?;
            directory.tenants.put_scaling_group(w, change.apply(group.as_ref().clone())?)
        })
        .await
    }

    /// Removes a scaling group.
    ///
    /// # Errors
    /// [`Error::Conflict`] when it has agents, or something may use it.
    pub(crate) async fn remove_scaling_group(&self, caller: &Caller, name: &str) -> Result<()> {
        let (own, name) = (caller.clone(), name.to_owned());
        self.as_superadmin(caller, "delete_scaling_group", &name.clone(), move |directory, w| {
            let group = directory.scaling_group(&own, &name)?;
            let users = directory.users_of(&group);
            if !users.is_empty() {
                let why = format!(
                    "the scaling group {name} is used by {}; take them out of it first",
                    users.join("; ")
                );
                return Err(Error::Conflict(why));
            }
            directory.tenants.remove_scaling_group(w, &name)
        })
        .await
    }

    /// The domains, groups and keypairs that may use a scaling group, in words.
    fn users_of(&self, group: &ScalingGroup) -> Vec<String> {
        let (tenancy, name) = (self.tenants.now(), group.name.as_str());
        let domains = tenancy.domains.values().filter(|domain| domain.scaling_groups.contains(name));
        let groups = tenancy.groups.values().filter(|group| group.scaling_groups.contains(name));
        let parties = [
            ("agents", self.agents.agents_in(name)),
            ("domains", domains.map(|domain| domain.name.clone()).collect()),
            ("groups", groups.map(|group| format!("{} of {}", group.name, group.domain)).collect()),
            ("keypairs", group.keypairs.iter().cloned().collect()),
        ];
        let parties = parties.into_iter().filter(|(_, names)| !names.is_empty());
        parties.map(|(kind, names)| format!("{kind} {}", named(&names))).collect()
    }

    /// Whether the scaling group is active, and the caller's domain or a group or keypair that the caller sees may use
    /// it.
    fn sees_scaling_group(&self, caller: &Caller, tenancy: &Tenancy, group: &ScalingGroup) -> bool {
        if caller.is_superadmin() {
            return true;
        }
        let has = |names: &BTreeSet<String>| names.contains(&group.name);
        let is_seen_key = |access_key: &String| {
            let owner = self.accounts.keypair(access_key).and_then(|pair| self.accounts.user(pair.user));
            owner.is_some_and(|owner| sees_user(caller, &owner))
        };
        group.is_active
            && (tenancy.domains.get(&caller.domain).is_some_and(|domain| has(&domain.scaling_groups))
                || tenancy.groups.values().any(|g| has(&g.scaling_groups) && sees_group(caller, g))
                || group.keypairs.iter().any(is_seen_key))
    }
}

pub(in crate::access::directory) fn missing(name: &str) -> Error {
    Error::missing("scaling group", shown(name))
}
