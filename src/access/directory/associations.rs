//! Associations: which domain, group or keypair may use which scaling group.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::access::caller::Caller;
use crate::access::directory::{Directory, scaling_groups};
use crate::access::tenants::{Domain, Group, ScalingGroup, Tenancy};
use crate::base::ids::GroupId;
use crate::base::reference::shown;
use crate::base::{Error, Result};
use crate::store::table::Writer;

/// A domain, group or keypair that may use scaling groups.
#[derive(Debug, Clone)]
pub(crate) enum Grantee {
    /// A domain, by name.
    Domain(String),
    /// A group.
    Group(GroupId),
    /// A keypair, by access key.
    Keypair(String),
}

/// A change of the scaling groups of a grantee. A change that is made already is no error.
#[derive(Debug, Clone)]
pub(crate) enum Association {
    /// The grantee may also use these scaling groups.
    Add(Vec<String>),
    /// The grantee may no longer use these.
    Remove(Vec<String>),
    /// The grantee may no longer use any.
    Clear,
}

impl Association {
    fn names(&self) -> &[String] {
        match self {
            Self::Add(names) | Self::Remove(names) => names,
            Self::Clear => &[],
        }
    }

    fn apply(&self, names: &mut BTreeSet<String>) {
        match self {
            Self::Add(added) => names.extend(added.iter().cloned()),
            Self::Remove(removed) => names.retain(|name| !removed.contains(name)),
            Self::Clear => names.clear(),
        }
    }
}

impl Directory {
    /// The scaling groups that a domain, a group or a keypair may use itself, sorted by name.
    ///
    /// # Errors
    /// [`Error::Missing`] for a grantee that the caller may not see.
    pub(crate) fn scaling_groups_for(
        &self,
        caller: &Caller,
        grantee: &Grantee,
        is_active: Option<bool>,
    ) -> Result<Vec<Arc<ScalingGroup>>> {
        let tenancy = self.tenants.now();
        let names = match grantee {
            Grantee::Domain(name) => self.domain(caller, Some(name))?.scaling_groups.clone(),
            Grantee::Group(id) => self.group(caller, *id)?.scaling_groups.clone(),
            Grantee::Keypair(access_key) => {
                self.keypair(caller, Some(access_key))?;
                names_with(&tenancy, access_key)
            }
        };
        let groups = tenancy.scaling_groups.values().filter(|group| names.contains(&group.name));
        // Only super-admins see inactive scaling groups.
        let groups = groups.filter(|group| caller.is_superadmin() || group.is_active);
        Ok(groups.filter(|group| is_active.is_none_or(|is| is == group.is_active)).cloned().collect())
    }

    /// Changes which scaling groups a grantee may use. For super-admins; `action` is the mutation's name.
    ///
    /// # Errors
    /// [`Error::Missing`] for an unknown scaling group or grantee; then nothing is changed.
    pub(crate) async fn associate(
        &self,
        caller: &Caller,
        action: &'static str,
        grantee: Grantee,
        change: Association,
    ) -> Result<()> {
        let with = match &grantee {
            Grantee::Domain(name) | Grantee::Keypair(name) => name.clone(),
            Grantee::Group(id) => id.to_string(),
        };
        let target = format!("{} with {with}", change.names().join(", "));
        self.as_superadmin(caller, action, &target, move |directory, w| {
            let tenancy = directory.tenants.now();
            if let Some(name) = change.names().iter().find(|name| !tenancy.scaling_groups.contains_key(*name))
            {
                return Err(scaling_groups::missing(name));
            }
            directory.put_association(w, &tenancy, &grantee, &change)
        })
        .await
    }

    fn put_association(
        &self,
        writer: &mut Writer,
        tenancy: &Tenancy,
        grantee: &Grantee,
        change: &Association,
    ) -> Result<()> {
        match grantee {
            Grantee::Domain(name) => {
                let domain =
                    tenancy.domains.get(name).ok_or_else(|| Error::missing("domain", shown(name)))?;
                let mut domain = Domain::clone(domain);
                change.apply(&mut domain.scaling_groups);
                self.tenants.put_domain(writer, domain)
            }
            Grantee::Group(id) => {
                let group = tenancy.groups.get(id).ok_or_else(|| Error::missing("group", id.to_string()))?;
                let mut group = Group::clone(group);
                change.apply(&mut group.scaling_groups);
                self.tenants.put_group(writer, group)
            }
            Grantee::Keypair(access_key) => {
                if self.accounts.keypair(access_key).is_none() {
                    return Err(Error::missing("keypair", shown(access_key)));
                }
                let before = names_with(tenancy, access_key);
                let mut after = before.clone();
                change.apply(&mut after);
                for group in
                    before.symmetric_difference(&after).filter_map(|name| tenancy.scaling_groups.get(name))
                {
                    let mut group = ScalingGroup::clone(group);
                    if after.contains(&group.name) {
                        group.keypairs.insert(access_key.clone());
                    } else {
                        group.keypairs.remove(access_key);
                    }
                    self.tenants.put_scaling_group(writer, group)?;
                }
                Ok(())
            }
        }
    }

    /// Ends all associations of keypairs that are being removed.
    pub(in crate::access::directory) fn dissociate_keypairs(
        &self,
        writer: &mut Writer,
        access_keys: &[String],
    ) -> Result<()> {
        for group in self.tenants.now().scaling_groups.values() {
            if access_keys.iter().any(|access_key| group.keypairs.contains(access_key)) {
                let mut group = ScalingGroup::clone(group);
                group.keypairs.retain(|access_key| !access_keys.contains(access_key));
                self.tenants.put_scaling_group(writer, group)?;
            }
        }
        Ok(())
    }
}

fn names_with(tenancy: &Tenancy, access_key: &str) -> BTreeSet<String> {
    let groups = tenancy.scaling_groups.values().filter(|group| group.keypairs.contains(access_key));
    groups.map(|group| group.name.clone()).collect()
}
