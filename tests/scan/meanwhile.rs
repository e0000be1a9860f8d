//! Events during a rescan: other scans, registries that are read at the same time, and a registry that is removed.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::app::App;
use crate::support::image::Image;
use crate::support::proxy::CountingProxy;
use crate::support::registry::{PASSWORD, RealRegistry, USER};
use crate::support::shelf::Shelf;
use crate::support::verbs::counts;
use crate::support::wait::{PATIENCE, until};

/// The registries of one rescan, the repositories in each, and how many registries are asked for their repositories at
/// once.
const REGISTRIES: usize = 6;
const REPOSITORIES: usize = 8;
const AT_ONCE: usize = 4;

/// A server that has read a registry behind a proxy.
struct Scene {
    app: App,
    registry: RealRegistry,
    proxy: CountingProxy,
}

impl Scene {
    async fn set(images: impl IntoIterator<Item = Image>) -> Option<Self> {
        let registry = RealRegistry::open().await?;
        registry.push_all(images).await;
        let proxy = CountingProxy::start(&registry.url()).await;
        let app = App::start().await;
        app.admin().add_registry_at(&proxy.host(), &proxy.url(), None).await;
        app.admin().scan(&proxy.host()).await;
        Some(Self { app, registry, proxy })
    }

    /// Starts a rescan that gets the list of tags, but no answer about this tag until the proxy is released.
    async fn rescan_held_at(&self, tag: &str) -> String {
        let end = format!("/manifests/{tag}");
        self.proxy.take_log();
        self.proxy.hold_those(move |request| request.path().ends_with(&end));
        let task = self.app.admin().rescan(&self.proxy.host()).await;
        until("the rescan to be held", PATIENCE, async || (!self.proxy.take_held().is_empty()).then_some(()))
            .await;
        task
    }

    /// Scans one tag and waits for the end.
    async fn read(&self, tag: &str) {
        let task = self.app.admin().scan_image(&format!("{}/r/a:{tag}", self.proxy.host())).await;
        self.ends_well(&task).await;
    }

    async fn ends_well(&self, task: &str) {
        let last = self.app.admin().finish(task).await;
        assert!(last.name.ends_with("done"), "{last:?}\n{:#}", self.app.admin().task(task).await);
    }
}

#[tokio::test]
async fn a_tag_that_is_read_during_a_rescan_is_not_taken_back_by_its_end() {
    let moving = |content: &str| Image::new("r/a", "moving").content(content);
    let Some(scene) = Scene::set([moving("first"), Image::new("r/a", "slow")]).await else { return };
    let admin = scene.app.admin();
    let digest = async || admin.image("r/a", "moving", "x86_64").await["digest"].clone();
    let second = scene.registry.push(&moving("second")).await;
    let task = scene.rescan_held_at("slow").await;
    // The rescan has read the second image, but commits it only after it has read all tags.
    let config = &second.part("x86_64").config;
    until("the rescan to have read the second", PATIENCE, async || {
        scene.proxy.log().iter().any(|exchange| exchange.target.ends_with(config)).then_some(())
    })
    .await;
    let third = scene.registry.push(&moving("third")).await;
    scene.read("moving").await;
    assert_eq!(digest().await, third.part("x86_64").config);

    scene.proxy.release();
    scene.ends_well(&task).await;
    assert_eq!(digest().await, third.part("x86_64").config, "what is older does not replace it");
    // The record for later comparisons also belongs to the third image.
    let again = admin.scan(&scene.proxy.host()).await;
    assert_eq!(counts(&again), [0, 0, 2, 0, 0, 0], "{again:#}");
}

#[tokio::test]
async fn a_tag_that_comes_back_during_a_rescan_stays_with_its_aliases() {
    let back = Image::new("r/a", "back");
    let Some(scene) = Scene::set([back.clone(), Image::new("r/a", "slow")]).await else { return };
    let admin = scene.app.admin();
    let target = format!("{}/r/a:back", scene.proxy.host());
    admin.does("alias_image", &format!("alias: \"kept\", target: {target:?}")).await;
    scene.registry.delete_tag("r/a", "back");
    let task = scene.rescan_held_at("slow").await;
    scene.registry.push(&back).await;
    scene.read("back").await;

    scene.proxy.release();
    scene.ends_well(&task).await;
    let ended = admin.task(&task).await;
    assert_eq!(counts(&ended)[3], 0, "nothing is removed: {ended:#}");
    assert_eq!(admin.image("r/a", "back", "x86_64").await["aliases"], json!(["kept"]));
}

#[tokio::test]
async fn every_registry_is_read_to_its_end_when_they_are_read_at_once() {
    let mut registries = Vec::new();
    for number in 0..REGISTRIES {
        let name = |repository: usize| format!("lab{number}/{repository}");
        let shelf = Shelf::start((0..REPOSITORIES).map(|n| Image::new(&name(n), "1"))).await;
        let proxy = CountingProxy::start(&shelf.url()).await;
        registries.push((shelf, proxy));
    }
    let expected: BTreeSet<(String, String)> = registries
        .iter()
        .enumerate()
        .flat_map(|(number, (_, proxy))| {
            let host = proxy.host();
            (0..REPOSITORIES).map(move |n| (host.clone(), format!("lab{number}/{n}")))
        })
        .collect();
    // The order of events is left to chance, so one run proves little.
    for _ in 0..4 {
        let app = App::start().await;
        let admin = app.admin();
        for (_, proxy) in &registries {
            admin.add_registry_at(&proxy.host(), &proxy.url(), Some((USER, PASSWORD))).await;
            proxy.take_log();
            proxy.hold();
        }
        let data = admin.ask("mutation { rescan_images { ok msg task_id } }", json!({})).await;
        let task = data["rescan_images"]["task_id"].as_str().expect("a task id").to_owned();
        // The answers of all registries come at the same time.
        until("the first registries to be asked", PATIENCE, async || {
            let asked = registries.iter().filter(|(_, proxy)| proxy.arrived() > 0).count();
            (asked >= AT_ONCE).then_some(())
        })
        .await;
        for (_, proxy) in &registries {
            proxy.release();
        }
        let last = admin.finish(&task).await;
        let ended = admin.task(&task).await;
        assert!(last.name.ends_with("done"), "{last:?}\n{ended:#}");
        let images = admin.images().await;
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let found: BTreeSet<(String, String)> =
            images.iter().map(|image| (text(&image["registry"]), text(&image["name"]))).collect();
        assert_eq!(found, expected);
        // Each registry has an item for its list, one for each repository, and one for its removals.
        let items = ended["items"].as_array().expect("a list");
        assert_eq!(items.len(), REGISTRIES * (REPOSITORIES + 2), "{ended:#}");
        assert!(items.iter().all(|item| item["state"] == "done"), "{ended:#}");
    }
}

#[tokio::test]
async fn a_registry_that_is_taken_out_while_it_is_read_leaves_a_task_that_says_so() {
    let Some(scene) = Scene::set([Image::new("r/a", "1")]).await else { return };
    let (admin, host) = (scene.app.admin(), scene.proxy.host());
    let task = scene.rescan_held_at("1").await;
    let document = "mutation($host: String!) {
        delete_container_registry(hostname: $host) { container_registry { hostname } } }";
    admin.ask(document, json!({"host": host})).await;

    scene.proxy.release();
    admin.finish(&task).await;
    let ended = admin.task(&task).await;
    let items = ended["items"].as_array().expect("a list");
    let name = format!("{host}/r/a");
    assert!(items.iter().any(|item| item["name"] == name && item["state"] == "failed"), "{ended:#}");
    for item in items.iter().filter(|item| item["state"] != "done") {
        assert_eq!(item["state"], "failed", "{ended:#}");
        assert!(item["reason"].as_str().is_some_and(|reason| reason.contains(&host)), "{ended:#}");
    }
    assert!(admin.images().await.is_empty(), "what was read of it is in nobody's catalog");
}

#[tokio::test]
async fn a_registry_that_becomes_another_one_while_it_is_read_gets_nothing_of_the_first() {
    let Some(scene) = Scene::set([Image::new("r/a", "1")]).await else { return };
    let other = Shelf::start(vec![Image::new("r/b", "1")]).await;
    let (admin, host) = (scene.app.admin(), scene.proxy.host());
    scene.registry.push(&Image::new("r/a", "2")).await;
    let task = scene.rescan_held_at("2").await;
    let document = "mutation($host: String!, $url: String!, $user: String!, $password: String!) {
        modify_container_registry(hostname: $host, props: {url: $url, username: $user, password: $password}) {
            container_registry { hostname } } }";
    let other_one = json!({"host": host, "url": other.url(), "user": USER, "password": PASSWORD});
    admin.ask(document, other_one).await;

    scene.proxy.release();
    admin.finish(&task).await;
    let ended = admin.task(&task).await;
    let reasons =
        ended["items"].as_array().expect("a list").iter().filter_map(|item| item["reason"].as_str());
    assert!(reasons.into_iter().any(|reason| reason.contains("changed while it was read")), "{ended:#}");
    let tags = async || {
        let images = admin.images().await;
        images.iter().map(|image| format!("{}:{}", image["name"], image["tag"])).collect::<Vec<_>>()
    };
    assert!(!tags().await.iter().any(|tag| tag.ends_with("\"2\"")), "{:?}", tags().await);
    // Another scan finds the repository as it is now.
    let ended = admin.scan(&host).await;
    assert_eq!(counts(&ended), [1, 0, 0, 1, 0, 0], "{ended:#}");
}
