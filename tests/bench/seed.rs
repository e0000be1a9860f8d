//! What a preload costs a site with a slow uplink, with one agent fetching for all and without.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, JoinSet};

use super::layout::large;
use super::report::{check, heading, milliseconds, note};
use super::support::app::App;
use super::support::machine::{Machine, becomes, token};
use super::support::registry::RealRegistry;

const AGENTS: usize = 6;
const LAYERS: usize = 4;
const LAYER_BYTES: usize = 8 * 1024 * 1024;
/// Bytes that the uplink carries in a second.
const UPLINK: u32 = 10 * 1024 * 1024;
/// Bytes that the uplink carries at once.
const PIECE: usize = 64 * 1024;

pub async fn measure() {
    heading(&format!(
        "seed: {AGENTS} agents of one site, an image of {} MiB, an uplink of {} MiB/s",
        LAYERS * LAYER_BYTES / 1024 / 1024,
        UPLINK / 1024 / 1024
    ));
    let Some(registry) = RealRegistry::open().await else { return note("left out", "no registry") };
    let built = large(LAYERS, LAYER_BYTES);
    registry.upload(&built).await;
    let image: usize = built.blobs.iter().map(bytes::Bytes::len).sum();
    let image = u64::try_from(image).expect("a size");
    let (each, took) = preload(&registry, &[]).await;
    note("each for itself, bytes over the uplink", &images(each, image));
    note("the same, until all have it", &milliseconds(took));
    let (once, quick) = preload(&registry, &["--seed-first"]).await;
    note("seed first, bytes over the uplink", &images(once, image));
    note("the same, until all have it", &milliseconds(quick));
    check("bytes over the uplink, in images", ratio(once, image), 1.05, "x");
    check("time, of that without", quick.as_secs_f64() / took.as_secs_f64(), 0.5, "x");
}

pub fn ratio(bytes: u64, image: u64) -> f64 {
    let kibibytes = |bytes: u64| f64::from(u32::try_from(bytes / 1024).expect("less than 4 TiB"));
    kibibytes(bytes) / kibibytes(image)
}

pub fn images(bytes: u64, image: u64) -> String {
    format!("{:.2} images", ratio(bytes, image))
}

/// Preloads an image onto all agents of a new site; returns the bytes that came over the uplink, and the time.
async fn preload(registry: &RealRegistry, arguments: &'static [&'static str]) -> (u64, Duration) {
    let uplink = Uplink::start(registry.host()).await;
    let app = App::start_with(move |serve| {
        serve.args(arguments);
    })
    .await;
    let admin = app.admin();
    admin.add_registry_at(&uplink.host, &format!("http://{}", uplink.host), None).await;
    admin.scan(&uplink.host).await;
    let token = token(&admin, json!({"uses": AGENTS})).await;
    let mut site: Vec<(Machine, TempDir)> = Vec::new();
    for number in 1..=AGENTS {
        let (id, folder) = (format!("gpu{number:02}"), tempfile::tempdir().expect("a directory"));
        let mut machine = Machine::new(app.url(), &format!("oci:{}", folder.path().display())).with(&[
            "--id",
            &id,
            "--label",
            "site=lab",
            "--peer-listen",
            "127.0.0.1:0",
        ]);
        machine.start(Some(&token));
        becomes(&admin, &id, "ALIVE").await;
        site.push((machine, folder));
    }
    let before = uplink.carried.load(Ordering::Relaxed);
    let started = Instant::now();
    let name = format!("{}/lab/large:1", uplink.host);
    let (event, task) = admin.transfer_to_end("preload_image", &name, "*").await;
    assert_eq!(event, "bgtask_done", "{task:#}");
    (uplink.carried.load(Ordering::Relaxed) - before, started.elapsed())
}

/// A proxy that counts the bytes from the registry, and limits how many pass in a second.
pub struct Uplink {
    pub host: String,
    pub carried: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Drop for Uplink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Uplink {
    pub async fn start(registry: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let host = listener.local_addr().expect("an address").to_string();
        let (carried, wire) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(())));
        let (count, registry) = (Arc::clone(&carried), registry.to_owned());
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let (registry, count, wire) = (registry.clone(), Arc::clone(&count), Arc::clone(&wire));
                connections.spawn(async move {
                    let far = TcpStream::connect(&registry).await.expect("the registry");
                    let (mut from_near, mut to_near) = near.into_split();
                    let (mut from_far, mut to_far) = far.into_split();
                    let up = async { tokio::io::copy(&mut from_near, &mut to_far).await };
                    let down = async {
                        let mut piece = vec![0; PIECE];
                        while let Ok(length @ 1..) = from_far.read(&mut piece).await {
                            // The pieces pass one after another; each takes the time that its length needs.
                            let on_the_wire = wire.lock().await;
                            let length32 = u32::try_from(length).expect("a piece");
                            tokio::time::sleep(Duration::from_secs(1) * length32 / UPLINK).await;
                            drop(on_the_wire);
                            count.fetch_add(u64::from(length32), Ordering::Relaxed);
                            if to_near.write_all(&piece[..length]).await.is_err() {
                                break;
                            }
                        }
                    };
                    tokio::select! {
                        _ = up => {}
                        () = down => {}
                    }
                });
            }
        });
        Self { host, carried, task }
    }
}
