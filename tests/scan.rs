//! Rescans of real registries: what the catalog contains afterwards, what a repeat costs, and what must not be lost.

mod meanwhile;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::app::App;
use crate::support::http1::Response;
use crate::support::image::Image;
use crate::support::proxy::{CountingProxy, Exchange};
use crate::support::registry::{RealRegistry, USER};
use crate::support::verbs::counts;

/// The reasons in one of a ledger's lists, as `(reference, reason)`.
fn reasons(task: &Value, list: &str) -> Vec<(String, String)> {
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    let entries = task["ledger"][list].as_array();
    let entries = entries.unwrap_or_else(|| panic!("the ledger has no {list}: {task:#}"));
    entries.iter().map(|entry| (text(entry, "reference"), text(entry, "reason"))).collect()
}

/// The whole catalog, as `name:tag/architecture`.
fn names(images: &[Value]) -> BTreeSet<String> {
    let text = |image: &Value, field: &str| image[field].as_str().unwrap_or_default().to_owned();
    images
        .iter()
        .map(|i| format!("{}:{}/{}", text(i, "name"), text(i, "tag"), text(i, "architecture")))
        .collect()
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[tokio::test]
async fn a_scan_catalogs_every_image_as_it_is() {
    let Some(registry) = RealRegistry::open().await else { return };
    let python = registry
        .push(
            &Image::new("stable/python", "3.9-ubuntu20.04-cuda11.3")
                .label("ai.backend.resource.min.cpu", "1")
                .label("ai.backend.resource.min.mem", "256m")
                .label("ai.backend.accelerators", "cuda")
                .label("ai.backend.features", "batch query")
                .layer_bytes(5000),
        )
        .await;
    let app = App::start().await;
    let admin = app.admin();
    admin.add_registry(&registry).await;
    let task = admin.scan(registry.host()).await;
    assert_eq!(task["state"], "done");
    assert_eq!(counts(&task), [1, 0, 0, 0, 0, 0], "{task:#}");

    let image = admin.image("stable/python", "3.9-ubuntu20.04-cuda11.3", "x86_64").await;
    let part = python.part("x86_64");
    assert_eq!(image["registry"], registry.host());
    assert_eq!(image["digest"], part.config, "the config's digest, not the manifest's");
    assert_eq!(image["size_bytes"].as_u64(), Some(part.size as u64), "config and layers");
    assert_eq!(image["humanized_name"], "Python 3.9, Ubuntu 20.04, CUDA 11.3");
    assert_eq!(image["aliases"], json!([]));
    assert_eq!(image["installed"], false);
    assert!(image["supported_accelerators"].as_array().unwrap().contains(&json!("cuda")), "{image}");
    let labels = image["labels"].as_array().unwrap();
    assert_eq!(labels.len(), 5);
    assert!(labels.contains(&json!({"key": "ai.backend.resource.min.mem", "value": "256m"})), "{image}");
    let limits = image["resource_limits"].as_array().unwrap();
    let limit = |key: &str| limits.iter().find(|limit| limit["key"] == key).cloned().unwrap_or_default();
    assert_eq!((&limit("cpu")["min"], &limit("cpu")["max"]), (&json!("1"), &json!("Infinity")), "{image}");
    assert!(limit("mem")["min"].is_string(), "{image}");
}

#[tokio::test]
async fn platforms_are_images_of_their_own_and_accessories_are_none() {
    let Some(registry) = RealRegistry::open().await else { return };
    let both = ["linux/amd64", "linux/arm64"];
    registry.push(&Image::new("a/docker-list", "1").platforms(&both)).await;
    registry.push(&Image::new("a/oci-index", "1").platforms(&both).oci()).await;
    registry.push(&Image::new("a/attested", "1").platforms(&both).attested()).await;
    registry.push(&Image::new("a/annotated", "1").platforms(&both).annotated()).await;
    registry.push(&Image::new("a/arm-only", "1").platform("linux/arm64").oci()).await;
    let vanilla = registry.push(&Image::vanilla("a/vanilla", "1").oci()).await;
    registry.push(&Image::cosign("a/vanilla", vanilla.digest())).await;
    registry.push(&Image::helm("a/chart", "0.1.0")).await;
    registry.push(&Image::artifact("a/model", "1", "application/vnd.example.model")).await;
    let app = App::start().await;
    let admin = app.admin();
    admin.add_registry(&registry).await;
    let task = admin.scan(registry.host()).await;
    assert_eq!(
        names(&admin.images().await),
        set([
            "a/docker-list:1/x86_64",
            "a/docker-list:1/aarch64",
            "a/oci-index:1/x86_64",
            "a/oci-index:1/aarch64",
            "a/attested:1/x86_64",
            "a/attested:1/aarch64",
            "a/annotated:1/x86_64",
            "a/annotated:1/aarch64",
            "a/arm-only:1/aarch64",
            "a/vanilla:1/x86_64",
        ])
    );
    let skipped = reasons(&task, "skipped");
    for artifact in ["a/chart:0.1.0", "a/model:1"] {
        let found = skipped.iter().find(|(reference, _)| reference.contains(artifact));
        let (_, reason) = found.unwrap_or_else(|| panic!("{artifact} is silently left out: {task:#}"));
        assert!(reason.contains("artifact"), "{artifact}: {reason}");
    }
    assert_eq!(counts(&task)[0], 10, "{task:#}");
    assert_eq!(counts(&task)[5], 0, "{task:#}");
}

#[tokio::test]
async fn a_repeat_asks_once_per_tag_and_fetches_nothing() {
    let Some(registry) = RealRegistry::open().await else { return };
    let images = (0..40).map(|n| {
        let image = Image::new(&format!("r/{}", n % 4), &format!("t{n}"));
        if n % 3 == 0 { image.platforms(&["linux/amd64", "linux/arm64"]) } else { image }
    });
    registry.push_all(images).await;
    let proxy = CountingProxy::start(&registry.url()).await;
    let app = App::start().await;
    let admin = app.admin();
    admin.add_registry_at(&proxy.host(), &proxy.url(), None).await;
    let first = admin.scan(&proxy.host()).await;
    assert_eq!(counts(&first), [54, 0, 0, 0, 0, 0], "{first:#}");
    let log = proxy.take_log();
    let blobs: Vec<&Exchange> = log.iter().filter(|e| e.is_blob()).collect();
    let distinct: BTreeSet<&str> = blobs.iter().filter_map(|e| e.target.rsplit('/').next()).collect();
    assert_eq!(blobs.len(), distinct.len(), "a config is fetched once");
    assert_eq!(distinct.len(), 54, "configs only, no layer");

    let second = admin.scan(&proxy.host()).await;
    assert_eq!(counts(&second), [0, 0, 54, 0, 0, 0], "{second:#}");
    only_questions(&proxy.take_log(), 40);

    // Knowledge survives a restart: content is fetched by digest only once, ever.
    let mut app = app;
    app.terminate().await;
    app.restart().await;
    app.admin().scan(&proxy.host()).await;
    only_questions(&proxy.take_log(), 40);

    // One tag moved, which costs one manifest and one config.
    registry.push(&Image::new("r/1", "t1").content("new")).await;
    let moved = app.admin().scan(&proxy.host()).await;
    assert_eq!(counts(&moved), [0, 1, 53, 0, 0, 0], "{moved:#}");
    let log = proxy.take_log();
    let bodies = |wanted: fn(&Exchange) -> bool| log.iter().filter(|e| wanted(e) && e.body_bytes > 0).count();
    assert_eq!((bodies(Exchange::is_manifest), bodies(Exchange::is_blob)), (1, 1), "{log:#?}");
}

/// Checks that a log holds one manifest request per tag, the listings, and no manifest or blob body.
fn only_questions(log: &[Exchange], tags: usize) {
    for exchange in log.iter().filter(|e| e.is_manifest() || e.is_blob()) {
        assert_eq!(exchange.body_bytes, 0, "{exchange:?}");
        assert!(!exchange.is_blob(), "{exchange:?}");
    }
    let questions = log.iter().filter(|e| e.is_manifest()).count();
    assert_eq!(questions, tags, "{log:#?}");
    let others: Vec<_> = log.iter().filter(|e| !e.is_manifest()).collect();
    assert!(others.iter().all(|e| e.is_tag_list() || e.is_catalog()), "{others:#?}");
}

#[tokio::test]
async fn a_rescan_killed_again_and_again_is_finished_under_the_same_id() {
    let Some(registry) = RealRegistry::open().await else { return };
    registry.stock((0..600).map(|n| Image::new(&format!("r/{:02}", n % 30), &format!("t{n}"))));
    let proxy = CountingProxy::start(&registry.url()).await;
    proxy.delay(Duration::from_millis(2));
    let mut app = App::start().await;
    app.admin().add_registry_at(&proxy.host(), &proxy.url(), None).await;
    let task = app.admin().rescan(&proxy.host()).await;
    // A whole scan takes at least 1231 requests, so each of these kills comes in the middle of it.
    for kill in 1..=4 {
        proxy.reached(kill * 200).await;
        proxy.hold();
        assert_eq!(app.admin().task(&task).await["state"], "started", "before kill {kill}");
        proxy.release();
        let host = format!("acknowledged-{kill}.invalid");
        app.admin().add_registry_at(&host, &format!("http://{host}"), None).await;
        app.kill9();
        app.restart().await;
    }
    let last = app.admin().finish(&task).await;
    assert!(last.name.ends_with("done"), "{last:?}");
    let ended = app.admin().task(&task).await;
    assert_eq!(ended["state"], "done");
    assert_eq!(counts(&ended), [600, 0, 0, 0, 0, 0], "the ledger is of the whole task: {ended:#}");
    assert_eq!(ended["current_progress"], ended["total_progress"]);
    assert_eq!(app.admin().images().await.len(), 600);
    let data = app.admin().ask("{ container_registries { hostname } }", json!({})).await;
    assert_eq!(data["container_registries"].as_array().map(Vec::len), Some(5), "{data}");
    // A repository that was committed is not read again.
    let lists = proxy.log().iter().filter(|e| e.is_tag_list()).count();
    assert!(lists < 2 * 30, "{lists} tag lists for 30 repositories and four kills");
}

#[tokio::test]
async fn a_registry_with_a_password_is_scanned_and_only_it_sees_the_password() {
    let Some(registry) = RealRegistry::with_password().await else { return };
    registry.push_all((0..5).map(|n| Image::new("private/python", &n.to_string()))).await;
    let app = App::start().await;
    let admin = app.admin();
    admin.add_registry(&registry).await;
    let task = admin.scan(registry.host()).await;
    assert_eq!(counts(&task), [5, 0, 0, 0, 0, 0], "{task:#}");
}

#[tokio::test]
async fn a_registry_with_tokens_is_scanned_with_few_of_them() {
    let Some(registry) = RealRegistry::with_tokens().await else { return };
    registry.push_all((0..40).map(|n| Image::new(&format!("private/r{}", n % 4), &n.to_string()))).await;
    let app = App::start().await;
    let admin = app.admin();
    admin.add_registry(&registry).await;
    let task = admin.scan(registry.host()).await;
    assert_eq!(counts(&task), [40, 0, 0, 0, 0, 0], "{task:#}");
    let asked = registry.tokens().asked();
    assert!(asked.iter().all(|token| token.granted && token.account.as_deref() == Some(USER)), "{asked:?}");
    // One token for the catalog and one per repository: requests at the same time share a token.
    assert!(asked.len() <= 6, "{asked:?}");
}

#[tokio::test]
async fn a_wrong_password_ends_the_task_with_the_reason() {
    for registry in [RealRegistry::with_password().await, RealRegistry::with_tokens().await] {
        let Some(registry) = registry else { return };
        registry.push(&Image::new("private/python", "1")).await;
        let app = App::start().await;
        let admin = app.admin();
        admin.add_registry_at(registry.host(), &registry.url(), Some((USER, "wrong"))).await;
        let task = admin.rescan(registry.host()).await;
        admin.finish(&task).await;
        let task = admin.task(&task).await;
        assert!(task["state"] == "failed" || counts(&task)[5] > 0, "{task:#}");
        assert!(task.to_string().contains("401") || task.to_string().contains("nauthor"), "{task:#}");
        assert_eq!(admin.images().await.len(), 0);
    }
}

#[tokio::test]
async fn images_that_vanished_from_the_registry_leave_the_catalog() {
    let Some(registry) = RealRegistry::open().await else { return };
    registry.push_all((0..6).map(|n| Image::new("r/a", &n.to_string()))).await;
    registry.push_all((0..6).map(|n| Image::new("r/b", &n.to_string()))).await;
    registry.push(&Image::new("r/c", "only")).await;
    let app = App::start().await;
    let admin = app.admin();
    admin.add_registry(&registry).await;
    admin.scan(registry.host()).await;
    let target = format!("{}/r/a:0", registry.host());
    let (ok, msg) = admin.mutate("alias_image", &format!(r#"alias: "gone", target: "{target}""#)).await;
    assert!(ok, "{msg}");

    registry.delete_tag("r/a", "0");
    registry.delete_repository("r/c");
    let task = admin.scan(registry.host()).await;
    assert_eq!(counts(&task), [0, 0, 11, 2, 0, 0], "{task:#}");
    let left = names(&admin.images().await);
    assert_eq!(left.len(), 11);
    assert!(!left.contains("r/a:0/x86_64") && !left.contains("r/c:only/x86_64"), "{left:?}");
}

#[tokio::test]
async fn nothing_is_removed_where_a_page_could_not_be_read() {
    let Some(registry) = RealRegistry::open().await else { return };
    registry.push_all((0..12).map(|n| Image::new(&format!("r/{}", n % 2), &n.to_string()))).await;
    let proxy = CountingProxy::start(&registry.url()).await;
    let app = App::start().await;
    let admin = app.admin();
    admin.add_registry_at(&proxy.host(), &proxy.url(), None).await;
    admin.scan(&proxy.host()).await;
    registry.delete_tag("r/0", "0");
    registry.delete_tag("r/1", "1");
    proxy.answer(|request| {
        request.path().starts_with("/v2/r/0/tags").then(|| Response::new(403).body("not today").into())
    });
    let task = admin.rescan(&proxy.host()).await;
    admin.finish(&task).await;
    let task = admin.task(&task).await;
    let left = names(&admin.images().await);
    assert!(left.contains("r/0:0/x86_64"), "kept, for nobody knows: {left:?}");
    assert!(!left.contains("r/1:1/x86_64"), "the other repository was read: {left:?}");
    let failed = reasons(&task, "failed");
    assert!(failed.iter().any(|(reference, _)| reference.contains("r/0")), "{task:#}");
    assert!(!task.to_string().contains("not today"), "bodies of failures are not repeated: {task:#}");
}

#[tokio::test]
async fn a_registry_that_suddenly_is_half_empty_is_not_believed() {
    let Some(registry) = RealRegistry::open().await else { return };
    registry.push_all((0..40).map(|n| Image::new(&format!("r/{}", n % 4), &n.to_string()))).await;
    let app = App::start().await;
    let admin = app.admin();
    admin.add_registry(&registry).await;
    admin.scan(registry.host()).await;
    for repository in ["r/0", "r/1", "r/2"] {
        registry.delete_repository(repository);
    }
    let task = admin.rescan(registry.host()).await;
    admin.finish(&task).await;
    let task = admin.task(&task).await;
    assert_eq!(admin.images().await.len(), 40, "{task:#}");
    assert_eq!(counts(&task)[3], 0, "{task:#}");
    let said = format!("{}{:?}{:?}", task["message"], reasons(&task, "skipped"), reasons(&task, "failed"));
    assert!(said.contains("remov"), "it says that removals wait, and why: {task:#}");
}

#[tokio::test]
async fn a_registry_that_is_down_fails_the_task_and_keeps_the_catalog() {
    let Some(mut registry) = RealRegistry::open().await else { return };
    registry.push_all((0..3).map(|n| Image::new("r/a", &n.to_string()))).await;
    let app = App::start().await;
    let admin = app.admin();
    admin.add_registry(&registry).await;
    admin.scan(registry.host()).await;
    registry.stop();
    let id = admin.rescan(registry.host()).await;
    admin.finish(&id).await;
    let task = admin.task(&id).await;
    assert!(task["state"] == "failed" || counts(&task)[5] > 0, "{task:#}");
    assert!(task.to_string().contains(registry.host()), "it names the registry: {task:#}");
    assert_eq!(admin.images().await.len(), 3);
    registry.resume().await;
    let task = admin.scan(registry.host()).await;
    assert_eq!(counts(&task), [0, 0, 3, 0, 0, 0], "{task:#}");
}

#[tokio::test]
async fn short_troubles_of_a_registry_are_waited_out() {
    let Some(registry) = RealRegistry::open().await else { return };
    registry.push_all((0..10).map(|n| Image::new("r/a", &n.to_string()))).await;
    let proxy = CountingProxy::start(&registry.url()).await;
    let app = App::start().await;
    let admin = app.admin();
    admin.add_registry_at(&proxy.host(), &proxy.url(), None).await;
    proxy.fail_next(2, 503);
    let task = admin.scan(&proxy.host()).await;
    assert_eq!(counts(&task), [10, 0, 0, 0, 0, 0], "{task:#}");
    proxy.drop_next(2);
    let task = admin.scan(&proxy.host()).await;
    assert_eq!(counts(&task), [0, 0, 10, 0, 0, 0], "{task:#}");
}

#[tokio::test]
async fn one_image_is_scanned_by_its_name_without_the_catalog() {
    let Some(registry) = RealRegistry::open().await else { return };
    registry.push_all((0..4).map(|n| Image::new("r/a", &n.to_string()))).await;
    registry.push(&Image::new("r/b", "1").platforms(&["linux/amd64", "linux/arm64"])).await;
    let proxy = CountingProxy::start(&registry.url()).await;
    let app = App::start().await;
    let admin = app.admin();
    admin.add_registry_at(&proxy.host(), &proxy.url(), None).await;
    let task = admin.scan_image(&format!("{}/r/b:1", proxy.host())).await;
    let last = admin.finish(&task).await;
    assert!(last.name.ends_with("done"), "{last:?}");
    assert_eq!(names(&admin.images().await), set(["r/b:1/x86_64", "r/b:1/aarch64"]));
    let log = proxy.take_log();
    assert!(!log.iter().any(|e| e.is_catalog() || e.is_tag_list()), "{log:#?}");

    let task = admin.scan_image(&format!("{}/r/a:no-such-tag", proxy.host())).await;
    admin.finish(&task).await;
    let task = admin.task(&task).await;
    assert!(task["state"] == "failed" || counts(&task)[5] > 0, "{task:#}");
    assert!(task.to_string().contains("no-such-tag"), "{task:#}");
}

#[tokio::test]
async fn requests_that_make_no_sense_change_nothing_and_say_what_to_do() {
    let Some(registry) = RealRegistry::open().await else { return };
    registry.push_all((0..2).map(|n| Image::new("r/a", &n.to_string()))).await;
    let app = App::start().await;
    let admin = app.admin();
    admin.add_registry(&registry).await;
    admin.scan(registry.host()).await;
    let host = registry.host();
    let (ok, msg) = admin.mutate("alias_image", &format!(r#"alias: "taken", target: "{host}/r/a:0""#)).await;
    assert!(ok, "{msg}");
    let before = admin.images().await;
    for (field, arguments, named) in [
        ("rescan_images", r#"registry: "no-such.invalid""#.to_owned(), "no-such.invalid"),
        ("alias_image", format!(r#"alias: "x", target: "{host}/r/none:1""#), "r/none"),
        ("alias_image", format!(r#"alias: "taken", target: "{host}/r/a:1""#), "taken"),
        ("alias_image", r#"alias: "second", target: "taken""#.to_owned(), "taken"),
        ("alias_image", format!(r#"alias: "", target: "{host}/r/a:1""#), "alias"),
        ("alias_image", r#"alias: "y", target: "::not a reference::""#.to_owned(), "not a reference"),
        ("dealias_image", r#"alias: "never-was""#.to_owned(), "never-was"),
        ("forget_image", format!(r#"reference: "{host}/r/none:1""#), "r/none"),
        ("forget_image", r#"reference: "http://x/y:1""#.to_owned(), "http://x/y:1"),
        ("scan_image", r#"reference: "no-such.invalid/a:1""#.to_owned(), "no-such.invalid"),
        ("preload_image", format!(r#"reference: "{host}/r/a:0", target_agents: "*""#), "no agent"),
        ("unload_image", format!(r#"reference: "{host}/r/a:0", target_agents: "*""#), "no agent"),
        ("preload_image", format!(r#"reference: "{host}/r/none:0", target_agents: "*""#), "r/none"),
    ] {
        let (ok, msg) = admin.mutate(field, &arguments).await;
        assert!(!ok, "{field}({arguments})");
        assert!(msg.contains(named), "{field}({arguments}) does not name {named:?}: {msg}");
    }
    let document = r#"mutation { rescan_images(registry: "no-such.invalid") { ok task_id } }"#;
    let data = admin.ask(document, json!({})).await;
    assert_eq!(data, json!({"rescan_images": {"ok": false, "task_id": null}}));
    assert_eq!(admin.images().await, before);

    let (ok, msg) = admin.mutate("forget_image", &format!(r#"reference: "{host}/r/a:0""#)).await;
    assert!(ok, "{msg}");
    assert_eq!(admin.images().await.len(), 1);
}

#[tokio::test]
async fn an_image_is_found_by_every_name_it_has() {
    let Some(registry) = RealRegistry::open().await else { return };
    let built = registry.push(&Image::new("r/a", "1").platforms(&["linux/amd64", "linux/arm64"])).await;
    let app = App::start().await;
    let admin = app.admin();
    admin.add_registry(&registry).await;
    admin.scan(registry.host()).await;
    let host = registry.host();
    let (ok, msg) = admin.mutate("alias_image", &format!(r#"alias: "short", target: "{host}/r/a:1""#)).await;
    assert!(ok, "{msg}");
    let look = async |reference: &str, architecture: Option<&str>| {
        let query = "query($r: String!, $a: String) { image(reference: $r, architecture: $a) { digest architecture } }";
        admin.ask(query, json!({"r": reference, "a": architecture})).await["image"].take()
    };
    let (x86, arm) = (built.part("x86_64"), built.part("aarch64"));
    for (reference, architecture, part) in [
        (format!("{host}/r/a:1"), None, x86),
        (format!("{host}/r/a:1"), Some("x86_64"), x86),
        (format!("{host}/r/a:1"), Some("aarch64"), arm),
        (format!("{host}/r/a:1"), Some("arm64"), arm),
        ("short".to_owned(), None, x86),
        (format!("{host}/r/a@{}", arm.config), None, arm),
        (format!("{host}/r/a@{}", arm.manifest), None, arm),
    ] {
        let image = look(&reference, architecture).await;
        assert_eq!(image["digest"], part.config, "{reference} {architecture:?}: {image}");
    }
    for reference in [format!("{host}/r/a:2"), "long".to_owned()] {
        let message =
            admin.refused("query($r: String!) { image(reference: $r) { digest } }", json!({"r": reference}));
        assert!(!message.await.is_empty());
    }
}
