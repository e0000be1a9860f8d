//! Caches: a site fetches each image once, whatever engines its machines have.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use wharf::engine::EngineKind;

use crate::support::app::App;
use crate::support::dockerd::RealDocker;
use crate::support::image::{Built, Image};
use crate::support::machine::{Machine, becomes, token};
use crate::support::node::Node;
use crate::support::proxy::CountingProxy;
use crate::support::registry::RealRegistry;
use crate::support::wait::{PATIENCE, until};

const LAYERS: usize = 3;
const LAYER: usize = 300_000;

/// A server, a registry behind an uplink, and machines of one site.
struct Site {
    app: App,
    uplink: CountingProxy,
    registry: RealRegistry,
    built: Built,
    machines: BTreeMap<String, Machine>,
    folder: TempDir,
}

impl Site {
    async fn set(arguments: &'static [&'static str], image: &Image) -> Option<Self> {
        let registry = RealRegistry::open().await?;
        let built = registry.push(image).await;
        let uplink = CountingProxy::start(&registry.url()).await;
        let app = App::start_with(move |serve| {
            serve.args(arguments);
        })
        .await;
        app.admin().add_registry_at(&uplink.host(), &uplink.url(), None).await;
        app.admin().scan(&uplink.host()).await;
        uplink.take_log();
        let folder = tempfile::tempdir().expect("a directory");
        Some(Self { app, uplink, registry, built, machines: BTreeMap::new(), folder })
    }

    /// Adds a machine with this engine, or with a directory that its agent fills.
    async fn join(&mut self, id: &str, engine: Option<&str>, arguments: &[&str]) {
        let layout = format!("oci:{}", self.folder.path().join(id).display());
        let mut machine = Machine::new(self.app.url(), engine.unwrap_or(&layout))
            .with(&["--id", id, "--label", "site=lab"])
            .with(arguments);
        machine.start(Some(&token(&self.app.admin(), json!({})).await));
        becomes(&self.app.admin(), id, "ALIVE").await;
        self.machines.insert(id.into(), machine);
    }

    /// Adds a machine whose cache serves the site.
    async fn join_cache(&mut self) {
        let cache = self.cache().display().to_string();
        self.join("cache01", None, &["--cache", &cache, "--peer-listen", "127.0.0.1:0"]).await;
    }

    fn cache(&self) -> std::path::PathBuf {
        self.folder.path().join("cache")
    }

    fn name(&self) -> String {
        format!("{}/{}:{}", self.uplink.host(), self.built.repository, self.built.tag)
    }

    async fn begin(&self, field: &str, agents: &str) -> String {
        self.app.admin().transfer(field, &self.name(), agents).await
    }

    /// Waits for the end of a task; returns state and reason of each item.
    async fn ended(&self, task: &str) -> Vec<String> {
        self.app.admin().finish(task).await;
        let task = self.app.admin().task(task).await;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let items = task["items"].as_array().expect("items").iter();
        items
            .map(|item| {
                format!("{}: {} {}", text(&item["name"]), text(&item["state"]), text(&item["reason"]))
            })
            .collect()
    }

    async fn is_done(&self, field: &str, agents: &str, reason: &str) {
        let ended = self.ended(&self.begin(field, agents).await).await;
        assert!(ended.iter().all(|item| item.ends_with(&format!(": done {reason}"))), "{ended:#?}");
    }

    async fn is_present(&self) {
        until("it to be present everywhere", PATIENCE, async || {
            let standing = self.app.admin().presence(&self.name()).await;
            standing.iter().all(|state| state == "present").then_some(())
        })
        .await;
    }

    /// The bytes of each blob that came over the uplink.
    fn paid(&self) -> BTreeMap<String, usize> {
        let mut paid = BTreeMap::new();
        for exchange in self.uplink.take_log() {
            if exchange.method == "GET" && exchange.is_blob() {
                *paid.entry(exchange.target).or_default() += exchange.body_bytes;
            }
        }
        paid
    }

    fn is_paid_once(&self) {
        let paid = self.paid();
        let (sum, size) = (paid.values().sum::<usize>(), LAYERS * LAYER);
        assert!(
            paid.len() == LAYERS + 1 && sum >= size && sum <= size + size / 100,
            "{sum} of {size}: {paid:#?}"
        );
    }
}

fn python() -> Image {
    Image::new("lab/python", "1").real_layers(LAYERS, LAYER)
}

/// How many blobs of images a cache keeps.
fn kept(cache: &Path) -> usize {
    let registries =
        std::fs::read_dir(cache.join("registries")).expect("a cache").map(|entry| entry.unwrap().path());
    registries.map(|path| std::fs::read_dir(path.join("blobs/sha256")).unwrap().count()).sum()
}

#[tokio::test]
async fn a_site_pays_once_whatever_its_machines_have() {
    let Some(mut site) = Site::set(&[], &python()).await else { return };
    let (Some(docker), Some(podman)) =
        (Node::start(EngineKind::Docker).await, Node::start(EngineKind::Podman).await)
    else {
        return;
    };
    site.join_cache().await;
    site.join("gpu01", Some(&docker.url()), &[]).await;
    site.join("gpu02", Some(&podman.url()), &[]).await;
    site.join("gpu03", None, &[]).await;
    site.is_done("preload_image", "*", "loaded").await;
    site.is_paid_once();
    assert_eq!(kept(&site.cache()), LAYERS + 2, "with config and manifest");
    site.is_present().await;

    // A machine that joins later finds all of it there, also with the registry off.
    site.uplink.drop_next(usize::MAX);
    site.join("gpu04", None, &[]).await;
    site.is_done("preload_image", "gpu04", "loaded").await;
    site.is_done("unload_image", "gpu0*", "removed").await;
    site.is_done("preload_image", "gpu0*", "loaded").await;
    site.is_present().await;
}

#[tokio::test]
async fn the_servers_cache_serves_the_agents_of_its_site_alone() {
    let arguments = &["--cache", "cache?max=1GiB&site=lab"];
    let Some(mut site) = Site::set(arguments, &python()).await else { return };
    site.join("gpu01", None, &[]).await;
    site.join("gpu02", None, &[]).await;
    site.is_done("preload_image", "gpu01", "loaded").await;
    site.is_done("preload_image", "gpu02", "loaded").await;
    site.is_paid_once();
    let manager = site.app.url().to_owned();
    let layout = format!("oci:{}", site.folder.path().join("far").display());
    let mut far = Machine::new(&manager, &layout).with(&["--id", "far"]);
    far.start(Some(&token(&site.app.admin(), json!({})).await));
    becomes(&site.app.admin(), "far", "ALIVE").await;
    site.is_done("preload_image", "far", "loaded").await;
    site.is_paid_once();
}

#[tokio::test]
async fn a_cache_that_dies_in_the_middle_is_passed_by_and_the_task_says_so() {
    let Some(mut site) = Site::set(&[], &python()).await else { return };
    let Some(docker) = Node::start(EngineKind::Docker).await else { return };
    site.join_cache().await;
    site.join("gpu01", Some(&docker.url()), &[]).await;
    site.join("gpu02", None, &[]).await;
    let gate = site.uplink.gate();
    site.uplink.answer(move |request| {
        if request.method == "GET" && request.target.contains("/manifests/") {
            gate.send_replace(false);
        }
        None
    });
    let task = site.begin("preload_image", "gpu*").await;
    site.uplink.reached(2).await;
    site.machines.get_mut("cache01").expect("the cache").process().kill9();
    site.uplink.behave();
    let ended = site.ended(&task).await;
    assert!(ended.iter().all(|item| item.contains(": done loaded")), "{ended:#?}");
    assert!(ended.iter().any(|item| item.contains("cache01")), "{ended:#?}");
    let standing = site.app.admin().presence(&site.name()).await;
    assert_eq!(standing.iter().filter(|state| *state == "present").count(), 2, "{standing:?}");
}

#[tokio::test]
async fn an_engine_fetches_by_itself_where_the_operator_wants_it() {
    let Some(mut site) = Site::set(&[], &python()).await else { return };
    let Some(docker) = Node::start(EngineKind::Docker).await else { return };
    site.join_cache().await;
    site.join("gpu01", Some(&docker.url()), &["--no-relay"]).await;
    site.is_done("preload_image", "gpu01", "loaded").await;
    site.is_paid_once();
    assert!(!site.cache().join("registries").read_dir().unwrap().any(|_| true), "nothing passed the cache");
}

#[tokio::test]
async fn an_image_that_a_real_docker_pushed_is_taken_from_the_seed() {
    let Some(mut site) = Site::set(&["--seed-first"], &python()).await else { return };
    let Some(docker) = RealDocker::start().await else { return };
    // Docker writes its own manifest, in its own format.
    let (from, to) =
        (format!("{}/lab/python:1", site.registry.host()), format!("{}/lab/pushed:1", site.registry.host()));
    docker.docker_ok(&["pull", &from]).await;
    docker.docker_ok(&["tag", &from, &to]).await;
    docker.docker_ok(&["push", &to]).await;
    site.app.admin().scan(&site.uplink.host()).await;
    site.built.repository = "lab/pushed".into();
    for id in ["gpu01", "gpu02", "gpu03"] {
        site.join(id, None, &["--peer-listen", "127.0.0.1:0"]).await;
    }
    site.paid();
    site.is_done("preload_image", "*", "loaded").await;
    let log = site.uplink.log();
    let manifests = log.iter().filter(|exchange| exchange.method == "GET" && exchange.is_manifest()).count();
    assert_eq!(manifests, 1, "the seed's; the others have its: {log:#?}");
    site.is_paid_once();
    site.is_present().await;
}
