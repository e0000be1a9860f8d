//! The engine against a source that does what a test says.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::base::digest::Digest;
use crate::engine::fault::{Class, Fault};
use crate::engine::image::Removal;
use crate::engine::oci::Oci;
use crate::engine::pull::{Progress, Pull, Pulled};
use crate::engine::source::{Document, Flow, Source};
use crate::engine::{Change, Engine};

/// What a source does when it is asked for a blob; without an act it sends all of the rest.
enum Act {
    /// Sends this many bytes and breaks off.
    Break(usize),
    /// Sends this many bytes, and the rest once there is a permit.
    Wait(usize, Arc<Semaphore>),
    /// Sends other bytes of the same length.
    Lie,
    /// Sends the whole blob, whatever range was asked for.
    FromZero,
}

#[derive(Default)]
struct TestSource {
    contents: Mutex<HashMap<String, Vec<u8>>>,
    acts: Mutex<HashMap<Digest, VecDeque<Act>>>,
    asked: Mutex<Vec<(Digest, u64)>>,
}

impl std::fmt::Debug for TestSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("test source")
    }
}

impl TestSource {
    fn put(&self, bytes: &[u8]) -> Value {
        let digest = Digest::sha256_of(bytes);
        self.contents.lock().insert(digest.to_string(), bytes.to_vec());
        json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": bytes.len()})
    }

    /// An image with these layers; its config contains the tag.
    fn image(self: &Arc<Self>, tag: &str, layers: &[Vec<u8>]) -> Pull {
        let config = self.put(format!("{{\"config\": \"{tag}\"}}").as_bytes());
        let layers: Vec<Value> = layers.iter().map(|layer| self.put(layer)).collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": layers,
        });
        let manifest = self.put(manifest.to_string().as_bytes());
        Pull {
            repository: "cr.test/lab/a".into(),
            tag: tag.into(),
            manifest: Some(manifest["digest"].as_str().unwrap().parse().unwrap()),
            index: None,
            config: config["digest"].as_str().unwrap().parse().unwrap(),
            architecture: "x86_64".into(),
            platform: None,
            layers: Vec::new(),
            credentials: None,
            source: Some(self.clone()),
            via: None,
        }
    }

    fn act(&self, layer: &[u8], act: Act) {
        self.acts.lock().entry(Digest::sha256_of(layer)).or_default().push_back(act);
    }

    /// The positions from which this layer was requested, in order.
    fn asked(&self, layer: &[u8]) -> Vec<u64> {
        let digest = Digest::sha256_of(layer);
        self.asked.lock().iter().filter(|(of, _)| *of == digest).map(|(_, from)| *from).collect()
    }
}

#[async_trait]
impl Source for TestSource {
    async fn manifest(&self, reference: &str) -> Result<Document, Fault> {
        let bytes = self.contents.lock().get(reference).cloned();
        let bytes = bytes.ok_or_else(|| Fault::new(Class::NotFound, "no such manifest"))?;
        Ok(Document { media_type: "application/vnd.oci.image.manifest.v1+json".into(), bytes })
    }

    async fn blob(&self, digest: &Digest, size: u64, from: u64) -> Result<Flow, Fault> {
        self.asked.lock().push((digest.clone(), from));
        let mut bytes = self.contents.lock()[digest.as_str()].clone();
        assert_eq!(bytes.len() as u64, size);
        let act = self.acts.lock().get_mut(digest).and_then(VecDeque::pop_front);
        let from = if matches!(act, Some(Act::FromZero)) { 0 } else { from };
        let mut gate = None;
        let mut rest = bytes.split_off(usize::try_from(from).unwrap());
        let mut after = Vec::new();
        let mut end = None;
        match act {
            Some(Act::Break(length)) => {
                rest.truncate(length);
                end = Some(Err(Fault::new(Class::Network, "it broke off")));
            }
            Some(Act::Wait(length, semaphore)) => {
                after = rest.split_off(length);
                gate = Some(semaphore);
            }
            Some(Act::Lie) => rest.fill(b'?'),
            Some(Act::FromZero) | None => {}
        }
        let pieces = |bytes: Vec<u8>| -> Vec<_> {
            bytes.chunks(50_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect()
        };
        let opened = stream::once(async move {
            if let Some(gate) = gate {
                gate.acquire().await.unwrap().forget();
            }
        });
        let later = pieces(after);
        let later = opened.flat_map(move |()| stream::iter(later.clone()));
        Ok(Flow {
            from,
            is_verified: false,
            pieces: stream::iter(pieces(rest)).chain(later).chain(stream::iter(end)).boxed(),
        })
    }
}

struct Scene {
    folder: TempDir,
    engine: Arc<Oci>,
    source: Arc<TestSource>,
}

impl Scene {
    fn set() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let engine = Arc::new(Oci::open(&folder.path().join("images"), None).unwrap());
        Self { folder, engine, source: Arc::default() }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join("images").join(below)
    }

    /// Closes the directory and opens it again.
    fn reopen(mut self) -> Self {
        let place = self.path("");
        assert_eq!(Arc::strong_count(&self.engine), 1);
        // The old engine must release its lock before the new one asks for it.
        let unused = tempfile::tempdir().unwrap();
        self.engine = Arc::new(Oci::open(&unused.path().join("x"), None).unwrap());
        self.engine = Arc::new(Oci::open(&place, None).unwrap());
        self
    }

    fn blobs(&self) -> usize {
        fs::read_dir(self.path("blobs/sha256")).unwrap().count()
    }

    fn parts(&self) -> Vec<u64> {
        let parts = fs::read_dir(self.path(".wharf/parts")).unwrap();
        parts.map(|part| part.unwrap().metadata().unwrap().len()).collect()
    }

    async fn pull(&self, pull: &Pull) -> Result<Pulled, Fault> {
        let seen = Mutex::new(Vec::new());
        let token = CancellationToken::new();
        let pulled = self.engine.pull(pull, &|now| seen.lock().push(now), &token).await;
        for two in seen.into_inner().windows(2) {
            assert!(two[0].bytes_done <= two[1].bytes_done && two[0].layers_done <= two[1].layers_done);
            assert!(two[1].bytes_done <= two[1].bytes_total, "{two:?}");
        }
        pulled
    }

    /// Starts a pull on a task of its own.
    fn start(&self, pull: &Pull) -> (tokio::task::JoinHandle<Result<Pulled, Fault>>, Arc<Mutex<Progress>>) {
        let (engine, pull, seen) = (self.engine.clone(), pull.clone(), Arc::<Mutex<Progress>>::default());
        let shown = seen.clone();
        let task = tokio::spawn(async move {
            engine.pull(&pull, &|now| *shown.lock() = now, &CancellationToken::new()).await
        });
        (task, seen)
    }
}

fn layer(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|n| u8::try_from(n % 251).unwrap() ^ seed).collect()
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), waiting).await.is_ok(), "in vain: {what}");
}

#[tokio::test]
async fn an_image_comes_whole_and_nothing_of_it_stays_when_it_goes() {
    let scene = Scene::set();
    let layers = [layer(1, 1_500_000), layer(2, 10), Vec::new()];
    let pull = scene.source.image("1", &layers);
    let pulled = scene.pull(&pull).await.unwrap();
    assert!(pulled.fetched);
    assert_eq!(
        (&pulled.held.digest, &pulled.held.names),
        (&pull.config, &vec!["cr.test/lab/a:1".to_owned()])
    );
    assert_eq!(pulled.held.manifests, [pull.manifest.clone().unwrap()]);
    assert_eq!((scene.blobs(), scene.parts()), (5, Vec::new()));
    let index: Value = serde_json::from_slice(&fs::read(scene.path("index.json")).unwrap()).unwrap();
    let name = &index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"];
    assert_eq!(name, "cr.test/lab/a:1", "{index}");

    assert!(!scene.pull(&pull).await.unwrap().fetched);
    let other = Pull { tag: "other".into(), source: None, ..pull.clone() };
    let also = scene.pull(&other).await.unwrap();
    assert_eq!((also.fetched, also.held.names.len()), (false, 2));

    let disk = scene.engine.disk().await.unwrap();
    assert!(disk.images_bytes > 1_500_000 && disk.free_bytes < disk.total_bytes);
    assert_eq!(scene.engine.remove(&pull.name()).await, Ok(Removal::Untagged));
    assert_eq!(scene.engine.remove(&pull.name()).await, Ok(Removal::Absent));
    let gone = Removal::Removed { freed_bytes: Some(disk.images_bytes) };
    assert_eq!(scene.engine.remove(&other.name()).await, Ok(gone));
    assert_eq!((scene.blobs(), scene.engine.images().await.unwrap()), (0, Vec::new()));
}

#[tokio::test]
async fn what_two_images_share_is_fetched_once_and_stays_until_both_are_gone() {
    let scene = Scene::set();
    let (base, top) = (layer(1, 100_000), layer(2, 100));
    let one = scene.source.image("1", std::slice::from_ref(&base));
    let two = scene.source.image("2", &[base.clone(), top.clone()]);
    scene.pull(&one).await.unwrap();
    scene.pull(&two).await.unwrap();
    assert_eq!(scene.source.asked(&base), [0]);
    assert_eq!(scene.blobs(), 6);
    scene.engine.remove(&one.name()).await.unwrap();
    assert!(scene.engine.find(&two.name()).await.unwrap().is_some());
    assert_eq!(scene.blobs(), 4);
    // The opposite case: the name moves to an image that shares nothing.
    let three = Pull { tag: "2".into(), ..scene.source.image("3", &[layer(3, 10)]) };
    scene.pull(&three).await.unwrap();
    assert_eq!(scene.blobs(), 3, "what had the name before is gone");
    assert_eq!(scene.engine.images().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_blob_that_breaks_off_is_gone_on_with_from_there() {
    let scene = Scene::set();
    let base = layer(1, 2_000_000);
    let pull = scene.source.image("1", std::slice::from_ref(&base));
    scene.source.act(&base, Act::Break(700_000));
    scene.source.act(&base, Act::Break(0));
    scene.pull(&pull).await.unwrap();
    assert_eq!(scene.source.asked(&base), [0, 700_000, 700_000]);
}

#[tokio::test]
async fn a_registry_that_keeps_breaking_off_is_given_up_and_gone_on_with_later() {
    let scene = Scene::set();
    let base = layer(1, 100_000);
    let pull = scene.source.image("1", std::slice::from_ref(&base));
    for _ in 0..4 {
        scene.source.act(&base, Act::Break(10_000));
    }
    let fault = scene.pull(&pull).await.unwrap_err();
    assert_eq!(fault.class, Class::Network, "{fault}");
    assert_eq!((scene.parts(), scene.engine.images().await.unwrap()), (vec![40_000], Vec::new()));
    let scene = scene.reopen();
    scene.pull(&pull).await.unwrap();
    assert_eq!(scene.source.asked(&base).last(), Some(&40_000));
    assert!(scene.parts().is_empty());
}

#[tokio::test]
async fn what_was_spoilt_on_disk_is_fetched_anew() {
    let scene = Scene::set();
    let base = layer(1, 100_000);
    let pull = scene.source.image("1", std::slice::from_ref(&base));
    let part = scene.path(".wharf/parts").join(format!("sha256-{}", Digest::sha256_of(&base).hex()));
    for (length, asked) in [(60_000, vec![60_000, 0]), (100_000, vec![0]), (200_000, vec![0])] {
        fs::write(&part, vec![b'?'; length]).unwrap();
        scene.source.asked.lock().clear();
        scene.pull(&pull).await.unwrap();
        assert_eq!(scene.source.asked(&base), asked, "{length}");
        scene.engine.remove(&pull.name()).await.unwrap();
    }
}

#[tokio::test]
async fn a_registry_that_does_no_ranges_is_read_from_the_beginning() {
    let scene = Scene::set();
    let base = layer(1, 900_000);
    let pull = scene.source.image("1", std::slice::from_ref(&base));
    scene.source.act(&base, Act::Break(600_000));
    scene.source.act(&base, Act::FromZero);
    scene.pull(&pull).await.unwrap();
    assert_eq!(scene.source.asked(&base), [0, 600_000]);
}

#[tokio::test]
async fn other_bytes_than_the_digest_says_are_not_kept() {
    let scene = Scene::set();
    let base = layer(1, 100_000);
    let pull = scene.source.image("1", std::slice::from_ref(&base));
    scene.source.act(&base, Act::Lie);
    let fault = scene.pull(&pull).await.unwrap_err();
    assert!(fault.class == Class::Other && fault.message.contains("other bytes"), "{fault}");
    let hex = Digest::sha256_of(&base).hex().to_owned();
    assert!(!scene.path("blobs/sha256").join(&hex).exists());
    assert!(!scene.path(".wharf/parts").join(format!("sha256-{hex}")).exists());
    assert!(scene.engine.images().await.unwrap().is_empty());
    // The manifest of another image does not match this one.
    let other = scene.source.image("2", &[layer(2, 10)]);
    let fault = scene.pull(&Pull { manifest: other.manifest, ..pull }).await.unwrap_err();
    assert!(fault.message.contains("not the expected"), "{fault}");
}

#[tokio::test]
async fn pulls_of_one_blob_fetch_it_once_and_whoever_waits_goes_on_where_another_stopped() {
    let scene = Scene::set();
    let base = layer(1, 2_000_000);
    let one = scene.source.image("1", std::slice::from_ref(&base));
    let two = scene.source.image("2", std::slice::from_ref(&base));
    let gate = Arc::new(Semaphore::new(0));
    scene.source.act(&base, Act::Wait(1_200_000, gate.clone()));
    let ((first, seen_first), (second, seen_second)) = (scene.start(&one), scene.start(&two));
    until("both to see what is there", || {
        seen_first.lock().bytes_done > 1_200_000 && seen_second.lock().bytes_done > 1_200_000
    })
    .await;
    // The pull that fetches is given up; the other one takes over the bytes that are there.
    let (stays, goes) = if scene.source.asked(&base).len() == 1 { (second, first) } else { (first, second) };
    goes.abort();
    let _ = goes.await;
    if !stays.is_finished() {
        gate.add_permits(1);
    }
    stays.await.unwrap().unwrap();
    let asked = scene.source.asked(&base);
    assert!(asked == [0] || asked == [0, 1_200_000], "{asked:?}");

    let top = layer(2, 500_000);
    let pulls = ["3", "4", "5"].map(|tag| scene.source.image(tag, std::slice::from_ref(&top)));
    scene.source.act(&top, Act::Wait(100_000, gate.clone()));
    let tasks = pulls.each_ref().map(|pull| scene.start(pull).0);
    until("the blob to be asked for", || !scene.source.asked(&top).is_empty()).await;
    gate.add_permits(1);
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(scene.source.asked(&top), [0]);
}

#[tokio::test]
async fn a_removal_takes_nothing_that_a_running_pull_needs() {
    let scene = Scene::set();
    let (base, top) = (layer(1, 1_000_000), layer(2, 1_000_000));
    let one = scene.source.image("1", std::slice::from_ref(&base));
    let two = scene.source.image("2", &[base.clone(), top.clone()]);
    scene.pull(&one).await.unwrap();
    let gate = Arc::new(Semaphore::new(0));
    scene.source.act(&top, Act::Wait(600_000, gate.clone()));
    let (task, seen) = scene.start(&two);
    until("the second image to be under way", || seen.lock().bytes_done >= 1_600_000).await;
    let freed = scene.engine.remove(&one.name()).await.unwrap();
    let Removal::Removed { freed_bytes: Some(freed) } = freed else { panic!("{freed:?}") };
    assert!(freed < 10_000, "the base is wanted still: {freed}");
    gate.add_permits(1);
    task.await.unwrap().unwrap();
    assert_eq!(scene.source.asked(&base), [0]);
    assert_eq!(scene.blobs(), 4);
}

#[tokio::test]
async fn a_stopped_pull_ends_at_once_and_can_be_gone_on_with() {
    let scene = Scene::set();
    let base = layer(1, 1_000_000);
    let pull = scene.source.image("1", std::slice::from_ref(&base));
    let gate = Arc::new(Semaphore::new(0));
    scene.source.act(&base, Act::Wait(600_000, gate));
    let (stop, seen) = (CancellationToken::new(), Mutex::new(Progress::default()));
    let progress = |now| *seen.lock() = now;
    let stopping = async {
        until("most of it to be there", || seen.lock().bytes_done >= 600_000).await;
        stop.cancel();
    };
    let (pulled, ()) = tokio::join!(scene.engine.pull(&pull, &progress, &stop), stopping);
    assert_eq!(pulled.unwrap_err().class, Class::Stopped);
    scene.pull(&pull).await.unwrap();
    assert_eq!(scene.source.asked(&base), [0, 600_000]);
}

#[tokio::test]
async fn an_image_that_lost_a_layer_is_not_there_and_comes_back() {
    let scene = Scene::set();
    let base = layer(1, 1000);
    let pull = scene.source.image("1", std::slice::from_ref(&base));
    scene.pull(&pull).await.unwrap();
    fs::remove_file(scene.path("blobs/sha256").join(Digest::sha256_of(&base).hex())).unwrap();
    assert_eq!(scene.engine.images().await.unwrap(), []);
    assert!(scene.pull(&pull).await.unwrap().fetched);
    assert_eq!(scene.engine.images().await.unwrap().len(), 1);
}

#[tokio::test]
async fn nothing_is_collected_where_it_cannot_be_told_what_is_needed() {
    let scene = Scene::set();
    let (one, two) =
        (scene.source.image("1", &[layer(1, 10)]), scene.source.image("2", &[layer(2, 10), layer(3, 10)]));
    scene.pull(&one).await.unwrap();
    scene.pull(&two).await.unwrap();
    let manifest = scene.path("blobs/sha256").join(one.manifest.as_ref().unwrap().hex());
    fs::write(manifest, "spoilt").unwrap();
    scene.engine.remove(&two.name()).await.unwrap();
    assert_eq!(scene.blobs(), 7);
}

#[tokio::test]
async fn an_image_is_found_however_its_name_is_spelt() {
    let scene = Scene::set();
    let pull = Pull {
        repository: "index.docker.io/lablup/python".into(),
        ..scene.source.image("1", &[layer(1, 10)])
    };
    let held = scene.pull(&pull).await.unwrap().held;
    assert_eq!(held.names, ["docker.io/lablup/python:1"]);
    for spelling in [&pull.name(), "lablup/python:1", pull.config.as_str()] {
        assert_eq!(scene.engine.find(spelling).await, Ok(Some(held.clone())), "{spelling}");
    }
    for other in ["", "lablup/python", "lablup/python:2", "cr.test/lablup/python:1"] {
        assert_eq!(scene.engine.find(other).await, Ok(None), "{other}");
        assert_eq!(scene.engine.remove(other).await, Ok(Removal::Absent), "{other}");
    }
    let removed = scene.engine.remove(pull.config.as_str()).await.unwrap();
    assert!(matches!(removed, Removal::Removed { .. }), "{removed:?}");
    assert_eq!(scene.blobs(), 0);
}

#[tokio::test]
async fn an_engine_tells_of_its_own_changes() {
    let scene = Scene::set();
    let pull = scene.source.image("1", &[layer(1, 10)]);
    let mut events = scene.engine.events().await.unwrap();
    scene.pull(&pull).await.unwrap();
    assert_eq!(events.next().await, Some(Ok(Change::Images)));
    scene.engine.remove(&pull.name()).await.unwrap();
    assert_eq!(events.next().await, Some(Ok(Change::Images)));
}

#[test]
fn a_directory_that_is_not_ours_to_use_is_refused_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |place: &str| {
        let message = Oci::open(&folder.path().join(place), None).err().unwrap().message;
        assert!(message.contains(place), "{message}");
        message
    };
    fs::write(folder.path().join("file"), "x").unwrap();
    assert!(refused("file").contains("not a directory"));
    fs::create_dir(folder.path().join("diary")).unwrap();
    fs::write(folder.path().join("diary/monday"), "x").unwrap();
    assert!(refused("diary").contains("not empty"));
    fs::create_dir(folder.path().join("later")).unwrap();
    fs::write(folder.path().join("later/oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
    assert!(refused("later").contains("another version"));

    let first = Oci::open(&folder.path().join("deep/images"), None).unwrap();
    for made in ["deep", "deep/images"] {
        let mode = fs::metadata(folder.path().join(made)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{made} is for its owner");
    }
    assert!(refused("deep/images").contains("another wharf uses"));
    drop(first);
    fs::write(folder.path().join("deep/images/index.json"), "[]").unwrap();
    assert!(refused("deep/images").contains("no index of images"));
    fs::remove_file(folder.path().join("deep/images/index.json")).unwrap();
    drop(Oci::open(&folder.path().join("deep/images"), None).unwrap());
}

#[tokio::test]
async fn a_directory_keeps_who_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("gpu01");
    let first = Oci::open(&place, None).unwrap().about().await.unwrap();
    assert_eq!(first.hostname, "gpu01");
    assert_eq!(first.architecture, std::env::consts::ARCH);
    fs::rename(&place, folder.path().join("moved")).unwrap();
    let moved = Oci::open(&folder.path().join("moved"), None).unwrap().about().await.unwrap();
    assert_eq!(moved, first);
    let other = Oci::open(&place, None).unwrap().about().await.unwrap();
    assert_ne!(other.id, first.id);
}
