//! Domains, groups and scaling groups, and which may use what.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use crate::base::Result;
use crate::base::ids::{GroupId, UserId};
use crate::store::{Store, Table};

const DOMAINS: Table<Domain> = Table::new("DOMAIN_NAME_TO_DOMAIN");
const GROUPS: Table<Group> = Table::new("GROUP_ID_TO_GROUP");
const SCALING_GROUPS: Table<ScalingGroup> = Table::new("SCALING_GROUP_NAME_TO_SCALING_GROUP");

/// The name of the domain, group and scaling group that are there from the start.
pub const DEFAULT: &str = "default";

/// A tenant.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Domain {
    /// Its name.
    pub name: String,
    /// Whether its users may do anything.
    pub is_active: bool,
    /// The registries whose images its users may see.
    pub allowed_docker_registries: BTreeSet<String>,
    /// The scaling groups all of its groups may use.
    pub scaling_groups: BTreeSet<String>,
}

/// A project: some users of a domain.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Group {
    /// Its id.
    pub id: GroupId,
    /// Its name, unique in its domain.
    pub name: String,
    /// The domain it is in.
    pub domain: String,
    /// Whether it counts.
    pub is_active: bool,
    /// Its members.
    pub members: BTreeSet<UserId>,
    /// The scaling groups it may use besides its domain's.
    pub scaling_groups: BTreeSet<String>,
}

/// A named set of agents.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ScalingGroup {
    /// Its name.
    pub name: String,
    /// Whether it counts.
    pub is_active: bool,
    /// The keypairs that may use it whatever their group, by access key.
    pub keypairs: BTreeSet<String>,
}

/// All tenants at one moment: plain data, so that the visibility rule can be a pure function of it.
#[derive(Debug, Clone, Default)]
pub struct Tenancy {
    /// By name.
    pub domains: BTreeMap<String, Domain>,
    /// In the order of their ids.
    pub groups: Vec<Group>,
    /// By name.
    pub scaling_groups: BTreeMap<String, ScalingGroup>,
}

/// The tenants. Clones share them.
#[derive(Clone)]
pub struct Tenants {
    tenancy: Arc<RwLock<Arc<Tenancy>>>,
}

impl Tenants {
    /// Reads the tenants from the store, and makes the default ones when there are none.
    pub fn load(store: &Store) -> Result<Self> {
        let mut tenancy = read(store)?;
        if tenancy.domains.is_empty() {
            store.write_now(|w| {
                let domain = default_domain();
                w.put(&DOMAINS, &domain.name, &domain)?;
                let group = default_group();
                w.put(&GROUPS, group.id.as_bytes(), &group)?;
                let scaling_group = default_scaling_group();
                w.put(&SCALING_GROUPS, &scaling_group.name, &scaling_group)
            })?;
            tenancy = read(store)?;
        }
        Ok(Self { tenancy: Arc::new(RwLock::new(Arc::new(tenancy))) })
    }

    /// All of them, as they are now.
    pub fn now(&self) -> Arc<Tenancy> {
        Arc::clone(&self.tenancy.read())
    }
}

fn read(store: &Store) -> Result<Tenancy> {
    let mut tenancy = Tenancy::default();
    store.read_now(|r| {
        r.scan(&DOMAINS, [], |_, domain: Domain| {
            tenancy.domains.insert(domain.name.clone(), domain);
            Ok(())
        })?;
        r.scan(&GROUPS, [], |_, group| {
            tenancy.groups.push(group);
            Ok(())
        })?;
        r.scan(&SCALING_GROUPS, [], |_, scaling_group: ScalingGroup| {
            tenancy.scaling_groups.insert(scaling_group.name.clone(), scaling_group);
            Ok(())
        })
    })?;
    Ok(tenancy)
}

fn default_domain() -> Domain {
    Domain {
        name: DEFAULT.into(),
        is_active: true,
        allowed_docker_registries: BTreeSet::new(),
        scaling_groups: BTreeSet::from([DEFAULT.into()]),
    }
}

fn default_group() -> Group {
    Group {
        id: GroupId::random(),
        name: DEFAULT.into(),
        domain: DEFAULT.into(),
        is_active: true,
        members: BTreeSet::new(),
        scaling_groups: BTreeSet::new(),
    }
}

fn default_scaling_group() -> ScalingGroup {
    ScalingGroup { name: DEFAULT.into(), is_active: true, keypairs: BTreeSet::new() }
}
