//! The built-in engine: images in a directory, beside a real registry and the programs that read such directories.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::app::{App, Launch};
use crate::support::disk::SmallDisk;
use crate::support::http1::{Answer, Request, Response};
use crate::support::image::{Built, Image, sha256};
use crate::support::layout::{beginning, blobs, parts, reference, skopeo};
use crate::support::missing;
use crate::support::process::{on_path, run};
use crate::support::proxy::{CountingProxy, Exchange};
use crate::support::registry::{PASSWORD, RealRegistry, USER};
use crate::support::shelf::Shelf;
use crate::support::wait::{PATIENCE, until};

/// A server with such engines, and a registry behind a proxy that the server has read.
struct Scene {
    app: App,
    proxy: CountingProxy,
    _registry: RealRegistry,
    built: Vec<Built>,
    agents: Vec<String>,
}

impl Scene {
    /// Returns a scene with one engine, whose directory is `images` below the server's.
    async fn set(images: Vec<Image>) -> Option<Self> {
        Self::set_with(
            Launch::new(|command| {
                command.args(["--engine", "oci:images"]);
            }),
            1,
            images,
        )
        .await
    }

    async fn set_with(launch: Launch, engines: usize, images: Vec<Image>) -> Option<Self> {
        let registry = RealRegistry::open().await?;
        let mut built = Vec::new();
        for image in &images {
            built.push(registry.push(image).await);
        }
        let proxy = CountingProxy::start(&registry.url()).await;
        let app = launch.start().await;
        let api = app.admin();
        api.add_registry_at(&proxy.host(), &proxy.url(), None).await;
        api.scan(&proxy.host()).await;
        let agents = api.agents_alive(engines).await;
        proxy.take_log();
        Some(Self { app, proxy, _registry: registry, built, agents })
    }

    fn api(&self) -> Api {
        self.app.admin()
    }

    fn folder(&self) -> PathBuf {
        self.app.launch().root().join("images")
    }

    fn name(&self, image: usize) -> String {
        let built = &self.built[image];
        format!("{}/{}:{}", self.proxy.host(), built.repository, built.tag)
    }

    async fn preload(&self, image: usize) -> (String, Value) {
        self.api().transfer_to_end("preload_image", &self.name(image), "*").await
    }

    /// Returns the digest of an image's layer.
    fn layer(&self, image: usize, position: usize) -> String {
        sha256(&self.built[image].blobs[position])
    }

    /// Returns the requests for this blob that the registry answered.
    fn requests_for(&self, digest: &str) -> Vec<Exchange> {
        self.proxy.log().into_iter().filter(|e| e.method == "GET" && e.target.ends_with(digest)).collect()
    }

    /// Answers the first request for this blob in the registry's place.
    fn answer_once(&self, digest: &str, answer: Answer) {
        let digest = digest.to_owned();
        let left = parking_lot::Mutex::new(Some(answer));
        self.proxy
            .answer(move |request| request.target.ends_with(&digest).then(|| left.lock().take()).flatten());
    }
}

fn lab(tag: &str) -> Image {
    Image::new("lab/python", tag).real_layers(2, 300_000)
}

fn only(task: &Value) -> (&str, &str) {
    let item = &task["items"][0];
    (item["state"].as_str().unwrap(), item["reason"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn an_image_is_loaded_into_a_directory_that_skopeo_reads() {
    if !on_path("skopeo") {
        return missing("skopeo", "apt-get install skopeo");
    }
    let Some(scene) = Scene::set(vec![lab("1"), lab("oci").oci()]).await else { return };
    assert_eq!(scene.agents, ["i-images"], "an agent is called as its directory");
    let scratch = scene.app.launch().root();
    for image in 0..2 {
        let (name, task) = scene.preload(image).await;
        assert_eq!((name.as_str(), only(&task)), ("bgtask_done", ("done", "loaded")), "{task:#}");
        let reference = reference(&scene.folder(), &scene.name(image));
        let inspected = skopeo(scratch, &["inspect", &reference]).await;
        let layers = json!([scene.layer(image, 0), scene.layer(image, 1)]);
        assert_eq!((&inspected["Layers"], &inspected["Architecture"]), (&layers, &json!("amd64")));
        let raw = skopeo(scratch, &["inspect", "--raw", &reference]).await;
        assert_eq!(raw["config"]["digest"], scene.built[image].part("x86_64").config.as_str());
        assert_eq!(raw["mediaType"], "application/vnd.oci.image.manifest.v1+json");
        assert_eq!(scene.api().presence(&scene.name(image)).await, ["present"]);
    }
    let (_, again) = scene.preload(0).await;
    assert_eq!(only(&again), ("done", "already there"));

    let data = scene.api().ask("{ agents { engine architecture } }", json!({})).await;
    let agent = &data["agents"][0];
    assert_eq!((&agent["engine"], &agent["architecture"]), (&json!("oci"), &json!("x86_64")), "{data}");
    until("the agent's disk to have the images", PATIENCE, async || {
        let data = scene.api().ask("{ agents { free_bytes images_bytes } }", json!({})).await;
        data["agents"][0]["images_bytes"].as_u64().is_some_and(|bytes| bytes > 1_200_000).then_some(())
    })
    .await;

    for image in 0..2 {
        let (_, task) = scene.api().transfer_to_end("unload_image", &scene.name(image), "*").await;
        assert_eq!(only(&task), ("done", "removed"));
        assert_eq!(scene.api().presence(&scene.name(image)).await, ["absent"]);
    }
    assert_eq!(blobs(&scene.folder()), BTreeSet::new());
}

#[tokio::test]
async fn podman_takes_an_image_from_the_directory() {
    for program in ["podman", "crun"] {
        if !on_path(program) {
            return missing(program, "apt-get install podman crun");
        }
    }
    let Some(scene) = Scene::set(vec![lab("1")]).await else { return };
    assert_eq!(scene.preload(0).await.0, "bgtask_done");
    // Podman makes a name from the path, and names have no capitals.
    let lower = format!("wharf-podman-{:.8}", uuid::Uuid::new_v4().simple().to_string());
    let scratch = tempfile::Builder::new().prefix(&lower).rand_bytes(0).tempdir().unwrap();
    let images = scratch.path().join("images");
    std::os::unix::fs::symlink(scene.folder(), &images).unwrap();
    let place = |name: &str| scratch.path().join(name).display().to_string();
    let podman = async |arguments: &[&str]| {
        let mut command = Command::new("podman");
        command.args(["--root", &place("root"), "--runroot", &place("run"), "--storage-driver", "vfs"]);
        let outcome = run(command.args(arguments), scratch.path(), PATIENCE).await;
        assert_eq!(outcome.code, 0, "podman {arguments:?}: {}", outcome.text());
        outcome.stdout.trim().to_owned()
    };
    let id = podman(&["pull", "-q", &reference(&images, &scene.name(0))]).await;
    assert_eq!(format!("sha256:{id}"), scene.built[0].part("x86_64").config);
    let layers = podman(&["inspect", "--format", "{{len .RootFS.Layers}}", &id]).await;
    assert_eq!(layers, "2");
}

#[tokio::test]
async fn layers_that_images_share_are_fetched_and_kept_once() {
    let base = |tag, layers| Image::new("lab/python", tag).content("base").real_layers(layers, 200_000);
    let Some(scene) = Scene::set(vec![base("1", 2), base("2", 3)]).await else { return };
    // Both start at the same moment, and the registry is slow enough for them to meet.
    scene.proxy.delay(Duration::from_millis(50));
    let first = scene.api().transfer("preload_image", &scene.name(0), "*").await;
    let second = scene.api().transfer("preload_image", &scene.name(1), "*").await;
    for task in [first, second] {
        assert_eq!(scene.api().finish(&task).await.name, "bgtask_done");
    }
    for position in 0..2 {
        let requests = scene.requests_for(&scene.layer(0, position));
        assert_eq!(requests.len(), 1, "{requests:?}");
    }
    // Three layers, two configs, two manifests, and both as the registry served them.
    assert_eq!(blobs(&scene.folder()).len(), 9);
    scene.api().transfer_to_end("unload_image", &scene.name(1), "*").await;
    assert_eq!(blobs(&scene.folder()).len(), 5);
    assert_eq!(scene.api().presence(&scene.name(0)).await, ["present"]);
}

#[tokio::test]
async fn a_transfer_that_broke_off_goes_on_by_range() {
    let Some(scene) = Scene::set(vec![lab("1")]).await else { return };
    let (layer, blob) = (scene.layer(0, 0), scene.built[0].blobs[0].clone());
    scene.answer_once(&layer, Answer::Raw(beginning(&blob, 200_000)));
    let (name, task) = scene.preload(0).await;
    assert_eq!((name.as_str(), only(&task)), ("bgtask_done", ("done", "loaded")), "{task:#}");
    let requests = scene.requests_for(&layer);
    let [rest] = requests.as_slice() else { panic!("{requests:?}") };
    assert_eq!((rest.range.as_deref(), rest.status), (Some("bytes=200000-"), 206));
    assert_eq!(rest.body_bytes, blob.len() - 200_000);
}

#[tokio::test]
async fn a_preload_goes_on_where_a_kill_interrupted_it() {
    let image = Image::new("lab/large", "1").real_layers(3, 2_000_000);
    let Some(mut scene) = Scene::set(vec![image]).await else { return };
    let (layer, blob) = (scene.layer(0, 1), scene.built[0].blobs[1].clone());
    scene.answer_once(&layer, Answer::Pause(beginning(&blob, 1_500_000)));
    let task = scene.api().transfer("preload_image", &scene.name(0), "*").await;
    let folder = scene.folder();
    until("all to be there but the rest of one layer", PATIENCE, async || {
        (parts(&folder) == [1_500_000] && blobs(&folder).len() == 3).then_some(())
    })
    .await;
    assert_eq!(scene.api().presence(&scene.name(0)).await, ["absent"]);
    scene.app.kill9();
    scene.proxy.take_log();
    scene.app.restart().await;
    let event = scene.api().finish(&task).await;
    let ended = scene.api().task(&task).await;
    assert_eq!((event.name.as_str(), only(&ended).0), ("bgtask_done", "done"), "{ended:#}");
    let blobs: Vec<_> = scene.proxy.log().into_iter().filter(Exchange::is_blob).collect();
    let [rest] = blobs.as_slice() else { panic!("more was fetched than was missing: {blobs:?}") };
    assert_eq!(rest.range.as_deref(), Some("bytes=1500000-"));
    assert_eq!(scene.api().agents_alive(1).await, scene.agents);
    assert_eq!(scene.api().presence(&scene.name(0)).await, ["present"]);
    assert_eq!(parts(&folder), [0; 0]);
}

#[tokio::test]
async fn killed_again_and_again_a_preload_still_ends_whole() {
    let image = Image::new("lab/large", "1").real_layers(6, 1_000_000);
    let Some(mut scene) = Scene::set(vec![image]).await else { return };
    let task = scene.api().transfer("preload_image", &scene.name(0), "*").await;
    for kill in 1..=5 {
        // A different moment each time: before, between and after what it fetches.
        let enough = scene.proxy.arrived() + kill % 3;
        until("some requests, or the end", PATIENCE, async || {
            let is_over = scene.api().task(&task).await["state"] != "started";
            (is_over || scene.proxy.arrived() >= enough).then_some(())
        })
        .await;
        scene.app.kill9();
        scene.app.restart().await;
    }
    let event = scene.api().finish(&task).await;
    assert_eq!(event.name, "bgtask_done", "{:#}", scene.api().task(&task).await);
    for digest in blobs(&scene.folder()) {
        let hex = digest.trim_start_matches("sha256:");
        let bytes = fs::read(scene.folder().join("blobs/sha256").join(hex)).unwrap();
        assert_eq!(sha256(&bytes), digest);
    }
    scene.api().agents_alive(1).await;
    assert_eq!(scene.api().presence(&scene.name(0)).await, ["present"]);
}

#[tokio::test]
async fn what_a_registry_falsified_is_refused() {
    let image = lab("1");
    let built = image.build();
    let (good, layer) = (built.blobs[0].clone(), sha256(&built.blobs[0]));
    let registry = Shelf::start([image]).await;
    let app = App::start_with(|command| {
        command.args(["--engine", "oci:images"]);
    })
    .await;
    let (api, folder) = (app.admin(), app.launch().root().join("images"));
    api.add_registry_at(&registry.host(), &registry.url(), Some((USER, PASSWORD))).await;
    api.scan(&registry.host()).await;
    api.agents_alive(1).await;
    let name = format!("{}/lab/python:1", registry.host());
    let falsified = |bytes: Bytes| {
        let layer = layer.clone();
        move |request: &Request| {
            let is_it = request.path().ends_with(&layer) && request.header("authorization").is_some();
            is_it.then(|| Answer::Reply(Response::new(200).body(bytes.clone())))
        }
    };
    let other: Vec<u8> = good.iter().map(|byte| !byte).collect();
    let longer = [&good[..], b"more"].concat();
    for (bytes, reason) in [(other, "other bytes"), (longer, "length"), (good[..1000].to_vec(), "length")] {
        registry.turn(falsified(bytes.into()));
        let (event, task) = api.transfer_to_end("preload_image", &name, "*").await;
        assert_eq!(event, "bgtask_failed", "{task:#}");
        assert!(only(&task).1.contains(reason), "{reason}: {task:#}");
        assert!(!blobs(&folder).contains(&layer));
        assert_eq!(api.presence(&name).await, ["absent"]);
    }
    registry.turn(|_| None);
    let (event, task) = api.transfer_to_end("preload_image", &name, "*").await;
    assert_eq!(event, "bgtask_done", "{task:#}");
}

#[tokio::test]
async fn an_image_behind_tokens_is_loaded() {
    let Some(registry) = RealRegistry::with_tokens().await else { return };
    let built = registry.push(&lab("1")).await;
    let app = App::start_with(|command| {
        command.args(["--engine", "oci:images"]);
    })
    .await;
    let api = app.admin();
    api.add_registry(&registry).await;
    api.scan(registry.host()).await;
    api.agents_alive(1).await;
    let name = format!("{}/{}:{}", registry.host(), built.repository, built.tag);
    let (event, task) = api.transfer_to_end("preload_image", &name, "*").await;
    assert_eq!(event, "bgtask_done", "{task:#}");
    assert!(!app.logs().contains(PASSWORD));
}

#[tokio::test]
async fn a_cancelled_preload_ends_at_once_and_is_gone_on_with_later() {
    let Some(scene) = Scene::set(vec![lab("1")]).await else { return };
    let (layer, blob) = (scene.layer(0, 0), scene.built[0].blobs[0].clone());
    scene.answer_once(&layer, Answer::Pause(beginning(&blob, 100_000)));
    let task = scene.api().transfer("preload_image", &scene.name(0), "*").await;
    let folder = scene.folder();
    until("some of the layer to be there", PATIENCE, async || {
        parts(&folder).contains(&100_000).then_some(())
    })
    .await;
    let asked = Instant::now();
    let (ok, msg) = scene.api().mutate("cancel_task", &format!("id: \"{task}\"")).await;
    assert!(ok, "{msg}");
    assert_eq!(scene.api().finish(&task).await.name, "bgtask_cancelled");
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    assert_eq!(scene.preload(0).await.0, "bgtask_done");
    assert_eq!(scene.requests_for(&layer)[0].range.as_deref(), Some("bytes=100000-"));
}

#[tokio::test]
async fn a_full_disk_is_told_and_leaves_no_harm() {
    let launch = Launch::new(|command| {
        command.args(["--engine", "oci:images"]);
    });
    let Some(disk) = SmallDisk::mount(launch.root().join("images"), 48) else {
        eprintln!("left out: no file system can be mounted here");
        return;
    };
    let images = vec![
        Image::new("lab/huge", "1").real_layers(2, 25_000_000),
        Image::new("lab/large", "1").real_layers(1, 8_000_000),
    ];
    let Some(scene) = Scene::set_with(launch, 1, images).await else { return };
    let (event, task) = scene.preload(0).await;
    let reason = only(&task).1;
    assert_eq!(event, "bgtask_failed", "{task:#}");
    assert!(reason.starts_with("no space: ") && reason.contains("unload images"), "{reason}");
    assert!(scene.proxy.log().iter().all(|e| !e.is_blob()), "it is known before anything is fetched");

    // There seemed to be enough room, and then other programs took it.
    let (layer, blob) = (scene.layer(1, 0), scene.built[1].blobs[0].clone());
    let gate = scene.proxy.gate();
    // The rest does not arrive before the disk is full.
    scene.proxy.answer(move |request| {
        let is_first = request.target.ends_with(&layer) && request.header("range").is_none();
        is_first.then(|| {
            gate.send_replace(false);
            Answer::Raw(beginning(&blob, 3_000_000))
        })
    });
    let folder = scene.folder();
    let task = scene.api().transfer("preload_image", &scene.name(1), "*").await;
    until("the beginning to be there", PATIENCE, async || parts(&folder).contains(&3_000_000).then_some(()))
        .await;
    disk.fill();
    scene.proxy.release();
    let event = scene.api().finish(&task).await;
    let ended = scene.api().task(&task).await;
    assert_eq!(event.name, "bgtask_failed", "{ended:#}");
    let reason = only(&ended).1;
    assert!(reason.starts_with("no space: ") && reason.contains("No space left on device"), "{reason}");
    disk.free();
    scene.proxy.behave();
    assert_eq!(scene.preload(1).await.0, "bgtask_done");
    assert_eq!(scene.api().presence(&scene.name(1)).await, ["present"]);
    drop(scene);
    drop(disk);
}

#[tokio::test]
async fn a_directory_that_cannot_be_used_is_refused_with_the_remedy() {
    let launch = Launch::new(|command| {
        command.args(["--engine", "oci:images"]);
    });
    let place = launch.root().join("images");
    let refused = async |why: &str| {
        let outcome = launch.refused().await;
        assert_eq!(outcome.code, 1, "{}", outcome.text());
        let names_it = outcome.stderr.contains(&place.display().to_string());
        assert!(names_it && outcome.stderr.contains(why), "{why}: {}", outcome.text());
        assert!(!outcome.text().contains("super-admin"), "made, and its password lost: {}", outcome.text());
    };
    fs::write(&place, "a file").unwrap();
    refused("not a directory").await;
    fs::remove_file(&place).unwrap();
    fs::create_dir(&place).unwrap();
    fs::write(place.join("diary"), "of mine").unwrap();
    refused("not an OCI image layout, and not empty").await;
    assert_eq!(fs::read_dir(&place).unwrap().count(), 1, "it was left as it is");
    fs::remove_file(place.join("diary")).unwrap();

    let given = place.clone();
    let other = App::start_with(move |command| {
        command.args(["--engine", &format!("oci:{}", given.display())]);
    })
    .await;
    refused("another wharf uses this directory").await;
    drop(other);
    let mut app = launch.clone().start().await;
    app.admin().agents_alive(1).await;
    app.kill9();

    fs::remove_dir_all(&place).unwrap();
    if let Some(disk) = SmallDisk::mount(place.clone(), 1) {
        let remount = Command::new("mount").args(["-o", "remount,ro"]).arg(&place).status();
        assert!(remount.unwrap().success());
        refused("can't be written to").await;
        drop(disk);
    }
}

#[tokio::test]
async fn each_directory_of_a_machine_is_an_agent_of_its_own_for_ever() {
    let engines = |names: &'static [&'static str]| {
        move |command: &mut Command| {
            for name in names {
                command.args(["--engine", &format!("oci:nodes/{name}")]);
            }
        }
    };
    let launch = Launch::new(engines(&["gpu01", "gpu02", "gpu03", "gpu04", "gpu05", "gpu06"]));
    let Some(scene) = Scene::set_with(launch, 6, vec![lab("1")]).await else { return };
    assert_eq!(scene.agents, ["i-gpu01", "i-gpu02", "i-gpu03", "i-gpu04", "i-gpu05", "i-gpu06"]);
    let (event, task) = scene.api().transfer_to_end("preload_image", &scene.name(0), "i-gpu[02-03]").await;
    assert_eq!(event, "bgtask_done", "{task:#}");
    let expected = ["absent", "present", "present", "absent", "absent", "absent"];
    assert_eq!(scene.api().presence(&scene.name(0)).await, expected);

    // Another server that knows none of the engines, gets them in another order, and one of them moved.
    let nodes = tempfile::tempdir().unwrap();
    let Scene { mut app, .. } = scene;
    app.kill9();
    for name in ["gpu03", "gpu01"] {
        let from = app.launch().root().join("nodes").join(name);
        fs::rename(from, nodes.path().join(format!("was-{name}"))).unwrap();
    }
    let place = nodes.path().to_owned();
    let second = App::start_with(move |command| {
        for name in ["was-gpu03", "was-gpu01"] {
            command.args(["--engine", &format!("oci:{}", place.join(name).display())]);
        }
    })
    .await;
    assert_eq!(second.admin().agents_alive(2).await, ["i-gpu01", "i-gpu03"]);
}

#[tokio::test]
async fn a_limit_slows_an_engine_down() {
    let launch = Launch::new(|command| {
        command.args(["--engine", "oci:images?limit=1MiB"]);
    });
    let Some(scene) =
        Scene::set_with(launch, 1, vec![Image::new("lab/a", "1").real_layers(3, 700_000)]).await
    else {
        return;
    };
    let started = Instant::now();
    assert_eq!(scene.preload(0).await.0, "bgtask_done");
    // Two MiB and a little more.
    assert!(started.elapsed() >= Duration::from_secs(2), "{:?}", started.elapsed());
}
