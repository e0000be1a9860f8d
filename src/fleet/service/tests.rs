//! The fleet where two change it at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::access::audit::{Audit, Retention};
use crate::access::caller::Caller;
use crate::access::tenants::Tenants;
use crate::base::Error;
use crate::base::clock::Clock;
use crate::engine::fake::{Fake, about};
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
        let (store, clock) = (Store::open(directory.path()).unwrap(), Clock::system());
        let tenants = Tenants::load(&store, clock.now()).unwrap();
        let audit = Audit::load(&store, clock.clone(), Retention::default()).unwrap();
        let fleet = Fleet::load(&store, clock, audit, tenants).unwrap();
        let root = Caller::superadmin();
        Self { fleet, store, root, _directory: directory }
    }
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
async fn an_agent_that_is_removed_while_it_says_hello_does_not_come_back() {
    let scene = Scene::set();
    let joined = Joined {
        id: "gpu01".into(),
        address: "link:10.0.0.1".into(),
        scaling_group: None,
        labels: BTreeMap::new(),
    };
    let fleet = scene.fleet.clone();
    scene.store.write(move |w| fleet.put_joined(w, joined)).await.unwrap();
    let held = Held::begin(&scene.store).await;
    let (fleet, engine) = (scene.fleet.clone(), Arc::new(Fake::holding(&[])));
    let removal = tokio::spawn({
        let (store, fleet) = (scene.store.clone(), fleet.clone());
        async move { store.write(move |w| fleet.take_out(w, "gpu01")).await }
    });
    held.gather().await;
    // From another address, so there is something to be written of it.
    let arrival = tokio::spawn(async move {
        let closed = tokio_util::sync::CancellationToken::new();
        fleet.arrive("gpu01", "link:10.0.0.2", engine, about(), &closed).await
    });
    held.gather().await;
    held.end().await;
    removal.await.unwrap().unwrap();
    // Whichever of the two came first.
    let outcome = arrival.await.unwrap();
    assert!(matches!(outcome, Ok(()) | Err(Error::Missing { .. })), "{outcome:?}");
    assert!(scene.fleet.find("gpu01").is_none());
}
