//! Agents that dial in and keep their images in a directory: they go to the registry themselves.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::api::Api;
use crate::support::app::App;
use crate::support::http1::Answer;
use crate::support::image::{Built, Image, sha256};
use crate::support::layout::{beginning, blobs, parts, reference, skopeo};
use crate::support::machine::{Machine, becomes, token};
use crate::support::missing;
use crate::support::process::on_path;
use crate::support::proxy::{CountingProxy, Exchange};
use crate::support::registry::{PASSWORD, RealRegistry};
use crate::support::wait::{PATIENCE, until};

const NODE: &str = "gpu01";

/// A manager without engines, a registry behind a proxy that it has read, and a directory on "another machine".
struct Place {
    app: App,
    proxy: CountingProxy,
    machine: Machine,
    images: TempDir,
    built: Built,
    _registry: RealRegistry,
}

impl Place {
    async fn set(registry: Option<RealRegistry>, image: Image) -> Option<Self> {
        let registry = registry?;
        let built = registry.push(&image).await;
        let proxy = CountingProxy::start(&registry.url()).await;
        let app = App::start().await;
        app.admin().add_registry_at(&proxy.host(), &proxy.url(), registry.credentials()).await;
        app.admin().scan(&proxy.host()).await;
        let images = tempfile::Builder::new().prefix("wharf-images-").tempdir().expect("a directory");
        let engine = format!("oci:{}", images.path().display());
        let mut machine = Machine::new(app.url(), &engine).with(&["--id", NODE]);
        machine.start(Some(&token(&app.admin(), json!({})).await));
        becomes(&app.admin(), NODE, "ALIVE").await;
        proxy.take_log();
        Some(Self { app, proxy, machine, images, built, _registry: registry })
    }

    fn api(&self) -> Api {
        self.app.admin()
    }

    fn folder(&self) -> PathBuf {
        self.images.path().into()
    }

    fn name(&self) -> String {
        format!("{}/{}:{}", self.proxy.host(), self.built.repository, self.built.tag)
    }

    fn layer(&self, position: usize) -> String {
        sha256(&self.built.blobs[position])
    }

    async fn preload(&self) -> (String, Value) {
        self.api().transfer_to_end("preload_image", &self.name(), "*").await
    }

    /// Answers the first request for this layer with its beginning, and nothing more for now.
    fn pause(&self, position: usize, length: usize) {
        let (digest, blob) = (self.layer(position), self.built.blobs[position].clone());
        let left = parking_lot::Mutex::new(Some(Answer::Pause(beginning(&blob, length))));
        self.proxy
            .answer(move |request| request.target.ends_with(&digest).then(|| left.lock().take()).flatten());
    }

    /// Begins a preload, and waits until so much of one layer is there and nothing else is missing.
    async fn halfway(&self, position: usize, length: usize) -> String {
        self.pause(position, length);
        let task = self.api().transfer("preload_image", &self.name(), "*").await;
        let (folder, others) = (self.folder(), self.built.blobs.len() - 1);
        until("all to be there but the rest of one layer", PATIENCE, async || {
            (parts(&folder) == [length as u64] && blobs(&folder).len() == others).then_some(())
        })
        .await;
        task
    }
}

fn lab() -> Image {
    Image::new("lab/python", "1").real_layers(2, 300_000)
}

fn only(task: &Value) -> (&str, &str) {
    let item = &task["items"][0];
    (item["state"].as_str().unwrap(), item["reason"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn it_is_filled_from_a_registry_that_wants_to_know_who_asks() {
    if !on_path("skopeo") {
        return missing("skopeo", "apt-get install skopeo");
    }
    for registry in [RealRegistry::with_password().await, RealRegistry::with_tokens().await] {
        let Some(place) = Place::set(registry, lab()).await else { return };
        let (event, task) = place.preload().await;
        assert_eq!((event.as_str(), only(&task)), ("bgtask_done", ("done", "loaded")), "{task:#}");
        let reference = reference(&place.folder(), &place.name());
        let inspected = skopeo(place.app.launch().root(), &["inspect", &reference]).await;
        assert_eq!(inspected["Layers"], json!([place.layer(0), place.layer(1)]));
        assert_eq!(place.api().presence(&place.name()).await, ["present"]);
        assert_eq!(only(&place.preload().await.1), ("done", "already there"));
        let (_, task) = place.api().transfer_to_end("unload_image", &place.name(), "*").await;
        assert_eq!(only(&task), ("done", "removed"));
        assert!(blobs(&place.folder()).is_empty());
        for log in [place.machine.log(), place.app.logs()] {
            assert!(!log.contains(PASSWORD));
        }
    }
}

#[tokio::test]
async fn it_goes_on_by_range_where_a_kill_of_its_agent_interrupted_it() {
    let image = Image::new("lab/large", "1").real_layers(3, 2_000_000);
    let Some(mut place) = Place::set(RealRegistry::open().await, image).await else { return };
    let task = place.halfway(1, 1_500_000).await;
    place.machine.process().kill9();
    place.proxy.take_log();
    place.machine.start(None);
    let event = place.api().finish(&task).await;
    let ended = place.api().task(&task).await;
    assert_eq!((event.name.as_str(), only(&ended).0), ("bgtask_done", "done"), "{ended:#}");
    let fetched: Vec<_> = place.proxy.log().into_iter().filter(Exchange::is_blob).collect();
    let [rest] = fetched.as_slice() else { panic!("more was fetched than was missing: {fetched:?}") };
    assert_eq!(rest.range.as_deref(), Some("bytes=1500000-"));
    assert_eq!(place.api().presence(&place.name()).await, ["present"]);
    assert_eq!(parts(&place.folder()), [0; 0]);
}

#[tokio::test]
async fn it_keeps_nothing_that_is_not_what_its_digest_says() {
    let Some(place) = Place::set(RealRegistry::open().await, lab()).await else { return };
    let (layer, good) = (place.layer(0), place.built.blobs[0].clone());
    let other: Bytes = good.iter().map(|byte| !byte).collect::<Vec<u8>>().into();
    let raw = [format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", other.len()).as_bytes(), &other[..]]
        .concat();
    let raw = Bytes::from(raw);
    let falsified = layer.clone();
    place.proxy.answer(move |request| request.target.ends_with(&falsified).then(|| Answer::Raw(raw.clone())));
    let (event, task) = place.preload().await;
    assert_eq!(event, "bgtask_failed", "{task:#}");
    assert!(only(&task).1.contains("other bytes than the digest says"), "{task:#}");
    assert!(!blobs(&place.folder()).contains(&layer));
    assert_eq!(place.api().presence(&place.name()).await, ["absent"]);
    place.proxy.behave();
    assert_eq!(place.preload().await.0, "bgtask_done");
}

#[tokio::test]
async fn a_cancelled_task_ends_its_pull_and_the_next_one_goes_on_from_there() {
    let Some(place) = Place::set(RealRegistry::open().await, lab()).await else { return };
    let task = place.halfway(0, 100_000).await;
    let asked = Instant::now();
    let (ok, msg) = place.api().mutate("cancel_task", &format!("id: \"{task}\"")).await;
    assert!(ok, "{msg}");
    assert_eq!(place.api().finish(&task).await.name, "bgtask_cancelled");
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    place.machine.logs("stopped on request").await;
    place.proxy.take_log();
    assert_eq!(place.preload().await.0, "bgtask_done");
    let rest: Vec<_> = place.proxy.log().into_iter().filter_map(|exchange| exchange.range).collect();
    assert_eq!(rest, ["bytes=100000-"]);
}

#[tokio::test]
async fn a_registry_that_refuses_the_password_is_the_reason_that_is_told() {
    let Some(place) = Place::set(RealRegistry::with_password().await, lab()).await else { return };
    let change =
        "mutation($h: String!) { modify_container_registry(hostname: $h, props: {password: \"wrong\"}) {
        container_registry { hostname } } }";
    place.api().ask(change, json!({"h": place.proxy.host()})).await;
    let (event, task) = place.preload().await;
    assert_eq!(event, "bgtask_failed", "{task:#}");
    assert!(only(&task).1.starts_with("unauthorized: "), "{task:#}");
}
