//! Users: who sees them, and what admins may do with them.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::access::caller::{Caller, Role};
use crate::access::directory::keypairs::{KeypairChange, OwnedKeypair};
use crate::access::directory::{Directory, check_token, require_admin, sees_user};
use crate::access::hasher::Line;
use crate::access::names::{checked_email, checked_name, checked_text};
use crate::access::tenants::{Domain, Group};
use crate::access::user::{Status, User};
use crate::base::ids::{GroupId, UserId};
use crate::base::reference::shown;
use crate::base::secret::Secret;
use crate::base::{Error, Result};
use crate::store::table::Writer;

/// The fields of a user to set; `None` leaves a field as it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct UserChange {
    /// The new password.
    pub(crate) password: Option<Secret>,
    /// A short name; empty for none.
    pub(crate) username: Option<String>,
    /// The person's name.
    pub(crate) full_name: Option<String>,
    /// A note for other admins.
    pub(crate) description: Option<String>,
    /// What it may do.
    pub(crate) role: Option<Role>,
    /// Whether the account may be used.
    pub(crate) status: Option<Status>,
    /// Whether the user must choose another password.
    pub(crate) need_password_change: Option<bool>,
    /// The domain it belongs to; for a new user, the caller's domain by default.
    pub(crate) domain: Option<String>,
    /// The complete list of the groups it is a member of.
    pub(crate) groups: Option<Vec<GroupId>>,
    /// What an outside system calls it.
    pub(crate) integration_id: Option<String>,
}

/// A search for users; a field that is `None` does not restrict it.
#[derive(Debug, Clone, Default)]
pub(crate) struct UserSearch {
    /// Users of this domain.
    pub(crate) domain: Option<String>,
    /// Members of this group.
    pub(crate) group: Option<GroupId>,
    /// Active users only, or inactive ones only.
    pub(crate) is_active: Option<bool>,
    /// Users with this status.
    pub(crate) status: Option<Status>,
}

impl Directory {
    /// The users that the caller may see, sorted by e-mail address.
    pub(crate) fn users(&self, caller: &Caller, search: &UserSearch) -> Vec<Arc<User>> {
        let group = search.group.map(|id| self.group(caller, id).ok());
        let is_member = |user: &User| match &group {
            None => true,
            Some(group) => group.as_ref().is_some_and(|group| group.members.contains(&user.id)),
        };
        let mut users = self.accounts.users();
        users.retain(|user| {
            sees_user(caller, user)
                && search.domain.as_ref().is_none_or(|domain| *domain == user.domain)
                && search.is_active.is_none_or(|is| is == user.is_active())
                && search.status.is_none_or(|status| status == user.status)
                && is_member(user)
        });
        users
    }

    /// One user, by e-mail address or id; the caller if neither is given.
    ///
    /// # Errors
    /// [`Error::Missing`] for a user that the caller may not see.
    pub(crate) fn user(&self, caller: &Caller, name: Option<&str>) -> Result<Arc<User>> {
        let found = match name {
            None => self.accounts.user(caller.user),
            Some(name) => match name.parse() {
                Ok(id) => self.accounts.user(id),
                Err(_) => self.accounts.user_by_email(name),
            },
        };
        let found = found.filter(|user| sees_user(caller, user));
        found.ok_or_else(|| Error::missing("user", shown(name.unwrap_or(&caller.email))))
    }

    /// Adds a user with a keypair, and returns its secret key, which is shown only this once. Errors from reading
    /// `change` are told only to callers who may do this.
    ///
    /// # Errors
    /// [`Error::Conflict`] for an e-mail address or a short name that is taken; [`Error::Missing`] for a domain or a
    /// group that the caller may not see.
    pub(crate) async fn add_user(
        &self,
        caller: &Caller,
        email: &str,
        change: Result<UserChange>,
    ) -> Result<(OwnedKeypair, Secret)> {
        let permission = require_admin(caller, "create_user");
        let (directory, own, address) = (self.clone(), caller.clone(), email.to_owned());
        self.audit
            .perform(caller, "create_user", email, |deed| async move {
                permission?;
                let mut change = change?;
                let password = change.password.take();
                let password = password.ok_or_else(|| Error::invalid("password", "give one"))?;
                let password = directory.hasher.hash(Line::New(own.user), password).await?;
                deed.write(move |w| directory.put_new_user(&own, w, &address, password, change)).await
            })
            .await
    }

    /// Changes a user. A new password ends the user's sessions. Any status but active also revokes the user's tokens
    /// and switches their keypairs off, and all that stays so when the user becomes active again.
    ///
    /// # Errors
    /// [`Error::Conflict`] for a short name that is taken, and for the last super-admin, who must stay one.
    pub(crate) async fn change_user(
        &self,
        caller: &Caller,
        email: &str,
        change: Result<UserChange>,
    ) -> Result<Arc<User>> {
        let permission = require_admin(caller, "modify_user");
        let (directory, own, address) = (self.clone(), caller.clone(), email.to_owned());
        self.audit
            .perform(caller, "modify_user", email, |deed| async move {
                permission?;
                // A user out of the caller's sight costs no hash, for the time it takes would tell that the user
                // exists.
                directory.user(&own, Some(&address))?;
                let mut change = change?;
                let password = match change.password.take() {
                    Some(password) => Some(directory.hasher.hash(Line::New(own.user), password).await?),
                    None => None,
                };
                deed.write(move |w| directory.put_changed_user(&own, w, &address, password, change)).await
            })
            .await
    }

    /// Switches a user off but keeps the account: its keypairs and sessions are refused from now on.
    ///
    /// # Errors
    /// [`Error::Conflict`] for the last super-admin.
    pub(crate) async fn switch_user_off(&self, caller: &Caller, email: &str) -> Result<()> {
        let address = email.to_owned();
        self.as_admin(caller, "delete_user", email, move |directory, caller, w| {
            let change = UserChange { status: Some(Status::Deleted), ..UserChange::default() };
            directory.put_changed_user(caller, w, &address, None, change).map(|_| ())
        })
        .await
    }

    /// Removes a user, with keypairs and memberships.
    ///
    /// # Errors
    /// [`Error::Conflict`] for the last super-admin.
    pub(crate) async fn remove_user(&self, caller: &Caller, email: &str) -> Result<()> {
        let address = email.to_owned();
        self.as_admin(caller, "purge_user", email, move |directory, caller, w| {
            let user = directory.user(caller, Some(&address))?;
            directory.check_not_last(&user)?;
            directory.put_memberships(w, user.id, &BTreeSet::new())?;
            let pairs = directory.accounts.keypairs_of(user.id);
            let access_keys: Vec<String> = pairs.into_iter().map(|pair| pair.access_key).collect();
            for access_key in &access_keys {
                directory.accounts.remove_keypair(w, access_key)?;
            }
            directory.dissociate_keypairs(w, &access_keys)?;
            directory.revoke(w, user.id)?;
            directory.accounts.remove_user(w, user.id)
        })
        .await
    }

    fn put_new_user(
        &self,
        caller: &Caller,
        writer: &mut Writer,
        email: &str,
        password: String,
        change: UserChange,
    ) -> Result<(OwnedKeypair, Secret)> {
        let email = checked_email(email)?;
        self.check_names_left(caller)?;
        if let Some(other) = self.accounts.user_by_email(&email) {
            let remedy = match other.status {
                Status::Deleted => "it is deleted: purge it first, or modify its status",
                _ => "choose another address",
            };
            let plain = format!("there is a user {} already; {remedy}", other.email);
            return Err(self.taken(caller, "e-mail", &other, plain));
        }
        let domain = self.active_domain(caller, change.domain.as_deref())?;
        let blank = User {
            id: UserId::random(),
            email,
            username: String::new(),
            full_name: String::new(),
            description: String::new(),
            role: Role::User,
            status: Status::Active,
            need_password_change: false,
            domain: domain.name.clone(),
            password,
            created_at: self.clock.now(),
            modified_at: None,
            integration_id: None,
        };
        let groups =
            self.checked_groups(caller, &domain.name, change.groups.as_deref().unwrap_or_default())?;
        let user = self.changed(caller, "create_user", blank, UserChange { domain: None, ..change })?;
        check_token(caller, "create_user", &user)?;
        self.put_memberships(writer, user.id, &groups)?;
        self.accounts.put_user(writer, user.clone())?;
        self.put_new_keypair(caller, writer, Arc::new(user), KeypairChange::default())
    }

    fn put_changed_user(
        &self,
        caller: &Caller,
        writer: &mut Writer,
        email: &str,
        password: Option<String>,
        change: UserChange,
    ) -> Result<Arc<User>> {
        let old = self.user(caller, Some(email))?;
        let groups = change.groups.clone();
        let user = self.changed(caller, "modify_user", old.as_ref().clone(), change)?;
        if !(user.role == Role::Superadmin && user.is_active()) {
            self.check_not_last(&old)?;
        }
        let has_moved = user.domain != old.domain;
        if groups.is_some() || has_moved {
            let groups = self.checked_groups(caller, &user.domain, &groups.unwrap_or_default())?;
            self.put_memberships(writer, user.id, &groups)?;
        }
        let is_back = !old.is_active() && user.is_active();
        if password.is_some() || is_back || user.role != old.role {
            check_token(caller, "modify_user", &old)?;
            check_token(caller, "modify_user", &user)?;
        }
        // A user who was switched off by an older version may still have all that; one created inactive keeps it for
        // now.
        let was_off = is_back && matches!(old.status, Status::Inactive | Status::Deleted);
        if (old.is_active() && !user.is_active()) || (was_off && old.modified_at.is_some()) {
            self.revoke(writer, user.id)?;
        } else if password.is_some() {
            self.lock_out(writer, user.id)?;
        }
        let user =
            User { password: password.unwrap_or(user.password), modified_at: Some(self.clock.now()), ..user };
        self.accounts.put_user(writer, user.clone())?;
        Ok(Arc::new(user))
    }

    /// The user with the given changes, except password and groups.
    fn changed(&self, caller: &Caller, action: &str, user: User, change: UserChange) -> Result<User> {
        let text = |field, given: Option<String>, old: String| {
            given.map_or(Ok(old), |text| checked_text(field, &text))
        };
        if change.role == Some(Role::Superadmin) && !caller.is_superadmin() {
            return Err(Error::Denied(format!(
                "{action} with the role superadmin; only super-admins may give it"
            )));
        }
        let domain = match change.domain {
            Some(name) if name != user.domain => {
                if !caller.is_superadmin() {
                    let why = format!("{action} with another domain; only super-admins may move users");
                    return Err(Error::Denied(why));
                }
                self.active_domain(caller, Some(&name))?.name.clone()
            }
            _ => user.domain.clone(),
        };
        let integration_id = change.integration_id.map(|text| checked_text("integration_id", &text));
        Ok(User {
            username: self.checked_username(caller, &user, change.username)?,
            full_name: text("full_name", change.full_name, user.full_name)?,
            description: text("description", change.description, user.description)?,
            role: change.role.unwrap_or(user.role),
            status: change.status.unwrap_or(user.status),
            need_password_change: change.need_password_change.unwrap_or(user.need_password_change),
            domain,
            integration_id: integration_id.transpose()?.or(user.integration_id),
            ..user
        })
    }

    fn checked_username(&self, caller: &Caller, user: &User, given: Option<String>) -> Result<String> {
        let Some(name) = given else { return Ok(user.username.clone()) };
        // The official clients send the e-mail address if there is no short name.
        if name.trim().is_empty() || name.trim().eq_ignore_ascii_case(&user.email) {
            return Ok(String::new());
        }
        let name = checked_name("username", &name)?;
        let key = name.to_lowercase();
        self.check_names_left(caller)?;
        let is_taken = |other: &&Arc<User>| other.id != user.id && other.username.to_lowercase() == key;
        if let Some(other) = self.accounts.users().iter().find(is_taken) {
            let plain = format!("the username {name} is taken; choose another");
            return Err(self.taken(caller, "username", other, plain));
        }
        Ok(name)
    }

    /// The active domain of this name, if the caller may see it; without a name the caller's own.
    pub(in crate::access::directory) fn active_domain(
        &self,
        caller: &Caller,
        name: Option<&str>,
    ) -> Result<Arc<Domain>> {
        let domain = self.domain(caller, name)?;
        if domain.is_active {
            return Ok(domain);
        }
        let why = format!("the domain {} is deleted; modify it with is_active: true first", domain.name);
        Err(Error::Conflict(why))
    }

    fn checked_groups(&self, caller: &Caller, domain: &str, ids: &[GroupId]) -> Result<BTreeSet<GroupId>> {
        ids.iter()
            .map(|id| {
                let group = self.group(caller, *id)?;
                if group.domain == domain {
                    return Ok(*id);
                }
                let why = format!(
                    "the group {} ({id}) is of the domain {}, not of the user's, {domain}",
                    group.name, group.domain
                );
                Err(Error::invalid("group_ids", why))
            })
            .collect()
    }

    /// Makes a user a member of exactly these groups.
    fn put_memberships(&self, writer: &mut Writer, user: UserId, groups: &BTreeSet<GroupId>) -> Result<()> {
        for group in self.tenants.now().groups.values() {
            if group.members.contains(&user) != groups.contains(&group.id) {
                let mut group = Group::clone(group);
                if !group.members.remove(&user) {
                    group.members.insert(user);
                }
                self.tenants.put_group(writer, group)?;
            }
        }
        Ok(())
    }

    fn check_not_last(&self, user: &User) -> Result<()> {
        let counts = |user: &User| user.role == Role::Superadmin && user.is_active();
        let others = self.accounts.users();
        if !counts(user) || others.iter().any(|other| other.id != user.id && counts(other)) {
            return Ok(());
        }
        Err(Error::Conflict(format!("{} is the last active super-admin; make another one first", user.email)))
    }
}
