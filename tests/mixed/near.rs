//! Images come from nearer than the registry, onto engines of every kind: each byte crosses the uplink once.

use std::collections::BTreeMap;

use super::truth::{FLAVOURS, Scene};
use crate::support::image::Image;
use crate::support::node::Node;

/// The bytes of blobs that the registry sent, by blob.
fn sent(scene: &Scene) -> BTreeMap<String, usize> {
    let mut sent = BTreeMap::new();
    for exchange in scene.proxy.take_log() {
        if exchange.method == "GET" && exchange.is_blob() {
            *sent.entry(exchange.target).or_default() += exchange.body_bytes;
        }
    }
    sent
}

/// Checks that no engine has a name of the relay left.
async fn leave_no_trace(nodes: &[Node]) {
    for node in nodes {
        let all = node.everything().await;
        let is_grant = |part: &str| part.len() == 48 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        let has_grant = |line: &String| line.split(['/', ':', '@']).any(is_grant);
        assert!(!all.iter().any(has_grant), "{}: {all:#?}", node.url());
    }
}

#[tokio::test]
async fn with_a_cache_each_blob_leaves_the_registry_once_and_then_not_at_all() {
    let cache = tempfile::tempdir().unwrap();
    let argument = ["--cache".to_owned(), format!("{}?max=1GiB", cache.path().display())];
    let Some(scene) = Scene::set_with(&argument).await else { return };
    let image = Image::new("lab/app", "latest").real_layers(3, 300_000);
    let names = scene.publish(&image, &["latest"]).await;
    let name = names[0].as_str();
    scene.proxy.take_log();

    let loaded = scene.all("preload_image", name).await;
    assert!(loaded.iter().all(|item| item == "done loaded"), "{loaded:#?}");
    scene.becomes(name, "present").await;
    let bytes = sent(&scene);
    let size = 3 * 300_000;
    let paid: usize = bytes.values().sum();
    assert!(bytes.len() == 4 && paid >= size && paid <= size + size / 100, "{paid} of {size}: {bytes:#?}");
    leave_no_trace(&scene.nodes).await;
    // What people do by hand finds all of it there.
    for node in &scene.nodes {
        node.pull(name).await;
    }
    let again = sent(&scene);
    assert!(again.values().sum::<usize>() < size / 100, "{again:#?}");
    scene.becomes(name, "present").await;

    let removed = scene.all("unload_image", name).await;
    assert!(removed.iter().all(|item| item == "done removed"), "{removed:#?}");
    scene.is_empty().await;

    // The registry is off.
    scene.proxy.drop_next(usize::MAX);
    let loaded = scene.all("preload_image", name).await;
    assert!(
        loaded.len() == FLAVOURS.len() + 1 && loaded.iter().all(|item| item == "done loaded"),
        "{loaded:#?}"
    );
    scene.becomes(name, "present").await;
    leave_no_trace(&scene.nodes).await;
    let removed = scene.all("unload_image", name).await;
    assert!(removed.iter().all(|item| item == "done removed"), "{removed:#?}");
    scene.is_empty().await;
}

#[tokio::test]
async fn a_server_that_is_killed_while_all_pull_through_it_goes_on_and_leaves_no_trace() {
    let cache = tempfile::tempdir().unwrap();
    let argument = ["--cache".to_owned(), cache.path().display().to_string()];
    let Some(mut scene) = Scene::set_with(&argument).await else { return };
    let image = Image::new("lab/app", "latest").real_layers(3, 300_000);
    let names = scene.publish(&image, &["latest"]).await;
    scene.proxy.take_log();
    scene.proxy.hold_those(|request| request.target.contains("/blobs/"));
    let task = scene.app.admin().transfer("preload_image", &names[0], "*").await;
    // The manifest for each engine, and three blobs at least.
    scene.proxy.reached(4).await;
    scene.app.kill9();
    scene.proxy.release();
    scene.app.restart().await;
    let event = scene.app.admin().finish(&task).await;
    assert_eq!(event.name, "bgtask_done", "{:#}", scene.app.admin().task(&task).await);
    scene.becomes(&names[0], "present").await;
    leave_no_trace(&scene.nodes).await;
    let removed = scene.all("unload_image", &names[0]).await;
    assert!(removed.iter().all(|item| item == "done removed"), "{removed:#?}");
    scene.is_empty().await;
}
