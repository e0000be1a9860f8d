//! Domains: who sees them, and what super-admins may do with them.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::access::caller::Caller;
use crate::access::directory::{Directory, named, sees_domain};
use crate::access::names::{checked_name, checked_text};
use crate::access::tenants::{Domain, Group};
use crate::access::user::{Status, User};
use crate::base::reference::{is_registry_host, shown};
use crate::base::{Error, Result};
use crate::store::table::Writer;

/// The fields of a domain to set; `None` leaves a field as it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct DomainChange {
    /// The new name.
    pub(crate) name: Option<String>,
    /// A description for people.
    pub(crate) description: Option<String>,
    /// Whether its users see any image at all.
    pub(crate) is_active: Option<bool>,
    /// The registries whose images its users may see. An empty list leaves them as they are, since the older official
    /// clients send one with every change; a list of one empty text empties them.
    pub(crate) registries: Option<Vec<String>>,
    /// What an outside system calls it.
    pub(crate) integration_id: Option<String>,
}

impl DomainChange {
    fn apply(self, domain: Domain) -> Result<Domain> {
        let integration_id = self.integration_id.map(|text| checked_text("integration_id", &text));
        Ok(Domain {
            name: self.name.map_or(Ok(domain.name), |name| checked_name("name", &name))?,
            description: self
                .description
                .map_or(Ok(domain.description), |text| checked_text("description", &text))?,
            is_active: self.is_active.unwrap_or(domain.is_active),
            allowed_docker_registries: match self.registries {
                Some(hosts) if !hosts.is_empty() => registries(&hosts)?,
                _ => domain.allowed_docker_registries,
            },
            integration_id: integration_id.transpose()?.or(domain.integration_id),
            ..domain
        })
    }
}

fn registries(hosts: &[String]) -> Result<BTreeSet<String>> {
    let hosts = hosts.iter().map(|host| host.trim()).filter(|host| !host.is_empty());
    hosts
        .map(|host| {
            if is_registry_host(host) {
                return Ok(host.to_owned());
            }
            let why = format!(
                "{:?} can name no registry; give what image names begin with, such as cr.example.org:5000",
                shown(host)
            );
            Err(Error::invalid("allowed_docker_registries", why))
        })
        .collect()
}

impl Directory {
    /// The domains that the caller may see, sorted by name.
    pub(crate) fn domains(&self, caller: &Caller, is_active: Option<bool>) -> Vec<Arc<Domain>> {
        let tenancy = self.tenants.now();
        let domains = tenancy.domains.values().filter(|domain| sees_domain(caller, &domain.name));
        domains.filter(|domain| is_active.is_none_or(|is| is == domain.is_active)).cloned().collect()
    }

    /// One domain; without a name, the caller's own.
    ///
    /// # Errors
    /// [`Error::Missing`] for a domain that the caller may not see.
    pub(crate) fn domain(&self, caller: &Caller, name: Option<&str>) -> Result<Arc<Domain>> {
        let name = name.unwrap_or(&caller.domain);
        let domain = self.tenants.now().domains.get(name).cloned();
        domain
            .filter(|domain| sees_domain(caller, &domain.name))
            .ok_or_else(|| Error::missing("domain", shown(name)))
    }

    /// Adds a domain.
    ///
    /// # Errors
    /// [`Error::Conflict`] when there is a domain of this name.
    pub(crate) async fn add_domain(
        &self,
        caller: &Caller,
        name: &str,
        change: DomainChange,
    ) -> Result<Arc<Domain>> {
        let change = DomainChange { name: Some(name.into()), ..change };
        self.as_superadmin(caller, "create_domain", name, move |directory, w| {
            let created_at = directory.clock.now();
            let domain = change.apply(Domain { is_active: true, created_at, ..Domain::default() })?;
            directory.check_new_domain(&domain.name)?;
            directory.put_domain(w, domain)
        })
        .await
    }

    /// Changes a domain. If its name changes, its users and groups follow.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is no such domain, [`Error::Conflict`] for a new name that is taken.
    pub(crate) async fn change_domain(
        &self,
        caller: &Caller,
        name: &str,
        change: DomainChange,
    ) -> Result<Arc<Domain>> {
        let (own, name) = (caller.clone(), name.to_owned());
        self.as_superadmin(caller, "modify_domain", &name.clone(), move |directory, w| {
            let old = directory.domain(&own, Some(&name))?;
            let changed = change.apply(old.as_ref().clone())?;
            if changed.name != old.name {
                directory.check_new_domain(&changed.name)?;
                directory.rename_domain(w, &old.name, &changed.name)?;
            }
            directory.put_domain(w, changed)
        })
        .await
    }

    /// Switches a domain off but keeps it.
    ///
    /// # Errors
    /// [`Error::Conflict`] when it still has users.
    pub(crate) async fn switch_domain_off(&self, caller: &Caller, name: &str) -> Result<()> {
        let (own, name) = (caller.clone(), name.to_owned());
        self.as_superadmin(caller, "delete_domain", &name.clone(), move |directory, w| {
            let domain = directory.domain(&own, Some(&name))?;
            let left: Vec<String> = directory
                .users_in(&name)
                .filter(|user| user.status != Status::Deleted)
                .map(|user| user.email.clone())
                .collect();
            if !left.is_empty() {
                return Err(in_use(&name, "users", &left, "move or delete them first"));
            }
            directory.put_domain(w, Domain { is_active: false, ..domain.as_ref().clone() }).map(|_| ())
        })
        .await
    }

    /// Removes a domain.
    ///
    /// # Errors
    /// [`Error::Conflict`] when it still has users, including deleted ones, or groups.
    pub(crate) async fn remove_domain(&self, caller: &Caller, name: &str) -> Result<()> {
        let (own, name) = (caller.clone(), name.to_owned());
        self.as_superadmin(caller, "purge_domain", &name.clone(), move |directory, w| {
            directory.domain(&own, Some(&name))?;
            let users: Vec<String> = directory.users_in(&name).map(|user| user.email.clone()).collect();
            if !users.is_empty() {
                return Err(in_use(&name, "users", &users, "move or purge them first"));
            }
            let groups: Vec<String> = directory.groups_in(&name).map(|group| group.name.clone()).collect();
            if !groups.is_empty() {
                return Err(in_use(&name, "groups", &groups, "purge them first"));
            }
            directory.tenants.remove_domain(w, &name)
        })
        .await
    }

    pub(in crate::access::directory) fn users_in(&self, domain: &str) -> impl Iterator<Item = Arc<User>> {
        self.accounts.users().into_iter().filter(move |user| user.domain == domain)
    }

    pub(in crate::access::directory) fn groups_in(&self, domain: &str) -> impl Iterator<Item = Arc<Group>> {
        let tenancy = self.tenants.now();
        let groups: Vec<_> =
            tenancy.groups.values().filter(|group| group.domain == domain).cloned().collect();
        groups.into_iter()
    }

    fn check_new_domain(&self, name: &str) -> Result<()> {
        match self.tenants.now().domains.get(name) {
            None => Ok(()),
            Some(domain) if domain.is_active => {
                Err(Error::Exists(format!("there is a domain {name} already; choose another name")))
            }
            Some(_) => Err(Error::Exists(format!(
                "there is a deleted domain {name}; purge it first, or modify it with is_active: true"
            ))),
        }
    }

    fn rename_domain(&self, writer: &mut Writer, old: &str, new: &str) -> Result<()> {
        for user in self.users_in(old) {
            self.accounts.put_user(writer, User { domain: new.into(), ..user.as_ref().clone() })?;
        }
        for group in self.groups_in(old) {
            self.tenants.put_group(writer, Group { domain: new.into(), ..group.as_ref().clone() })?;
        }
        self.tenants.remove_domain(writer, old)
    }

    fn put_domain(&self, writer: &mut Writer, domain: Domain) -> Result<Arc<Domain>> {
        self.tenants.put_domain(writer, domain.clone())?;
        Ok(Arc::new(domain))
    }
}

fn in_use(domain: &str, what: &str, names: &[String], remedy: &str) -> Error {
    Error::Conflict(format!("the domain {domain} still has {what}: {}; {remedy}", named(names)))
}
