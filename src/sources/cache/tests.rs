//! Tests of the cache with sources made for them.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Cache, CachePlace};
use crate::base::digest::Digest;
use crate::base::keyed::Keyed;
use crate::engine::fault::{Class, Fault};
use crate::engine::oci::fetch::Fetcher;
use crate::engine::oci::layout::Layout;
use crate::engine::oci::manifest::Blob;
use crate::engine::oci::throttle::Throttle;
use crate::engine::source::{Document, Flow, Source};

const DEADLINE: Duration = Duration::from_secs(30);
const MEBIBYTE: usize = 1 << 20;

/// A registry: every blob of `size` bytes is the first letter of its name, repeated.
#[derive(Debug)]
struct Registry {
    letter: u8,
    asked: AtomicUsize,
    sent: Arc<AtomicUsize>,
    /// How many bytes it sends before it waits.
    sends: watch::Sender<usize>,
    is_on: watch::Sender<bool>,
    /// Where its next flow breaks off for good.
    breaks: Mutex<Option<usize>>,
    /// What the later ones send instead.
    lies: Mutex<Option<u8>>,
}

impl Registry {
    fn of(letter: char) -> Arc<Self> {
        Arc::new(Self {
            letter: u8::try_from(letter).unwrap(),
            asked: AtomicUsize::new(0),
            sent: Arc::default(),
            sends: watch::Sender::new(usize::MAX),
            is_on: watch::Sender::new(true),
            breaks: Mutex::default(),
            lies: Mutex::default(),
        })
    }

    fn bytes(&self, size: usize) -> Vec<u8> {
        vec![self.letter; size]
    }

    fn digest(&self, size: usize) -> Digest {
        Digest::sha256_of(&self.bytes(size))
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// The bytes of blobs.
    fn sent(&self) -> usize {
        self.sent.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Source for Registry {
    async fn manifest(&self, _: &str) -> Result<Document, Fault> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if *self.is_on.borrow() {
            Ok(Document::of(self.bytes(20)))
        } else {
            Err(Fault::new(Class::Network, "it is off"))
        }
    }

    async fn blob(&self, _: &Digest, size: u64, from: u64) -> Result<Flow, Fault> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if !*self.is_on.borrow() {
            return Err(Fault::new(Class::Other, "it is off"));
        }
        let (size, start) = (usize::try_from(size).unwrap(), usize::try_from(from).unwrap());
        let breaks = self.breaks.lock().take();
        let letter = self.lies.lock().filter(|_| breaks.is_none()).unwrap_or(self.letter);
        let (bytes, sends) = (Bytes::from(vec![letter; size]), self.sends.subscribe());
        let sent = Arc::clone(&self.sent);
        let pieces = stream::unfold((start, sends), move |(at, mut sends)| {
            let (bytes, sent) = (bytes.clone(), Arc::clone(&sent));
            async move {
                if at == bytes.len() {
                    return None;
                }
                if breaks.is_some_and(|breaks| at >= breaks) {
                    return Some((Err(Fault::new(Class::Other, "it breaks off")), (bytes.len(), sends)));
                }
                let most = *sends.wait_for(|most| *most > at).await.ok()?;
                let end = (at + 64 * 1024).min(bytes.len()).min(most);
                sent.fetch_add(end - at, Ordering::SeqCst);
                Some((Ok(bytes.slice(at..end)), (end, sends)))
            }
        });
        Ok(Flow { from, is_verified: false, pieces: pieces.boxed() })
    }
}

struct Scene {
    folder: TempDir,
    cache: Arc<Cache>,
}

impl Scene {
    fn of(mebibytes: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), u64::try_from(mebibytes * MEBIBYTE).unwrap()).unwrap();
        Self { folder, cache }
    }

    /// Closes the cache, as a process does that ends. Its sources must be dropped.
    async fn close(self) -> TempDir {
        let closed = async {
            // A transfer that has just ended holds it for a moment.
            while Arc::strong_count(&self.cache) > 1 {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, closed).await.expect("nobody has it");
        self.folder
    }

    fn before(&self, registry: &Arc<Registry>) -> Arc<dyn Source> {
        let behind: Arc<dyn Source> = registry.clone();
        self.cache.before(&format!("{}.example/lab", char::from(registry.letter)), &behind)
    }

    fn blob_file(&self, registry: &Registry, size: usize) -> std::path::PathBuf {
        let host = format!("{}.example", char::from(registry.letter));
        let blobs = self.folder.path().join("registries").join(host).join("blobs/sha256");
        blobs.join(registry.digest(size).hex())
    }
}

/// Reads a blob to its end.
async fn read(source: &Arc<dyn Source>, digest: &Digest, size: usize) -> Result<Vec<u8>, Fault> {
    let reading = async {
        let mut flow = source.blob(digest, u64::try_from(size).unwrap(), 0).await?;
        let mut bytes = Vec::new();
        while let Some(piece) = flow.pieces.next().await {
            bytes.extend_from_slice(&piece?);
        }
        Ok(bytes)
    };
    timeout(DEADLINE, reading).await.expect("an end")
}

async fn get(source: &Arc<dyn Source>, registry: &Registry, size: usize) {
    let bytes = read(source, &registry.digest(size), size).await.unwrap();
    assert!(bytes == registry.bytes(size), "{} of {size} bytes", bytes.len());
}

#[tokio::test]
async fn a_blob_is_fetched_once_for_all_and_read_while_it_arrives() {
    let (scene, registry) = (Scene::of(10), Registry::of('a'));
    let source = scene.before(&registry);
    registry.sends.send_replace(MEBIBYTE);
    let (digest, size) = (registry.digest(2 * MEBIBYTE), u64::try_from(2 * MEBIBYTE).unwrap());
    let mut flows = Vec::new();
    for from in [0, 0, 1000] {
        flows.push((from, source.blob(&digest, size, from).await.unwrap()));
    }
    for (from, flow) in &mut flows {
        let mut half = usize::try_from(*from).unwrap();
        while half < MEBIBYTE {
            let piece = timeout(DEADLINE, flow.pieces.next()).await.expect("what has arrived");
            half += piece.expect("more").unwrap().len();
        }
    }
    registry.sends.send_replace(usize::MAX);
    for (_, mut flow) in flows {
        let mut rest = 0;
        while let Some(piece) = timeout(DEADLINE, flow.pieces.next()).await.expect("the rest") {
            rest += piece.unwrap().len();
        }
        assert_eq!(rest, MEBIBYTE);
    }
    get(&source, &registry, 2 * MEBIBYTE).await;
    assert_eq!(registry.asked(), 1);
    assert_eq!(source.remarks(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_comes_just_as_a_blob_has_arrived_finds_it() {
    let (scene, registry) = (Scene::of(100), Registry::of('a'));
    let source = scene.before(&registry);
    for size in 1000..1300 {
        let readers = (0..8).map(|number: u32| {
            let (source, registry) = (Arc::clone(&source), Arc::clone(&registry));
            tokio::spawn(async move {
                // They come one shortly after the other.
                for _ in 0..number * 40 {
                    tokio::task::yield_now().await;
                }
                get(&source, &registry, size).await;
            })
        });
        for reader in readers.collect::<Vec<_>>() {
            reader.await.unwrap();
        }
    }
    assert_eq!(source.remarks(), [""; 0]);
    assert_eq!(registry.asked(), 300);
}

#[tokio::test]
async fn a_copy_that_went_away_while_others_read_it_is_fetched_anew() {
    let (scene, registry) = (Scene::of(3), Registry::of('a'));
    let source = scene.before(&registry);
    let size = u64::try_from(MEBIBYTE).unwrap();
    let mut slow = source.blob(&registry.digest(MEBIBYTE), size, 0).await.unwrap();
    timeout(DEADLINE, slow.pieces.next()).await.expect("a piece");
    get(&source, &registry, MEBIBYTE).await;
    fs::remove_file(scene.blob_file(&registry, MEBIBYTE)).unwrap();
    get(&source, &registry, MEBIBYTE).await;
    assert!(scene.blob_file(&registry, MEBIBYTE).exists());
    assert_eq!((source.remarks(), registry.asked()), (Vec::new(), 2));
    drop(slow);
}

#[tokio::test]
async fn what_was_used_longest_ago_goes_first_and_never_what_is_being_read() {
    let (scene, registry) = (Scene::of(3), Registry::of('a'));
    let source = scene.before(&registry);
    let size = |number: usize| MEBIBYTE - number;
    for number in 0..3 {
        get(&source, &registry, size(number)).await;
    }
    // The first is read again, slowly; the third was used longest ago then.
    let held = source.blob(&registry.digest(size(0)), u64::try_from(size(0)).unwrap(), 5).await.unwrap();
    get(&source, &registry, size(1)).await;
    get(&source, &registry, size(3)).await;
    let there = || (0..4).map(|number| scene.blob_file(&registry, size(number)).exists()).collect::<Vec<_>>();
    assert_eq!(there(), [true, true, false, true]);
    get(&source, &registry, size(4)).await;
    assert_eq!(there(), [true, false, false, true], "it is being read");
    drop(held);
    get(&source, &registry, size(5)).await;
    assert_eq!(there(), [false, false, false, true]);
    assert_eq!(registry.asked(), 6);
}

#[tokio::test]
async fn what_is_kept_is_there_after_a_restart_and_with_the_registry_off() {
    let (scene, registry) = (Scene::of(3), Registry::of('a'));
    let source = scene.before(&registry);
    get(&source, &registry, MEBIBYTE).await;
    let manifest = registry.digest(20);
    source.manifest(manifest.as_str()).await.unwrap();
    drop(source);
    let folder = scene.close().await;
    registry.is_on.send_replace(false);
    let cache = Cache::open(folder.path(), 3 << 20).unwrap();
    let scene = Scene { folder, cache };
    let source = scene.before(&registry);
    get(&source, &registry, MEBIBYTE).await;
    assert_eq!(source.manifest(manifest.as_str()).await.unwrap().bytes, registry.bytes(20));
    assert!(source.manifest("latest").await.is_err(), "what a tag means only the registry knows");
    let again = Cache::open(scene.folder.path(), 1).map(drop);
    assert!(again.unwrap_err().message.contains("another wharf"), "it is locked");
    drop(source);
    let folder = scene.close().await;
    let cache = Cache::open(folder.path(), 1000).unwrap();
    assert!(cache.state.lock().bytes < 1000, "it was made smaller");
}

#[tokio::test]
async fn what_was_on_its_way_when_the_process_was_killed_goes_on_and_goes_first_if_room_is_needed() {
    let (scene, registry) = (Scene::of(3), Registry::of('a'));
    let source = scene.before(&registry);
    get(&source, &registry, MEBIBYTE).await;
    drop(source);
    let folder = scene.close().await;
    let parts = folder.path().join("registries/a.example/.wharf/parts");
    let half = 512 * 1024;
    let part = |size: usize| parts.join(format!("sha256-{}", registry.digest(size).hex()));
    for size in [2 * half - 1, 2 * half - 2] {
        fs::write(part(size), registry.bytes(half)).unwrap();
    }
    let cache = Cache::open(folder.path(), 3 << 20).unwrap();
    let scene = Scene { folder, cache };
    assert_eq!(scene.cache.state.lock().bytes, 2 << 20);
    let source = scene.before(&registry);
    registry.sends.send_replace(half);
    let size = 2 * half - 1;
    let mut flow = source.blob(&registry.digest(size), u64::try_from(size).unwrap(), 0).await.unwrap();
    // The registry sends nothing of the first half.
    let mut there = 0;
    while there < half {
        there += timeout(DEADLINE, flow.pieces.next()).await.expect("a piece").expect("more").unwrap().len();
    }
    registry.sends.send_replace(usize::MAX);
    get(&source, &registry, size).await;
    drop(flow);
    assert_eq!((registry.asked(), registry.sent()), (2, MEBIBYTE + half - 1));
    assert!(part(2 * half - 2).exists());
    get(&source, &registry, 2 * half - 3).await;
    assert!(!part(2 * half - 2).exists() && scene.blob_file(&registry, MEBIBYTE).exists());
}

#[tokio::test]
async fn what_the_cache_had_to_give_up_is_verified_to_its_end() {
    for letter in [b'a', b'x'] {
        let (scene, registry) = (Scene::of(3), Registry::of('a'));
        let source = scene.before(&registry);
        *registry.breaks.lock() = Some(MEBIBYTE / 2);
        *registry.lies.lock() = Some(letter);
        let bytes = read(&source, &registry.digest(MEBIBYTE), MEBIBYTE).await;
        assert_eq!(bytes.is_ok_and(|bytes| bytes == registry.bytes(MEBIBYTE)), letter == b'a');
        assert!(source.remarks()[0].contains("breaks off"), "{:?}", source.remarks());
    }
}

#[tokio::test]
async fn a_spoilt_copy_never_comes_whole_and_is_fetched_again() {
    let (scene, registry) = (Scene::of(3), Registry::of('a'));
    let source = scene.before(&registry);
    get(&source, &registry, MEBIBYTE).await;
    let file = scene.blob_file(&registry, MEBIBYTE);
    fs::write(&file, vec![b'x'; MEBIBYTE]).unwrap();
    let digest = registry.digest(MEBIBYTE);
    assert_eq!(
        read(&source, &digest, MEBIBYTE).await.unwrap_err().class,
        Class::Network,
        "worth another try"
    );
    get(&source, &registry, MEBIBYTE).await;
    fs::write(&file, b"short").unwrap();
    get(&source, &registry, MEBIBYTE).await;
    fs::remove_file(&file).unwrap();
    get(&source, &registry, MEBIBYTE).await;
    assert!(source.doubt(&digest).await, "the copy is right, whatever the reader began with");
    assert!(file.exists());
    fs::write(&file, vec![b'x'; MEBIBYTE]).unwrap();
    assert!(source.doubt(&digest).await, "the registry is left");
    assert!(!file.exists());
    assert_eq!(registry.asked(), 4);
    assert!(!source.doubt(&digest).await, "the registry is the last");
}

#[tokio::test]
async fn a_cache_that_is_too_small_or_gone_is_passed_by_and_says_so() {
    let (scene, registry) = (Scene::of(1), Registry::of('a'));
    let source = scene.before(&registry);
    get(&source, &registry, 2 * MEBIBYTE).await;
    assert!(source.remarks()[0].contains("does not fit into the cache"), "{:?}", source.remarks());
    let source = scene.before(&registry);
    get(&source, &registry, 1000).await;
    fs::remove_dir_all(scene.folder.path()).unwrap();
    get(&source, &registry, 1000).await;
    get(&source, &registry, 2000).await;
    assert!(!source.remarks().is_empty());
    fs::create_dir(scene.folder.path()).unwrap();
}

#[tokio::test]
async fn what_one_registry_served_another_does_not_have() {
    let (scene, registry, other) = (Scene::of(10), Registry::of('a'), Registry::of('b'));
    get(&scene.before(&registry), &registry, 1000).await;
    // The other one names a digest that it does not have.
    other.is_on.send_replace(false);
    let digest = registry.digest(1000);
    assert!(read(&scene.before(&other), &digest, 1000).await.is_err());
    assert!(read(&scene.before(&registry), &digest, 1000).await.is_ok());
}

#[tokio::test]
async fn a_transfer_that_nobody_reads_any_more_ends_and_leaves_no_room_taken() {
    let (scene, registry) = (Scene::of(3), Registry::of('a'));
    let source = scene.before(&registry);
    registry.sends.send_replace(1000);
    let size = u64::try_from(2 * MEBIBYTE).unwrap();
    let mut flow = source.blob(&registry.digest(2 * MEBIBYTE), size, 0).await.unwrap();
    timeout(DEADLINE, flow.pieces.next()).await.expect("a piece");
    assert_eq!(scene.cache.state.lock().arriving, size);
    drop(flow);
    let free = async {
        while scene.cache.state.lock().arriving > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, free).await.expect("the room is free again");
    registry.sends.send_replace(usize::MAX);
    get(&source, &registry, 2 * MEBIBYTE).await;
}

#[test]
fn a_place_has_a_directory_and_maybe_a_size_and_a_site() {
    let read = |text: &str| CachePlace::parse(text).map(|place| (place.path, place.max, place.site));
    let path = std::path::PathBuf::from("/var/cache");
    assert_eq!(read("/var/cache"), Ok((path.clone(), 100 << 30, String::new())));
    assert_eq!(read("/var/cache?max=2GiB&site=lab"), Ok((path, 2 << 30, "lab".into())));
    for text in ["", "?max=1GiB", "/a?max=much", "/a?max=0", "/a?site=", "/a?size=1GiB", "/a?max"] {
        assert!(read(text).is_err(), "{text}");
    }
}

/// A source that began with wrong bytes, and goes on from the cache.
#[derive(Debug)]
struct BeganWrong {
    is_begun: AtomicBool,
    cached: Arc<dyn Source>,
}

#[async_trait]
impl Source for BeganWrong {
    async fn manifest(&self, reference: &str) -> Result<Document, Fault> {
        self.cached.manifest(reference).await
    }

    async fn blob(&self, digest: &Digest, size: u64, from: u64) -> Result<Flow, Fault> {
        if self.is_begun.swap(true, Ordering::SeqCst) {
            return self.cached.blob(digest, size, from).await;
        }
        let wrong = Ok(Bytes::from(vec![b'x'; MEBIBYTE / 2]));
        let pieces = stream::iter([wrong, Err(Fault::new(Class::Network, "it broke off"))]);
        Ok(Flow { from, is_verified: false, pieces: pieces.boxed() })
    }

    async fn doubt(&self, digest: &Digest) -> bool {
        self.cached.doubt(digest).await
    }
}

#[tokio::test]
async fn who_began_with_wrong_bytes_begins_anew_with_the_copy_that_is_right() {
    let (scene, registry) = (Scene::of(3), Registry::of('a'));
    let cached = scene.before(&registry);
    get(&cached, &registry, MEBIBYTE).await;
    registry.is_on.send_replace(false);
    let folder = tempfile::tempdir().unwrap();
    let layout = Arc::new(Layout::open(folder.path()).unwrap());
    let source = BeganWrong { is_begun: AtomicBool::new(false), cached };
    let fetcher = Fetcher {
        layout: &layout,
        flights: &Keyed::default(),
        throttle: &Throttle::new(None),
        source: &source,
        is_durable: true,
    };
    let blob = Blob { digest: registry.digest(MEBIBYTE), size: u64::try_from(MEBIBYTE).unwrap() };
    timeout(DEADLINE, fetcher.bring(&blob, &|_, _, _| ())).await.expect("an end").unwrap();
    assert!(layout.has(&blob.digest, blob.size));
}
