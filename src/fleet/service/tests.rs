//! Tests of the fleet when two callers change it at the same time, or the catalog does.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::access::audit::{Audit, Retention};
use crate::access::caller::Caller;
use crate::access::joins::{Joins, NewToken};
use crate::access::tenants::Tenants;
use crate::access::visibility::PresenceIndex;
use crate::base::Error;
use crate::base::clock::Clock;
use crate::base::identity::Identity;
use crate::base::secret::Secret;
use crate::engine;
use crate::engine::fake::{Fake, about, held};
use crate::fleet::service::{AgentChange, Fleet, Joined};
use crate::store::Store;
use crate::store::held::Held;

struct Scene {
    fleet: Fleet,
    store: Store,
    root: Caller,
    _directory: tempfile::TempDir,
}

impl Scene {
    fn set() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        Self { fleet: loaded(&store).0, store, root: Caller::superadmin(), _directory: directory }
    }
}

/// The fleet as it is after a start, and the join tokens by which agents get into it.
fn loaded(store: &Store) -> (Fleet, Joins) {
    let clock = Clock::system();
    let tenants = Tenants::load(store, clock.now()).unwrap();
    let audit = Audit::load(store, clock.clone(), Retention::default()).unwrap();
    let joins = Joins::new(store.clone(), clock.clone(), audit.clone(), tenants.clone());
    (Fleet::load(store, clock, audit, tenants).unwrap(), joins)
}

/// An agent of this id.
fn joined(id: &str) -> Joined {
    let (address, labels) = ("link:10.0.0.1".into(), BTreeMap::new());
    Joined { id: id.into(), address, scaling_group: None, labels }
}

#[tokio::test]
async fn of_two_changes_at_once_neither_takes_the_other_back() {
    let scene = Scene::set();
    let engine = Arc::new(Fake::holding(&[]));
    let id = scene.fleet.meet("docker+unix:///gpu01", engine, about()).await.unwrap();
    let labels = BTreeMap::from([("zone".to_owned(), "a".to_owned())]);
    let changes = [
        AgentChange { draining: Some(true), ..AgentChange::default() },
        AgentChange { labels: Some(labels.clone()), ..AgentChange::default() },
    ];
    let held = Held::begin(&scene.store).await;
    let under_way = changes.map(|change| {
        let (fleet, root, id) = (scene.fleet.clone(), scene.root.clone(), id.clone());
        tokio::spawn(async move { fleet.change(&root, &id, change).await })
    });
    held.gather().await;
    held.end().await;
    for change in under_way {
        change.await.unwrap().unwrap();
    }
    let record = scene.fleet.find(&id).unwrap().record;
    assert!(record.draining && record.labels == labels, "{record:?}");
}

#[tokio::test]
async fn what_agents_have_follows_the_catalog_as_well_as_their_reports() {
    let scene = Scene::set();
    let fleet = &scene.fleet;
    let engine = Arc::new(Fake::holding(&[]));
    let id = fleet.meet("docker+unix:///gpu01", engine, about()).await.unwrap();
    let (old, new) = (held("cr.io/a:1"), held("cr.io/other:1"));
    let number = |held: &engine::image::Held| {
        let image = Identity { config: &held.digest, manifest: None, index: None, architecture: "x86_64" };
        PresenceIndex::number(fleet, "cr.io/a:1", &image)
    };
    let is_there = |number: u32| PresenceIndex::held(fleet, None).contains(number as usize);
    let before = number(&old);
    fleet.report(&id, fleet.begin_read(), vec![old.clone()], None);
    assert!(is_there(before));
    // The tag moves: the same number stands for another image.
    PresenceIndex::forget(fleet, before);
    let moved = number(&new);
    assert!(moved == before && !is_there(moved));
    // An image that the agent had before the catalog knew it.
    let known = number(&old);
    assert!(is_there(known));
}

#[tokio::test]
async fn an_agent_that_is_removed_while_it_says_hello_does_not_come_back() {
    let scene = Scene::set();
    let fleet = scene.fleet.clone();
    scene.store.write(move |w| fleet.put_joined(w, joined("gpu01"))).await.unwrap();
    let held = Held::begin(&scene.store).await;
    let (fleet, engine) = (scene.fleet.clone(), Arc::new(Fake::holding(&[])));
    let removal = tokio::spawn({
        let (store, fleet) = (scene.store.clone(), fleet.clone());
        async move { store.write(move |w| fleet.take_out(w, "gpu01")).await }
    });
    held.gather().await;
    // The agent arrives from another address, so there is something to write about it.
    let arrival = tokio::spawn(async move {
        let closed = tokio_util::sync::CancellationToken::new();
        fleet.arrive("gpu01", "link:10.0.0.2", engine, about(), &closed).await
    });
    held.gather().await;
    held.end().await;
    removal.await.unwrap().unwrap();
    // Either of the two may have come first.
    let outcome = arrival.await.unwrap();
    assert!(matches!(outcome, Ok(()) | Err(Error::Missing { .. })), "{outcome:?}");
    assert!(scene.fleet.find("gpu01").is_none());
}

#[tokio::test]
async fn an_agent_that_was_let_in_under_a_reserved_word_goes_by_another_id_since_the_next_start() {
    let scene = Scene::set();
    let (fleet, joins) = loaded(&scene.store);
    let (token, text) = joins.create(&scene.root, NewToken::default()).await.unwrap();
    let (key, secret) = ("abcdef0123456789", Secret::new("s".repeat(64)));
    let (letting, writing, secret_of) = (joins.clone(), fleet.clone(), secret.clone());
    let enters = move |w: &mut crate::store::table::Writer| {
        assert!(letting.check(w, &text)?.is_ok());
        letting.spend(w, token, key, &secret_of, "all")?;
        writing.put_joined(w, joined("all"))?;
        writing.put_joined(w, joined("i-all"))
    };
    scene.store.write(enters).await.unwrap();
    for _ in 0..2 {
        let (fleet, joins) = loaded(&scene.store);
        assert!(fleet.find("all").is_none());
        assert_eq!(fleet.find("i-all-2").unwrap().record.address, "link:10.0.0.1");
        assert_eq!(joins.agent_of(key, &secret).await.unwrap().as_deref(), Some("i-all-2"));
    }
}
