//! Users, domains and groups, written into the data directory of a server that is stopped.

use std::collections::BTreeSet;
use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;
use wharf::access::caller::Role;
use wharf::access::tenants::{DEFAULT, Domain, Group, ScalingGroup, Tenants};
use wharf::base::ids::{GroupId, UserId};
use wharf::base::secret::Secret;
use wharf::store::seal::Sealed;
use wharf::store::table::Writer;
use wharf::store::{Store, Table};

use super::api::Api;
use super::app::App;
use super::sign::Keypair;

const USERS: Table<UserRecord> = Table::new("USER_ID_TO_USER");
const KEYPAIRS: Table<KeypairRecord> = Table::new("ACCESS_KEY_TO_KEYPAIR");
const DOMAINS: Table<Domain> = Table::new("DOMAIN_NAME_TO_DOMAIN");
const GROUPS: Table<Group> = Table::new("GROUP_ID_TO_GROUP");
const SCALING_GROUPS: Table<ScalingGroup> = Table::new("SCALING_GROUP_NAME_TO_SCALING_GROUP");

#[derive(Serialize)]
struct UserRecord {
    id: UserId,
    email: String,
    role: Role,
    is_active: bool,
    domain: String,
    password: String,
    created_at: Timestamp,
}

#[derive(Serialize)]
struct KeypairRecord {
    access_key: String,
    secret_key: Sealed,
    user: UserId,
    is_active: bool,
    created_at: Timestamp,
}

/// Somebody with an account in the default domain.
#[derive(Debug, Clone)]
pub struct Person {
    pub id: UserId,
    pub email: String,
    role: Role,
    keypair: (String, String),
}

impl Person {
    pub fn new(name: &str, role: Role) -> Self {
        Self {
            id: UserId::random(),
            email: format!("{name}@test.invalid"),
            role,
            keypair: (
                format!("AKIA{}", name.to_uppercase()),
                format!("planted-secret-key-of-{name}-0123456789"),
            ),
        }
    }

    /// This person's client of a server.
    pub fn api(&self, app: &App) -> Api {
        Api::new(app.url(), Some(Keypair::new(&self.keypair.0, &self.keypair.1)))
    }

    fn put(&self, store: &Store, writer: &mut Writer) {
        let (access_key, secret_key) = &self.keypair;
        let purpose = format!("keypair/{access_key}");
        let secret_key = store.seal().seal(&purpose, &Secret::new(secret_key.as_str())).expect("a seal");
        let created_at = Timestamp::UNIX_EPOCH;
        let user = UserRecord {
            id: self.id,
            email: self.email.clone(),
            role: self.role,
            is_active: true,
            domain: DEFAULT.into(),
            password: String::new(),
            created_at,
        };
        let keypair = KeypairRecord {
            access_key: access_key.clone(),
            secret_key,
            user: self.id,
            is_active: true,
            created_at,
        };
        writer.put(&USERS, user.id.as_bytes(), &user).expect("a user");
        writer.put(&KEYPAIRS, access_key, &keypair).expect("a keypair");
    }
}

/// Writes people into the default domain, which may see these registries, and groups of it.
pub fn settle(
    data_dir: &Path,
    people: &[&Person],
    registries: &[&str],
    groups: &[(&str, &[&Person], &[&str])],
) {
    let store = Store::open(data_dir).expect("the data directory of a stopped server");
    let tenancy = Tenants::load(&store).expect("tenants").now();
    let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>();
    let work = |writer: &mut Writer| {
        for person in people {
            person.put(&store, writer);
        }
        let mut domain = tenancy.domains[DEFAULT].clone();
        domain.allowed_docker_registries = set(registries);
        domain.scaling_groups = BTreeSet::new();
        writer.put(&DOMAINS, DEFAULT, &domain)?;
        for (name, members, scaling_groups) in groups {
            let group = Group {
                id: GroupId::random(),
                name: (*name).into(),
                domain: DEFAULT.into(),
                is_active: true,
                members: members.iter().map(|person| person.id).collect(),
                scaling_groups: set(scaling_groups),
            };
            writer.put(&GROUPS, group.id.as_bytes(), &group)?;
            for &name in *scaling_groups {
                let scaling_group =
                    ScalingGroup { name: name.into(), is_active: true, keypairs: BTreeSet::new() };
                writer.put(&SCALING_GROUPS, name, &scaling_group)?;
            }
        }
        Ok(())
    };
    store.write_now(work).expect("tenants");
}
