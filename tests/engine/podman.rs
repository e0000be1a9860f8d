//! Tests of what only Podman does.

use std::time::Duration;

use wharf::engine::address::EngineUrl;
use wharf::engine::docker::{Docker, Patience};
use wharf::engine::fault::Class;
use wharf::engine::image::Removal;
use wharf::engine::{self, Engine as _, EngineKind};

use super::{lab_image, pull_of, run};
use crate::support::podman::RealPodman;
use crate::support::registry::RealRegistry;
use crate::support::release::Release;
use crate::support::wait::{PATIENCE, until};

/// Makes a test of each behaviour on the machine's own Podman and on a newer one.
macro_rules! on_each_podman {
    ($($behaviour:ident)*) => {
        on_each_podman!(own Own: $($behaviour)*);
        on_each_podman!(of_trixie Trixie: $($behaviour)*);
    };
    ($module:ident $release:ident: $($behaviour:ident)*) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $behaviour() {
                    super::$behaviour(super::Release::$release).await;
                }
            )*
        }
    };
}

on_each_podman! {
    podman_is_known_by_its_answer_whatever_the_address_says
    a_short_name_and_one_without_a_registry_have_their_long_form
    a_podman_that_hangs_is_gone_after_a_while
}

async fn podman_is_known_by_its_answer_whatever_the_address_says(release: Release) {
    let Some(node) = RealPodman::start_of(release).await else { return };
    for scheme in ["unix", "docker+unix", "podman+unix"] {
        let url = format!("{scheme}://{}", node.socket().display());
        let engine = engine::connect(&EngineUrl::parse(&url, None).unwrap()).unwrap();
        let about = engine.about().await.unwrap();
        assert_eq!((about.kind, about.id), (EngineKind::Podman, None), "{url}");
        let said = node.podman_ok(&["version", "--format", "{{.Client.Version}}"]).await;
        assert_eq!(about.version, said.trim());
    }
}

async fn a_short_name_and_one_without_a_registry_have_their_long_form(release: Release) {
    let (Some(registry), Some(node)) = (RealRegistry::open().await, RealPodman::start_of(release).await)
    else {
        return;
    };
    let built = registry.push(&lab_image("1")).await;
    let pull = pull_of(registry.host(), &built);
    let url = EngineUrl::parse(&node.url(), None).unwrap();
    let engine = engine::connect(&url).unwrap();
    run(&*engine, &pull).await.0.unwrap();
    node.podman_ok(&["tag", &pull.name(), "mine:1"]).await;
    node.podman_ok(&["tag", &pull.name(), "docker.io/library/alpine:3"]).await;
    let names = ["docker.io/library/alpine:3".to_owned(), "localhost/mine:1".to_owned(), pull.name()];
    let mut expected = names.to_vec();
    expected.sort();
    assert_eq!(engine.images().await.unwrap()[0].names, expected);
    for name in ["alpine:3", "docker.io/library/alpine:3", "localhost/mine:1"] {
        let held = engine.find(name).await.unwrap().unwrap();
        assert_eq!((held.digest, held.names), (pull.config.clone(), expected.clone()), "{name}");
    }
    assert_eq!(engine.find("docker.io/library/mine:1").await.unwrap(), None);
    assert_eq!(engine.remove("alpine:3").await, Ok(Removal::Untagged));
    assert_eq!(engine.remove("localhost/mine:1").await, Ok(Removal::Untagged));
    assert_eq!(engine.remove(&pull.name()).await, Ok(Removal::Removed { freed_bytes: None }));
}

async fn a_podman_that_hangs_is_gone_after_a_while(release: Release) {
    let Some(node) = RealPodman::start_of(release).await else { return };
    let patience = Patience {
        answer: Duration::from_millis(500),
        gather: Duration::from_millis(500),
        quiet: Duration::from_millis(200),
    };
    let url = EngineUrl::parse(&node.url(), None).unwrap();
    let engine = Docker::new(&url).unwrap();
    let hasty = Docker::new(&url).unwrap().with_patience(patience);
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
