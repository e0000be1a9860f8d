//! Domains, groups and scaling groups, and which may use what.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use crate::base::ids::{GroupId, UserId};
use crate::base::reference::shown;
use crate::base::{Error, Result};
use crate::store::table::Writer;
use crate::store::{Store, Table};

const DOMAINS: Table<Domain> = Table::new("DOMAIN_NAME_TO_DOMAIN");
const GROUPS: Table<Group> = Table::new("GROUP_ID_TO_GROUP");
const SCALING_GROUPS: Table<ScalingGroup> = Table::new("SCALING_GROUP_NAME_TO_SCALING_GROUP");

/// The name of the domain, group and scaling group that are there from the start.
pub(crate) const DEFAULT: &str = "default";

/// A domain: a tenant with users and groups.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Domain {
    /// Its name.
    pub(crate) name: String,
    /// A description for people.
    #[serde(default)]
    pub(crate) description: String,
    /// Whether its users see any image.
    pub(crate) is_active: bool,
    /// The registries whose images its users may see.
    pub(crate) allowed_docker_registries: BTreeSet<String>,
    /// The scaling groups that all of its groups may use.
    pub(crate) scaling_groups: BTreeSet<String>,
    /// What an outside system calls it.
    #[serde(default)]
    pub(crate) integration_id: Option<String>,
    /// When it was made.
    #[serde(default)]
    pub(crate) created_at: Timestamp,
}

/// A project: some users of a domain.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Group {
    /// Its id.
    pub(crate) id: GroupId,
    /// Its name, unique in its domain.
    pub(crate) name: String,
    /// A description for people.
    #[serde(default)]
    pub(crate) description: String,
    /// The domain it is in.
    pub(crate) domain: String,
    /// Whether it is active; an inactive group counts for nothing.
    pub(crate) is_active: bool,
    /// Its members.
    pub(crate) members: BTreeSet<UserId>,
    /// The scaling groups it may use besides its domain's.
    pub(crate) scaling_groups: BTreeSet<String>,
    /// What an outside system calls it.
    #[serde(default)]
    pub(crate) integration_id: Option<String>,
    /// When it was made.
    #[serde(default)]
    pub(crate) created_at: Timestamp,
}

/// A named set of agents.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ScalingGroup {
    /// Its name.
    pub(crate) name: String,
    /// A description for people.
    #[serde(default)]
    pub(crate) description: String,
    /// Whether it is active; an inactive scaling group counts for nothing.
    pub(crate) is_active: bool,
    /// The keypairs that may use it in whatever group, by access key.
    pub(crate) keypairs: BTreeSet<String>,
    /// When it was made.
    #[serde(default)]
    pub(crate) created_at: Timestamp,
}

/// All tenants at one moment: plain data, so that the visibility rule can be a pure function of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tenancy {
    /// By name.
    pub(crate) domains: BTreeMap<String, Arc<Domain>>,
    /// By id.
    pub(crate) groups: BTreeMap<GroupId, Arc<Group>>,
    /// By name.
    pub(crate) scaling_groups: BTreeMap<String, Arc<ScalingGroup>>,
}

impl Tenancy {
    /// The group of this name or id in a domain, active or not.
    pub(crate) fn group(&self, domain: &str, wanted: &str) -> Option<&Group> {
        let mut groups = self.groups.values().filter(|group| group.domain == domain);
        groups.find(|group| group.name == wanted || group.id.to_string() == wanted).map(AsRef::as_ref)
    }
}

/// The tenants. Clones share them.
#[derive(Clone)]
pub struct Tenants {
    tenancy: Arc<RwLock<Arc<Tenancy>>>,
}

impl Tenants {
    /// Reads the tenants from the store, and makes the default ones when there are none.
    pub fn load(store: &Store, now: Timestamp) -> Result<Self> {
        let tenants = Self { tenancy: Arc::new(RwLock::new(Arc::new(read(store)?))) };
        if tenants.now().domains.is_empty() {
            store.write_now(|w| {
                tenants.put_domain(w, default_domain(now))?;
                tenants.put_group(w, default_group(now))?;
                tenants.put_scaling_group(w, default_scaling_group(now))
            })?;
        }
        Ok(tenants)
    }

    /// All tenants as they are now.
    pub(crate) fn now(&self) -> Arc<Tenancy> {
        Arc::clone(&self.tenancy.read())
    }

    /// Requires that this scaling group exists, for a record that is to refer to it. It can't be removed before the
    /// transaction of that record ends.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is none of this name.
    pub(crate) fn require_scaling_group(&self, name: &str) -> Result<()> {
        let is_there = self.now().scaling_groups.contains_key(name);
        is_there.then_some(()).ok_or_else(|| Error::missing("scaling group", shown(name)))
    }

    /// Writes a domain, new or changed.
    pub(in crate::access) fn put_domain(&self, writer: &mut Writer, domain: Domain) -> Result<()> {
        writer.put(&DOMAINS, &domain.name, &domain)?;
        self.on_commit(writer, move |all| {
            all.domains.insert(domain.name.clone(), Arc::new(domain));
        });
        Ok(())
    }

    /// Removes a domain.
    pub(in crate::access) fn remove_domain(&self, writer: &mut Writer, name: &str) -> Result<()> {
        writer.remove(&DOMAINS, name)?;
        let name = name.to_owned();
        self.on_commit(writer, move |all| {
            all.domains.remove(&name);
        });
        Ok(())
    }

    /// Writes a group, new or changed.
    pub(in crate::access) fn put_group(&self, writer: &mut Writer, group: Group) -> Result<()> {
        writer.put(&GROUPS, group.id.as_bytes(), &group)?;
        self.on_commit(writer, move |all| {
            all.groups.insert(group.id, Arc::new(group));
        });
        Ok(())
    }

    /// Removes a group.
    pub(in crate::access) fn remove_group(&self, writer: &mut Writer, id: GroupId) -> Result<()> {
        writer.remove(&GROUPS, id.as_bytes())?;
        self.on_commit(writer, move |all| {
            all.groups.remove(&id);
        });
        Ok(())
    }

    /// Writes a scaling group, new or changed.
    pub(in crate::access) fn put_scaling_group(
        &self,
        writer: &mut Writer,
        scaling_group: ScalingGroup,
    ) -> Result<()> {
        writer.put(&SCALING_GROUPS, &scaling_group.name, &scaling_group)?;
        self.on_commit(writer, move |all| {
            all.scaling_groups.insert(scaling_group.name.clone(), Arc::new(scaling_group));
        });
        Ok(())
    }

    /// Removes a scaling group.
    pub(in crate::access) fn remove_scaling_group(&self, writer: &mut Writer, name: &str) -> Result<()> {
        writer.remove(&SCALING_GROUPS, name)?;
        let name = name.to_owned();
        self.on_commit(writer, move |all| {
            all.scaling_groups.remove(&name);
        });
        Ok(())
    }

    /// Applies a change to memory once the transaction is durable. Holders of the earlier tenancy keep that one.
    fn on_commit(&self, writer: &mut Writer, change: impl FnOnce(&mut Tenancy) + Send + 'static) {
        let tenancy = Arc::clone(&self.tenancy);
        writer.on_commit(move || change(Arc::make_mut(&mut tenancy.write())));
    }
}

fn read(store: &Store) -> Result<Tenancy> {
    let mut tenancy = Tenancy::default();
    store.read_now(|r| {
        r.scan(&DOMAINS, [], |_, domain: Domain| {
            tenancy.domains.insert(domain.name.clone(), Arc::new(domain));
            Ok(())
        })?;
        r.scan(&GROUPS, [], |_, group: Group| {
            tenancy.groups.insert(group.id, Arc::new(group));
            Ok(())
        })?;
        r.scan(&SCALING_GROUPS, [], |_, scaling_group: ScalingGroup| {
            tenancy.scaling_groups.insert(scaling_group.name.clone(), Arc::new(scaling_group));
            Ok(())
        })
    })?;
    Ok(tenancy)
}

fn default_domain(now: Timestamp) -> Domain {
    Domain {
        name: DEFAULT.into(),
        is_active: true,
        scaling_groups: BTreeSet::from([DEFAULT.into()]),
        created_at: now,
        ..Domain::default()
    }
}

fn default_group(now: Timestamp) -> Group {
    Group {
        id: GroupId::random(),
        name: DEFAULT.into(),
        domain: DEFAULT.into(),
        is_active: true,
        created_at: now,
        ..Group::default()
    }
}

fn default_scaling_group(now: Timestamp) -> ScalingGroup {
    ScalingGroup { name: DEFAULT.into(), is_active: true, created_at: now, ..ScalingGroup::default() }
}
