//! Tests of what only containerd does.

use std::time::Duration;

use wharf::engine::Engine as _;
use wharf::engine::address::EngineUrl;
use wharf::engine::cri::{Cri, Patience};
use wharf::engine::fault::Class;
use wharf::engine::image::Removal;

use super::{lab_image, pull_of, run};
use crate::support::containerd::RealContainerd;
use crate::support::dockerd::RealDocker;
use crate::support::registry::RealRegistry;
use crate::support::release::Release;
use crate::support::wait::{PATIENCE, until};

#[tokio::test]
async fn what_other_namespaces_hold_is_not_ours() {
    other_namespaces(Release::Own).await;
    other_namespaces(Release::Trixie).await;
}

async fn other_namespaces(release: Release) {
    let Some(registry) = RealRegistry::open().await else { return };
    let Some(node) = RealContainerd::start_of(release).await else { return };
    let built = registry.push(&lab_image("1")).await;
    let (engine, pull) = (node.engine(), pull_of(registry.host(), &built));
    node.ctr_ok(&["-n", "other", "images", "pull", "--plain-http", &pull.name()]).await;
    assert_eq!(engine.images().await.unwrap(), []);
    assert_eq!(engine.find(&pull.name()).await.unwrap(), None);
    run(&engine, &pull).await.0.unwrap();
    let version = node.ctr_ok(&["version"]).await;
    let about = engine.about().await.unwrap();
    assert!(version.contains(&about.version), "{about:?}: {version}");
}

#[tokio::test]
async fn a_containerd_that_hangs_is_gone_after_a_while() {
    let Some(node) = RealContainerd::start().await else { return };
    let patience = Patience {
        answer: Duration::from_millis(500),
        quiet: Duration::from_millis(200),
        look: Duration::from_millis(100),
    };
    let engine = node.engine();
    let hasty = engine.clone().with_patience(patience);
    engine.about().await.unwrap();
    node.signal("STOP");
    let fault = until("all its threads to stop", PATIENCE, async || hasty.about().await.err()).await;
    assert_eq!(fault.class, Class::EngineGone);
    assert_eq!(hasty.images().await.unwrap_err().class, Class::EngineGone);
    node.signal("CONT");
    engine.about().await.unwrap();
    std::fs::remove_file(node.socket()).unwrap();
    let fault = engine.about().await.unwrap_err();
    assert!(fault.class == Class::EngineGone && fault.message.contains("is the engine running"), "{fault}");
}

#[tokio::test]
async fn a_containerd_without_cri_says_what_to_change() {
    let settings = "disabled_plugins = [\"io.containerd.grpc.v1.cri\"]";
    let Some(node) = RealContainerd::start_with(settings).await else { return };
    let fault = node.engine().about().await.unwrap_err();
    assert!(fault.class == Class::Other && fault.message.contains("disabled_plugins"), "{fault}");
}

#[tokio::test]
async fn a_socket_of_docker_is_no_cri() {
    let Some(node) = RealDocker::start().await else { return };
    let url = EngineUrl::parse(&format!("cri://{}", node.socket().display()), None).unwrap();
    let fault = Cri::new(&url).unwrap().about().await.unwrap_err();
    assert!(fault.class != Class::Stopped && !fault.message.is_empty(), "{fault}");
}

#[tokio::test]
async fn what_is_preloaded_is_pinned_until_it_is_unloaded() {
    pinned(Release::Own).await;
    pinned(Release::Trixie).await;
}

async fn pinned(release: Release) {
    let Some(registry) = RealRegistry::open().await else { return };
    let Some(node) = RealContainerd::start_of(release).await else { return };
    let built = registry.push(&lab_image("1")).await;
    let (engine, pull) = (node.engine(), pull_of(registry.host(), &built));
    let labels = async || {
        let table = node.ctr_ok(&["images", "ls", &format!("name=={}", pull.name())]).await;
        table.lines().nth(1).unwrap_or_default().to_owned()
    };
    run(&engine, &pull).await.0.unwrap();
    let pinned = labels().await;
    assert!(
        pinned.contains("io.cri-containerd.pinned=pinned") && pinned.contains("wharf.preloaded"),
        "{pinned}"
    );
    assert!(pinned.contains("io.cri-containerd.image=managed"), "the other labels stay: {pinned}");
    // The image has the names that containerd's CRI plugin gave it, and one more.
    let other = format!("{}:other", pull.repository);
    node.ctr_ok(&["images", "tag", &pull.name(), &other]).await;
    until("CRI to know of it", PATIENCE, async || engine.find(&other).await.unwrap()).await;
    assert_eq!(engine.remove(&other).await, Ok(Removal::Untagged));
    assert_eq!(engine.remove(&pull.name()).await, Ok(Removal::Removed { freed_bytes: None }));
    assert_eq!(labels().await, "");

    // An image that another client pulled is pinned once wharf pulls it.
    node.ctr_ok(&["images", "pull", "--plain-http", &pull.name()]).await;
    let pulled =
        until("CRI to know of it", PATIENCE, async || engine.find(&pull.name()).await.unwrap()).await;
    assert!(pulled.digest == pull.config && !labels().await.contains("pinned"));
    assert!(!run(&engine, &pull).await.0.unwrap().fetched);
    assert!(labels().await.contains("io.cri-containerd.pinned=pinned"));
}
