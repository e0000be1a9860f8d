//! The rules, without a network.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;

use crate::access::accounts::Accounts;
use crate::access::audit::{Audit, Retention};
use crate::access::caller::{Caller, Credential, Role};
use crate::access::directory::domains::DomainChange;
use crate::access::directory::groups::{GroupChange, GroupSearch};
use crate::access::directory::keypairs::{KeypairChange, KeypairSearch};
use crate::access::directory::users::{UserChange, UserSearch};
use crate::access::directory::{AgentDirectory, Directory, named};
use crate::access::first_admin::FirstAdmin;
use crate::access::hasher::Hasher;
use crate::access::tenants::Tenants;
use crate::access::user::Status;
use crate::base::clock::Clock;
use crate::base::secret::Secret;
use crate::store::Store;

struct Agents(&'static [&'static str]);

impl AgentDirectory for Agents {
    fn agents_in(&self, _scaling_group: &str) -> Vec<String> {
        self.0.iter().map(|&id| id.into()).collect()
    }
}

struct Scene {
    directory: Directory,
    accounts: Accounts,
    root: Caller,
    _folder: TempDir,
}

fn scene(agents: &'static [&'static str]) -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let (store, clock) = (Store::open(folder.path()).unwrap(), Clock::system());
    let tenants = Tenants::load(&store, clock.now()).unwrap();
    let accounts = Accounts::load(&store).unwrap();
    let hasher = Hasher::new().unwrap();
    let made = accounts.create_first_admin(&hasher, FirstAdmin::default(), "default", clock.now()).unwrap();
    let root = accounts.key_holder(&made.access_key).unwrap().caller;
    let audit = Audit::load(&store, clock.clone(), Retention::default()).unwrap();
    let directory = Directory::new(accounts.clone(), tenants, audit, hasher, clock, Arc::new(Agents(agents)));
    Scene { directory, accounts, root, _folder: folder }
}

impl Scene {
    async fn add(&self, email: &str, role: Role, domain: &str) -> Caller {
        let change = UserChange {
            password: Some(Secret::new("a long password")),
            role: Some(role),
            domain: Some(domain.into()),
            ..UserChange::default()
        };
        let (key, _) = self.directory.add_user(&self.root, email, Ok(change)).await.unwrap();
        self.accounts.caller(key.owner.id, Credential::Session).unwrap()
    }
}

#[tokio::test]
async fn everyone_sees_what_is_theirs() {
    let scene = scene(&[]);
    let directory = &scene.directory;
    directory.add_domain(&scene.root, "lab", DomainChange::default()).await.unwrap();
    let change = GroupChange { domain: Some("lab".into()), ..GroupChange::default() };
    directory.add_group(&scene.root, "vision", change).await.unwrap();
    let chief = scene.add("chief@lab", Role::Admin, "lab").await;
    let ann = scene.add("ann@lab", Role::User, "lab").await;
    let watcher = scene.add("watcher@lab", Role::Monitor, "lab").await;
    scene.add("root@lab", Role::Superadmin, "lab").await;
    let seen = |caller: &Caller| {
        let users = directory.users(caller, &UserSearch::default()).len();
        let keys = directory.keypairs(caller, &KeypairSearch::default()).len();
        let groups = directory.groups(caller, &GroupSearch::default()).len();
        (users, keys, groups, directory.domains(caller, None).len())
    };
    assert_eq!(seen(&scene.root), (5, 5, 2, 2));
    assert_eq!(seen(&chief), (3, 3, 1, 1), "no super-admin among them");
    for caller in [&ann, &watcher] {
        assert_eq!(seen(caller), (1, 1, 0, 1));
    }
    assert!(directory.user(&ann, Some("chief@lab")).is_err());
    assert_eq!(
        directory.user(&chief, Some("root@lab")).unwrap_err().to_string(),
        directory.user(&chief, Some("none@lab")).unwrap_err().to_string().replace("none", "root")
    );
}

#[tokio::test]
async fn a_new_password_and_switching_off_end_what_is_signed_in() {
    let mut scene = scene(&[]);
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    scene.directory = scene.directory.clone().on_lockout(Arc::new(move |_, _| {
        counted.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }));
    let ann = scene.add("ann@lab", Role::User, "default").await;
    let change = |change: UserChange| scene.directory.change_user(&scene.root, "ann@lab", Ok(change));
    change(UserChange { full_name: Some("Ann".into()), ..UserChange::default() }).await.unwrap();
    assert_eq!(count.load(Ordering::Relaxed), 0);
    let password = Some(Secret::new("another password"));
    change(UserChange { password, ..UserChange::default() }).await.unwrap();
    assert_eq!(count.load(Ordering::Relaxed), 1);
    change(UserChange { status: Some(Status::Inactive), ..UserChange::default() }).await.unwrap();
    assert_eq!(count.load(Ordering::Relaxed), 2);
    assert!(scene.accounts.key_holder(&ann.access_key).is_err());
    scene.directory.remove_user(&scene.root, "ann@lab").await.unwrap();
    assert_eq!(count.load(Ordering::Relaxed), 3);
    assert!(scene.accounts.keypair(&ann.access_key).is_none());
}

#[tokio::test]
async fn a_scaling_group_with_agents_stays() {
    let scene = scene(&["i-a", "i-b"]);
    let why = scene.directory.remove_scaling_group(&scene.root, "default").await.unwrap_err().to_string();
    assert!(why.contains("agents i-a, i-b; domains default"), "{why}");
}

#[tokio::test]
async fn a_user_may_have_so_many_keypairs() {
    let scene = scene(&[]);
    for _ in 1..100 {
        let change = Ok(KeypairChange::default());
        scene.directory.add_keypair(&scene.root, "admin@localhost", change).await.unwrap();
    }
    let change = Ok(KeypairChange::default());
    let why = scene.directory.add_keypair(&scene.root, "admin@localhost", change).await.unwrap_err();
    assert!(why.to_string().contains("100 keypairs, which is the most"), "{why}");
    assert_eq!(scene.accounts.keypairs_of(scene.root.user).len(), 100);
}

#[test]
fn an_error_names_twenty_and_counts_the_rest() {
    let names: Vec<String> = (0..23).map(|n| n.to_string()).collect();
    assert!(named(&names).ends_with("18, 19 and 3 more"));
    assert_eq!(named(&["a", "b"]), "a, b");
}
