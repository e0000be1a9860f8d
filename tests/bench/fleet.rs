//! The cost of many agents, and what wharf adds to an engine's own pull.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use wharf::access::caller::{Caller, Origin, Role};
use wharf::access::tenants::Tenants;
use wharf::base::clock::Clock;
use wharf::base::digest::Digest;
use wharf::base::identity::Identity;
use wharf::base::ids::UserId;
use wharf::engine::fault::Fault;
use wharf::engine::image::{Held, Removal};
use wharf::engine::pull::{Progress, Pull, Pulled};
use wharf::engine::{About, Change, Disk, Engine, EngineKind};
use wharf::fleet::presence::Sought;
use wharf::fleet::service::{AgentChange, Fleet};
use wharf::store::Store;

use super::report::{check, heading, median, milliseconds, note};
use super::stock;
use super::support::app::App;
use super::support::image::Image;
use super::support::node::Node;
use super::support::registry::RealRegistry;

const AGENTS: usize = 10_000;
const IMAGES: usize = 500;
const ROUNDS: usize = 21;
/// The layers of the image in the side-by-side pull, and the bytes in each.
const LAYERS: usize = 4;
const LAYER_BYTES: usize = 24 * 1024 * 1024;
const PULLS: usize = 5;

pub async fn measure() {
    many_agents().await;
    for kind in [EngineKind::Docker, EngineKind::Podman, EngineKind::Containerd] {
        one_pull(kind).await;
    }
}

/// An engine without a server behind it, known only by its name.
struct Named(String);

#[async_trait]
impl Engine for Named {
    async fn about(&self) -> Result<About, Fault> {
        Ok(about(&self.0))
    }
    async fn images(&self) -> Result<Vec<Held>, Fault> {
        Ok(Vec::new())
    }
    async fn find(&self, _reference: &str) -> Result<Option<Held>, Fault> {
        Ok(None)
    }
    async fn pull(
        &self,
        _pull: &Pull,
        _progress: &(dyn Fn(Progress) + Send + Sync),
        _stop: &CancellationToken,
    ) -> Result<Pulled, Fault> {
        panic!("nobody pulls here")
    }
    async fn remove(&self, _reference: &str) -> Result<Removal, Fault> {
        Ok(Removal::Absent)
    }
    async fn events(&self) -> Result<BoxStream<'static, Result<Change, Fault>>, Fault> {
        Ok(stream::pending().boxed())
    }
    async fn disk(&self) -> Result<Disk, Fault> {
        Ok(Disk { free_bytes: None, total_bytes: None, images_bytes: 0 })
    }
}

fn about(name: &str) -> About {
    About {
        kind: EngineKind::Docker,
        id: Some(name.into()),
        hostname: name.trim_start_matches("i-").into(),
        version: "20.10".into(),
        os: "linux".into(),
        architecture: "x86_64".into(),
        labels: BTreeMap::new(),
    }
}

fn held(image: usize) -> Held {
    let digest = Digest::sha256_of(image.to_string().as_bytes());
    Held { digest, parts: Vec::new(), names: vec![name(image)], manifests: Vec::new(), size_bytes: 1 }
}

fn name(image: usize) -> String {
    format!("cr.invalid/lab/image-{image}:1")
}

async fn many_agents() {
    heading(&format!("fleet: {AGENTS} agents with {IMAGES} images each, in memory"));
    // The store is in memory: ten thousand agents that are met first are ten thousand commits, which are not measured
    // here.
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory");
    let names: Vec<String> = (1..=AGENTS).map(|number| format!("gpu{number:05}")).collect();
    {
        let store = Store::open(directory.path()).expect("a store");
        let fleet = load(&store);
        meet_all(&fleet, &names).await;
    }
    let store = Store::open(directory.path()).expect("a store");
    let reports: Vec<Vec<Held>> = (0..AGENTS).map(|_| (0..IMAGES).map(held).collect()).collect();
    let started = Instant::now();
    let fleet = load(&store);
    meet_all(&fleet, &names).await;
    for (name, report) in names.iter().zip(reports) {
        fleet.report(&format!("i-{name}"), fleet.begin_read(), report, None);
    }
    check("start: agents loaded, met and read", started.elapsed().as_secs_f64(), 2.0, " s");

    let caller = Caller {
        user: UserId::random(),
        email: "admin@localhost".into(),
        role: Role::Superadmin,
        domain: "default".into(),
        access_key: "AK".into(),
        origin: Origin::default(),
    };
    for (number, name) in names.iter().enumerate().take(64) {
        let zone = if number % 2 == 0 { "a" } else { "b" };
        let labels = BTreeMap::from([("zone".to_owned(), zone.to_owned())]);
        let change = AgentChange { labels: Some(labels), ..AgentChange::default() };
        fleet.change(&caller, &format!("i-{name}"), change).await.expect("a label");
    }
    let (name, digest) = (name(7), held(7).digest);
    let identity = Identity { config: &digest, manifest: None, index: None, architecture: "x86_64" };
    let sought = Sought { name: &name, identity, variants: &[] };
    let presence = timed(|| assert_eq!(fleet.image_presence(&caller, &sought).unwrap().len(), AGENTS));
    check("presence of one image over all agents", presence.as_secs_f64() * 1e3, 1.0, " ms");
    let expression = "*!(i-gpu[00001-05000],{zone=a})";
    let select = timed(|| assert!(fleet.select(&caller, expression).unwrap().unwrap().names.len() >= 4_000));
    check("the expression *!(i-gpu[00001-05000],{zone=a})", select.as_secs_f64() * 1e3, 10.0, " ms");
}

fn load(store: &Store) -> Fleet {
    let tenants = Tenants::load(store, jiff::Timestamp::UNIX_EPOCH).expect("tenants");
    Fleet::load(store, Clock::system(), stock::audit(store), tenants).expect("a fleet")
}

pub async fn meet_all(fleet: &Fleet, names: &[String]) {
    for name in names {
        let engine = Arc::new(Named(name.clone()));
        fleet.meet(&format!("docker+unix:///{name}"), engine, about(name)).await.expect("an agent");
    }
}

fn timed(work: impl Fn()) -> Duration {
    let times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let started = Instant::now();
            work();
            started.elapsed()
        })
        .collect();
    median(&times)
}

/// Pulls the same image by the engine's own command line and by a preload, in turn, so that both meet the machine in
/// the same state.
async fn one_pull(kind: EngineKind) {
    heading(&format!("preload: {LAYERS} layers of {} MiB onto a real {kind}", LAYER_BYTES / 1024 / 1024));
    let (Some(registry), Some(node)) = (RealRegistry::open().await, Node::start(kind).await) else {
        note("left out", "no registry or no such engine");
        return;
    };
    registry.push(&Image::new("lab/large", "1").real_layers(LAYERS, LAYER_BYTES)).await;
    let reference = format!("{}/lab/large:1", registry.host());
    let engine = node.url();
    let app = App::start_with(move |command| {
        command.args(["--engine", &engine]);
    })
    .await;
    let admin = app.admin();
    admin.add_registry(&registry).await;
    admin.scan(registry.host()).await;
    admin.agents_alive(1).await;
    let (mut own, mut ours, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=PULLS {
        let started = Instant::now();
        node.pull(&reference).await;
        let alone = started.elapsed();
        node.untag(&reference).await;
        let started = Instant::now();
        let (event, task) = admin.transfer_to_end("preload_image", &reference, "*").await;
        assert_eq!(event, "bgtask_done", "{task:#}");
        let preloaded = started.elapsed();
        node.untag(&reference).await;
        // The first round only brings the registry's files into the cache.
        if round > 0 {
            own.push(alone);
            ours.push(preloaded);
            ratios.push(preloaded.as_secs_f64() / alone.as_secs_f64());
        }
    }
    ratios.sort_by(f64::total_cmp);
    note(&format!("{kind}'s own pull"), &milliseconds(median(&own)));
    note("preload_image, until its last event", &milliseconds(median(&ours)));
    check("preload over own pull, median of the rounds", ratios[ratios.len() / 2], 1.05, "x");
}
