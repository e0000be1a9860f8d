//! Groups (projects): who sees them, and what admins may do with them.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::access::caller::Caller;
use crate::access::directory::{Directory, sees_group};
use crate::access::names::{checked_name, checked_text};
use crate::access::tenants::Group;
use crate::base::ids::{GroupId, UserId};
use crate::base::reference::shown;
use crate::base::{Error, Result};
use crate::store::table::Writer;

/// The fields of a group to set; `None` leaves a field as it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct GroupChange {
    /// The new name.
    pub(crate) name: Option<String>,
    /// A description for people.
    pub(crate) description: Option<String>,
    /// Whether it is active.
    pub(crate) is_active: Option<bool>,
    /// The domain of a new group, by default the caller's. A group stays in its domain.
    pub(crate) domain: Option<String>,
    /// What an outside system calls it.
    pub(crate) integration_id: Option<String>,
    /// The members to add or remove.
    pub(crate) members: Option<MemberChange>,
}

/// Members to add or remove, by user id or e-mail address.
#[derive(Debug, Clone)]
pub(crate) enum MemberChange {
    /// These users join.
    Add(Vec<String>),
    /// These users leave.
    Remove(Vec<String>),
}

/// A search for groups; a field that is `None` does not restrict it.
#[derive(Debug, Clone, Default)]
pub(crate) struct GroupSearch {
    /// Groups of this domain.
    pub(crate) domain: Option<String>,
    /// Groups of this name.
    pub(crate) name: Option<String>,
    /// Active groups only, or inactive ones only.
    pub(crate) is_active: Option<bool>,
}

impl Directory {
    /// The groups that the caller may see, sorted by domain and name.
    pub(crate) fn groups(&self, caller: &Caller, search: &GroupSearch) -> Vec<Arc<Group>> {
        let tenancy = self.tenants.now();
        let is = |wanted: &Option<String>, given: &str| wanted.as_deref().is_none_or(|text| text == given);
        let mut groups: Vec<_> = tenancy
            .groups
            .values()
            .filter(|group| sees_group(caller, group))
            .filter(|group| is(&search.domain, &group.domain) && is(&search.name, &group.name))
            .filter(|group| search.is_active.is_none_or(|is| is == group.is_active))
            .cloned()
            .collect();
        groups.sort_by(|a, b| (&a.domain, &a.name).cmp(&(&b.domain, &b.name)));
        groups
    }

    /// One group, by id.
    ///
    /// # Errors
    /// [`Error::Missing`] for a group that the caller may not see.
    pub(crate) fn group(&self, caller: &Caller, id: GroupId) -> Result<Arc<Group>> {
        let group = self.tenants.now().groups.get(&id).cloned();
        group.filter(|group| sees_group(caller, group)).ok_or_else(|| Error::missing("group", id.to_string()))
    }

    /// One group, by id, or by its name if the caller sees only one group of that name.
    ///
    /// # Errors
    /// [`Error::Missing`] for a group that the caller may not see, [`Error::Conflict`] for a name that several have.
    pub(crate) fn group_named(&self, caller: &Caller, name: &str) -> Result<Arc<Group>> {
        if let Ok(id) = name.parse() {
            return self.group(caller, id);
        }
        let search = GroupSearch { name: Some(name.into()), ..GroupSearch::default() };
        let mut groups = self.groups(caller, &search);
        match (groups.pop(), groups.is_empty()) {
            (Some(group), true) => Ok(group),
            (None, _) => Err(Error::missing("group", shown(name))),
            (Some(_), false) => {
                Err(Error::Ambiguous(format!("several domains have a group {}; give its id", shown(name))))
            }
        }
    }

    /// The groups that a user is a member of, sorted by name.
    pub(crate) fn groups_of(&self, user: UserId) -> Vec<Arc<Group>> {
        let tenancy = self.tenants.now();
        let groups = tenancy.groups.values().filter(|group| group.members.contains(&user));
        let mut groups: Vec<_> = groups.cloned().collect();
        groups.sort_by(|a, b| a.name.cmp(&b.name));
        groups
    }

    /// Adds a group.
    ///
    /// # Errors
    /// [`Error::Missing`] for a domain that the caller may not see, [`Error::Conflict`] if the domain has such a group.
    pub(crate) async fn add_group(
        &self,
        caller: &Caller,
        name: &str,
        change: GroupChange,
    ) -> Result<Arc<Group>> {
        let new_name = name.to_owned();
        self.as_admin(caller, "create_group", name, move |directory, caller, w| {
            let domain = directory.active_domain(caller, change.domain.as_deref())?;
            let group = Group {
                id: GroupId::random(),
                domain: domain.name.clone(),
                is_active: true,
                created_at: directory.clock.now(),
                ..Group::default()
            };
            let change = GroupChange { name: Some(new_name), domain: None, ..change };
            directory.put_changed_group(caller, w, group, change)
        })
        .await
    }

    /// Changes a group.
    ///
    /// # Errors
    /// [`Error::Missing`] for a group or a member that the caller may not see; [`Error::Conflict`] for a name that is
    /// taken.
    pub(crate) async fn change_group(
        &self,
        caller: &Caller,
        id: GroupId,
        change: Result<GroupChange>,
    ) -> Result<Arc<Group>> {
        self.as_admin(caller, "modify_group", &self.shown_group(caller, id), move |directory, caller, w| {
            let group = directory.group(caller, id)?;
            directory.put_changed_group(caller, w, group.as_ref().clone(), change?)
        })
        .await
    }

    /// Switches a group off but keeps it.
    pub(crate) async fn switch_group_off(&self, caller: &Caller, id: GroupId) -> Result<()> {
        self.as_admin(caller, "delete_group", &self.shown_group(caller, id), move |directory, caller, w| {
            let group = directory.group(caller, id)?;
            directory.tenants.put_group(w, Group { is_active: false, ..group.as_ref().clone() })
        })
        .await
    }

    /// Removes a group; its members stay users of the domain.
    pub(crate) async fn remove_group(&self, caller: &Caller, id: GroupId) -> Result<()> {
        self.as_admin(caller, "purge_group", &self.shown_group(caller, id), move |directory, caller, w| {
            directory.group(caller, id)?;
            directory.tenants.remove_group(w, id)
        })
        .await
    }

    fn put_changed_group(
        &self,
        caller: &Caller,
        writer: &mut Writer,
        group: Group,
        change: GroupChange,
    ) -> Result<Arc<Group>> {
        if change.domain.as_ref().is_some_and(|domain| *domain != group.domain) {
            let why =
                format!("a group stays in its domain, which is {}; make another group there", group.domain);
            return Err(Error::invalid("domain_name", why));
        }
        let name = change.name.map_or(Ok(group.name), |name| checked_name("name", &name))?;
        let others = self.groups_in(&group.domain);
        if let Some(other) = others.into_iter().find(|other| other.name == name && other.id != group.id) {
            let kind = if other.is_active { "group" } else { "deleted group" };
            let why =
                format!("there is a {kind} {name} in the domain {} already: {}", group.domain, other.id);
            return Err(Error::Exists(why));
        }
        let integration_id = change.integration_id.map(|text| checked_text("integration_id", &text));
        let group = Group {
            members: self.changed_members(caller, &group.domain, group.members, change.members)?,
            name,
            description: change
                .description
                .map_or(Ok(group.description), |text| checked_text("description", &text))?,
            is_active: change.is_active.unwrap_or(group.is_active),
            integration_id: integration_id.transpose()?.or(group.integration_id),
            ..group
        };
        self.tenants.put_group(writer, group.clone())?;
        Ok(Arc::new(group))
    }

    fn changed_members(
        &self,
        caller: &Caller,
        domain: &str,
        mut members: BTreeSet<UserId>,
        change: Option<MemberChange>,
    ) -> Result<BTreeSet<UserId>> {
        match change {
            None => {}
            Some(MemberChange::Add(names)) => {
                for name in names {
                    let user = self.user(caller, Some(&name))?;
                    if user.domain != domain {
                        let why = format!(
                            "{} is of the domain {}; a group has users of its own domain, {domain}, only",
                            user.email, user.domain
                        );
                        return Err(Error::invalid("user_uuids", why));
                    }
                    members.insert(user.id);
                }
            }
            Some(MemberChange::Remove(names)) => {
                for name in names {
                    members.remove(&self.user(caller, Some(&name))?.id);
                }
            }
        }
        Ok(members)
    }

    /// How the audit log shows a group: by its id, with its name if the caller may know it.
    fn shown_group(&self, caller: &Caller, id: GroupId) -> String {
        self.group(caller, id)
            .map_or_else(|_| id.to_string(), |group| format!("{} ({id})", shown(&group.name)))
    }
}
