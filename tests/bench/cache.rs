//! What a preload costs a site whose machines have engines of every kind, with a cache and without; and what the relay
//! costs a machine alone.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use tempfile::TempDir;
use wharf::engine::EngineKind;

use super::report::{check, heading, median, milliseconds, note};
use super::seed::{Uplink, images, ratio};
use super::support::app::App;
use super::support::image::Image;
use super::support::node::Node;
use super::support::registry::RealRegistry;
use super::support::wait::until;

/// Engines of each kind.
const EACH: usize = 5;
const KINDS: [EngineKind; 3] = [EngineKind::Docker, EngineKind::Podman, EngineKind::Containerd];
const LAYERS: usize = 4;
const LAYER_BYTES: usize = 8 * 1024 * 1024;
/// The image that one machine pulls alone.
const LARGE_BYTES: usize = 64 * 1024 * 1024;
const TIMES: usize = 3;
const PATIENCE: Duration = Duration::from_mins(5);

pub async fn measure() {
    let count = EACH * (KINDS.len() + 1);
    heading(&format!(
        "cache: {count} machines of one site, a quarter each with Docker, Podman, containerd and a directory, an image \
         of {} MiB, an uplink of 10 MiB/s",
        LAYERS * LAYER_BYTES / 1024 / 1024
    ));
    let Some(registry) = RealRegistry::open().await else { return note("left out", "no registry") };
    let image = Image::new("lab/app", "1").real_layers(LAYERS, LAYER_BYTES);
    let built = registry.push(&image).await;
    let size: usize = built.blobs.iter().map(bytes::Bytes::len).sum();
    let size = u64::try_from(size).expect("a size");
    let Some(alone) = preload(&registry, false).await else { return note("left out", "no engines") };
    let Some(near) = preload(&registry, true).await else { return note("left out", "no engines") };
    note("each for itself, bytes over the uplink", &images(alone.bytes, size));
    note("the same, until all have it", &milliseconds(alone.took));
    note("with a cache, bytes over the uplink", &images(near.bytes, size));
    note("the same, until all have it", &milliseconds(near.took));
    note("the same again, from the cache", &milliseconds(near.again));
    note("the server at most, in memory", &format!("{} MiB", near.peak / 1024 / 1024));
    check("bytes over the uplink, in images", ratio(near.bytes, size), 1.01, "x");
    check("time, of that without", near.took.as_secs_f64() / alone.took.as_secs_f64(), 0.35, "x");
    one_machine(&registry).await;
}

struct Measured {
    bytes: u64,
    took: Duration,
    /// How long it took once more, after all machines had lost it.
    again: Duration,
    /// The most memory that the server had, in bytes.
    peak: u64,
}

/// Preloads an image onto machines of every kind.
async fn preload(registry: &RealRegistry, cached: bool) -> Option<Measured> {
    let uplink = Uplink::start(registry.host()).await;
    let folder = tempfile::tempdir().expect("a directory");
    let starting = KINDS.into_iter().flat_map(|kind| [kind; EACH]).map(Node::start);
    let nodes: Vec<Node> = join_all(starting).await.into_iter().collect::<Option<_>>()?;
    let app = start(&nodes, &folder, cached).await;
    let admin = app.admin();
    admin.add_registry_at(&uplink.host, &format!("http://{}", uplink.host), None).await;
    admin.scan(&uplink.host).await;
    let before = uplink.carried.load(Ordering::Relaxed);
    let started = Instant::now();
    let name = format!("{}/lab/app:1", uplink.host);
    let transfer = async |field: &str| {
        let (event, task) = admin.transfer_to_end(field, &name, "*").await;
        assert_eq!(event, "bgtask_done", "{task:#}");
    };
    transfer("preload_image").await;
    let (took, bytes) = (started.elapsed(), uplink.carried.load(Ordering::Relaxed) - before);
    let mut again = Duration::ZERO;
    if cached {
        transfer("unload_image").await;
        let started = Instant::now();
        transfer("preload_image").await;
        again = started.elapsed();
    }
    Some(Measured { bytes, took, again, peak: app.peak_memory() })
}

/// A server of these engines and as many directories as there are engines of a kind.
async fn start(nodes: &[Node], folder: &TempDir, cached: bool) -> App {
    let mut arguments = Vec::new();
    let directories =
        (0..EACH).map(|number| format!("oci:{}", folder.path().join(number.to_string()).display()));
    for url in nodes.iter().map(Node::url).chain(directories) {
        arguments.extend(["--engine".to_owned(), url]);
    }
    if cached {
        arguments.extend(["--cache".to_owned(), folder.path().join("cache").display().to_string()]);
    }
    let app = App::start_with(move |serve| {
        serve.args(&arguments);
    })
    .await;
    until("all engines to be read", PATIENCE, async || {
        let data = app.admin().ask("{ agents { status images_bytes } }", json!({})).await;
        let agents = data["agents"].as_array().expect("agents");
        let read =
            agents.iter().filter(|agent| agent["status"] == "ALIVE" && !agent["images_bytes"].is_null());
        (read.count() == nodes.len() + EACH).then_some(())
    })
    .await;
    app
}

/// One Docker through the relay, and by itself, by turns.
async fn one_machine(registry: &RealRegistry) {
    heading(&format!(
        "relay: one Docker, an image of {} MiB, nothing in the cache",
        LARGE_BYTES / 1024 / 1024
    ));
    let Some(node) = Node::start(EngineKind::Docker).await else { return note("left out", "no Docker") };
    let nodes = [node];
    let folder = tempfile::tempdir().expect("a directory");
    let app = start(&nodes, &folder, true).await;
    let admin = app.admin();
    admin.add_registry_at(registry.host(), &registry.url(), None).await;
    let (mut through, mut alone) = (Vec::new(), Vec::new());
    let mut peak = 0;
    for turn in 0..TIMES {
        for relayed in [turn % 2 == 0, turn % 2 == 1] {
            let tag = format!("{turn}-{relayed}");
            let image = Image::new("lab/large", &tag).content(&tag).real_layers(1, LARGE_BYTES);
            registry.push(&image).await;
            admin.scan(registry.host()).await;
            let name = format!("{}/lab/large:{tag}", registry.host());
            let data = admin.ask("{ agents { id engine } }", json!({})).await;
            let agents = data["agents"].as_array().expect("agents").clone();
            let id = agents.iter().find(|agent| agent["engine"] == "docker").expect("Docker")["id"].clone();
            let started = Instant::now();
            if relayed {
                let agent = id.as_str().expect("an id");
                let (event, task) = admin.transfer_to_end("preload_image", &name, agent).await;
                assert_eq!(event, "bgtask_done", "{task:#}");
                through.push(started.elapsed());
            } else {
                nodes[0].pull(&name).await;
                alone.push(started.elapsed());
            }
            nodes[0].untag(&name).await;
        }
        peak = peak.max(app.peak_memory());
    }
    let (through, alone) = (median(&through), median(&alone));
    note("docker pull, median", &milliseconds(alone));
    note("a preload through the relay, median", &milliseconds(through));
    note("the server at most, in memory", &format!("{} MiB", peak / 1024 / 1024));
    check("time, of docker pull", through.as_secs_f64() / alone.as_secs_f64(), 1.05, "x");
}
